"""The main job: a ticket of a repository the whole way, through the real commands.

    REPO=… TICKET=… YES=1 python tools/main_job.py

Without REPO and TICKET it takes the sample. Without a provider key its model is scripted, and it says so.
With YES=1 it grants what the agent asks for and approves at the gate; otherwise it serves the console and waits for a
person.
State lies in `.state/` of this checkout, so that nothing of a real installation is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".state"
PERSON = {
    "GIT_AUTHOR_NAME": "Sample",
    "GIT_AUTHOR_EMAIL": "sample@example.com",
    "GIT_COMMITTER_NAME": "Sample",
    "GIT_COMMITTER_EMAIL": "sample@example.com",
}


def main() -> int:
    """The exit code of the step that decided."""
    repo, ticket = os.environ.get("REPO", ""), os.environ.get("TICKET", "")
    yes = os.environ.get("YES", "") not in ("", "0")
    key = bool(os.environ.get("ANTHROPIC_API_KEY"))
    if bool(repo) != bool(ticket):
        print("Name both REPO= and TICKET=, or neither for the sample.", file=sys.stderr)
        return 2
    sample = not repo
    operator = write_operator_config(scripted=not key)
    env = {
        **os.environ,
        "VESTIBULE_HOME": str(STATE / "home"),
        "VESTIBULE_CONFIG": str(operator),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    place = make_sample() if sample else Path(repo)
    words = Path(ticket) if ticket else ROOT / "examples" / "ticket.md"
    if key:
        print("The model is the provider's: ANTHROPIC_API_KEY is set.")
    else:
        print("No provider key is set: the model is SCRIPTED. Its words were written beforehand; all else is real.")
        if not sample:
            print("The script knows the sample only. With your own REPO set ANTHROPIC_API_KEY, or use")
            print("`vestibule run TICKET --agent command -- PROGRAM …`, which needs no model.")
            return 2

    started = time.monotonic()
    code, run = vestibule(env, "run", str(words), "--repo", str(place), "--json")
    show(run, first=True)
    if code != 3:
        return code
    if yes:
        while run["state"] == "awaiting_answer":
            asked = next(item for item in run["questions"] if item["state"] == "open")
            choice = "grant" if asked["grantable"] else "refuse"
            print(f"\nYES=1: answering in a person's place: {choice}.")
            reason = f"Answered by `make run YES=1`: within what people may {choice}."
            code, run = vestibule(env, "answer", asked["id"], f"--{choice}", "--reason", reason, "--json")
            show(run)
        if run["state"] != "awaiting_review":
            return code
        print("\nYES=1: approving in a person's place.")
        reason = "Approved by `make run YES=1` after the guards and the sandboxed tests passed."
        code, run = vestibule(env, "review", run["run"], "--approve", "--reason", reason, "--json")
        show(run)
    else:
        what = {"awaiting_answer": "The agent asks for more and waits for your answer. Give it"}
        print(f"\n{what.get(run['state'], 'The change waits for you. Decide')} in the console:")
        done = subprocess.run([vestibule_path(), "console", "--until", run["run"]], env=env, check=False)
        if done.returncode not in (0, 3, 4, 5, 6):
            return done.returncode
        code, run = vestibule(env, "show", run["run"], "--json")
        code = {"merged": 0, "awaiting_review": 3, "awaiting_answer": 3, "approved": 3, "failed": 5}.get(
            run["state"], 4
        )
        show(run)
    if sample:
        show_partial(env, place)
    verified, log = vestibule(env, "audit", "verify", "--repo", str(place), "--json")
    print(f"\naudit log: {'verified' if log['ok'] else 'NOT verified'}, {log['size']} entries")
    for problem in log["problems"]:
        print(f"  problem: {problem}")
    print(f"took {time.monotonic() - started:.1f} s")
    print("\nLook further:")
    prefix = f"VESTIBULE_HOME={STATE / 'home'} VESTIBULE_CONFIG={operator}"
    print(f"  {prefix} {vestibule_path()} show {run['run']} --diff")
    print(f"  git -C {place} log --stat -2")
    return code or verified


def write_operator_config(*, scripted: bool) -> Path:
    """The operator's file for this job: this Python as a tool, and the scripted provider when there is no key."""
    folder = STATE / "operator"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = ["version: 1"]
    if scripted:
        script = json.dumps(str(ROOT / "examples" / "script.yaml"))
        lines += ["models:", f'  scripted: {{api: scripted, script: {script}, models: ["*"]}}']
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/usr"):
        lines.append(f"sandbox: {{tools: [{json.dumps(str(prefix))}]}}")
    path = folder / "config.yaml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def make_sample() -> Path:
    """The sample as a fresh repository with one commit on `main`."""
    place = STATE / "sample"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "examples" / "sample", place, ignore=shutil.ignore_patterns("__pycache__"))
    for argv in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "The pages library"]):
        subprocess.run(["git", "-C", str(place), *argv], env={**os.environ, **PERSON}, check=True)
    return place


def vestibule_path() -> str:
    return str(Path(sys.executable).with_name("vestibule"))


def vestibule(env: dict[str, str], *argv: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON object of one command; a failure that prints none ends the job."""
    done = subprocess.run([vestibule_path(), *argv], env=env, stdout=subprocess.PIPE, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        sys.exit(done.returncode or 1)
    if "run" not in found and "ok" not in found:
        sys.exit(done.returncode or 1)
    return done.returncode, found


def show(run: dict[str, Any], *, first: bool = False) -> None:
    """Where the run stands: what was decided, asked, changed and spent. What does not change is said at `first`."""
    decided, usage = run["decisions"], run["usage"]
    print(f"\nrun {run['run']}: {run['state']}")
    if run.get("note"):
        print(f"  {run['note']}")
    if first:
        print(f"  task     {run['title']}")
        print(f"  agent    {run['agent']['version']}{' (scripted model)' if run['scripted_model'] else ''}")
        walls = [name for name, state in run["sandbox"]["walls"].items() if state == "up"]
        print(f"  walls    {', '.join(walls) or 'none'}")
    print(f"  decided  {decided['allow']} allowed, {decided['hold']} held, {decided['deny']} denied")
    for refusal in run["refusals"][:5]:
        print(f"           denied: {refusal['rule']}: {refusal['reason']}")
    for asked in run["questions"]:
        print(f"  asked    {asked['state']}: {json.dumps(asked['asked'])}")
        print(f"           the agent's words: {json.dumps(asked['why'], ensure_ascii=False)}")
    cost = usage["cost_nano_usd"]
    print(f"  spent    ${cost // 10**9}.{cost % 10**9:09d} in {usage['requests']} model requests")
    print(f"  changed  {', '.join(run['changed_files']) or 'nothing'}")
    for finding in run["findings"]:
        print(f"           {finding['verdict']}: {finding['rule']} {finding['path']}: {finding['message']}")
    if run["state"] == "awaiting_review":
        print(f"  held     by its review gate; branch {run['branch']}")
    if run["merge_commit"]:
        print(f"  merged   {run['merge_commit']}")


def show_partial(env: dict[str, str], place: Path) -> None:
    """What the sample's agent has of a file that its configuration shows as a schema, as a sandbox shows it."""
    argv = ["sandbox", "exec", "--repo", str(place), "--role", "maintainer", "--", "cat", "data/pages.csv"]
    done = subprocess.run([vestibule_path(), *argv], env=env, stdout=subprocess.PIPE, check=False)
    if done.returncode == 0:
        columns = json.loads(done.stdout)["items"]["properties"]
        print(f"\nOf data/pages.csv the agent was shown names and types and no record: {', '.join(columns)}")


if __name__ == "__main__":
    sys.exit(main())
