"""The gateway: guards, then policy, then a durable intent; whatever breaks is a deny."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import pytest
from changes_repos import commit, new_repo

from vestibule.boundary.changes import gateway
from vestibule.boundary.changes.gateway import Changes, Proposal
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Event, Receipt, Scope
from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling, Verdict
from vestibule.git import Git

SCOPE = Scope(read=("**",), write=("src/**",))
AGENT = Actor(run="r1", id="spiffe://x/run/r1/agent/a", kind="agent")
PROBE = Actor(run="r1", id="system", kind="probe")


class Policy:
    """Holds what the guards allow or hold, as the shipped policy does; `answer` overrides it."""

    digest = "sha256:policy"

    def __init__(self, answer: Ruling | None = None) -> None:
        self.answer = answer
        self.asked: list[PolicyInput] = []

    def decide(self, request: PolicyInput) -> Verdict:
        self.asked.append(request)
        found = Ruling.DENY if request.facts["findings"] == "deny" else Ruling.HOLD
        reason = "change.findings" if found is Ruling.DENY else "gate.review"
        return Verdict(ruling=self.answer or found, reasons=(reason,), policy_digest=self.digest)


class Log:
    def __init__(self, *, down: bool = False) -> None:
        self.events: list[Event] = []
        self.down = down

    def submit(self, event: Event) -> concurrent.futures.Future[Receipt]:
        future: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
        if self.down:
            future.set_exception(DependencyDown("audit", "The log is down."))
        else:
            self.events.append(event)
            future.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00.000Z"))
        return future


@pytest.fixture
def repo(tmp_path: Path) -> tuple[Git, str, str, str]:
    folder = new_repo(tmp_path / "r")
    base = commit(folder, {"src/a.py": b"1\n"})
    good = commit(folder, {"src/a.py": b"2\n"})
    bad = commit(folder, {"lib/a.py": b"2\n"})
    return Git.open(folder), base, good, bad


def propose(log: Log, policy: Policy, repo: tuple[Git, str, str, str], head: str) -> Proposal:
    crossing = Crossing(decider=policy, audit=log)
    git, base, *_ = repo
    return Changes().propose(
        crossing, AGENT, git, base=base, head=head, scope=SCOPE, walls_stood=True, gate_configured=True
    )


def test_a_clean_change_is_held_for_its_gate_with_intent_and_outcome(repo: tuple[Git, str, str, str]) -> None:
    log, policy = Log(), Policy()
    proposal = propose(log, policy, repo, repo[2])
    assert proposal.verdict.ruling is Ruling.HOLD
    assert proposal.changed_files == ("src/a.py",)
    assert [(event.phase, event.verdict) for event in log.events] == [("intent", "hold"), ("outcome", "hold")]
    facts = policy.asked[0].facts
    assert facts == {"findings": "allow", "finding_rules": [], "walls_stood": True, "gate_configured": True}
    assert policy.asked[0].resource == {"id": repo[2], "base": repo[1], "files": 1}


def test_a_denied_change_has_an_intent_no_outcome_and_a_refusal_that_helps(repo: tuple[Git, str, str, str]) -> None:
    log, policy = Log(), Policy()
    proposal = propose(log, policy, repo, repo[3])
    assert proposal.verdict.ruling is Ruling.DENY
    assert [event.phase for event in log.events] == ["intent"]
    assert proposal.verdict.refusals[0].rule == "change.scope"
    assert proposal.verdict.refusals[0].next.agent
    assert proposal.verdict.policy_digest == policy.digest


@pytest.mark.parametrize("answer", [Ruling.ALLOW, Ruling.HOLD])
def test_no_policy_loosens_a_deny_of_the_guards(repo: tuple[Git, str, str, str], answer: Ruling) -> None:
    proposal = propose(Log(), Policy(answer), repo, repo[3])
    assert proposal.verdict.ruling is Ruling.DENY


def test_a_stricter_policy_wins_over_clean_guards(repo: tuple[Git, str, str, str]) -> None:
    assert propose(Log(), Policy(Ruling.DENY), repo, repo[2]).verdict.ruling is Ruling.DENY


def test_a_log_that_is_down_refuses(repo: tuple[Git, str, str, str]) -> None:
    with pytest.raises(DependencyDown, match="log is down"):
        propose(Log(down=True), Policy(), repo, repo[2])


def test_the_findings_digest_changes_with_what_a_reviewer_sees(repo: tuple[Git, str, str, str]) -> None:
    one = propose(Log(), Policy(), repo, repo[2])
    two = propose(Log(), Policy(), repo, repo[3])
    assert one.findings_digest != two.findings_digest
    assert one.findings_digest == propose(Log(), Policy(), repo, repo[2]).findings_digest


def test_the_canary_goes_the_real_way_and_comes_back_denied() -> None:
    log, policy = Log(), Policy()
    verdict = Changes().canary(Crossing(decider=policy, audit=log), PROBE)
    assert verdict.ruling is Ruling.DENY
    assert [(event.subject, event.action) for event in log.events] == [("probe", "change.propose")]


def test_a_dead_guard_stops_the_run_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    original = gateway.examine
    monkeypatch.setattr(gateway, "examine", lambda c, x: [f for f in original(c, x) if "unicode" not in f.rule])
    with pytest.raises(DependencyDown) as error:
        Changes().canary(Crossing(decider=Policy(), audit=Log()), PROBE)
    assert error.value.refusal.rule == "dependency.changes"
    assert error.value.refusal.fact == "unicode"
