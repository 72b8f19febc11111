"""OpenAI Chat Completions: `POST /chat/completions`. The list of models under the same prefix is `responses`'.

The usage of a stream is always asked for, and its event is left out again for a program that did not ask. A request
that bounds its output nowhere is bounded by `DEFAULT_OUTPUT`: else no hold could cover it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vestibule.boundary.models import asgi
from vestibule.boundary.models.fields.chat import check_fields
from vestibule.boundary.models.formats.base import Asked, FormatName, Offered, Route
from vestibule.boundary.models.formats.credentials import bearer
from vestibule.boundary.models.hold.chat import ChatStream
from vestibule.boundary.models.hold.chat_whole import ChatWhole
from vestibule.boundary.models.wire import chat as wire
from vestibule.core.refusal import Refusal

if TYPE_CHECKING:
    from vestibule.boundary.models.hold.base import Answer

DEFAULT_OUTPUT = 16_384
"""Tokens of output of a request that names no bound."""
IMAGE_TOKENS = 50_000
"""More than the dearest image is billed at (about 48,000, of 768 x 2000 pixels, by the smallest of the 4o models)."""
DOCUMENT_TOKENS = 100_000
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_KINDS |= {413: "invalid_request_error", 502: "server_error", 503: "server_error"}
_WHO = ("user", "safety_identifier", "prompt_cache_key")


class Chat:
    """The format `chat`."""

    name: FormatName = "chat"
    prefix = "/openai/v1"
    heartbeat = b": keep-alive\n\n"

    def route(self, method: str, path: str, query: bytes) -> Route | None:
        return Route("generate") if (method, path, query) == ("POST", "/chat/completions", b"") else None

    def key(self, scope: asgi.Scope) -> tuple[bytes, ...]:
        # Programs that were told of an Azure provider put it there.
        key = asgi.header(scope, b"api-key")
        return (*((key,) if key else ()), *bearer(scope))

    def headers(self, scope: asgi.Scope, *, stream: bool) -> dict[str, str]:  # noqa: ARG002 none of the agent's
        return {"accept": "text/event-stream" if stream else "application/json"}

    def read(
        self,
        body: dict[str, Any],
        route: Route,
        *,
        run: str,
        provider_tools: frozenset[str] = frozenset(),  # noqa: ARG002 the format knows none
    ) -> Asked:
        seen = check_fields(body)
        stream = bool(body.get("stream"))
        send = {key: value for key, value in body.items() if key not in ("metadata", "stream_options")}
        send |= {key: run for key in _WHO if body.get(key) is not None}
        asked_usage = False
        if stream:
            options = dict(body.get("stream_options") or {})
            asked_usage = bool(options.get("include_usage"))
            send["stream_options"] = {**options, "include_usage": True}
        most = _most_output(body)
        if not most:
            most = DEFAULT_OUTPUT
            send["max_completion_tokens"] = most
        return Asked(
            format="chat",
            operation=route.operation,
            model=body["model"],
            body=send,
            stream=stream,
            most_output=most * int(body.get("n") or 1),
            messages=len(body["messages"]),
            tools=tuple(_offered(tool) for tool in body.get("tools") or ()),
            changed=send != body,
            fixed_tokens=seen.images * IMAGE_TOKENS + seen.documents * DOCUMENT_TOKENS,
            shows_usage=asked_usage,
        )

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        return body if body.get("model") == model else {**body, "model": model}

    def path(self, asked: Asked, model: str) -> str:  # noqa: ARG002 the body names it
        return "/chat/completions"

    def stream(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        return ChatStream(hold_text=hold_text, usage=asked.shows_usage, single=not _several(asked))

    def whole(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        return ChatWhole(hold_text=hold_text, single=not _several(asked))

    def models(self, names: tuple[str, ...], one: str = "") -> bytes:  # noqa: ARG002 lists only
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "vestibule"} for name in names]
        return json.dumps({"object": "list", "data": data}).encode()

    def error(self, status: int, found: Refusal) -> bytes:
        return wire.error_body(_KINDS.get(status, "permission_error"), found.sentence(), found.as_json(), found.rule)

    def error_event(self, found: Refusal) -> bytes:
        return wire.error_event("server_error", found.sentence(), found.as_json())

    def is_error(self, body: bytes) -> bool:
        return wire.is_error(body)


def _several(asked: Asked) -> bool:
    return int(asked.body.get("n") or 1) > 1


def _offered(tool: dict[str, Any]) -> Offered:
    if tool["type"] == "custom":
        return Offered(tool["custom"]["name"], form="text")
    schema = tool["function"].get("parameters")
    return Offered(tool["function"]["name"], schema=schema if isinstance(schema, dict) else None)


def _most_output(body: dict[str, Any]) -> int:
    """The larger of the two bounds: which one counts is the provider's choice. 0: there is none."""
    return max(int(body.get(key) or 0) for key in ("max_completion_tokens", "max_tokens"))
