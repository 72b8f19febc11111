"""Known values in an answer as it flows: passes it on, keeps a suspicious end back, or stops it. Pure.

Rules it keeps:
1. At most 5 characters in a row of a value leave before the rest is looked at: an end of 6 or more that could go on to
   be a value is kept back, with everything behind it, until it is clear.
2. Values are looked for in a row of letters, digits and underscores, whatever stands between them, and in the
   encodings that need no decoding: reversed, base64 at each alignment, hex.
3. Every `STRETCH` characters, and before the end of an answer is passed on, what was said is looked at in all decoded
   layers as well.
4. Once found, nothing more is passed on.
"""

from __future__ import annotations

import re

from vestibule.boundary.models.guards.known import Known, Sight
from vestibule.core.text.secrets import GRAM, WINDOW

STRETCH = 4096
"""Characters of an answer after which its decoded layers are looked at."""
OVERLAP = 1024
_BETWEEN = re.compile(r"[^A-Za-z0-9_]+")
_FRAGMENT = 512


class Flow:
    """One answer. `sight.found` is the value that stopped it."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._kept = bytearray()
        self._row = ""
        """The end of what was said that could go on to be a value."""
        self._tail = ""
        self._unseen: list[str] = []
        self._unseen_size = 0
        self._before = ""
        self.sight = Sight()
        self.text = 0
        self.looks = 0
        self.kept = 0
        """Steps that were kept back."""

    @property
    def stopped(self) -> bool:
        return bool(self.sight.found)

    def see(self, out: bytes, text: str, *, last: bool = False) -> bytes:
        """What may be sent now of all that came. `last`: nothing more is said; then everything may, or it is found."""
        if not self.stopped and text:
            self.text += len(text)
            self._unseen.append(text)
            self._unseen_size += len(text)
            self._follow(text)
        if not self.stopped and self._unseen and (last or self._unseen_size >= STRETCH):
            self._look()
        if self.stopped:
            self._kept.clear()
            return b""
        if self._row and not last:
            self.kept += bool(out)
            self._kept += out
            return b""
        if not self._kept:
            return out
        released = bytes(self._kept) + out
        self._kept.clear()
        return released

    def _look(self) -> None:
        said = self._before + "".join(self._unseen)
        self._unseen, self._unseen_size = [], 0
        self._before = said[-OVERLAP:]
        self.looks += 1
        found = self._known.look(said)
        if found.found:
            self.sight = found

    def _follow(self, text: str) -> None:
        grams = self._known.grams
        if not grams:
            return
        if len(text) > _FRAGMENT:
            # Much at once: what lies within is looked at as a whole, only its end can go on.
            self._look()
            if self.stopped:
                return
            text = text[-_FRAGMENT:]
            self._row, self._tail = "", ""
        fresh = _BETWEEN.sub("", text)
        if not fresh:
            return
        row, said = self._row, self._tail + fresh
        for end in range(len(self._tail) + 1, len(said) + 1):
            if end >= GRAM and said[end - GRAM : end] in grams:
                row = row + said[end - 1] if row else said[end - GRAM : end]
                if name := self._known.told(row[-2 * WINDOW :]):
                    self.sight = Sight(name, "")
                    return
                if len(row) > 4 * WINDOW:
                    row = row[-2 * WINDOW :]
            else:
                row = ""
        self._tail = said[-(GRAM - 1) :]
        self._row = row if len(row) < WINDOW else ""
