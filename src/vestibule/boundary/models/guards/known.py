"""Known values in texts of models: provider keys, task tokens, canaries. Pure.

Rules it keeps:
1. A finding names the value and the layer it was found in; no byte of the value, or of the text, is in it.
2. A text is looked at as a row of letters, digits and underscores, whatever stands between them, for a value as it
   is, reversed, in base64 at each alignment, and in hex; and then in everything it decodes to (`core.text.layers`).
3. Told is a value by 12 characters in a row, at least 6 of them different; by half of it in pieces of six, added up
   over all parts of a request; one of fewer than 12 by the whole.

What it cannot find: a value that was encrypted, or written in other words; that is why agents are given none.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vestibule.core.text.layers import compact, decoded, deep
from vestibule.core.text.sanitize import find_hidden
from vestibule.core.text.secrets import GRAM, PIECED, WINDOW, KnownSecret, secret_core, window_of

LEAST = 8
"""A value of fewer characters stands in texts by chance."""
BLOB = 64 * 1024
"""A text of base64 this long is data (an image): it is looked at as it stands and decoded, not as a text."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}\Z")


@dataclass(frozen=True, slots=True)
class Sight:
    """`found` names the value, `layer` how it was hidden. `pieces`: (value, its characters seen, as bits)."""

    found: str = ""
    layer: str = ""
    pieces: tuple[tuple[int, int], ...] = ()
    layers: int = 0


CLEAR = Sight()


class Known:
    """The values of one run, and how a text could spell them."""

    def __init__(self, secrets: Iterable[KnownSecret]) -> None:
        cores: dict[bytes, str] = {}
        for secret in secrets:
            core = secret_core(secret.value.strip())
            if len(core) >= LEAST:
                cores.setdefault(core, secret.name)
        self._names = tuple(cores.values())
        self._cores = tuple(cores)
        # Of signs alone, as good as: not to be found in a row of letters and digits.
        self._plain = tuple((name, core) for core, name in cores.items() if len(compact(core)) < LEAST)
        spelled: list[tuple[str, str]] = []
        self._places: dict[str, list[tuple[int, int]]] = {}
        for place, (core, name) in enumerate(cores.items()):
            for form in _spellings(core):
                text = compact(form).decode("ascii")
                if len(text) >= LEAST:
                    spelled.append((text, name))
            joined = compact(core).decode("ascii")
            if len(joined) >= PIECED:
                for at in range(len(joined) - GRAM + 1):
                    if len(set(joined[at : at + GRAM])) >= 4:
                        self._places.setdefault(joined[at : at + GRAM], []).append((place, at))
        self._spelled = tuple(spelled)
        self.grams = frozenset(
            text[at : at + GRAM]
            for text, _ in spelled
            for at in range(len(text) - GRAM + 1)
            if len(set(text[at : at + GRAM])) > 1
        )

    def __repr__(self) -> str:
        return f"Known({list(self._names)})"

    def __bool__(self) -> bool:
        return bool(self._cores)

    def look(self, text: str) -> Sight:
        """The first value that the text tells; if none, the pieces of values that stand in it."""
        if not self._cores or len(text) < GRAM:
            return CLEAR
        seen: dict[int, int] = {}
        count = 0
        for name, data in _layers(text):
            count += 1
            found = self._row(compact(data).decode("ascii"), seen)
            if not found and self._plain:
                found = next((secret for secret, core in self._plain if core in data), "")
            if found:
                return Sight(found, name, layers=count)
        return Sight(pieces=tuple(seen.items()), layers=count)

    def look_at_data(self, text: str) -> Sight:
        """The same of data in base64: its bytes, and the text that it is."""
        run = text.rstrip("=").translate(_STANDARD)
        data = base64.b64decode(run + "=" * (-len(run) % 4)) if len(run) % 4 != 1 else b""
        for name, layer in (("", text.encode("ascii")), ("base64", data)):
            for secret, core in zip(self._names, self._cores, strict=True):
                if window_of(core, layer) is not None or window_of(core[::-1], layer) is not None:
                    return Sight(secret, name, layers=2)
        return Sight(layers=2)

    def told(self, row: str) -> str:
        """The value of which the row holds the whole, or 12 characters with at least 6 different ones."""
        for text, name in self._spelled:
            if len(text) < WINDOW:
                if text in row:
                    return name
                continue
            for at in range(len(row) - WINDOW + 1):
                part = row[at : at + WINDOW]
                if part in text and len(set(part)) >= GRAM:
                    return name
        return ""

    def told_by(self, pieces: Iterable[tuple[int, int]]) -> str:
        """The value of which pieces from several places together tell half, or nothing."""
        together: dict[int, int] = {}
        for place, bits in pieces:
            together[place] = together.get(place, 0) | bits
        for place, bits in together.items():
            if bits.bit_count() * 2 >= len(compact(self._cores[place])):
                return self._names[place]
        return ""

    def _row(self, row: str, seen: dict[int, int]) -> str:
        """One pass over a layer: rows of known pieces are compared with the values, and noted."""
        grams = self.grams
        hits = [at for at in range(len(row) - GRAM + 1) if row[at : at + GRAM] in grams]
        begin = last = -2
        for at in hits:
            for place, offset in self._places.get(row[at : at + GRAM], ()):
                seen[place] = seen.get(place, 0) | ((1 << GRAM) - 1) << offset
            if at != last + 1:
                if begin >= 0 and (name := self.told(row[begin : last + GRAM])):
                    return name
                begin = at
            last = at
        if begin >= 0 and (name := self.told(row[begin : last + GRAM])):
            return name
        return self.told_by(seen.items())


def _spellings(core: bytes) -> list[bytes]:
    found = [core, core[::-1], core.hex().encode(), core.hex().upper().encode()]
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(shift) + core).rstrip(b"=")
            # What depends on the bytes before and behind is left out.
            found.append(text[-(-shift * 8 // 6) : (shift + len(core)) * 8 // 6])
    return found


def _layers(text: str) -> Iterator[tuple[str, bytes]]:
    data = text.encode("utf-8", "surrogatepass")
    yield "", data
    for layer in deep(data):
        yield layer.name, layer.data
    backwards = b"\n".join(layer.data for layer in decoded(data[::-1]))
    if backwards:
        yield "reversed, encoded", backwards
    if not text.isascii():
        plain = visible(text)
        if plain != text:
            seen = plain.encode("utf-8", "surrogatepass")
            yield "invisible characters", seen
            for layer in deep(seen):
                yield layer.name, layer.data


_STANDARD = str.maketrans("-_", "+/")
_SOFT = dict.fromkeys((0x00AD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF))


def visible(text: str) -> str:
    """The text in compatibility form (full-width letters are letters), without what nobody sees."""
    hidden = {item.offset for item in find_hidden(text)}
    shown = "".join(char for offset, char in enumerate(text) if offset not in hidden) if hidden else text
    return unicodedata.normalize("NFKC", shown.translate(_SOFT))


def strings(value: Any, blobs: list[str]) -> list[str]:
    """Everything that a part of a request says, in its order: texts, keys and numbers. Long data goes to `blobs`."""
    out: list[str] = []
    _collect(value, out, blobs)
    return out


def _collect(value: Any, out: list[str], blobs: list[str]) -> None:
    kind = type(value)
    if kind is str:
        if len(value) >= BLOB and _BASE64.match(value):
            blobs.append(value)
        else:
            out.append(value)
    elif kind is dict:
        for key, item in value.items():
            out.append(key)
            _collect(item, out, blobs)
    elif kind is list:
        if value and all(type(item) is int for item in value):
            out.append(", ".join(map(str, value)))
        else:
            for item in value:
                _collect(item, out, blobs)
    elif kind is int or kind is float:
        out.append(str(value))
