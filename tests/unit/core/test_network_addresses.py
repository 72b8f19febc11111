"""A name of the outside never leads back inside."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.core.text.addresses import choose, reaches_outside

INSIDE = [
    "127.0.0.1",
    "127.64.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fc00::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "no address",
    "",
    "0x7f000001",
]


@pytest.mark.parametrize("text", INSIDE)
def test_inner_addresses_are_refused_in_every_dress(text: str) -> None:
    assert not reaches_outside(text)


@pytest.mark.parametrize("text", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"])
def test_global_addresses_pass(text: str) -> None:
    assert reaches_outside(text)


def test_only_the_exact_host_that_the_operator_lists_may_lead_inside() -> None:
    found = ("10.0.0.1", "1.1.1.1")
    assert choose(found, private=False) == ("1.1.1.1",)
    assert choose(found, private=True) == found


@given(st.ip_addresses(v=4))
def test_what_ipv6_carries_is_judged_like_itself(address: ipaddress.IPv4Address) -> None:
    plain = reaches_outside(str(address))
    for dress in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert not reaches_outside(dress) or plain
