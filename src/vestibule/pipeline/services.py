"""What a process has open: state, log, policies, gates, ledger. Opened once, late, and only what is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestibule.config.load import config_dir, load_operator_config, state_dir
from vestibule.config.schema import OperatorConfig, RepoConfig
from vestibule.core.crossing import Actor, Crossing, error_details
from vestibule.core.errors import DependencyDown
from vestibule.core.ids import Sha, agent_identity
from vestibule.core.labels import Label, RunLabel
from vestibule.core.model import Event, Person, Subject, WallsReport
from vestibule.core.refusal import Refusal
from vestibule.core.verdict import Ruling
from vestibule.git import Git
from vestibule.pipeline.inputs import KeepingDecider
from vestibule.pipeline.record import RunRecord, RunStore
from vestibule.store.database import Database, make_private_folder

if TYPE_CHECKING:
    from vestibule.audit.log import AuditLog
    from vestibule.boundary.host.monitor import Monitor
    from vestibule.cost.ledger import Ledger
    from vestibule.policy import PolicySet
    from vestibule.review.gates import Gates
    from vestibule.review.questions import QuestionBook
    from vestibule.review.signing import ReviewKey
    from vestibule.sandbox.local import LocalSandbox

MONITORED = ("monitor", "cgroup_egress")
"""Walls that the runtime monitor adds to those of a sandbox."""


class Services:
    """Everything the segments need, wired once."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.operator: OperatorConfig = load_operator_config(self.environ)
        self.home: Path = make_private_folder(state_dir(self.environ))
        self.say: Callable[[str], None] = lambda _: None
        """Progress for the person who watches; nothing depends on it."""
        self._policies: dict[tuple[Path, Sha], PolicySet] = {}

    @cached_property
    def db(self) -> Database:
        return Database.open(self.home, self.environ)

    @cached_property
    def runs(self) -> RunStore:
        return RunStore(self.db)

    @cached_property
    def audit(self) -> AuditLog:
        from vestibule.audit.log import AuditLog

        return AuditLog.open(
            self.home / "audit", config_dir(self.environ) / "trust", trust_domain=self.operator.trust_domain
        )

    @cached_property
    def review_key(self) -> ReviewKey:
        from vestibule.review.gates import any_decisions
        from vestibule.review.questions import any_answers
        from vestibule.review.signing import ReviewKey

        # The first key is made; one that something was signed with is never replaced.
        return ReviewKey.load(self.home, create=not any_decisions(self.db) and not any_answers(self.db))

    @cached_property
    def gates(self) -> Gates:
        from vestibule.review.gates import Gates

        return Gates(self.db, self.review_key)

    @cached_property
    def questions(self) -> QuestionBook:
        from vestibule.review.questions import QuestionBook

        return QuestionBook(self.db, self.review_key)

    @cached_property
    def ledger(self) -> Ledger:
        from vestibule.cost.ledger import Ledger

        return Ledger(self.db, self.operator.budget)

    @cached_property
    def person(self) -> Person:
        from vestibule.identity.people import current_person

        return current_person()

    @cached_property
    def sandbox(self) -> LocalSandbox:
        from vestibule.sandbox.local import LocalSandbox

        return LocalSandbox(tools=self.operator.sandbox.tools, state=self.home)

    @property
    def monitor(self) -> Monitor:
        """This process's; it lives as long as the process."""
        from vestibule.pipeline.monitor import monitor_here

        return monitor_here()

    def folder(self, run: str) -> Path:
        """The run's own folder in the state folder (0700)."""
        return make_private_folder(self.home / "runs" / run)

    def config_of(self, record: RunRecord) -> RepoConfig:
        """The repository's configuration in the run's base commit."""
        from vestibule.pipeline.prepare import read_config

        return read_config(Git.open(record.repo), record.base_commit)

    def minimum(self, config: RepoConfig) -> tuple[str, ...]:
        """Walls that must stand: the operator's and the repository's together."""
        return tuple(dict.fromkeys((*self.operator.sandbox.minimum, *config.sandbox.minimum)))

    def require_walls(self, report: WallsReport, minimum: tuple[str, ...]) -> None:
        """Before anything starts in a sandbox, whichever it is. Raises `DependencyDown`: `walls`."""
        missing = self.with_monitor(report, minimum).missing(minimum)
        if missing:
            fact = ", ".join(missing)
            raise DependencyDown("walls", "A wall of the configured minimum does not stand.", fact=fact)

    def with_monitor(self, report: WallsReport, minimum: tuple[str, ...] = MONITORED) -> WallsReport:
        """`report` with the walls that the monitor adds, where one of them is asked for."""
        if not set(minimum) & set(MONITORED):
            return report
        from vestibule.pipeline.monitor import with_monitor

        return with_monitor(report, self.monitor.standing())

    def policy(self, repo: Path, base: Sha) -> PolicySet:
        """Shipped, organisation's and repository's policies; the last from the base commit."""
        from vestibule.pipeline.policies import load_policy, repository_policy

        key = (repo, base)
        if key not in self._policies:
            files = repository_policy(Git.open(repo), base)
            self._policies[key] = load_policy(self.operator, self.environ, files)
        return self._policies[key]

    def crossing(self, record: RunRecord) -> Crossing:
        """Decides and records for one run."""
        return Crossing(
            decider=KeepingDecider(self.policy(record.repo, record.base_commit), self.folder(record.id)),
            audit=self.audit,
            task=task_facts(record),
            labels=RunLabel(start_label(record)),
        )

    def agent_id(self, record: RunRecord) -> str:
        return agent_identity(self.operator.trust_domain, record.id, record.agent.name)

    def actor(self, record: RunRecord, kind: Subject = "system") -> Actor:
        """Who acts: the agent (or a probe in its place), the pipeline, or the person of this process."""
        if kind == "person":
            return Actor(record.id, self.person.id, "person", max(record.attempt, 1))
        name = (
            self.agent_id(record) if kind in ("agent", "probe") else f"spiffe://{self.operator.trust_domain}/pipeline"
        )
        return Actor(record.id, name, kind, max(record.attempt, 1))

    def note(
        self,
        record: RunRecord,
        action: str,
        resource: str,
        *,
        verdict: Ruling = Ruling.ALLOW,
        reasons: tuple[str, ...] = (),
        details: dict[str, Any] | None = None,
    ) -> None:
        """A durable entry about the run itself that closes at once: an intent and its outcome."""
        close = self.begin(record, action, resource, verdict=verdict, reasons=reasons, details=details)
        if verdict is Ruling.ALLOW:
            close(True, {})

    def begin(
        self,
        record: RunRecord,
        action: str,
        resource: str,
        *,
        verdict: Ruling = Ruling.ALLOW,
        reasons: tuple[str, ...] = (),
        details: dict[str, Any] | None = None,
        labels: Label | None = None,
    ) -> Callable[[bool, dict[str, Any]], None]:
        """A durable intent about the run itself; what it gives writes the outcome: whether it went well, details.

        `labels`: what the run has read; by default what its row says.

        Raises:
            DependencyDown: `audit`.
        """
        actor = self.actor(record)
        intent = Event(
            run=record.id,
            phase="intent",
            action=action,
            resource=resource,
            subject="system",
            actor=actor.id,
            verdict=verdict,
            reasons=reasons,
            attempt=actor.attempt,
            labels=labels if labels is not None else start_label(record),
            details=details or {},
        )
        receipt = self.audit.submit(intent).result()

        def close(ok: bool, found: dict[str, Any]) -> None:
            outcome = {"phase": "outcome", "intent": receipt.seq, "result": "ok" if ok else "failed", "details": found}
            self.audit.submit(intent.model_copy(update=outcome)).result()

        return close

    @contextmanager
    def recorded(
        self,
        record: RunRecord,
        action: str,
        resource: str,
        details: dict[str, Any] | None = None,
        *,
        labels: Label | None = None,
    ) -> Iterator[dict[str, Any]]:
        """An effect of the pipeline's own: its intent is durable before the block, its outcome follows.

        What the block puts into the yielded dictionary becomes the outcome's details.
        """
        close = self.begin(record, action, resource, details=details, labels=labels)
        found: dict[str, Any] = {}
        try:
            yield found
        except BaseException as error:
            close(False, error_details(error))
            raise
        close(True, found)

    def remember_head(self) -> None:
        """Keep the log's head outside the state folder, so that a log (and database) put back from a copy is seen.

        Raises:
            DependencyDown: `audit`.
        """
        from vestibule.audit.log import down
        from vestibule.audit.note import VerifyingKey
        from vestibule.audit.trust import Trust, TrustError

        try:
            trust = Trust(config_dir(self.environ) / "trust")
            trust.remember(self.audit.checkpoint(), VerifyingKey.parse(self.audit.vkey))
        except (TrustError, OSError) as error:
            raise down(error, self.audit.folder) from None

    def note_refusal(self, record: RunRecord, refused: Refusal, action: str) -> None:
        self.note(record, action, record.id, verdict=Ruling.DENY, reasons=(refused.rule,), details=refused.as_json())

    def close(self) -> None:
        """Flush the ledger and the log. Everything else is durable already."""
        if "ledger" in self.__dict__:
            self.ledger.close()
        if "audit" in self.__dict__:
            self.audit.close()
        if "db" in self.__dict__:
            self.db.close()


def start_label(record: RunRecord) -> Label:
    """What an attempt starts from: the ticket, and what the run had read before."""
    return Label(integrity=record.ticket.integrity).join(record.labels or Label())


def task_facts(record: RunRecord) -> dict[str, Any]:
    """`task` as a policy sees it."""
    return {
        "run": record.id,
        "role": record.role,
        "read": list(record.scope.read),
        "write": list(record.scope.write),
        "tools": list(record.scope.tools),
        "commands": list(record.scope.commands),
        "agent": record.agent.model_dump(mode="json"),
        "requester": record.requester,
    }
