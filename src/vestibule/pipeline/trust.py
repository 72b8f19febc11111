"""`vestibule trust`: the record of each agent version, the step that it proposes, and a person's applying of it.

Rules it keeps:
1. A step counts only once it is committed on the base branch; this writes the file for a person to commit.
2. Applying is recorded before the file is written, with the evidence and who did it.
3. A step that the record does not propose needs a person's explicit word, and says so in the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vestibule.config.schema import RepoConfig
from vestibule.config.trust import TRUST_PATH, TrustStep, ladder_of, load_trust, rung
from vestibule.core import clock
from vestibule.core.base import Noun
from vestibule.core.crossing import error_details
from vestibule.core.errors import DependencyDown, UsageError
from vestibule.core.ids import Sha
from vestibule.core.model import Event
from vestibule.core.text.sanitize import one_line
from vestibule.core.verdict import Ruling
from vestibule.git import Git
from vestibule.pipeline import trust_rules
from vestibule.pipeline.prepare import read_config, read_trust
from vestibule.pipeline.services import Services


class Standing(Noun):
    """One agent version on one ladder: its rung, its record there, and what follows."""

    agent: str
    version: str
    ladder: str
    role: str
    rung: int
    rungs: int
    record: trust_rules.Record | None
    proposal: trust_rules.Proposal


def terms_of(config: RepoConfig) -> trust_rules.Terms:
    trust = config.trust
    return trust_rules.Terms(
        clean_runs=trust.clean_runs,
        max_denials=trust.max_denials,
        count_self_reviewed=trust.self_reviewed == "count",
    )


class TrustBook:
    """The records of one repository's branch."""

    def __init__(self, services: Services, git: Git, base: Sha, target: str) -> None:
        """`target` is the full name of the branch whose tip `base` is: runs that were merged into it are evidence."""
        self.services = services
        self.git = git
        self.target = target
        self.config = read_config(git, base)
        self.file = read_trust(git, base)
        self.terms = terms_of(self.config)

    def records(self) -> list[trust_rules.Record]:
        """Every agent version in every role, from the log."""
        deeds = trust_rules.deeds(entry.event for entry in self.services.audit.entries())
        return trust_rules.records(trust_rules.about(deeds, str(self.git.root), self.target), self.terms)

    def standings(self, records: list[trust_rules.Record] | None = None) -> list[Standing]:
        """Each agent version that has worked in a role of a ladder, on that ladder."""
        found = self.records() if records is None else records
        seen = dict.fromkeys((item.agent, item.version, ladder_of(self.config, item.role)) for item in found)
        return [self._standing(agent, version, ladder, found) for agent, version, ladder in seen if ladder]

    def _standing(self, agent: str, version: str, ladder: str, records: list[trust_rules.Record]) -> Standing:
        rungs = self.config.trust.ladders[ladder]
        at = rung(self.config, self.file, ladder, agent, version)
        own = next((r for r in records if (r.agent, r.version, r.role) == (agent, version, rungs[at])), None)
        return Standing(
            agent=agent,
            version=version,
            ladder=ladder,
            role=rungs[at],
            rung=at,
            rungs=len(rungs),
            record=own,
            proposal=trust_rules.propose(rungs, at, own, self.terms),
        )

    def apply(
        self, agent: str, ladder: str, role: str, *, version: str, reason: str, anyway: bool
    ) -> tuple[Path, Standing]:
        """Write the step into the work tree; the file, and the standing that it was judged by.

        Raises:
            UsageError: no such agent, ladder or role; several versions; not proposed and not `anyway`; no work tree.
            DependencyDown: `audit`, or the file cannot be written.
        """
        standing = self._chosen(agent, ladder, version)
        rungs = self.config.trust.ladders[ladder]
        if role not in rungs:
            raise UsageError(
                f"The ladder {ladder!r} has no role {one_line(role)!r}.", next_step=f"Its roles: {', '.join(rungs)}."
            )
        if not reason.strip():
            raise UsageError("A step says why.", next_step="Give --reason TEXT.")
        proposed = standing.proposal.step != "stay" and standing.proposal.role == role
        if not proposed and not anyway:
            raise UsageError(
                f"The record does not propose {role!r} for {one_line(agent)} now.",
                why=standing.proposal.why,
                next_step="Wait for more runs, or add --anyway to say that you decide without the record.",
            )
        if self.git.work_tree is None:
            raise UsageError("The repository has no work tree to write to.", next_step="Use a clone with one.")
        path = self.git.work_tree / TRUST_PATH
        head = self.services.audit.head()
        step = TrustStep(
            agent=agent,
            ladder=ladder,
            role=role,
            version=standing.version,
            by=self.services.person.id,
            time=clock.now(),
            reason=one_line(reason, 500),
            runs=standing.proposal.runs if proposed else (),
            log=f"{head.origin} {head.size} {head.root_base64}",
        )
        self._write(path, step, {"proposed": proposed, "from": standing.role, "proposal": standing.proposal.why})
        return path, standing

    def _chosen(self, agent: str, ladder: str, version: str) -> Standing:
        if ladder not in self.config.trust.ladders:
            known = ", ".join(sorted(self.config.trust.ladders)) or "none"
            raise UsageError(f"There is no ladder {one_line(ladder)!r}.", next_step=f"Ladders: {known}.")
        found = [
            item
            for item in self.standings()
            if item.agent == agent and item.ladder == ladder and (not version or item.version == version)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            versions = ", ".join(one_line(item.version, 100) for item in found)
            raise UsageError("Which version?", next_step=f"Name it with --version: {versions}.")
        raise UsageError(
            f"No run of {one_line(agent)!r} in a role of {ladder!r} is in the log.",
            next_step="`vestibule trust` lists what is there.",
        )

    def _write(self, path: Path, step: TrustStep, details: dict[str, Any]) -> None:
        """The file with the step, after the log has it. What the work tree's file says besides stays."""
        if path.is_symlink() or path.parent.is_symlink():
            # A branch that somebody else wrote may be checked out: nothing is written where its links lead.
            raise UsageError(f"{path} is a link.", next_step="Check out the base branch, and apply the step there.")
        here = load_trust(path.read_bytes() if path.is_file() else None, str(path))
        person = self.services.person
        intent = Event(
            run="",
            phase="intent",
            action="trust.apply",
            resource=f"{step.agent} {step.ladder} {step.role}",
            subject="person",
            actor=person.id,
            verdict=Ruling.ALLOW,
            details={**details, "step": step.model_dump(mode="json"), "how": person.how},
        )
        receipt = self.services.audit.submit(intent).result()
        outcome: dict[str, Any] = {"phase": "outcome", "intent": receipt.seq}
        try:
            path.parent.mkdir(exist_ok=True)
            scratch = path.with_suffix(".tmp")
            scratch.unlink(missing_ok=True)
            with scratch.open("xb") as file:  # made anew, never through a link (open(2), O_EXCL)
                file.write(here.with_step(step).dump())
            scratch.replace(path)
        except OSError as error:
            failed = {"result": "failed", "details": error_details(error)}
            self.services.audit.submit(intent.model_copy(update={**outcome, **failed})).result()
            raise DependencyDown("workspace", f"{path} cannot be written.", fact=error.strerror or "") from None
        self.services.audit.submit(intent.model_copy(update={**outcome, "result": "ok", "details": {}})).result()
