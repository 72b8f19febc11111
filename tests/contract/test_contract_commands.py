"""How commands end and what they print where: exit codes, one object on stdout, help that costs nothing."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.contract.conftest import Lived
from tests.e2e.conftest import CONFIG, Done, House, build_house, without_monitor
from vestibule.cli.main import COMMANDS, LazyGroup, cli

CONTRACT = {
    *("init", "doctor", "run", "resume", "cancel", "runs", "show"),
    *("review", "check", "sandbox", "policy", "audit", "cost"),
}
"""Commands of the outside contract that exist by now."""

SUBCOMMANDS = {"sandbox": ["exec"], "audit": ["verify", "show", "export"], "policy": ["test", "lint", "explain"]}


# --- names and help ---------------------------------------------------------------------------------------


def test_every_command_of_the_contract_is_there() -> None:
    assert set(COMMANDS) >= CONTRACT
    group = cli
    assert isinstance(group, LazyGroup)
    for name, below in SUBCOMMANDS.items():
        found = group.get_command(click.Context(group), name)
        assert isinstance(found, click.Group)
        assert set(below) <= set(found.list_commands(click.Context(found))), name


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_that_fits_a_terminal(name: str) -> None:
    runner = CliRunner()
    calls = [[name], *([name, sub] for sub in SUBCOMMANDS.get(name, []))]
    for argv in calls:
        done = runner.invoke(cli, [*argv, "--help"], terminal_width=80)
        assert done.exit_code == 0, (argv, done.output)
        assert done.output.startswith("Usage: ")
        assert max(map(len, done.output.splitlines())) <= 80, argv


OPTIONS = {
    "run": ["--repo", "--base", "--role", "--agent", "--model", "--json"],
    "review": ["--approve", "--request-changes", "--reject", "--reason", "--json"],
    "check": ["--repo", "--base", "--head", "--role", "--json", "--sarif"],
    "doctor": ["--json"],
    "runs": ["--json"],
    "show": ["--json"],
    "cost": ["--by", "--json"],
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_every_option_of_the_contract_is_there(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)  # type: ignore[attr-defined]
    found = {option for parameter in command.params for option in parameter.opts}
    assert set(OPTIONS[name]) <= found


HEAVY = ("sqlalchemy", "dbos", "mcp", "aiohttp", "uvicorn", "starlette", "cryptography", "regopy", "genai_prices")

PROBE = """\
import os, sys
from vestibule.cli import main as module
def leave(code):
    heavy = [name for name in {heavy!r} if name in sys.modules]
    sys.stderr.write("HEAVY " + " ".join(heavy) + "\\n")
    sys.stderr.flush()
    os._exit(code)
module.leave = leave
sys.argv = ["vestibule", *{argv!r}]
module.main()
"""


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["run", "--help"], ["show", "--help"], ["check"], ["x"]])
def test_help_and_check_import_nothing_heavy(lived: Lived, argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY, argv=argv)],
        cwd=lived.house.repo,
        env=lived.house.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "HEAVY \n" in done.stderr, done.stderr[-300:]


def test_an_unknown_command_suggests_the_nearest(lived: Lived) -> None:
    done = lived.house.vestibule("chekc")
    assert done.code == 2
    assert "'check'" in done.err
    assert not done.out
    assert "--help" in lived.house.vestibule("zzzzzz").err


# --- one object on stdout ---------------------------------------------------------------------------------


def only_object(done: Done) -> dict[str, object]:
    """stdout is exactly one JSON object; words are on stderr."""
    found, end = json.JSONDecoder().raw_decode(done.out)
    assert isinstance(found, dict)
    assert done.out[end:] == "\n"
    assert "\x1b" not in done.out
    assert "Traceback" not in done.err
    return found


JSON_CALLS = [
    ("runs --json", 0),
    ("show {run} --json", 0),
    ("cost --json", 0),
    ("doctor --json", 0),
    ("audit verify --json", 0),
    ("audit show --json", 0),
    ("check --repo repo --json", 0),
    ("check --repo repo --sarif", 0),
    ("sandbox exec --repo repo --json -- true", 0),
    ("resume {run} --json", 3),
    ("show nothing --json", 2),
    ("resume nothing --json", 2),
    ("cancel nothing --json", 2),
    ("review nothing --approve --reason x --json", 2),
    ("review {run} --approve --json", 2),
    ("review {run} --reason x --json", 2),
    ("run --json", 2),
    ("run nothing.md --repo repo --json -- true", 2),
    ("run ticket.md --repo nowhere --json -- true", 2),
    ("check --repo nowhere --json", 2),
    ("check --repo repo --base nothing --json", 2),
    ("sandbox exec --repo nowhere --json -- true", 2),
    ("audit verify nowhere --json", 2),
    ("cost --by nothing --json", 2),
]


@pytest.mark.parametrize(("call", "code"), JSON_CALLS, ids=[call for call, _ in JSON_CALLS])
def test_json_prints_exactly_one_object_whatever_happens(lived: Lived, call: str, code: int) -> None:
    done = lived.house.vestibule(*shlex.split(call.format(run=lived.run)))
    assert done.code == code, (done.out, done.err)
    found = only_object(done)
    if code == 2:
        error = found["error"]
        assert isinstance(error, dict)
        assert error["what"]
        assert done.err.strip()


def test_progress_goes_to_stderr(lived: Lived) -> None:
    only_object(lived.done)
    assert lived.run in lived.done.err
    assert "\x1b" not in lived.done.err, "plain lines where stderr is no terminal"


def test_words_for_people_never_hold_json_and_fit(lived: Lived) -> None:
    for call in (f"show {lived.run}", "runs", "cost", "doctor", "audit verify", "check --repo repo"):
        done = lived.house.vestibule(*call.split(), env={"COLUMNS": "80"})
        assert done.code == 0, (call, done.err)
        assert not done.out.lstrip().startswith("{")
        wide = [line for line in done.out.splitlines() if len(line) > 80 and "vestibule review" not in line]
        assert wide == [], call


def test_into_a_pipe_nothing_is_cut(lived: Lived) -> None:
    done = lived.house.vestibule("show", lived.run)
    assert lived.object["agent"]["version"] in done.out
    assert "…" not in done.out.replace("'…'", "")


# --- exit codes -------------------------------------------------------------------------------------------


def test_0_done_as_asked(lived: Lived) -> None:
    assert lived.house.vestibule("check", "--repo", str(lived.house.repo)).code == 0


def test_1_is_only_ever_our_own_bug(lived: Lived, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import vestibule.pipeline.reader as module\n"
        "def broken(self):\n    raise ZeroDivisionError('division by zero')\n"
        "module.Reader.list_runs = broken\n"
    )
    env = {"PYTHONPATH": str(tmp_path), "VESTIBULE_TRACEBACK": ""}
    done = lived.house.vestibule("runs", "--json", env=env)
    assert done.code == 1
    assert "internal error" in str(only_object(done)["error"])
    assert "VESTIBULE_TRACEBACK=1" in done.err


def test_2_usage_and_configuration(lived: Lived) -> None:
    assert lived.house.vestibule("show", "nothing").code == 2
    assert lived.house.vestibule("runs", env={"VESTIBULE_CONFIG": "/nonexistent/config.yaml"}).code == 2


def test_3_a_person_must_decide(lived: Lived) -> None:
    assert lived.done.code == 3
    assert lived.object["state"] == "awaiting_review"


def test_4_refused(lived: Lived) -> None:
    house = lived.house
    house.git("checkout", "-q", "-b", "worse")
    house.commit({"deploy/prod.yaml": "replicas: 9\n"})
    house.git("checkout", "-q", "main")
    assert house.vestibule("check", "--repo", str(house.repo), "--head", "worse").code == 4
    refused = house.change("mkdir -p src/.claude; echo '{}' > src/.claude/settings.json")
    assert refused.code == 4
    assert only_object(refused)["state"] == "refused"


def test_4_a_dependency_that_is_down(lived: Lived, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    done = lived.house.vestibule("runs", "--json", env={"VESTIBULE_HOME": str(tmp_path / "home")})
    assert done.code == 4
    assert only_object(done)["reasons"] == ["dependency.state"]


def test_5_the_agent_changed_nothing(lived: Lived) -> None:
    done = lived.house.change("true")
    assert done.code == 5
    assert only_object(done)["state"] == "failed"


def test_6_a_verification_failed(lived: Lived, tmp_path: Path) -> None:
    exported = lived.house.vestibule("audit", "export")
    assert exported.code == 0
    path = tmp_path / "log.jsonl"
    path.write_text(exported.out.replace("task.admit", "task.admix"))
    done = lived.house.vestibule("audit", "verify", str(path), "--json")
    assert done.code == 6
    assert only_object(done)["ok"] is False
    operator = lived.house.operator.read_text().replace("sandbox: {", "sandbox: {minimum: [monitor], ")
    (tmp_path / "o.yaml").write_text(operator)
    done = lived.house.vestibule(
        "doctor", "--json", env={"VESTIBULE_CONFIG": str(tmp_path / "o.yaml"), **without_monitor(tmp_path)}
    )
    assert done.code == 6
    assert "monitor" in str(only_object(done)["minimum"])


# --- pipes and signals ------------------------------------------------------------------------------------


UNREAD = [
    ("show {run}", 0),
    ("show {run} --json", 0),
    ("show {run} --diff", 0),
    ("runs", 0),
    ("audit show", 0),
    ("doctor", 0),
    ("--help", 141),
    ("audit export", 141),
    ("check --repo repo --head forbidden", 4),
    ("check --repo repo --head forbidden --sarif", 4),
    ("check --repo repo --head forbidden --json", 4),
]


@pytest.mark.parametrize(("call", "code"), UNREAD, ids=[call for call, _ in UNREAD])
def test_who_stops_reading_changes_no_verdict_and_is_no_bug(lived: Lived, call: str, code: int) -> None:
    """`vestibule check … | head -1`: a pipe whose reader has left before the first byte."""
    house = lived.house
    if not house.git("branch", "--list", "forbidden"):
        house.git("checkout", "-q", "-b", "forbidden")
        house.commit({f"deploy/{number}.yaml": "replicas: 9\n" for number in range(45)})
        house.git("checkout", "-q", "main")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("vestibule")), *call.format(run=lived.run).split()],
            env=house.env,
            cwd=house.folder,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""


def test_ctrl_c_ends_a_run_its_sandbox_too_and_says_how_to_go_on(tmp_path: Path) -> None:
    house: House = build_house(tmp_path, CONFIG)
    argv = ["run", house.ticket(), "--repo", str(house.repo), "--", "sh", "-c", "touch src/started; exec sleep 613"]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("vestibule")), *argv],
        env=house.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        run = process.stderr.readline().split()[-1]
        deadline = time.monotonic() + 30
        while not list((house.home / "runs" / run).glob("attempt-*/*/workspace/src/started")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"vestibule resume {run}" in err
    assert not out
    deadline = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", "-x", "sleep 613"], capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline, "the agent outlived its supervisor"
        time.sleep(0.05)
    assert house.vestibule("cancel", run, "--json").json["state"] == "cancelled"
    assert house.vestibule("audit", "verify", "--json").code == 0
