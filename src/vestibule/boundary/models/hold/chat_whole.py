"""Answers of OpenAI Chat Completions that came in one piece. The rules are those of the stream (`hold.chat`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.base import Decided, Held, Scanned, Step, Told
from vestibule.boundary.models.hold.chat_parts import CallParts, continued, end_reason, joined, spoil_by_end
from vestibule.boundary.models.wire.chat import (
    CALL_ENDS,
    TEXTS,
    THOUGHTS,
    choices_of,
    parts_of,
    read_usage,
    reported,
    words_of,
)
from vestibule.boundary.models.wire.sse import WireError, has_twice, loads_marked, word


class ChatWhole:
    """A whole answer. `single`: one choice was asked for."""

    def __init__(self, *, hold_text: bool = False, single: bool = True) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._hold_text = hold_text
        self._single = single
        self._body = b""
        self._answer: dict[str, Any] = {}
        self._held: list[tuple[int, str | int]] = []
        self._calls: list[list[CallParts]] = []
        self._denied: list[tuple[CallParts, str]] = []
        self._earlier = ""
        self._earlier_output = 0
        self._shown: list[dict[str, Any]] = []

    def feed(self, data: bytes) -> Step:
        self._body = data
        self._answer = answer = loads_marked(data)
        choices = choices_of(answer)
        if not choices or (self._single and len(choices) != 1):
            raise WireError("it gave more or fewer answers than were asked for")
        self.told.started = self.told.stopped = True
        self.told.events = 1
        if reported(answer.get("usage")):
            self.told.tokens, self.told.reported = read_usage(answer["usage"]), True
        self.told.stop_reason = word(choices[0].get("finish_reason"))
        twice = has_twice(answer)
        self._held, self._calls, asked = [], [], []
        for place, choice in enumerate(choices):
            asked += self._look(place, choice, twice=twice)
        if twice and not any(isinstance(item, int) for _, item in self._held):
            raise WireError("a key stands twice in its answer")
        return Step(b"", tuple(asked)) if asked else self.decide(())

    def _look(self, place: int, choice: dict[str, Any], *, twice: bool) -> list[Held]:
        message = parts_of(choice, "message")
        asked = []
        for key in (*TEXTS, *THOUGHTS):
            said = message.get(key)
            if not said:
                continue
            self.scanned.blocks += 1
            self.scanned.text_bytes += len(said)
            if self._hold_text and key in TEXTS:
                self._held.append((place, key))
                asked.append(Held("text", arguments=said.encode("utf-8", "replace")))
        calls = []
        for piece in message.get("tool_calls") or ():
            self.scanned.call()
            calls.append(CallParts())
            calls[-1].add(piece, self.scanned)
        if message.get("function_call"):
            self.scanned.call()
            calls.append(CallParts(legacy=True))
            calls[-1].add(message["function_call"], self.scanned)
        spoil_by_end(calls, choice.get("finish_reason"))
        for number, call in enumerate(calls):
            if twice:
                call.spoil("json")
            self._held.append((place, number))
            asked.append(call.as_held())
        self.scanned.blocks += len(calls)
        self._calls.append(calls)
        return asked

    def decide(self, decided: Sequence[Decided]) -> Step:
        if len(decided) != len(self._held):
            raise ValueError("nothing waits for so many decisions")
        rulings = dict(zip(self._held, decided, strict=True))
        choices = self._answer["choices"]
        allowed = 0
        self._shown = []
        for place, choice in enumerate(choices):
            shown, left = self._judged(place, choice, rulings)
            allowed += left
            self._shown.append(shown)
        untouched = not self._denied and all(ruling.allowed for ruling in decided) and not self._earlier
        if self._single and self._denied and not allowed and choices[0].get("finish_reason") in CALL_ENDS:
            self.blocked = True
        said = "\n".join(words_of(choice["message"]) for choice in self._shown)
        if self.blocked:
            return Step(b"", (), said)
        return Step(self._body if untouched else self._written(), (), said)

    def _judged(
        self, place: int, choice: dict[str, Any], rulings: dict[tuple[int, str | int], Decided]
    ) -> tuple[dict[str, Any], int]:
        """The choice as it may be shown, and how many calls it has left."""
        message = dict(choice.get("message") or {})
        content = self._earlier
        said = rulings.get((place, "content"), Decided(True))
        content += joined(content, (message.get("content") or "") if said.allowed else said.text)
        refused = rulings.get((place, "refusal"))
        if refused is not None and not refused.allowed:
            message["refusal"] = None
            content += joined(content, refused.text)
        left: set[int] = set()
        denied = 0
        for number, call in enumerate(self._calls[place]):
            ruling = rulings[place, number]
            if ruling.allowed and not call.problem:
                left.add(number)
                continue
            denied += 1
            self.scanned.denied += 1
            self._denied.append((call, ruling.text))
            content += joined(content, ruling.text)
        if denied:
            pieces = [piece for number, piece in enumerate(message.get("tool_calls") or ()) if number in left]
            message.pop("tool_calls", None)
            if pieces:
                message["tool_calls"] = pieces
            if not any(self._calls[place][number].legacy for number in left):
                message.pop("function_call", None)
        message["content"] = content or message.get("content")
        if not said.allowed and not content:
            message["content"] = None
        reason = end_reason(choice.get("finish_reason"), denied=bool(denied), left=len(left))
        return {**choice, "message": message, "finish_reason": reason}, len(left)

    def end(self) -> Step:
        return Step()

    def close(self) -> bytes:
        self.blocked = False
        return self._written()

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        message = self._answer["choices"][0].get("message") or {}
        found = continued(body, message.get("content") or "", message.get("reasoning_content") or "", self._denied)
        self._earlier = self._shown[0]["message"].get("content") or ""
        self._earlier_output += self.told.tokens.output
        self._denied = []
        self.blocked = False
        self.told = Told()
        return found

    def _written(self) -> bytes:
        answer = {**self._answer, "choices": self._shown}
        if self._earlier_output and isinstance(answer.get("usage"), dict):
            output = self.told.tokens.output + self._earlier_output
            total = self.told.tokens.all_input + output
            answer["usage"] = {**answer["usage"], "completion_tokens": output, "total_tokens": total}
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
