"""What a tool call asks for, as decisions: pure functions from a request and a scope to steps with facts.

Rules this module keeps:
1. Every path goes through the one normaliser before anything is computed from it; a path that has no
   normal form is a step that says so, never a path.
2. The call that goes on holds the normalised paths only, so what was decided is what is done.
3. A patch asks once for every file it touches.
4. A tool that does not exist, or arguments that cannot be read, still ask: every call is decided.
5. Facts come from the scope, the view and the request, never from whether a file exists: a refusal
   cannot tell what is there. Only where a link of the view leads is looked up, for a path that may be read.
6. What an agent asks people for is planned from its own words and the answer so far. No ceiling takes part, so the
   answer to a request beyond it is the answer to any other.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from vestibule.boundary.context import catalogue
from vestibule.boundary.context.extension import ToolSource
from vestibule.boundary.context.links import ReadLink, leads_to
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.wire.patch import BadPatch, FilePatch, parse_patch
from vestibule.core.control_files import control_file
from vestibule.core.crossing import Step
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.labels import Label
from vestibule.core.model import Question, QuestionKind
from vestibule.core.text.globs import ImpossibleGlob, check_given_glob
from vestibule.core.text.paths import PathRefused, fold, normalise_path
from vestibule.core.text.sanitize import one_line, show_hidden

PREFIX = "/workspace"
"""Where the workspace is inside the sandbox; agents often write absolute paths."""

_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}\Z")
_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for a person. `asked` is what an answer is bound to; it and `why` are the agent's words."""

    kind: QuestionKind
    asked: dict[str, Any]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, ready to be decided. `arguments` hold normalised paths.

    `problem` is a sentence when the arguments cannot be carried out; it is decided all the same.
    """

    tool: str
    arguments: dict[str, Any]
    steps: tuple[Step, ...]
    problem: str | None = None
    patches: tuple[tuple[str, FilePatch], ...] = field(default=(), repr=False)
    source: ToolSource | None = field(default=None, repr=False, compare=False)
    """Who carries it out; None is the built-in toolbox."""
    ask: Ask | None = None
    """The question that a person is asked when policy holds the call."""
    answered: Question | None = None
    """The person's answer to `ask`, when there is one."""
    wait_seconds: int = 0
    """How long the agent would wait for the answer to `ask`."""
    through: str = ""
    """The path that was sent, when links of the view lead from it to the one in `arguments`."""
    broken: DependencyDown | None = None
    """Why a fact is missing: what the agent is told when policy has denied the call for it."""


Find = Callable[[QuestionKind, Mapping[str, Any]], Question | None]
"""The newest question about exactly this, as `core.ports.Questions.find`."""


class _Plan(Protocol):
    def __call__(self, given: dict[str, Any], rights: Rights) -> Call: ...


def plan(
    name: str,
    arguments: Mapping[str, Any],
    rights: Rights,
    find: Find | None = None,
    read_link: ReadLink | None = None,
) -> Call:
    """What the call asks for. `find` looks for answers (for `request_scope` only), `read_link` at links of the view."""
    given = {key: value for key, value in arguments.items() if value is not None}
    tool = catalogue.TOOLS.get(name)
    if tool is None:
        return Call(name, {}, (_call_step(name, rights),))
    if "path" in given and "path" in tool.schema["properties"]:
        try:
            given["path"] = workspace_path(given["path"], root=name in ("list_files", "search_files"))
        except PathRefused as error:
            return Call(name, {}, (_refused_path(name, given["path"], error, rights),))
    if name == "request_scope":
        refused = _request_trick(given, rights)
        if refused is not None:
            return refused
    sentence = catalogue.problem(tool, given)
    if sentence is not None:
        return Call(name, {}, (_call_step(name, rights),), problem=sentence)
    if name == "request_scope":
        return _request_scope(given, rights, find)
    call = _PLANS[name](given, rights)
    if read_link is not None and rights.links and name in _READING and given.get("path"):
        return _through_links(call, rights, read_link)
    return call


def _through_links(call: Call, rights: Rights, read_link: ReadLink) -> Call:
    """A call that reads through links of the view, as a call for what they lead to; both paths are asked for."""
    path = call.arguments["path"]
    may = rights.readable(path) if call.tool == "read_file" else rights.reaches(path) and control_file(path) is None
    target = leads_to(path, rights.links, read_link) if may else None
    if target is None:
        return call
    there = _PLANS[call.tool]({**call.arguments, "path": target}, rights)
    return replace(there, steps=(*call.steps, *there.steps), through=path)


def workspace_path(text: Any, *, root: bool = False) -> str:
    """The normal form of a path that an agent sent; `""` is the workspace when `root` is allowed.

    Raises:
        PathRefused: with the rule that it breaks.
    """
    if isinstance(text, str):
        if text.startswith(f"{PREFIX}/"):
            text = text.removeprefix(f"{PREFIX}/")
        elif text == PREFIX:
            text = ""
        if root and text == ".":
            text = ""
    return normalise_path(text, allow_root=root)


def unknown_method(method: str) -> Call:
    """A protocol method that is not served, as a call to be refused and recorded."""
    return Call(method, {}, (_step("context.call", method, {"tool": method}, tool_known=False, tool_allowed=False),))


def _step(action: str, name: str, resource: dict[str, Any], **facts: Any) -> Step:
    return Step(action, {"id": one_line(name, _SHOWN), **resource}, facts)


def _call_step(name: str, rights: Rights) -> Step:
    shown = one_line(name, 128)
    known = name in catalogue.TOOLS
    return _step("context.call", shown, {"tool": shown}, tool_known=known, tool_allowed=rights.tool(name))


def _refused_path(tool: str, text: Any, error: PathRefused, rights: Rights) -> Step:
    shown = one_line(text, _SHOWN) if isinstance(text, str) else type(text).__name__
    facts = {"path_ok": False, "path_rule": error.rule, "tool_allowed": rights.tool(tool)}
    if tool in ("write_file", "apply_patch"):
        write = dict.fromkeys(("in_write", "in_read_or_new", "partial", "protected", "control_file"), False)
        return _step("context.write", shown, {"path": shown, "tool": tool}, **facts, **write)
    action = _READING[tool]
    return _step(action, shown, {"path": shown}, **facts, in_read=False, control_file=False)


_READING = {"read_file": "context.read", "list_files": "context.list", "search_files": "context.search"}


def _reading(tool: str, path: str, name: str, *, in_read: bool, rights: Rights) -> Step:
    return _step(
        _READING[tool],
        name,
        {"path": path},
        path_ok=True,
        path_rule="",
        tool_allowed=rights.tool(tool),
        in_read=in_read,
        control_file=control_file(path) is not None,
    )


def _shows(step: Step, label: Label) -> Step:
    """The step of an effect that shows the agent something with this label."""
    return replace(step, reads=label)


def _writing(tool: str, path: str, rights: Rights) -> Step:
    readable = rights.scope.reads(path)
    return _step(
        "context.write",
        path,
        {"path": path, "tool": tool},
        path_ok=True,
        path_rule="",
        tool_allowed=rights.tool(tool),
        in_write=rights.scope.writes(path),
        # A file of the view that the scope does not let be read must not be written blindly.
        in_read_or_new=readable or fold(path) not in rights.shown,
        # Who saw a part of a file cannot know what a change of it would replace.
        partial=rights.in_part(path),
        protected=rights.protected(path),
        control_file=control_file(path) is not None,
    )


def _get_task(given: dict[str, Any], rights: Rights) -> Call:
    return Call("get_task", given, (_call_step("get_task", rights),))


def _read_file(given: dict[str, Any], rights: Rights) -> Call:
    path = given["path"]
    in_read = rights.scope.reads(path)
    step = _reading("read_file", path, path, in_read=in_read, rights=rights)
    return Call("read_file", given, (_shows(step, rights.label_of(path)),))


def _list_files(given: dict[str, Any], rights: Rights) -> Call:
    path = given.get("path", "")
    step = _reading("list_files", path, path or ".", in_read=rights.reaches(path), rights=rights)
    return Call("list_files", given, (_shows(step, rights.label),))


def _search_files(given: dict[str, Any], rights: Rights) -> Call:
    path = given.get("path", "")
    step = _reading("search_files", path, path or given["query"], in_read=rights.reaches(path), rights=rights)
    return Call("search_files", given, (_shows(step, rights.label),))


def _write_file(given: dict[str, Any], rights: Rights) -> Call:
    return Call("write_file", given, (_writing("write_file", given["path"], rights),))


def _apply_patch(given: dict[str, Any], rights: Rights) -> Call:
    try:
        files = parse_patch(given["patch"])
    except BadPatch as error:
        return Call("apply_patch", {}, (_call_step("apply_patch", rights),), problem=str(error))
    steps: list[Step] = []
    patches: list[tuple[str, FilePatch]] = []
    for item in files:
        try:
            path = workspace_path(item.path)
        except PathRefused as error:
            steps.append(_refused_path("apply_patch", item.path, error, rights))
            continue
        steps.append(_writing("apply_patch", path, rights))
        patches.append((path, item))
    paths = [path for path, _ in patches]
    twice = len(set(paths)) != len(paths)
    return Call(
        "apply_patch",
        given,
        tuple(steps),
        problem="The patch names one file in two ways." if twice else None,
        patches=tuple(patches),
    )


def _run_command(given: dict[str, Any], rights: Rights) -> Call:
    argv = given["argv"]
    if any("\0" in item for item in argv):
        return Call(
            "run_command", {}, (_call_step("run_command", rights),), problem="run_command: an argument holds a NUL."
        )
    program = argv[0]
    step = _step(
        "context.exec",
        shlex.join(argv),
        {"program": one_line(program, 128), "argv": list(argv)},
        tool_allowed=rights.tool("run_command"),
        command_allowed=_PROGRAM.match(program) is not None and program in rights.scope.commands,
    )
    # A command's output can be of any file.
    return Call("run_command", given, (_shows(step, rights.label),))


def _request_trick(given: dict[str, Any], rights: Rights) -> Call | None:
    """The refusal of a request that names a path without a normal form; None when all have one."""
    asked = given.get("paths")
    most = catalogue.TOOLS["request_scope"].schema["properties"]["paths"]["maxItems"]  # more are refused unread
    for text in asked[:most] if isinstance(asked, list) else ():
        try:
            _asked_path(text)
        except PathRefused as error:
            shown = one_line(text, _SHOWN) if isinstance(text, str) else type(text).__name__
            facts = {"path_ok": False, "path_rule": error.rule, "tool_allowed": rights.tool("request_scope")}
            step = _step("scope.request", shown, {"paths": [shown]}, **facts, why_given=True, answer="")
            return Call("request_scope", {}, (step,))
        except ImpossibleGlob:
            continue
    return None


def _request_scope(given: dict[str, Any], rights: Rights, find: Find | None) -> Call:
    access = given.get("access", "read")
    why = show_hidden(given["why"]).strip()
    facts: dict[str, Any] = {"tool_allowed": rights.tool("request_scope"), "why_given": bool(why)}
    try:
        paths = sorted({_asked_path(text) for text in given["paths"]})
    except ImpossibleGlob as error:
        return Call("request_scope", {}, (_call_step("request_scope", rights),), problem=f"paths: {error}.")
    facts.update(path_ok=True, path_rule="")
    asked = {"paths": paths, "access": access}
    broken, answered = None, None
    try:
        answered = find("scope", asked) if find is not None else None
        facts["answer"] = answered.state if answered and answered.state in ("granted", "refused") else ""
    except Exception as error:  # noqa: BLE001 - without the fact policy denies; the agent is told why
        broken = _questions_down(error)
    if not facts.get("answer") and all(rights.has(path, access) for path in paths):
        sentence = "The task's scope holds these paths already."
        return Call("request_scope", {}, (_call_step("request_scope", rights),), problem=sentence)
    return Call(
        "request_scope",
        {"paths": paths, "why": why, "access": access},
        (_step("scope.request", ", ".join(paths), asked, **facts),),
        ask=Ask("scope", asked, why),
        answered=answered,
        wait_seconds=given.get("wait_seconds", 0),
        broken=broken,
    )


def _asked_path(text: Any) -> str:
    """The normal form of a path or glob that an agent asks for; a folder's is everything below it.

    Raises:
        PathRefused, ImpossibleGlob: it has none.
    """
    if not isinstance(text, str):
        raise PathRefused("path.type", "A path is a string.", "Send each path as a string.")
    text = text.removeprefix(f"{PREFIX}/")
    whole = text.endswith("/") and text.strip("/") != ""
    # What stands for a glob's characters takes part in no trick, so a path trick in a glob is one.
    normalise_path(re.sub(r"[*?\[\]{},!]", "x", text))
    found = "/".join(part for part in text.split("/") if part not in ("", "."))
    found = f"{found}/**" if whole else found
    check_given_glob(found)
    return found


def _questions_down(error: Exception) -> DependencyDown:
    return DependencyDown("questions", "Whether a person has answered cannot be seen.", fact=type(error).__name__)


def _report_block(given: dict[str, Any], rights: Rights) -> Call:
    what, why = one_line(given["what"], _SHOWN), show_hidden(given["why"]).strip()
    if not why:
        sentence = "report_block: why is empty."
        return Call("report_block", {}, (_call_step("report_block", rights),), problem=sentence)
    arguments = {"what": what, "why": why}
    return Call("report_block", arguments, (_call_step("report_block", rights),), ask=Ask("block", {"what": what}, why))


def told(call: Call, refused: Refused) -> Refused:
    """What the agent is told of a refusal: with the person's own words, or the dependency that was missing."""
    if call.broken is not None:
        return call.broken
    found = refused.refusal
    if call.answered is None or call.answered.state != "refused" or found.rule != "scope.refused":
        return refused
    words = one_line(call.answered.reason, _SHOWN) or "without a reason"
    return Refused(found.model_copy(update={"fact": f"{found.fact}; the person's answer: {words}"}))


_PLANS: dict[str, _Plan] = {
    "get_task": _get_task,
    "read_file": _read_file,
    "list_files": _list_files,
    "search_files": _search_files,
    "write_file": _write_file,
    "apply_patch": _apply_patch,
    "run_command": _run_command,
    "report_block": _report_block,
}
