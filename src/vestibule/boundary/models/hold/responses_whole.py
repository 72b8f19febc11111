"""Whole answers of the OpenAI Responses API. The rules are those of `hold.responses`.

Source: Responses API reference, "The response object".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.base import Decided, Held, Problem, Scanned, Step, Told
from vestibule.boundary.models.hold.responses_items import (
    Earlier,
    continued,
    held_call,
    known_kind,
    our_item,
    tell,
)
from vestibule.boundary.models.wire.responses import AWAITED, CALLS, said
from vestibule.boundary.models.wire.sse import WireError, dumped, loads_marked


class ResponsesWhole:
    """A response that came in one piece."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._hold_text = hold_text
        self._provider_tools = provider_tools
        self._body = b""
        self._id = ""
        self._response: dict[str, Any] = {}
        self._places: list[int] = []
        self._problems: list[Problem] = []
        self._before: list[dict[str, Any]] = []
        self._shown: list[dict[str, Any]] = []
        self._denied: list[tuple[dict[str, Any], str]] = []
        self._turn: list[dict[str, Any]] = []
        self._earlier = Earlier()

    def feed(self, data: bytes) -> Step:
        self._body = data
        self._response = response = loads_marked(data)
        output = response.get("output")
        if response.get("object") != "response" or not isinstance(output, list):
            raise WireError("its answer is no response")
        if response.get("status", "completed") not in ("completed", "incomplete", "failed"):
            raise WireError("its answer is not finished")
        tell(self.told, response)
        self.told.started = True
        self.told.events = 1
        self._id = self._id or str(response.get("id") or "")
        held = [self._look(item) for item in output]
        self._problems = [item.problem if item is not None else "" for item in held]
        self._places = [place for place, item in enumerate(held) if item is not None]
        self.told.stopped = True
        asked = tuple(item for item in held if item is not None)
        return Step(b"", asked) if asked else self.decide(())

    def _look(self, item: Any) -> Held | None:
        kind = item.get("type") if isinstance(item, dict) else None
        if not known_kind(kind, self._provider_tools):
            raise WireError("its answer holds an item of an unknown kind")
        self.scanned.blocks += 1
        text = "".join(said(item))
        self.scanned.text_bytes += len(text)
        if kind == "message" and self._hold_text:
            return Held("text", arguments=text.encode("utf-8", "replace"))
        if kind not in CALLS:
            return None
        self.scanned.call()
        found = held_call(item)
        self.scanned.call_bytes += len(found.arguments)
        return found

    def decide(self, decided: Sequence[Decided]) -> Step:
        output = self._response["output"]
        shown = list(output)
        allowed, refused = 0, 0
        untouched = not self._before
        self._turn = list(output)
        for place, ruling in zip(self._places, decided, strict=True):
            item = output[place]
            kind = item["type"]
            # Whatever was decided: a call that is not whole cannot be released.
            released = ruling.allowed and not (kind in CALLS and self._problems[place])
            untouched &= released
            allowed += kind in AWAITED and released
            if released:
                continue
            shown[place] = our_item(ruling.text, self._id, len(self._before) + place)
            self.scanned.denied += kind in CALLS
            if kind in AWAITED:
                refused += 1
                self._denied.append((item, ruling.text))
            elif kind in CALLS:
                self._turn.remove(item)
        self._shown = [*self._before, *shown]
        text = "\n".join(part for item in shown for part in said(item))
        if refused and not allowed and self._response.get("status", "completed") == "completed":
            self.blocked = True
            return Step(b"", (), text)
        return Step(self._body if untouched else self._written(), (), text)

    def end(self) -> Step:
        return Step()

    def close(self) -> bytes:
        self.blocked = False
        return self._written()

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        found = continued(body, self._turn, self._denied)
        self._before = self._shown
        self._earlier = self._earlier.plus(self._response)
        self._denied = []
        self.blocked = False
        self.told = Told()
        return found

    def _written(self) -> bytes:
        response = {**self._response, "output": self._shown}
        response.update({"id": self._id} if self._id else {})
        response.update(self._earlier.added_to(response))
        return dumped(response)
