"""Only planned names exist; everything else is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.network.rules import NetworkPlan, connect, name_rule, plan, program_rule, resolve
from vestibule.boundary.network.wire.client_hello import NotAHello
from vestibule.core.refusal import Refusal
from vestibule.core.text.names import NameRefused

GATEWAYS = ("context.vestibule.internal", "models.vestibule.internal")
KNOWN = plan(GATEWAYS)


def test_each_gateway_has_an_address_of_its_own() -> None:
    assert NetworkPlan(addresses=dict(zip(GATEWAYS, ("127.64.0.1", "127.64.0.2"), strict=True))) == KNOWN
    assert KNOWN.names == GATEWAYS


def test_hosts_and_registries_get_addresses_after_the_gateways() -> None:
    asked = plan(
        GATEWAYS,
        hosts=("Docs.example.com:443", "docs.example.com:8443", "git.example.com:22"),
        registries=("pip",),
        registry_hosts={"pip": ("packages.example.com:443",)},
    )
    assert asked.names == KNOWN.names
    assert asked.addresses == {
        **KNOWN.addresses,
        "docs.example.com": "127.64.0.3",
        "git.example.com": "127.64.0.4",
        "packages.example.com": "127.64.0.5",
    }
    assert [(rule.key, rule.because, rule.tls) for rule in asked.rules] == [
        ("docs.example.com:443", "hosts", True),
        ("docs.example.com:8443", "hosts", True),
        ("git.example.com:22", "hosts", False),
        ("packages.example.com:443", "registry pip", True),
    ]
    assert asked.denied == ()


def test_what_cannot_be_carried_is_said() -> None:
    asked = plan(GATEWAYS, hosts=("10.0.0.1:443", "models.vestibule.internal:443"), registries=("npm",))
    assert asked.rules == ()
    assert [item.rule for item in asked.denied] == ["network.registry", "network.name", "network.gateway"]


def test_the_organisation_s_ceiling_holds_for_hosts() -> None:
    asked = plan(GATEWAYS, hosts=("a.example.com:443", "b.example.com:443"), ceiling=("A.example.com:443",))
    assert [rule.key for rule in asked.rules] == ["a.example.com:443"]
    assert [(item.rule, item.fact) for item in asked.denied] == [("network.ceiling", "b.example.com:443")]


HOSTS = plan(GATEWAYS, hosts=("docs.example.com:443",), programs={"docs.example.com:443": ("git",)})
RULE = HOSTS.rules[0]


def test_a_listed_endpoint_is_connected_and_no_other_port_of_it() -> None:
    assert connect("docs.example.com:443", HOSTS) == "docs.example.com"
    assert connect("127.64.0.3:443", HOSTS) == "docs.example.com"
    found = connect("docs.example.com:80", HOSTS)
    assert isinstance(found, Refusal)
    assert found.rule == "network.port"


@pytest.mark.parametrize(
    ("hello", "rule"),
    [
        ("docs.example.com", ""),
        ("evil.example.com", "network.sni"),
        ("docs.example.com.evil.example", "network.sni"),
        (None, "network.sni"),
        (NotAHello("network.tls", "no"), "network.tls"),
    ],
)
def test_the_handshake_names_exactly_the_host(hello: str | NotAHello | None, rule: str) -> None:
    assert name_rule(RULE, hello) == rule


@pytest.mark.parametrize(
    ("programs", "rule"),
    [
        (("/usr/bin/git",), ""),
        (("/usr/lib/git-core/git-remote-https", "/usr/bin/git"), ""),
        (("/usr/bin/git2.39",), ""),
        (("/usr/bin/node",), "network.program"),
        (("/usr/bin/git", "/usr/bin/node"), "network.program"),
        (("/usr/bin/digit",), "network.program"),
        (("/usr/bin/gitx",), "network.program"),
        (("/workspace/git",), "network.program"),
        (("/tmp/bin/git",), "network.program"),
        (("/home/agent/.local/bin/git",), "network.program"),
        (("git",), "network.program"),
        ((), "network.program"),
    ],
)
def test_a_rule_for_a_program_is_for_no_other(programs: tuple[str, ...], rule: str) -> None:
    assert program_rule(RULE, programs) == rule
    assert program_rule(RULE.model_copy(update={"programs": ()}), programs) == ""


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
