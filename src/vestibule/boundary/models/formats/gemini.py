"""Gemini: `POST /v1beta/models/{model}:generateContent`, `:streamGenerateContent?alt=sse`, `:countTokens`, the lists of
models.

Rules it keeps:
1. The model is the path's, one or two plain segments; what goes upstream is built from the operator's name for it.
2. Nothing of the query goes on: a key in it is the task's token, `alt` says how the answer comes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from vestibule.boundary.models import asgi
from vestibule.boundary.models.fields.gemini import check_fields, most_output
from vestibule.boundary.models.fields.gemini_kit import snake
from vestibule.boundary.models.fields.kit import FieldRefused
from vestibule.boundary.models.formats.base import Asked, FormatName, Offered, Operation, Route
from vestibule.boundary.models.formats.credentials import bearer
from vestibule.boundary.models.hold.base import Scanned, Step, Told
from vestibule.boundary.models.hold.gemini import GeminiStream, GeminiWhole
from vestibule.boundary.models.wire import gemini as wire
from vestibule.boundary.models.wire.sse import WireError, loads
from vestibule.core.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vestibule.boundary.models.hold.base import Answer, Decided

IMAGE_TOKENS = 5_000
"""More than the largest image is counted at."""
MEDIA_TOKENS = 100_000
"""For a document or a recording: what its bytes do not tell."""
_MODEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?"
_METHOD = re.compile(rf"/v1(?:beta)?/models/({_MODEL}):(generateContent|streamGenerateContent|countTokens)\Z")
_MODELS = re.compile(rf"/v1(?:beta)?/models(?:/({_MODEL}))?\Z")


class Gemini:
    """The format `gemini`."""

    name: FormatName = "gemini"
    prefix = "/gemini"
    # Not a comment: the official SDK for Python takes a comment for data. All readers skip blank lines.
    heartbeat = b"\n"

    def route(self, method: str, path: str, query: bytes) -> Route | None:
        asked = _query(query)
        if asked is None:
            return None
        alt = asked.pop("alt", "")
        asked.pop("key", None)
        if method == "GET" and (found := _MODELS.match(path)):
            plain = not asked.keys() - {"pageSize", "pageToken"} and alt in ("", "json")
            return Route("models", found[1] or "") if plain else None
        found = _METHOD.match(path)
        if method != "POST" or found is None or asked:
            return None
        stream = found[2] == "streamGenerateContent"
        if alt not in (("", "json", "sse") if stream else ("", "json")):
            return None
        operation: Operation = "count" if found[2] == "countTokens" else "generate"
        return Route(operation, found[1], stream, "alt=sse" if alt == "sse" else "")

    def key(self, scope: asgi.Scope) -> tuple[bytes, ...]:
        key = asgi.header(scope, b"x-goog-api-key")
        asked = _query(scope.get("query_string", b"")) or {}
        shown = (asked["key"].encode("utf-8", "replace"),) if "key" in asked else ()
        return (*((key,) if key else ()), *shown, *bearer(scope))

    def headers(self, scope: asgi.Scope, *, stream: bool) -> dict[str, str]:  # noqa: ARG002 none of them goes on
        return {"accept": "text/event-stream" if stream else "application/json"}

    def read(
        self,
        body: dict[str, Any],
        route: Route,
        *,
        run: str,  # noqa: ARG002 nothing of a request names its user
        provider_tools: frozenset[str] = frozenset(),
    ) -> Asked:
        if route.stream and route.query != "alt=sse":
            raise FieldRefused("alt", "an answer is streamed as server-sent events only; ask for alt=sse")
        counting = route.operation == "count"
        found, seen = check_fields(body, route.model, provider_tools, counting=counting)
        request = found.get("generateContentRequest") or found
        return Asked(
            format="gemini",
            operation=route.operation,
            model=route.model,
            body=found if seen.changed else body,
            stream=bool(route.stream),
            most_output=0 if counting else most_output(found),
            messages=len(request["contents"]),
            tools=tuple(item for tool in request.get("tools") or () for item in _offered(tool)),
            changed=seen.changed,
            fixed_tokens=seen.images * IMAGE_TOKENS + seen.documents * MEDIA_TOKENS,
        )

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        inner, name = body.get("generateContentRequest"), f"models/{model}"
        if not isinstance(inner, dict) or inner.get("model") == name:
            return body
        return {**body, "generateContentRequest": {**inner, "model": name}}

    def path(self, asked: Asked, model: str) -> str:
        # The name may come from a repository's configuration: it stays one segment.
        head = f"/v1beta/models/{quote(model, safe='')}"
        if asked.operation == "count":
            return f"{head}:countTokens"
        return f"{head}:streamGenerateContent?alt=sse" if asked.stream else f"{head}:generateContent"

    def stream(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        return GeminiStream(hold_text=hold_text, provider_tools=any(tool.provider for tool in asked.tools))

    def whole(self, asked: Asked, *, hold_text: bool = False) -> Answer:
        if asked.operation == "count":
            return GeminiCount()
        return GeminiWhole(hold_text=hold_text, provider_tools=any(tool.provider for tool in asked.tools))

    def models(self, names: tuple[str, ...], one: str = "") -> bytes:
        if one:
            return json.dumps(_model(one)).encode()
        return json.dumps({"models": [_model(name) for name in names]}).encode()

    def error(self, status: int, found: Refusal) -> bytes:
        return wire.error_body(status, found.sentence(), found.as_json())

    def error_event(self, found: Refusal) -> bytes:
        # Programs try again after a 503; what was refused stays refused.
        status = 503 if found.rule.startswith("dependency.") else 403
        return wire.error_event(status, found.sentence(), found.as_json())

    def is_error(self, body: bytes) -> bool:
        return wire.is_error(body)


class GeminiCount:
    """An answer to `:countTokens`: numbers, nothing to judge, nothing to pay."""

    def __init__(self) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False

    def feed(self, data: bytes) -> Step:
        if not isinstance(loads(data).get("totalTokens"), int):
            raise WireError("its answer is no count")
        self.told.started = self.told.reported = self.told.stopped = True
        self.told.events = 1
        return Step(data)

    def decide(self, decided: Sequence[Decided]) -> Step:  # noqa: ARG002
        raise ValueError("nothing waits for a decision")

    def end(self) -> Step:
        return Step()

    def close(self) -> bytes:
        return b""

    def again(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        raise ValueError("a count is not continued")


def _query(query: bytes) -> dict[str, str] | None:
    """The parameters; None when one stands twice or it is none."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=8)
    except ValueError:
        return {} if not query else None
    return dict(pairs) if len(dict(pairs)) == len(pairs) else None


def _offered(tool: dict[str, Any]) -> list[Offered]:
    found = []
    for item in tool.get("functionDeclarations") or ():
        schema = item.get("parametersJsonSchema") or item.get("parameters")
        found.append(Offered(item["name"], schema=schema if isinstance(schema, dict) else None))
    own = tool.keys() - {"functionDeclarations"}
    return found + [Offered(snake(name), provider=True) for name in sorted(own) if tool[name] is not None]


def _model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
