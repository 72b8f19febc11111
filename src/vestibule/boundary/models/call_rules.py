"""What a model may ask its agent's program to do: the facts of `model.tool_call`. Pure.

Rules it keeps:
1. A call is judged by what its bytes say to every parser: cut, oversized, twice-keyed or unreadable calls have no
   meaning that could be allowed (`call_rule`).
2. Names are compared as `core.tool_names` knows them for the agent's program; what is not certain is `unknown`.
3. A call of our own MCP server crosses again: the context endpoint decides it there, with its paths, and its refusal
   reaches the model as the tool's result. Here it needs a whole, well-formed call of a tool that is ours.
4. A built-in tool never reaches a gateway. Its paths are decided here, by the same rules as at the context endpoint:
   what the scope does not let be read or written, control files and protected paths are refused.
5. Facts come from the scope and the call alone, never from whether a file exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vestibule.boundary.models.formats.base import Asked, Offered
from vestibule.boundary.models.hold.base import Held
from vestibule.boundary.models.shape import misfit
from vestibule.boundary.models.wire.strict_json import BadJson, parse
from vestibule.core.control_files import control_file, protected_path
from vestibule.core.model import Scope
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.globs import first_match
from vestibule.core.text.names import NameRefused, canonical_host
from vestibule.core.text.paths import PathRefused, fold, normalise_path
from vestibule.core.text.sanitize import one_line
from vestibule.core.tool_names import Tool

WORKSPACE = "/workspace"
_OWN_PLACES = ("/tmp/", "/home/agent/", "/dev/null")  # noqa: S108 inside the sandbox: a tmpfs of the run's own
_SYSTEM = ("/usr/",)
"""What a sandbox shows of the machine, read-only."""
_FOLDERS = ("list_files", "find_files", "search_files")
_PATH_KEYS = ("file_path", "filePath", "path", "absolute_path", "notebook_path", "dir_path", "filename", "file", "cwd")
_PATCH_KEYS = ("input", "patch", "patchText", "patch_text")
_URL_KEYS = ("url", "uri")
_PATCH_HEAD = re.compile(r"\s*\*{3}\s*(?:(?:add|update|delete)\s+file|move\s+(?:to|file))\s*:", re.IGNORECASE)
"""A line that names a file, for any program: some trim it, some do not ask for the space behind the colon."""
_DIFF_HEAD = re.compile(r"(?:\+\+\+|---|rename (?:from|to)|copy (?:from|to)) (?:[ab]/)?")
_MUST_NAME = ("read_file", "view_image", "write_file", "edit_file", "edit_notebook", "apply_patch")
"""Tools that do nothing without a path: one that is not found here stands where it is not looked for."""
MAX_PATHS = 1_000
"""Paths in one call. Each is compared with every rule of the scope."""
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class House:
    """What calls are judged against: what a name (and namespace) means for the program (None: a program nobody knows
    the tools of), the scope as it is now (people grant while the agent works), and whether built-in tools may be used
    at all (`native`)."""

    normal: Callable[[str, str], Tool] | None
    scope: Callable[[], Scope]
    native: bool = False


@dataclass(frozen=True, slots=True)
class CallFacts:
    """One call ready to be decided. `refusal` says what the first bad fact means, for the agent."""

    resource: dict[str, Any]
    facts: dict[str, Any]
    refusal: Refusal | None = None


def judge_call(held: Held, asked: Asked, house: House) -> CallFacts:
    """The facts about one held call."""
    tool = _tool(held, house)
    offered = _offered(held, asked)
    if tool.kind == "unknown" and offered is not None and offered.provider:
        # The provider's own, which policy named for the request: it crosses there, and nowhere inside the walls.
        tool = Tool(kind="other", name=held.name)
    call_rule, arguments = _arguments(held)
    context = tool.kind == "context"
    facts: dict[str, Any] = {
        "call_ok": not call_rule,
        "call_rule": call_rule,
        "tool_known": tool.kind != "unknown",
        "native_allowed": context or house.native or tool.kind in ("other", "declared"),
        "offered": offered is not None or context,
        "arguments_ok": call_rule != "" or offered is None or _fits(arguments, offered),
        "path_rule": "",
        "in_read": True,
        "in_write": True,
        "control_file": False,
        "protected": False,
        "host_allowed": True,
    }
    resource = {
        "id": one_line(f"{tool.kind}/{tool.name}", _SHOWN),
        "tool": one_line(tool.name, 128),
        "kind": tool.kind,
        "server": tool.server,
        "spelling": one_line(f"{held.namespace}/{held.name}" if held.namespace else held.name, 128),
        "api": asked.format,
        "path": "",
    }
    if not call_rule and tool.kind in ("read", "write"):
        _judge_paths(tool, arguments, house.scope(), facts, resource)
    if not call_rule and tool.kind == "network":
        facts["host_allowed"] = _host_allowed(tool, arguments, house.scope())
    return CallFacts(resource, facts, _refusal(facts, resource, offered, arguments))


def _tool(held: Held, house: House) -> Tool:
    if house.normal is not None:
        return house.normal(held.name, held.namespace)
    # A program whose tools nobody knows: what it offers to its model is its own business, inside the walls.
    return Tool(kind="declared", name=held.name)


def _offered(held: Held, asked: Asked) -> Offered | None:
    return next((t for t in asked.tools if t.name == held.name and t.namespace == held.namespace), None)


def _arguments(held: Held) -> tuple[str, Any]:
    """What is wrong with the call's bytes (empty: nothing), and its arguments: an object, or the text of a custom
    tool."""
    if held.problem:
        return f"model.call.{held.problem}", None
    if not held.name or len(held.name) > 256 or not held.name.isprintable():
        return "model.call.name", None
    if held.form == "text":
        try:
            return "", held.arguments.decode("utf-8")
        except UnicodeDecodeError:
            return "model.call.json", None
    try:
        value = parse(held.arguments or b"{}")
    except BadJson as error:
        return ("model.call.duplicate_keys" if "twice" in str(error) else "model.call.json"), None
    return ("", value) if isinstance(value, dict) else ("model.call.json", None)


def _fits(arguments: Any, offered: Offered) -> bool:
    return offered.schema is None or offered.form == "text" or misfit(arguments, offered.schema) is None


def _judge_paths(tool: Tool, arguments: Any, scope: Scope, facts: dict[str, Any], resource: dict[str, Any]) -> None:
    """Every path that the arguments name; the first that may not be touched decides the facts."""
    paths = _paths(tool, arguments)
    if len(paths) > MAX_PATHS:
        facts["path_rule"] = "path.many"
        return
    for text in paths:
        try:
            path = _inside(text, folders=tool.name in _FOLDERS, reads=tool.kind == "read")
        except PathRefused as error:
            facts["path_rule"] = error.rule
            resource["path"] = one_line(text, _SHOWN)
            return
        if not path:
            continue
        resource["path"] = one_line(path, _SHOWN)
        facts["control_file"] = control_file(path) is not None
        if tool.kind == "write":
            facts["in_write"] = scope.writes(path)
            facts["protected"] = (
                protected_path(path) is not None
                or first_match(path, scope.protected) is not None
                or first_match(fold(path), tuple(fold(glob) for glob in scope.protected)) is not None
            )
        elif tool.name in ("read_file", "view_image", "code_intelligence"):
            facts["in_read"] = scope.shows(path)
        if not (facts["in_read"] and facts["in_write"]) or facts["protected"] or facts["control_file"]:
            return
    if tool.name == "find_files":
        facts["path_rule"] = _pattern_rule(arguments)


def _paths(tool: Tool, arguments: Any) -> list[str]:
    """The paths that a call names, wherever in its arguments they stand; `[""]` for none where one is needed."""
    found: list[str] = []
    waiting: list[Any] = [arguments]
    if isinstance(arguments, str):
        found, waiting = _patched(arguments), []
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
            continue
        if not isinstance(item, dict):
            continue
        for key, value in item.items():
            if isinstance(value, str):
                if key in _PATH_KEYS:
                    found.append(value)
                elif tool.name == "apply_patch" and key in _PATCH_KEYS:
                    found += _patched(value)
            elif isinstance(value, list) and key in ("paths", "files", "include"):
                found += [part for part in value if isinstance(part, str)]
                waiting.append(value)
            else:
                waiting.append(value)
    found = list(dict.fromkeys(found))
    return found or ([""] if tool.name in _MUST_NAME else [])


def _patched(text: str) -> list[str]:
    """Files that a patch names, in the envelope of agent programs or as a unified diff.

    Programs differ in what ends a line: what either way names is found.
    """
    lines = dict.fromkeys((*text.split("\n"), *text.splitlines()))
    found = [line[head.end() :].removeprefix(" ") for line in lines if (head := _PATCH_HEAD.match(line))]
    if not found:
        found = [line[head.end() :] for line in lines if (head := _DIFF_HEAD.match(line))]
    return [item for item in (path.rstrip(" \t\r") for path in found) if item != "/dev/null"]


def _pattern_rule(arguments: Any) -> str:
    """What is wrong with where a pattern of file names begins: it is a path too, up to its first wild card."""
    text = arguments.get("pattern") if isinstance(arguments, dict) else None
    if not isinstance(text, str):
        return ""
    if ".." in re.split(r"[/{},]", text):
        return "path.traversal"
    places = (WORKSPACE + "/", *_OWN_PLACES, *_SYSTEM)
    outside = text.startswith("~") or (text.startswith("/") and not text.startswith(places))
    return "path.absolute" if outside else ""


def _inside(text: str, *, folders: bool, reads: bool) -> str:
    """The workspace's path in its normal form; `""` for the workspace itself and for places of the run's own.

    Raises:
        PathRefused.
    """
    if text != text.strip():
        # Some programs trim what they are given, of every kind of space.
        raise PathRefused("path.trailing", "The path begins or ends with a space.", "Remove it.")
    if text == WORKSPACE or (folders and text in ("", ".", "./")):
        return ""
    if text.startswith(WORKSPACE + "/"):
        text = text.removeprefix(WORKSPACE + "/")
    elif text.startswith((*_OWN_PLACES, *_SYSTEM) if reads else _OWN_PLACES) and "/../" not in f"{text}/":
        return ""
    return normalise_path(
        text.removeprefix("./").rstrip("/") if folders else text.removeprefix("./"), allow_root=folders
    )


def _host_allowed(tool: Tool, arguments: Any, scope: Scope) -> bool:
    if tool.name != "fetch" or not isinstance(arguments, Mapping):
        return False
    urls = [value for key in _URL_KEYS if isinstance(value := arguments.get(key), str)]
    return bool(urls) and all(_host_of(url) in {host.rpartition(":")[0] for host in scope.hosts} for url in urls)


def _host_of(url: str) -> str:
    # Browsers' rules make a slash of a backslash, and pass over what is not printed: another host than is read here.
    if "\\" in url or not url.isascii() or not url.isprintable() or " " in url:
        return ""
    try:
        parts = urlsplit(url)
        return canonical_host(parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except (ValueError, NameRefused):
        return ""


_OFFERED = "Use a tool that you were offered."
_WHY: tuple[tuple[str, bool, str, str, str], ...] = (
    # fact, its good value, rule, why, what the agent can do
    ("tool_known", True, "model.call.tool", "this is no tool that the task's agent is known to have", _OFFERED),
    ("offered", True, "model.call.not_offered", "this tool was not offered in the request", _OFFERED),
    (
        "native_allowed",
        True,
        "model.call.native",
        "built-in tools are off for this task",
        "Use the tools of the vestibule server.",
    ),
    (
        "arguments_ok",
        True,
        "model.call.arguments",
        "the arguments do not fit the tool's schema",
        "Send the call again with arguments as the tool's schema says.",
    ),
    (
        "control_file",
        False,
        "model.call.control_file",
        "the path is one that configures agents",
        "Leave such files alone; a person changes them.",
    ),
    (
        "in_read",
        True,
        "model.call.read",
        "the path is outside of what this task may read",
        "Work with the files of the task's scope, or ask with request_scope.",
    ),
    (
        "in_write",
        True,
        "model.call.write",
        "the path is outside of what this task may change",
        "Work within the task's scope, or ask with request_scope.",
    ),
    (
        "protected",
        False,
        "model.call.protected",
        "the path is protected",
        "Leave it as it is and say in your answer what would have to change.",
    ),
    ("host_allowed", True, "model.call.host", "the task may not reach this host", "Go on without it."),
)
_CALL_SENTENCES = {
    "model.call.cut": "the answer ended within it",
    "model.call.oversized": "it is larger than 8 MiB",
    "model.call.json": "its arguments are no JSON object",
    "model.call.duplicate_keys": "a key stands twice in its arguments, so that two programs would read two things",
    "model.call.shape": "its parts contradict each other",
    "model.call.name": "it names no tool",
}


def _refusal(
    facts: dict[str, Any], resource: dict[str, Any], offered: Offered | None, arguments: Any
) -> Refusal | None:
    """What the first bad fact means. None: nothing here speaks against it."""
    tool, path = resource["tool"], resource["path"]
    person = "See the role's scope and tools in .vestibule/config.yaml, or the policy for model.tool_call."
    if facts["call_rule"]:
        why = _CALL_SENTENCES.get(facts["call_rule"], "it cannot be read")
        return _refused(
            facts["call_rule"], tool, why, "", agent="Send the call again, whole and with plain JSON.", person=person
        )
    if facts["path_rule"]:
        return _refused(
            facts["path_rule"],
            tool,
            "the path has no plain form",
            path,
            agent="Use a plain relative path.",
            person=person,
        )
    for fact, good, rule, why, next_step in _WHY:
        if facts[fact] is not good:
            shown = path
            if fact == "arguments_ok" and offered is not None and offered.schema is not None:
                shown = misfit(arguments, offered.schema) or ""
            return _refused(rule, tool, why, shown, agent=next_step, person=person)
    return None


def _refused(rule: str, tool: str, why: str, fact: str, *, agent: str, person: str) -> Refusal:
    return refusal(
        rule, f"The call of {tool or 'a tool'} was not carried out: {why}.", fact=fact, agent=agent, person=person
    )


MARK = "[vestibule] "
"""How every text of ours in a model's answer begins."""


def replacement(found: Refusal) -> str:
    """The text that stands in a refused call's place: for the model, which reads it in its own turn, and for people."""
    return MARK + found.sentence()
