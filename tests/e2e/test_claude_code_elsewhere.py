"""The unmodified Claude Code CLI on a model that speaks Chat Completions: an alias of the operator's leads there."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml

from tests.e2e.claude_script import MODES, said, turn
from tests.e2e.conftest import CONFIG, House
from tests.e2e.projects import claude_code_modules, python_prefix
from tests.recording import Recording, recording


def _operate(house: House, provider: Recording) -> dict[str, str]:
    (house.folder / "operator").mkdir(exist_ok=True)
    prices = [
        {
            "provider": "own",
            "models": ["granite-*"],
            "basis": "self-hosted",
            "source": "our own machines",
            "input": 0,
            "output": 0,
        }
    ]
    (house.folder / "operator" / "prices.yaml").write_text(yaml.safe_dump({"version": 1, "prices": prices}))
    own = {
        "api": "openai",
        "base_url": f"{provider.url}/v1",
        "speaks": ["chat"],
        "key": {"env": "HEARD_KEY"},
        "models": ["granite-*"],
    }
    operator = {
        "version": 1,
        "sandbox": {"tools": [str(claude_code_modules()), *python_prefix()]},
        "models": {"own": own},
        "model_aliases": {"house": ["own/granite-4-h-small"]},
        "prices": ["prices.yaml"],
    }
    house.operator.write_text(yaml.safe_dump(operator), "utf-8")
    return {"HEARD_KEY": provider.key}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_claude_code_finishes_its_task_on_a_translated_model(make_house: Callable[..., House], mode: str) -> None:
    house = make_house(
        CONFIG.replace(
            "adapter: reference, model: claude-sonnet-5", f"adapter: claude-code, model: house, mode: {mode}"
        )
    )
    if mode == "native":
        outside = ("Write", {"file_path": "/workspace/setup.cfg", "content": "x"})
        inside = ("Write", {"file_path": "/workspace/src/new.py", "content": "x = 1\n"})
    else:
        outside = ("write_file", {"path": "setup.cfg", "content": "x"})
        inside = ("write_file", {"path": "src/new.py", "content": "x = 1\n"})
    turns = [
        turn("What is asked?", ("get_task", {})),
        turn("The version too.", outside),
        turn("Not mine.", inside),
        turn("It greets politely.", after="src/new.py"),
    ]
    with recording(turns, more={"tool_prefix": ""}) as provider:
        done = house.run("--agent", "demo", env=_operate(house, provider))
    assert done.code == 3, (done.err, done.out[-3000:])
    run = done.json
    assert run["changed_files"] == ["src/new.py"]
    closing = [event for event in said(house, run["run"]) if event["type"] == "result"]
    assert closing[-1]["result"].endswith("It greets politely.")
    rule = "[context.write.scope]" if mode == "mcp" else "[model.call.write]"
    assert rule in json.dumps(provider.requests[-1]), "the model is told why"
    intents = [event for event in run["events"] if event["subject"] == "agent" and event["phase"] == "intent"]
    denied = [(event["action"], event["resource"]) for event in intents if event["verdict"] == "deny"]
    assert denied == [("context.write", "setup.cfg") if mode == "mcp" else ("model.tool_call", "write/write_file")]
    models = {event["resource"] for event in intents if event["action"] == "model.request"}
    assert models == {"own/granite-4-h-small"}
    for request in provider.requests:
        assert request["model"] == "granite-4-h-small"
        assert "messages" in request
        assert "system" not in request, "in the words of Chat Completions"
    assert run["usage"]["requests"] == len(provider.bodies) >= len(turns)
    assert run["usage"]["input_tokens"] > 0
