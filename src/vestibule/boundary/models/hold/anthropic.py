"""Answers of the Anthropic Messages API: text flows, a tool call waits for its decision.

Rules it keeps (with those of `hold.base`):
1. Blocks come one after the other, each `start`, deltas, `stop`; anything else is no answer.
2. A denied call becomes a text block at the same index, so that indices stay dense; a message whose calls were all
   denied ends its turn (`end_turn`) instead of waiting for results. Thoughts and their signatures are never touched.
3. Usage is cumulative: of two reports the larger counts, never their sum; what `message_start` says of output is a
   placeholder (litellm #37992).
4. A continued message keeps its first start; blocks of later provider answers get the next indices, the counts of
   output are added up.

Source: Messages API reference, "Streaming messages", "Handling stop reasons".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Held, Problem, Scanned, Step, Told
from vestibule.boundary.models.wire.anthropic import TextOf, merged, read_usage
from vestibule.boundary.models.wire.sse import Frame, Frames, WireError, has_twice, loads, loads_marked, word, written

_FLOWING = {"text": ("text_delta", "citations_delta"), "thinking": ("thinking_delta", "signature_delta")}
_WHOLE_BLOCKS = ("redacted_thinking",)
_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")
_PROVIDER_RESULTS = "_tool_result"
"""What a provider's own tool gave. Only there when policy names the tool; else no such block can come."""


class AnthropicStream:
    """A streamed message."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._frames = Frames()
        self._queue: list[Frame] = []
        self._hold_text = hold_text
        self._provider_tools = provider_tools
        self._open: _Block | None = None
        self._waiting: _Block | None = None
        self._shift = 0
        self._next = 0
        self._continued = False
        self._content: list[dict[str, Any]] = []
        self._denied: list[tuple[str, str]] = []
        self._allowed = 0
        self._earlier_output = 0
        self._last_delta: dict[str, Any] | None = None
        self._text: list[str] = []

    def feed(self, data: bytes) -> Step:
        self._queue += self._frames.feed(data)
        return self._go()

    def decide(self, decided: Sequence[Decided]) -> Step:
        block = self._waiting
        if block is None or len(decided) != 1:
            raise ValueError("nothing waits for so many decisions")
        self._waiting = None
        ruling = decided[0]
        out = bytearray()
        if block.kind == "text":
            text = block.text() if ruling.allowed else ruling.text
            self._text.append(text)
            self._content.append({"type": "text", "text": block.text()})
            out += b"".join(block.frames(self._shift)) if ruling.allowed else text_block(block.place, text)
        elif ruling.allowed:
            self._allowed += 1
            self._content.append(block.as_content())
            out += b"".join(block.frames(self._shift))
        else:
            self.scanned.denied += 1
            self._denied.append((block.id, ruling.text))
            self._content.append(block.as_content())
            self._text.append(ruling.text)
            out += text_block(block.place, ruling.text)
        step = self._go()
        step.out = bytes(out) + step.out
        return step

    def end(self) -> Step:
        self._queue += self._frames.flush()
        step = self._go()
        if not self.told.stopped and not self.told.failed:
            raise WireError("its answer ended before its last event")
        return step

    def close(self) -> bytes:
        self.blocked = False
        return self._closing("end_turn") + written({"type": "message_stop"}, "message_stop")

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        found = continued(body, self._content, self._denied)
        self._earlier_output += self.told.tokens.output
        self._shift = self._next
        self._continued = True
        self._content, self._denied, self._allowed = [], [], 0
        self._last_delta = None
        self.blocked = False
        self.told = Told()
        self._frames = Frames()
        self._queue = []
        return found

    def _go(self) -> Step:
        out: list[bytes] = []
        held: tuple[Held, ...] = ()
        while self._queue and not held and not self.told.stopped:
            raw, ask = self._see(self._queue.pop(0))
            if raw:
                out.append(raw)
            if ask is not None:
                held = (ask,)
        text, self._text = "".join(self._text), []
        return Step(b"".join(out), held, text)

    def _see(self, frame: Frame) -> tuple[bytes, Held | None]:
        if not frame.data:
            return frame.raw, None
        value = loads(frame.data)
        kind = value.get("type")
        if frame.event and frame.event != kind:
            raise WireError("an event's name and its type differ")
        self.told.events += 1
        if kind == "content_block_delta":
            return self._delta(frame, value), None
        if kind == "content_block_start":
            return self._start(frame, value), None
        if kind == "content_block_stop":
            return self._stop(frame, value)
        if kind == "message_start":
            return self._begin(frame, value), None
        if kind == "message_delta":
            return self._end_of_message(frame, value), None
        if kind == "message_stop":
            self._no_block_open()
            self.told.stopped = True
            return b"" if self.blocked else frame.raw, None
        if kind == "ping":
            return frame.raw, None
        if kind == "error":
            self.told.failed = True
            return frame.raw, None
        raise WireError("its answer holds an event of an unknown kind")

    def _begin(self, frame: Frame, value: dict[str, Any]) -> bytes:
        message = value.get("message")
        if self.told.started or not isinstance(message, dict) or message.get("content"):
            raise WireError("its answer begins in no known way")
        self.told.started = True
        usage = message.get("usage")
        if isinstance(usage, dict):
            self.told.tokens = read_usage(usage)
        return b"" if self._continued else frame.raw

    def _start(self, frame: Frame, value: dict[str, Any]) -> bytes:
        self._no_block_open()
        block, index = value.get("content_block"), value.get("index")
        if not self.told.started or not isinstance(block, dict) or index != self._next - self._shift:
            raise WireError("a block of its answer begins out of order")
        kind = block.get("type")
        provider = isinstance(kind, str) and kind.endswith(_PROVIDER_RESULTS) and self._provider_tools
        if kind not in _FLOWING and kind not in _CALLS and kind not in _WHOLE_BLOCKS and not provider:
            raise WireError("its answer holds a block of an unknown kind")
        held = kind in _CALLS or (kind == "text" and self._hold_text)
        self._open = _Block(str(kind), self._next, block, held=held, marked=loads_marked(frame.data) if held else None)
        self._next += 1
        self.scanned.blocks += 1
        if kind == "text":
            self._open.add_text(str(block.get("text") or ""))
        if held:
            self._open.keep(frame, self.scanned)
            return b""
        return self._shifted(frame, value)

    def _delta(self, frame: Frame, value: dict[str, Any]) -> bytes:
        block, delta = self._open, value.get("delta")
        if block is None or not isinstance(delta, dict) or value.get("index") != block.place - self._shift:
            raise WireError("a part of its answer belongs to no block")
        kind = delta.get("type")
        if block.kind in _CALLS:
            if kind != "input_json_delta" or not isinstance(delta.get("partial_json"), str):
                raise WireError("a part of a call is of another kind")
            block.keep(frame, self.scanned, delta["partial_json"])
            return b""
        if kind not in _FLOWING.get(block.kind, ()):
            raise WireError("a part of its answer is of another kind than its block")
        block.add(str(kind), delta)
        if block.held:
            block.keep(frame, self.scanned)
            return b""
        if kind in ("text_delta", "thinking_delta"):
            said = delta.get("text" if kind == "text_delta" else "thinking")
            if isinstance(said, str):
                self._text.append(said)
                self.scanned.text_bytes += len(said)
        return self._shifted(frame, value)

    def _stop(self, frame: Frame, value: dict[str, Any]) -> tuple[bytes, Held | None]:
        block = self._open
        if block is None or value.get("index") != block.place - self._shift:
            raise WireError("a block of its answer ends that is not open")
        self._open = None
        if not block.held:
            self._content.append(block.as_content())
            return self._shifted(frame, value), None
        block.keep(frame, self.scanned)
        self._waiting = block
        if block.kind in _CALLS:
            self.scanned.calls += 1
        return b"", block.as_held()

    def _end_of_message(self, frame: Frame, value: dict[str, Any]) -> bytes:
        self._no_block_open()
        usage, delta = value.get("usage"), value.get("delta")
        if isinstance(usage, dict):
            self.told.tokens, self.told.reported = merged(self.told.tokens, usage, self.told.reported)
        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
        self.told.stop_reason = word(reason)
        if self._denied and not self._allowed and reason == "tool_use":
            self.blocked = True
            self._last_delta = value
            return b""
        if not self._continued:
            return frame.raw
        self._last_delta = value
        return self._closing(None)

    def _closing(self, reason: str | None) -> bytes:
        """The message's last delta, with `reason` if given, and the output of all provider answers in it."""
        value = dict(self._last_delta or {"type": "message_delta", "delta": {}})
        if reason is not None:
            value["delta"] = {**(value.get("delta") or {}), "stop_reason": reason, "stop_sequence": None}
        usage = dict(value.get("usage") or {})
        usage["output_tokens"] = self.told.tokens.output + self._earlier_output
        value["usage"] = usage
        return written(value, "message_delta")

    def _no_block_open(self) -> None:
        if self._open is not None:
            raise WireError("a block of its answer never ended")

    def _shifted(self, frame: Frame, value: dict[str, Any]) -> bytes:
        return shifted(frame, value, self._shift)


class _Block:
    """A block under way. `place` is its index for the agent."""

    def __init__(self, kind: str, place: int, start: dict[str, Any], *, held: bool, marked: Any = None) -> None:
        self.kind = kind
        self.place = place
        self.id = str(start.get("id") or "")
        self.held = held
        self._start = start
        self._marked = marked
        self._kept: list[Frame] = []
        self._bytes = 0
        self._arguments = TextOf()
        self._texts = TextOf()
        self._citations: list[Any] = []
        self._signature = TextOf()
        self.problem: Problem = ""

    def keep(self, frame: Frame, scanned: Scanned, arguments: str = "") -> None:
        self._bytes += len(frame.raw)
        if self.problem:
            return
        if self._bytes > MAX_HELD:
            self.problem = "oversized"
            self._kept, self._arguments = [], TextOf()
            return
        self._kept.append(frame)
        self._arguments.add(arguments)
        scanned.call_bytes += len(frame.raw) if self.kind in _CALLS else 0

    def add_text(self, text: str) -> None:
        self._texts.add(text)

    def add(self, kind: str, delta: dict[str, Any]) -> None:
        if kind == "citations_delta":
            self._citations.append(delta.get("citation"))
        elif kind == "signature_delta":
            self._signature.add(str(delta.get("signature") or ""))
        else:
            self._texts.add(str(delta.get("text" if kind == "text_delta" else "thinking") or ""))

    def text(self) -> str:
        return self._texts.get()

    def frames(self, shift: int) -> list[bytes]:
        return [shifted(frame, None, shift) for frame in self._kept]

    def as_held(self) -> Held:
        if self.kind == "text":
            return Held("text", arguments=self.text().encode("utf-8", "replace"), problem=self.problem)
        parts, given = self._arguments.get(), self._start.get("input")
        problem = self.problem
        if not problem and (not isinstance(given, dict) or (given and parts)):
            problem = "shape"
        elif not problem and has_twice(self._marked):
            problem = "json"
        text = parts if parts or not isinstance(given, dict) else json.dumps(given, ensure_ascii=False)
        name = self._start.get("name")
        return Held(
            "call",
            name if isinstance(name, str) else "",
            arguments=text.encode("utf-8", "replace"),
            problem=problem,
            id=self.id,
        )

    def as_content(self) -> dict[str, Any]:
        """The block as the assistant's next turn has it."""
        if self.kind in _CALLS:
            return {"type": "tool_use", "id": self.id, "name": self._start.get("name"), "input": self._input()}
        if self.kind == "thinking":
            signature = self._signature.get() or self._start.get("signature") or ""
            return {"type": "thinking", "thinking": self.text(), "signature": signature}
        if self.kind == "text":
            return {"type": "text", "text": self.text()}
        return self._start

    def _input(self) -> dict[str, Any]:
        parts = self._arguments.get()
        if not parts:
            given = self._start.get("input")
            return given if isinstance(given, dict) else {}
        try:
            value = json.loads(parts)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class AnthropicWhole:
    """A message that came in one piece."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._hold_text = hold_text
        self._provider_tools = provider_tools
        self._body = b""
        self._message: dict[str, Any] = {}
        self._held: list[int] = []
        self._earlier: list[dict[str, Any]] = []
        self._earlier_output = 0
        self._denied: list[tuple[str, str]] = []
        self._shown: list[dict[str, Any]] = []

    def feed(self, data: bytes) -> Step:
        self._body = data
        self._message = message = loads_marked(data)
        usage, content = message.get("usage"), message.get("content")
        self.told.started = True
        if isinstance(usage, dict):
            self.told.tokens, self.told.reported = merged(self.told.tokens, usage, True)
            self.told.reported = isinstance(usage.get("output_tokens"), int)
        self.told.stop_reason = word(message.get("stop_reason"))
        self.told.events = 1
        if message.get("type") != "message" or not isinstance(content, list):
            raise WireError("its answer is no message")
        held = [self._look(block) for block in content]
        asked = tuple(item for item in held if item is not None)
        self._held = [place for place, item in enumerate(held) if item is not None]
        self.told.stopped = True
        return Step(b"", asked) if asked else self.decide(())

    def _look(self, block: Any) -> Held | None:
        kind = block.get("type") if isinstance(block, dict) else None
        provider = isinstance(kind, str) and kind.endswith(_PROVIDER_RESULTS) and self._provider_tools
        if kind not in _FLOWING and kind not in _CALLS and kind not in _WHOLE_BLOCKS and not provider:
            raise WireError("its answer holds a block of an unknown kind")
        self.scanned.blocks += 1
        if kind == "text":
            said = str(block.get("text") or "")
            self.scanned.text_bytes += len(said)
            return Held("text", arguments=said.encode("utf-8", "replace")) if self._hold_text else None
        if kind not in _CALLS:
            return None
        self.scanned.calls += 1
        given, name = block.get("input"), block.get("name")
        problem: Problem = "shape" if not isinstance(given, dict) else "json" if has_twice(given) else ""
        text = json.dumps(given, ensure_ascii=False).encode("utf-8", "replace")
        self.scanned.call_bytes += len(text)
        if len(text) > MAX_HELD:
            problem, text = "oversized", b""
        return Held(
            "call",
            name if isinstance(name, str) else "",
            arguments=text,
            problem=problem,
            id=str(block.get("id") or ""),
        )

    def decide(self, decided: Sequence[Decided]) -> Step:
        content = list(self._message["content"])
        allowed = 0
        for place, ruling in zip(self._held, decided, strict=True):
            block = content[place]
            call = block.get("type") in _CALLS
            allowed += call and ruling.allowed
            if not ruling.allowed:
                content[place] = {"type": "text", "text": ruling.text}
                if call:
                    self.scanned.denied += 1
                    self._denied.append((str(block.get("id") or ""), ruling.text))
        untouched = all(ruling.allowed for ruling in decided) and not self._earlier
        self._shown = [*self._earlier, *content]
        if self._denied and not allowed and self._message.get("stop_reason") == "tool_use":
            self.blocked = True
            return Step(text=said(content))
        return Step(self._body if untouched else self._written(None), (), said(content))

    def end(self) -> Step:
        return Step()

    def close(self) -> bytes:
        self.blocked = False
        return self._written("end_turn")

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        found = continued(body, list(self._message["content"]), self._denied)
        self._earlier = self._shown
        self._earlier_output += self.told.tokens.output
        self._denied = []
        self.blocked = False
        self.told = Told()
        return found

    def _written(self, reason: str | None) -> bytes:
        message = {**self._message, "content": self._shown}
        if reason is not None:
            message.update({"stop_reason": reason, "stop_sequence": None})
        if self._earlier_output:
            usage = dict(message.get("usage") or {})
            usage["output_tokens"] = self.told.tokens.output + self._earlier_output
            message["usage"] = usage
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def said(content: list[dict[str, Any]]) -> str:
    """What a message's blocks say, thoughts included."""
    return "\n".join(str(block.get("text") or block.get("thinking") or "") for block in content)


def shifted(frame: Frame, value: dict[str, Any] | None, shift: int) -> bytes:
    """The frame as it came, or with the index that its block has in a continued message."""
    if not shift:
        return frame.raw
    value = loads(frame.data) if value is None else value
    return written({**value, "index": value["index"] + shift}, str(value.get("type") or ""))


def text_block(place: int, text: str) -> bytes:
    """A text block of our own, never empty: an empty one is rejected when the history is sent back."""
    start = {"type": "content_block_start", "index": place, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": place, "delta": {"type": "text_delta", "text": text or "…"}}
    stop = {"type": "content_block_stop", "index": place}
    return b"".join(written(item, str(item["type"])) for item in (start, delta, stop))


def continued(body: dict[str, Any], content: list[dict[str, Any]], denied: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The request that shows the model why its calls were refused."""
    results = [{"type": "tool_result", "tool_use_id": call, "is_error": True, "content": text} for call, text in denied]
    turns = [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
    return {**body, "messages": [*body["messages"], *turns]}
