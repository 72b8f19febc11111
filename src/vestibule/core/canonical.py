"""Canonical bytes of a JSON value, and its digest.

The form is a subset of RFC 8785 (JCS): keys sorted, no insignificant white space, UTF-8, no
floats at all (money and counts are integers here), so two writers always produce the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """UTF-8 bytes of `value`.

    Raises:
        TypeError: a float or another type without one canonical form was found.
        ValueError: a string holds a lone surrogate.
    """
    _refuse_floats(value)
    return _ENCODER.encode(value).encode("utf-8")


def digest(value: Any) -> str:
    """`sha256:<hex>` of the canonical bytes."""
    return digest_bytes(canonical_json(value))


def digest_bytes(data: bytes) -> str:
    """`sha256:<hex>` of `data` as stored."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _refuse_floats(value: Any) -> None:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return
    if isinstance(value, float):
        raise TypeError("floats have no place in canonical JSON: use integers")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON keys are strings, not {type(key).__name__}")
            if type(item) not in _PLAIN:
                _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if type(item) not in _PLAIN:
                _refuse_floats(item)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_PLAIN = frozenset((str, int, bool, type(None)))
"""Most values are of these; no call is spent on them."""
