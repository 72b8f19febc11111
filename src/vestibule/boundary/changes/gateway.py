"""The I/O shell of the changes crossing: read the change, let the guards judge it, let policy decide, record.

Rules it keeps:
1. `change.propose` is decided by policy on the guards' ruling; a deny of the guards is never loosened here.
2. The intent is durable before anything is proposed; a log that fails is a deny.
3. Before a run, a forbidden change goes the same way and must come back denied (`canary`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vestibule.boundary.changes.changeset import ChangeSet, make_change, read_changeset
from vestibule.boundary.changes.guards import GuardContext
from vestibule.boundary.changes.rules import examine, fingerprinted, ruling
from vestibule.core.base import Noun
from vestibule.core.canonical import digest
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.errors import DependencyDown
from vestibule.core.ids import Sha
from vestibule.core.model import Finding, Receipt, Scope
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.secrets import KnownSecret
from vestibule.core.verdict import Ruling, Verdict, strictest
from vestibule.git import Git

CANARY_VALUE = b"vestibule/canary:Zq7-Lw2_Xe9.Rt4~Uy6"
"""What the canary's change tries to carry out; worth nothing."""


class Proposal(Noun):
    """What came of proposing a change. `findings_digest` is what a gate is bound to."""

    findings: tuple[Finding, ...]
    verdict: Verdict
    changed_files: tuple[str, ...]
    lines: int
    findings_digest: str
    receipt: Receipt


class Changes:
    """The changes crossing for one run."""

    def propose(
        self,
        crossing: Crossing,
        actor: Actor,
        git: Git,
        *,
        base: Sha,
        head: Sha,
        scope: Scope,
        walls_stood: bool,
        gate_configured: bool,
        secrets: Iterable[KnownSecret] = (),
        more: Iterable[Finding] = (),
    ) -> Proposal:
        """Judge `base..head` and decide `change.propose`. A hold is the usual way to the review gate.

        `more` are findings of the export, joined with the guards'.

        Raises:
            DependencyDown: git or the audit log is down; nothing was proposed.
        """
        changes = read_changeset(git, base, head)
        findings = fingerprinted([*examine(changes, GuardContext.of_scope(scope, secrets)), *more])
        return self._decide(crossing, actor, changes, findings, walls_stood=walls_stood, gate=gate_configured)

    def canary(self, crossing: Crossing, actor: Actor) -> Verdict:
        """Send a forbidden change through guards, policy and log. `actor.kind` is `probe`.

        Raises:
            DependencyDown: `changes`, it was not denied, so a guard or policy is not live; or the log is down.
        """
        changes, context = canary_change()
        findings = examine(changes, context)
        silent = silent_guards(findings)
        if silent:
            raise DependencyDown("changes", "A guard let a forbidden change pass.", fact=", ".join(silent))
        proposal = self._decide(crossing, actor, changes, findings, walls_stood=True, gate=True)
        if proposal.verdict.ruling is not Ruling.DENY:
            raise DependencyDown(
                "changes", "Policy let a change pass that the guards refuse.", fact=proposal.verdict.ruling.value
            )
        return proposal.verdict

    @staticmethod
    def _decide(
        crossing: Crossing,
        actor: Actor,
        changes: ChangeSet,
        findings: tuple[Finding, ...],
        *,
        walls_stood: bool,
        gate: bool,
    ) -> Proposal:
        guards = ruling(findings)
        rules = list(dict.fromkeys(f.rule for f in findings if f.verdict is not Ruling.ALLOW))
        resource = {"id": changes.head, "base": changes.base, "files": len(changes.changes)}
        facts: dict[str, Any] = {
            "findings": guards.value,
            "finding_rules": rules,
            "walls_stood": walls_stood,
            "gate_configured": gate,
        }
        decided, input_digest = crossing.safely(actor, "change.propose", resource, facts)
        verdict = with_guards(decided, findings)
        seen = findings_digest(findings)
        details = {"guards": guards.value, "rules": rules[:50], "findings": len(findings), "findings_digest": seen}
        intent = crossing.intent(
            actor, "change.propose", changes.head, verdict, input_digest=input_digest, details=details
        )
        receipt = crossing.record(intent)
        proposal = Proposal(
            findings=findings,
            verdict=verdict,
            changed_files=changes.files,
            lines=sum(change.lines for change in changes.changes),
            findings_digest=seen,
            receipt=receipt,
        )
        if verdict.ruling is not Ruling.DENY:
            crossing.record(crossing.outcome(intent, receipt, ok=True))
        return proposal


def with_guards(decided: Verdict, findings: Iterable[Finding]) -> Verdict:
    """Policy's verdict, never looser than a denying finding, with a refusal that says what to do."""
    denied = [finding for finding in findings if finding.verdict is Ruling.DENY]
    if not denied:
        return decided
    refusals = tuple(dict.fromkeys(_refusal(finding) for finding in denied))[:20]
    guards = Verdict(
        ruling=Ruling.DENY,
        reasons=("change.findings", *dict.fromkeys(finding.rule for finding in denied)),
        policy_digest=decided.policy_digest,
        refusals=refusals,
    )
    if decided.ruling is Ruling.DENY:
        joined = strictest([guards, decided])
        return joined.model_copy(update={"policy_digest": decided.policy_digest})
    return guards


def _refusal(finding: Finding) -> Refusal:
    place = f"{finding.place.path}:{finding.place.line}" if finding.place and finding.place.line else ""
    return refusal(
        finding.rule,
        finding.message,
        fact=place or (finding.place.path if finding.place else ""),
        agent=finding.fix or "Leave it out of the change and finish again.",
        person="Look at the finding; if the change is wanted, a person makes it, in a change of its own.",
    )


def findings_digest(findings: Iterable[Finding]) -> str:
    """Digest of what a reviewer is shown."""
    return digest([finding.model_dump(mode="json") for finding in findings])


_CANARIES: tuple[tuple[str, str], ...] = (
    ("paths", "path.traversal"),
    ("protected", "change.protected.vestibule"),
    ("scope", "change.scope"),
    ("submodules", "change.submodule"),
    ("links", "change.symlink.escape"),
    ("secrets", "change.secret.value"),
    ("unicode", "change.unicode.bidi"),
    ("binaries", "change.binary.executable"),
)
"""Guard → the rule its part of the canary must break."""


def canary_change() -> tuple[ChangeSet, GuardContext]:
    """One change that every denying guard must refuse."""
    changes = (
        make_change("src/../../etc/cron.d/canary", b"canary\n"),
        make_change(".vestibule/config.yaml", b"version: 1\n", b"version: 1\nroles: {}\n"),
        make_change("outside/of/scope.txt", b"canary\n"),
        make_change("src/module", b"", mode="160000"),
        make_change("src/link", b"../../outside", mode="120000"),
        make_change("src/value.py", b"# " + CANARY_VALUE + b"\n"),
        make_change("src/bidi.py", "if admin:  # \u202e\u2066 never\u2069\n".encode()),
        make_change("src/program", b"\x7fELF\x02\x01\x01\x00" + bytes(56), mode="100755"),
    )
    tree = {change.path: change.new_mode for change in changes}
    context = GuardContext(write=("src/**",), secrets=(KnownSecret("the canary", CANARY_VALUE),))
    return ChangeSet("0" * 40, "f" * 40, changes, tree), context


def silent_guards(findings: Iterable[Finding]) -> list[str]:
    """Guards that did not refuse their part of the canary."""
    denied = {finding.rule for finding in findings if finding.verdict is Ruling.DENY}
    return [guard for guard, rule in _CANARIES if rule not in denied]
