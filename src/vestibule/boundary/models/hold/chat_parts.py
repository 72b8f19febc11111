"""What a Chat Completions answer is made of: calls in pieces, and what a choice says. Pure; for the two machines.

Rules it keeps:
1. A call is judged by what every program would put together from its pieces: a piece that contradicts an earlier one
   (another id, a second name, another kind, calls numbered out of order) makes a call that is denied (`shape`).
2. A choice whose calls were all denied ends (`stop`) instead of waiting for results; of others the remaining calls are
   numbered from 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.anthropic_blocks import encoded
from vestibule.boundary.models.hold.base import MAX_HELD, Held, Problem, Scanned
from vestibule.boundary.models.wire.chat import CALL_ENDS

LEGACY = -1
"""The place of a call in the old form (`function_call`), of which a message has one at most."""
_PIECE_KEYS = {"index", "id", "type", "function", "custom", "extra_content"}


class CallParts:
    """One call under way."""

    def __init__(self, *, legacy: bool = False) -> None:
        self.id = ""
        self.legacy = legacy
        self.custom = False
        self.name = ""
        self.problem: Problem = ""
        self._arguments: list[str] = []
        self._bytes = 0

    def add(self, piece: dict[str, Any], scanned: Scanned) -> None:
        """A piece: an entry of `tool_calls`, or the value of `function_call`."""
        inner: Any = piece
        words = "arguments"
        if not self.legacy:
            if any(piece[key] is not None for key in piece.keys() - _PIECE_KEYS):
                self._bad()
            self._know(piece.get("id"))
            kind = piece.get("type")
            custom = kind == "custom" or piece.get("custom") is not None
            if kind not in (None, "", "function", "custom"):
                self._bad()
            if custom and (self.name or self._arguments) and not self.custom:
                self._bad()
            self.custom = self.custom or custom
            if self.custom and piece.get("function") is not None:
                self._bad()
            words = "input" if self.custom else "arguments"
            inner = piece.get("custom" if self.custom else "function")
            if inner is None:
                return
        if not isinstance(inner, dict) or any(inner[key] is not None for key in inner.keys() - {"name", words}):
            self._bad()
            return
        name, part = inner.get("name"), inner.get(words)
        if name:
            if not isinstance(name, str) or self.name:
                self._bad()
            else:
                self.name = name
        if part is not None and not isinstance(part, str):
            self._bad()
        elif part:
            self._arguments.append(part)
            size = len(part.encode("utf-8", "replace"))
            self._bytes += size
            scanned.call_bytes += size
            if self._bytes > MAX_HELD:
                self.spoil("oversized")

    def _know(self, found: Any) -> None:
        if not found:
            return
        if not isinstance(found, str) or (self.id and self.id != found):
            self._bad()
        else:
            self.id = found

    def _bad(self) -> None:
        self.spoil("shape")

    def spoil(self, problem: Problem) -> None:
        self.problem = self.problem or problem
        if problem == "oversized":
            self._arguments = []

    @property
    def text(self) -> str:
        return "".join(self._arguments)

    def as_held(self) -> Held:
        arguments = encoded(self.text)
        if arguments is None:
            # What is judged would not be what is read.
            self.spoil("json")
        return Held(
            "call",
            self.name,
            arguments=arguments or b"",
            form="text" if self.custom else "json",
            problem=self.problem,
            id=self.id,
        )

    def as_history(self, number: int) -> dict[str, Any]:
        """The call as the assistant's next turn has it: arguments that are no object would be refused there."""
        found = self.id or f"call_{number}"
        if self.custom:
            return {"id": found, "type": "custom", "custom": {"name": self.name or "unknown", "input": self.text}}
        return {
            "id": found,
            "type": "function",
            "function": {"name": self.name or "unknown", "arguments": _object_or_none(self.text)},
        }


class Choice:
    """One answer of the request's."""

    def __init__(self) -> None:
        self.calls: dict[int, CallParts] = {}
        self.held: dict[str, list[str]] = {}
        self.waiting = False
        self.ended = False
        self.reason: Any = None


def _object_or_none(text: str) -> str:
    try:
        return text if isinstance(json.loads(text), dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"


def spoil_by_end(calls: Sequence[CallParts], reason: Any) -> None:
    """Mark calls that the answer's end cut: by its length the last one, by anything unusual all of them."""
    if reason in CALL_ENDS:
        return
    for call in calls[-1:] if reason == "length" else calls:
        call.spoil("cut")


def end_reason(reason: Any, *, denied: bool, left: int) -> Any:
    """The end to tell, when calls were denied and `left` remain."""
    return "stop" if denied and not left and reason in ("tool_calls", "function_call") else reason


def continued(
    body: dict[str, Any], said: str, thoughts: str, denied: Sequence[tuple[CallParts, str]]
) -> dict[str, Any]:
    """The request that shows the model why its calls were refused."""
    turn: dict[str, Any] = {"role": "assistant", "content": said or None}
    if thoughts:
        # A model that thinks wants its thoughts back within a turn (DeepSeek refuses without).
        turn["reasoning_content"] = thoughts
    calls = [call.as_history(number) for number, (call, _) in enumerate(denied)]
    turn["tool_calls"] = calls
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": text}
        for call, (_, text) in zip(calls, denied, strict=True)
    ]
    return {**body, "messages": [*body["messages"], turn, *results]}


def joined(before: str, text: str) -> str:
    """`text` as it stands behind `before`: a paragraph of its own."""
    return f"\n\n{text}" if before and text else text


DeniedTexts = dict[Any, str | None]
"""What was denied (a call by its identity, a text by choice and key), and the text to say where it stood, once."""


def placed(denied: DeniedTexts, key: Any) -> list[str]:
    text = denied.get(key)
    if text is None:
        return []
    denied[key] = None
    return [text]
