"""The layers of a text under which a secret can hide: decoded, reversed, joined. Pure and bounded.

Rules it keeps:
1. A decoder works on every run that could be its encoding, at every alignment, twice at most (base64 of hex …). What
   was compressed before it was encoded is unpacked.
2. Work is linear in the text: layers are capped in number and size; what passes the cap is still searched as it stands.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DECODED = 8 << 20
"""Bytes of decoded runs per text and layer."""
MAX_PACKED = 32
"""Compressed runs that are unpacked, per text and layer."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
_WRAPPED = re.compile(rb"(?<=[A-Za-z0-9+/_-]{40})[ \t]*(?:\\n)?[\"']?\s*\r?\n[ \t]*[\"']?(?=[A-Za-z0-9+/_=-])")
_HEX = re.compile(rb"(?:(?:\\x|0x|%|\\u00)?[0-9A-Fa-f]{2}[ ,:;-]{0,2}){8,}")
_HEX_MARKS = re.compile(rb"\\x|0x|\\u00|[^0-9A-Fa-f]")
_ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})|\\u00([0-9A-Fa-f]{2})|&#x([0-9A-Fa-f]{2});|\\([0-7]{3})")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_PACKED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
"""How gzip (RFC 1952) and zlib (RFC 1950) begin."""
_DECIMAL = re.compile(rb"(?:(?<![0-9])[0-9]{2,3}[ ,;]{1,3}){8,}[0-9]{2,3}")
_NO_TOKEN = bytes(value for value in range(256) if not (chr(value).isascii() and (chr(value).isalnum() or value == 95)))
_SEAM = re.compile(rb"['\"`]\s*\\?\s*(?:\.\.|[+.,&|]{0,2})\s*\\?\s*(?:[bfru]{1,2})?['\"`]")
"""Between two literals that a program puts together: `"ab" + "cd"`, `"ab" "cd"`, `["ab", "cd"]`."""
_NOT_JOINED = re.compile(rb"['\"`+,;()\[\]{}\\\s.|&]+")
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")


SPLIT = "split"
LOOSE = "in pieces"
"""The layer that joins across anything: for known values only, since it also joins code into what looks like one."""


@dataclass(frozen=True, slots=True)
class Layer:
    """`name` says how it was reached (empty: as it stands). Only the first keeps offsets of the text."""

    name: str
    data: bytes


def layers(text: bytes) -> Iterator[Layer]:
    """The text as it stands, then everything it decodes to."""
    yield Layer("", text)
    yield Layer("reversed", text[::-1])
    yield Layer(SPLIT, _SEAM.sub(b"", text))
    yield Layer(LOOSE, _NOT_JOINED.sub(b"", text))
    for first in decoded(text):
        yield first
        if packed := _unpacked(first.data):
            yield Layer(f"compressed in {first.name}", packed)
        if len(first.data) >= 8:
            for second in decoded(first.data):
                yield Layer(f"{first.name} in {second.name}", second.data)
            yield Layer(f"{first.name}, reversed", first.data[::-1])
    backwards = b"\n".join(layer.data for layer in decoded(text[::-1]))
    if backwards:
        yield Layer("reversed, encoded", backwards)


def compact(text: bytes) -> bytes:
    """Letters, digits and underscores only: joins a value that was split by anything else."""
    return text.translate(None, _NO_TOKEN)


def deep(text: bytes) -> Iterator[Layer]:
    """Everything that the text decodes to, and that this decodes to, without the text itself."""
    for first in decoded(text):
        yield first
        if packed := _unpacked(first.data):
            yield Layer(f"compressed in {first.name}", packed)
        if len(first.data) >= 8:
            for second in decoded(first.data):
                yield Layer(f"{first.name} in {second.name}", second.data)


def decoded(text: bytes) -> Iterator[Layer]:
    """What the text decodes to in one step."""
    if b"%" in text:
        plain = _PERCENT.sub(_unescape_percent, text)
        if plain != text:
            yield Layer("percent-encoding", plain)
    if b"\\" in text or b"&#x" in text:
        plain = _ESCAPED.sub(_unescape, text)
        if plain != text:
            yield Layer("escapes", plain)
    for name, data in (
        ("base64", _base64(text)),
        ("hex", _hex(text)),
        ("decimal", _decimals(text)),
    ):
        if data:
            yield Layer(name, data)


def _unescape_percent(match: re.Match[bytes]) -> bytes:
    return bytes([int(match.group(1), 16)])


def _unescape(match: re.Match[bytes]) -> bytes:
    octal = match.group(4)
    value = int(octal, 8) if octal else int(next(g for g in match.groups() if g), 16)
    return bytes([value & 0xFF])


def _base64(text: bytes) -> bytes:
    """Every run, with line wraps undone, decoded at its four alignments."""
    out: list[bytes] = []
    total = 0
    for match in _BASE64.finditer(_WRAPPED.sub(b"", text)):
        run = match.group().rstrip(b"=").translate(_TO_BASE64)
        for shift in range(4):
            part = run[shift:]
            part = part[: len(part) - (1 if len(part) % 4 == 1 else 0)]
            try:
                data = base64.b64decode(part + b"=" * (-len(part) % 4))
            except (binascii.Error, ValueError):
                continue
            total += len(data)
            if total > MAX_DECODED:
                return b"\n".join(out)
            out.append(data)
    return b"\n".join(out)


def _hex(text: bytes) -> bytes:
    out: list[bytes] = []
    total = 0
    for match in _HEX.finditer(text):
        digits = _HEX_MARKS.sub(b"", match.group())
        for shift in (0, 1):
            part = digits[shift:]
            data = bytes.fromhex(part[: len(part) // 2 * 2].decode("ascii"))
            total += len(data)
            if total > MAX_DECODED:
                return b"\n".join(out)
            out.append(data)
    return b"\n".join(out)


def _unpacked(data: bytes) -> bytes:
    """What unpacks of everything that could be compressed, bounded in number and size (a bomb's beginning)."""
    out: list[bytes] = []
    room = MAX_DECODED
    for count, match in enumerate(_PACKED.finditer(data)):
        if count >= MAX_PACKED or room <= 0:
            break
        try:
            # 32: either header. A part that is whole is given even when the rest is not.
            found = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data[match.start() :], min(room, 1 << 20))
        except zlib.error:
            continue
        room -= len(found)
        out.append(found)
    return b"\n".join(out)


def _decimals(text: bytes) -> bytes:
    """Lists of byte values (`[103, 104, 112, …]`)."""
    out: list[bytes] = []
    for match in _DECIMAL.finditer(text):
        values = [int(item) for item in re.findall(rb"[0-9]+", match.group())]
        if all(value < 256 for value in values):
            out.append(bytes(values))
    return b"\n".join(out)[:MAX_DECODED]
