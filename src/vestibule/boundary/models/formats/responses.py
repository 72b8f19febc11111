"""OpenAI Responses: `POST /responses` and `GET /models`, under the prefix that it shares with Chat Completions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vestibule.boundary.models import asgi
from vestibule.boundary.models.fields.responses import TAKEN_OUT, check_fields
from vestibule.boundary.models.fields.responses_tools import all_tools, tool_type
from vestibule.boundary.models.formats.base import Asked, FormatName, Offered, Route
from vestibule.boundary.models.formats.credentials import bearer
from vestibule.boundary.models.hold.responses import ResponsesStream
from vestibule.boundary.models.hold.responses_items import plain_namespace
from vestibule.boundary.models.hold.responses_whole import ResponsesWhole
from vestibule.boundary.models.wire import responses as wire
from vestibule.core.refusal import Refusal

if TYPE_CHECKING:
    from vestibule.boundary.models.hold.base import Answer

DEFAULT_OUTPUT_TOKENS = 32_000
"""Tokens of output, thoughts included, when a request sets no bound (Codex never does): it is sent with this one, so
that the hold covers what can be billed."""
IMAGE_TOKENS = 10_000
"""As many patches as the largest image at `original` detail has."""
DOCUMENT_TOKENS = 100_000
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "invalid_request_error",
}
_KINDS |= {429: "rate_limit_error", 502: "server_error", 503: "server_error"}
_NAMED = ("function", "custom")
_CLIENT = ("local_shell", "shell", "apply_patch", "tool_search")


class Responses:
    """The format `responses`."""

    name: FormatName = "responses"
    prefix = "/openai/v1"
    heartbeat = b": keep-alive\n\n"

    def route(self, method: str, path: str, query: bytes) -> Route | None:
        # Codex and others ask for the list with their version in the query; it says nothing to us.
        if (method, path) == ("GET", "/models"):
            return Route("models")
        return Route("generate") if (method, path, query) == ("POST", "/responses", b"") else None

    def key(self, scope: asgi.Scope) -> tuple[bytes, ...]:
        # `api-key` is where clients of Azure's put it.
        key = asgi.header(scope, b"api-key")
        return (*((key,) if key else ()), *bearer(scope))

    def headers(self, scope: asgi.Scope, *, stream: bool) -> dict[str, str]:  # noqa: ARG002 none of them goes on
        return {"accept": "text/event-stream" if stream else "application/json"}

    def read(
        self,
        body: dict[str, Any],
        route: Route,
        *,
        run: str,
        provider_tools: frozenset[str] = frozenset(),
    ) -> Asked:
        seen = check_fields(body, provider_tools)
        send = {key: value for key, value in body.items() if key not in TAKEN_OUT}
        if "user" in body or "safety_identifier" in body:
            send["safety_identifier"] = run
        send["store"] = False
        if send.get("max_output_tokens") is None:
            send["max_output_tokens"] = DEFAULT_OUTPUT_TOKENS
        items = body["input"]
        return Asked(
            format="responses",
            operation=route.operation,
            model=body["model"],
            body=send,
            stream=bool(body.get("stream")),
            most_output=send["max_output_tokens"],
            messages=len(items) if isinstance(items, list) else 1,
            tools=tuple(_offered(namespace, tool) for namespace, tool in all_tools(body)),
            changed=send != body,
            fixed_tokens=seen.images * IMAGE_TOKENS + seen.documents * DOCUMENT_TOKENS,
        )

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        return body if body.get("model") == model else {**body, "model": model}

    def path(self, asked: Asked, model: str) -> str:  # noqa: ARG002 the body names it
        return "/responses"

    def stream(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        return ResponsesStream(hold_text=hold_text, provider_tools=any(tool.provider for tool in asked.tools))

    def whole(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        return ResponsesWhole(hold_text=hold_text, provider_tools=any(tool.provider for tool in asked.tools))

    def models(self, names: tuple[str, ...], one: str = "") -> bytes:  # noqa: ARG002 lists only
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "vestibule"} for name in names]
        return json.dumps({"object": "list", "data": data}).encode()

    def error(self, status: int, found: Refusal) -> bytes:
        return wire.error_body(_KINDS.get(status, "permission_error"), found.sentence(), found.as_json())

    def error_event(self, found: Refusal) -> bytes:
        return wire.error_event("server_error", found.sentence(), found.as_json())

    def is_error(self, body: bytes) -> bool:
        return wire.is_error(body)


def _offered(namespace: str, tool: dict[str, Any]) -> Offered:
    kind = tool_type(tool)
    if kind not in _NAMED:
        return Offered(kind, provider=kind not in _CLIENT)
    schema = tool.get("parameters")
    return Offered(
        str(tool.get("name") or ""),
        plain_namespace(namespace),
        schema if isinstance(schema, dict) else None,
        "text" if kind == "custom" else "json",
    )
