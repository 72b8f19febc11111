"""One ticket through five crossings to a merge, by the real commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.conftest import CONFIG, House

SCRIPT = """\
  - {text: Looking., tools: [{name: read_file, input: {path: src/app.py}}]}
  - {text: More., tools: [{name: write_file, input: {path: deploy/prod.yaml, content: "replicas: 99"}}]}
  - text: Refused, so I stay in scope.
    tools:
      - {name: write_file, input: {path: src/app.py, content: "def greet(n):\\n    return f'{n}, please'\\n"}}
  - {text: Testing., tools: [{name: run_command, input: {argv: [python3, -c, "import src.app"]}}]}
  - {text: "The greeting says please."}
"""


def test_reference_agent_goes_the_whole_way(house: House) -> None:
    house.script(SCRIPT)
    done = house.run("--agent", "demo")
    assert done.code == 3, done.err
    run = done.json
    assert run["state"] == "awaiting_review"
    assert run["verdict"] == "hold"
    assert run["changed_files"] == ["src/app.py"]
    assert run["decisions"]["deny"] == 1
    assert run["decisions"]["allow"] >= 8
    assert [item["rule"] for item in run["refusals"]] == ["context.write.protected"] or run["refusals"][0][
        "rule"
    ].startswith("context.write")
    assert run["usage"]["requests"] == 5
    assert run["usage"]["cost_nano_usd"] > 0
    assert run["scripted_model"] is True
    assert house.git("rev-parse", f"refs/heads/{run['branch']}") == run["head_commit"]
    assert house.git("show", f"{run['branch']}:deploy/prod.yaml") == "replicas: 3"
    assert {event["subject"] for event in run["events"]} >= {"agent", "probe", "system", "person"}

    done = house.vestibule("review", run["run"], "--approve", "--reason", "Reads well.", "--json")
    assert done.code == 0, done.err
    merged = done.json
    assert merged["state"] == "merged"
    assert merged["reviews"][0]["self_review"] is True
    message = house.git("log", "-1", "--format=%B", "main")
    assert f"Vestibule-Run: {run['run']}" in message
    assert "Vestibule-Decision:" in message
    assert "Vestibule-Checkpoint:" in message
    assert "please" in (house.repo / "src/app.py").read_text()
    assert house.git("status", "--porcelain") == ""

    verified = house.vestibule("audit", "verify", "--repo", str(house.repo), "--json")
    assert verified.code == 0, verified.out
    assert verified.json["ok"] is True


def test_command_agent_needs_no_model_and_its_change_waits_for_a_person(house: House) -> None:
    done = house.change()
    assert done.code == 3, done.err
    assert done.json["changed_files"] == ["src/app.py"]
    assert done.json["usage"]["requests"] == 0
    assert house.git("rev-parse", "main") == done.json["base_commit"]
    shown = house.vestibule("show", done.json["run"])
    assert shown.code == 0
    assert "awaiting review" in shown.out
    listed = house.vestibule("runs", "--json")
    assert [item["run"] for item in listed.json["runs"]] == [done.json["run"]]


def test_a_bare_repository_merges_without_a_work_tree(house: House) -> None:
    bare = house.folder / "bare.git"
    house.git("clone", "-q", "--bare", str(house.repo), str(bare))
    done = house.vestibule(
        "run",
        house.ticket(),
        "--repo",
        str(bare),
        "--json",
        "--agent",
        "command",
        "--",
        "sh",
        "-c",
        "echo '#' >> src/app.py",
    )
    assert done.code == 3, done.err
    done = house.vestibule("review", done.json["run"], "--approve", "--reason", "Fine.", "--json")
    assert done.code == 0, done.err
    assert house.git("log", "-1", "--format=%P", "main", repo=bare).count(" ") == 1


def test_a_bare_repository_gets_a_rule_that_keeps_pushes_off_and_says_so(house: House) -> None:
    bare = house.folder / "bare.git"
    house.git("clone", "-q", "--bare", str(house.repo), str(bare))
    argv = ("run", house.ticket(), "--repo", str(bare), "--json", "--agent", "command", "--", "sh", "-c")
    first = house.vestibule(*argv, "echo '#' >> src/app.py")
    assert first.code == 3, first.err
    assert "pre-receive" in first.err
    house.commit({"src/own.py": "1\n"})
    with pytest.raises(subprocess.CalledProcessError) as refused:
        house.git("push", "-q", str(bare), "main:main")
    assert "review only" in refused.value.stderr
    house.git("push", "-q", str(bare), "main:own-branch")
    hook = bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\n# somebody's own\n")
    second = house.vestibule(*argv, "echo '##' >> src/app.py")
    assert second.code == 3, second.err
    assert "somebody's own" in hook.read_text()


def test_requester_may_not_approve_unless_the_base_says_so(make_house: Callable[[str], House]) -> None:
    house = make_house(CONFIG.replace("self_approval: recorded, ", ""))
    run = house.change().json
    done = house.vestibule("review", run["run"], "--approve", "--reason", "Mine.", "--json")
    assert done.code == 4
    assert done.json["refusals"][0]["rule"] == "review.self_approval"
    assert "self_approval" in done.json["refusals"][0]["next"]["person"]
    assert house.vestibule("show", run["run"], "--json").json["state"] == "awaiting_review"
    assert house.git("rev-parse", "main") == run["base_commit"]


def test_request_changes_gives_words_back_and_a_second_round_happens(house: House) -> None:
    house.script(
        """\
  - {text: First., tools: [{name: write_file, input: {path: src/app.py, content: "x = 1\\n"}}]}
  - {text: Done.}
""",
        more=(
            "conversations:\n"
            "  - when: {prompt_contains: 'Say please'}\n"
            "    turns:\n"
            "      - tools: [{name: write_file, input: {path: src/app.py, content: \"x = 'please'\\n\"}}]\n"
            "      - {text: Better.}\n"
        ),
    )
    first = house.run("--agent", "demo").json
    done = house.vestibule("review", first["run"], "--request-changes", "--reason", "Say please", "--json")
    assert done.code == 3, done.err
    second = done.json
    assert second["state"] == "awaiting_review"
    assert second["round"] == 2
    assert second["head_commit"] != first["head_commit"]
    assert house.git("show", f"{second['branch']}:src/app.py") == "x = 'please'"
    done = house.vestibule("review", first["run"], "--approve", "--reason", "Now it does.", "--json")
    assert done.code == 0, done.err


def test_reject_ends_the_run_and_merges_nothing(house: House) -> None:
    run = house.change().json
    done = house.vestibule("review", run["run"], "--reject", "--reason", "Not wanted.", "--json")
    assert done.json["state"] == "rejected"
    assert house.git("rev-parse", "main") == run["base_commit"]
    again = house.vestibule("review", run["run"], "--approve", "--reason", "After all.", "--json")
    assert again.code == 4
    assert house.git("rev-parse", "main") == run["base_commit"]


def test_a_new_commit_on_the_branch_voids_the_gate(house: House) -> None:
    run = house.change().json
    tree = house.git("rev-parse", f"{run['branch']}^{{tree}}")
    other = house.git("commit-tree", tree, "-p", run["head_commit"], "-m", "Slipped in")
    house.git("update-ref", f"refs/heads/{run['branch']}", other)
    done = house.vestibule("review", run["run"], "--approve", "--reason", "Looks the same.", "--json")
    assert done.code == 4
    assert done.json["refusals"][0]["rule"] in ("review.stale", "forge.branch_moved")
    assert house.git("rev-parse", "main") == run["base_commit"]


def test_verify_commands_run_after_approval_and_only_then(make_house: Callable[[str], House]) -> None:
    house = make_house(CONFIG + 'verify: {commands: [["python3", "-c", "import src.app"]]}\n')
    run = house.change().json
    assert not [event for event in run["events"] if event["action"] == "verify.command"]
    done = house.vestibule("review", run["run"], "--approve", "--reason", "Go.", "--json")
    assert done.code == 0, done.err
    assert [event for event in done.json["events"] if event["action"] == "verify.command"]


def test_a_failing_verify_command_merges_nothing(make_house: Callable[[str], House]) -> None:
    house = make_house(CONFIG + 'verify: {commands: [["python3", "-c", "raise SystemExit(7)"]]}\n')
    run = house.change().json
    done = house.vestibule("review", run["run"], "--approve", "--reason", "Go.", "--json")
    assert done.code == 6
    assert done.json["state"] == "failed"
    assert house.git("rev-parse", "main") == run["base_commit"]


def test_a_dirty_tree_is_left_alone_and_resume_finishes_the_merge(house: House) -> None:
    run = house.change().json
    (house.repo / "src/app.py").write_text("half an idea\n")
    done = house.vestibule("review", run["run"], "--approve", "--reason", "Good.", "--json")
    assert done.code == 3
    assert done.json["state"] == "approved"
    assert done.json["note"]
    assert (house.repo / "src/app.py").read_text() == "half an idea\n"
    assert house.git("rev-parse", "main") == run["base_commit"]
    house.git("checkout", "-q", "--", "src/app.py")
    done = house.vestibule("resume", run["run"], "--json")
    assert done.code == 0, done.err
    assert done.json["state"] == "merged"


def test_forbidden_change_is_refused_and_says_why(house: House) -> None:
    done = house.change("mkdir -p .github/workflows; echo x > .github/workflows/ci.yml; echo y > src/ok.py")
    # Outside the writable mounts nothing can be written at all, so only the allowed file came out.
    assert done.code in (3, 4)
    assert ".github/workflows/ci.yml" not in done.json["changed_files"]
    done = house.change("mkdir -p src/.claude; echo '{}' > src/.claude/settings.json; echo y > src/ok.py")
    assert done.code == 4, done.err
    assert done.json["state"] == "refused"
    assert done.json["verdict"] == "deny"
    assert done.json["refusals"]
    assert not house.git("branch", "--list", f"vestibule/{done.json['run']}")


def test_an_agent_that_changes_nothing_fails_with_5(house: House) -> None:
    done = house.change("true")
    assert done.code == 5
    assert done.json["state"] == "failed"


def test_exit_code_of_the_agent_proves_nothing(house: House) -> None:
    done = house.change("echo '#' >> src/app.py; exit 9")
    assert done.code == 3
    assert done.json["changed_files"] == ["src/app.py"]


@pytest.mark.parametrize("name", ["r00000000000000", "nonsense", "", "a b"])
def test_unknown_run_is_a_usage_error(house: House, name: str) -> None:
    done = house.vestibule("show", name, "--json")
    assert done.code == 2
    assert json.loads(done.out)["error"]["next"]


def test_a_configured_scanner_that_does_not_run_is_said_and_held(make_house: Callable[[str], House]) -> None:
    house = make_house(CONFIG + "scanners: [bandit]\n")
    run = house.change().json
    assert [item["rule"] for item in run["findings"]] == ["scanner.not_run"]
    done = house.vestibule("check", "--repo", str(house.repo), "--head", run["branch"], "--json")
    assert done.code == 3
    assert done.json["verdict"] == "hold"
