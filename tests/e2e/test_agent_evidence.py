"""What an agent's work is judged by, and what is kept of what it said.

Exit codes and closing words prove nothing, for any adapter: the patch and the gateways' records do. What it printed is
kept as evidence, with its digest in the log.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import yaml

from tests.e2e.claude_script import MODES, operate, turn
from tests.e2e.conftest import CONFIG, Done, House, build_house
from tests.e2e.projects import claude_code_modules, python_prefix
from tests.recording import recording

WRITE = ("write_file", {"path": "src/new.py", "content": "x = 1\n"})
NATIVE = ("Write", {"file_path": "/workspace/src/new.py", "content": "x = 1\n"})
CLAUDE = "  claude: {adapter: claude-code, model: claude-sonnet-5, mode: MODE}\ngates:"


def events_of(house: House, run: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.vestibule("audit", "show", "--run", run, "--json").json["events"]
    return found


# --- exit 0 without a change has failed -----------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["command", "reference", "claude-mcp", "claude-native"])
def test_exit_0_and_cheerful_words_without_a_change_are_a_failure(tmp_path: Any, agent: str) -> None:
    house = build_house(tmp_path, CONFIG.replace("gates:", CLAUDE.replace("MODE", agent.partition("-")[2] or "mcp")))
    if agent == "command":
        done = house.change("echo 'All done, every test passes.'; exit 0")
    elif agent == "reference":
        house.script("  - {text: 'All done, every test passes.'}\n")
        done = house.run("--agent", "demo")
    else:
        operate(house, [turn("All done, every test passes.")], claude_code_modules())
        done = house.run("--agent", "claude")
    assert done.code == 5, (done.err, done.out)
    assert done.json["state"] == "failed"
    assert done.json["agent_exit"] == 0
    assert not house.git("branch", "--list", "vestibule/*")


# --- another exit code with a good change goes to review ------------------------------------------------------


def _goes_to_review(done: Done, house: House) -> None:
    assert done.code == 3, (done.err, done.out[-3000:])
    run = done.json
    assert run["state"] == "awaiting_review"
    assert run["changed_files"] == ["src/new.py"]
    assert run["agent_exit"] not in (None, 0)
    notices = [item for item in run["findings"] if item["rule"] == "agent.exit_code"]
    assert [item["verdict"] for item in notices] == ["allow"]
    assert str(run["agent_exit"]) in notices[0]["message"]
    assert house.git("show", f"{run['branch']}:src/new.py") == "x = 1"


def test_a_command_that_fails_after_a_good_change_goes_to_review_with_a_notice(house: House) -> None:
    _goes_to_review(house.change("echo 'x = 1' > src/new.py; exit 9"), house)


@pytest.mark.parametrize("agent", ["demo", "claude-mcp", "claude-native"])
def test_a_model_that_breaks_off_after_a_good_change_goes_to_review_with_a_notice(tmp_path: Any, agent: str) -> None:
    mode = agent.partition("-")[2] or "mcp"
    house = build_house(tmp_path, CONFIG.replace("gates:", CLAUDE.replace("MODE", mode)))
    call = NATIVE if mode == "native" else WRITE
    with recording([turn("Work.", call), turn("Never said.")], broken_after=1) as provider:
        models = {"heard": {"api": "anthropic", "base_url": provider.url, "key": {"env": "HEARD_KEY"}, "models": ["*"]}}
        tools = [*python_prefix(), *([] if agent == "demo" else [str(claude_code_modules())])]
        house.operator.write_text(yaml.safe_dump({"version": 1, "sandbox": {"tools": tools}, "models": models}))
        done = house.run("--agent", agent.partition("-")[0], env={"HEARD_KEY": provider.key})
    _goes_to_review(done, house)


@pytest.mark.parametrize("mode", MODES)
def test_what_claude_code_says_it_refused_itself_is_shown_and_decides_nothing(tmp_path: Any, mode: str) -> None:
    house = build_house(tmp_path, CONFIG.replace("gates:", CLAUDE.replace("MODE", mode)))
    forbidden = ("WebFetch", {"url": "http://example.com", "prompt": "x"})
    call = NATIVE if mode == "native" else WRITE
    operate(house, [turn("Try.", forbidden), turn("Work.", call), turn("Done.")], claude_code_modules())
    done = house.run("--agent", "claude")
    assert done.code == 3, (done.err, done.out[-3000:])
    assert isinstance(done.json["agent_denials"], list)
    assert done.json["changed_files"] == ["src/new.py"]


# --- the transcript -------------------------------------------------------------------------------------------


def test_the_transcript_is_kept_and_every_later_touch_of_it_is_seen(house: House) -> None:
    run = house.change("echo 'x = 1' > src/new.py; echo said; echo whispered >&2").json
    (told,) = run["transcripts"]
    path = house.home / "runs" / run["run"] / told["file"]
    data = path.read_bytes()
    assert b"said" in data
    assert b"whispered" in data
    assert path.stat().st_mode & 0o777 == 0o600
    assert (told["state"], told["size"], told["cut"]) == ("kept", len(data), False)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    outcome = [e for e in events_of(house, run["run"]) if (e["action"], e["phase"]) == ("agent.start", "outcome")][-1]
    assert outcome["details"]["transcript"] == {key: told[key] for key in ("file", "sha256", "size", "cut")}

    def state() -> str:
        return str(house.vestibule("show", run["run"], "--json").json["transcripts"][0]["state"])

    path.write_bytes(data.replace(b"said", b"SAID"))
    assert state() == "changed"
    path.write_bytes(data + b"more")
    assert state() == "changed"
    path.unlink()
    assert state() == "missing"
    path.symlink_to("/etc/hostname")
    assert state() == "unreadable"


def test_an_export_of_the_log_holds_the_transcripts_digest(house: House) -> None:
    run = house.change().json
    path = house.folder / "export.json"
    done = house.vestibule("audit", "export", "--run", run["run"])
    path.write_text(done.out)
    assert run["transcripts"][0]["sha256"] in done.out
    verified = house.vestibule("audit", "verify", str(path), "--json")
    assert verified.code == 0, verified.out


# --- no agent starts without an admission of its round --------------------------------------------------------


def admitted(events: list[dict[str, Any]]) -> int:
    """Checks that every start of an agent follows an admission of its round that did not fail; how many there were."""
    failed = {
        e["intent"] for e in events if (e["action"], e["phase"], e["result"]) == ("task.admit", "outcome", "failed")
    }
    rounds: set[int] = set()
    starts = 0
    for event in events:
        if event["phase"] != "intent":
            continue
        if event["action"] == "task.admit" and event["verdict"] == "allow" and event["seq"] not in failed:
            rounds.add(event["details"]["round"])
        if event["action"] == "agent.start":
            starts += 1
            assert event["details"]["round"] in rounds, "an agent started in a round that was not admitted"
    return starts


def test_every_round_is_admitted_for_its_own_cause_and_rounds_end(house: House) -> None:
    house.operate("budget: {rounds_per_run: 2}\n")
    shell = "echo 'x = 1' >> src/new.py"
    run = house.change(shell).json["run"]
    again = house.vestibule("review", run, "--request-changes", "--reason", "Once more.", "--json")
    assert again.code == 3, again.err
    assert again.json["round"] == 2
    third = house.vestibule("review", run, "--request-changes", "--reason", "And again.", "--json")
    assert third.code == 4, third.out
    assert third.json["refusals"][0]["rule"] == "task.rounds"
    assert third.json["state"] == "awaiting_review", "the change can still be approved or rejected"
    events = events_of(house, run)
    assert admitted(events) == 2
    admits = [e for e in events if e["action"] == "task.admit" and e["phase"] == "intent"]
    assert [(e["details"]["round"], e["details"]["cause"]["trigger"]) for e in admits] == [(1, "cli"), (2, "rework")]
    assert {e["details"]["permission"]["level"] for e in admits} == {"write"}
    assert house.vestibule("review", run, "--approve", "--reason", "Good enough.", "--json").code == 0


def test_a_run_that_was_never_admitted_is_admitted_when_it_is_resumed(house: House) -> None:
    from tests.e2e.test_kill import crash, only_run, start

    assert crash(house, "Segments._admit", "before", *start(house)).code == -9
    run = only_run(house)
    assert not [e for e in events_of(house, run) if e["action"] == "task.admit"]
    assert house.vestibule("resume", run, "--json").code == 3
    events = events_of(house, run)
    assert admitted(events) == 1
    causes = [
        e["details"]["cause"]["trigger"] for e in events if e["action"] == "task.admit" and e["phase"] == "intent"
    ]
    assert causes == ["resume"]


def test_an_organisation_that_admits_no_rework_starts_no_agent_again(house: House) -> None:
    rules = house.folder / "policy"
    rules.mkdir()
    (rules / "no.rego").write_text(
        "package vestibule\n\n"
        'default decision := {"verdict": "allow", "reasons": []}\n\n'
        'decision := {"verdict": "deny", "reasons": ["org.no_rework"]} if {\n'
        '\tinput.action == "task.admit"\n\tinput.facts.trigger == "rework"\n}\n'
    )
    house.operate(f"policy: [{json.dumps(str(rules))}]\n")
    run = house.change().json["run"]
    done = house.vestibule("review", run, "--request-changes", "--reason", "Once more.", "--json")
    assert done.code == 4, done.out
    assert done.json["state"] == "refused"
    assert "org.no_rework" in json.dumps(done.json["refusals"])
    assert admitted(events_of(house, run)) == 1


def test_the_reference_agent_is_told_the_base_commits_instructions_by_get_task(house: House) -> None:
    house.commit({"AGENTS.md": "Name modules after rivers.\n"}, "House style")
    (house.repo / "AGENTS.md").write_text("Words of the working tree.\n")
    with recording([turn("Work.", WRITE), turn("Done.")]) as provider:
        models = {"heard": {"api": "anthropic", "base_url": provider.url, "key": {"env": "HEARD_KEY"}, "models": ["*"]}}
        operator = {"version": 1, "sandbox": {"tools": python_prefix()}, "models": models}
        house.operator.write_text(yaml.safe_dump(operator))
        done = house.run("--agent", "demo", env={"HEARD_KEY": provider.key})
    assert done.code == 3, done.json["refusals"]
    (first,) = provider.firsts()
    assert "Name modules after rivers." in json.dumps(first["messages"])
    assert "Words of the working tree" not in json.dumps(provider.requests)
