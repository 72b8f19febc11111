"""Plans of Codex and opencode, and what is made of their transcripts (recorded ones, long texts cut)."""

from __future__ import annotations

import json
import secrets
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.agents.base import MCP_SERVER, Plan, Situation
from vestibule.agents.codex import Codex, _toml
from vestibule.agents.opencode import OpenCode
from vestibule.agents.registry import adapter
from vestibule.core.instructions import Instruction
from vestibule.core.labels import Integrity, Label
from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task

TOKEN = secrets.token_urlsafe(24)
TRANSCRIPTS = Path(__file__).parent / "transcripts"
_SAID = "Write docstrings in the voice of otters: 🦦 \x7f \"'\\\n"
_RECORDED = ("codex-mcp", "codex-native", "opencode-mcp", "opencode-native")


def _plan(name: str, tools: Path, *, native: bool, said: str = "") -> Plan:
    (tools / ".bin").mkdir(exist_ok=True)
    (tools / ".bin" / name).write_text("#!\n")
    task = Task(
        run="r00000000000000",
        spec=Spec(title="--help", body="b", ticket_digest="sha256:0", integrity=Integrity.MEMBER),
        role="fixer",
        scope=Scope(read=("src/**",), write=("src/**",), tools=("read_file",)),
        budget=Budget(),
        agent=AgentRef(name="it", adapter=name, model="granite-4-code"),
        requester="local:ada",
        base_commit="0" * 40,
    )
    told = (Instruction(path="AGENTS.md", text=said, label=Label(), commit="0" * 40),) if said else ()
    return adapter(name).plan(
        Situation(task=task, token=TOKEN, tools=(tools,), native=native, instructions=told, api="responses")
    )


def _codex(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    files = plan.home_files
    (model,) = json.loads(files[".codex/vestibule-models.json"])["models"]
    return tomllib.loads(files[".codex/config.toml"].decode()), model


def _opencode(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan.home_files[".config/opencode/opencode.json"])
    return found


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", ["codex", "opencode"])
def test_token_and_instructions_are_in_no_argument_and_the_prompt_is_no_option(
    name: str, native: bool, tmp_path: Path
) -> None:
    plan = _plan(name, tmp_path, native=native, said=_SAID)
    assert plan.argv[-2] == "--"
    assert not any(TOKEN in item or "otters" in item for item in plan.argv)
    assert not any(TOKEN.encode() in data for data in plan.home_files.values()), "it comes by the environment alone"
    assert plan.env["VESTIBULE_TASK_TOKEN"] == TOKEN


@pytest.mark.parametrize("native", [False, True])
def test_codex_knows_one_provider_one_server_and_one_model(native: bool, tmp_path: Path) -> None:
    plan = _plan("codex", tmp_path, native=native, said=_SAID)
    config, model = _codex(plan)
    assert config["model"] == model["slug"] == "granite-4-code"
    (provider,) = config["model_providers"].values()
    assert provider["base_url"] == "http://models.vestibule.internal/openai/v1"
    (server,) = config["mcp_servers"].values()
    assert server["url"] == "http://context.vestibule.internal/mcp"
    assert {provider["env_key"], server["bearer_token_env_var"]} == {"VESTIBULE_TASK_TOKEN"}
    assert _SAID in config["developer_instructions"]
    assert config["projects"] == {"/workspace": {"trust_level": "untrusted"}}
    assert not any(config["features"].values())
    assert {"hooks", "plugins", "apps"} <= set(config["features"])
    assert ("shell_tool" in config["features"]) is not native
    assert model["apply_patch_tool_type"] == ("freeform" if native else None)
    assert ("--dangerously-bypass-approvals-and-sandbox" in plan.argv) is native
    assert not plan.env["CODEX_HOME"].startswith("/tmp"), "there it makes no helpers of its own"


@pytest.mark.parametrize("native", [False, True])
def test_opencode_knows_one_provider_one_server_and_no_tool_of_its_own_in_mcp_only(
    native: bool, tmp_path: Path
) -> None:
    plan = _plan("opencode", tmp_path, native=native, said=_SAID)
    config = _opencode(plan)
    assert config["model"] == config["small_model"] == "vestibule/granite-4-code"
    assert list(config["provider"]) == config["enabled_providers"] == ["vestibule"]
    assert list(config["mcp"]) == [MCP_SERVER]
    rules = list(config["permission"].items())
    # The last rule that matches counts.
    assert rules[0] == ("*", "allow" if native else "deny")
    assert dict(rules[1:]).items() >= ({"webfetch": "deny"} if native else {f"{MCP_SERVER}_*": "allow"}).items()
    assert ("--dir" in plan.argv) is not native
    (path,) = config["instructions"]
    assert _SAID.strip().encode() in plan.home_files[path.removeprefix("/home/agent/")]


_KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
_PLAIN = st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(codec="utf-8"), max_size=12)


@given(tables=st.dictionaries(_KEYS, st.dictionaries(_KEYS, _PLAIN, max_size=3)))
def test_what_is_written_as_toml_reads_as_it_was(tables: dict[str, dict[str, Any]]) -> None:
    assert tomllib.loads(_toml(tables)) == tables


@pytest.mark.parametrize("name", _RECORDED)
def test_a_recorded_transcript_says_its_last_words_and_no_refusal_of_its_own(name: str) -> None:
    """Commands that failed and refusals of ours are in each of them."""
    data = (TRANSCRIPTS / f"{name}.log").read_bytes()
    program = adapter(name.partition("-")[0])
    assert program.last_message(data) == "It greets politely."
    assert b"[context.write.scope]" in data or b"[model.call.write]" in data
    assert program.own_denials(data) == ()


def test_refusals_of_the_programs_own_are_named() -> None:
    item = {"type": "mcp_tool_call", "tool": "get_task", "status": "failed", "error": {"message": "user cancelled"}}
    shell = {"type": "command_execution", "command": "rm x", "status": "declined"}
    lines = [json.dumps({"type": "item.completed", "item": found}) for found in (item, shell)]
    assert set(Codex().own_denials("\n".join(lines).encode())) == {"get_task", "rm x"}
    error = "The user has specified a rule which prevents you from using this specific tool call. []"
    state = {"type": "tool_use", "part": {"tool": "bash", "state": {"status": "error", "error": error}}}
    assert OpenCode().own_denials(json.dumps(state).encode()) == ("bash",)


@pytest.mark.parametrize("name", _RECORDED)
def test_a_transcript_cut_anywhere_is_read(name: str) -> None:
    data = (TRANSCRIPTS / f"{name}.log").read_bytes()
    program = adapter(name.partition("-")[0])
    for end in range(0, len(data), 97):
        assert len(program.last_message(data[:end])) <= 2000
        assert program.own_denials(data[:end]) == ()
