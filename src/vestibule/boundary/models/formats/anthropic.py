"""Anthropic Messages: `POST /v1/messages[?beta=true]`, `/v1/messages/count_tokens`, `GET /v1/models`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from vestibule.boundary.models import asgi
from vestibule.boundary.models.fields.anthropic import check_fields
from vestibule.boundary.models.fields.anthropic_betas import check_betas
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats.base import Asked, FormatName, Offered, Route
from vestibule.boundary.models.formats.credentials import bearer
from vestibule.boundary.models.hold.anthropic import AnthropicStream
from vestibule.boundary.models.hold.anthropic_whole import AnthropicCount, AnthropicWhole
from vestibule.boundary.models.wire import anthropic as wire
from vestibule.core.refusal import Refusal

if TYPE_CHECKING:
    from vestibule.boundary.models.hold.base import Answer

VERSION = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
IMAGE_TOKENS = 5_000
"""More than the largest image is billed at (about 4,800)."""
DOCUMENT_TOKENS = 100_000
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 413: "request_too_large"}
_KINDS |= {429: "rate_limit_error", 502: "api_error", 503: "api_error"}


class Anthropic:
    """The format `anthropic`."""

    name: FormatName = "anthropic"
    prefix = "/anthropic"
    heartbeat = b'event: ping\ndata: {"type": "ping"}\n\n'

    def route(self, method: str, path: str, query: bytes) -> Route | None:
        found = {
            ("POST", "/v1/messages"): Route("generate"),
            ("POST", "/v1/messages/count_tokens"): Route("count"),
            ("GET", "/v1/models"): Route("models"),
        }.get((method, path))
        if found is None or found.operation == "models":
            return found
        return found._replace(query="beta=true") if query == b"beta=true" else None if query else found

    def key(self, scope: asgi.Scope) -> tuple[bytes, ...]:
        key = asgi.header(scope, b"x-api-key")
        return (*((key,) if key else ()), *bearer(scope))

    def headers(self, scope: asgi.Scope, *, stream: bool) -> dict[str, str]:
        version = asgi.header(scope, b"anthropic-version").decode("latin-1") or "2023-06-01"
        if not VERSION.match(version):
            raise FieldRefused("version", "the anthropic-version header is no version")
        found = {"anthropic-version": version, "accept": "text/event-stream" if stream else "application/json"}
        betas = ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == b"anthropic-beta")
        if betas and (checked := check_betas(betas)):
            found["anthropic-beta"] = checked
        return found

    def read(
        self, body: dict[str, Any], route: Route, *, run: str, provider_tools: frozenset[str] = frozenset()
    ) -> Asked:
        counting = route.operation == "count"
        # Counting needs no bound on the output; everything else is checked as for a message.
        seen = check_fields({"max_tokens": 1, **body} if counting else body, provider_tools)
        send, changed = body, False
        if "metadata" in body:
            # Neither a device nor data leaves in it.
            send = {**body, "metadata": {"user_id": run}}
            changed = True
        return Asked(
            format="anthropic",
            operation=route.operation,
            model=body["model"],
            body=send,
            stream=bool(body.get("stream")) and not counting,
            most_output=0 if counting else _most_output(body),
            messages=len(body["messages"]),
            tools=tuple(_offered(tool) for tool in body.get("tools") or ()),
            changed=changed,
            fixed_tokens=seen.images * IMAGE_TOKENS + seen.documents * DOCUMENT_TOKENS,
            hour_cache=seen.hour_cache,
            query=route.query,
        )

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        return body if body.get("model") == model else {**body, "model": model}

    def path(self, asked: Asked, model: str) -> str:  # noqa: ARG002 the body names it
        tail = "/count_tokens" if asked.operation == "count" else ""
        return f"/v1/messages{tail}" + (f"?{asked.query}" if asked.query else "")

    def stream(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        return AnthropicStream(hold_text=hold_text, provider_tools=any(tool.provider for tool in asked.tools))

    def whole(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        if asked.operation == "count":
            return AnthropicCount()
        return AnthropicWhole(hold_text=hold_text, provider_tools=any(tool.provider for tool in asked.tools))

    def models(self, names: tuple[str, ...], one: str = "") -> bytes:  # noqa: ARG002 lists only
        data = [
            {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"} for name in names
        ]
        first, last = (names[0], names[-1]) if names else (None, None)
        return json.dumps({"data": data, "has_more": False, "first_id": first, "last_id": last}).encode()

    def error(self, status: int, found: Refusal) -> bytes:
        kind = _KINDS.get(status, "permission_error")
        return wire.error_body(kind, found.sentence(), found.as_json())

    def error_event(self, found: Refusal) -> bytes:
        return wire.error_event("api_error", found.sentence(), found.as_json())

    def is_error(self, body: bytes) -> bool:
        return wire.is_error(body)


def _offered(tool: dict[str, Any]) -> Offered:
    schema = tool.get("input_schema")
    provider = bool(tool.get("type")) and "input_schema" not in tool and not str(tool["type"]).startswith(_CLIENT)
    return Offered(str(tool.get("name") or ""), schema=schema if isinstance(schema, dict) else None, provider=provider)


_CLIENT = ("bash_", "text_editor_", "memory_", "custom")


def _most_output(body: dict[str, Any]) -> int:
    """`max_tokens`; a thinking budget beyond it, which interleaved thinking allows, comes on top."""
    most = int(body["max_tokens"])
    thinking = (body.get("thinking") or {}).get("budget_tokens") or 0
    return most + thinking if thinking > most else most
