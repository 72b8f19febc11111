"""Unified diffs, read strictly and applied exactly: no fuzz, no guessing, no partial result.

Rules it keeps:
1. Every file begins with `--- OLD` and `+++ NEW` (git's extended header lines may come before); `/dev/null`
   says that a file is new or goes away. Both names are the same otherwise: renames, copies, mode
   changes, links, submodules and binary patches are refused with a sentence.
2. The counts of a hunk header are the counts of its lines. Hunks come in order and do not overlap.
3. A hunk applies where all its old lines stand: at the stated line, else at the one other place
   where they do; two such places are an error.
4. Bytes stay as they are: CRLF, a missing last line feed, and any encoding of the old lines.

Source: POSIX `diff -u` output; git-diff(1) "Generating patch text with -p".
"""

from __future__ import annotations

import bisect
import itertools
import re
from dataclasses import dataclass

MAX_FILES = 200
MAX_HUNKS = 500
"""Of a patch. Each costs at most one pass over its file."""

_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: .*)?\Z", re.DOTALL)
_EXTENDED = re.compile(rb"(?:diff --git .*|index [0-9a-f]{4,64}\.\.[0-9a-f]{4,64}(?: [0-7]{6})?)\r?\Z", re.DOTALL)
_MODE = re.compile(rb"(new|deleted) file mode ([0-7]{6})\r?\Z")
_REFUSED_HEADERS = (
    (b"rename ", "renames are written as a deletion and an addition"),
    (b"copy ", "copies are written as an addition"),
    (b"similarity ", "renames are written as a deletion and an addition"),
    (b"dissimilarity ", "leave out the dissimilarity line"),
    (b"old mode ", "modes cannot be changed"),
    (b"new mode ", "modes cannot be changed"),
    (b"GIT binary patch", "binary patches are not served"),
    (b"Binary files ", "binary patches are not served"),
)
_ESCAPE = re.compile(rb'\\(?:([abtnvfr"\\])|([0-7]{3})|(.?))', re.DOTALL)
_ESCAPES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}
_NO_NEWLINE = b"\\ No newline at end of file"


class BadPatch(ValueError):
    """The patch cannot be read; the text says where and why."""


class DoesNotApply(ValueError):
    """The patch is well formed, and the file does not hold its old lines."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """`old_start` counts from 1 (0 for a new file). Lines hold their line feeds, as in the file."""

    old_start: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FilePatch:
    """What happens to one file. `path` is as written, without `a/` or `b/`; the normaliser comes later."""

    path: str
    kind: str
    """`add`, `modify` or `delete`."""
    hunks: tuple[Hunk, ...]
    executable: bool = False

    def apply(self, before: bytes | None) -> bytes | None:
        """The new content, None for a deletion. `before` None: there is no such file.

        Raises:
            DoesNotApply: with the first hunk that has no place.
        """
        if self.kind == "add":
            if before is not None:
                raise DoesNotApply(f"{self.path}: the patch adds this file, and it is already there.")
            return b"".join(line for hunk in self.hunks for line in hunk.new)
        if before is None:
            raise DoesNotApply(f"{self.path}: there is no such file.")
        after = _apply(self.path, before, self.hunks)
        if self.kind == "delete":
            if after:
                raise DoesNotApply(f"{self.path}: the patch deletes this file, and its lines are not all of it.")
            return None
        return after


def parse_patch(text: str) -> tuple[FilePatch, ...]:
    """The files of a patch, in order, each once.

    Raises:
        BadPatch: it breaks a rule above, or names a file twice.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadPatch("The patch is no valid Unicode.") from None
    reader = _Reader(_lines(data))
    files = []
    while reader.skip_preamble():
        files.append(reader.file())
        if len(files) > MAX_FILES:
            raise BadPatch(f"A patch has at most {MAX_FILES} files.")
    if not files:
        raise BadPatch("The patch names no file; each file begins with '--- a/PATH' and '+++ b/PATH'.")
    names = [item.path for item in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadPatch(f"{twice}: a patch names each file once; put its hunks together.")
    return tuple(files)


def _lines(data: bytes) -> list[bytes]:
    """Lines end with a line feed only; a lone carriage return is part of a line."""
    found = data.split(b"\n")
    last = found.pop()
    return [line + b"\n" for line in found] + ([last] if last else [])


class _Reader:
    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.at = 0
        self.hunks = 0

    def peek(self) -> bytes | None:
        return self.lines[self.at] if self.at < len(self.lines) else None

    def fail(self, sentence: str) -> BadPatch:
        return BadPatch(f"Patch line {self.at + 1}: {sentence}")

    def skip_preamble(self) -> bool:
        """Empty lines between files; False at the end."""
        while (line := self.peek()) is not None and not line.strip():
            self.at += 1
        return line is not None

    def file(self) -> FilePatch:
        mode: tuple[bytes, bytes] | None = None
        while (line := self.peek()) is not None and not line.startswith(b"--- "):
            bare = line.rstrip(b"\n")
            for start, why in _REFUSED_HEADERS:
                if bare.startswith(start):
                    raise self.fail(f"{why}.")
            found = _MODE.match(bare)
            if found:
                mode = (found[1], found[2])
                if found[2] not in (b"100644", b"100755"):
                    raise self.fail("only regular files (modes 100644 and 100755) can be written.")
            elif not _EXTENDED.match(bare):
                raise self.fail("expected '--- a/PATH'.")
            self.at += 1
        old = self._name(b"--- ", b"a/")
        new = self._name(b"+++ ", b"b/")
        if old is None and new is None:
            raise self.fail("a file cannot come from /dev/null and go there.")
        if old is not None and new is not None and old != new:
            raise self.fail("both names must be the same; write a rename as a deletion and an addition.")
        kind = "add" if old is None else "delete" if new is None else "modify"
        if mode is not None and mode[0] != {"add": b"new", "delete": b"deleted"}.get(kind):
            raise self.fail("the mode line does not fit the names.")
        hunks = self._hunks(kind)
        path = new if new is not None else old
        return FilePatch(path or "", kind, hunks, executable=mode is not None and mode[1] == b"100755")

    def _name(self, marker: bytes, prefix: bytes) -> str | None:
        line = self.peek()
        if line is None or not line.startswith(marker):
            raise self.fail(f"expected '{marker.decode()}{prefix.decode()}PATH'.")
        name = line[len(marker) :].rstrip(b"\r\n")
        name = self._unquoted(name) if name.startswith(b'"') else name.split(b"\t", 1)[0]
        self.at += 1
        if name == b"/dev/null":
            return None
        text = name.removeprefix(prefix).decode("utf-8", "surrogateescape")
        if not text:
            raise self.fail("the name is empty.")
        return text

    def _unquoted(self, name: bytes) -> bytes:
        """A name in git's C-style quotes (`core.quotePath`)."""
        if len(name) < 2 or not name.endswith(b'"'):
            raise self.fail("a quoted name has no closing quote.")

        def byte(match: re.Match[bytes]) -> bytes:
            if match[1] is not None:
                return bytes([_ESCAPES[match[1]]])
            if match[2] is not None and int(match[2], 8) < 256:
                return bytes([int(match[2], 8)])
            raise self.fail("a quoted name has an unknown escape.")

        return _ESCAPE.sub(byte, name[1:-1])

    def _hunks(self, kind: str) -> tuple[Hunk, ...]:
        hunks: list[Hunk] = []
        while (line := self.peek()) is not None and line.startswith(b"@@"):
            hunks.append(self._hunk(kind))
            self.hunks += 1
            if self.hunks > MAX_HUNKS:
                raise self.fail(f"a patch has at most {MAX_HUNKS} hunks.")
        if not hunks and kind == "modify":
            raise self.fail("the file has no hunks; each begins with '@@ -LINE,COUNT +LINE,COUNT @@'.")
        if kind == "add" and len(hunks) > 1:
            raise self.fail("a new file has one hunk.")
        return tuple(hunks)

    def _hunk(self, kind: str) -> Hunk:
        head = _HUNK.match((self.peek() or b"").rstrip(b"\r\n"))
        if head is None:
            raise self.fail("a hunk begins with '@@ -LINE,COUNT +LINE,COUNT @@'.")
        at, start = self.at, int(head[1])
        wanted = int(head[2] or 1), int(head[4] or 1)
        if (kind == "add" and wanted[0]) or (kind == "delete" and wanted[1]):
            raise self.fail("a new file has no old lines, and a deleted file no new ones.")
        self.at += 1
        old: list[bytes] = []
        new: list[bytes] = []
        while (len(old), len(new)) != wanted:
            line = self.peek()
            sign = line[:1] if line else b""
            # An editor may have cut the one space of an empty context line.
            text = b"\n" if line == b"\n" else (line or b"")[1:]
            sign = b" " if line == b"\n" else sign
            if sign not in (b" ", b"+", b"-"):
                self.at = at
                raise self.fail(
                    f"the hunk's header says {wanted[0]} old and {wanted[1]} new lines; "
                    f"it has {len(old)} and {len(new)}."
                )
            self.at += 1
            text = self._end(text)
            if sign != b"+":
                old.append(text)
            if sign != b"-":
                new.append(text)
            if len(old) > wanted[0] or len(new) > wanted[1]:
                self.at = at
                raise self.fail(
                    f"the hunk's header says {wanted[0]} old and {wanted[1]} new lines; it has more of one."
                )
        for lines in (old, new):
            if any(not line.endswith(b"\n") for line in lines[:-1]):
                raise self.fail("only the last line of a file can lack a line feed.")
        return Hunk(start, tuple(old), tuple(new))

    def _end(self, text: bytes) -> bytes:
        """The line as in the file: without its line feed when the next line says that it has none."""
        following = self.peek()
        if following is not None and following.rstrip(b"\r\n") == _NO_NEWLINE:
            self.at += 1
            return text.removesuffix(b"\n")
        return text if text.endswith(b"\n") else text + b"\n"


def _apply(path: str, before: bytes, hunks: tuple[Hunk, ...]) -> bytes:
    target = _Target(path, before)
    lines = target.lines
    out: list[bytes] = []
    used = shift = 0
    for number, hunk in enumerate(hunks, 1):
        at = target.place(hunk, number, used, shift)
        if hunk.new and not hunk.new[-1].endswith(b"\n") and at + len(hunk.old) != len(lines):
            raise DoesNotApply(f"{path}: hunk {number} takes away a line feed in the middle of the file.")
        out.extend(lines[used:at])
        if out and hunk.new and not out[-1].endswith(b"\n"):
            raise DoesNotApply(f"{path}: hunk {number} adds lines after a last line without a line feed.")
        out.extend(hunk.new)
        used = at + len(hunk.old)
        # The stated line of the next hunk is off by as much as this one's was.
        shift = at - (hunk.old_start - (1 if hunk.old else 0))
    out.extend(lines[used:])
    return b"".join(out)


class _Target:
    """A file that hunks are placed in. Finding a hunk's place takes time linear in the file's size."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.lines = _lines(data)
        self.starts = list(itertools.accumulate((len(line) for line in self.lines), initial=0))
        # A line feed in front makes every match begin at the beginning of a line.
        self.data = b"\n" + data

    def place(self, hunk: Hunk, number: int, used: int, shift: int) -> int:
        """The index of the line at which the hunk's old lines stand, at or after `used`."""
        if not hunk.old:
            at = hunk.old_start + shift
            if used <= at <= len(self.lines):
                return at
            raise DoesNotApply(
                f"{self.path}: hunk {number} adds lines after line {hunk.old_start}, which is not there."
            )
        old = list(hunk.old)
        stated = hunk.old_start - 1
        for at in dict.fromkeys((stated + shift, stated)):
            if at >= used and self.lines[at : at + len(old)] == old:
                return at
        places = self._search(b"\n" + b"".join(old), used)
        if not places:
            raise DoesNotApply(
                f"{self.path}: hunk {number} (line {hunk.old_start}) does not match the file; read it again."
            )
        if len(places) > 1:
            raise DoesNotApply(
                f"{self.path}: hunk {number} fits several places and not the stated one; give more context lines."
            )
        return places[0]

    def _search(self, needle: bytes, used: int) -> list[int]:
        """The first two places, as line indexes. A needle without a last line feed stands only at the end."""
        if used >= len(self.lines):
            return []
        found: list[int] = []
        begin = self.starts[used]
        if not needle.endswith(b"\n"):
            at = len(self.data) - len(needle)
            if at >= begin and self.data.endswith(needle):
                found.append(bisect.bisect_left(self.starts, at))
            return found
        at = self.data.find(needle, begin)
        while at >= 0 and len(found) < 2:
            found.append(bisect.bisect_left(self.starts, at))
            at = self.data.find(needle, at + 1)
        return found
