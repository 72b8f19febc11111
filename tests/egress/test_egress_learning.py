"""Learning: what a task would need goes through the same guards, is bounded, and becomes the least that allows it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.egress.world import PYTHON, World, hello, web
from vestibule.boundary.network.learning import Learning, also_allowed, config_block, needs
from vestibule.boundary.network.limits import NetworkLimits
from vestibule.boundary.network.outside import Outside
from vestibule.boundary.network.report import EgressReport, Need, Reached
from vestibule.boundary.network.rules import learnable
from vestibule.core.errors import DependencyDown

DOCS, MORE = "docs.example.com:443", "more.example.com:443"


def test_names_that_nobody_listed_are_reached_and_told(world: World) -> None:
    with web(hello, world.authority.context) as port:
        pins = {DOCS: port, MORE: port}
        done = world.run(
            "curl -sS https://docs.example.com/a; curl -sS https://more.example.com/b; curl -sS https://more.example.com/c",
            pins,
            hosts=(DOCS,),
            learn=True,
        )
    assert done.out == "hello /a\nhello /b\nhello /c\n", done.err
    assert done.report.learned == ("more.example.com",)
    (need,) = needs(done.report)
    assert (need.key, need.programs, need.count, need.refused) == (MORE, ("curl",), 2, "")
    assert need.received > 1000
    assert any("docs.example.com" in line for line in need.also), "they shared a server"
    assert config_block([need], "fixer") == (
        'roles:\n  fixer:\n    network:\n      hosts:\n        - {host: "more.example.com:443", programs: [curl]}\n'
    )


def test_what_learning_prints_allows_what_was_learned_and_no_more(world: World) -> None:
    from vestibule.config.load import load_repo_config

    block = config_block([Need(host="more.example.com", port=443, programs=("curl",))], "fixer")
    config = load_repo_config(f'version: 1\n{block}    read: ["**"]\n'.encode(), "config.yaml")
    network = config.roles["fixer"].network
    with web(hello, world.authority.context) as port:
        done = world.run(
            "curl -sS https://more.example.com/; curl -sS https://docs.example.com/ || echo no-name; "
            f"{PYTHON} -I -c 'import urllib.request as u; u.urlopen(\"https://more.example.com/\")' 2>/dev/null"
            " || echo no",
            {MORE: port},
            hosts=network.endpoints,
            programs=network.programs,
        )
    assert done.out == "hello /\nno-name\nno\n", done.err


def test_learning_keeps_every_other_guard(world: World) -> None:
    code = (
        "import socket, ssl\n"
        "raw = socket.create_connection(('more.example.com', 443), timeout=5)\n"
        "try:\n"
        "  ssl._create_unverified_context().wrap_socket(raw, server_hostname='other.example.com'); print('through')\n"
        "except OSError: print('cut')\n"
    )
    done = world.run((PYTHON, "-I", "-c", code), {MORE: 1}, hosts=(), learn=True)
    assert done.out == "cut\n", done.err
    assert done.decided() == [(MORE, "deny", ("network.sni",))]

    async def inner(_: str, __: int) -> list[str]:
        return ["169.254.169.254"]

    done = world.run("curl -sS https://more.example.com/", {}, learn=True, outside=Outside(lookup=inner))
    assert done.decided() == [(MORE, "deny", ("network.private",))]
    (need,) = needs(done.report)
    assert need.refused == "network.private"
    assert config_block([need], "fixer") == "", "what a rule would not let through is not proposed"


def test_the_organisation_s_ceiling_holds_while_learning(world: World) -> None:
    with web(hello, world.authority.context) as port:
        done = world.run(
            "curl -sS https://docs.example.com/; curl -sS https://more.example.com/ || echo no",
            {DOCS: port, MORE: port},
            hosts=(),
            learn=True,
            ceiling=(DOCS,),
        )
    assert done.out == "hello /\nno\n", done.err
    assert done.decided() == [(DOCS, "allow", ()), (MORE, "deny", ("network.ceiling",))]


def test_learning_is_bounded_and_what_comes_after_is_a_name_that_is_not_there(world: World) -> None:
    done = world.run(
        "for n in 1 2 3 4 5; do getent hosts n$n.example.com >/dev/null && echo there || echo none; done; "
        "getent hosts localhost.local >/dev/null || echo special",
        {},
        learn=True,
        limits=NetworkLimits(learned=3),
    )
    assert done.out.split() == ["there", "there", "there", "none", "none", "special"]
    assert set(done.report.unknown) == {"n4.example.com", "n5.example.com", "localhost.local"}
    assert needs(done.report) == ()


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "localhost", "intranet", "printer.local", "context.vestibule.internal", "1.0.64.127.in-addr.arpa",
     "a_b.example.com", "x.invalid", "x.onion", "", "0x7f000001.example.0x7f"],
)  # fmt: skip
def test_what_is_no_name_of_the_outside_is_not_learned(name: str) -> None:
    assert learnable(name) is None


def test_a_sandbox_that_does_not_answer_teaches_nothing_and_leaves_no_socket() -> None:
    made: list[socket.socket] = []

    def listen(_: str, __: int) -> socket.socket:
        if len(made) == 2:
            raise DependencyDown("sandbox", "gone")
        made.append(socket.socket())
        return made[-1]

    assert asyncio.run(Learning(listen).admit("more.example.com", 3)) is None
    assert [sock.fileno() for sock in made] == [-1, -1]


def test_hosts_of_a_registry_are_proposed_as_the_registry() -> None:
    rows = tuple(
        Reached(host=host, port=443, program="/usr/bin/python3.11", verdict="allow", because="learned")
        for host in ("index.example.com", "files.example.com", "more.example.com")
    )
    report = EgressReport(mode="learn", connections=rows)
    found = needs(report, {"pip": ("index.example.com:443", "files.example.com:443")})
    assert config_block(found, "backend") == (
        "roles:\n  backend:\n    network:\n      hosts:\n"
        '        - {host: "more.example.com:443", programs: ["python3.11"]}\n'
        "      registries: [pip]\n"
    ) or "programs: [python3.11]" in config_block(found, "backend")
    assert all("any script" in " ".join(need.also) for need in found)


def test_what_else_a_rule_allows_is_said() -> None:
    words = " ".join(also_allowed("db.example.com", 5432, (), ("other.example.com",)))
    for part in ("uploads", "without TLS", "other.example.com", "any program"):
        assert part in words
