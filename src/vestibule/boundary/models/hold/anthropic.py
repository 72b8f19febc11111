"""Streamed answers of the Anthropic Messages API: text flows, a tool call waits for its decision.

Rules it keeps (with those of `hold.base`):
1. Blocks come one after the other, each `start`, deltas, `stop`, and none after the message's end; anything else, and
   an event that two readers could read in two ways, is no answer.
2. A denied call becomes a text block at the same index, so that indices stay dense; a message whose calls were all
   denied ends its turn (`end_turn`) instead of waiting for results. Thoughts and their signatures are never touched.
3. Usage is cumulative: of two reports the larger counts, never their sum; what `message_start` says of output is a
   placeholder (litellm #37992).
4. A continued message keeps its first start; blocks of later provider answers get the next indices, the counts of
   output are added up.
5. A provider's own tools and their results are known only when policy names them; the result of a denied call of one
   is not shown either.

A comment or `ping` within a held block goes ahead of it: it keeps the client alive.
Source: Messages API reference, "Streaming messages", "Handling stop reasons".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.anthropic_blocks import (
    CALL,
    CALLS,
    FLOWING,
    Block,
    Turn,
    continued,
    is_result,
    known,
    marked_start,
    shifted,
    text_block,
    words,
)
from vestibule.boundary.models.hold.base import Decided, Held, Scanned, Step, Told
from vestibule.boundary.models.wire.anthropic import merged, read_usage
from vestibule.boundary.models.wire.sse import Frame, Frames, WireError, loads_once, word, written

_SAID = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class AnthropicStream:
    """A streamed message. `provider_tools`: the request offered some of the provider's own."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._frames = Frames()
        self._queue: deque[Frame] = deque()
        self._hold_text = hold_text
        self._provider_tools = provider_tools
        self._open: Block | None = None
        self._waiting: Block | None = None
        self._shift = 0
        self._next = 0
        self._continued = False
        self._ending = False
        self._turn = Turn()
        self._earlier_output = 0
        self._last_delta: dict[str, Any] = {"type": "message_delta", "delta": {}}
        self._text: list[str] = []

    def feed(self, data: bytes) -> Step:
        self._queue.extend(self._frames.feed(data))
        return self._go(b"")

    def decide(self, decided: Sequence[Decided]) -> Step:
        block = self._waiting
        if block is None or len(decided) != 1:
            raise ValueError("nothing waits for so many decisions")
        self._waiting = None
        ruling = decided[0]
        # Whatever was decided: something that is not whole cannot be released.
        allowed = ruling.allowed and not block.problem
        self._turn.add(block.as_content(), block.size)
        if block.call:
            self._ruled(block, allowed, ruling.text)
        if allowed:
            if not block.call:
                self._say(block.text())
            return self._go(block.frames())
        self._say(ruling.text)
        return self._go(text_block(block.place, ruling.text))

    def _ruled(self, block: Block, allowed: bool, why: str) -> None:
        """A call was decided: what that means for the message's end."""
        if not allowed:
            self.scanned.denied += 1
        if block.kind == CALL:
            if allowed:
                self._turn.release()
            else:
                self._turn.denied.append((block.id, why))
        elif not allowed:
            self._turn.hidden[block.id] = why

    def end(self) -> Step:
        self._queue.extend(self._frames.flush())
        step = self._go(b"")
        if not self.told.stopped and not self.told.failed and not step.held:
            raise WireError("its answer ended before its last event")
        return step

    def close(self) -> bytes:
        self.blocked = False
        return self._closing("end_turn") + written({"type": "message_stop"}, "message_stop")

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        found = continued(body, self._turn)
        self._earlier_output += self.told.tokens.output
        self._shift = self._next
        self._continued = True
        self._turn = Turn()
        self._last_delta = {"type": "message_delta", "delta": {}}
        self._ending = self.blocked = False
        self.told = Told()
        self._frames = Frames()
        self._queue.clear()
        return found

    def _go(self, before: bytes) -> Step:
        out = [before]
        held: tuple[Held, ...] = ()
        told = self.told
        while self._queue and not held and not told.stopped and not told.failed:
            raw, ask = self._see(self._queue.popleft())
            if raw:
                out.append(raw)
            if ask is not None:
                held = (ask,)
        text, self._text = "".join(self._text), []
        return Step(b"".join(out), held, text)

    def _see(self, frame: Frame) -> tuple[bytes, Held | None]:
        if not frame.data:
            return frame.raw, None
        try:
            value = loads_once(frame.data)
        except WireError:
            value = marked_start(frame.data)
        kind = value.get("type")
        if not frame.event and isinstance(kind, str) and kind.isascii():
            # Some programs pass over events without a name: they would put other pieces together.
            frame = Frame(written(value, kind), kind, frame.data)
        elif frame.event != kind:
            raise WireError("an event's name and its type differ")
        self.told.events += 1
        if kind == "content_block_delta":
            return self._delta(frame, value), None
        if kind == "content_block_start":
            return self._start(frame, value), None
        if kind == "content_block_stop":
            return self._stop(frame, value)
        if kind == "ping":
            return frame.raw, None
        if kind == "message_start":
            return self._begin(frame, value), None
        if kind == "error":
            self.told.failed = True
            return frame.raw, None
        if kind == "message_delta":
            return self._end_of_message(frame, value), None
        if kind == "message_stop":
            self._between_blocks()
            self.told.stopped = True
            return b"" if self.blocked else frame.raw, None
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
        self._between_blocks()
        start, index = value.get("content_block"), value.get("index")
        if not isinstance(start, dict) or not _is(index, self._next - self._shift) or self._ending:
            raise WireError("a block of its answer begins out of order")
        kind = start.get("type")
        if not isinstance(kind, str) or not known(kind, self._provider_tools):
            raise WireError("its answer holds a block of an unknown kind")
        block = self._open = Block(kind, self._next, start, held=kind in CALLS or (kind == "text" and self._hold_text))
        self._next += 1
        self.scanned.blocks += 1
        if kind in FLOWING:
            self._flow(block, f"{kind}_delta", start.get(kind))
        elif is_result(kind):
            return self._result(block, frame, value)
        return self._pass(block, frame, value)

    def _result(self, block: Block, frame: Frame, value: dict[str, Any]) -> bytes:
        """What a provider's own tool gave. Of a denied call, it is held back for good."""
        start = value["content_block"]
        why = self._turn.hidden.get(str(start.get("tool_use_id") or ""))
        if why is not None:
            block.held = True
            return text_block(block.place, why)
        for said in words(start.get("content")):
            self._say(said)
        return self._pass(block, frame, value)

    def _delta(self, frame: Frame, value: dict[str, Any]) -> bytes:
        block, delta = self._open, value.get("delta")
        if block is None or not isinstance(delta, dict) or not _is(value.get("index"), block.place - self._shift):
            raise WireError("a part of its answer belongs to no block")
        kind = str(delta.get("type"))
        if block.call:
            if kind != "input_json_delta" or not isinstance(delta.get("partial_json"), str):
                raise WireError("a part of a call is of another kind")
            return self._pass(block, frame, value, delta["partial_json"])
        if kind not in FLOWING.get(block.kind, ()):
            raise WireError("a part of its answer is of another kind than its block")
        if kind == "citations_delta":
            for said in words(delta.get("citation")):
                self._say(said)
        else:
            self._flow(block, kind, delta.get(_SAID[kind]))
        return self._pass(block, frame, value)

    def _flow(self, block: Block, kind: str, said: Any) -> None:
        """A piece of a text, a thought or its signature."""
        if said is None or said == "":
            return
        if not isinstance(said, str):
            raise WireError("a text of its answer is no text")
        block.add(kind, said)
        if not block.held and kind != "signature_delta":
            self._say(said)

    def _say(self, said: str) -> None:
        self._text.append(said)
        self.scanned.text_bytes += len(said) if said.isascii() else len(said.encode("utf-8", "replace"))

    def _stop(self, frame: Frame, value: dict[str, Any]) -> tuple[bytes, Held | None]:
        block = self._open
        if block is None or not _is(value.get("index"), block.place - self._shift):
            raise WireError("a block of its answer ends that is not open")
        out = self._pass(block, frame, value)
        self._open = None
        if block.held and not is_result(block.kind):
            self._waiting = block
            if block.call:
                self.scanned.call()
            return b"", block.as_held()
        self._turn.add(block.as_content(), block.size)
        return out, None

    def _pass(self, block: Block, frame: Frame, value: dict[str, Any], arguments: str = "") -> bytes:
        """The frame, now or once its block was judged."""
        if not block.held:
            block.bytes += len(frame.raw)
            return shifted(frame, value, self._shift)
        if block.call:
            self.scanned.call_bytes += len(frame.raw)
        block.keep(shifted(frame, value, self._shift), arguments)
        return b""

    def _end_of_message(self, frame: Frame, value: dict[str, Any]) -> bytes:
        self._between_blocks()
        usage, delta = value.get("usage"), value.get("delta")
        if isinstance(usage, dict):
            self.told.tokens, self.told.reported = merged(self.told.tokens, usage, self.told.reported)
        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
        if reason is None and not self._ending:
            # A report on the way; a later answer's own would contradict the counts that are added up.
            return b"" if self._continued else frame.raw
        if not self._ending:
            self.told.stop_reason = word(reason)
            self._ending = True
            self.blocked = self._turn.stands and reason == "tool_use"
        self._last_delta = {**value, "delta": delta if reason is not None else self._last_delta.get("delta")}
        if self.blocked:
            return b""
        if reason == "tool_use" and self._turn.ends:
            return self._closing("end_turn")
        return self._closing(None) if self._continued else frame.raw

    def _closing(self, reason: str | None) -> bytes:
        """The message's last delta, with `reason` if given, and the output of all provider answers in it."""
        value = dict(self._last_delta)
        if reason is not None:
            delta = value.get("delta")
            value["delta"] = {**(delta if isinstance(delta, dict) else {}), "stop_reason": reason}
            value["delta"]["stop_sequence"] = None
        usage = value.get("usage")
        output = self.told.tokens.output + self._earlier_output
        value["usage"] = {**(usage if isinstance(usage, dict) else {}), "output_tokens": output}
        return written(value, "message_delta")

    def _between_blocks(self) -> None:
        if self._open is not None or not self.told.started:
            raise WireError("an event of its answer comes before its start or within a block")


def _is(index: Any, place: int) -> bool:
    return type(index) is int and index == place


__all__ = ["AnthropicStream"]
