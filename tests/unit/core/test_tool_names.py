"""The normal form of tool names: known exactly, or unknown."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.projects import claude_code_modules

from vestibule.core.tool_names import BUILT_IN, CLIS, Cli, Tool, ToolNames, spelling

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
CATALOGUES = st.dictionaries(NAMES, st.lists(NAMES, max_size=4, unique=True), max_size=4)
EACH = pytest.mark.parametrize("cli", CLIS)

SPELT: list[tuple[Cli, str, str]] = [
    ("reference", "", "read_file"),
    ("claude-code", "", "mcp__vestibule__read_file"),
    ("codex", "mcp__vestibule", "read_file"),
    ("opencode", "", "vestibule_read_file"),
    ("gemini-cli", "", "mcp_vestibule_read_file"),
    ("copilot-cli", "", "vestibule-read_file"),
]


@pytest.mark.parametrize(("cli", "namespace", "name"), SPELT)
def test_one_tool_in_every_spelling_is_one_tool(cli: Cli, namespace: str, name: str) -> None:
    names = ToolNames(cli, {"vestibule": ["read_file"]})
    assert names.normal(name, namespace) == Tool(kind="context", name="read_file", server="vestibule")


@pytest.mark.parametrize(
    ("cli", "name", "kind", "normal"),
    [
        ("claude-code", "Read", "read", "read_file"),
        ("claude-code", "MultiEdit", "write", "edit_file"),
        ("claude-code", "Bash", "exec", "run_command"),
        ("claude-code", "WebFetch", "network", "fetch"),
        ("claude-code", "Task", "other", "delegate"),
        ("codex", "shell", "exec", "run_command"),
        ("codex", "apply_patch", "write", "apply_patch"),
        ("codex", "update_plan", "other", "plan"),
        ("codex", "view_image", "read", "view_image"),
        ("opencode", "webfetch", "network", "fetch"),
        ("gemini-cli", "replace", "write", "edit_file"),
        ("gemini-cli", "run_shell_command", "exec", "run_command"),
        ("copilot-cli", "view", "read", "read_file"),
        ("copilot-cli", "bash", "exec", "run_command"),
    ],
)
def test_built_in_tools_have_their_kind(cli: Cli, name: str, kind: str, normal: str) -> None:
    assert ToolNames(cli, {}).normal(name) == Tool.model_validate({"kind": kind, "name": normal})


@EACH
def test_another_programs_name_is_unknown(cli: Cli) -> None:
    foreign = {name for other in CLIS if other != cli for row in BUILT_IN for name in row.of(other)}
    own = {name for row in BUILT_IN for name in row.of(cli)}
    names = ToolNames(cli, {})
    assert {names.normal(name).kind for name in foreign - own} == {"unknown"}
    assert len(own) == sum(len(row.of(cli)) for row in BUILT_IN), "no name stands twice"


@EACH
@given(data=st.data())
def test_only_exactly_the_known_names_are_known(cli: Cli, data: st.DataObject) -> None:
    names = ToolNames(cli, {"vestibule": ["read_file", "get_task"]})
    known = {name for row in BUILT_IN for name in row.of(cli)}
    known |= {form[1] for tool in ("read_file", "get_task") if (form := spelling(cli, "vestibule", tool))}
    text = data.draw(st.one_of(st.text(max_size=60), st.sampled_from(sorted(known)).map(str.swapcase)))
    if text not in known:
        assert names.normal(text) == Tool(kind="unknown", name=text)


@EACH
@pytest.mark.parametrize(
    "trick",
    [
        str.upper,
        str.title,
        lambda name: name + " ",
        lambda name: "\u200b" + name,
        lambda name: name.replace("e", "\u0435"),
        lambda name: name.replace("a", "\uff41"),
        lambda name: name + "\0",
        lambda name: unicodedata.normalize("NFD", name.replace("e", "\u00e9")),
    ],
)
def test_case_look_alikes_and_hidden_characters_are_unknown(cli: Cli, trick: object) -> None:
    assert callable(trick)
    names = ToolNames(cli, {"vestibule": ["read_file"]})
    form = spelling(cli, "vestibule", "read_file")
    assert form is not None
    changed = trick(form[1])
    assert changed != form[1]
    assert names.normal(changed, form[0]).kind == "unknown"


@EACH
@given(catalogue=CATALOGUES)
def test_a_spelling_means_one_tool_or_nothing(cli: Cli, catalogue: dict[str, list[str]]) -> None:
    names = ToolNames(cli, catalogue)
    meanings: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in BUILT_IN:
        for name in row.of(cli):
            meanings.setdefault(("", name), set()).add(("", row.name))
    for server, tools in catalogue.items():
        for tool in tools:
            form = spelling(cli, server, tool)
            if form is not None:
                meanings.setdefault(form, set()).add((server, tool))
    for (namespace, name), meant in meanings.items():
        found = names.normal(name, namespace)
        if len(meant) == 1:
            assert (found.server, found.name) in meant
            assert found.kind != "unknown"
        else:
            assert found.kind == "unknown"


@pytest.mark.parametrize(
    ("cli", "servers", "name"),
    [
        ("opencode", {"a_b": ["c"], "a": ["b_c"]}, "a_b_c"),
        ("gemini-cli", {"a_b": ["c"], "a": ["b_c"]}, "mcp_a_b_c"),
        ("claude-code", {"a__b": ["c"], "a": ["b__c"]}, "mcp__a__b__c"),
        ("copilot-cli", {"a-b": ["c"], "a": ["b-c"]}, "a-b-c"),
        ("opencode", {"apply": ["patch"]}, "apply_patch"),
        ("reference", {"one": ["read_file"], "two": ["read_file"]}, "read_file"),
    ],
)
def test_a_spelling_that_two_tools_share_is_unknown(cli: Cli, servers: dict[str, list[str]], name: str) -> None:
    assert ToolNames(cli, servers).normal(name).kind == "unknown"


def test_a_server_whose_name_has_underscores_is_found_by_its_name() -> None:
    names = ToolNames("opencode", {"error_log": ["find_issue"]})
    assert names.normal("error_log_find_issue") == Tool(kind="context", name="find_issue", server="error_log")
    assert names.normal("error_log_other").kind == "unknown"


@EACH
def test_names_that_programs_cut_or_rewrite_are_unknown(cli: Cli) -> None:
    for server, tool in (("s" * 40, "t" * 130), ("s p", "t"), ("s", "t.u"), ("", "t"), ("s", ""), ("s", "t\n")):
        assert spelling(cli, server, tool) is None


def test_codex_needs_the_namespace() -> None:
    names = ToolNames("codex", {"vestibule": ["read_file"]})
    assert names.normal("read_file").kind == "unknown"
    assert names.normal("read_file", "mcp__other").kind == "unknown"
    assert names.normal("shell", "mcp__vestibule").kind == "unknown"


def test_every_tool_that_the_pinned_claude_code_declares_is_known() -> None:
    """The type file that ships with the program names the inputs of its built-in tools."""
    root = Path(__file__).resolve().parents[3]
    declared = claude_code_modules() / "@anthropic-ai/claude-code/sdk-tools.d.ts"
    pinned = json.loads((root / "tests/tools/package.json").read_text())["dependencies"]["@anthropic-ai/claude-code"]
    assert json.loads(declared.with_name("package.json").read_text())["version"] == pinned
    inputs = set(re.findall(r"export interface (\w+)Input\b", declared.read_text()))
    renamed = {
        "FileRead": "Read",
        "FileEdit": "Edit",
        "FileWrite": "Write",
        "ListMcpResources": "ListMcpResourcesTool",
        "ReadMcpResource": "ReadMcpResourceTool",
        "ReadMcpResourceDir": "ReadMcpResourceDirTool",
    }
    not_tools = {"Mcp", "ShowOnboardingRolePicker"}
    names = ToolNames("claude-code", {})
    unknown = {name for name in inputs - not_tools if names.normal(renamed.get(name, name)).kind == "unknown"}
    assert unknown == set()
