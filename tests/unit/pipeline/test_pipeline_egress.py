"""What the pipeline makes of the network: alarms are recorded and hold, registries are the operator's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.control_world import World

from vestibule.boundary.network.report import Alarm, EgressReport, Need
from vestibule.config.schema import OperatorConfig
from vestibule.core.errors import Refused
from vestibule.core.ports import KernelConnect
from vestibule.core.verdict import Ruling
from vestibule.pipeline.egress import egress_findings, egress_report, may_learn
from vestibule.pipeline.registries import _asked, read, registries_of


class Played:
    """A gateway whose report is given."""

    def __init__(self, report: EgressReport) -> None:
        self.found = report
        self.given: Any = None

    def report(self, connects: Any) -> EgressReport:
        self.given = connects
        return self.found


ALARM = Alarm(rule="network.unrecorded", fact="tcp 192.0.2.1:443 by /usr/bin/curl")


def test_a_connection_that_nobody_recorded_is_in_the_log_and_holds_the_change(world: World) -> None:
    gateway: Any = Played(EgressReport(alarms=(ALARM,)))
    seen = (KernelConnect(address="192.0.2.1", port=443),)
    report = egress_report(world.services, world.record, gateway, seen)
    assert gateway.given == seen
    (event,) = world.events("host.connect")
    assert (event.verdict, event.reasons, event.resource) == (Ruling.HOLD, ("network.unrecorded",), ALARM.fact)
    (finding,) = egress_findings(world.record.model_copy(update={"network": report}))
    assert (finding.rule, finding.verdict) == ("network.unrecorded", Ruling.HOLD)
    assert ALARM.fact in finding.message


def test_a_change_made_with_names_that_nobody_listed_is_held_and_says_which(world: World) -> None:
    needs = (
        Need(host="a.example.com", port=443, programs=("git",)),
        Need(host="b.example.com", port=443, programs=(), refused="network.sni"),
    )
    record = world.record.model_copy(update={"network": EgressReport(mode="learn", needs=needs)})
    (finding,) = egress_findings(record)
    assert (finding.rule, finding.verdict) == ("network.learned", Ruling.HOLD)
    assert "a.example.com:443" in finding.message
    assert "b.example.com" not in finding.message
    assert egress_findings(world.record) == ()


def test_only_the_operator_lets_a_run_learn() -> None:
    with pytest.raises(Refused) as caught:
        may_learn(OperatorConfig())
    assert caught.value.exit_code == 4
    may_learn(OperatorConfig.model_validate({"network": {"learn": True}}))


@pytest.fixture
def client(tmp_path: Path) -> dict[str, str]:
    """An environment in which npm and go are programs that answer from a file."""
    for name in ("npm", "go"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.answer\n")
        program.chmod(0o755)
    (tmp_path / "npm.answer").write_text("https://person:word@packages.example.com:8443/npm/?token=word\n")
    (tmp_path / "go.answer").write_text("https://proxy.example.com,direct\nsums.example.com+abc+def\n")
    _asked.cache_clear()
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_the_operator_s_client_says_where_a_registry_is_and_no_credential_goes_inside(client: dict[str, str]) -> None:
    found = registries_of(("npm", "go", "cargo"), {}, client)
    assert found["npm"].hosts == ("packages.example.com:8443",)
    assert found["npm"].env == {"npm_config_registry": "https://packages.example.com:8443/npm/"}
    assert found["go"].hosts == ("proxy.example.com:443", "sums.example.com:443")
    assert found["go"].env == {"GOPROXY": "https://proxy.example.com", "GOSUMDB": "sums.example.com"}
    assert "cargo" not in found, "its client cannot be asked"
    assert "word" not in str(found)


def test_what_the_operator_lists_comes_before_what_the_client_says(client: dict[str, str]) -> None:
    found = registries_of(("npm",), {"npm": ("https://mirror.example.com/npm", "files.example.com:8080")}, client)
    assert found["npm"].hosts == ("mirror.example.com:443", "files.example.com:8080")
    assert found["npm"].env == {"npm_config_registry": "https://mirror.example.com/npm"}


def test_a_client_that_fails_leaves_its_registry_closed(client: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "npm.answer").unlink()
    assert registries_of(("npm",), {}, client) == {}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "pip",
            "global.index-url='https://i.example.com/simple'\nglobal.extra-index-url='https://x.example.com/s'\n",
            {
                "PIP_INDEX_URL": "https://i.example.com/simple",
                "UV_DEFAULT_INDEX": "https://i.example.com/simple",
                "PIP_EXTRA_INDEX_URL": "https://x.example.com/s",
                "UV_INDEX": "https://x.example.com/s",
            },
        ),
        ("pip", "built-in https://i.example.com/simple https://files.example.com\n", {}),
        ("npm", "https://p.example.com/$(id)/\n", {}),
        ("npm", "p.example.com:443\n", {}),
    ],
)
def test_the_client_inside_is_pointed_at_the_same_index(name: str, text: str, expected: dict[str, str]) -> None:
    assert read(name, text).env == expected


def test_clients_with_files_get_files() -> None:
    assert b'registry = "sparse+https://c.example.com/index/"' in read("cargo", "https://c.example.com/index").files[
        ".cargo/config.toml"
    ]  # fmt: skip
    assert b"<url>https://m.example.com/maven</url>" in read("maven", "https://m.example.com/maven").files[
        ".m2/settings.xml"
    ]  # fmt: skip
