"""A run that has read more than its model provider may learn sends it nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from models_house import House

from vestibule.boundary.models.call_rules import House as CallHouse
from vestibule.boundary.models.decisions import Decisions
from vestibule.boundary.models.providers import Upstream, upstream_for
from vestibule.boundary.models.rules import Facts
from vestibule.config.providers import Provider
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.labels import Confidentiality, Label
from vestibule.core.model import Scope
from vestibule.core.verdict import Ruling
from vestibule.policy import PolicySet

ACTOR = Actor("r0", "spiffe://example.com/run/r0/agent/a", "agent")
UPSTREAM = Upstream("cloud", "anthropic", "https://models.example.com", "m", lambda: "k")


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicySet]:
    found = PolicySet.load()
    yield found
    found.close()


async def _decided(house: House, policy: PolicySet, read: Confidentiality, clearance: Confidentiality) -> Ruling:
    crossing = Crossing(policy, house.audit)
    crossing.labels.join(Label(confidentiality=read))
    decisions = Decisions(crossing, ("m",), CallHouse(None, lambda: Scope(read=(), write=())), lambda _: None)
    verdict, intent, _ = await decisions.record(ACTOR, Facts(), None, replace(UPSTREAM, clearance=clearance), {})
    assert intent.labels.confidentiality is read
    assert verdict.ruling is Ruling.ALLOW or verdict.reasons == ("labels.model_clearance",)
    return verdict.ruling


@pytest.mark.parametrize("clearance", list(Confidentiality))
@pytest.mark.parametrize("read", list(Confidentiality))
def test_what_was_read_must_flow_to_the_provider(
    house: House, policy: PolicySet, read: Confidentiality, clearance: Confidentiality
) -> None:
    ruling = asyncio.run(_decided(house, policy, read, clearance))
    order = list(Confidentiality)
    assert (ruling is Ruling.ALLOW) == (order.index(read) <= order.index(clearance))


def test_a_provider_is_cleared_for_everything_unless_the_operator_says_otherwise() -> None:
    provider = Provider(api="anthropic", base_url="https://models.example.com")
    assert upstream_for({"cloud": provider}, "cloud", "m").clearance is Confidentiality.SECRET
    narrow = Provider(api="anthropic", base_url="https://models.example.com", clearance="internal")
    assert upstream_for({"cloud": narrow}, "cloud", "m").clearance is Confidentiality.INTERNAL
