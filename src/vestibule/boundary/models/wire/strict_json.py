"""JSON read strictly, so that what was checked is what any other parser sees.

Rules it keeps:
1. Duplicate keys are refused (RFC 8259 section 4 leaves them to the parser; two parsers, two meanings).
2. NaN, Infinity and numbers beyond a double are refused; so are lone surrogates and bytes that are not UTF-8.
3. Size, depth and number of values are bounded before memory is spent on them.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 100
MAX_VALUES = 1_000_000


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadJson(ValueError):
    """Not acceptable as JSON; the message says why, without data from it."""


def parse(data: bytes) -> Any:
    """The value of one JSON text.

    Raises:
        BadJson: anything that the rules above refuse.
    """
    if len(data) > MAX_BYTES:
        raise BadJson("the body is larger than 32 MiB")
    # An upper bound: marks inside strings count too. Each value costs about 100 bytes of memory.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise BadJson("the body holds too many values")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadJson("the body is not UTF-8") from None
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise BadJson("the body is nested too deeply") from None
    except BadJson:
        raise
    except ValueError:
        raise BadJson("the body is not valid JSON") from None
    _check_depth(value)
    if _SURROGATE.search(data):
        dump(value)  # refuses a lone one; pairs are text like any other
    return value


def dump(value: Any) -> bytes:
    """Compact UTF-8 bytes.

    Raises:
        BadJson: a string holds a lone surrogate.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (UnicodeEncodeError, ValueError, RecursionError):
        raise BadJson("the body holds text or numbers that cannot be sent on") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("a key stands twice in one object")
    return found


def _constant(_text: str) -> Any:
    raise BadJson("NaN and Infinity are no JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadJson("a number is out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise BadJson("the body is nested too deeply")
