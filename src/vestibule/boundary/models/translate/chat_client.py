"""A Chat Completions client at an Anthropic Messages provider: answers on their way back. Pure.

Thoughts flow as `reasoning_content`, which many programs show; what a program sends back of them is left out again.
Blocks of text become one content, as paragraphs.
"""

from __future__ import annotations

from typing import Any

from vestibule.boundary.models.translate.chat_request import to_messages
from vestibule.boundary.models.translate.twice import dumps_pairs, loads_pairs
from vestibule.boundary.models.wire import anthropic as anthropic_wire
from vestibule.boundary.models.wire import chat as wire
from vestibule.boundary.models.wire.sse import Frame, Frames, WireError, dumped, loads, written
from vestibule.cost.prices import Tokens

_STOPS = {"end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "tool_use": "tool_calls"}
_STOPS |= {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "content_filter"}
_SILENT = ("redacted_thinking",)


class ChatToAnthropic:
    """The client speaks Chat Completions, the upstream Anthropic Messages."""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        return to_messages(body)

    def headers(self, *, stream: bool) -> dict[str, str]:
        return {"anthropic-version": "2023-06-01", "accept": "text/event-stream" if stream else "application/json"}

    def stream(self) -> AnthropicStreamAsChat:
        return AnthropicStreamAsChat()

    def whole(self, data: bytes) -> bytes:
        return _whole(data)

    def error(self, status: int, data: bytes) -> bytes:  # noqa: ARG002
        if not anthropic_wire.is_error(data):
            return data
        return _error(loads(data))


def _error(value: dict[str, Any]) -> bytes:
    error = value.get("error")
    error = error if isinstance(error, dict) else {}
    kind, message = error.get("type"), error.get("message")
    return wire.error_body(
        kind if isinstance(kind, str) else "server_error", message if isinstance(message, str) else ""
    )


def finish_of(reason: Any) -> str:
    found = _STOPS.get(reason) if isinstance(reason, str) else None
    if found is None:
        raise WireError("its answer ended for an unknown reason")
    return found


class AnthropicStreamAsChat:
    """Events of a message as events of a Chat Completions stream."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._head: dict[str, Any] = {}
        self._open: str | None = None
        self._index = -1
        self._calls = 0
        self._said = False
        self._gap = False
        self._given = ""
        self._pieces = False
        self._tokens = Tokens()
        self._reported = False
        self._reason: str | None = None
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        return b"".join(self._see(frame) for frame in self._frames.feed(data))

    def end(self) -> bytes:
        return b"".join(self._see(frame) for frame in self._frames.flush())

    def _see(self, frame: Frame) -> bytes:
        if not frame.data or self._ended:
            return b""
        value = loads_pairs(frame.data)
        kind = value.get("type")
        if frame.event and frame.event != kind:
            raise WireError("an event's name and its type differ")
        if kind == "ping":
            return b""
        if kind == "error":
            self._ended = True
            return b"data: " + _error(value) + b"\n\n"
        if kind == "message_start" and not self._head:
            return self._begin(value.get("message"))
        if not self._head:
            raise WireError("its answer begins in no known way")
        if kind == "content_block_start":
            return self._start(value)
        if kind == "content_block_delta":
            return self._delta(value)
        if kind == "content_block_stop":
            return self._stop(value)
        if kind == "message_delta":
            return self._last(value)
        if kind == "message_stop":
            return self._finish()
        raise WireError("its answer holds an event of an unknown kind")

    def _begin(self, message: Any) -> bytes:
        if not isinstance(message, dict) or message.get("content"):
            raise WireError("its answer begins in no known way")
        self._head = head_of(message, "chat.completion.chunk")
        if isinstance(message.get("usage"), dict):
            self._tokens = anthropic_wire.read_usage(message["usage"])
        return self._chunk({"role": "assistant", "content": ""})

    def _start(self, value: dict[str, Any]) -> bytes:
        block, index = value.get("content_block"), value.get("index")
        if self._open is not None or not isinstance(block, dict) or index != self._index + 1:
            raise WireError("a block of its answer begins out of order")
        self._index = self._index + 1
        self._open = str(block.get("type"))
        if self._open == "text":
            self._gap = self._said
            return self._words(block.get("text") or "")
        if self._open == "tool_use":
            given = block.get("input")
            # Arguments come in pieces, or whole with the start; both at once is for the answer machine to deny.
            self._given = "" if given == {} else dumps_pairs(given)
            self._pieces = False
            function = {"name": block.get("name"), "arguments": ""}
            entry = {"index": self._calls, "id": block.get("id"), "type": "function", "function": function}
            return self._chunk({"tool_calls": [entry]})
        if self._open == "thinking":
            return self._thought(block.get("thinking") or "")
        if self._open in _SILENT:
            return b""
        raise WireError("its answer holds a block of an unknown kind")

    def _delta(self, value: dict[str, Any]) -> bytes:
        delta = value.get("delta")
        if self._open is None or not isinstance(delta, dict) or value.get("index") != self._index:
            raise WireError("a part of its answer belongs to no block")
        kind = delta.get("type")
        if (self._open, kind) == ("text", "text_delta"):
            return self._words(delta.get("text"))
        if (self._open, kind) == ("tool_use", "input_json_delta"):
            part = delta.get("partial_json")
            if not isinstance(part, str):
                raise WireError("a part of a call is of another kind")
            self._pieces |= bool(part)
            return self._arguments(part) if part else b""
        if (self._open, kind) == ("thinking", "thinking_delta"):
            return self._thought(delta.get("thinking"))
        if (self._open, kind) in (("thinking", "signature_delta"), ("text", "citations_delta")):
            return b""
        raise WireError("a part of its answer is of another kind than its block")

    def _stop(self, value: dict[str, Any]) -> bytes:
        if self._open is None or value.get("index") != self._index:
            raise WireError("a block of its answer ends that is not open")
        out = b""
        if self._open == "tool_use":
            if self._given:
                out = self._arguments(self._given)
            elif not self._pieces:
                out = self._arguments("{}")
            self._calls += 1
        self._open = None
        return out

    def _arguments(self, text: str) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls, "function": {"arguments": text}}]})

    def _words(self, said: Any) -> bytes:
        if not isinstance(said, str):
            raise WireError("a text of its answer is no text")
        if not said:
            return b""
        before = "\n\n" if self._gap else ""
        self._said, self._gap = True, False
        return self._chunk({"content": before + said})

    def _thought(self, said: Any) -> bytes:
        if not isinstance(said, str):
            raise WireError("a text of its answer is no text")
        return self._chunk({"reasoning_content": said}) if said else b""

    def _last(self, value: dict[str, Any]) -> bytes:
        delta, usage = value.get("delta"), value.get("usage")
        if self._open is not None:
            raise WireError("a block of its answer never ended")
        if isinstance(usage, dict):
            self._tokens, self._reported = anthropic_wire.merged(self._tokens, usage, self._reported)
        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
        if reason is None or self._reason is not None:
            return b""
        self._reason = finish_of(reason)
        return self._chunk({}, self._reason)

    def _finish(self) -> bytes:
        if self._reason is None:
            raise WireError("its answer ended before it was over")
        self._ended = True
        out = b""
        if self._reported:
            out = written({**self._head, "choices": [], "usage": wire.usage_of(self._tokens)})
        return out + wire.DONE

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return written({**self._head, "choices": [choice]})


def head_of(message: dict[str, Any], kind: str) -> dict[str, Any]:
    found, model = message.get("id"), message.get("model")
    name = found if isinstance(found, str) and found else "translated"
    return {
        "id": f"chatcmpl-{name.removeprefix('msg_')}",
        "object": kind,
        "created": 0,
        "model": model if isinstance(model, str) else "",
    }


def _whole(data: bytes) -> bytes:
    message = loads_pairs(data)
    content = message.get("content")
    if message.get("type") != "message" or not isinstance(content, list):
        raise WireError("its answer is no message")
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(_text(block.get("text")))
        elif kind == "thinking":
            thoughts.append(_text(block.get("thinking")))
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": dumps_pairs(block.get("input"))}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind not in _SILENT:
            raise WireError("its answer holds a block of an unknown kind")
    shown: dict[str, Any] = {"role": "assistant", "content": "\n\n".join(filter(None, texts)) or None, "refusal": None}
    if any(thoughts):
        shown["reasoning_content"] = "".join(thoughts)
    if calls:
        shown["tool_calls"] = calls
    choice = {"index": 0, "message": shown, "logprobs": None, "finish_reason": finish_of(message.get("stop_reason"))}
    found: dict[str, Any] = {**head_of(message, "chat.completion"), "choices": [choice]}
    usage = message.get("usage")
    if isinstance(usage, dict) and isinstance(usage.get("output_tokens"), int):
        found["usage"] = wire.usage_of(anthropic_wire.read_usage(usage))
    return dumped(found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WireError("a text of its answer is no text")
    return value


__all__ = ["AnthropicStreamAsChat", "ChatToAnthropic"]
