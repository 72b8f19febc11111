"""The header of a DICOM Part 10 file: named elements before the pixel data, as the DICOM JSON model. Pure.

Explicit and implicit little endian are read (compressed images are explicit); other transfer syntaxes are not.
Rules it keeps:
1. Bounded: an element that reaches beyond the file, tags out of order, or nesting beyond `MAX_NESTED` end it.
2. Sequences, private elements and binary values are never shown, whatever a rule names; names of persons count as
   names whatever the element is called.

Sources: DICOM PS3.10 section 7.1, PS3.5 section 7 (data elements, sequences), PS3.18 annex F (JSON model).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from vestibule.core.projection.base import CannotProject
from vestibule.core.projection.dicom_names import ATTRIBUTES
from vestibule.core.projection.redact import by_name, placeholder, redact_value

MAX_NESTED = 16
MAX_ELEMENTS = 20_000
MAX_VALUE = 64 << 10

_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_COMPRESSED = re.compile(r"1\.2\.840\.10008\.1\.2\.(?:4\.\d+|5)\Z")
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UC", "UI"}
_ONE_TEXT = {"LT", "ST", "UR", "UT"}
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_UNDEFINED = 0xFFFFFFFF
_PIXELS = 0x7FE00000
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


class Element(NamedTuple):
    """One element. `vr` is `UN` where an implicit file does not say and the table does not know."""

    tag: int
    vr: str
    value: bytes


def header(data: bytes, chosen: Sequence[Sequence[str]], kinds: Collection[str], *, values: bool) -> bytes:
    """A DICOM JSON document of the elements that every list of `chosen` names (keyword, tag, or `*`).

    Raises:
        CannotProject: it is no such file, or not read to the end of its header.
    """
    found: dict[str, Any] = {}
    charset = "ascii"
    for element in elements(data):
        if element.tag == 0x00080005:
            charset = _charset(element.value)
        keyword = ATTRIBUTES.get(element.tag, ("", ""))[0]
        if element.tag >> 16 & 1 or not all(_named(element.tag, keyword, names) for names in chosen):
            continue
        item: dict[str, Any] = {"vr": element.vr}
        shown = _values(element, charset) if values else []
        if shown is None:
            continue
        if shown:
            item["Value"] = _shown(element.vr, keyword, shown, kinds)
        found[f"{element.tag:08X}"] = item
    return (json.dumps(found, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def elements(data: bytes) -> Iterator[Element]:
    """Elements of the first level before the pixel data; sequences are passed over.

    Raises:
        CannotProject: as for `header`.
    """
    if data[128:132] != b"DICM":
        raise CannotProject("The file is no DICOM file.")
    reader = _Reader(data, 132)
    syntax = ""
    while reader.at < len(data) and reader.peek() >> 16 == 0x0002:
        element = reader.element(explicit=True)
        if element is not None:
            if element.tag == 0x00020010:
                syntax = element.value.decode("ascii", "replace").strip("\0 ")
            yield element
    explicit = syntax == _EXPLICIT or _COMPRESSED.match(syntax) is not None
    if not explicit and syntax != _IMPLICIT:
        raise CannotProject("The file has a transfer syntax that is not read here.")
    while reader.at < len(data) and reader.peek() < _PIXELS:
        element = reader.element(explicit=explicit)
        if element is not None:
            yield element


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.last = -1
        self.count = 0

    def peek(self) -> int:
        group, number = struct.unpack("<HH", self._look(4))
        return int(group) << 16 | int(number)

    def _look(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise CannotProject("The file ends within an element.")
        return self.data[self.at : self.at + count]

    def _take(self, count: int) -> bytes:
        found = self._look(count)
        self.at += count
        return found

    def element(self, *, explicit: bool) -> Element | None:
        """The next element of the first level; None for a sequence."""
        tag = self.peek()
        if tag <= self.last or tag >> 16 == 0xFFFE:
            raise CannotProject("The file's elements are not in order.")
        self.last = tag
        tag, vr, length = self._head(explicit=explicit)
        if length == _UNDEFINED:
            if vr not in ("SQ", "UN"):
                raise CannotProject("An element of the file has no length.")
            # A sequence whose type is not known holds implicit elements (PS3.5 section 6.2.2).
            self._sequence(explicit=explicit and vr == "SQ", depth=0)
            return None
        value = self._take(length)
        return None if vr == "SQ" else Element(tag, vr, value)

    def _head(self, *, explicit: bool) -> tuple[int, str, int]:
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise CannotProject("The file has too many elements.")
        tag = self.peek()
        self.at += 4
        if not explicit:
            return tag, ATTRIBUTES.get(tag, ("", "UN"))[1], int(struct.unpack("<I", self._take(4))[0])
        vr = self._take(2)
        if not (vr.isalpha() and vr.isupper()):
            raise CannotProject("An element of the file has no type.")
        if vr in _LONG:
            self._take(2)
            return tag, vr.decode("ascii"), int(struct.unpack("<I", self._take(4))[0])
        return tag, vr.decode("ascii"), int(struct.unpack("<H", self._take(2))[0])

    def _sequence(self, *, explicit: bool, depth: int) -> None:
        if depth > MAX_NESTED:
            raise CannotProject("The file is nested too deeply.")
        while True:
            tag = self.peek()
            self.at += 4
            length = int(struct.unpack("<I", self._take(4))[0])
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                raise CannotProject("A sequence of the file holds something else than items.")
            if length != _UNDEFINED:
                self._take(length)
                continue
            while self.peek() != _ITEM_END:
                _, vr, size = self._head(explicit=explicit)
                if size == _UNDEFINED:
                    self._sequence(explicit=explicit and vr == "SQ", depth=depth + 1)
                else:
                    self._take(size)
            self._take(8)


def _named(tag: int, keyword: str, names: Sequence[str]) -> bool:
    for name in names:
        if name == "*" or (keyword and name == keyword):
            return True
        digits = re.fullmatch(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?", name)
        if digits is not None and int(digits[1] + digits[2], 16) == tag:
            return True
    return False


def _charset(value: bytes) -> str:
    """The one of the defined terms that are read; others leave ASCII (PS3.3 section C.12.1.1.2)."""
    term = value.decode("ascii", "replace").strip("\0 ")
    return {"ISO_IR 192": "utf-8", "ISO_IR 100": "latin-1"}.get(term, "ascii")


def _values(element: Element, charset: str) -> list[Any] | None:
    """The element's values; None for what is never shown."""
    if len(element.value) > MAX_VALUE:
        return None
    if element.vr in _NUMBERS:
        code = _NUMBERS[element.vr]
        if len(element.value) % struct.calcsize(code):
            return None
        found = list(struct.unpack(f"<{len(element.value) // struct.calcsize(code)}{code}", element.value))
        return None if any(isinstance(item, float) and not math.isfinite(item) for item in found) else found
    if element.vr not in _TEXT | _ONE_TEXT:
        return None
    text = element.value.decode(charset, "replace").rstrip("\0 ")
    if not text:
        return []
    return [text] if element.vr in _ONE_TEXT else [item.strip(" ") for item in text.split("\\")]


def _shown(vr: str, keyword: str, values: list[Any], kinds: Collection[str]) -> list[Any]:
    named = (
        "name" if vr == "PN" and "name" in kinds else next((kind for kind in by_name(keyword) if kind in kinds), None)
    )
    shown: list[Any] = []
    for value in values:
        item = value
        if named is not None and value != "":
            item = placeholder(named)
        elif isinstance(value, str):
            item = redact_value(value, kinds)
        shown.append({"Alphabetic": item} if vr == "PN" else item)
    return shown
