"""One small task that any agent program can do with tools of either kind, in a repository full of control files."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import yaml

from tests.e2e.claude_script import turn
from tests.e2e.conftest import Done, House
from tests.e2e.projects import NODE_MODULES, python_prefix
from tests.hostile import Planted
from tests.recording import Recording, recording
from vestibule.core.instructions import NAMES, PLACES
from vestibule.core.text.paths import fold

CONFIG = """\
version: 1
roles:
  fixer:
    read: ["**"]
    write: ["src/**"]
    commands: [python3]
    budget: {usd: 9.00, tokens: 3000000, minutes: 4}
agents:
  it: {adapter: ADAPTER, model: MODEL, mode: MODE}
gates:
  review: {self_approval: recorded, expires: 1d}
"""
TICKET = "# Greet politely @src/app.py\n\nThe greeting should say please.\n"
GOOD = "def greet(name):\n    return f'Please, hello {name}'\n"
CLOSING = "The greeting says please."
LOOK = "cat src/app.py; echo x >> deploy/prod.yaml"

Call = tuple[str, dict[str, Any]]


class Native(NamedTuple):
    """A program's own tools, as its model calls them, and how it spells ours."""

    task: Call
    outside: Call
    """Writes `deploy/prod.yaml`, which the scope does not let it."""
    edit: Call
    shell: Call
    """Runs `LOOK`."""


class Ended(NamedTuple):
    """A run that ended, what its provider was asked, and what the program printed."""

    run: dict[str, Any]
    provider: Recording
    transcript: bytes
    planted: Planted


def configured(adapter: str, model: str, mode: str) -> str:
    """`mode` is `mcp` or `native`."""
    return CONFIG.replace("ADAPTER", adapter).replace("mode: MODE", f"mode: {mode}").replace("MODEL", model)


def turns_of(native: Native | None) -> list[dict[str, Any]]:
    """What the model says: it reads the task, is refused once, goes on, and closes. None: our tools alone."""
    if native is None:
        write = ("write_file", {"path": "deploy/prod.yaml", "content": "replicas: 9\n"})
        return [
            turn("What is asked?", ("get_task", {})),
            turn("More replicas, too.", write, after="The greeting should say please."),
            turn("Not mine.", ("write_file", {"path": "src/app.py", "content": GOOD}), after="[context.write.scope]"),
            turn("Look.", ("list_files", {})),
            turn(CLOSING, after="src/app.py"),
        ]
    return [
        turn("What is asked?", native.task),
        turn("More replicas, too.", native.outside, after="The greeting should say please."),
        turn("Not mine.", native.edit, after="[model.call.write]"),
        turn("Look.", native.shell),
        turn(CLOSING, after="Please, hello"),
    ]


def go(house: House, api: str, native: Native | None) -> tuple[Done, Ended]:
    """A run of agent `it` against a provider that speaks wire format `api`, up to its gate."""
    planted = Planted("/workspace/src/obeyed")
    house.commit(planted.ordinary | planted.files, "What steers agents")
    with recording(turns_of(native)) as provider:
        heard = {"base_url": provider.url, "key": {"env": "HEARD_KEY"}, "models": ["*"], "speaks": [api]}
        operator = {
            "version": 1,
            "sandbox": {"tools": [str(NODE_MODULES), *python_prefix()]},
            "budget": {"unknown_price_usd": 0.01},
            "models": {"heard": {**heard, "api": "openai" if api in ("responses", "chat") else api}},
        }
        house.operator.write_text(yaml.safe_dump(operator), "utf-8")
        done = house.run("--agent", "it", ticket=house.ticket(TICKET), env={"HEARD_KEY": provider.key})
    assert done.code == 3, (done.err[-3000:], done.out[-3000:])
    logs = sorted((house.home / "runs" / done.json["run"]).glob("transcript-1-*.log"))
    return done, Ended(done.json, provider, b"".join(log.read_bytes() for log in logs), planted)


def check(ended: Ended, *, native: bool) -> None:
    """It did the task, was refused once, and nothing that was planted was obeyed or told."""
    run = ended.run
    assert run["state"] == "awaiting_review"
    assert run["changed_files"] == ["src/app.py"], "no hook, server or command left its mark"
    mine = [event for event in run["events"] if event["subject"] == "agent" and event["phase"] == "intent"]
    denied = [event for event in mine if event["verdict"] == "deny" and not event["action"].startswith("host.")]
    rules = [rule for event in denied for rule in event["reasons"]]
    assert rules == (["model.call.write"] if native else ["context.write.scope"])
    models = [event for event in mine if event["action"] == "model.request"]
    assert run["usage"]["requests"] == len(models) == len(ended.provider.bodies) >= 5
    assert {event["action"].split(".")[0] for event in mine} <= {"context", "model", "host"}, "it asked for no name"
    told = _told(ended)
    assert {path for path in told if fold(path).rpartition("/")[2] not in NAMES and fold(path) not in PLACES} == set()


def _told(ended: Ended) -> set[str]:
    """Planted files of which a word reached the model. Instructions of the base commit are told, by the adapter."""
    heard = b"".join(ended.provider.bodies).decode() + ended.transcript.decode()
    files = ended.planted.files
    words = [word for word in ended.planted.canaries if word in heard]
    return {path for path, text in files.items() if any(word in text for word in words)}


def offered(request: dict[str, Any]) -> set[str]:
    """Names of the tools that a request offers, in any of the four formats."""
    found: set[str] = set()
    for tool in request.get("tools", ()):
        if "functionDeclarations" in tool:
            found |= {item["name"] for item in tool["functionDeclarations"]}
        else:
            found.add(tool["name"] if "name" in tool else tool["function"]["name"])
    return found


def events_of(transcript: bytes) -> list[dict[str, Any]]:
    """The JSON lines of a transcript."""
    return [json.loads(line) for line in transcript.splitlines() if line.startswith(b"{")]
