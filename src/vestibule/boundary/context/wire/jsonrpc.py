"""JSON-RPC 2.0 requests, read strictly: what is decided on is exactly what is carried out.

Rules it keeps:
1. UTF-8, one object, no duplicate keys, no NaN or infinity, at most `MAX_DEPTH` levels, no lone
   surrogates, and no bytes that are no UTF-8, outside `params.arguments` (there the path normaliser names them).
2. No batches; no responses posted to the server, unless the endpoint asks clients anything (`answers`).
3. An id is a string of at most 256 characters or an integer.
4. What goes on is written anew from the parsed value, so a second parser cannot read it differently.

Source: JSON-RPC 2.0 sections 4 and 5; MCP 2026-07-28 and 2025-11-25, "Streamable HTTP"; RFC 8259 section 4
(duplicate names have no agreed meaning).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 32
MAX_ID = 256
MAX_NUMBER_DIGITS = 64

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
REFUSED = -32010
"""Ours: policy or a guard said no; `data` holds the typed refusal."""

ANSWER = "client/answer"

RequestId = str | int


class BadMessage(ValueError):
    """Not a message that is served. `code` is the JSON-RPC error code."""

    def __init__(self, code: int, sentence: str, request_id: RequestId | None = None) -> None:
        self.code = code
        self.request_id = request_id
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class Message:
    """A request, or a notification when `request_id` is None. `params` is an object, empty when absent.

    `plain`: the body had no escapes in hexadecimal, so no string of it can hold a lone surrogate. `answer`: what the
    client answers to a request of the server's, as it came; `method` is then `client/answer`.
    """

    method: str
    params: dict[str, Any]
    request_id: RequestId | None
    plain: bool = False
    answer: dict[str, Any] | None = None

    def encoded(self, params: dict[str, Any] | None = None) -> bytes:
        """The message as bytes, with `params` in place of its own.

        Raises:
            BadMessage: a string holds a lone surrogate.
        """
        if self.answer is not None:
            return dumps(self.answer, self.request_id)
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": self.method}
        if self.request_id is not None:
            body["id"] = self.request_id
        body["params"] = self.params if params is None else params
        return dumps(body, self.request_id)


def dumps(value: Any, request_id: RequestId | None = None) -> bytes:
    """Compact UTF-8 JSON.

    Raises:
        BadMessage: a string is no valid Unicode.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise BadMessage(INVALID_PARAMS, "A string is no valid Unicode.", request_id) from None


def parse(body: bytes, *, answers: bool = False) -> Message:
    """The message in `body`. With `answers` a response is one too.

    Raises:
        BadMessage: it breaks a rule above; the id is kept when it could be read.
    """
    value = _strict(body)
    if isinstance(value, list):
        raise BadMessage(INVALID_REQUEST, "Batches are not served; send one request at a time.")
    if not isinstance(value, dict):
        raise BadMessage(INVALID_REQUEST, "A message is a JSON object.")
    request_id = value.get("id")
    if "id" in value and not _is_id(request_id):
        raise BadMessage(INVALID_REQUEST, "An id is an integer or a string of at most 256 characters.")
    if value.get("jsonrpc") != "2.0":
        raise BadMessage(INVALID_REQUEST, 'A message says "jsonrpc": "2.0".', request_id)
    if answers and value.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"}) and request_id is not None:
        return Message(ANSWER, {}, request_id, answer=value)
    unknown = value.keys() - {"jsonrpc", "id", "method", "params"}
    if unknown:
        raise BadMessage(INVALID_REQUEST, "A request has jsonrpc, id, method and params only.", request_id)
    method = value.get("method")
    if not isinstance(method, str) or not method or len(method) > 128 or not method.isascii():
        raise BadMessage(INVALID_REQUEST, "A method is a short ASCII string.", request_id)
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise BadMessage(INVALID_PARAMS, "Parameters are an object.", request_id)
    if request_id is None and not method.startswith("notifications/"):
        raise BadMessage(INVALID_REQUEST, "A request has an id.")
    return Message(method, params, request_id, plain=b"\\u" not in body)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ID and _is_unicode(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def strict_json(body: bytes) -> Any:
    """Any JSON value, read by rule 1; the upstream servers' messages are read by it too.

    Raises:
        BadMessage: it breaks the rule.
    """
    return _strict(body)


def _strict(body: bytes) -> Any:
    # A byte that is no UTF-8 (an overlong form, for one) becomes a lone surrogate, and is judged as one.
    text = body.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short_integer,
        )
    except BadMessage:
        raise
    except (ValueError, RecursionError):
        raise BadMessage(PARSE_ERROR, "The body is not JSON.") from None
    if _deeper(value, MAX_DEPTH):
        raise BadMessage(PARSE_ERROR, f"The body nests deeper than {MAX_DEPTH} levels.")
    return value


def _deeper(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadMessage(PARSE_ERROR, "An object has the same key twice.")
    return found


def _no_constant(name: str) -> Any:
    raise BadMessage(PARSE_ERROR, f"{name} is not JSON.")


def _finite(text: str) -> float:
    value = float(text)
    if len(text) > MAX_NUMBER_DIGITS or not math.isfinite(value):
        raise BadMessage(PARSE_ERROR, "A number is too large.")
    return value


def _short_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_DIGITS:
        raise BadMessage(PARSE_ERROR, "A number is too long.")
    return int(text)


def result(request_id: RequestId | None, value: dict[str, Any]) -> bytes:
    """A response that carries a result."""
    return dumps({"jsonrpc": "2.0", "id": request_id, "result": value})


def error(request_id: RequestId | None, code: int, message: str, data: dict[str, Any] | None = None) -> bytes:
    """A response that carries an error."""
    body: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return dumps({"jsonrpc": "2.0", "id": request_id, "error": body})
