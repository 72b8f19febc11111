"""Kernel, gateway and name map say the same, or there is an alarm; and the report is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.network.report import OTHERS, EgressReport, Reached, Rows, reconcile
from vestibule.core.ports import KernelConnect

ADDRESSES = {"context.vestibule.internal": "127.64.0.1", "docs.example.com": "127.64.0.2"}
GATEWAYS = [("127.64.0.1", 80), ("127.0.0.1", 53)]


def row(count: int = 1, *, verdict: str = "allow", host: str = "docs.example.com", port: int = 443) -> Reached:
    return Reached.model_validate({"host": host, "port": port, "verdict": verdict, "count": count})


def seen(address: str = "127.64.0.2", port: int = 443, **more: object) -> KernelConnect:
    return KernelConnect.model_validate({"address": address, "port": port, "program": "/usr/bin/curl", **more})


def rules(rows: list[Reached], connects: list[KernelConnect], turned_away: int = 0) -> list[str]:
    return [alarm.rule for alarm in reconcile(rows, turned_away, ADDRESSES, connects, others=GATEWAYS)]


def test_sources_that_agree_give_no_alarm() -> None:
    assert rules([row(2), row(1, verdict="deny")], [seen(count=3), seen("127.64.0.1", 80), seen("127.0.0.1", 53)]) == []


def test_a_connection_without_a_record_is_an_alarm_that_names_the_program() -> None:
    (alarm,) = reconcile([row(1)], 0, ADDRESSES, [seen(count=2)], others=GATEWAYS)
    assert alarm.rule == "network.unrecorded"
    assert alarm.fact == "docs.example.com:443 by /usr/bin/curl: 2 seen, 1 recorded"


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.0.0.1", "169.254.169.254", "2001:db8::1", "::ffff:192.0.2.1", "no address", ""]
)
def test_a_connection_to_the_outside_that_no_gateway_made_is_an_alarm(address: str) -> None:
    assert rules([], [seen(address)]) == ["network.unrecorded"]
    assert rules([], [seen(address, protocol="udp")]) == ["network.unrecorded"]
    assert rules([], [seen(address, refused=True)]) == [], "what the kernel refused went nowhere"


def test_an_address_inside_that_was_given_to_no_name_is_an_alarm() -> None:
    assert rules([], [seen("127.64.0.9")]) == ["network.unnamed"]


def test_another_port_of_a_name_is_no_listener_of_ours() -> None:
    assert rules([], [seen(port=8443)]) == ["network.unrecorded"]


def test_a_resolver_that_sorts_what_it_found_is_no_connection() -> None:
    assert rules([row(1)], [seen(), seen(protocol="udp"), seen("127.64.0.9", 53, protocol="udp")]) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_a_program_s_own_server_inside_is_nobody_s_business(address: str) -> None:
    assert rules([], [seen(address, 8000)]) == []


def test_a_record_that_the_kernel_did_not_see_is_an_alarm() -> None:
    assert rules([row(2)], [seen()]) == ["network.unseen"]
    assert rules([row(1)], []) == ["network.unseen"]


def test_connections_that_were_turned_away_are_explained_once() -> None:
    assert rules([row(1)], [seen(count=3)], turned_away=2) == []
    assert rules([row(1)], [seen(count=4)], turned_away=2) == ["network.unrecorded"]


@given(
    st.lists(st.tuples(st.sampled_from([443, 80]), st.integers(1, 50)), max_size=6),
    st.integers(0, 5),
)
def test_no_connection_more_than_was_recorded_goes_unnoticed(done: list[tuple[int, int]], more: int) -> None:
    rows = [row(count, port=port) for port, count in done]
    connects = [seen(port=port, count=count) for port, count in done]
    assert rules(rows, connects) == []
    if more:
        assert "network.unrecorded" in rules(rows, [*connects, seen(count=more)])


def test_rows_are_counted_and_bounded() -> None:
    rows = Rows(3)
    for number in range(100):
        rows.add(row(host=f"n{number}.example.com").model_copy(update={"sent": 2}))
        rows.add(row(host="n0.example.com"))
    found = rows.all()
    assert len(found) == 4
    assert sum(item.count for item in found) == 200
    assert next(item for item in found if item.host == OTHERS).count == 97
    assert sum(item.sent for item in found) == 200


def test_the_report_in_json_says_what_was_learned_only_when_it_learned() -> None:
    assert set(EgressReport().as_json()) == {"mode", "unknown", "turned_away", "connections", "alarms"}
    assert {"learned", "config"} <= set(EgressReport(mode="learn").as_json())
