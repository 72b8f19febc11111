"""Hidden Unicode in added lines (CVE-2021-42574 "Trojan Source"; tag smuggling; variation-selector payloads).

What hides from a reader is found by the one sanitizer; this guard only says how bad it is where it stands:
scripts that need marks and joiners, balanced isolates in translations and prose, flags, and a byte-order
mark at the start of a file pass.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from vestibule.boundary.changes.changeset import Change, ChangeSet
from vestibule.boundary.changes.guards.base import GuardContext, capped, found, suffix
from vestibule.core.model import Finding
from vestibule.core.text.paths import fold
from vestibule.core.text.sanitize import Hidden, find_hidden
from vestibule.core.verdict import Ruling

PROSE = frozenset(
    {
        ".md",
        ".mdx",
        ".rst",
        ".txt",
        ".adoc",
        ".po",
        ".pot",
        ".xliff",
        ".xlf",
        ".arb",
        ".ftl",
        ".strings",
        ".resx",
        ".srt",
        ".vtt",
    }
)
"""Written for people: text of right-to-left languages is at home here."""
DATA = frozenset({".json", ".json5", ".yaml", ".yml", ".properties", ".csv", ".tsv", ".xml", ".ini", ".stringsdict"})
"""Data: at home where the path says that it is a translation."""
_LOCALE_FOLDER = re.compile(
    r"(?:^|/)(?:_?locales?|i18n|l10n|intl|langs?|languages?|translations?|messages|lc_messages"
    r"|values-[a-z]{2}[a-z-]*)(?:/|$)"
)
_LOCALE_NAME = re.compile(r"(?:^|[._/-])(?:ar|fa|he|iw|ur|ps|sd|ug|yi|dv|ckb|ku)(?:[_-][a-z]{2,4})?\.[a-z0-9]+\Z")

_ISOLATE = re.compile("[\u2066\u2067\u2068]([^\u2066-\u2069\u202a-\u202e\"'`\\\\]{1,400})\u2069")
"""One balanced isolate that encloses no quote, escape or other control: it cannot reorder what delimits it."""
_OVERRIDES = frozenset("\u202d\u202e")

_MESSAGES = {
    "bidi": "Bidirectional control characters make this line read differently from what runs.",
    "tag": "Tag characters hide text that no editor shows.",
    "variation": "Variation selectors where no character takes one can carry hidden bytes.",
    "zero-width": "Zero-width characters hide in this line.",
    "control": "Control or private-use characters stand in this line.",
    "blank": "A character that shows as nothing stands in this line.",
}
_FIX = "Remove the hidden characters, or write them as escapes (\\u202e)."


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:  # noqa: ARG001 - one protocol for all
    for change in changes.changes:
        if change.is_file and change.added:
            yield from capped(_file(change))


def _file(change: Change) -> Iterator[Finding]:
    for_people = is_for_people(change.name)
    for number, raw in change.added:
        if raw.isascii() and not _CONTROLS.search(raw):
            continue
        text = raw.decode("utf-8", "replace")
        hidden = find_hidden(text)
        if number != 1 and text.startswith("\ufeff"):
            hidden.insert(0, Hidden(0, "\ufeff", "zero-width"))
        kinds: dict[str, list[Hidden]] = {}
        for item in hidden:
            kinds.setdefault(item.kind, []).append(item)
        for kind, items in kinds.items():
            ruling = judge(kind, items, text, for_people=for_people)
            if ruling is not Ruling.ALLOW:
                yield found(
                    f"change.unicode.{kind}", ruling, _MESSAGES[kind], change, line=number, excerpt=text, fix=_FIX
                )


_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0d-\x1f\x7f]")
"""A form feed is white space in C and Python sources and passes."""


def is_for_people(name: str) -> bool:
    """Whether the file is prose or a translation, by suffix and place."""
    kind = suffix(name)
    folded = fold(name)
    return kind in PROSE or (kind in DATA and bool(_LOCALE_FOLDER.search(folded) or _LOCALE_NAME.search(folded)))


def judge(kind: str, items: list[Hidden], text: str, *, for_people: bool) -> Ruling:
    """How bad hidden characters of one kind are in one line."""
    count = len(items)
    if kind == "bidi":
        return _bidi(items, text) if for_people else Ruling.DENY
    if kind == "tag":
        return Ruling.DENY
    if kind == "variation":
        return Ruling.DENY if count > 1 else Ruling.HOLD
    if kind == "blank":
        fillers = any(item.char in "\u115f\u1160\u3164\uffa0" for item in items)
        if for_people:
            return Ruling.HOLD if fillers or count > 8 else Ruling.ALLOW
        return Ruling.DENY if fillers or count > 3 else Ruling.HOLD
    if kind == "zero-width":
        return _zero_width(items, text, for_people=for_people)
    private = [item for item in items if unicodedata.category(item.char) == "Co"]
    if len(private) > 3 and _runs(private) > 2:
        return Ruling.DENY
    visible_only = all(item.char == "\f" for item in items)
    return Ruling.ALLOW if visible_only else Ruling.HOLD


def _bidi(items: list[Hidden], text: str) -> Ruling:
    rest = _ISOLATE.sub(r"\1", text)
    left = [char for char in rest if "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"]
    if not left:
        return Ruling.ALLOW
    opened = 0
    for char in left:
        opened += 1 if char in "\u202a\u202b" else -1 if char == "\u202c" else 0
        if opened < 0:
            break
    embeddings = opened == 0 and all(char in "\u202a\u202b\u202c" for char in left)
    return Ruling.HOLD if embeddings and not any(item.char in _OVERRIDES for item in items) else Ruling.DENY


def _zero_width(items: list[Hidden], text: str, *, for_people: bool) -> Ruling:
    if _runs(items) > 2 or len(items) > 8:
        return Ruling.DENY
    in_names = [item for item in items if _inside_word(text, item.offset)]
    if in_names and not for_people:
        return Ruling.DENY
    spaced = [item for item in items if item.char in "\u200b\u2060" and _beside_letter(text, item.offset)]
    return Ruling.ALLOW if for_people and len(spaced) == len(items) else Ruling.HOLD


def _runs(items: list[Hidden]) -> int:
    """The longest run of neighbouring offsets."""
    best = run = 0
    last = -2
    for item in items:
        run = run + 1 if item.offset == last + 1 else 1
        best, last = max(best, run), item.offset
    return best


def _inside_word(text: str, offset: int) -> bool:
    before, after = text[offset - 1 : offset], text[offset + 1 : offset + 2]
    return all(c.isascii() and (c.isalnum() or c == "_") for c in (before, after) if c) and bool(before and after)


def _beside_letter(text: str, offset: int) -> bool:
    """Beside a letter of a script that is not ASCII: Thai, Khmer and others break lines with U+200B."""
    around = text[max(0, offset - 1) : offset] + text[offset + 1 : offset + 2]
    return any(not c.isascii() and unicodedata.category(c)[0] in "LM" for c in around)
