"""Who may start a paid round of work: one decision, `task.admit`, on every way that leads to an agent.

Rules it keeps:
1. A round is admitted before anything of it happens: the first one (`run`, or `resume` of a run that never got that
   far), one that a reviewer sends back, one that an answer sets off. `require_admitted` looks for the decision in the
   log before an agent starts; without one nothing starts, whatever called for it. The decision is for one round of
   one task: a row that says another role, agent, base or ticket since is not what was admitted.
2. Who caused the round is judged, not who asked for the run once. A permission is established here and now, never
   taken from a row, an event, a variable or a ticket.
3. In the embedded default the person is the operating-system user of this process (`getuid`), and may start what they
   could do by hand: write to the repository and to the state folder. The evidence says how that was found.
4. The rounds of one run are bounded by the operator, so that sending back without end is not spending without end.
5. What cannot be found out is a fact that policy denies.
6. What the agent version spends is judged first (`pause`): of a version that is paused no round begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vestibule.agents.registry import ADAPTERS, adapter
from vestibule.config.trust import TrustFile, may_take
from vestibule.core.base import Noun
from vestibule.core.canonical import digest
from vestibule.core.errors import Refused, UsageError
from vestibule.core.refusal import refusal
from vestibule.core.verdict import Ruling
from vestibule.git import Git, GitError

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry
    from vestibule.config.schema import RepoConfig
    from vestibule.core.model import Person, WallsReport
    from vestibule.pipeline.record import RunRecord
    from vestibule.pipeline.services import Services

ADMIT = "task.admit"


class Permission(Noun):
    """What a person may do with the repository, by the forge's words for it, and how that was established."""

    level: Literal["none", "read", "write", "maintain", "admin"]
    source: Literal["local_user", "forge_api", "installation", "none"]
    evidence: dict[str, Any] = {}


NOBODY = Permission(level="none", source="none")


def local_permission(repo: Path, home: Path, person: Person) -> Permission:
    """What the operating-system user of this process may do with `repo`: `write` is being able to move its branches.

    The kernel is asked (`faccessat`, effective ids) for the folders that a commit, a branch and a run are written to,
    so access lists and read-only mounts count. Nothing is written.
    """
    places = {"state folder": home, **_repository_places(repo)}
    lacks = [name for name, path in places.items() if not _access(path, os.R_OK | os.W_OK | os.X_OK)]
    reads = len(places) > 1 and all(_access(path, os.R_OK | os.X_OK) for path in places.values())
    level: Literal["none", "read", "write"] = "none" if not reads else "read" if lacks else "write"
    return Permission(
        level=level,
        source="local_user",
        evidence={"uid": os.getuid(), "person": person.id, "how": person.how, "lacks": lacks, "writes": sorted(places)},
    )


def may_write_state(home: Path) -> bool:
    """Whether the operating-system user of this process may write the state folder."""
    return _access(home, os.R_OK | os.W_OK | os.X_OK)


def _repository_places(repo: Path) -> dict[str, Path]:
    try:
        git = Git.open(repo)
        common = (git.root / git.text(["rev-parse", "--git-common-dir"])).resolve()
    except (UsageError, GitError, OSError):
        return {}
    return {"repository objects": common / "objects", "repository refs": common / "refs"}


def _access(path: Path, mode: int) -> bool:
    try:
        return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
    except (OSError, ValueError):
        return False


def permission_of(services: Services, record: RunRecord) -> Permission:
    """What whoever caused this round may do. Another person than the one of this process cannot be vouched for here."""
    if record.cause.by != services.person.id:
        return NOBODY.model_copy(update={"evidence": {"person": record.cause.by, "acting": services.person.id}})
    return local_permission(record.repo, services.home, services.person)


def facts_of(
    record: RunRecord,
    config: RepoConfig,
    permission: Permission,
    trust: TrustFile,
    *,
    missing_walls: tuple[str, ...],
    rounds: int,
    paused: str = "",
) -> dict[str, Any]:
    """The facts of `task.admit`. Pure. `rounds`: how many rounds the operator lets one run have; `paused`: whether new
    work of its agent version is (`pause_rules.Standing.fact`).
    """
    return {
        "requester_known": bool(record.requester),
        "trigger": record.cause.trigger,
        "permission": permission.level,
        "permission_source": permission.source,
        "is_bot": False,
        "paid": _paid(record),
        "author_trusted": record.ticket.integrity.value in ("operator", "member"),
        "role_defined": record.role in config.roles,
        "agent_defined": record.agent.name in {*config.agents, *ADAPTERS},
        "config_from_base": True,
        "walls_ok": not missing_walls,
        "rounds_left": 1 <= record.round <= rounds,
        "role_earned": may_take(config, trust, record.role, record.agent.name, record.agent.version),
        "agent_paused": paused,
    }


def _paid(record: RunRecord) -> bool:
    """Whether its model requests can cost money; what is not known to be free is paid."""
    try:
        # Any program may be given a model: what asks one costs, whether it needs one or not.
        return (adapter(record.agent.adapter).needs_model or bool(record.provider)) and not record.scripted
    except UsageError:
        return True


def admit(services: Services, record: RunRecord, details: dict[str, Any]) -> None:
    """Decide and record whether this round of the run may begin. `details` join the record.

    Raises:
        Refused: policy does not admit it.
        DependencyDown: policy, log, sandbox or git did not answer.
    """
    config = services.config_of(record)
    minimum = services.minimum(config)
    report: WallsReport = services.with_monitor(services.sandbox.report(), minimum)
    missing = report.missing(minimum)
    permission = permission_of(services, record)
    from vestibule.pipeline.pause import PauseBook
    from vestibule.pipeline.pause_effects import paused_words
    from vestibule.pipeline.prepare import read_trust

    trust = read_trust(Git.open(record.repo), record.base_commit)
    rounds = services.operator.budget.rounds_per_run
    standing = PauseBook(services).look(record.agent.name, record.agent.version)
    resource = {"id": record.id, "role": record.role, "source": record.ticket.source}
    if standing.paused:
        resource["paused"] = paused_words(services, record, standing)
    services.crossing(record).cross_sync(
        services.actor(record, "person"),
        ADMIT,
        resource,
        facts_of(record, config, permission, trust, missing_walls=missing, rounds=rounds, paused=standing.fact),
        lambda: (None, {}),
        details={
            "walls_missing": list(missing),
            "base": record.base_commit,
            "requester": record.requester,
            "round": record.round,
            "cause": record.cause.model_dump(mode="json"),
            "task": task_digest(record),
            "permission": permission.model_dump(mode="json"),
            **details,
        },
    )


def task_digest(record: RunRecord) -> str:
    """Names what a round was admitted to do: by which agent, in which role, where, for whom, on which ticket."""
    return digest(
        record.model_dump(
            mode="json",
            include={
                "id", "ticket", "requester", "role", "agent", "command", "native", "provider", "scripted", "repo",
                "target", "base_commit", "budget",
            },
        )
    )  # fmt: skip


def is_admitted(entries: Iterable[Entry], record: RunRecord) -> bool:
    """Whether the log of the run admits exactly this round of this task for exactly this cause. Pure.

    The decision counts once its intent is in the log, unless its outcome says that it failed.
    """
    wanted = {"round": record.round, "cause": record.cause.model_dump(mode="json"), "task": task_digest(record)}
    failed: set[int | None] = set()
    fitting: set[int] = set()
    for entry in entries:
        event = entry.event
        if event.action != ADMIT or event.run != record.id or event.subject != "person":
            continue
        if event.phase == "outcome":
            failed |= {event.intent} if event.result == "failed" else set()
        elif event.verdict is Ruling.ALLOW and wanted == {name: event.details.get(name) for name in wanted}:
            fitting.add(entry.seq)
    return bool(fitting - failed)


def require_admitted(services: Services, record: RunRecord) -> None:
    """Raises Refused: `task.unadmitted`, or `task.agent_changed` when another version of the program is there now;
    DependencyDown: the log cannot be read.
    """
    if not is_admitted(services.audit.entries(run=record.id), record):
        raise Refused(
            refusal(
                "task.unadmitted",
                "This round of the run was not admitted, so no agent starts.",
                fact=f"{record.id}, round {record.round}, by {record.cause.trigger or 'nothing'}",
                agent="Stop here; only a person can go on from this point.",
                person="Run the ticket again with `vestibule run`.",
            )
        )
    from vestibule.pipeline.prepare import version_now

    now = version_now(record, services.operator)
    if now != record.agent.version:
        raise Refused(
            refusal(
                "task.agent_changed",
                "The agent's program is not the version that this round was admitted with.",
                fact=f"{record.agent.version}; now {now}",
                agent="Stop here; only a person can go on from this point.",
                person="Run the ticket again with `vestibule run`.",
            )
        )


def require_rounds_left(services: Services, record: RunRecord) -> None:
    """Before a change is sent back: the run may have another round. Raises Refused: `task.rounds`."""
    rounds = services.operator.budget.rounds_per_run
    if record.round < rounds:
        return
    refused = refusal(
        "task.rounds",
        "The run has had all the rounds of work that the operator lets one run have, so it cannot be sent back.",
        fact=f"{record.round} of {rounds}",
        agent="Stop here; only a person can go on from this point.",
        person="Approve or reject this change, or run the ticket anew with what was learnt written into it; "
        "the operator sets `budget.rounds_per_run`.",
    )
    services.note_refusal(record, refused, "review.refused")
    raise Refused(refused)
