"""Whole runs whose agent uses the network: by the role's names, recorded, held, learned, and closed when it breaks."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, Done, House
from tests.egress.world import Authority, hello, plain, python_index, web

EDIT = "echo '#' >> src/app.py"
Rule = Callable[[str], House]

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "outside").mkdir()
    return Authority(tmp_path / "outside")


@pytest.fixture
def port(authority: Authority) -> Iterator[int]:
    with web(hello, authority.context) as found:
        yield found


@pytest.fixture
def reaching(make_house: Callable[[str], House], authority: Authority) -> Rule:
    """A house whose role has this `network`; the authority's certificate is in the repository."""

    def make(network: str) -> House:
        house = make_house(
            CONFIG.replace('    commands: ["python3"]\n', f"    commands: [python3]\n    network: {network}\n")
        )
        house.commit({"src/authority.txt": authority.certificate.read_bytes()})
        return house

    return make


def curl(*urls: str) -> str:
    return "; ".join(f"curl -sS --cacert src/authority.txt {url}" for url in urls)


def connections(done: Done) -> list[tuple[str, str, str]]:
    """(subject, resource, verdict) of every connection that was decided about."""
    return [
        (event["subject"], event["resource"], event["verdict"])
        for event in done.json["events"]
        if event["action"] == "network.connect" and event["phase"] == "intent"
    ]


def test_a_role_s_host_is_reached_and_no_other_name(reaching: Rule, port: int) -> None:
    house = reaching('{hosts: ["docs.example.com:443"]}')
    pins = {"docs.example.com:443": f"127.0.0.1:{port}", "other.example.com:443": f"127.0.0.1:{port}"}
    house.operate(f"network: {{pins: {json.dumps(pins)}}}\n")
    agent = f"{curl('https://docs.example.com/page')} > src/page.txt; {curl('https://other.example.com/')}; {EDIT}"
    done = house.change(agent)
    assert done.code == 3, done.err
    run = done.json
    assert house.git("show", f"{run['branch']}:src/page.txt") == "hello /page"
    assert connections(done) == [
        ("probe", "docs.example.com:443", "deny"),
        ("agent", "docs.example.com:443", "allow"),
    ]
    (outcome,) = [
        event for event in run["events"] if event["action"] == "network.connect" and event["phase"] == "outcome"
    ]
    assert outcome["details"]["received"] > 500
    assert outcome["details"]["address"] == "127.0.0.1"
    asked = [event["resource"] for event in run["events"] if event["action"] == "network.resolve"]
    assert asked[0].endswith(".invalid")
    assert asked[1:] == ["other.example.com"]
    (row,) = run["egress"]["connections"]
    assert (row["host"], row["verdict"], row["count"]) == ("docs.example.com", "allow", 1)
    assert run["egress"]["unknown"]["other.example.com"] >= 1
    shown = house.vestibule("show", run["run"])
    assert "docs.example.com:443: 1 connection" in shown.out
    verified = house.vestibule("audit", "verify", "--repo", str(house.repo), "--json")
    assert verified.json["ok"] is True


def test_what_the_role_names_and_the_organisation_does_not_allow_is_said_and_not_there(reaching: Rule) -> None:
    house = reaching('{hosts: ["docs.example.com:443"], registries: [cargo]}')
    house.operate("network: {hosts: []}\n")
    done = house.change(f"getent hosts docs.example.com && exit 1; {EDIT}")
    assert done.code == 3, done.err
    assert "docs.example.com:443" in done.err
    assert "registry cargo" in done.err
    assert connections(done) == []


def test_a_run_that_read_what_nobody_vouches_for_sends_nothing_without_a_person(reaching: Rule, port: int) -> None:
    house = reaching('{hosts: ["docs.example.com:443"]}')
    pins = json.dumps({"docs.example.com:443": f"127.0.0.1:{port}"})
    house.operate(f"network: {{pins: {pins}}}\nlabels:\n  - {{paths: ['src/**'], integrity: outsider}}\n")
    done = house.change(f"{curl('https://docs.example.com/')} && exit 1; {EDIT}")
    assert done.code == 3, done.err
    assert connections(done)[1:] == [("agent", "docs.example.com:443", "hold")]
    held = next(e for e in done.json["events"] if e["verdict"] == "hold" and e["action"] == "network.connect")
    assert held["reasons"] == ["labels.rule_of_two"]


def test_what_comes_in_carries_the_operator_s_label_before_a_byte_of_it(reaching: Rule, port: int) -> None:
    house = reaching('{hosts: ["docs.example.com:443"]}')
    pins = json.dumps({"docs.example.com:443": f"127.0.0.1:{port}"})
    house.operate(f"network: {{pins: {pins}, integrity: web}}\n")
    done = house.change(f"{curl('https://docs.example.com/1', 'https://docs.example.com/2')}; {EDIT}")
    assert done.code == 3, done.err
    assert [verdict for _, _, verdict in connections(done)[1:]] == ["allow", "hold"]
    assert done.json["labels"]["integrity"] == "web"


def test_the_client_of_a_registry_finds_the_operator_s_index(reaching: Rule, authority: Authority) -> None:
    house = reaching("{registries: [pip]}")
    with web(python_index(), authority.context) as port:
        house.operate(
            "network:\n  registries: {pip: ['https://index.example.com/simple']}\n"
            f"  pins: {{'index.example.com:443': '127.0.0.1:{port}'}}\n"
        )
        python = Path(sys.base_prefix).resolve() / "bin" / "python3"
        done = house.change(
            f"{python} -m pip --cert src/authority.txt install -q --disable-pip-version-check --target /tmp/x"
            f" vestibule-demo && PYTHONPATH=/tmp/x {python} -c 'import vestibule_demo as d; print(d.WORDS)' > src/words"
        )
    assert done.code == 3, done.err
    assert house.git("show", f"{done.json['branch']}:src/words") == "from the index"


def test_learning_needs_the_operator_s_word(reaching: Rule) -> None:
    house = reaching("{}")
    done = house.run("--egress", "learn", "--agent", "command", "--", "true")
    assert done.code == 4
    assert done.json["reasons"] == ["network.learn"]
    assert "network.learn: true" in done.err
    assert house.vestibule("runs", "--json").json["runs"] == []


def test_learning_prints_the_least_that_allows_what_was_needed_and_holds_the_change(reaching: Rule, port: int) -> None:
    house = reaching('{hosts: ["docs.example.com:443"]}')
    pins = {"docs.example.com:443": f"127.0.0.1:{port}", "more.example.com:443": f"127.0.0.1:{port}"}
    house.operate(f"network: {{learn: true, pins: {json.dumps(pins)}}}\n")
    agent = f"{curl('https://docs.example.com/', 'https://more.example.com/')} >> src/app.py"
    argv = ("--egress", "learn", "--agent", "command", "--", "sh", "-c", agent)
    done = house.run(*argv)
    assert done.code == 3, done.err
    egress = done.json["egress"]
    assert egress["mode"] == "learn"
    (need,) = egress["learned"]
    assert (need["host"], need["port"], need["programs"]) == ("more.example.com", 443, ["curl"])
    assert need["also"]
    assert egress["config"].splitlines()[-1].strip() == '- {host: "more.example.com:443", programs: [curl]}'
    assert [item["rule"] for item in done.json["findings"]] == ["network.learned"]
    said = house.vestibule("run", house.ticket(), "--repo", str(house.repo), *argv)
    assert said.code == 3, said.err
    assert '- {host: "more.example.com:443", programs: [curl]}' in said.out
    assert "more.example.com:443 by curl" in said.out
    assert "would also allow" in said.out


_HOOK = """
import sys, importlib.abc
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "vestibule.pipeline.live_guards":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            original = module.prove
            def prove(*a, **k):
                original(*a, **k)
                import gc, threading
                from vestibule.pipeline.hosting import GatewayHost
                host = next(o for o in gc.get_objects() if isinstance(o, GatewayHost))
                threading.Timer(1.0, host.kill, ("network",)).start()
            module.prove = prove
        spec.loader.exec_module = exec_module
        return spec
import importlib.util
sys.meta_path.insert(0, Finder())
"""


def test_an_egress_gateway_that_ends_in_the_middle_of_a_transfer_ends_the_run(reaching: Rule, tmp_path: Path) -> None:
    def endless(client: socket.socket) -> None:
        while True:
            client.sendall(b"x" * 1000)
            time.sleep(0.01)  # a transfer that is under way

    house = reaching('{hosts: ["db.example.com:5432"]}')
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(_HOOK)
    with plain(endless) as port:
        house.operate(f"network: {{pins: {{'db.example.com:5432': '127.0.0.1:{port}'}}}}\n")
        began = time.monotonic()
        done = house.change(
            f"{EDIT}; exec 3<>/dev/tcp/db.example.com/5432; cat <&3 >/dev/null; sleep 60".join(["bash -c '", "'"])
            .replace("'#'", '"#"'),
            env={"PYTHONPATH": str(patch.parent)},
        )  # fmt: skip
    assert done.code == 4, (done.code, done.err)
    assert time.monotonic() - began < 40
    assert done.json["reasons"] == ["dependency.gateway"]
    assert "network" in done.json["refusals"][-1]["reason"]
    assert not done.json["head_commit"]
