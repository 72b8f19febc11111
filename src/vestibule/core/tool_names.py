"""One normal form for the names under which agent programs offer tools to their models.

The same tool has five spellings on the wire: `mcp__vestibule__read_file` (Claude Code), namespace `mcp__vestibule` and
name `read_file` (Codex), `vestibule_read_file` (opencode), `mcp_vestibule_read_file` (Gemini CLI),
`vestibule-read_file` (Copilot CLI). A rule about names has to know which tool is meant.

Rules it keeps:
1. A name is known when it is, character for character, one that the program is known to use: nothing is folded,
   trimmed or guessed, so another case, a look-alike letter or a hidden character is `unknown`.
2. A spelling that two tools share (a server `a_b` with `c` and a server `a` with `b_c`; a server tool spelt like a
   built-in one) is `unknown`: whoever could choose names could choose what is allowed.
3. What a built-in tool is called says what it does when the program is honest. A hijacked one may do anything inside
   its sandbox; walls hold that, not names.

Sources: the type file shipped with Claude Code 2.1.197 and its tools reference; handlers of openai/codex
(`core/src/tools/spec_plan.rs`); opencode's tools page and the registry in its program; `base-declarations.ts` and
`mcp-tool.ts` of gemini-cli; "Tool availability values" of the Copilot CLI command reference, and what 1.0.102 offers.
Measured on the wire for the MCP spellings, and for what each program offers in its two modes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from vestibule.core.base import Noun

Cli = Literal["reference", "claude-code", "codex", "opencode", "gemini-cli", "copilot-cli"]
Kind = Literal["context", "read", "write", "exec", "network", "other", "declared", "unknown"]

CLIS: tuple[Cli, ...] = ("reference", "claude-code", "codex", "opencode", "gemini-cli", "copilot-cli")


class Tool(Noun):
    """Which tool a name means. `context`: tool `name` of the MCP server `server`. Else a built-in of the program.

    `declared`: a tool of a program whose tools nobody knows, by the name that it gave it.
    `unknown` keeps the name as it came, for the record only.
    """

    kind: Kind
    name: str
    server: str = ""


class Row(Noun):
    """A built-in tool: what it does, our name for it, and each program's names for it."""

    kind: Kind
    name: str
    claude_code: tuple[str, ...] = ()
    codex: tuple[str, ...] = ()
    opencode: tuple[str, ...] = ()
    gemini_cli: tuple[str, ...] = ()
    copilot_cli: tuple[str, ...] = ()

    def of(self, cli: Cli) -> tuple[str, ...]:
        """The names that one program has for it."""
        if cli == "reference":
            return ()
        found: tuple[str, ...] = getattr(self, cli.replace("-", "_"))
        return found


BUILT_IN: tuple[Row, ...] = (
    Row(
        kind="read",
        name="read_file",
        claude_code=("Read", "NotebookRead"),
        opencode=("read",),
        gemini_cli=("read_file", "read_many_files"),
        copilot_cli=("view", "show_file"),
    ),
    Row(kind="read", name="view_image", codex=("view_image",)),
    Row(kind="read", name="list_files", claude_code=("LS",), opencode=("list",), gemini_cli=("list_directory",)),
    Row(
        kind="read",
        name="find_files",
        claude_code=("Glob",),
        opencode=("glob",),
        gemini_cli=("glob",),
        copilot_cli=("glob",),
    ),
    Row(
        kind="read",
        name="search_files",
        claude_code=("Grep",),
        opencode=("grep",),
        gemini_cli=("grep_search", "search_file_content"),
        copilot_cli=("grep", "rg"),
    ),
    Row(kind="read", name="code_intelligence", claude_code=("LSP",), opencode=("lsp",), copilot_cli=("lsp",)),
    Row(
        kind="write",
        name="write_file",
        claude_code=("Write",),
        opencode=("write",),
        gemini_cli=("write_file",),
        copilot_cli=("create",),
    ),
    Row(
        kind="write",
        name="edit_file",
        claude_code=("Edit", "MultiEdit"),
        opencode=("edit",),
        gemini_cli=("replace",),
        copilot_cli=("edit",),
    ),
    Row(kind="write", name="edit_notebook", claude_code=("NotebookEdit",)),
    Row(
        kind="write",
        name="apply_patch",
        codex=("apply_patch",),
        opencode=("apply_patch", "patch"),
        copilot_cli=("apply_patch",),
    ),
    Row(kind="write", name="change_settings", claude_code=("Config",)),
    Row(
        kind="exec",
        name="run_command",
        claude_code=("Bash", "PowerShell", "REPL"),
        codex=("shell", "shell_command", "exec_command", "local_shell", "container.exec"),
        opencode=("bash",),
        gemini_cli=("run_shell_command",),
        copilot_cli=("bash", "powershell"),
    ),
    Row(
        kind="exec",
        name="run_script",
        claude_code=("Workflow", "Monitor"),
        codex=("exec", "wait"),
        opencode=("execute",),
    ),
    Row(kind="exec", name="command_input", codex=("write_stdin",), copilot_cli=("write_bash", "write_powershell")),
    Row(
        kind="exec",
        name="command_output",
        claude_code=("BashOutput", "TaskOutput"),
        gemini_cli=("list_background_processes", "read_background_output"),
        copilot_cli=("read_bash", "read_powershell", "list_bash", "list_powershell"),
    ),
    Row(
        kind="exec",
        name="stop_command",
        claude_code=("KillShell", "KillBash", "TaskStop"),
        copilot_cli=("stop_bash", "stop_powershell"),
    ),
    Row(kind="exec", name="worktree", claude_code=("EnterWorktree", "ExitWorktree")),
    Row(
        kind="network",
        name="fetch",
        claude_code=("WebFetch", "WebBrowser"),
        opencode=("webfetch",),
        gemini_cli=("web_fetch",),
        copilot_cli=("web_fetch", "fetch_copilot_cli_documentation"),
    ),
    Row(
        kind="network",
        name="search_web",
        claude_code=("WebSearch",),
        codex=("web_search",),
        opencode=("websearch", "codesearch"),
        gemini_cli=("google_web_search",),
    ),
    Row(
        kind="network",
        name="publish",
        claude_code=("Artifact", "Projects", "PushNotification", "RemoteTrigger", "SendUserFile"),
        codex=("image_generation", "request_plugin_install"),
        copilot_cli=("store_memory",),
    ),
    Row(
        kind="other",
        name="delegate",
        claude_code=("Task", "Agent", "SendMessage"),
        codex=(
            "spawn_agent",
            "spawn_agents_on_csv",
            "send_input",
            "send_message",
            "resume_agent",
            "wait_agent",
            "close_agent",
            "list_agents",
            "followup_task",
            "report_agent_job_result",
        ),
        opencode=("task",),
        gemini_cli=("invoke_agent", "complete_task"),
        copilot_cli=("task", "read_agent", "write_agent", "list_agents"),
    ),
    Row(
        kind="other",
        name="plan",
        claude_code=(
            "TodoWrite",
            "TodoRead",
            "TaskCreate",
            "TaskGet",
            "TaskList",
            "TaskUpdate",
            "EnterPlanMode",
            "ExitPlanMode",
        ),
        codex=("update_plan", "create_goal", "get_goal", "update_goal"),
        opencode=("todowrite", "todoread", "plan_exit"),
        gemini_cli=(
            "write_todos",
            "update_topic",
            "enter_plan_mode",
            "exit_plan_mode",
            "tracker_create_task",
            "tracker_update_task",
            "tracker_get_task",
            "tracker_list_tasks",
            "tracker_add_dependency",
            "tracker_visualize",
        ),
        copilot_cli=("update_todo", "report_intent", "task_complete", "exit_plan_mode", "sql"),
    ),
    Row(
        kind="other",
        name="ask_person",
        claude_code=("AskUserQuestion", "SendUserMessage"),
        codex=("request_user_input", "request_permissions"),
        opencode=("question",),
        gemini_cli=("ask_user",),
        copilot_cli=("ask_user",),
    ),
    Row(
        kind="other",
        name="instructions",
        claude_code=("Skill", "SlashCommand"),
        opencode=("skill",),
        gemini_cli=("activate_skill", "get_internal_docs"),
        copilot_cli=("skill",),
    ),
    Row(
        kind="other",
        name="schedule",
        claude_code=("CronCreate", "CronDelete", "CronList", "ScheduleWakeup"),
        copilot_cli=("manage_schedule",),
    ),
    Row(kind="other", name="past_sessions", copilot_cli=("session_store_sql",)),
    Row(kind="other", name="find_tools", claude_code=("ToolSearch",), codex=("tool_search",)),
    Row(
        kind="other",
        name="mcp_resources",
        claude_code=("ListMcpResourcesTool", "ReadMcpResourceTool", "ReadMcpResourceDirTool"),
        codex=("list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource"),
        gemini_cli=("list_mcp_resources", "read_mcp_resource"),
    ),
    Row(kind="other", name="answer", claude_code=("StructuredOutput", "ReportFindings")),
)
"""Every built-in tool that is known. What is not here is `unknown`."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")
_MAX = {"claude-code": 64, "codex": 64, "opencode": 64, "gemini-cli": 63, "copilot-cli": 64, "reference": 128}
"""Beyond this, programs cut names in ways of their own: such a spelling is not known."""


def spelling(cli: Cli, server: str, tool: str) -> tuple[str, str] | None:
    """Namespace (Codex only, else empty) and name under which `cli` offers tool `tool` of MCP server `server`.

    None when that is not known: empty or over-long names, and characters that programs replace. Our reference agent
    offers tools under their own names and knows one server only, which the caller passes.
    """
    if not _PLAIN.match(server) or not _PLAIN.match(tool):
        return None
    forms = {
        "reference": ("", tool),
        "claude-code": ("", f"mcp__{server}__{tool}"),
        "codex": (f"mcp__{server}", tool),
        "opencode": ("", f"{server}_{tool}"),
        "gemini-cli": ("", f"mcp_{server}_{tool}"),
        "copilot-cli": ("", f"{server}-{tool}"),
    }
    namespace, name = forms[cli]
    return (namespace, name) if len(namespace) + len(name) <= _MAX[cli] else None


class ToolNames:
    """The names of one program's tools, given the MCP servers that it is pointed at and their tools."""

    def __init__(self, cli: Cli, servers: Mapping[str, Collection[str]]) -> None:
        known: dict[tuple[str, str], Tool] = {}
        shared: set[tuple[str, str]] = set()
        pairs = [
            *((("", name), Tool(kind=row.kind, name=row.name)) for row in BUILT_IN for name in row.of(cli)),
            *(
                (form, Tool(kind="context", name=tool, server=server))
                for server, tools in servers.items()
                for tool in tools
                if (form := spelling(cli, server, tool)) is not None
            ),
        ]
        for form, tool in pairs:
            if known.setdefault(form, tool) != tool:
                shared.add(form)
        self.cli = cli
        self._known = {form: tool for form, tool in known.items() if form not in shared}

    def normal(self, name: str, namespace: str = "") -> Tool:
        """What `name` (of `namespace`) means; `unknown` when that is not certain. Never raises."""
        return self._known.get((namespace, name)) or Tool(kind="unknown", name=name)

    def part_of(self, server: str, name: str, namespace: str = "") -> str | None:
        """The tool of `server` that `name` spells, for servers whose tools come and go; None when it spells none.

        Only for names that `normal` does not know, so that a built-in one is never taken for a server's.
        """
        empty = spelling(self.cli, server, "x")
        if empty is None or empty[0] != namespace or not name.startswith(empty[1][:-1]):
            return None
        part = name[len(empty[1]) - 1 :]
        return part if spelling(self.cli, server, part) == (namespace, name) else None
