"""Reads a unified diff as git prints it, so that a page can show all of it or say what it does not show.

Rules it keeps:
1. Hunks are read by the line counts in their headers, never by what a line looks like: content that imitates
   a diff header stays content.
2. What cannot be read is kept as a problem of the patch; nothing is skipped silently.
3. Time and memory grow linearly with the patch; there is no backtracking over its content.

Source: git-diff(1) "Generating patch text with -p", quote.c of git for names in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vestibule.console.marks import Part, parts

_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)", re.DOTALL)
_START = b"diff --git "
_ESCAPES = {
    ord("a"): 7,
    ord("b"): 8,
    ord("t"): 9,
    ord("n"): 10,
    ord("v"): 11,
    ord("f"): 12,
    ord("r"): 13,
    ord('"'): 34,
    ord("\\"): 92,
}


class Row(NamedTuple):
    """A line of a rendered diff. `kind` is `ctx`, `add`, `del`, `hunk` or `note`; numbers count from 1, 0 is none."""

    kind: str
    old: int
    new: int
    sign: str
    content: str | list[Part]


@dataclass(slots=True)
class Hunk:
    """A range of changed lines: `lines[start:end]` of the patch."""

    old_start: int
    new_start: int
    heading: bytes
    start: int
    end: int = 0


@dataclass(slots=True)
class FileDiff:
    """What a patch does to one file. `path` is the name after the change (before it, for a deletion)."""

    index: int
    path: str
    old_path: str = ""
    status: str = "modified"
    old_mode: str = ""
    new_mode: str = ""
    binary: bool = False
    added: int = 0
    deleted: int = 0
    longest: int = 0
    hunks: list[Hunk] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Lines that a page would show."""
        return sum(hunk.end - hunk.start + 1 for hunk in self.hunks)

    @property
    def notes(self) -> list[str]:
        """What about this file is not in its lines: kind, mode, name."""
        found = []
        mode = self.new_mode or self.old_mode
        if mode == "120000":
            found.append("symbolic link")
        if mode == "160000":
            found.append("submodule")
        if self.new_mode == "100755" and self.old_mode != "100755":
            found.append("becomes executable" if self.old_mode else "executable")
        elif self.old_mode and self.new_mode and self.old_mode != self.new_mode:
            found.append(f"mode {self.old_mode} → {self.new_mode}")
        if self.binary:
            found.append("binary")
        return found


@dataclass(slots=True)
class Patch:
    """A whole unified diff."""

    lines: list[bytes]
    files: list[FileDiff] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def added(self) -> int:
        return sum(file.added for file in self.files)

    @property
    def deleted(self) -> int:
        return sum(file.deleted for file in self.files)

    def rows(self, file: FileDiff) -> Iterator[Row]:
        """The lines of one file, numbered and marked."""
        for hunk in file.hunks:
            heading = hunk.heading.decode("utf-8", "surrogateescape").strip()
            yield Row("hunk", 0, 0, "", parts(heading) if heading else "")
            old, new = hunk.old_start, hunk.new_start
            for raw in self.lines[hunk.start : hunk.end]:
                sign, content = raw[:1], _content(raw)
                if sign == b"+":
                    yield Row("add", 0, new, "+", content)
                    new += 1
                elif sign == b"-":
                    yield Row("del", old, 0, "−", content)
                    old += 1
                elif sign == b" ":
                    yield Row("ctx", old, new, "", content)
                    old += 1
                    new += 1
                else:
                    yield Row("note", 0, 0, "", content)


def _content(raw: bytes) -> str | list[Part]:
    text = raw[1:].decode("utf-8", "surrogateescape")
    if not text.endswith("\r"):
        return parts(text)
    found = parts(text[:-1])
    stretches = [Part("text", found)] if isinstance(found, str) else found
    return [*stretches, Part("eol", "CR", "the line ends with a carriage return")]


def parse_patch(data: bytes) -> Patch:
    """Never raises: what is no unified diff of git's becomes `problems`."""
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    patch = Patch(lines)
    at = 0
    while at < len(lines):
        if not lines[at].startswith(_START):
            end = at
            while end < len(lines) and not lines[end].startswith(_START):
                end += 1
            patch.problems.append(f"lines {at + 1} to {end} of the patch could not be read")
            at = end
            continue
        at = _file(patch, at)
    return patch


def _file(patch: Patch, at: int) -> int:
    lines = patch.lines
    file = FileDiff(index=len(patch.files), path="")
    names = {"old": b"", "new": b""}
    header = lines[at]
    at += 1
    while at < len(lines) and not lines[at].startswith((b"@@ ", _START)):
        line = lines[at]
        if line == b"GIT binary patch" or (line.startswith(b"Binary files ") and line.endswith(b" differ")):
            file.binary = True
            at += 1
            if line == b"GIT binary patch":
                # Base 85 has no space, so that no line of it can begin a file.
                while at < len(lines) and not lines[at].startswith(_START):
                    at += 1
            continue
        if not _header_line(file, names, line):
            file.problems.append(f"line {at + 1} of the patch could not be read")
        at += 1
    while at < len(lines) and lines[at].startswith(b"@@ "):
        at = _hunk(patch, file, at)
    end = at
    while end < len(lines) and not lines[end].startswith(_START):
        end += 1
    if end > at:
        file.problems.append(f"lines {at + 1} to {end} of the patch could not be read")
    _name(file, header[len(_START) :], names)
    patch.files.append(file)
    return end


def _header_line(file: FileDiff, names: dict[str, bytes], line: bytes) -> bool:
    key, _, value = line.partition(b" ")
    text = value.decode("ascii", "replace")
    if line.startswith((b"--- ", b"+++ ")):
        name = value.rstrip(b"\t")  # git ends a name that contains a space with a tab
        if name != b"/dev/null":
            names["old" if line[:1] == b"-" else "new"] = _unquote(name)[2:]
        return True
    if line.startswith(b"new file mode "):
        file.status, file.new_mode = "added", text.rpartition(" ")[2]
    elif line.startswith(b"deleted file mode "):
        file.status, file.old_mode = "deleted", text.rpartition(" ")[2]
    elif line.startswith(b"old mode "):
        file.old_mode = text.rpartition(" ")[2]
    elif line.startswith(b"new mode "):
        file.new_mode = text.rpartition(" ")[2]
    elif line.startswith((b"rename from ", b"copy from ")):
        file.status = "renamed" if key == b"rename" else "copied"
        names["old"] = _unquote(value[len(b"from ") :])
    elif line.startswith((b"rename to ", b"copy to ")):
        names["new"] = _unquote(value[len(b"to ") :])
    elif line.startswith(b"index "):
        mode = text.rpartition(" ")[2]
        if mode.isdigit() and len(mode) == 6 and not file.new_mode:
            file.old_mode = file.new_mode = mode
    else:
        return line.startswith((b"similarity index ", b"dissimilarity index "))
    return True


def _hunk(patch: Patch, file: FileDiff, at: int) -> int:
    lines = patch.lines
    match = _HUNK.match(lines[at])
    if match is None:
        file.problems.append(f"line {at + 1} of the patch could not be read")
        return at + 1
    old_left = int(match[2]) if match[2] is not None else 1
    new_left = int(match[4]) if match[4] is not None else 1
    at += 1
    hunk = Hunk(int(match[1]), int(match[3]), match[5], at)
    while at < len(lines):
        sign = lines[at][:1]
        if sign == b"\\" and at > hunk.start:
            pass
        elif sign == b" " and old_left and new_left:
            old_left -= 1
            new_left -= 1
        elif sign == b"-" and old_left:
            old_left -= 1
            file.deleted += 1
        elif sign == b"+" and new_left:
            new_left -= 1
            file.added += 1
        else:
            break
        file.longest = max(file.longest, len(lines[at]))
        at += 1
    hunk.end = at
    file.hunks.append(hunk)
    if old_left or new_left:
        file.problems.append(f"the lines at {hunk.start + 1} of the patch are fewer than their header says")
    return at


def _name(file: FileDiff, header: bytes, names: dict[str, bytes]) -> None:
    old, new = names["old"], names["new"]
    if not old and not new:
        old = new = _same_name(header)
        if not new:
            file.problems.append("its name could not be read")
            new = header
    path = (old if file.status == "deleted" and old else new) or old
    file.path = path.decode("utf-8", "surrogateescape")
    if old and new and old != new:
        file.old_path = old.decode("utf-8", "surrogateescape")


def _same_name(header: bytes) -> bytes:
    """The name in `a/NAME b/NAME`: without renames both halves are the same, so their length decides."""
    half = (len(header) - 1) // 2
    one, two = header[:half], header[half + 1 :]
    if len(header) % 2 == 0 or header[half : half + 1] != b" ":
        return b""
    one, two = _unquote(one), _unquote(two)
    return one[2:] if one[:2] == b"a/" and two[:2] == b"b/" and one[2:] == two[2:] else b""


def _unquote(name: bytes) -> bytes:
    """A name as git quotes it, in the manner of C."""
    if len(name) < 2 or name[:1] != b'"' or name[-1:] != b'"':
        return name
    out = bytearray()
    body = name[1:-1]
    at = 0
    while at < len(body):
        if body[at] != 0x5C or at + 1 >= len(body):
            out.append(body[at])
            at += 1
        elif body[at + 1] in _ESCAPES:
            out.append(_ESCAPES[body[at + 1]])
            at += 2
        elif re.match(rb"[0-3][0-7]{2}", body[at + 1 : at + 4]):
            out.append(int(body[at + 1 : at + 4], 8))
            at += 4
        else:
            out.append(body[at])
            at += 1
    return bytes(out)
