"""What the guards say of a change, as a whole. Pure.

Rules it keeps:
1. The strictest finding rules; no finding at all is an allow, because every guard ran.
2. A guard that fails is a deny of its own: nothing passes because something broke.
3. A finding's fingerprint survives unrelated edits: it is made of rule, place and excerpt, never of line numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from vestibule.boundary.changes.changeset import ChangeSet
from vestibule.boundary.changes.guards import GUARDS, Guard, GuardContext
from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling, strictest_ruling


def examine(
    changes: ChangeSet, context: GuardContext, guards: Sequence[tuple[str, Guard]] = GUARDS
) -> tuple[Finding, ...]:
    """Every finding, strictest first, then by place."""
    findings: list[Finding] = []
    for name, guard in guards:
        try:
            findings.extend(guard(changes, context))
        except Exception as error:  # noqa: BLE001 - whatever breaks in a guard must deny, not pass or crash
            findings.append(
                Finding(
                    rule=f"guard.{name}.failed",
                    severity="error",
                    verdict=Ruling.DENY,
                    message=f"The guard {name} failed ({type(error).__name__}), so the change is refused.",
                    fix="Report this: a guard must never fail.",
                )
            )
    return fingerprinted(_without_secrets(findings))


def _without_secrets(findings: list[Finding]) -> list[Finding]:
    """No line of a file that holds a secret is quoted, by whatever guard."""
    places = {f.place.path for f in findings if f.rule.startswith("change.secret.") and f.place}
    return [
        f.model_copy(update={"excerpt": ""})
        if f.excerpt and f.place and f.place.path in places and not f.rule.startswith("change.secret.")
        else f
        for f in findings
    ]


def fingerprinted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings in report order, each with its fingerprint."""
    ordered = sorted(
        findings,
        key=lambda f: (
            -f.verdict.strictness,
            f.place.path if f.place else "",
            f.place.line or 0 if f.place else 0,
            f.rule,
        ),
    )
    counts: dict[str, int] = {}
    out: list[Finding] = []
    for item in ordered:
        parts = (item.tool, item.rule, item.place.path if item.place else "", item.excerpt)
        key = "\0".join(parts)
        counts[key] = counts.get(key, 0) + 1
        print_ = hashlib.sha256(f"{key}\0{counts[key]}".encode("utf-8", "backslashreplace")).hexdigest()[:32]
        out.append(item.model_copy(update={"fingerprint": print_}))
    return tuple(out)


def _order(item: Finding) -> tuple[int, str, int, str]:
    path, line = (item.place.path, item.place.line or 0) if item.place else ("", 0)
    return -item.verdict.strictness, path, line, item.rule


def ruling(findings: Iterable[Finding]) -> Ruling:
    """The strictest of the findings; none: allow."""
    return strictest_ruling([Ruling.ALLOW, *(finding.verdict for finding in findings)])
