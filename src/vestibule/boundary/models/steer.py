"""Telling the model what is left of the budget, within its own conversation.

Rules it keeps:
1. A text is ours alone, stands in a user's turn, and goes after everything that the agent's program wrote there.
2. It is said once for each threshold and conversation, and then stays where it was said: later requests of the same
   conversation carry it at the same place, so that what providers cache of a prompt stays valid.
3. What is remembered is bounded, and is digests and our own sentences.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from vestibule.boundary.models.formats.base import Asked, FormatName
from vestibule.core.model import Budget, Usage
from vestibule.cost.steering import THRESHOLDS, note_for

MAX_CONVERSATIONS = 64
_MARKS = ("cache_control",)
"""Fields that programs move from turn to turn of the same conversation."""


class _Said(NamedTuple):
    percent: int
    text: str
    at: int
    mark: str


@dataclass(slots=True)
class Steering:
    """One run's. `spent` is what it has used so far."""

    budget: Budget
    spent: Usage
    _said: OrderedDict[str, list[_Said]] = field(default_factory=OrderedDict)

    def note(self, usage: Usage) -> None:
        """A request was settled."""
        if self.budget.nano_usd or self.budget.tokens:
            self.spent = self.spent.plus(usage)

    def tell(self, asked: Asked) -> Asked:
        """The request with what is to be said in it; the same object when there is nothing."""
        due = note_for(self.budget, self.spent)
        if due is None or asked.operation != "generate":
            return asked
        body = asked.body
        turns = _turns(asked.format, body)
        at = next((i for i in range(len(turns) - 1, -1, -1) if _from_user(asked.format, turns[i])), None)
        first = next((i for i in range(len(turns)) if _from_user(asked.format, turns[i])), None)
        if at is None or first is None:
            return asked
        said = self._conversation(_mark(turns[first]))
        if all(item.percent < due.percent for item in said):
            said.append(_Said(due.percent, due.text, at, _mark(turns[at])))
        standing = [item for item in said if item.at < len(turns) and _mark(turns[item.at]) == item.mark]
        # From the last to the first: what is put in moves nothing that is still to be found.
        for item in sorted(standing, key=lambda item: (-item.at, -item.percent)):
            turns = _with(asked.format, turns, item.at, item.text)
        return replace(asked, body={**body, _KEYS[asked.format]: turns}, changed=True) if standing else asked

    def _conversation(self, key: str) -> list[_Said]:
        said = self._said.setdefault(key, [])
        self._said.move_to_end(key)
        while len(self._said) > MAX_CONVERSATIONS:
            self._said.popitem(last=False)
        return said


_KEYS: dict[FormatName, str] = {
    "anthropic": "messages",
    "chat": "messages",
    "responses": "input",
    "gemini": "contents",
}


def _turns(form: FormatName, body: dict[str, Any]) -> list[Any]:
    found = body.get(_KEYS[form])
    if form == "responses" and isinstance(found, str):
        return [{"type": "message", "role": "user", "content": found}]
    return found if isinstance(found, list) else []


def _from_user(form: FormatName, turn: Any) -> bool:
    """Whether the model reads it as what came from outside: a user's words, or what a tool gave back."""
    if not isinstance(turn, dict):
        return False
    if form == "chat":
        return turn.get("role") in ("user", "tool")
    if form == "responses":
        kind = str(turn.get("type") or "message")
        return bool(turn.get("role") == "user" if kind == "message" else kind.endswith("_output"))
    return bool(turn.get("role", "user") == "user")


def _mark(turn: Any) -> str:
    """The same for the same turn in a later request."""
    return hashlib.sha256(json.dumps(_plain(turn), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in _MARKS}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _with(form: FormatName, turns: list[Any], at: int, text: str) -> list[Any]:
    """Within the turn where that can hold more than one part, else in a turn of its own behind it."""
    turn = turns[at]
    if form == "anthropic":
        content = turn.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
        return [*turns[:at], {**turn, "content": [*blocks, {"type": "text", "text": text}]}, *turns[at + 1 :]]
    if form == "gemini":
        return [*turns[:at], {**turn, "parts": [*(turn.get("parts") or ()), {"text": text}]}, *turns[at + 1 :]]
    own: dict[str, Any] = {"role": "user", "content": text}
    if form == "responses":
        own = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return [*turns[: at + 1], own, *turns[at + 1 :]]


__all__ = ["THRESHOLDS", "Steering"]
