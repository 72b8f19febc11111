"""Makes text that someone else wrote honest on a page: nothing in it hides, nothing in it is markup.

Rules it keeps:
1. Every character that a reader cannot see is written out (`core.text.sanitize`); bytes that are no text too.
2. A word that mixes Latin with look-alike letters of another script is marked (CVE-2021-42694).
3. The result holds no lone surrogates, so that it always encodes.
4. Time is bounded by the length of the text, whatever its script: characters are classified once.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from vestibule.core.text.sanitize import find_hidden


class Part(NamedTuple):
    """A stretch of a line. `kind` is `text`, `hidden` or `mixed`; `title` explains the last two."""

    kind: str
    text: str
    title: str = ""


_LOOK_ALIKE = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"})
_WORD = re.compile(r"[^\W\d_]{2,}")
_CLEAN, _MAYBE_HIDDEN, _FOREIGN = range(3)
_CLASSES: dict[str, int] = {}
_HIDING_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Cs", "Co", "Zl", "Zp", "Mn"})
_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0\u2800"


def parts(text: str) -> str | list[Part]:
    """`text` itself when a reader sees all of it, else its stretches in order."""
    if text.isascii() and text.isprintable():
        return text
    classes = {_class(char) for char in set(text)}
    hidden = find_hidden(text) if _MAYBE_HIDDEN in classes else []
    marks = [(item.offset, item.offset + 1, _hidden_part(item.char, item.kind)) for item in hidden]
    if _FOREIGN in classes:
        marks += [
            (match.start(), match.end(), Part("mixed", match.group(), note))
            for match in _WORD.finditer(text)
            if (note := scripts_note(match.group())) and "+" in note and not find_hidden(match.group())
        ]
    if not marks:
        return text
    out: list[Part] = []
    last = 0
    for start, end, part in sorted(marks, key=lambda mark: mark[0]):
        if start > last:
            out.append(Part("text", text[last:start]))
        out.append(part)
        last = end
    if last < len(text):
        out.append(Part("text", text[last:]))
    return out


def may_hide(text: str) -> bool:
    """Whether `text` holds a character that could hide: a quick look before the sanitizer's thorough one."""
    if text.isascii() and text.isprintable():
        return False
    return _MAYBE_HIDDEN in {_class(char) for char in set(text)}


def scripts_note(text: str) -> str:
    """`""` for Latin letters alone, else the scripts: `Cyrillic letters`, `Latin + Cyrillic letters`."""
    if text.isascii():
        return ""
    scripts = dict.fromkeys(_script(char) for char in text if char.isalpha())
    if set(scripts) <= {"LATIN", ""}:
        return ""
    return " + ".join(name.title() for name in scripts if name) + " letters"


def _script(char: str) -> str:
    if char.isascii():
        return "LATIN"
    return unicodedata.name(char, "").split(" ")[0]


def _class(char: str) -> int:
    found = _CLASSES.get(char)
    if found is None:
        if unicodedata.category(char) in _HIDING_CATEGORIES or char in _BLANK_LETTERS:
            found = _MAYBE_HIDDEN
        elif char.isalpha() and _script(char) in _LOOK_ALIKE:
            found = _FOREIGN
        else:
            found = _CLEAN
        _CLASSES[char] = found
    return found


def _hidden_part(char: str, kind: str) -> Part:
    point = ord(char)
    if 0xDC80 <= point <= 0xDCFF:
        return Part("hidden", f"⟦0x{point - 0xDC00:02X}⟧", "a byte that is no UTF-8 text")
    name = unicodedata.name(char, "") or kind
    return Part("hidden", f"⟦U+{point:04X}⟧", f"hidden character, {kind}: {name.lower()}")
