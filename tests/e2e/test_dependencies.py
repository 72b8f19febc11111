"""Break each dependency in turn: refused (exit 4, `dependency.<name>`) or resumed, clearly said; nothing lost."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import HOOK, Done, House, without_monitor


def refused(done: Done, dependency: str) -> None:
    """The contract for a dependency that is down."""
    assert done.code == 4, (done.code, done.err, done.out)
    rules = [item["rule"] for item in done.json["refusals"]]
    assert f"dependency.{dependency}" in rules, rules
    item = next(item for item in done.json["refusals"] if item["rule"] == f"dependency.{dependency}")
    assert item["reason"]
    assert item["next"]["person"]
    assert "Traceback" not in done.err


def test_unreadable_policy_bundle_refuses(house: House) -> None:
    house.operate(f"policy: [{str(house.folder / 'no-such-policy')!r}]\n")
    refused(house.change(), "policy")


def test_broken_policy_bundle_refuses(house: House) -> None:
    folder = house.folder / "policy"
    folder.mkdir()
    (folder / "org.rego").write_text("package vestibule\n\nimport rego.v1\n\ndecision := {{{\n")
    house.operate(f"policy: [{str(folder)!r}]\n")
    done = house.change()
    assert done.code in (2, 4), done.err
    assert "org.rego" in done.err


def test_organisation_policy_tightens_a_run(house: House) -> None:
    folder = house.folder / "policy"
    folder.mkdir()
    (folder / "org.rego").write_text(
        "package vestibule\n\nimport rego.v1\n\n"
        'default decision := {"verdict": "allow", "reasons": []}\n\n'
        'decision := {"verdict": "deny", "reasons": ["org.no_runs"]} if input.action == "task.admit"\n'
    )
    house.operate(f"policy: [{str(folder)!r}]\n")
    done = house.change()
    assert done.code == 4, done.err
    assert done.json["state"] == "refused"
    assert "org.no_runs" in done.json["reasons"] + [item["rule"] for item in done.json["refusals"]]


def test_full_audit_disk_refuses(house: House) -> None:
    """A file system of one megabyte that something else has filled."""
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    audit = house.home / "audit"
    audit.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(audit)], check=True)
    try:
        first = house.change()
        assert first.code == 3, first.err
        _fill(audit)
        done = house.change()
        refused(done, "audit")
        assert not house.git("branch", "--list", f"vestibule/{done.json.get('run', 'none')}")
        (audit / "filler").unlink()
        after = house.change()
        assert after.code == 3, after.err
        assert house.vestibule("audit", "verify", "--json").code == 0
    finally:
        subprocess.run(["umount", str(audit)], check=True)


def test_unusable_audit_key_refuses(house: House) -> None:
    assert house.change().code == 3
    for path in (house.home / "audit").iterdir():
        if "key" in path.name:
            path.write_bytes(b"not a key\n")
    refused(house.change(), "audit")


def test_locked_database_refuses(house: House) -> None:
    assert house.change().code == 3
    with _locked(house.home / "vestibule.db"):
        refused(house.change(), "database")
    assert house.change().code == 3
    assert house.vestibule("audit", "verify", "--json").code == 0


def test_damaged_database_refuses(house: House) -> None:
    assert house.change().code == 3
    for name in ("vestibule.db", "vestibule.db-wal", "vestibule.db-shm"):
        path = house.home / name
        if path.exists():
            path.write_bytes(b"garbage" * 2000)
    refused(house.change(), "database")


def test_missing_bubblewrap_refuses(house: House) -> None:
    """With bwrap hidden by an empty file mounted over it, in a mount namespace of this test's own."""
    if os.geteuid() != 0:
        pytest.skip("hiding a program needs root")
    empty = house.folder / "empty"
    empty.write_bytes(b"")
    bwrap = subprocess.run(["which", "bwrap"], capture_output=True, text=True, check=True).stdout.strip()
    house.ticket()
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'mount --bind {empty} {bwrap} && exec "$@"',
            "sh",
            str(Path(os.sys.executable).with_name("vestibule")),  # type: ignore[attr-defined]
            *("run", str(house.folder / "ticket.md"), "--repo", str(house.repo), "--json"),
            *("--agent", "command", "--", "true"),
        ],
        env=house.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = Done(done.returncode, done.stdout, done.stderr)
    assert found.code == 4, (found.out, found.err)
    rules = [item["rule"] for item in found.json["refusals"]]
    assert any(rule.startswith(("dependency.sandbox", "dependency.walls", "task.walls")) for rule in rules), rules
    assert not [event for event in found.json.get("events", []) if event["action"] == "agent.start"]


def test_missing_wall_refuses(house: House, tmp_path: Path) -> None:
    house.operate(sandbox=", minimum: [mounts, network, seccomp, no_new_privs, monitor]")
    done = house.change(env=without_monitor(tmp_path))
    assert done.code == 4, done.err
    assert "task.walls" in [item["rule"] for item in done.json["refusals"]] + done.json["reasons"]
    assert not [event for event in done.json["events"] if event["action"] == "agent.start"]


@pytest.mark.parametrize("crossing", ["context", "models", "network", "changes"])
def test_dead_guard_refuses(house: House, crossing: str, tmp_path: Path) -> None:
    """A guard that lets its forbidden call through: patched in the child, as a broken build would be."""
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(_DEAD[crossing])
    done = house.change(env={"PYTHONPATH": str(patch.parent)})
    assert done.code == 4, (done.err, done.out)
    rules = [item["rule"] for item in done.json["refusals"]]
    # A network that lets the machine-wide probe out fails even earlier, at admission.
    assert rules[0] in ("dependency.guard", "dependency.changes", "task.walls"), rules
    assert not [event for event in done.json["events"] if event["action"] == "agent.start"]


_DEAD = {
    "context": HOOK.format(
        module="vestibule.boundary.context.canary", patch="module.forbidden_call = lambda *a, **k: None"
    ),
    "models": HOOK.format(
        module="vestibule.boundary.models.canary", patch="module.forbidden_call = lambda *a, **k: None"
    ),
    "network": HOOK.format(
        module="vestibule.sandbox.local.backend",
        patch="sys.modules['vestibule.sandbox.local.running'].Running.probe_egress = "
        "lambda self: {'192.0.2.1:443': 'connected'}",
    ),
    "changes": HOOK.format(module="vestibule.boundary.changes.gateway", patch="module.examine = lambda *a, **k: ()"),
}


def test_killed_gateway_ends_the_run(house: House, tmp_path: Path) -> None:
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(
        HOOK.format(
            module="vestibule.pipeline.live_guards",
            patch="original = module.prove\n"
            "            def prove(*a, **k):\n"
            "                original(*a, **k)\n"
            "                import threading, gc\n"
            "                from vestibule.pipeline.hosting import GatewayHost\n"
            "                host = next(o for o in gc.get_objects() if isinstance(o, GatewayHost))\n"
            "                threading.Timer(0.5, host.kill, ('context',)).start()\n"
            "            module.prove = prove",
        )
    )
    started = time.monotonic()
    done = house.change("echo '#' >> src/app.py; sleep 60", env={"PYTHONPATH": str(patch.parent)})
    assert time.monotonic() - started < 40, "the sandbox dies with its gateway"
    refused(done, "gateway")
    assert not done.json["head_commit"]


def test_provider_down_is_refused(house: House) -> None:
    house.operate(
        'models:\n  dead: {api: anthropic, base_url: "http://127.0.0.1:9", key: {env: DEAD_KEY}, models: ["*"]}\n'
    )
    done = house.run("--agent", "demo", env={"DEAD_KEY": "k" * 20})
    refused(done, "provider")
    failed = [
        event for event in done.json["events"] if event["action"] == "model.request" and event["result"] == "failed"
    ]
    assert failed
    assert done.json["usage"]["cost_nano_usd"] == 0
    assert "dependency.provider" in str(failed)


def test_missing_provider_key_refuses(house: House) -> None:
    house.operate(
        "models:\n"
        '  real: {api: anthropic, base_url: "https://models.example.com", key: {env: NO_SUCH_KEY}, models: ["*"]}\n'
    )
    refused(house.run("--agent", "demo"), "provider_key")


def test_missing_git_refuses(house: House, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("hiding a program needs root")
    empty = tmp_path / "nothing"
    empty.write_bytes(b"")
    git = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    house.ticket()
    script = f'mount --bind {empty} {git} && exec "$@"'
    vestibule = str(Path(os.sys.executable).with_name("vestibule"))  # type: ignore[attr-defined]
    argv = [
        "run",
        str(house.folder / "ticket.md"),
        "--repo",
        str(house.repo),
        "--json",
        "--agent",
        "command",
        "--",
        "true",
    ]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", vestibule, *argv],
        env=house.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    refused(Done(done.returncode, done.stdout, done.stderr), "git")


def test_unwritable_state_folder_refuses(house: House) -> None:
    house.home.write_text("a file where the folder should be")
    done = house.change()
    assert done.code == 4
    assert "dependency.state" in done.out


def test_review_key_open_to_others_refuses(house: House) -> None:
    run = house.change().json
    for path in (house.home / "keys").iterdir():
        path.chmod(path.stat().st_mode | stat.S_IROTH | stat.S_IWOTH)
    done = house.vestibule("review", run["run"], "--approve", "--reason", "Go.", "--json")
    assert done.code == 4, done.err
    assert house.git("rev-parse", "main") == run["base_commit"]


def test_audit_log_lost_during_the_run_stops_the_agent(house: House) -> None:
    """The disk fills while the agent works: its calls are denied from then on, and no event is lost or doubled."""
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    audit = house.home / "audit"
    audit.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(audit)], check=True)
    house.script(
        "".join(
            f"  - {{latency_ms: 300, tools: [{{name: write_file, input: {{path: src/n{n}.py, content: 'x'}}}}]}}\n"
            for n in range(20)
        )
        + "  - {text: Done.}\n"
    )

    def fill() -> None:
        deadline = time.monotonic() + 60
        while not list((house.home / "runs").glob("*/attempt-*/*/workspace/src/n2.py")) and time.monotonic() < deadline:
            time.sleep(0.05)
        _fill(audit)

    filler = threading.Thread(target=fill)
    filler.start()
    try:
        done = house.run("--agent", "demo")
        filler.join()
        assert done.code == 4, (done.out[-500:], done.err)
        assert "dependency.audit" in done.out + done.err
        (audit / "filler").unlink()
        shown = house.vestibule("runs", "--json").json["runs"][0]
        assert shown["state"] == "refused"
        assert house.vestibule("audit", "verify", "--json").code == 0
    finally:
        subprocess.run(["umount", str(audit)], check=True)


def _fill(folder: Path) -> None:
    """Leave no room in the file system of `folder`."""
    descriptor = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 16, 1 << 12, 1 << 9, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, bytes(size))
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_an_agent_that_asks_without_end_is_stopped(house: House, tmp_path: Path) -> None:
    patch = tmp_path / "patch" / "sitecustomize.py"
    patch.parent.mkdir()
    patch.write_text(
        HOOK.format(module="vestibule.pipeline.flood", patch="module.BoundedSink.__init__.__kwdefaults__['most'] = 25")
    )
    ask = (
        "import os, urllib.request as u\n"
        "while True:\n"
        "    try:\n"
        "        url = os.environ['VESTIBULE_MODELS_URL'] + '/anthropic/v1/messages'\n"
        "        u.urlopen(u.Request(url, b'{}', {'x-api-key': os.environ['VESTIBULE_TASK_TOKEN']})).read()\n"
        "    except u.HTTPError:\n"
        "        pass\n"
    )
    house.commit({"src/ask.py": ask})
    done = house.change("python3 src/ask.py", env={"PYTHONPATH": str(patch.parent)})
    assert done.code == 4, (done.err, done.out[-500:])
    assert "run.decisions" in [item["rule"] for item in done.json["refusals"]]
    assert done.json["decisions"]["deny"] == 25
