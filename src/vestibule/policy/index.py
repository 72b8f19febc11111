"""Makes a layer fast to ask without changing what it says: an index by action, constants as data, inputs by need.

The engine (rego-cpp 1.5) evaluates every rule of a name and builds every constant anew for each question: 500
roles in one object cost 54 ms, 500 rules of one name 2 ms. OPA's compiler indexes rules by equality for the same
reason (openpolicyagent.org, "Policy Performance: Use indexed statements").

Rules it keeps:
1. A rule is left out only where one of its first conditions compares a part of the input that `INDEXED` names with
   other constants than the request has. Such a rule cannot fire. A name that has no rule left stays, undefined.
2. A constant becomes data only if it is the one statement of its name and is plain JSON.
3. Of a table that is only ever looked up by an indexed part, the other rows are left out.
4. A part of the input is kept back only if the layer's text never names it.
5. What is not understood is left as it is. The tests compare the answers with those of the whole text, and of OPA.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vestibule.policy.tokens import Token, tokens

PARTS = ("action", "subject", "resource", "task", "labels", "facts")
INDEXED = (("action",), ("task", "role"))
"""What rules are indexed by: what the supervisor says, never a value that the agent chooses."""
WHOLE: frozenset[tuple[str, ...]] = frozenset({()})
CONSTANTS = "vestibule_constants"
OTHER = None

_PLAIN = re.compile(r"[^\\\x00-\x1f\x7f\"]*\Z")
_JSON_WORD = re.compile(r"(?:-?[0-9]{1,18}|true|false|null|[{}:\[\]])\Z")
_KEYWORDS = frozenset(
    ("as", "contains", "default", "else", "every", "if", "import", "in", "not", "package", "some", "with")
)
Signature = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with conditions on indexed parts. `allowed` maps a position in `INDEXED` to the values it needs."""

    file: str
    name: str
    start: int
    end: int
    partial: bool
    allowed: dict[int, frozenset[str]]

    @property
    def dead(self) -> str:
        """A rule of the same name and kind that never fires."""
        return f"{self.name} contains 0 if false" if self.partial else f"{self.name} := 0 if false"


@dataclass(frozen=True, slots=True)
class Constant:
    """`name := JSON` at the top level; `start` and `end` are those of the value."""

    file: str
    name: str
    start: int
    end: int
    value: Any


class LayerIndex:
    """What is known of a layer's text. Never raises: a text it cannot read is one it leaves alone."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = dict(sorted(sources.items()))
        words: dict[str, list[Token]] = {}
        for name, text in self._sources.items():
            try:
                words[name] = tokens(text)
            except ValueError:
                words = {}
                break
        # `with` shows a rule another input than the one that was asked about.
        substitutes = any(word.text == "with" and word.kind == "name" for found in words.values() for word in found)
        self._readable = len(words) == len(self._sources) and not substitutes
        self._rules: list[Rule] = []
        self._constants: list[Constant] = []
        self._names: Counter[str] = Counter()
        self._keyed: dict[str, int] = {}
        if not self._readable:
            return
        self._names = names = Counter(name for found in words.values() for name in _heads(found))
        for name, found in words.items():
            if _package(found) != "vestibule":
                continue
            for index in _starts(found):
                rule = _rule(name, found, index)
                if rule is not None:
                    self._rules.append(rule)
                constant = _constant(name, found, index)
                if constant is not None and names[constant.name] == 1:
                    self._constants.append(constant)
        self._keyed = {c.name: at for c in self._constants if (at := _key_of(c, words)) is not None}
        self._known = tuple(
            frozenset(value for rule in self._rules for value in rule.allowed.get(position, ()))
            | {key for c in self._constants if self._keyed.get(c.name) == position for key in c.value}
            for position in range(len(INDEXED))
        )

    def data(self, signature: Signature) -> dict[str, Any]:
        """The constants, for the engine's base document; of a table that is only ever looked up by an indexed part,
        the row that will be looked up (the engine's own look-up goes through all rows). No signature: everything."""
        found: dict[str, Any] = {}
        for constant in self._constants:
            at = self._keyed.get(constant.name)
            value = constant.value
            whole = at is None or not signature
            found[constant.name] = value if whole else {k: v for k, v in value.items() if k == signature[at or 0]}
        return {CONSTANTS: found}

    def signature(self, document: Mapping[str, Any]) -> Signature:
        """Which rules can fire for `document`. As many as the layer names values, and no more."""
        found: list[str | None] = []
        for position, path in enumerate(INDEXED):
            value: Any = document
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            known = self._readable and isinstance(value, str) and value in self._known[position]
            found.append(value if known else OTHER)
        return tuple(found)

    def sources(self, signature: Signature) -> dict[str, str]:
        """The layer's texts with only the rules that can fire, line numbers as they were."""
        left_out = [
            rule
            for rule in self._rules
            if not all(signature[position] in values for position, values in rule.allowed.items())
        ]
        named = Counter(self._names)
        named.subtract(rule.name for rule in left_out)
        changes: dict[str, list[tuple[int, int, str]]] = {name: [] for name in self._sources}
        for rule in left_out:
            orphaned = named.pop(rule.name, 1) == 0
            changes[rule.file].append((rule.start, rule.end, rule.dead if orphaned else ""))
        for constant in self._constants:
            place = f"data.{CONSTANTS}.{constant.name}"
            changes[constant.file].append((constant.start, constant.end, place))
        result = {}
        for name, text in self._sources.items():
            changed = text
            for start, end, new in sorted(changes[name], reverse=True):
                changed = changed[:start] + new + "\n" * text.count("\n", start, end) + changed[end:]
            result[name] = changed
        return result


def narrow(document: Mapping[str, Any], parts: frozenset[tuple[str, ...]]) -> dict[str, Any]:
    """The parts of `document` that a layer names."""
    if parts == WHOLE:
        return dict(document)
    result: dict[str, Any] = {}
    for path in parts:
        if path[0] not in document:
            continue
        value = document[path[0]]
        if len(path) == 1 or not isinstance(value, dict):
            result[path[0]] = value
        elif path[1] in value:
            result.setdefault(path[0], {})[path[1]] = value[path[1]]
        else:
            result.setdefault(path[0], {})
    return result


def _package(words: list[Token]) -> str:
    line = [word.text for word in words if word.kind != "newline" and word.depth == 0][:3]
    return line[1] if len(line) > 1 and line[0] == "package" and line[2:] != ["."] else ""


def _starts(words: list[Token]) -> Iterator[int]:
    """Where statements begin: a name at the start of a line, after something that is complete."""
    before: Token | None = None
    fresh = True
    for index, word in enumerate(words):
        if word.kind == "newline":
            fresh = fresh or word.depth == 0
            continue
        if fresh and word.depth == 0 and word.kind == "name" and word.text not in _KEYWORDS and _complete(before):
            yield index
        fresh = False
        before = word


def _complete(word: Token | None) -> bool:
    if word is None or word.kind in ("string", "number"):
        return True
    return word.text in ("}", "]", ")") if word.kind == "op" else word.text not in _KEYWORDS


def _heads(words: list[Token]) -> Iterator[str]:
    """The first name of every line at the top level, `default` passed over."""
    fresh = True
    for word in words:
        if word.kind == "newline":
            fresh = fresh or word.depth == 0
        elif fresh and word.depth == 0 and word.text != "default":
            yield word.text
            fresh = False


def _rule(file: str, words: list[Token], index: int) -> Rule | None:
    """The rule that begins at `index`: `NAME [contains X] [:= X] if BODY`, and nothing after it."""
    position = index + 1
    seen = ""
    while position < len(words) and not (words[position].depth == 0 and words[position].text == "if"):
        word = words[position]
        if word.kind == "newline" and word.depth == 0:
            return None
        if word.depth == 0 and word.text in ("(", "[", ".", "else") and not seen:
            return None  # a function, or a name made of several parts
        if not seen and word.text in ("contains", ":="):
            seen = word.text
        position += 1
    if position + 1 >= len(words):
        return None
    if words[position + 1].text == "{" and words[position + 1].kind == "op":
        body, end = _braces(words, position + 1)
    else:
        body, end = _rest_of_line(words, position + 1)
    if body is None or not _ends(words, end):
        return None
    allowed = _guards(body)
    if not allowed:
        return None
    return Rule(file, words[index].text, words[index].start, words[end].end, seen == "contains", allowed)


def _braces(words: list[Token], open_: int) -> tuple[list[Token] | None, int]:
    for position in range(open_ + 1, len(words)):
        if words[position].text == "}" and words[position].depth == words[open_].depth:
            return words[open_ + 1 : position], position
    return None, open_


def _rest_of_line(words: list[Token], first: int) -> tuple[list[Token] | None, int]:
    position = first
    while position < len(words) and not (words[position].kind == "newline" and words[position].depth == 0):
        position += 1
    return words[first:position], position - 1


def _ends(words: list[Token], last: int) -> bool:
    """Whether the statement is over after `last`: a new line, and no `else` or further body on the next."""
    rest = words[last + 1 :]
    if rest and rest[0].kind != "newline":
        return False
    following = next((word for word in rest if word.kind != "newline"), None)
    return following is None or (
        following.kind == "name" and (following.text not in _KEYWORDS or following.text in ("default", "import"))
    )


def _guards(body: list[Token]) -> dict[int, frozenset[str]]:
    """The conditions at the beginning of a body that compare an indexed part with constants."""
    allowed: dict[int, frozenset[str]] = {}
    for condition in _conditions(body):
        found = _guard(condition)
        if found is None:
            break
        position, values = found
        allowed[position] = allowed.get(position, values) & values
    return allowed


def _conditions(body: list[Token]) -> Iterator[list[Token]]:
    """Statements of a body, split at line ends and `;`."""
    inside = body[0].depth if body else 0
    for word in body:
        inside = min(inside, word.depth)
    found: list[Token] = []
    for word in body:
        if word.depth == inside and (word.kind == "newline" or word.text == ";"):
            if found:
                yield found
            found = []
        elif word.kind != "newline":
            found.append(word)
    if found:
        yield found


def _guard(words: list[Token]) -> tuple[int, frozenset[str]] | None:
    for position, path in enumerate(INDEXED):
        shape = ["input", *(item for step in path for item in (".", step))]
        if [word.text for word in words[: len(shape)]] != shape or any(
            word.kind == "string" for word in words[: len(shape)]
        ):
            continue
        rest = words[len(shape) :]
        if len(rest) == 2 and rest[0].text == "==" and rest[0].kind == "op":
            values = [_plain(rest[1])]
        elif len(rest) > 3 and rest[0].text == "in" and rest[1].text == "{" and rest[-1].text == "}":
            inner = rest[2:-1]
            if any(word.text != "," for word in inner[1::2]):
                return None
            values = [_plain(word) for word in inner[0::2]]
        else:
            return None
        if any(value is None for value in values):
            return None
        return position, frozenset(value for value in values if value is not None)
    return None


def _plain(word: Token) -> str | None:
    """The text of a string that means itself; None for any other word."""
    if word.kind != "string" or not _PLAIN.match(word.text[1:-1]):
        return None
    return word.text[1:-1]


def _constant(file: str, words: list[Token], index: int) -> Constant | None:
    if index + 2 >= len(words) or words[index + 1].text != ":=" or words[index + 1].kind != "op":
        return None
    first = words[index + 2]
    if first.kind != "op" or first.text not in ("{", "["):
        return None
    last = next(
        (
            position
            for position in range(index + 3, len(words))
            if words[position].text in ("}", "]") and words[position].depth == 0 and words[position].kind == "op"
        ),
        None,
    )
    if last is None or not _ends(words, last):
        return None
    parts = []
    inner = [word for word in words[index + 2 : last + 1] if word.kind != "newline"]
    for position, word in enumerate(inner):
        if word.kind == "string":
            if _plain(word) is None:
                return None
            parts.append(f'"{word.text[1:-1]}"')
        elif _JSON_WORD.match(word.text):
            parts.append(word.text)
        elif word.text == ",":
            if inner[position + 1].text not in ("}", "]"):
                parts.append(",")
        else:
            return None
    try:
        value = json.loads("".join(parts), object_pairs_hook=_once)
    except ValueError:
        return None  # a set, or something else that is no JSON
    return Constant(file, words[index].text, first.start, words[last].end, value)


def _key_of(constant: Constant, files: Mapping[str, list[Token]]) -> int | None:
    """The indexed part that a table is looked up by, if every use of it is `NAME[input.…]` with that part."""
    if not isinstance(constant.value, dict):
        return None
    found: set[int | None] = set()
    for file, words in files.items():
        for index, word in enumerate(words):
            if word.kind != "name" or word.text != constant.name:
                continue
            if file == constant.file and index + 2 < len(words) and words[index + 2].start == constant.start:
                continue  # its own statement
            if (index and words[index - 1].text in (".", "with", "as", "some", ",")) or not words[index + 1 :]:
                return None
            found.add(
                next(
                    (
                        at
                        for at, path in enumerate(INDEXED)
                        if [w.text for w in words[index + 1 : index + 4 + 2 * len(path)]]
                        == ["[", "input", *(item for step in path for item in (".", step)), "]"]
                    ),
                    None,
                )
            )
    return found.pop() if len(found) == 1 else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def parts_named(sources: Mapping[str, str], rule: str) -> frozenset[tuple[str, ...]]:
    """The parts of the input that `rule` and what it uses may name, one or two steps deep.

    `WHOLE` where `input` or `data` is used in a way that does not say which parts.
    """
    spans: list[tuple[str, list[Token]]] = []
    for text in sources.values():
        try:
            spans += statements(tokens(text))
        except ValueError:
            return WHOLE
    found: set[tuple[str, ...]] = set()
    used, asked = {"", rule}, {"", rule}
    while asked:
        names: set[str] = set()
        for head, words in spans:
            if head in asked:
                parts = _parts(words)
                if parts is None:
                    return WHOLE
                found |= parts
                names.update(word.text for word in words if word.kind == "name")
        asked = names - used
        used |= names
    whole = {path for path in found if len(path) == 1}
    return frozenset(path for path in found if len(path) == 1 or path[:1] not in whole)


def statements(words: list[Token]) -> list[tuple[str, list[Token]]]:
    """A file's statements with their names, in order; what stands before the first has the name ""."""
    starts = [*_starts(words), len(words)]
    found = [("", words[: starts[0]])]
    return found + [(words[first].text, words[first:last]) for first, last in pairwise(starts)]


def _parts(words: list[Token]) -> set[tuple[str, ...]] | None:
    found: set[tuple[str, ...]] = set()
    for index, word in enumerate(words):
        if word.kind != "name" or word.text not in ("input", "data") or (index and words[index - 1].text == "."):
            continue
        path = [item.text for item in words[index + 1 : index + 5]]
        if word.text == "data":
            if len(path) < 4 or path[0] != "." or path[1] not in ("vestibule", CONSTANTS) or path[2] != ".":
                return None
            continue
        if len(path) < 2 or path[0] != "." or path[1] not in PARTS:
            return None
        two = len(path) == 4 and path[2] == "." and words[index + 4].kind == "name"
        imported = index > 0 and words[index - 1].text == "import"
        found.add((path[1], path[3]) if two and not imported else (path[1],))
    return found
