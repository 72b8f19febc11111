"""The tools' bodies: what happens once a call was decided and recorded. Blocking; run in a thread.

Rules this module keeps:
1. Nothing here decides; nothing here runs without a decision (see `cleared`).
2. Files are reached through `Workspace` only, commands through the `CommandRunner` only: never a host
   process in the agent's tree, never an entry into the agent's sandbox.
3. Lists and searches show readable files only, and say nothing of others, not even how many.
4. `read_file` gives the text as stored; what a person would not see in it is announced beside it.
5. What an agent reports is kept for people and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vestibule.boundary.context.briefing import Briefing
from vestibule.boundary.context.extension import ToolSource
from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.rules import Ask, Call
from vestibule.boundary.context.search import Wanted, ripgrep, search
from vestibule.boundary.context.texts import Texts, is_binary
from vestibule.boundary.context.tree import Item, Tree
from vestibule.boundary.context.wire.filters import BadFilter, parse_filter
from vestibule.boundary.context.wire.patch import DoesNotApply
from vestibule.boundary.context.workspace import Change, Entry, Workspace
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Question, Scope
from vestibule.core.ports import CommandRunner, SandboxResult
from vestibule.core.text.globs import first_match
from vestibule.core.text.sanitize import find_hidden, one_line, show_hidden
from vestibule.core.view import View


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool says. `details` go to the outcome event: integers, strings and booleans."""

    texts: tuple[str, ...]
    ok: bool = True
    details: dict[str, Any] = field(default_factory=dict)


Report = Callable[[Ask], Question]
"""Keeps a question. Raises `Refused` when there are too many."""


class Toolbox:
    """The tools of one run."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        rights: Rights,
        briefing: Briefing,
        runner: CommandRunner,
        limits: ContextLimits,
        report: Report | None = None,
    ) -> None:
        """`report` keeps what the agent reports; None: there is nobody to report to."""
        self.workspace = workspace
        self.tree = Tree(workspace, rights)
        self.texts = Texts(workspace, self.tree, limits)
        self.report = report
        self.rights = rights
        self.briefing = briefing
        self.runner = runner
        self.limits = limits

    def widened(self, scope: Scope, view: View) -> Toolbox:
        """The same tools for a scope and view that a person made wider."""
        return Toolbox(
            workspace=self.workspace,
            rights=Rights.of(scope, view),
            briefing=self.briefing.widened(scope, view),
            runner=self.runner,
            limits=self.limits,
            report=self.report,
        )

    def quick(self, call: Call) -> Answer | None:
        """The answer to a call that takes less than to hand it to a thread: reading a small file. None: use a thread.

        Raises:
            Refused: as `carry_out`.
        """
        if call.tool != "read_file" or call.source is not None or call.problem is not None:
            return None
        try:
            return self._shown(call, self.workspace.read(call.arguments["path"], limit=self.limits.quick_bytes))
        except (NotDone, OSError):
            return None  # too large, or the thread says what is wrong

    def carry_out(self, call: Call) -> Answer:
        """Does what was decided.

        Raises:
            Refused: a link or something else that only shows when the file is opened.
            DependencyDown: `workspace`, `sandbox`, `search`.
        """
        if call.problem is not None:
            return _failed("arguments", call.problem)
        if call.source is not None:
            return self._from(call.source, call)
        body = {
            "get_task": self._get_task,
            "list_files": self._list_files,
            "read_file": self._read_file,
            "search_files": self._search_files,
            "write_file": self._write_file,
            "apply_patch": self._apply_patch,
            "run_command": self._run_command,
            "request_scope": self._request_scope,
            "report_block": self._report_block,
        }.get(call.tool)
        if body is None:
            return _failed("unknown_tool", f"There is no tool {one_line(call.tool, 64)}.")
        try:
            return body(call)
        except NotDone as error:
            return _failed(error.code, str(error))
        except OSError as error:
            raise DependencyDown(
                "workspace", "The workspace of this run cannot be used.", fact=error.strerror or type(error).__name__
            ) from error

    @staticmethod
    def _from(source: ToolSource, call: Call) -> Answer:
        try:
            return source.carry_out(call)
        except NotDone as error:
            return _failed(error.code, str(error))

    def _get_task(self, _: Call) -> Answer:
        return Answer((self.briefing.text(),))

    # asking people

    def _request_scope(self, call: Call) -> Answer:
        """Reached only when a person granted it."""
        paths, access = call.arguments["paths"], call.arguments["access"]
        words = one_line(call.answered.reason, 500) if call.answered is not None and call.answered.reason else ""
        texts = [f"A person granted it{f': {words}' if words else '.'}"]
        may = self.rights.writable if access == "write" else self.rights.readable
        asked = [item.path for item in self.briefing.view.files if first_match(item.path, paths) is not None]
        files = [path for path in asked if may(path)]
        shown = "\n".join(files[: self.limits.granted_entries])
        word = "written" if access == "write" else "read"
        if not files:
            texts.append(f"No file that is there can be {word} by it now.")
        else:
            more = f" (the first {self.limits.granted_entries})" if len(files) > self.limits.granted_entries else ""
            texts.append(f"These files can be {word} now{more}:\n{shown}")
        return Answer(tuple(texts), details={"files": len(files)})

    def _report_block(self, call: Call) -> Answer:
        if self.report is None or call.ask is None:
            return _failed("nobody", "There is nobody to report to in this run; say it in your answer.")
        question = self.report(call.ask)
        text = "It is noted for the people who look at this run. Nothing changes by it; go on with other work."
        return Answer((text,), details={"question": question.id})

    # reading

    def _entries(self, call: Call) -> Iterator[Entry | Item]:
        """Readable files and links at or below the call's path, through its glob."""
        path = call.arguments.get("path", "")
        wanted = _filter(call, self.limits.search_seconds)
        at = self.workspace.entry(path) if path else None
        if at is not None and not self.rights.readable(path):
            return
        for item in [at] if at is not None else self.tree.items(path):
            if wanted is None or wanted(item.path):
                yield item

    def _list_files(self, call: Call) -> Answer:
        lines: list[str] = []
        more = False
        for item in self._entries(call):
            if len(lines) == self.limits.list_entries:
                more = True
                break
            lines.append(
                f"{item.path}\t{item.size}" if item.kind == "file" else f"{item.path}\tlink to {one_line(item.target)}"
            )
        if not lines:
            return Answer(("No files in scope there.",), details={"entries": 0})
        texts = ["\n".join(lines)]
        if more:
            texts.append(f"Only the first {len(lines)} files are listed; give a path or a glob to see others.")
        return Answer(tuple(texts), details={"entries": len(lines)})

    def _read_file(self, call: Call) -> Answer:
        return self._shown(call, self.workspace.read(call.arguments["path"], limit=self.limits.file_bytes))

    def _shown(self, call: Call, data: bytes) -> Answer:
        path = call.arguments["path"]
        if is_binary(data):
            return _failed("binary", f"{path} is a binary file of {len(data)} bytes; its content is not shown.")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return _failed("encoding", f"{path} is no UTF-8 text ({len(data)} bytes); its content is not shown.")
        if not text:
            return Answer((f"({path} is empty.)",), details={"bytes": 0})
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        first = call.arguments.get("start_line", 1)
        last = min(call.arguments.get("end_line", len(lines)), len(lines))
        if first > len(lines) or last < first:
            return _failed("range", f"{path} has {len(lines)} lines; there are none from {first} to {last}.")
        part, end, cut = _part(lines, first, last, self.limits.read_bytes)
        if end == len(lines) and not text.endswith("\n"):
            part = part.removesuffix("\n")
        notes = [f"{call.through} is a link; this is {path}."] if call.through else []
        if cut:
            notes.append(f"Line {end} is longer than {self.limits.read_bytes} bytes and was cut.")
        if first > 1 or end < len(lines):
            notes.append(f"These are lines {first} to {end} of {len(lines)}.")
        if end < last:
            notes.append(f"Go on with start_line={end + 1}.")
        if self.rights.in_part(path):
            notes.append("This is a view of the file, made for this task: it shows a part, and is read-only.")
        notes.extend(_hidden_note(part, first))
        return Answer((part, " ".join(notes)) if notes else (part,), details={"bytes": len(part.encode())})

    def _search_files(self, call: Call) -> Answer:
        wanted = _filter(call, self.limits.search_seconds)
        found = search(
            self.texts,
            call.arguments["query"],
            folder=call.arguments.get("path", ""),
            wanted=wanted,
            regex=call.arguments.get("regex", False),
            limits=self.limits,
            program=ripgrep(),
        )
        notes = []
        if found.more:
            notes.append(f"Only the first {len(found.hits)} lines are shown; narrow the query, the path or the glob.")
        if not found.complete:
            notes.append("Some files were too large, or too many, to be searched; give a path or a glob.")
        text = "\n".join(f"{hit.path}:{hit.line}: {hit.text}" for hit in found.hits) or "No line matches."
        return Answer(
            (text, " ".join(notes)) if notes else (text,), details={"hits": len(found.hits), "engine": found.engine}
        )

    # writing

    def _write_file(self, call: Call) -> Answer:
        path, data = call.arguments["path"], call.arguments["content"].encode("utf-8")
        created = self.workspace.write(path, data)
        word = "Made" if created else "Wrote"
        return Answer((f"{word} {path} ({len(data)} bytes).",), details={"bytes": len(data), "created": created})

    def _apply_patch(self, call: Call) -> Answer:
        with self.workspace.lock:
            changes = []
            for path, item in call.patches:
                before = self._before(path)
                try:
                    after = item.apply(before)
                except DoesNotApply as error:
                    return _failed("patch", f"{error} Nothing was changed.")
                changes.append(Change(path, after, before, item.executable if before is None else None))
            self.workspace.apply(changes)
        words = {"add": "added", "modify": "changed", "delete": "deleted"}
        text = "\n".join(f"{words[item.kind]} {path}" for path, item in call.patches)
        return Answer((text,), details={"files": len(changes)})

    def _before(self, path: str) -> bytes | None:
        try:
            return self.workspace.read(path, limit=self.limits.patched_bytes)
        except NotDone as error:
            if error.code == "missing":
                return None
            raise

    # running

    def _run_command(self, call: Call) -> Answer:
        asked = call.arguments.get("timeout", self.limits.command_default_seconds)
        seconds = min(asked, self.limits.command_seconds)
        try:
            result = self.runner.run(call.arguments["argv"], timeout_seconds=float(seconds))
        except Refused:
            raise
        except Exception as error:
            raise DependencyDown(
                "sandbox", "The command's sandbox could not be made.", fact=type(error).__name__
            ) from error
        return self._command_answer(result, seconds)

    def _command_answer(self, result: SandboxResult, seconds: int) -> Answer:
        head = f"exit code {result.exit_code}"
        if result.reason == "wall-clock":
            head = f"stopped after {seconds} s"
        elif result.reason != "exited":
            head = f"ended by {result.reason} (exit code {result.exit_code})"
        parts = [head]
        for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
            if data:
                tail = data[-self.limits.output_bytes :]
                cut = f", the last {len(tail)} of {len(data)} bytes" if len(tail) < len(data) else ""
                parts.append(f"--- {name}{cut}\n{show_hidden(tail.decode('utf-8', 'replace'))}")
        if result.truncated:
            parts.append("--- the output was longer than is kept")
        details = {"exit_code": result.exit_code, "ended": result.reason, "wall_ms": int(result.wall_ms)}
        return Answer(("\n".join(parts),), details=details)


def _failed(code: str, sentence: str) -> Answer:
    return Answer((sentence,), ok=False, details={"error": code})


def _filter(call: Call, seconds: float) -> Wanted | None:
    """Which paths the call's glob lets through. For many long names even a linear filter may take long: it ends."""
    if "glob" not in call.arguments:
        return None
    try:
        found = parse_filter(call.arguments["glob"])
    except BadFilter as error:
        raise NotDone("glob", str(error)) from None
    end = time.monotonic() + seconds

    def wanted(path: str) -> bool:
        if time.monotonic() > end:
            raise NotDone("too_slow", "The glob took too long on so many names; use a simpler one, or a path.")
        return found.matches(path)

    return wanted


def _part(lines: list[str], first: int, last: int, limit: int) -> tuple[str, int, bool]:
    """Whole lines from `first`, at most `limit` bytes; the last line given; whether that one was cut."""
    whole = "\n".join(lines[first - 1 : last]) + "\n"
    if len(whole) <= limit and len(whole.encode("utf-8")) <= limit:
        return whole, last, False
    out: list[str] = []
    size = 0
    for at in range(first, last + 1):
        line = lines[at - 1] + "\n"
        size += len(line.encode("utf-8"))
        if size > limit:
            if out:
                return "".join(out), at - 1, False
            return line.encode("utf-8")[:limit].decode("utf-8", "ignore"), at, True
        out.append(line)
    return "".join(out), last, False


def _hidden_note(text: str, first: int) -> list[str]:
    hidden = find_hidden(text)
    if not hidden:
        return []
    line = first + text.count("\n", 0, hidden[0].offset)
    kinds = ", ".join(dict.fromkeys(item.kind for item in hidden))
    notice = (
        f"Notice: this text holds {len(hidden)} characters that a person cannot see ({kinds}), "
        f"the first in line {line}: {hidden[0].shown}."
    )
    return [notice]
