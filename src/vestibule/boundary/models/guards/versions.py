"""Versions of packages in texts: which are named, how they are ordered, whether a range holds them. Pure.

Ranges are written as Maven writes them, for every ecosystem: `[5.3,6.0)`, `(,2.0]`, `[1.0]`, several after commas.

Rules it keeps:
1. A version that has no plain form (a property, a tag, a caret range) is within no range.
2. Expressions are linear in the text.

Sources: Maven POM reference, "Version Order Specification" and "Dependency Version Requirement Specification";
Semantic Versioning 2.0.0 section 11; PEP 440.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import total_ordering
from typing import Any, Literal, NamedTuple

Ecosystem = Literal["maven", "npm", "pip"]
MAX_VERSION = 64
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_MAVEN = re.compile(
    rf"(?<![\w.:/-])({_NAME}):({_NAME})(?::(?:jar|pom|war|aar|zip|test-jar))?:([\w.+${{}}\[(][^\s:'\"`<>@]{{0,63}})"
)
_GRADLE = re.compile(
    rf"group\s{{0,4}}[:=]\s{{0,4}}['\"]({_NAME})['\"]\s{{0,4}},\s{{0,9}}name\s{{0,4}}[:=]\s{{0,4}}['\"]({_NAME})['\"]"
    r"\s{0,4},\s{0,9}version\s{0,4}[:=]\s{0,4}['\"]([^'\"\n]{1,64})['\"]"
)
_XML = re.compile(
    rf"<groupId>\s{{0,20}}({_NAME})\s{{0,20}}</groupId>\s{{0,200}}<artifactId>\s{{0,20}}({_NAME})\s{{0,20}}</artifactId>"
    r"\s{0,200}<version>\s{0,20}([^<\s]{1,64})\s{0,20}</version>"
)
_NPM_NAME = r"(?:@[a-z0-9~-][a-z0-9._~-]{0,100}/)?[a-z0-9~-][a-z0-9._~-]{0,100}"
_NPM = re.compile(rf"(?<![\w@/.~-])({_NPM_NAME})@((?:npm:)?[\^~<>=v]{{0,2}}[0-9A-Za-z*][\w.+*-]{{0,63}})")
_NPM_JSON = re.compile(rf"\"({_NPM_NAME})\"\s{{0,8}}:\s{{0,8}}\"([^\"\n]{{1,64}})\"")
_NPM_SPEC = re.compile(r"(?:[\^~<>=v\s]*[0-9*x][\w.*+ <>=|~^-]*|latest|next|(?:npm|file|git|https?|github)[:+].*)\Z")
_PIP_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}"
_PIP = re.compile(
    rf"(?<![\w./-])({_PIP_NAME})(?:\[[\w, .-]{{0,80}}\])?"
    r"\s{0,2}(===?|~=|!=|<=|>=|<|>)\s{0,2}([0-9][\w.*+!-]{0,63})"
)


class Named(NamedTuple):
    """A package and version that a text names. `version` is empty when it is not one version."""

    package: str
    version: str
    written: str


def named(text: str, ecosystem: Ecosystem) -> Iterator[Named]:
    """Every package with a version in the text, in the spellings of the ecosystem's tools."""
    if ecosystem == "maven":
        for pattern in (_MAVEN, _GRADLE, _XML):
            for group, artifact, version in pattern.findall(text):
                plain = version.rstrip(".,;)")
                yield Named(f"{group}:{artifact}", plain if _plain(plain) else "", plain)
    elif ecosystem == "npm":
        for name, spec in _NPM.findall(text):
            yield _npm(name, spec)
        for name, spec in _NPM_JSON.findall(text):
            if _NPM_SPEC.match(spec):
                yield _npm(name, spec)
    else:
        for name, operator, version in _PIP.findall(text):
            exact = operator in ("==", "===") and "*" not in version
            package = re.sub(r"[-_.]+", "-", name).lower()  # PEP 503
            yield Named(package, version.rstrip(".,;") if exact else "", operator + version)


def _npm(name: str, spec: str) -> Named:
    version = spec.strip().removeprefix("=").removeprefix("v").rstrip(".")
    return Named(name, version if re.fullmatch(r"\d+\.\d+\.\d+(?:[-+][\w.+-]+)?", version) else "", spec)


def _plain(version: str) -> bool:
    return bool(re.fullmatch(r"[0-9A-Za-z][\w.+-]*", version))


@total_ordering
class Version:
    """A version in its ecosystem's order. Raises `ValueError` for what is none."""

    __slots__ = ("_key",)

    def __init__(self, text: str, ecosystem: Ecosystem) -> None:
        if not text or len(text) > MAX_VERSION or not _plain(text.replace("!", ".")):
            raise ValueError("this is no version")
        self._key = _KEYS[ecosystem](text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return bool(self._key < other._key)

    def __hash__(self) -> int:
        return hash(self._key)


_QUALIFIERS = {"alpha": 0, "a": 0, "beta": 1, "b": 1, "milestone": 2, "m": 2, "rc": 3, "cr": 3, "snapshot": 4}
_RELEASE = (2, 0, "")
_END = 24
"""Versions are compared over so many parts; a shorter one is filled with parts that mean nothing."""


def _maven(text: str) -> Any:
    parts: list[tuple[int, int, str]] = []
    for word in re.findall(r"[0-9]+|[A-Za-z]+", text.lower()):
        if word.isdigit():
            parts.append((3, int(word), "") if int(word) else _RELEASE)
        elif word in _QUALIFIERS:
            parts.append((1, _QUALIFIERS[word], ""))
        elif word in ("ga", "final", "release"):
            parts.append(_RELEASE)
        else:
            parts.append((2, 1, "") if word == "sp" else (2, 2, word))
    return tuple((parts + [_RELEASE] * _END)[:_END])


def _npm_key(text: str) -> Any:
    core, _, before = text.partition("+")[0].partition("-")
    numbers = [int(part) for part in core.split(".")]
    if len(numbers) > 3:
        raise ValueError("this is no version")
    # Numbers are lower than words, and a version before a release lower than the release.
    words = (
        tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split(".")) if before else ()
    )
    return (*[*numbers, 0, 0, 0][:3], not before, words)


_PEP440 = re.compile(
    r"(?:(\d+)!)?(\d+(?:\.\d+)*)(?:[-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?(\d*))?"
    r"(?:(?:-(\d+))|(?:[-_.]?(post|rev|r)[-_.]?(\d*)))?(?:[-_.]?(dev)[-_.]?(\d*))?(?:\+[\w.-]+)?\Z"
)
_BEFORE = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}


def _pip_key(text: str) -> Any:
    match = _PEP440.match(text.lower().removeprefix("v"))
    if match is None:
        raise ValueError("this is no version")
    epoch, release, word, number, post, posted, post_number, dev, dev_number = match.groups()
    numbers = tuple(int(part) for part in release.split("."))
    while len(numbers) > 1 and not numbers[-1]:
        numbers = numbers[:-1]
    after = int(post) if post else int(post_number or 0) if posted else -1
    if word:
        before = (_BEFORE[word], int(number or 0))
    elif dev and after < 0:
        before = (-1, 0)
    else:
        before = (9, 0)
    return (int(epoch or 0), numbers, before, after, int(dev_number or 0) if dev else 1 << 40)


_KEYS = {"maven": _maven, "npm": _npm_key, "pip": _pip_key}


@dataclass(frozen=True, slots=True)
class _Interval:
    low: Version | None
    high: Version | None
    low_in: bool
    high_in: bool

    def holds(self, version: Version) -> bool:
        if self.low is not None and (version < self.low or (version == self.low and not self.low_in)):
            return False
        return self.high is None or version < self.high or (version == self.high and self.high_in)


_INTERVAL = re.compile(r"\s*([\[(])\s*([^\s,\[\]()]*)\s*(?:(,)\s*([^\s,\[\]()]*)\s*)?([\])])\s*(?:,|\Z)")


class Ranges:
    """One or more intervals. Raises `ValueError` with a sentence for what is none."""

    def __init__(self, text: str, ecosystem: Ecosystem) -> None:
        self.text = text
        self._intervals: list[_Interval] = []
        at = 0
        while at < len(text):
            match = _INTERVAL.match(text, at)
            if match is None:
                raise ValueError(f"{text!r} is no range; write one such as [5.3,6.0)")
            opened, low, comma, high, closed = match.groups()
            if not comma and (not low or opened != "[" or closed != "]"):
                raise ValueError(f"{text!r}: a single version is written [1.0]")
            try:
                first = Version(low, ecosystem) if low else None
                last = (Version(high, ecosystem) if high else None) if comma else first
            except ValueError:
                raise ValueError(f"{text!r} names something that is no version") from None
            if first is not None and last is not None and last < first:
                raise ValueError(f"{text!r} ends before it begins")
            self._intervals.append(_Interval(first, last, opened == "[", closed == "]"))
            at = match.end()
        if not self._intervals:
            raise ValueError("a range is empty")

    def hold(self, version: Version) -> bool:
        return any(interval.holds(version) for interval in self._intervals)


class VersionRules:
    """An `AnswerGuard`: packages that a text names have versions within their ranges."""

    reads: frozenset[Literal["text", "call", "final"]] = frozenset(("text", "call"))

    def __init__(self, ecosystem: Ecosystem, allow: Mapping[str, str], *, others: str = "allow") -> None:
        self.name = "versions"
        self._ecosystem = ecosystem
        self._rules = tuple((pattern, Ranges(text, ecosystem)) for pattern, text in allow.items())
        self._others = others == "allow"

    def check(self, text: str) -> str:
        for package, version, written in named(text, self._ecosystem):
            ranges = next((ranges for pattern, ranges in self._rules if fnmatchcase(package, pattern)), None)
            if ranges is None:
                if self._others:
                    continue
                return f"{_shown(package)} is no package that may be named with a version"
            try:
                fits = bool(version) and ranges.hold(Version(version, self._ecosystem))
            except ValueError:
                fits = False
            if not fits:
                return f"{_shown(package)} {_shown(written)} is not within {ranges.text}"
        return ""


def _shown(text: str) -> str:
    return text[:80] if text.isprintable() else "a version"
