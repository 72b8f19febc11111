"""What a guard is: a pure function from a change set and its context to findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from vestibule.boundary.changes.changeset import Change, ChangeSet
from vestibule.core.model import Finding, Place, Scope, Severity
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold
from vestibule.core.text.sanitize import one_line
from vestibule.core.text.secrets import KnownSecret
from vestibule.core.verdict import Ruling

MAX_FINDINGS_PER_FILE = 20
"""Of one rule; the last one says how many more there are."""

_SEVERITY: dict[Ruling, Severity] = {Ruling.ALLOW: "note", Ruling.HOLD: "warning", Ruling.DENY: "error"}


@dataclass(frozen=True)
class GuardContext:
    """What guards judge against. Globs are repository-relative; `scope`, where given, narrows `write` and `read`."""

    write: tuple[str, ...]
    read: tuple[str, ...] = ("**",)
    scope: Scope | None = None
    protected: tuple[str, ...] = ()
    max_files: int = 50
    max_lines: int = 2000
    secrets: tuple[KnownSecret, ...] = ()

    @classmethod
    def of_scope(cls, scope: Scope, secrets: Iterable[KnownSecret] = ()) -> GuardContext:
        return cls(
            write=scope.writable,
            read=scope.readable,
            scope=scope,
            protected=scope.protected,
            max_files=scope.max_files,
            max_lines=scope.max_lines,
            secrets=tuple(secrets),
        )

    @cached_property
    def folded_protected(self) -> tuple[tuple[str, str], ...]:
        """(pattern as configured, pattern folded)."""
        return tuple((pattern, fold(pattern)) for pattern in self.protected)

    def may_write(self, path: str) -> bool:
        return self.scope.writes(path) if self.scope else first_match(path, self.write) is not None

    def may_read(self, path: str) -> bool:
        return self.scope.reads(path) if self.scope else first_match(path, self.read) is not None


class Guard(Protocol):
    """Pure: no I/O, no clock. Yields findings; yielding nothing is a pass."""

    def __call__(self, changes: ChangeSet, context: GuardContext) -> Iterable[Finding]: ...


def found(
    rule: str,
    ruling: Ruling,
    message: str,
    change: Change | None = None,
    *,
    line: int | None = None,
    excerpt: bytes | str = "",
    fix: str = "",
) -> Finding:
    """A finding; place and excerpt are made safe to show here, once."""
    text = excerpt.decode("utf-8", "replace") if isinstance(excerpt, bytes) else excerpt
    return Finding(
        rule=rule,
        severity=_SEVERITY[ruling],
        verdict=ruling,
        message=message,
        place=Place(path=change.shown, line=line) if change else None,
        excerpt=one_line(text.strip(), 160),
        fix=fix,
    )


def capped(findings: Iterable[Finding]) -> Iterable[Finding]:
    """At most `MAX_FINDINGS_PER_FILE` findings of one file and rule; what is left out is counted, not lost."""
    counts: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], Finding] = {}
    for item in findings:
        key = (item.rule, item.place.path if item.place else "")
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= MAX_FINDINGS_PER_FILE:
            yield item
        else:
            before = last.get(key)
            last[key] = item if before is None or item.verdict.strictness > before.verdict.strictness else before
    for key, item in last.items():
        more = counts[key] - MAX_FINDINGS_PER_FILE
        yield item.model_copy(update={"message": f"{item.message} And {more} more of this kind in the file."})


def suffix(name: str) -> str:
    """The file name's last suffix, folded, with its dot; a dot file has none."""
    base = fold(name).rsplit("/", 1)[-1]
    stem, dot, last = base.rpartition(".")
    return dot + last if stem else ""
