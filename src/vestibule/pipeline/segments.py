"""The segments of a run: `work` (admit, work, check, propose) and `conclude` (verify, merge).

Rules they keep:
1. A step is decided and recorded before its effect; what a step did is durable before the next begins.
2. Every effect has a key: the branch moves by compare-and-swap, a gate is one per run and round, a merge is
   found again by its trailer, a charge by its hold. Running a step again repeats none of them.
3. A person's approval starts `conclude` with the gate's id as its key; verify commands run there and only there.
4. Whatever ends a segment early leaves the run in a final state that says why.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vestibule.core import clock
from vestibule.core.crossing import first_refusal
from vestibule.core.errors import (
    AGENT_FAILED,
    REFUSED,
    AgentFailed,
    Refused,
    UsageError,
    VerificationFailed,
    VestibuleError,
)
from vestibule.core.ids import Sha
from vestibule.core.model import Finding, GateBinding, State
from vestibule.core.ports import Forge, MergeView
from vestibule.core.verdict import Ruling
from vestibule.pipeline.admission import admit
from vestibule.pipeline.egress import egress_findings
from vestibule.pipeline.engine import Segment, Steps
from vestibule.pipeline.monitor import host_findings
from vestibule.pipeline.pause_effects import note_held
from vestibule.pipeline.questions import apply_grants, granted, pending, unheard
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.results import apply_result, last_proposed, result_repository
from vestibule.pipeline.services import Services

if TYPE_CHECKING:
    from vestibule.pipeline.approval import Approval

MAX_ATTEMPTS = 2
APPROVED = frozenset({State.APPROVED, State.VERIFYING, State.MERGING})
"""A person has approved, and `conclude` is due."""
_PAST_WORK = frozenset({*APPROVED, State.AWAITING_ANSWER, *(state for state in State if state.final)})
WAITS = "waits"
"""What the check says of a round that ended with a question in place of a change."""


class Segments:
    """The segments over one set of services."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.runs = services.runs

    def table(self) -> dict[str, Segment]:
        """What the engine dispatches to."""
        return {"work": self.work, "conclude": self.conclude}

    # --- work ---------------------------------------------------------------------------------------------

    def work(self, steps: Steps, run: str) -> str:
        """From a received (or sent back) run to its gate."""
        record = self.runs.get(run)
        if record.state in _PAST_WORK:
            return record.state.value  # taken up again after a crash, when the run has moved on since
        round_ = record.round
        try:
            if round_ == 1:
                steps.run("admit", lambda: self._admit(run))
            else:
                steps.run(f"admit-{round_}", lambda: admit(self.services, self._current(run), {}))
            steps.run(f"work-{round_}", lambda: self._work(run))
            if steps.run(f"check-{round_}", lambda: self._check(run)) != WAITS:
                steps.run(f"propose-{round_}", lambda: self._propose(run))
        except VestibuleError as error:
            self._ended(run, error)
            raise
        return self.runs.get(run).state.value

    def _admit(self, run: str) -> None:
        from vestibule.intake import specify

        started = time.monotonic()
        record = self._current(run)
        spec = specify(record.ticket)
        admit(self.services, record, {"ticket": spec.ticket_digest})
        self.services.ledger.open(record.id, record.budget)
        self.runs.set(
            run,
            state=State.SPECIFIED,
            spec=spec,
            scope=record.scope.within(spec.files),
            policy_digest=self.services.policy(record.repo, record.base_commit).digest,
            timings=record.timings.model_copy(update={"intake": clock.elapsed_ms(started)}),
        )

    def _current(self, run: str) -> RunRecord:
        """The run with the version of its agent's program that would run now: it is what a rung was earned by."""
        from vestibule.pipeline.prepare import version_now

        record = self.runs.get(run)
        version = version_now(record, self.services.operator)
        if version == record.agent.version:
            return record
        return self.runs.set(run, agent=record.agent.model_copy(update={"version": version}))

    def _work(self, run: str) -> None:
        from vestibule.pipeline.attempt import Attempt

        def begin(record: RunRecord) -> dict[str, Any]:
            if record.attempt >= MAX_ATTEMPTS:
                raise AgentFailed(
                    f"The agent's work was cut off {MAX_ATTEMPTS} times.",
                    why="Each time this process or machine died while the agent was working.",
                    next_step="Start the run anew once the machine is sound.",
                )
            return {"state": State.WORKING, "attempt": record.attempt + 1}

        record = apply_grants(self.services, self.runs.change(run, begin))
        done = Attempt(self.services, record).perform()
        self.runs.set(
            run,
            state=State.CHECKING,
            worked=clock.now(),
            walls=done.walls,
            agent_exit=done.exit_code,
            agent_message=done.message,
            agent_denials=done.own_denials,
            dropped=done.dropped,
            labels=done.labels,
            down=done.down,
            network=done.network,
            host=done.host,
            timings=record.timings.model_copy(update={"sandbox": done.sandbox_ms, "agent": done.agent_ms}),
        )

    def _check(self, run: str) -> str:
        """Empty, or `WAITS`: the agent changed nothing, for it waits for an answer.

        Raises:
            Refused: a guard denies the change. AgentFailed: there is none.
        """
        from vestibule.boundary.changes.gateway import Changes
        from vestibule.boundary.changes.scanners import not_run
        from vestibule.pipeline.providers import known_secrets

        started = time.monotonic()
        record = apply_grants(self.services, self.runs.get(run))
        config = self.services.config_of(record)
        result, applied = apply_result(self.services, record)
        if applied.tree == result.tree_of(record.base_commit) and not applied.findings:
            if record.down:
                raise Refused(record.down[-1])
            if self._asks(record):
                return WAITS
            raise AgentFailed(
                "The agent changed nothing.",
                why=record.agent_message[-300:],
                next_step=f"See what it did with `vestibule show {run}`.",
            )
        stood = record.walls is not None and not record.walls.missing(self.services.minimum(config))
        proposal = Changes().propose(
            self.services.crossing(record),
            self.services.actor(record),
            result,
            base=record.base_commit,
            head=applied.commit,
            scope=record.scope,
            walls_stood=stood,
            gate_configured=True,
            secrets=known_secrets(self.services, record),
            more=(*applied.findings, *not_run(config.scanners), *_about_exit(record), *_seen(record)),
        )
        verdict = proposal.verdict
        denied = verdict.ruling is Ruling.DENY
        self.runs.set(
            run,
            findings=proposal.findings,
            verdict=verdict.ruling,
            reasons=verdict.reasons,
            refusals=verdict.refusals if denied else (),
            head_commit=applied.commit,
            tree=applied.tree,
            dropped=applied.dropped,
            changed_files=proposal.changed_files,
            policy_digest=verdict.policy_digest,
            timings=record.timings.model_copy(update={"changes": clock.elapsed_ms(started)}),
        )
        if denied:
            raise Refused(first_refusal(verdict, "change.propose", applied.commit))
        return ""

    def _asks(self, record: RunRecord) -> bool:
        """Whether a person's answer is what the run lacks; then it waits for it."""
        asked = self.services.questions.of_run(record.id)
        if not pending(asked) and not granted(unheard(record, asked)):
            return False

        def waits(old: RunRecord) -> dict[str, Any]:
            moved_on = old.state is not State.CHECKING or old.round != record.round
            return {} if moved_on else {"state": State.AWAITING_ANSWER, "verdict": Ruling.HOLD, "note": ""}

        self.runs.change(record.id, waits)
        return True

    def _propose(self, run: str) -> None:
        record = self.runs.get(run)
        result = result_repository(self.services, record)
        forge = self.forge(record)
        previous = last_proposed(self.services, record)
        config = self.services.config_of(record)
        review = config.gates.review
        with self.services.recorded(record, "branch.write", run, {"commit": record.head_commit}) as found:
            found["pre_receive"] = forge.protect()
            branch = forge.propose(run, result.git_dir, record.head_commit, previous=previous)
            result.run(["update-ref", f"refs/vestibule/proposed-{record.round}", record.head_commit])
            found["branch"] = branch
        if found["pre_receive"] == "put there now":
            self.services.say(f"A pre-receive rule now keeps pushes off {record.target} in {record.repo}.")
        terms = {"approvals": review.approvals, "self_approval": review.self_approval, "expires_s": review.expires}
        binding = self.binding(record)
        details = {**terms, "round": record.round, "binding": binding.model_dump(mode="json")}
        with self.services.recorded(record, "gate.open", run, details) as found:
            gate = self.services.gates.open(
                run=run,
                round=record.round,
                binding=binding,
                requester=record.requester,
                approvals=review.approvals,
                eligible=config.eligible(review.from_),
                self_approval=review.self_approval,
                expires_seconds=review.expires,
            )
            found.update({"gate": gate.id, "expires": gate.expires})

        def waits(old: RunRecord) -> dict[str, Any]:
            # Running this step again never takes back what a person decided since.
            moved_on = old.state is not State.CHECKING or old.round != record.round
            return {} if moved_on else {"state": State.AWAITING_REVIEW, "branch": branch, "note": ""}

        note_held(self.services, self.runs.change(run, waits))

    # --- conclude -----------------------------------------------------------------------------------------

    def conclude(self, steps: Steps, run: str) -> str:
        """From an approval to the merge."""
        if self.runs.get(run).state not in APPROVED:
            return self.runs.get(run).state.value
        try:
            steps.run("verify", lambda: self._verify(run))
            steps.run("merge", lambda: self._merge(run))
        except VestibuleError as error:
            self._ended(run, error)
            raise
        return self.runs.get(run).state.value

    def _verify(self, run: str) -> None:
        from vestibule.pipeline.verification import verify

        record = self.runs.get(run)
        config = self.services.config_of(record)
        # What the agent wrote runs now: never on the word of the run's row alone.
        self.approval(record, self.forge(record).look(run, self.binding(record))).require()
        record = self.runs.set(run, state=State.VERIFYING, verified_tree="")
        failure = verify(self.services, record, config)
        if failure is not None:
            self.runs.set(run, findings=(*record.findings, failure))
            raise VerificationFailed(
                failure.message,
                why=failure.excerpt,
                next_step=f"Nothing was merged. The branch {record.branch} stays for a look.",
            )
        self.runs.set(run, verified_tree=record.tree)

    def _merge(self, run: str) -> None:
        from vestibule.core.ports import CheckpointRef, MergeRequest

        record = self.runs.set(run, state=State.MERGING)
        forge = self.forge(record)
        binding = self.binding(record)
        look = forge.look(run, binding)
        approval = self.approval(record, look)
        if look.merged_as:
            # A crash came between the merge and its record: it is in, and nothing is merged twice.
            approval.require()
            self.found(record, forge, look.merged_as)
            return
        gate, decisions, approved = approval.gate, approval.decisions, approval.approved
        facts = {
            "approved": approved,
            "binding_current": look.branch_head == binding.head_commit and look.tree == binding.tree,
            "verified": record.verified_tree == record.tree,
            "base_is_ancestor": look.base_is_ancestor,
            "target_unmoved_or_mergeable": look.mergeable,
        }
        head = self.services.audit.head()
        request = MergeRequest(
            run=run,
            title=record.spec.title if record.spec else run,
            binding=binding,
            decisions=tuple(item for item in decisions if item.choice == "approve"),
            checkpoint=CheckpointRef(origin=head.origin, size=head.size, root=head.root_base64),
            time=decisions[-1].time if decisions else record.updated,
        )

        def effect() -> tuple[Any, dict[str, Any]]:
            merged = forge.merge(request)
            return merged, {"state": merged.state, "commit": merged.commit, "rule": merged.rule}

        try:
            merged = self.services.crossing(record).cross_sync(
                self.services.actor(record),
                "merge",
                {"id": record.head_commit, "target": record.target},
                facts,
                effect,
                details={
                    "gate": gate.id if gate else "",
                    "decisions": [item.id for item in decisions],
                    "evidence": approval.problem,
                },
            )
        except Refused as error:
            if approval.problem:
                approval.require()
            if look.mergeable or not approved:
                raise
            # The target moved on: the approval was for another base. It stays visible, and nothing is lost.
            self.runs.set(run, state=State.APPROVED, note=f"{error.refusal.reason} {error.refusal.next.person}")
            return
        if merged.state == "left":
            self.runs.set(run, state=State.APPROVED, note=f"{merged.reason} {merged.how_to_finish}".strip())
            return
        self.runs.set(run, state=State.MERGED, merge_commit=merged.commit, note="")
        self.services.audit.checkpoint()

    def approval(self, record: RunRecord, look: MergeView) -> Approval:
        """The approval against what stands in the forge; what is merged already, against what was approved."""
        from vestibule.pipeline.approval import approval_of

        there = self.binding(record).model_copy(update={"head_commit": look.branch_head or "", "tree": look.tree or ""})
        return approval_of(self.services, record, None if look.merged_as else there)

    def found(self, record: RunRecord, forge: Forge, commit: Sha) -> RunRecord:
        """The merge that a killed process made: recorded, and the work tree given back."""
        with self.services.recorded(record, "merge.found", commit):
            forge.settle(record.id)
            return self.runs.set(record.id, state=State.MERGED, merge_commit=commit, note="")

    # --- what both need -----------------------------------------------------------------------------------

    def forge(self, record: RunRecord) -> Forge:
        from vestibule.forges.git import GitForge

        return GitForge.open(record.repo, record.target, trust_domain=self.services.operator.trust_domain)

    def binding(self, record: RunRecord) -> GateBinding:
        """What the gate of this round is bound to."""
        from vestibule.boundary.changes.gateway import findings_digest

        return GateBinding(
            head_commit=record.head_commit,
            tree=record.tree,
            base_commit=record.base_commit,
            policy_digest=self.services.policy(record.repo, record.base_commit).digest,
            findings_digest=findings_digest(record.findings),
            target=record.target,
        )

    def current_binding(self, record: RunRecord) -> GateBinding:
        """What stands in the forge right now; differs from the gate's binding when anything moved."""
        look = self.forge(record).look(record.id, self.binding(record))
        return self.binding(record).model_copy(update={"head_commit": look.branch_head or "", "tree": look.tree or ""})

    def _ended(self, run: str, error: VestibuleError) -> None:
        record = self.runs.get(run)
        if record.state.final:
            return
        if isinstance(error, Refused):
            state, code = State.REFUSED, REFUSED
            refusals = tuple(dict.fromkeys((*record.refusals, error.refusal)))
            self._try_note(record, error)
        else:
            state, refusals = State.FAILED, record.refusals
            code = error.exit_code if isinstance(error, (VerificationFailed, UsageError)) else AGENT_FAILED
        self.runs.set(
            run,
            state=state,
            exit_code=code,
            verdict=Ruling.DENY if state is State.REFUSED else record.verdict,
            reasons=record.reasons if record.refusals or not isinstance(error, Refused) else (error.refusal.rule,),
            refusals=refusals,
            note=" ".join(part for part in (error.what, error.why, error.next_step) if part),
        )

    def _try_note(self, record: RunRecord, error: Refused) -> None:
        try:
            self.services.note_refusal(record, error.refusal, "run.refused")
        except Refused:
            # The log itself is what is down; the run's row and exit code say so.
            return


def _seen(record: RunRecord) -> tuple[Finding, ...]:
    """What gateways and monitor saw that a reviewer has to know."""
    return (*egress_findings(record), *host_findings(record))


def _about_exit(record: RunRecord) -> tuple[Finding, ...]:
    """A notice for the reviewer when the agent program ended with an error. It is no verdict: the change is judged."""
    if record.agent_exit in (None, 0):
        return ()
    message = f"The agent program ended with exit code {record.agent_exit}. The change was judged by itself."
    return (Finding(rule="agent.exit_code", severity="note", verdict=Ruling.ALLOW, message=message),)
