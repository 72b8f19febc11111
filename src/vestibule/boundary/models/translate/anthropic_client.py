"""An Anthropic Messages client at a Chat Completions provider: answers on their way back. Pure.

Thoughts of the model stay behind: a program would send them back, and without a signature another provider refuses
them. Words flow; calls, whose pieces may interleave, wait for the end, where each becomes a block. A call that no
program could read in one way becomes a block whose input is no object, so that the answer machine denies it.
"""

from __future__ import annotations

import json
from typing import Any

from vestibule.boundary.models.hold.base import MAX_CALLS, MAX_HELD, Scanned
from vestibule.boundary.models.hold.chat_parts import LEGACY, CallParts, spoil_by_end
from vestibule.boundary.models.translate.anthropic_request import to_chat
from vestibule.boundary.models.translate.names import Names
from vestibule.boundary.models.wire import anthropic as anthropic_wire
from vestibule.boundary.models.wire import chat as wire
from vestibule.boundary.models.wire.sse import (
    Frames,
    WireError,
    dumped,
    has_twice,
    loads_marked,
    written,
)
from vestibule.cost.prices import Tokens

_PIECE = 16_384
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use"}
_STOPS |= {"content_filter": "refusal"}
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_KINDS |= {413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}


class AnthropicToChat:
    """The client speaks Anthropic Messages, the upstream Chat Completions."""

    def __init__(self) -> None:
        self._names = Names()

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        return to_chat(body, self._names)

    def headers(self, *, stream: bool) -> dict[str, str]:
        return {"accept": "text/event-stream" if stream else "application/json"}

    def stream(self) -> ChatStreamAsAnthropic:
        return ChatStreamAsAnthropic(self._names)

    def whole(self, data: bytes) -> bytes:
        return _whole(data, self._names)

    def error(self, status: int, data: bytes) -> bytes:
        if not wire.is_error(data):
            return data
        return anthropic_wire.error_body(_KINDS.get(status, "api_error"), wire.error_text(data))


def usage_of(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.input,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation_input_tokens": tokens.cache_write,
        "output_tokens": tokens.output,
    }


def stop_of(reason: Any, *, calls: bool, matched: Any) -> tuple[str, str | None]:
    """Stop reason and stop sequence. vLLM says in `stop_reason` which sequence it was."""
    if reason == "stop" and isinstance(matched, str) and matched and not calls:
        return "stop_sequence", matched
    found = _STOPS.get(reason, "") if isinstance(reason, str) else ""
    if not found:
        raise WireError("its answer ended for an unknown reason")
    return ("tool_use" if found == "end_turn" and calls else found), None


class _Call:
    """A call under way: what is wrong with it, and its pieces as far as they are kept."""

    def __init__(self, *, legacy: bool) -> None:
        self.parts = CallParts(legacy=legacy)
        self.pieces: list[str] = []
        self.size = 0

    def add(self, piece: dict[str, Any]) -> None:
        self.parts.add(piece, Scanned())
        inner = piece if self.parts.legacy else piece.get("function")
        found = inner.get("arguments") if isinstance(inner, dict) else None
        if isinstance(found, str) and self.size <= MAX_HELD:
            # Kept to just beyond the bound: then the answer machine says that the call is too large.
            self.pieces.append(found)
            self.size += len(found)

    @property
    def readable(self) -> bool:
        return self.parts.problem in ("", "oversized") and not self.parts.custom


class ChatStreamAsAnthropic:
    """Events of a Chat Completions stream as events of a message."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._frames = Frames()
        self._begun = False
        self._text_open = False
        self._next = 0
        self._calls: dict[int, _Call] = {}
        self._reason: Any = None
        self._matched: Any = None
        self._refused = False
        self._tokens: Tokens | None = None
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        return b"".join(self._see(frame.data) for frame in self._frames.feed(data))

    def end(self) -> bytes:
        return b"".join(self._see(frame.data) for frame in self._frames.flush())

    def _see(self, data: bytes) -> bytes:
        if not data or self._ended:
            return b""
        if data.strip() == b"[DONE]":
            return self._finish()
        value, twice = wire.read_chunk(data)
        if twice:
            raise WireError("a key stands twice in an event of its answer")
        if value.get("error") is not None and not value.get("choices"):
            self._ended = True
            return anthropic_wire.error_event("api_error", wire.error_text(data))
        if wire.reported(value.get("usage")):
            self._tokens = wire.read_usage(value["usage"])
        out = b""
        for choice in wire.choices_of(value):
            if choice.get("index", 0):
                raise WireError("it gave more answers than were asked for")
            parts = wire.parts_of(choice, "delta")
            out += self._begin(value) + self._take(parts)
            if choice.get("finish_reason") is not None:
                self._reason, self._matched = choice["finish_reason"], choice.get("stop_reason")
                out += self._blocks()
        return out

    def _begin(self, value: dict[str, Any]) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        message = {
            **_head(value),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return written({"type": "message_start", "message": message}, "message_start")

    def _take(self, parts: dict[str, Any]) -> bytes:
        out = b""
        for key in wire.TEXTS:
            if parts.get(key):
                self._refused |= key == "refusal"
                out += self._words(parts[key])
        for piece in parts.get("tool_calls") or ():
            place = piece.get("index", 0)
            if isinstance(place, bool) or not isinstance(place, int) or place < 0:
                raise WireError("a call of its answer has no number")
            self._call(place).add(piece)
        if parts.get("function_call"):
            self._call(LEGACY).add(parts["function_call"])
        if sum(item.size for item in self._calls.values()) > 2 * MAX_HELD:
            raise WireError("its answer holds more calls than may wait")
        return out

    def _call(self, place: int) -> _Call:
        if self._reason is not None:
            raise WireError("a call of its answer comes behind its end")
        call = self._calls.get(place)
        if call is None:
            if len(self._calls) >= MAX_CALLS:
                raise WireError("its answer holds too many calls")
            call = self._calls[place] = _Call(legacy=place == LEGACY)
            if place != LEGACY and place != sum(key != LEGACY for key in self._calls) - 1:
                call.parts.spoil("shape")
        return call

    def _words(self, said: str) -> bytes:
        if self._reason is not None:
            raise WireError("a text of its answer comes behind its end")
        out = b""
        if not self._text_open:
            self._text_open = True
            out += self._block({"type": "text", "text": ""})
        return out + self._delta({"type": "text_delta", "text": said})

    def _blocks(self) -> bytes:
        """The end of the text, and every call as a block."""
        out = self._stop() if self._text_open else b""
        self._text_open = False
        spoil_by_end([call.parts for call in self._calls.values()], self._reason)
        for number, call in enumerate(self._calls.values()):
            name = self._names.long(call.parts.name)
            start = {"type": "tool_use", "id": call.parts.id or f"call_{number}", "name": name}
            out += self._block({**start, "input": {} if call.readable else ""})
            if call.readable:
                text = "".join(call.pieces)
                for begin in range(0, len(text), _PIECE):
                    out += self._delta({"type": "input_json_delta", "partial_json": text[begin : begin + _PIECE]})
            out += self._stop()
        return out

    def _block(self, block: dict[str, Any]) -> bytes:
        event = {"type": "content_block_start", "index": self._next, "content_block": block}
        return written(event, "content_block_start")

    def _delta(self, delta: dict[str, Any]) -> bytes:
        event = {"type": "content_block_delta", "index": self._next, "delta": delta}
        return written(event, "content_block_delta")

    def _stop(self) -> bytes:
        self._next += 1
        return written({"type": "content_block_stop", "index": self._next - 1}, "content_block_stop")

    def _finish(self) -> bytes:
        if self._reason is None:
            raise WireError("its answer ended before it was over")
        self._ended = True
        reason, sequence = stop_of(self._reason, calls=bool(self._calls), matched=self._matched)
        delta = {"stop_reason": "refusal" if self._refused else reason, "stop_sequence": sequence}
        # Without a report of the provider's there is none here: then what was reserved is what is charged.
        usage = usage_of(self._tokens) if self._tokens is not None else {"output_tokens": None}
        out = written({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta")
        return out + written({"type": "message_stop"}, "message_stop")


def _head(value: dict[str, Any]) -> dict[str, Any]:
    found = value.get("id")
    name = found if isinstance(found, str) and found else "translated"
    model = value.get("model")
    return {
        "id": f"msg_{name.removeprefix('chatcmpl-')}",
        "type": "message",
        "role": "assistant",
        "model": model if isinstance(model, str) else "",
    }


def _whole(data: bytes, names: Names) -> bytes:
    answer = loads_marked(data)
    choices = wire.choices_of(answer)
    if len(choices) != 1:
        raise WireError("it gave more or fewer answers than were asked for")
    message = wire.parts_of(choices[0], "message")
    if has_twice(answer):
        raise WireError("a key stands twice in its answer")
    refused = bool(message.get("refusal"))
    blocks = [dumped({"type": "text", "text": message[key]}) for key in wire.TEXTS if message.get(key)]
    calls: list[CallParts] = []
    for piece in message.get("tool_calls") or ():
        calls.append(CallParts())
        calls[-1].add(piece, Scanned())
    if message.get("function_call"):
        calls.append(CallParts(legacy=True))
        calls[-1].add(message["function_call"], Scanned())
    reason = choices[0].get("finish_reason")
    spoil_by_end(calls, reason)
    blocks += [_call_block(call, number, names) for number, call in enumerate(calls)]
    stop, sequence = stop_of(reason, calls=bool(calls), matched=choices[0].get("stop_reason"))
    found: dict[str, Any] = {
        **_head(answer),
        "stop_reason": "refusal" if refused else stop,
        "stop_sequence": sequence,
        "usage": usage_of(wire.read_usage(answer["usage"])) if wire.reported(answer.get("usage")) else {},
    }
    return dumped(found)[:-1] + b',"content":[' + b",".join(blocks) + b"]}"


def _call_block(call: CallParts, number: int, names: Names) -> bytes:
    """A call with its arguments' own text as input, so that a key that stands twice is still seen to."""
    head = {"type": "tool_use", "id": call.id or f"call_{number}", "name": names.long(call.name)}
    return dumped(head)[:-1] + b',"input":' + _input(call) + b"}"


def _input(call: CallParts) -> bytes:
    text = call.text or "{}"
    if call.problem == "oversized":
        return dumped({"": "x" * (MAX_HELD + 1)})
    if call.problem or call.custom:
        return b'""'
    try:
        json.loads(text)
        return text.encode("utf-8")
    except (ValueError, RecursionError):
        return b'""'
