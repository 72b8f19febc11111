"""How servers that speak Chat Completions differ from OpenAI's. Pure.

Rules it keeps:
1. A bound on the output is said in the word that the server knows: `max_completion_tokens` at OpenAI and Azure,
   `max_tokens` at compatible servers (vLLM, Ollama) and watsonx. An unknown word would be no bound.
2. What is only there for OpenAI's own service is left out elsewhere; strict servers refuse it.

Source: references of vLLM's and Ollama's OpenAI-compatible servers; watsonx.ai, "Text chat" (`model_id`, `project_id`,
`space_id`, `tool_choice_option`, a path of its own for streams, whose events end without `[DONE]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vestibule.boundary.models.wire import chat as wire
from vestibule.boundary.models.wire.sse import Frames, loads

Dialect = Literal["", "compatible", "watsonx"]
_OWN = frozenset(
    (
        "modalities",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "verbosity",
    )
)
_WATSONX_OUT = ("model", "stream", "stream_options", "user", "tool_choice", "parallel_tool_calls")


def dialect_of(api: str, speaks: tuple[str, ...]) -> Dialect:
    """Of a provider that is sent Chat Completions."""
    if api == "watsonx":
        return "watsonx"
    if api in ("azure", "scripted") or "responses" in speaks:
        return ""
    return "compatible"


def spelt(
    body: dict[str, Any], dialect: Dialect, *, place: Mapping[str, str] | None = None, model: str = ""
) -> dict[str, Any]:
    """The body in the server's own words; the same object when nothing changes.

    `place`: watsonx' `project_id` or `space_id`.
    """
    if not dialect:
        return body
    found = {key: value for key, value in body.items() if key not in _OWN}
    most = found.pop("max_completion_tokens", None)
    if most is not None:
        found["max_tokens"] = min(most, found.get("max_tokens") or most)
    if dialect == "compatible":
        return found if found != body else body
    choice = found.get("tool_choice")
    found = {key: value for key, value in found.items() if key not in _WATSONX_OUT}
    found |= {"model_id": model, **(place or {})}
    if isinstance(found.get("stop"), str):
        found["stop"] = [found["stop"]]
    if isinstance(choice, dict) and choice.get("type") == "function":
        found["tool_choice"] = choice
    elif isinstance(choice, str) and found.get("tools"):
        found["tool_choice_option"] = choice
    return found


class Finished:
    """A stream that ends without `[DONE]`, with one, when every choice in it had its end."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._open: set[int] = set()
        self._seen = False
        self._done = False

    def feed(self, data: bytes) -> bytes:
        for frame in self._frames.feed(data):
            self._look(frame.data)
        return data

    def end(self) -> bytes:
        for frame in self._frames.flush():
            self._look(frame.data)
        whole = self._seen and not self._open and not self._done and not self._frames.rest
        return wire.DONE if whole else b""

    def _look(self, data: bytes) -> None:
        if not data:
            return
        if data.strip() == b"[DONE]":
            self._done = True
            return
        value = loads(data)
        if value.get("error") is not None or not isinstance(value.get("choices"), list):
            return
        for choice in wire.choices_of(value):
            self._seen = True
            number = choice.get("index", 0)
            self._open.add(number)
            if choice.get("finish_reason") is not None:
                self._open.discard(number)
