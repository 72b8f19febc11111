"""A conversation as scripts see it, whatever the wire format, and the turn that a script answers it with. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from vestibule.boundary.models.scripted.script import Script, ScriptedTool, ScriptedUsage, Turn

SIDE_TEXT = "Scripted side answer"
MARK = "[vestibule] "
"""How texts of the gateway's own in a model's answer begin: one stands where a refused call stood."""
_PIECE = 48


class Offer(NamedTuple):
    """A tool that the request offers, as the format names it."""

    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Talk:
    """What a script needs to know of a request.

    `prompt`: all text before the first answer. `answers`: the model's turns so far; a refused call that the gateway
    answered within a turn counts as one more, for it was one. `last_result`: texts of the newest tool results.
    """

    model: str
    stream: bool
    prompt: str
    answers: int
    last_result: str
    offered: tuple[Offer, ...]
    seed: str
    cached: bool = False
    history_bytes: int = 0
    """Bytes up to the last answer: what counts as read from the cache when `cached`."""
    total_bytes: int = 0


class Call(NamedTuple):
    """A tool call of the turn, as it is written."""

    id: str
    name: str
    namespace: str
    input: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """The turn that answers a talk."""

    talk: Talk
    id: str
    text: str
    calls: tuple[Call, ...]
    usage: ScriptedUsage
    latency_ms: int | None


class Renderer(Protocol):
    """One wire format."""

    def serves(self, path: str) -> bool: ...

    def talk(self, path: str, request: dict[str, Any]) -> Talk: ...

    def whole(self, reply: Reply) -> dict[str, Any]: ...

    def events(self, reply: Reply) -> Iterator[tuple[bytes, bool]]:
        """Frames as sent, each with whether it is a piece of text or call (after which a script may pause)."""
        ...

    def error(self, status: int, message: str) -> bytes: ...


def seed_of(value: Any) -> str:
    """A digest of the conversation, for ids that are the same whenever the same is asked."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def size_of(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def reply_to(script: Script, talk: Talk) -> Reply:
    """The script's turn for this point of the conversation."""
    turns = _turns(script, talk)
    turn = turns[talk.answers] if talk.answers < len(turns) else Turn(text=script.ended)
    while turn.when is not None and turn.when.last_result_contains not in talk.last_result:
        turn = turn.otherwise or Turn(text="The script has no answer to this.")
    if turn.tools and not talk.offered:
        # An agent program's own side call: it offers no tools, and the script's turn is not meant for it.
        turn = Turn(text=SIDE_TEXT, latency_ms=turn.latency_ms)
    calls = tuple(
        Call(f"call_{talk.seed[:16]}{number:02d}", *_spelt(tool, talk.offered, script.tool_prefix), tool.input)
        for number, tool in enumerate(turn.tools)
    )
    text = turn.text or ("" if calls else script.ended)
    usage = turn.usage or _estimate(talk, text, calls)
    return Reply(talk, talk.seed[:20], text, calls, usage, turn.latency_ms)


def pieces(text: str) -> Iterator[str]:
    for begin in range(0, len(text), _PIECE):
        yield text[begin : begin + _PIECE]


def refused_within(texts: Iterator[str]) -> int:
    """How many refused calls texts of the model's turns stand for: programs may keep several texts as one."""
    return sum(text.count(MARK) for text in texts)


def _turns(script: Script, talk: Talk) -> tuple[Turn, ...]:
    for conversation in script.conversations:
        if conversation.when.prompt_contains in talk.prompt:
            return conversation.turns
    return script.turns


def _spelt(tool: ScriptedTool, offered: tuple[Offer, ...], prefix: str) -> tuple[str, str]:
    """The offered tool that the script means: its very name, else the one that ends with it, else `prefix` + name."""
    for offer in offered:
        if offer.name == tool.name:
            return offer.name, offer.namespace
    for offer in offered:
        if offer.name.endswith((f"__{tool.name}", f"_{tool.name}", f"-{tool.name}")):
            return offer.name, offer.namespace
    return prefix + tool.name, ""


def _estimate(talk: Talk, text: str, calls: tuple[Call, ...]) -> ScriptedUsage:
    """Four bytes a token; with cache marks, what stood before the last answer counts as read from the cache."""
    output = max(1, -(-(len(text.encode()) + sum(size_of(call.input) for call in calls)) // 4))
    total, read = -(-talk.total_bytes // 4), -(-talk.history_bytes // 4)
    if not talk.cached:
        return ScriptedUsage(input_tokens=total, output_tokens=output)
    return ScriptedUsage(
        input_tokens=1,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=max(0, total - read - 1),
    )
