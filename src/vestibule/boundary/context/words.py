"""Words of a text in the form in which they are compared, and what of a text a reader sees.

Rules this module keeps:
1. Text is brought to Unicode's form C and no further: look-alikes are other characters.
2. Only words of ASCII letters, the domain of an address and the scheme and host of a link compare without regard to
   case.
3. A word is what stands between spaces, without the quotes, brackets and stops around it: those are words of their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from vestibule.core.text.sanitize import find_hidden

_OPENING = "\"'`([{<«‹“”„‘’‚「『《〈（【¿¡*_"
_CLOSING = "\"'`)]}>»›“”‘’」』》〉）】.,;:!?…*_。、，；：！？"
_IDEOGRAPHS = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_WORD = re.compile(r"[A-Za-z]+(?:[-'’][A-Za-z]+)*\Z")
_ADDRESS = re.compile(r"([^\s@]+)@([^\s@]+)\Z")
_LINK = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/*[^/?#]*)(.*)\Z", re.DOTALL)
_HIDDEN_CHAR = re.compile("⟦U\\+[0-9A-F]{4,6}⟧")
_HIDDEN_COMMENT = re.compile("⟦hidden comment:[^⟦⟧]*⟧")
_OTHER_SPACE = re.compile(r"[^\S \n\t]|[\x00-\x08\x0b-\x1f\x7f]")
_POINTS = re.compile(
    r"//|@|^[A-Za-z][A-Za-z0-9+.-]+:\S"
    r"|(?:^|[^\w.-])(?:[\w-]+\.)+[^\W\d_][\w-]+\.?(?:[/:?#)\]]|$)"
    r"|(?:^|[^\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])"
)
"""What makes a word in a free text point somewhere: links, addresses, mentions, schemes, host names, IP addresses."""

_MENTION = re.compile(r"<[!@#]")
"""Mentions of everybody, of a person or a channel, as chat systems write them."""

_DOTS = re.compile("[\u3002\uff0e\uff61]")
"""Dots that a browser reads as one in a host name (UTS 46)."""

GAP = "\0"


def seen(text: str) -> str:
    """What a reader sees of a text in which intake wrote hidden things out; nothing when that cannot be told."""
    plain = _HIDDEN_COMMENT.sub(" … ", _HIDDEN_CHAR.sub("\ufffd", text))
    return "" if "⟦" in plain or "⟧" in plain else plain


def odd(value: str) -> bool:
    """Whether a value holds spaces or controls that the trusted text would not tell apart from plain ones."""
    return _OTHER_SPACE.search(value.replace("\r\n", "\n")) is not None


def words(text: str) -> tuple[str, ...]:
    """The words of a text in the form that is compared.

    Quotes, brackets and stops around a word are words of their own. So is a possessive `'s`, and so is every ideograph
    and kana (their scripts have no spaces).
    """
    found: list[str] = []
    for chunk in unicodedata.normalize("NFC", text).replace(GAP, "\ufffd").split():
        start, end = 0, len(chunk)
        while start < end and chunk[start] in _OPENING:
            start += 1
        while end > start and chunk[end - 1] in _CLOSING:
            end -= 1
        found += chunk[:start]
        if start < end:
            found += _core(chunk[start:end])
        found += chunk[end:]
    return tuple(found)


def _core(chunk: str) -> list[str]:
    if not chunk.isascii() and _IDEOGRAPHS.search(chunk):
        return [_compared(part) for part in _IDEOGRAPHS.split(chunk) if part]
    if len(chunk) > 2 and chunk[-2] in "'’" and chunk[-1] in "sS":
        return [_compared(chunk[:-2]), "'s"]
    return [_compared(chunk)]


def _compared(word: str) -> str:
    if _WORD.match(word):
        return word.lower()
    address = _ADDRESS.match(word)
    if address is not None and word.isascii():
        return f"{address[1]}@{address[2].lower()}"
    link = _LINK.match(word) if "://" in word and word.isascii() else None
    if link is not None and "@" not in link[1]:
        return link[1].lower() + link[2]
    return word


def joined(found: Sequence[str]) -> str:
    return GAP + GAP.join(found) + GAP if found else ""


def pointing(text: str) -> Iterator[str] | None:
    """The words of a free text that point somewhere; None when something hides in it or it mentions somebody."""
    if find_hidden(text) or _MENTION.search(text):
        return None
    return (word for word in words(text) if _POINTS.search(_DOTS.sub(".", unicodedata.normalize("NFKC", word))))
