"""Known values: found however they are spelled, in one text or spread over many; nothing else is."""

from __future__ import annotations

import base64
import gzip
import json
import random
import urllib.parse
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.guards.known import Known, strings
from vestibule.core.text.secrets import KnownSecret

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_R = random.Random(5)
VALUE = "".join(_R.choice(_ALPHABET) for _ in range(40))
OTHER = "".join(_R.choice(_ALPHABET) for _ in range(32))
KNOWN = Known(
    (KnownSecret("the provider's key", f"sk-ant-api03-{VALUE}".encode()), KnownSecret("other", OTHER.encode()))
)
NOISE = "The file was read; see `src/app/main.py`, line 12. Nothing else was changed.\n"

ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda v: v,
    "reversed": lambda v: v[::-1],
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64, shifted by one": lambda v: base64.b64encode(b"x" + v.encode()).decode(),
    "base64, shifted by two": lambda v: base64.b64encode(b"xy" + v.encode()).decode(),
    "base64 for addresses": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "base64 twice": lambda v: base64.b64encode(base64.b64encode(v.encode())).decode(),
    "base64 of hex": lambda v: base64.b64encode(v.encode().hex().encode()).decode(),
    "hex": lambda v: v.encode().hex(),
    "hex in capitals": lambda v: v.encode().hex().upper(),
    "hex with marks": lambda v: "".join(f"\\x{b:02x}" for b in v.encode()),
    "hex with spaces": lambda v: " ".join(f"{b:02x}" for b in v.encode()),
    "percent": lambda v: "".join(f"%{b:02X}" for b in v.encode()),
    "percent where needed": lambda v: urllib.parse.quote(f"a b/{v}"),
    "escapes": lambda v: "".join(f"\\u{ord(c):04x}" for c in v),
    "decimal": lambda v: str(list(v.encode())),
    "compressed": lambda v: base64.b64encode(gzip.compress(v.encode())).decode(),
    "spaces between": " ".join,
    "dashes between": "-".join,
    "a literal in two": lambda v: f'"{v[:9]}" + "{v[9:]}"',
    "zero-width between": "\u200b".join,
    "joiners between": "\u2060".join,
    "tags between": "\U000e0041".join,
    "full-width": lambda v: "".join(chr(ord(c) + 0xFEE0) for c in v),
    "over lines": lambda v: "\n".join(v[at : at + 7] for at in range(0, len(v), 7)),
    "without its beginning": lambda v: v[13:],
    "without its end": lambda v: v[:20],
    "a window": lambda v: v[11:25],
    "pieces among words": lambda v: " and ".join(v[at : at + 6] for at in range(0, 36, 6)),
}


@pytest.mark.parametrize("spelled", ENCODINGS, ids=lambda name: name.replace(" ", "-"))
def test_a_value_is_found_in_every_spelling(spelled: str) -> None:
    text = NOISE + ENCODINGS[spelled](VALUE) + "\n" + NOISE
    sight = KNOWN.look(text)
    assert sight.found == "the provider's key"
    assert VALUE not in repr(sight)
    assert VALUE not in repr(KNOWN)


@settings(max_examples=150, deadline=None)
@given(
    st.text(_ALPHABET, min_size=24, max_size=64).filter(lambda v: len(set(v)) > 12),
    st.sampled_from(sorted(set(ENCODINGS) - {"without its beginning", "a window", "pieces among words"})),
    st.text(" \n.,;:<>()", max_size=12),
    st.text(" \n.,;:<>()", max_size=12),
)
def test_no_value_passes_in_any_spelling(value: str, spelled: str, before: str, behind: str) -> None:
    known = Known((KnownSecret("it", value.encode()),))
    assert known.look(f"{before}{ENCODINGS[spelled](value)}{behind}").found == "it"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 28), st.integers(12, 40), st.text(max_size=40), st.text(max_size=40))
def test_any_twelve_characters_in_a_row_tell_it(start: int, length: int, before: str, behind: str) -> None:
    part = VALUE[start : start + length]
    if len(part) >= 12:
        assert KNOWN.look(f"{before} {part} {behind}").found


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_other_texts_pass(text: str) -> None:
    assert KNOWN.look(text).found == ""


@pytest.mark.parametrize(
    "text",
    [
        str(uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF)),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0.c2lnbmF0dXJl",
        "sk-ant-api03-",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
        "AKIAIOSFODNN7EXAMPLE",
    ],
    ids=["uuid", "sha256", "sample-jwt", "a-beginning", "image", "sample-key"],
)
def test_what_only_looks_like_one_passes(text: str) -> None:
    assert KNOWN.look(NOISE + text).found == ""


def test_pieces_add_up_over_texts() -> None:
    sights = [KNOWN.look(f"see {VALUE[at : at + 7]} there") for at in range(0, 35, 7)]
    assert all(not sight.found for sight in sights)
    assert KNOWN.told_by(piece for sight in sights for piece in sight.pieces) == "the provider's key"
    assert KNOWN.told_by(piece for sight in sights[:2] for piece in sight.pieces) == ""


def test_a_value_as_one_character_a_text_is_found() -> None:
    blobs: list[str] = []
    part = {"input": {"letters": list(VALUE)}}
    assert KNOWN.look("\n".join(strings(part, blobs))).found
    assert KNOWN.look("\n".join(strings({"n": list(VALUE.encode())}, blobs))).found
    assert KNOWN.look("\n".join(strings({VALUE: 1}, blobs))).found


def test_an_image_that_carries_it_is_found() -> None:
    data = random.Random(1).randbytes(60_000)
    image = base64.b64encode(data[:30_001] + VALUE.encode() + data[30_001:]).decode()
    blobs: list[str] = []
    assert strings({"source": {"data": image}}, blobs) == ["source", "data"]
    assert KNOWN.look_at_data(blobs[0]).found
    assert not KNOWN.look_at_data(base64.b64encode(data).decode()).found


def test_values_too_short_to_tell_are_not_looked_for() -> None:
    assert not Known((KnownSecret("pin", b"1234567"),))
    assert Known((KnownSecret("short", b"12345678"),)).look(json.dumps({"a": "x12345678x"})).found == "short"
