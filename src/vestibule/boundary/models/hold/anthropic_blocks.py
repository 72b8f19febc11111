"""Blocks of an Anthropic message, and what becomes of them: held, written anew, shown to the model again. Pure.

Rules it keeps:
1. What is kept of a block is bounded: a held one by `MAX_HELD`, the turn that the model may be shown again likewise.
2. Text that UTF-8 cannot say (half a surrogate pair) has no one meaning: a call that holds it is no whole call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from vestibule.boundary.models.hold.base import MAX_HELD, Held, Problem
from vestibule.boundary.models.wire.anthropic import TextOf
from vestibule.boundary.models.wire.sse import Frame, Twice, WireError, dumped, has_twice, loads_marked, written

FLOWING = {"text": ("text_delta", "citations_delta"), "thinking": ("thinking_delta", "signature_delta")}
WHOLE_BLOCKS = ("redacted_thinking",)
CALL = "tool_use"
PROVIDER_CALLS = ("server_tool_use", "mcp_tool_use")
"""Carried out by the provider, which is only there when policy names the tool."""
CALLS = (CALL, *PROVIDER_CALLS)
_PROVIDER_RESULTS = "_tool_result"
MAX_SHOWN = 64 * 1024
"""Bytes of a refused call's arguments that the model is shown again: it wrote them, and pays for reading them."""


def known(kind: Any, provider_tools: bool) -> bool:
    """Whether a block of this kind has a place in an answer."""
    if kind in FLOWING or kind in WHOLE_BLOCKS or kind == CALL:
        return True
    return provider_tools and isinstance(kind, str) and (kind in PROVIDER_CALLS or kind.endswith(_PROVIDER_RESULTS))


def is_result(kind: str) -> bool:
    """Whether it is what a provider's own tool gave."""
    return kind.endswith(_PROVIDER_RESULTS)


class Block:
    """A block of a stream under way. `place` is its index for the agent."""

    def __init__(self, kind: str, place: int, start: dict[str, Any], *, held: bool) -> None:
        self.kind = kind
        self.place = place
        self.id = str(start.get("id") or "")
        self.held = held
        self.call = kind in CALLS
        self.problem: Problem = ""
        self.bytes = 0
        self._start = start
        self._kept: list[bytes] = []
        self._arguments = TextOf()
        self._texts = TextOf()
        self._signature = TextOf()

    def keep(self, raw: bytes, arguments: str = "") -> None:
        """Hold back one more frame of it."""
        self.bytes += len(raw)
        if self.bytes > MAX_HELD:
            self.problem = "oversized"
            self._kept, self._arguments, self._texts = [], TextOf(), TextOf()
        else:
            self._kept.append(raw)
            self._arguments.add(arguments)

    def add(self, kind: str, said: str) -> None:
        if self.problem or self.bytes > MAX_HELD:
            self._texts = TextOf()
        elif kind == "signature_delta":
            self._signature.add(said)
        else:
            self._texts.add(said)

    def text(self) -> str:
        return self._texts.get()

    def frames(self) -> bytes:
        return b"".join(self._kept)

    def as_held(self) -> Held:
        if not self.call:
            return Held("text", arguments=self.text().encode("utf-8", "replace"), problem=self.problem)
        given, parts, problem = self._start.get("input"), self._arguments.get(), self.problem
        if not problem and (not isinstance(given, dict) or (given and parts)):
            problem = "shape"
        elif not problem and given and has_twice(given):
            problem = "json"
        found = held_call(self._start, parts if parts or not isinstance(given, dict) else _json(given), problem)
        self.problem = found.problem
        return found

    @property
    def size(self) -> int:
        """Bytes that `as_content` takes, at most."""
        return min(self.bytes, MAX_SHOWN) if self.call else self.bytes

    def as_content(self) -> dict[str, Any]:
        """The block as the assistant's next turn has it."""
        if self.call:
            return {**self._start, "input": self._input()}
        if self.kind == "thinking":
            signature = self._signature.get() or self._start.get("signature") or ""
            return {"type": "thinking", "thinking": self.text(), "signature": signature}
        if self.kind == "text":
            return {"type": "text", "text": self.text()}
        return self._start

    def _input(self) -> dict[str, Any]:
        given, parts = self._start.get("input"), self._arguments.get()
        if self.problem or self.bytes > MAX_SHOWN:
            return {}
        if not parts:
            return given if isinstance(given, dict) and not has_twice(given) else {}
        try:
            value = json.loads(parts)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def held_call(block: dict[str, Any], arguments: str, problem: Problem) -> Held:
    """The question about one call. `arguments`: their JSON as a client joins it."""
    found, data = block.get("name"), encoded(arguments)
    name = found if isinstance(found, str) and encoded(found) is not None else ""
    if data is None:
        data, problem = b"", problem or "json"
    return Held("call", name, arguments=data, problem=problem, id=str(block.get("id") or ""))


def encoded(text: str) -> bytes | None:
    """The text in UTF-8; None when it holds half a surrogate pair, which has no bytes."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        pass
    try:
        # Halves of a pair that came in two pieces are one character, for clients whose strings are UTF-16 too.
        return text.encode("utf-16", "surrogatepass").decode("utf-16").encode("utf-8")
    except UnicodeError:
        return None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class Turn:
    """What the model said in one provider answer, for the case that it is shown again with the refusals."""

    def __init__(self) -> None:
        self.content: list[dict[str, Any]] = []
        self.denied: list[tuple[str, str]] = []
        self.hidden: dict[str, str] = {}
        """Calls of the provider's own tools that were denied, with the reason: their results are not shown either."""
        self._open = True
        self._released = False
        self._room = MAX_HELD

    @property
    def stands(self) -> bool:
        """Whether the model can be asked again: calls were denied, none was released, and all was kept."""
        return self._open and bool(self.denied)

    @property
    def ends(self) -> bool:
        """Whether no call is left that the agent's program could answer."""
        return bool(self.denied) and not self._released

    def release(self) -> None:
        """A call was released: the agent's program goes on from here, nothing is asked again."""
        self._released = True
        self._forget()

    def add(self, block: dict[str, Any], size: int) -> None:
        self._room -= size
        if self._room < 0:
            self._forget()
        if self._open and (block.get("type") != "text" or block.get("text")):
            self.content.append(block)

    def _forget(self) -> None:
        self._open = False
        self.content = []


def twice_beyond_input(value: dict[str, Any], block: Any) -> bool:
    """Whether a key stands twice anywhere but in `block`'s input, where it is a call's to answer for."""
    if isinstance(value, Twice) or isinstance(block, Twice):
        return True
    shell = {key: item for key, item in value.items() if item is not block}
    if not isinstance(block, dict):
        return has_twice(shell)
    call = block.get("type") in CALLS
    return has_twice(shell) or has_twice({key: item for key, item in block.items() if not (call and key == "input")})


def marked_start(data: bytes) -> dict[str, Any]:
    """An event in which a key stands twice: only a call's arguments may, which denies that call.

    Raises:
        WireError: it stands elsewhere, or this is no event.
    """
    value = loads_marked(data)
    block = value.get("content_block")
    if value.get("type") != "content_block_start" or twice_beyond_input(value, block):
        raise WireError("a key stands twice in an event of the provider's answer")
    return value


def words(value: Any) -> Iterator[str]:
    """Every string within, for matching: what a provider's tool gave, and what is cited."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(reversed(item.values()))
        elif isinstance(item, list):
            waiting.extend(reversed(item))


def said(content: Sequence[dict[str, Any]]) -> str:
    """What blocks say to the agent, thoughts, citations and results of the provider's tools included."""
    parts: list[str] = []
    for block in content:
        kind = str(block.get("type"))
        if kind in FLOWING:
            parts.append(str(block.get("text") or block.get("thinking") or ""))
            parts += words(block.get("citations"))
        elif is_result(kind):
            parts += words(block.get("content"))
    return "\n".join(part for part in parts if part)


def shifted(frame: Frame, value: dict[str, Any], shift: int) -> bytes:
    """The frame as it came, or with the index that its block has in a continued message."""
    if not shift:
        return frame.raw
    return written({**value, "index": value["index"] + shift}, str(value.get("type") or ""))


def text_block(place: int, text: str) -> bytes:
    """A text block of our own, never empty: an empty one is rejected when the history is sent back."""
    start = {"type": "content_block_start", "index": place, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": place, "delta": {"type": "text_delta", "text": text or EMPTY}}
    stop = {"type": "content_block_stop", "index": place}
    return b"".join(written(item, str(item["type"])) for item in (start, delta, stop))


EMPTY = "…"


def continued(body: dict[str, Any], turn: Turn) -> dict[str, Any]:
    """The request that shows the model why its calls were refused."""
    results = [
        {"type": "tool_result", "tool_use_id": call, "is_error": True, "content": text} for call, text in turn.denied
    ]
    turns = [{"role": "assistant", "content": turn.content}, {"role": "user", "content": results}]
    # Half a surrogate pair cannot be sent on: as the question mark that it is everywhere else.
    plain = json.loads(dumped({"turns": turns}).decode("utf-8"))["turns"]
    try:
        json.dumps(plain, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        plain = json.loads(json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace"))
    return {**body, "messages": [*body["messages"], *plain]}
