"""Inputs are kept beside the run, and a changed policy is tried on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vestibule.core.canonical import digest
from vestibule.core.model import Event
from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling, Verdict
from vestibule.pipeline import inputs
from vestibule.pipeline.inputs import FILE, KeepingDecider, kept_inputs
from vestibule.pipeline.replay import Replay, replay


class Fixed:
    """A decider with one answer."""

    digest = "sha256:0"

    def __init__(self, ruling: Ruling = Ruling.ALLOW, *reasons: str) -> None:
        self.verdict = Verdict(ruling=ruling, reasons=reasons)
        self.asked: list[PolicyInput] = []

    def decide(self, request: PolicyInput) -> Verdict:
        self.asked.append(request)
        return self.verdict


def request(path: str) -> PolicyInput:
    return PolicyInput(action="context.read", subject={"kind": "agent"}, resource={"id": path}, facts={"in_read": True})


def event(asked: PolicyInput, ruling: Ruling = Ruling.ALLOW, reasons: tuple[str, ...] = ()) -> Event:
    return Event(
        run="r1",
        phase="intent",
        action=asked.action,
        resource=str(asked.resource["id"]),
        subject="agent",
        actor="spiffe://example.com/run/r1/agent/a",
        verdict=ruling,
        reasons=reasons,
        input_digest=digest(asked.model_dump(mode="json")),
    )


def test_an_input_is_kept_before_its_decision_once_and_for_its_user_only(tmp_path: Path) -> None:
    class Looks(Fixed):
        def decide(self, request: PolicyInput) -> Verdict:
            assert digest(request.model_dump(mode="json")) in kept_inputs(tmp_path)
            return super().decide(request)

    keeping = KeepingDecider(Looks(), tmp_path)
    for path in ("a", "b", "a"):
        assert keeping.decide(request(path)).allowed
    assert len((tmp_path / FILE).read_bytes().splitlines()) == 2
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert keeping.digest == "sha256:0"


@pytest.mark.parametrize("value", [0.5, "\ud800", object(), 1 << 70])
def test_what_cannot_be_kept_is_decided_all_the_same(tmp_path: Path, value: object) -> None:
    within = Fixed(Ruling.DENY, "policy.input")
    odd = request("a").model_copy(update={"facts": {"x": value}})
    assert KeepingDecider(within, tmp_path).decide(odd).ruling is Ruling.DENY


def test_a_folder_that_is_gone_changes_no_decision(tmp_path: Path) -> None:
    assert KeepingDecider(Fixed(), tmp_path / "gone").decide(request("a")).allowed


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INPUTS_BYTES", 1000)
    keeping = KeepingDecider(Fixed(), tmp_path)
    for number in range(50):
        keeping.decide(request(str(number)))
    assert (tmp_path / FILE).stat().st_size <= 1000


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"")
    (tmp_path / FILE).symlink_to(other)
    KeepingDecider(Fixed(), tmp_path).decide(request("a"))
    assert other.read_bytes() == b""


def test_a_changed_input_is_no_input(tmp_path: Path) -> None:
    KeepingDecider(Fixed(), tmp_path).decide(request("a"))
    document = json.loads((tmp_path / FILE).read_bytes())
    document["facts"]["in_read"] = False
    (tmp_path / FILE).write_bytes(json.dumps(document).encode() + b"\nnot json\n[]\n" + b"[" * 5000 + b"\n")
    result = Replay()
    replay(Fixed(Ruling.DENY, "acme.x"), [(1, event(request("a")))], kept_inputs(tmp_path), result)
    assert result.without_input == [("r1", 1)]
    assert (result.decisions, result.replayed, result.differences) == (1, 0, [])


def test_replay_says_which_verdicts_differ_and_for_which_no_input_is_kept(tmp_path: Path) -> None:
    keeping = KeepingDecider(Fixed(), tmp_path)
    for path in ("a", "b"):
        keeping.decide(request(path))
    held = event(request("b"), Ruling.HOLD, ("acme.freeze",))
    outcome = event(request("a")).model_copy(update={"phase": "outcome"})
    undecided = event(request("a")).model_copy(update={"input_digest": ""})
    entries = [(1, event(request("a"))), (2, held), (3, outcome), (4, undecided), (5, event(request("never kept")))]
    result = Replay()
    policy = Fixed(Ruling.HOLD, "acme.freeze")
    replay(policy, entries, kept_inputs(tmp_path), result)
    assert (result.decisions, result.replayed, result.without_input) == (3, 2, [("r1", 5)])
    [difference] = result.differences
    assert (difference.seq, difference.before, difference.after) == (1, ("allow", ()), ("hold", ("acme.freeze",)))
    assert policy.asked == [request("a"), request("b")]
    assert json.loads(json.dumps(result.as_json()))["without_input"] == [{"run": "r1", "seq": 5}]
