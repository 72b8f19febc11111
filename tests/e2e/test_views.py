"""Files shown in part, and labels of files, through the real command line and the real sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.asking import agent
from tests.e2e.conftest import Done, House

RECORD = "zzRECORDzz"
CONFIG = """\
version: 1
roles:
  fixer:
    read: ["src/**", "data/**"]
    write: ["src/**", "data/**"]
    commands: ["python3", "cat"]
    budget: {minutes: 5}
gates:
  review: {self_approval: recorded, expires: 1d}
views:
  - {paths: ["data/**"], show: schema}
labels:
  - {paths: ["data/**"], confidentiality: secret}
"""
FILES = {
    "data/patients.json": json.dumps([{"id": 1, "name": RECORD}, {"id": 2, "name": RECORD, "died": None}]),
    "data/deep/more.json": json.dumps({"note": RECORD}),
    "data/scan.bin": f"\0\1{RECORD}",
    "src/fake.json": "[]\n",
}


@pytest.fixture
def house(make_house: Callable[[str], House]) -> House:
    made = make_house(CONFIG)
    made.commit(FILES, "Records")
    return made


def result(house: House, done: Done) -> str:
    return house.git("show", f"{done.json['branch']}:src/seen.txt")


def event(run: dict[str, Any], action: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in run["events"] if item["action"] == action)
    return found


LOOK = """
import glob, subprocess, zlib
seen = open("src/seen.txt", "w")
for path in sorted(glob.glob("data/**", recursive=True)):
    if os.path.isfile(path):
        seen.write(path + "\\n" + open(path).read())
seen.write("GIT " + subprocess.run(["git", "show", "HEAD:data/patients.json"], capture_output=True, text=True).stdout)
objects = subprocess.run(["git", "cat-file", "--batch-all-objects", "--batch"], capture_output=True).stdout
seen.write("OBJECTS " + objects.decode("utf-8", "replace"))
seen.write("TOOL " + repr(call("read_file", path="data/patients.json")) + "\\n")
seen.write("FOUND " + repr(call("search_files", query="zzRECORD")) + "\\n")
seen.write("LISTED " + repr(call("list_files")) + "\\n")
seen.write("RAN " + repr(call("run_command", argv=["cat", "data/patients.json"])) + "\\n")
"""


def test_an_agent_sees_the_schema_and_never_a_record_on_any_way(house: House) -> None:
    done = house.run(*agent(LOOK))
    assert done.code == 3, done.err
    seen = result(house, done)
    assert RECORD not in seen
    assert seen.count('"died"') >= 4  # the file, git, the tool, a command
    assert "This is a view of the file" in seen
    assert "scan.bin" not in seen
    assert "file(s) are left out" in done.err


TRY = """
import subprocess
def attempt(shell):
    print(subprocess.run(["sh", "-c", shell], capture_output=True, text=True).stderr, flush=True)
open("src/mine.txt", "w").write("mine")
"""


WAYS = (
    "echo x > data/patients.json",
    "rm -f data/patients.json",
    "chmod u+w data/patients.json; echo x > data/patients.json",
    "mv src/mine.txt data/patients.json",
    "sed -i s/a/b/ data/patients.json",
    "rm -rf data/deep/more.json",
    "mv data src/away",
)


def test_a_partial_file_is_read_only_in_a_writable_folder(house: House) -> None:
    attempts = "\n".join(f"attempt({shell!r})" for shell in WAYS)
    done = house.run(*agent(f"{TRY}{attempts}\nopen('src/seen.txt', 'w').write('x')"))
    assert done.code == 3, done.out
    for name in ("data/patients.json", "data/deep/more.json"):
        assert house.git("show", f"{done.json['branch']}:{name}") == FILES[name]


@pytest.mark.parametrize(
    "shell",
    [
        "mv data/deep data/old && mkdir data/deep && echo x > data/deep/more.json",
        "mv data/deep data/old && ln -s ../src data/deep",
    ],
)
def test_replacing_a_partial_file_by_its_folder_is_refused(house: House, shell: str) -> None:
    done = house.run(*agent(f"{TRY}attempt({shell!r})\nopen('src/seen.txt', 'w').write('x')"))
    assert done.code == 4, done.out
    assert "change.partial_view" in {item["rule"] for item in done.json["findings"]}


def test_the_tools_refuse_to_write_it_and_a_command_that_does_is_refused_at_the_end(house: House) -> None:
    patch = "--- a/data/patients.json\\n+++ b/data/patients.json\\n@@ -1 +1 @@\\n-{\\n+[\\n"
    steps = f"""
say(call("write_file", path="data/patients.json", content="x"))
say(call("apply_patch", patch="{patch}"))
say(call("run_command", argv=["python3", "-c", "open('data/patients.json', 'w').write('x')"]))
open("src/seen.txt", "w").write("x")
"""
    done = house.run(*agent(steps))
    assert done.code == 3, done.err
    shown = house.vestibule("show", done.json["run"], "--json").json
    denied = [item for item in shown["events"] if item["action"] == "context.write"]
    assert [item["reasons"] for item in denied] == [["context.write.partial"], ["context.write.partial"]]
    steps = """
say(call("run_command", argv=["python3", "-c", "import os; os.rename('data/patients.json', 'data/x'); "
    "open('data/patients.json', 'w').write('x')"]))
"""
    done = house.run(*agent(steps))
    assert done.code == 4, done.out
    assert "change.partial_view" in {item["rule"] for item in done.json["findings"]}


def test_what_a_native_agent_could_read_is_in_the_label_before_it_starts(house: House) -> None:
    done = house.run("--agent", "command", "--", "sh", "-c", "echo 'x = 1' >> src/app.py")
    run = house.vestibule("show", done.json["run"], "--json").json
    start = event(run, "agent.start")
    assert start["labels"] == {"integrity": "member", "confidentiality": "secret"}
    assert start["details"]["view"]["partial"] == 2
    assert start["details"]["view"]["left_out"] == 1
    for item in run["events"]:
        if item["seq"] > start["seq"]:
            assert item["labels"]["confidentiality"] == "secret", item["action"]


def test_a_second_round_starts_with_the_label_of_the_first_and_leaves_partial_files_whole(house: House) -> None:
    done = house.run(*agent("open('src/seen.txt', 'a').write('x')"))
    assert done.code == 3, done.err
    again = house.vestibule("review", done.json["run"], "--request-changes", "--reason", "More.", "--json")
    assert again.code == 3, again.err
    run = house.vestibule("show", done.json["run"], "--json").json
    assert run["round"] == 2
    for item in (item for item in run["events"] if item["action"] == "agent.start"):
        assert item["labels"]["confidentiality"] == "secret"
    for name in ("data/patients.json", "data/deep/more.json", "data/scan.bin"):
        assert house.git("show", f"{again.json['branch']}:{name}") == FILES[name]
    assert again.json["changed_files"] == ["src/seen.txt"]


def test_what_an_attempt_that_was_cut_off_had_read_is_not_forgotten(house: House) -> None:
    """An entry with a higher label stands for what an upstream server showed before the machine died."""
    from tests.e2e.test_kill import crash, only_run, start
    from vestibule.core.labels import Confidentiality, Integrity, Label
    from vestibule.pipeline.services import Services

    killed = crash(house, "Attempt._run_agent", "after", *start(house))
    assert killed.code == -9, killed.err
    run = only_run(house)
    services = Services(house.env)
    read = Label(integrity=Integrity.WEB, confidentiality=Confidentiality.PUBLIC)
    services.begin(services.runs.get(run), "context.call", "issues/search", labels=read)(True, {})
    services.close()
    done = house.vestibule("resume", run, "--json")
    assert done.code == 3, done.err
    starts = [item for item in done.json["events"] if item["action"] == "agent.start" and item["phase"] == "intent"]
    assert [item["labels"]["integrity"] for item in starts] == ["member", "web"]
    assert done.json["labels"] == {"integrity": "web", "confidentiality": "secret"}


def test_the_operators_view_holds_whatever_the_repository_says(house: House) -> None:
    house.operate("views:\n  - {paths: ['src/**'], show: schema}\n")
    seen = house.vestibule("sandbox", "exec", "--repo", str(house.repo), "--", "cat", "src/fake.json")
    assert json.loads(seen.out)["$schema"]
    assert house.vestibule("sandbox", "exec", "--repo", str(house.repo), "--", "ls", "src").out == "fake.json\n"
    hidden = house.vestibule("sandbox", "exec", "--repo", str(house.repo), "--", "cat", "data/patients.json")
    assert RECORD not in hidden.out
    assert '"died"' in hidden.out


def test_a_run_over_what_its_provider_may_learn_sends_nothing(house: House) -> None:
    path = house.folder / "script.yaml"
    path.write_text("version: 1\nturns:\n  - {text: done}\n", "utf-8")
    provider = {"api": "scripted", "script": str(path), "models": ["*"], "clearance": "internal"}
    house.operate(f"models:\n  scripted: {json.dumps(provider)}\n")
    done = house.run("--agent", "reference", "--model", "claude-sonnet-5")
    asked = [item for item in done.json["events"] if item["action"] == "model.request" and item["subject"] == "agent"]
    assert asked
    assert {tuple(item["reasons"]) for item in asked} == {("labels.model_clearance",)}
    assert done.json["usage"]["requests"] == 0
