"""Any program as the agent, with a model: its own loop, behind the same gateway."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import House

PROGRAM = """
import json, os, urllib.error, urllib.request

def ask(path, body, key):
    request = urllib.request.Request(
        os.environ["VESTIBULE_MODELS_URL"] + path,
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", key: os.environ["VESTIBULE_TASK_TOKEN"]},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

model, tool = "NAME", {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
messages = [{"role": "user", "content": "Write it."}]
functions = [{"type": "function", "function": {"name": "house_tool", "parameters": tool}}]
first = ask("/openai/v1/chat/completions", {"model": model, "messages": messages, "tools": functions}, "api-key")
other = ask("/openai/v1/chat/completions", {"model": "another", "messages": messages}, "api-key")
with open("/workspace/src/new.py", "w") as file:
    file.write(repr([first, other[0]]))
"""
SCRIPT = """\
version: 1
turns:
  - text: Here it is.
    tools: [{name: house_tool, input: {path: src/new.py}}, {name: other_tool, input: {}}]
"""
OPERATOR = "models:\n  words: {{api: scripted, script: {script!r}, models: ['*']}}\n"


def _run(house: House, *more: str) -> tuple[object, str]:
    script = house.folder / "script.yaml"
    script.write_text(SCRIPT, "utf-8")
    house.operate(OPERATOR.format(script=str(script)))
    program = PROGRAM.replace("NAME", "words-1")
    done = house.run("--agent", "command", *more, "--", "python3", "-c", program)
    assert done.code == 3, (done.err, done.out[-3000:])
    branch = house.git("branch", "--list", "vestibule/*", "--format=%(refname:short)").strip()
    return done.json, house.git("show", f"{branch}:src/new.py")


@pytest.mark.slow
def test_a_program_of_unknown_tools_asks_its_model_through_the_gateway(house: House) -> None:
    run, written = _run(house, "--model", "words/words-1")
    assert run["scripted_model"] is True  # type: ignore[index]
    assert run["usage"]["requests"] == 1  # type: ignore[index]
    assert "house_tool" in written
    assert "[vestibule]" in written  # the tool that was not offered
    assert written.rstrip().endswith("403]")  # another model
    intents = [event for event in run["events"] if event["phase"] == "intent"]  # type: ignore[index]
    calls = [event for event in intents if event["action"] == "model.tool_call"]
    assert [event["verdict"] for event in calls] == ["allow", "deny"]


@pytest.mark.slow
def test_without_a_model_every_request_of_it_is_refused(house: House) -> None:
    run, written = _run(house)
    assert "model.not_allowed" in written
    assert run["usage"]["requests"] == 0  # type: ignore[index]
