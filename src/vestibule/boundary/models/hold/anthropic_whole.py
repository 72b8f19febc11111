"""Answers of the Anthropic Messages API that come in one piece: messages, and counts of tokens.

Rules it keeps (with those of `hold.base` and `hold.anthropic`):
1. A key that stands twice denies the call in whose arguments it is; anywhere else this is no answer.
2. Nothing leaves before every call of the message is decided.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.anthropic_blocks import (
    CALL,
    CALLS,
    EMPTY,
    FLOWING,
    MAX_SHOWN,
    Turn,
    continued,
    held_call,
    is_result,
    known,
    said,
    twice_beyond_input,
)
from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Held, Problem, Scanned, Step, Told
from vestibule.boundary.models.wire.anthropic import read_usage
from vestibule.boundary.models.wire.sse import (
    Twice,
    WireError,
    count,
    dumped,
    has_twice,
    is_count,
    loads_looked,
    loads_once,
    word,
)


class AnthropicWhole:
    """A message in one piece."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._hold_text = hold_text
        self._provider_tools = provider_tools
        self._body = b""
        self._marked = False
        """Whether a key stands twice somewhere in it."""
        self._message: dict[str, Any] = {}
        self._held: list[tuple[int, Problem]] = []
        self._earlier: list[dict[str, Any]] = []
        self._earlier_output = 0
        self._turn = Turn()
        self._shown: list[dict[str, Any]] = []

    def feed(self, data: bytes) -> Step:
        message, self._marked = loads_looked(data)
        usage, content = message.get("usage"), message.get("content")
        self.told = Told(started=True, events=1, stop_reason=word(message.get("stop_reason")))
        if isinstance(usage, dict):
            self.told.tokens = read_usage(usage)
            self.told.reported = all(is_count(usage.get(key)) for key in ("input_tokens", "output_tokens"))
        if message.get("type") != "message" or not isinstance(content, list):
            raise WireError("its answer is no message")
        rest = {key: message[key] for key in message if key != "content"} if self._marked else {}
        if self._marked and (isinstance(message, Twice) or has_twice(rest)):
            raise WireError("a key stands twice in the provider's answer")
        self._body, self._message, self._turn, self._held = data, message, Turn(), []
        asked: list[Held] = []
        for place, block in enumerate(content):
            held = self._look(block)
            if held is not None:
                asked.append(held)
                self._held.append((place, held.problem))
        self.told.stopped = True
        return Step(b"", tuple(asked)) if asked else self.decide(())

    def _look(self, block: Any) -> Held | None:
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str) or not known(kind, self._provider_tools):
            raise WireError("its answer holds a block of an unknown kind")
        if self._marked and twice_beyond_input({}, block):
            raise WireError("a key stands twice in the provider's answer")
        self.scanned.blocks += 1
        if kind in FLOWING:
            text = block.get(kind)
            if text is not None and not isinstance(text, str):
                raise WireError("a text of its answer is no text")
        self.scanned.text_bytes += len(said((block,)).encode("utf-8", "replace"))
        if kind == "text" and self._hold_text:
            words = str(block.get("text") or "").encode("utf-8", "replace")
            return Held("text", arguments=words if len(words) <= MAX_HELD else b"", problem=_fits(words))
        if kind not in CALLS:
            return None
        self.scanned.call()
        given = block.get("input")
        problem: Problem = "shape" if not isinstance(given, dict) else ""
        if not problem and self._marked and has_twice(given):
            problem = "json"
        text = json.dumps(given, ensure_ascii=False)
        size = len(text.encode("utf-8", "replace"))
        self.scanned.call_bytes += size
        return held_call(block, text if size <= MAX_HELD else "", problem if size <= MAX_HELD else "oversized")

    def decide(self, decided: Sequence[Decided]) -> Step:
        content = list(self._message["content"])
        rulings = dict(zip(self._held, decided, strict=True))
        untouched = not self._earlier
        for (place, problem), ruling in rulings.items():
            block = content[place]
            allowed = ruling.allowed and not problem
            if block.get("type") == CALL and allowed:
                self._turn.release()
            if allowed:
                continue
            untouched = False
            content[place] = {"type": "text", "text": ruling.text or EMPTY}
            if block.get("type") in CALLS:
                self._denied(block, ruling.text)
        for place, block in enumerate(content):
            why = self._turn.hidden.get(str(block.get("tool_use_id") or "")) if is_result(str(block["type"])) else None
            if why is not None:
                content[place] = {"type": "text", "text": why or EMPTY}
        self._shown = [*self._earlier, *content]
        for block in self._message["content"]:
            again = _shown_again(block)
            self._turn.add(again, len(json.dumps(again)))
        tool_use = self._message.get("stop_reason") == "tool_use"
        if tool_use and self._turn.stands:
            self.blocked = True
            return Step(text=said(content))
        reason = "end_turn" if tool_use and self._turn.ends else None
        return Step(self._body if untouched else self._written(reason), (), said(content))

    def _denied(self, block: dict[str, Any], why: str) -> None:
        self.scanned.denied += 1
        name = str(block.get("id") or "")
        if block.get("type") == CALL:
            self._turn.denied.append((name, why))
        else:
            self._turn.hidden[name] = why

    def end(self) -> Step:
        return Step()

    def close(self) -> bytes:
        self.blocked = False
        return self._written("end_turn")

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        found = continued(body, self._turn)
        self._earlier = self._shown
        self._earlier_output += self.told.tokens.output
        self.blocked = False
        self.told = Told()
        return found

    def _written(self, reason: str | None) -> bytes:
        message = {**self._message, "content": self._shown}
        if reason is not None:
            message.update({"stop_reason": reason, "stop_sequence": None})
        if self._earlier_output:
            usage = message.get("usage")
            output = self.told.tokens.output + self._earlier_output
            message["usage"] = {**(usage if isinstance(usage, dict) else {}), "output_tokens": output}
        return dumped(message)


class AnthropicCount:
    """An answer of `count_tokens`: a number, and free."""

    def __init__(self) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False

    def feed(self, data: bytes) -> Step:
        value = loads_once(data)
        found = value.get("input_tokens")
        if set(value) - {"input_tokens", "context_management"} or found is None or count(found) != found:
            raise WireError("its answer is no count of tokens")
        self.told = Told(started=True, reported=True, stopped=True, events=1)
        return Step(data)

    def decide(self, decided: Sequence[Decided]) -> Step:  # noqa: ARG002 the protocol's
        raise ValueError("nothing waits for a decision")

    def end(self) -> Step:
        return Step()

    def close(self) -> bytes:
        raise ValueError("a count has no turn to end")

    def again(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        raise ValueError("a count has no turn to go on with")


def _fits(words: bytes) -> Problem:
    return "" if len(words) <= MAX_HELD else "oversized"


def _shown_again(block: dict[str, Any]) -> dict[str, Any]:
    """The block as the assistant's next turn has it."""
    if block.get("type") == "text":
        return {"type": "text", "text": block.get("text") or ""}
    if block.get("type") in CALLS:
        given = block.get("input")
        small = isinstance(given, dict) and not has_twice(given) and len(json.dumps(given)) <= MAX_SHOWN
        return {**block, "input": given if small else {}}
    return block


__all__ = ["AnthropicCount", "AnthropicWhole"]
