"""Plans for Gemini CLI and Copilot CLI, and what is made of transcripts that they really wrote."""

from __future__ import annotations

import json
import secrets
import tomllib
from pathlib import Path
from typing import Any

import pytest

from vestibule.agents.base import MCP_SERVER, Plan, Situation
from vestibule.agents.copilot import MAX_ARGUMENT, Copilot
from vestibule.agents.gemini import MAX_OBJECTS, Gemini
from vestibule.core.instructions import Instruction
from vestibule.core.labels import Integrity, Label
from vestibule.core.model import AgentRef, Budget, Scope, Spec, Task

TOKEN = secrets.token_urlsafe(24)
TRANSCRIPTS = Path(__file__).with_name("transcripts")
ATTACHED = "Greet @src/app.py and me@example.com politely"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    links = tmp_path / "node_modules" / ".bin"
    links.mkdir(parents=True)
    for name in ("gemini", "copilot"):
        (links / name).write_text("#!\n")
    return links.parent


def _situation(tools: Path, *, native: bool = False, title: str = "t", text: str = "", **more: Any) -> Situation:
    task = Task(
        run="r00000000000000",
        spec=Spec(title=title, body="b", ticket_digest="sha256:0", integrity=Integrity.MEMBER),
        role="fixer",
        scope=Scope(read=("src/**",), write=("src/**",), tools=("read_file",)),
        budget=Budget(),
        agent=AgentRef(name="a", adapter="gemini", model="some-model"),
        requester="local:ada",
        base_commit="0" * 40,
    )
    told = (Instruction(path="AGENTS.md", commit="0" * 40, label=Label(), text=text),) if text else ()
    return Situation(task=task, token=TOKEN, tools=(tools,), native=native, instructions=told, **more)


def _settings(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan.home_files[".gemini/settings.json"])
    return found


def test_gemini_is_offered_only_our_servers_tools(tools: Path) -> None:
    plan = Gemini().plan(_situation(tools))
    rules = tomllib.loads(plan.home_files[".gemini/policies/vestibule.toml"].decode())["rule"]
    denied, allowed = rules
    assert (denied["toolName"], denied["decision"], "mcpName" in denied) == ("*", "deny", False)
    assert (allowed["mcpName"], allowed["decision"]) == (MCP_SERVER, "allow")
    assert allowed["priority"] > denied["priority"]
    assert all(name.endswith("MCPTool") for name in _settings(plan)["tools"]["core"])


def test_gemini_native_has_neither_web_tools_nor_agents(tools: Path) -> None:
    plan = Gemini().plan(_situation(tools, native=True))
    (rule,) = tomllib.loads(plan.home_files[".gemini/policies/vestibule.toml"].decode())["rule"]
    assert rule["decision"] == "deny"
    assert {"google_web_search", "web_fetch", "invoke_agent"} <= set(rule["toolName"])
    assert "tools" not in _settings(plan)


@pytest.mark.parametrize("native", [False, True])
def test_gemini_reads_settings_before_the_folder_is_trusted_and_adds_nothing_of_it(tools: Path, native: bool) -> None:
    plan = Gemini().plan(_situation(tools, native=native))
    settings = _settings(plan)
    assert settings["security"]["folderTrust"] == {"enabled": True}
    assert "--skip-trust" in plan.argv
    assert "GEMINI_CLI_TRUST_WORKSPACE" not in plan.env, "trust by a variable would come before the settings"
    assert plan.env["GEMINI_CLI_NO_RELAUNCH"] == "true"
    off = [settings["hooksConfig"], settings["skills"], settings["admin"]["extensions"]]
    assert off == [{"enabled": False}] * 3
    assert settings["advanced"]["ignoreLocalEnv"] is True
    assert plan.env["HTTPS_PROXY"] == plan.env["GEMINI_SYSTEM_MD"] == "", "`.gemini/.env` sets what is not set"


def test_gemini_asks_the_tasks_model_by_every_alias(tools: Path) -> None:
    settings = _settings(Gemini().plan(_situation(tools)))
    (override,) = settings["modelConfigs"]["customOverrides"]
    assert override == {"match": {"overrideScope": "core"}, "modelConfig": {"model": "some-model"}}


def test_gemini_takes_no_path_in_a_title_or_an_instruction_for_a_file(tools: Path) -> None:
    plan = Gemini().plan(_situation(tools, title=ATTACHED, text="Read @/workspace/x.md first."))
    words = plan.argv[plan.argv.index("--prompt") + 1]
    assert words.endswith("Greet \\@src/app.py and me\\@example.com politely")
    assert b"Read \\@/workspace/x.md first." in plan.home_files[".gemini/GEMINI.md"]
    assert _settings(plan)["ui"]["escapePastedAtSymbols"] is True


@pytest.mark.parametrize(
    ("api", "kind", "address"),
    [
        ("anthropic", ("anthropic", None), "/anthropic"),
        ("responses", ("openai", "responses"), "/openai/v1"),
        ("chat", ("openai", "completions"), "/openai/v1"),
    ],
)
def test_copilot_speaks_each_wire_format_to_the_gateway(
    tools: Path, api: str, kind: tuple[str, str | None], address: str
) -> None:
    env = Copilot().plan(_situation(tools, api=api)).env
    assert (env["COPILOT_PROVIDER_TYPE"], env.get("COPILOT_PROVIDER_WIRE_API")) == kind
    assert env["COPILOT_PROVIDER_BASE_URL"] == f"http://models.vestibule.internal{address}"
    assert env["COPILOT_PROVIDER_API_KEY"] == TOKEN
    assert (env["COPILOT_MODEL"], env["COPILOT_OFFLINE"]) == ("some-model", "true")


@pytest.mark.parametrize("native", [False, True])
def test_copilot_does_not_trust_the_folder(tools: Path, native: bool) -> None:
    plan = Copilot().plan(_situation(tools, native=native))
    assert "--trust-folder" not in plan.argv
    assert {"--no-custom-instructions", "--disable-builtin-mcps", "--disable-client-telemetry"} <= set(plan.argv)
    assert json.loads(plan.home_files[".copilot/settings.json"])["disableAllHooks"] is True
    only = f"--available-tools={MCP_SERVER}"
    assert (only in plan.argv) is not native
    assert ("--allow-all-tools" in plan.argv) is native


def test_copilot_native_has_neither_web_tools_nor_agents(tools: Path) -> None:
    plan = Copilot().plan(_situation(tools, native=True))
    (off,) = (item.removeprefix("--excluded-tools=") for item in plan.argv if item.startswith("--excluded-tools="))
    assert {"web_fetch", "task", "skill", "store_memory"} <= set(off.split(","))


def test_instructions_of_copilot_fit_into_an_argument(tools: Path) -> None:
    plan = Copilot().plan(_situation(tools, text="é" * 200_000))
    words = plan.argv[plan.argv.index("--prompt") + 1]
    assert MAX_ARGUMENT < len(words.encode()) < 128 * 1024
    assert "get_task gives the instructions whole" in words
    assert words.endswith("Task: t")


@pytest.mark.parametrize(
    ("program", "transcript", "refused"),
    [
        (Gemini(), "gemini-mcp.log", "mcp_vestibule_write_file"),
        (Copilot(), "copilot-mcp.log", "vestibule-write_file"),
    ],
    ids=["gemini", "copilot"],
)
def test_recorded_transcript_gives_the_closing_words_and_the_failed_call(
    program: Gemini | Copilot, transcript: str, refused: str
) -> None:
    data = (TRANSCRIPTS / transcript).read_bytes()
    assert program.last_message(data) == "All is polite now."
    assert program.own_denials(data) == (refused,)
    assert program.last_message(data[:40]) == data[:40].decode().strip(), "cut: what was printed last"
    assert program.own_denials(data[:40]) == ()


def test_an_object_in_the_answer_is_not_the_result_of_gemini() -> None:
    result = {"session_id": "s", "response": "Done.\n{\n", "stats": {"tools": {"byName": {"x": {"fail": 0}}}}}
    text = json.dumps(result, indent=2) + '\n{"session_id": 1' + "\n{" * (MAX_OBJECTS - 2)
    assert Gemini().last_message(text.encode()) == "Done.\n{\n"
    assert Gemini().own_denials(text.encode()) == ()
