"""The one sanitizer: makes untrusted text safe to show, hiding nothing silently.

Characters that a person cannot see are shown as `⟦U+XXXX⟧`. Kept as they are: line feeds, tabs,
right-to-left marks and joiners where scripts need them, a byte-order mark at the start, one variation
selector after a base character, and tag sequences that form a flag (Unicode TR51, RGI).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embedding, override and isolate controls (CVE-2021-42574, "Trojan Source")."""

_MARKS = frozenset("\u200e\u200f\u061c")
_JOINERS = frozenset("\u200c\u200d")
_BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
_NATIONS = ("".join(chr(0xE0000 + ord(char)) for char in name) for name in ("gbeng", "gbsct", "gbwls"))
_FLAG = re.compile(f"\U0001f3f4(?:{'|'.join(_NATIONS)})\U000e007f")
"""The flags that are there: any other sequence is drawn as a plain black flag, and could carry words."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """A hidden character: its offset in the text, its code point and its class."""

    offset: int
    char: str
    kind: str

    @property
    def shown(self) -> str:
        return f"⟦U+{ord(self.char):04X}⟧"


def find_hidden(text: str) -> list[Hidden]:
    """Every character that hides from a reader, in order. Kinds: bidi, tag, zero-width, variation, control, blank."""
    if text.isascii() and not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)", text):
        return []
    flags = {offset for match in _FLAG.finditer(text) for offset in range(match.start() + 1, match.end())}
    found: list[Hidden] = []
    for offset, char in enumerate(text):
        kind = _kind(text, offset, char)
        if kind and not (kind == "tag" and offset in flags):
            found.append(Hidden(offset, char, kind))
    return found


def _kind(text: str, offset: int, char: str) -> str:
    point = ord(char)
    if char in BIDI_CONTROLS:
        return "bidi"
    if 0xE0000 <= point <= 0xE007F:
        return "tag"
    if 0xFE00 <= point <= 0xFE0F or 0xE0100 <= point <= 0xE01EF:
        return "" if offset and _takes_selector(text[offset - 1], char) else "variation"
    if char in _JOINERS:
        return "" if _joins(text, offset) else "zero-width"
    if char in _BLANKS:
        return "blank"
    if char in _MARKS or char in "\n\t" or (char == "\r" and text[offset + 1 : offset + 2] == "\n"):
        return ""
    if char == "\ufeff":
        return "" if offset == 0 else "zero-width"
    category = unicodedata.category(char)
    if category == "Cf" and char != "\u00ad" and not 0x0600 <= point <= 0x08E2:
        return "zero-width"
    if category in ("Cc", "Cs", "Co", "Zl", "Zp"):
        return "control"
    return ""


def _takes_selector(char: str, selector: str) -> bool:
    """Whether `selector` means something after `char` (Unicode Standard 23.4, UTS 37, UTS 51).

    U+FE0E and U+FE0F follow symbols and keycap bases; U+FE00 to U+FE0D symbols and letters that are not ASCII;
    U+E0100 and up ideographs only. Elsewhere a selector is invisible and can carry bytes.
    """
    point, variant = ord(char), ord(selector)
    if 0xFE00 <= point <= 0xFE0F or 0xE0100 <= point <= 0xE01EF:
        return False
    if variant >= 0xE0100:
        return 0x3400 <= point <= 0x9FFF or 0xF900 <= point <= 0xFAFF or 0x20000 <= point <= 0x3FFFF
    kind = unicodedata.category(char)
    if variant >= 0xFE0E:
        return char in "0123456789#*" or kind[0] == "S" or point in (0x203C, 0x2049, 0x3030, 0x303D) or kind == "Lo"
    return not char.isascii() and (kind[0] == "S" or kind == "Lo" or kind[0] == "P")


def _joins(text: str, offset: int) -> bool:
    """A joiner is visible in effect only between two non-ASCII letters, marks or symbols."""
    before = text[offset - 1 : offset] if offset else ""
    after = text[offset + 1 : offset + 2]
    return all(c and not c.isascii() and unicodedata.category(c)[0] in "LMS" for c in (before, after)) or (
        bool(before and after) and ord(before) in range(0xFE00, 0xFE10) and unicodedata.category(after)[0] == "S"
    )


def show_hidden(text: str) -> str:
    """`text` with every hidden character written out visibly."""
    hidden = find_hidden(text)
    if not hidden:
        return text
    out: list[str] = []
    last = 0
    for item in hidden:
        out.append(text[last : item.offset])
        out.append(item.shown)
        last = item.offset + 1
    out.append(text[last:])
    return "".join(out)


def one_line(text: str, limit: int = 200) -> str:
    """One visible line for logs, terminals and tables; cut with `…` beyond `limit` characters."""
    # Two characters become one at most, so what comes later is not shown; the text may be megabytes.
    text = text[: 2 * limit + 64]
    shown = show_hidden(text.replace("\r\n", "\n")).replace("\n", "⏎").replace("\t", " ").replace("\r", "⟦U+000D⟧")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
