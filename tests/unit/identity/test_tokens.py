"""Task tokens: opaque, leased, dead with the run."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vestibule.core.crossing import Actor
from vestibule.identity.tokens import MAX_LEASE_SECONDS, TaskTokens

AGENT = Actor("r1", "spiffe://example.com/run/r1/agent/a", "agent")
PROBE = Actor("r1", "spiffe://example.com/run/r1/probe", "probe")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> TaskTokens:
    return TaskTokens(AGENT, PROBE, clock=clock)


def test_each_token_names_its_actor(tokens: TaskTokens) -> None:
    assert tokens.authenticate(tokens.agent_token.encode()) is AGENT
    assert tokens.authenticate(tokens.probe_token.encode()) is PROBE


def test_tokens_are_random_and_differ(tokens: TaskTokens) -> None:
    other = TaskTokens(AGENT, PROBE)
    shown = {tokens.agent_token, tokens.probe_token, other.agent_token, other.probe_token}
    assert len(shown) == 4
    assert all(item.startswith("vst_") and len(item) == 4 + 43 for item in shown)  # 256 bits in base64url


def test_a_token_of_another_run_is_nobodys(tokens: TaskTokens) -> None:
    assert TaskTokens(AGENT, PROBE).authenticate(tokens.agent_token.encode()) is None


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + b"x", lambda t: t.upper(), lambda t: t + b"\0"])
def test_a_changed_token_is_nobodys(tokens: TaskTokens, change) -> None:
    assert tokens.authenticate(change(tokens.agent_token.encode())) is None


@pytest.mark.parametrize("token", [b"", b"vst_", b"\xff" * 40, b"a" * 1_000_000])
def test_other_bytes_are_nobodys(tokens: TaskTokens, token: bytes) -> None:
    assert tokens.authenticate(token) is None


def test_a_lease_ends_unless_renewed(tokens: TaskTokens, clock: Clock) -> None:
    token = tokens.agent_token.encode()
    clock.now += MAX_LEASE_SECONDS - 1
    assert tokens.authenticate(token) is AGENT
    assert tokens.renew()
    clock.now += MAX_LEASE_SECONDS - 1
    assert tokens.authenticate(token) is AGENT
    clock.now += 1
    assert tokens.authenticate(token) is None


def test_an_ended_lease_cannot_be_revived(tokens: TaskTokens, clock: Clock) -> None:
    clock.now += MAX_LEASE_SECONDS
    assert not tokens.renew()
    assert not tokens.live


def test_tokens_die_with_the_run(tokens: TaskTokens) -> None:
    agent, probe = tokens.agent_token.encode(), tokens.probe_token.encode()
    tokens.revoke()
    tokens.revoke()
    assert tokens.authenticate(agent) is None
    assert tokens.authenticate(probe) is None
    assert not tokens.renew()
    with pytest.raises(LookupError):
        _ = tokens.agent_token


def test_only_digests_are_kept_once_handed_over(tokens: TaskTokens) -> None:
    token = tokens.agent_token
    tokens.forget()
    assert tokens.authenticate(token.encode()) is AGENT
    assert token not in repr(vars(tokens))
    with pytest.raises(LookupError):
        _ = tokens.agent_token


@pytest.mark.parametrize("lease", [0, -1, 901, float("inf"), float("nan")])
def test_no_lease_is_longer_than_fifteen_minutes(lease: float) -> None:
    with pytest.raises(ValueError, match="lease"):
        TaskTokens(AGENT, PROBE, lease_seconds=lease)


def test_actors_cannot_be_swapped() -> None:
    with pytest.raises(ValueError, match="agent"):
        TaskTokens(PROBE, AGENT)


class Leases(RuleBasedStateMachine):
    """Whatever happens in whatever order: a token works only within 900 s of a renewal, and never after the end."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.tokens = TaskTokens(AGENT, PROBE, clock=self.clock)
        self.token = self.tokens.agent_token.encode()
        self.ends = self.clock.now + MAX_LEASE_SECONDS
        self.dead = False

    @rule(seconds=st.floats(0, 1000))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.dead = self.dead or self.clock.now >= self.ends

    @rule()
    def renew(self) -> None:
        assert self.tokens.renew() is not self.dead
        if not self.dead:
            self.ends = self.clock.now + MAX_LEASE_SECONDS

    @rule()
    def revoke(self) -> None:
        self.tokens.revoke()
        self.dead = True

    @invariant()
    def valid_exactly_while_leased(self) -> None:
        assert (self.tokens.authenticate(self.token) is AGENT) is not self.dead


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=50, deadline=None)
