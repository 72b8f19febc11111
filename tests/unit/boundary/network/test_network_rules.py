"""Only planned names exist; everything else is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.network.rules import NetworkPlan, connect, plan, resolve
from vestibule.core.refusal import Refusal
from vestibule.core.text.names import NameRefused

GATEWAYS = ("context.vestibule.internal", "models.vestibule.internal")
KNOWN = plan(GATEWAYS)


def test_each_gateway_has_an_address_of_its_own() -> None:
    assert NetworkPlan(addresses=dict(zip(GATEWAYS, ("127.64.0.1", "127.64.0.2"), strict=True))) == KNOWN
    assert KNOWN.names == GATEWAYS


def test_addresses_stay_when_a_role_names_hosts() -> None:
    asked = plan(GATEWAYS, hosts=("docs.example.com:443",), registries=("pip",))
    assert asked.addresses == KNOWN.addresses
    assert [item.fact for item in asked.denied] == ["docs.example.com:443", "registry pip"]
    assert {item.rule for item in asked.denied} == {"network.not_carried"}


def test_a_gateway_named_twice_is_one() -> None:
    assert plan((*GATEWAYS, "CONTEXT.vestibule.internal")).names == GATEWAYS


def test_a_gateway_must_be_a_host_name() -> None:
    with pytest.raises(NameRefused):
        plan(("10.0.0.1",))


@pytest.mark.parametrize("name", [*GATEWAYS, "Models.Vestibule.Internal"])
def test_planned_names_resolve(name: str) -> None:
    assert resolve(name, KNOWN) == KNOWN.addresses[name.lower()]


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "xcontext.vestibule.internal",
        "context.vestibule.internal.example.com",
        "vestibule.internal",
        "localhost",
    ],
)
def test_other_names_do_not(name: str) -> None:
    found = resolve(name, KNOWN)
    assert isinstance(found, Refusal)
    assert found.rule == "network.host"


@pytest.mark.parametrize(
    "name", ["", "context.vestibule.internal.", "a\0b", "127.64.0.1", "0x7f400001", "ＡＢ.example.com"]
)
def test_what_is_no_name_is_refused_as_such(name: str) -> None:
    found = resolve(name, KNOWN)
    assert isinstance(found, Refusal)
    assert found.rule == "network.name"


@pytest.mark.parametrize("endpoint", ["models.vestibule.internal:80", "127.64.0.2:80"])
def test_a_planned_name_is_connected_by_name_or_by_its_address(endpoint: str) -> None:
    assert connect(endpoint, KNOWN) == "models.vestibule.internal"


@pytest.mark.parametrize(
    ("endpoint", "rule"),
    [
        ("models.vestibule.internal:443", "network.port"),
        ("models.vestibule.internal:080", "network.port"),
        ("127.64.0.2:22", "network.port"),
        ("127.64.0.3:80", "network.address"),
        ("192.0.2.1:80", "network.address"),
        ("[2001:db8::1]:80", "network.address"),
        ("example.com:80", "network.host"),
        ("example.com", "network.host"),
        ("models.vestibule.internal", "network.host"),
        ("", "network.host"),
    ],
)
def test_everything_else_is_refused_with_its_reason(endpoint: str, rule: str) -> None:
    found = connect(endpoint, KNOWN)
    assert isinstance(found, Refusal)
    assert found.rule == rule
    assert found.next.agent
    assert found.next.person


@given(st.text(max_size=60), st.text(max_size=8))
def test_no_text_is_connected_but_the_planned_endpoints(host: str, port: str) -> None:
    found = connect(f"{host}:{port}", KNOWN)
    if not isinstance(found, Refusal):
        assert port == "80"
        assert host.lower().strip("[]") in (*GATEWAYS, *KNOWN.addresses.values())
