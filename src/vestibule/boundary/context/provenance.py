"""Whether the arguments of an effect come from text that somebody vouches for: pure functions.

Rules this module keeps:
1. A value is trusted when it stands in trusted text as a whole: values are compared as what they are (numbers as
   numbers, dates as dates, the rest word by word), never as parts of a longer word. `13` does not come from
   `2024-05-13`, `June 13`, `room-13` or `13.50`.
2. What is not shown to come from trusted text is untrusted: unknown types, too many values, too long ones.
3. More trusted text never makes a trusted value untrusted; untrusted text is never looked at.
4. A name in an object that the tool's schema does not have is a value like any other.
5. The cost is linear in the arguments and the trusted text together (`MAX_VALUES` bounds their product).

How words are compared: `words`; numbers, dates and times: `values`.

Known limit: where a trusted value may be used is not judged. An amount that the task names can be used as another
number, and a person's address as another recipient; provenance bounds the values, policy bounds the tools.

Source: argument provenance as in CaMeL (arXiv 2503.18813) and FIDES, without their interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from vestibule.boundary.context.values import Moments, moments_of, number_in, number_of, numbers_in, without_moments
from vestibule.boundary.context.words import joined, odd, pointing, seen, words
from vestibule.core.labels import Integrity, Label
from vestibule.core.model import Spec

MAX_VALUES = 256
"""Values of one call that are looked at; a call with more is untrusted."""

MAX_VALUE_CHARS = 64 << 10
"""Length of one text value that is looked at; a longer one is untrusted."""

MAX_DEPTH = 16
"""Nesting of arguments that is looked at; what lies deeper is untrusted."""

MAX_RESULT_CHARS = 1 << 20
"""Text of trusted results that one run keeps; what comes later vouches for nothing."""

VOUCHED = frozenset({Integrity.OPERATOR, Integrity.MEMBER})
"""Whose text is trusted."""


_NOTHING: Mapping[str, Collection[Any]] = {}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of a call. `at` is its JSON pointer (RFC 6901); `how` says what vouches for it, "" when nothing does.

    `how`: `empty`, `schema`, `text`, `number`, `moment`, `allowed`, `free_text`.
    """

    at: str
    how: str

    @property
    def trusted(self) -> bool:
        return bool(self.how)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What was found of every value of a call. `complete` is False when there were more than are looked at."""

    leaves: tuple[Leaf, ...]
    complete: bool = True

    @property
    def trusted(self) -> bool:
        """Whether every value of the call comes from trusted text."""
        return self.complete and all(leaf.trusted for leaf in self.leaves)

    @property
    def untrusted(self) -> tuple[str, ...]:
        """JSON pointers of the values that nobody vouches for, in order."""
        return tuple(leaf.at for leaf in self.leaves if not leaf.trusted)


@dataclass(frozen=True, slots=True)
class _Text:
    """One trusted text, read once."""

    words: frozenset[str]
    stream: str
    numerals: frozenset[str]
    """Words that are numbers and belong to no date, time or duration."""
    numbers: frozenset[Decimal]

    @classmethod
    def of(cls, text: str) -> _Text:
        found = words(text)
        numerals = frozenset(word for word in words(without_moments(text)) if number_in(word) is not None)
        return cls(frozenset(found), joined(found), numerals, numbers_in(numerals))


class Trusted:
    """The texts that somebody vouches for, prepared for questions. Immutable; make one for a task and keep it.

    `texts` are what people and the operator wrote, and results of servers whose label is trusted. `allowed` are whole
    values that the operator lists; they are not searched for parts.
    """

    __slots__ = ("_allowed", "_moments", "_texts")

    def __init__(self, texts: Iterable[str] = (), allowed: Iterable[str | int] = ()) -> None:
        found = tuple(texts)
        self._texts = tuple(_Text.of(text) for text in found)
        self._moments = Moments.of(found)
        self._allowed = frozenset(joined(words(str(item))) for item in allowed)

    @classmethod
    def of(
        cls, spec: Spec, *, instructions: Iterable[str] = (), answers: Iterable[str] = (), allowed: Iterable[str] = ()
    ) -> Trusted:
        """What a task starts with.

        The ticket counts when its author is the operator or a member, but for what a reader would not see in it:
        whoever pasted a hidden comment did not vouch for it. `instructions` are those of the base commit, `answers`
        what people said, `allowed` the operator's values.
        """
        ticket = (spec.title, spec.body, *spec.requirements, *spec.acceptance) if spec.integrity in VOUCHED else ()
        return cls((*map(seen, ticket), *instructions, *answers), allowed)

    def also(self, *texts: str) -> Trusted:
        """With further texts: a result whose label is trusted, a person's answer. Costs what the new texts cost."""
        more = Trusted(texts)
        more._texts = self._texts + more._texts
        more._moments = self._moments.join(more._moments)
        more._allowed = self._allowed
        return more

    def has_text(self, value: str) -> bool:
        """Whether the words of `value` stand in one trusted text, one after the other."""
        found = words(value)
        if not found or odd(value):
            return False
        if len(found) == 1:
            numeral = number_in(found[0]) is not None
            return any(found[0] in (text.numerals if numeral else text.words) for text in self._texts)
        wanted = joined(found)
        return any(text.words.issuperset(found) and wanted in text.stream for text in self._texts)

    def allows(self, value: str) -> bool:
        """Whether the operator lists exactly this value."""
        return bool(value.strip()) and not odd(value) and joined(words(value)) in self._allowed

    def has_number(self, value: Decimal) -> bool:
        return any(value in text.numbers for text in self._texts)

    def has_moment(self, value: str) -> bool:
        """Whether `value` is a date, a time or both, and the trusted text names the same."""
        moment = moments_of(value)
        return moment is not None and self._moments.covers(moment)


def trusted_arguments(
    tool: Any,
    arguments: Mapping[str, Any],
    trusted: Trusted,
    *,
    free_text: Collection[str] = (),
    listed: Mapping[str, Collection[Any]] = _NOTHING,
) -> Provenance:
    """What vouches for each value of a call.

    `tool.schema` is the JSON Schema that was pinned: its booleans, enumerations, constants and defaults are choices
    that whoever pinned it agreed to. `listed` are the values that the operator allows for an argument. `free_text`
    names arguments whose wording the operator leaves to the agent; links, addresses, mentions and host names in them
    need trusted text all the same.
    """
    schema = tool.schema if isinstance(getattr(tool, "schema", None), Mapping) else {}
    leaves: list[Leaf] = []
    walk = _Schema(schema)
    for at, name, value, part in walk.values("", "", arguments, (schema,)):
        if len(leaves) == MAX_VALUES:
            return Provenance(tuple(leaves), complete=False)
        own = any(type(item) is type(value) and item == value for item in listed.get(name, ()))
        leaves.append(Leaf(at, "allowed" if own else _how(value, part, trusted, free=name in free_text)))
    return Provenance(tuple(leaves))


class _TooDeep:
    """Stands for what is nested beyond `MAX_DEPTH`."""


Parts = tuple[Mapping[str, Any], ...]
"""The schemas that speak of one value: itself, what it refers to, and its alternatives."""


class _Schema:
    """Looks into a JSON Schema: `properties`, `items`, `anyOf`, `oneOf`, `allOf` and local `$ref`, nothing else."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def spread(self, schema: Any, depth: int = 0) -> Parts:
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return ()
        found: list[Mapping[str, Any]] = [schema]
        for word in ("anyOf", "oneOf", "allOf"):
            for inner in schema[word][:MAX_DEPTH] if isinstance(schema.get(word), list) else ():
                found += self.spread(inner, depth + 1)
        if isinstance(schema.get("$ref"), str):
            found += self.spread(self._local(schema["$ref"]), depth + 1)
        return tuple(found[:MAX_VALUES])

    def _local(self, ref: str) -> Any:
        at: Any = self._root if ref.startswith("#/") else None
        for name in ref[2:].split("/"):
            at = at.get(name) if isinstance(at, Mapping) else None
        return at

    def member(self, parts: Parts, name: str) -> Parts:
        known = [part["properties"] for part in parts if isinstance(part.get("properties"), Mapping)]
        return tuple(inner for props in known if name in props for inner in self.spread(props[name]))

    def item(self, parts: Parts) -> Parts:
        return tuple(inner for part in parts for inner in self.spread(part.get("items")))

    def values(self, at: str, top: str, value: Any, parts: Parts) -> Iterator[tuple[str, str, Any, Parts]]:
        """Every leaf and every name that the schema does not have: pointer, top-level argument, value, its schemas."""
        if at.count("/") > MAX_DEPTH:
            yield at, top, _TooDeep(), ()
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                here = f"{at}/{_escaped(name)}"
                found = self.member(parts, name)
                if not found:
                    yield here, "", name, ()
                yield from self.values(here, top or str(name), inner, found)
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            found = self.item(parts)
            for number, inner in enumerate(value):
                yield from self.values(f"{at}/{number}", top, inner, found)
        else:
            yield at, top, value, parts


def _escaped(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _how(value: Any, parts: Parts, trusted: Trusted, *, free: bool) -> str:
    if value is None or value == "":
        return "empty"
    if any(_of_schema(value, part) for part in parts):
        return "schema"
    if isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)):
        number = number_of(value)
        return "number" if number is not None and trusted.has_number(number) else ""
    if not isinstance(value, str) or len(value) > MAX_VALUE_CHARS:
        return ""
    if trusted.allows(value):
        return "allowed"
    if trusted.has_text(value):
        return "text"
    if trusted.has_moment(value):
        return "moment"
    return "free_text" if free and _points_nowhere_new(value, trusted) else ""


def _points_nowhere_new(text: str, trusted: Trusted) -> bool:
    """Whether nothing hides in a free text, and all that points somewhere in it is trusted."""
    found = pointing(text)
    return found is not None and all(trusted.has_text(word) or trusted.allows(word) for word in found)


def _of_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether the value is one that the pinned schema itself names, of the same type."""
    if isinstance(value, bool):
        return schema.get("type") == "boolean"
    listed = schema.get("enum")
    named = [*(listed if isinstance(listed, list) else []), *(schema[k] for k in ("const", "default") if k in schema)]
    return any(type(item) is type(value) and item == value for item in named)


class RunTrust:
    """What vouches for arguments in one run: what the task starts with, and what servers with a trusted label said.

    A number on its own (an id, a count) vouches for calls to the server that gave it, and to no other: event 13 is not
    file 13. Thread-safe.
    """

    def __init__(self, start: Trusted) -> None:
        self._start = start
        self._results: dict[str, tuple[str, ...]] = {}
        self._room = MAX_RESULT_CHARS
        self._made: dict[str, Trusted] = {}
        self._lock = threading.Lock()

    def read(self, server: str, result: Any, label: Label) -> None:
        """Keep a result as it was shown: JSON data or text. Of a label that nobody vouches for, nothing is kept."""
        if label.integrity not in VOUCHED:
            return
        found = tuple(_said(result, MAX_DEPTH))
        with self._lock:
            self._room -= sum(map(len, found))
            if self._room >= 0:
                self._results[server] = (*self._results.get(server, ()), *found)
                self._made.clear()

    def for_server(self, server: str) -> Trusted:
        """What vouches for a call to this server."""
        with self._lock:
            if server not in self._made:
                texts = (
                    text
                    for name, said in self._results.items()
                    for text in said
                    if name == server or number_in(text) is None
                )
                self._made[server] = self._start.also(*dict.fromkeys(texts))
            return self._made[server]


def _said(value: Any, depth: int) -> Iterator[str]:
    """The texts and numbers of JSON data. Names of fields are the server's, and vouch for nothing."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, (Mapping, list, tuple)) and depth:
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _said(inner, depth - 1)
