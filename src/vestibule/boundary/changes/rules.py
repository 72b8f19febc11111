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
from vestibule.boundary.changes.guards.secrets import reveals
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
    return fingerprinted(_without_secrets(findings, context))


WITHHELD = "⟦name withheld: it contains a secret⟧"


def _without_secrets(findings: list[Finding], context: GuardContext) -> list[Finding]:
    """No line of a file that holds a secret is quoted by any guard, and no name that is one is shown."""
    places = {f.place.path for f in findings if f.rule.startswith("change.secret.") and f.place}
    names = {path for path in places if reveals(path.encode("utf-8", "replace"), context.secrets)}
    out: list[Finding] = []
    for item in findings:
        path = item.place.path if item.place else ""
        update: dict[str, object] = {}
        if path in places and item.excerpt and not item.rule.startswith("change.secret."):
            update["excerpt"] = ""
        if path in names and item.place:
            update["place"] = item.place.model_copy(update={"path": WITHHELD})
            update["message"] = item.message.replace(path, WITHHELD)
        out.append(item.model_copy(update=update) if update else item)
    return out


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
