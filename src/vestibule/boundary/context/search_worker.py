"""Finds the lines that a regular expression matches. Runs as a process of its own, started from its source text.

Rules it keeps:
1. It gives up privileges, memory, files and time beyond its task before it reads the expression; it is killed from
   outside at the deadline.
2. It is given texts by a descriptor that nobody can write to, and gives back offsets; it never sees a path.
3. What a line matches is decided by Python's `re` alone. ripgrep, where it is there, only finds lines that may match:
   it is given an expression that matches at least the same lines, and its every line is looked at again.

Only the standard library is imported here, and only what starts fast.
"""

# The parser of `re` has no public name. What it gives is the form that `re` itself compiles.
import json
import mmap
import os
import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import resource
import sys
from typing import Any, BinaryIO

BLOCK = 1 << 20
ANY = r"[^\n]"
_HIGH = r"\x{80}-\x{10FFFF}"
_CATEGORIES = {
    op.CATEGORY_DIGIT: f"0-9{_HIGH}",
    op.CATEGORY_WORD: f"0-9A-Za-z_{_HIGH}",
    op.CATEGORY_SPACE: rf"\t\x0b-\r\x1c-\x20{_HIGH}",
}
_PLAIN = {
    op.CATEGORY_DIGIT: "0-9",
    op.CATEGORY_WORD: "0-9A-Za-z_",
    op.CATEGORY_SPACE: r"\t\x0b-\r\x1c-\x20",
}
_NEGATED = {
    op.CATEGORY_NOT_DIGIT: op.CATEGORY_DIGIT,
    op.CATEGORY_NOT_WORD: op.CATEGORY_WORD,
    op.CATEGORY_NOT_SPACE: op.CATEGORY_SPACE,
}
_REPEATED = 200
"""Counted repeats beyond this are "this or more": ripgrep bounds the size of what it compiles."""


def wider(pattern: str) -> str:
    """An expression in ripgrep's syntax that matches every line of valid UTF-8 that `pattern` matches, and maybe more.

    What has no counterpart, or means something else there (look-around, references, word boundaries, Unicode's
    classes and cases), becomes something wider.

    Raises:
        re.error, RecursionError, OverflowError: it is no expression, or none that can be read.
    """
    tree = parser.parse(pattern)
    return _sequence(tree, tree.state.flags)


def _sequence(tree: Any, flags: int) -> str:
    return "".join(_one(code, value, flags) for code, value in tree)


def _one(code: Any, value: Any, flags: int) -> str:
    if code is op.LITERAL:
        return _literal(value, flags)
    if code is op.IN:
        return _set(value, flags)
    if code is op.NOT_LITERAL:
        return ANY if flags & re.IGNORECASE or _surrogate(value) else rf"[^{_char(value)}\n]"
    if code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        low, high, inner = value
        low = min(low, _REPEATED)
        end = "" if high is op.MAXREPEAT or high > _REPEATED else str(high)
        return f"(?:{_sequence(inner, flags)}){{{low},{end}}}"
    if code is op.BRANCH:
        return f"(?:{'|'.join(_sequence(item, flags) for item in value[1])})"
    if code is op.SUBPATTERN:
        _, add, remove, inner = value
        return f"(?:{_sequence(inner, (flags | add) & ~remove)})"
    if code is op.ATOMIC_GROUP:
        return f"(?:{_sequence(value, flags)})"
    if code is op.AT:
        if value in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            return "^"
        return "$" if value in (op.AT_END, op.AT_END_STRING) else ""
    if code in (op.ASSERT, op.ASSERT_NOT):
        return ""
    if code is op.GROUPREF_EXISTS:
        _, yes, no = value
        return f"(?:{_sequence(yes, flags)}|{_sequence(no, flags) if no is not None else ''})"
    return ANY if code is op.ANY else f"{ANY}*"


def _surrogate(point: int) -> bool:
    return 0xD800 <= point <= 0xDFFF


def _char(point: int) -> str:
    return rf"\x{{{point:X}}}"


def _literal(point: int, flags: int) -> str:
    if _surrogate(point) or (flags & re.IGNORECASE and point > 127):
        return ANY
    if flags & re.IGNORECASE and chr(point).isalpha():
        return f"[{chr(point).lower()}{chr(point).upper()}{_HIGH}]"
    return _char(point)


def _set(items: Any, flags: int) -> str:
    if flags & re.IGNORECASE:
        return ANY
    negated = items[0][0] is op.NEGATE
    parts: list[str] = []
    for code, value in items[1:] if negated else items:
        if code is op.LITERAL and not _surrogate(value):
            parts.append(_char(value))
        elif code is op.RANGE and not _surrogate(value[0]) and not _surrogate(value[1]):
            parts.append(f"{_char(value[0])}-{_char(value[1])}")
        elif code is op.CATEGORY and value in _CATEGORIES:
            parts.append(_PLAIN[value] if negated else _CATEGORIES[value])
        elif code is op.CATEGORY and value in _NEGATED and not negated and len(items) == 1:
            return rf"[^{_PLAIN[_NEGATED[value]]}\n]"
        else:
            return ANY
    return f"[{'^' if negated else ''}{''.join(parts)}{chr(92) + 'n' if negated else ''}]"


def lines_of(text: Any, begin: int, end: int) -> Any:
    """Offset and bytes of each line in `text[begin:end]`, which ends with a line feed."""
    at = begin
    while at < end:
        stop = min(end, at + BLOCK)
        block = text[at:stop]
        if stop < end:
            last = block.rfind(b"\n")
            while last < 0:
                stop = min(end, stop + BLOCK)
                block = text[at:stop]
                last = len(block) - 1 if stop == end else block.rfind(b"\n")
            block = block[: last + 1]
        for line in block.split(b"\n")[:-1]:
            yield at, line
            at += len(line) + 1


def by_python(found: "re.Pattern[str]", text: Any, ranges: list[list[int]], limit: int) -> list[int]:
    """Offsets of the first matching lines."""
    hits: list[int] = []
    for begin, end in ranges:
        for at, line in lines_of(text, begin, end):
            if found.search(line.decode("utf-8", "replace")):
                hits.append(at)
                if len(hits) >= limit:
                    return hits
    return hits


def by_ripgrep(  # noqa: PLR0917
    found: "re.Pattern[str]", program: str, pattern: str, source: int, ranges: list[list[int]], limit: int
) -> list[int] | None:
    """The same with ripgrep's help; None when it did not work out."""
    reader, writer = os.pipe()
    quiet = os.open("/dev/null", os.O_WRONLY)
    argv = [program, "--no-config", "--text", "--encoding=none", "--byte-offset", "--no-line-number", "--no-filename"]
    argv += ["--color=never", "--no-heading", "--threads=1", "--regexp", pattern, "-"]
    actions = [
        (os.POSIX_SPAWN_DUP2, source, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, quiet, 2),
    ]
    try:
        process = os.posix_spawn(program, argv, {}, file_actions=actions)
    except OSError:
        return None
    os.close(writer)
    hits: list[int] = []
    ended = True
    with os.fdopen(reader, "rb", BLOCK) as stream:
        for at, line in _in_ranges(stream, ranges):
            if found.search(line.decode("utf-8", "replace")):
                hits.append(at)
                if len(hits) >= limit:
                    ended = False
                    break
    if not ended:
        os.kill(process, 9)
    _, status = os.waitpid(process, 0)
    return hits if not ended or os.waitstatus_to_exitcode(status) in (0, 1) else None


def _in_ranges(stream: BinaryIO, ranges: list[list[int]]) -> Any:
    index = 0
    for raw in stream:
        head, _, line = raw.partition(b":")
        at = int(head)
        while index < len(ranges) and at >= ranges[index][1]:
            index += 1
        if index < len(ranges) and at >= ranges[index][0]:
            yield at, line.removesuffix(b"\n")


def main(seconds: int, descriptors: int) -> None:
    """One request on standard input, one answer on standard output: JSON. `descriptors` bounds their numbers."""
    limits = (("CPU", seconds), ("AS", 1 << 30), ("FSIZE", 0), ("NOFILE", descriptors), ("CORE", 0))
    for name, value in limits:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    head = json.load(sys.stdin.buffer)
    try:
        found = re.compile(head["pattern"])
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        sys.stdout.write(json.dumps({"error": str(error)[:200]}))
        return
    ranges, odd, limit = head["ranges"], head["odd"], head["limit"]
    hits: list[int] | None = None
    engine = "python"
    if head["text"] >= 0:
        text = mmap.mmap(head["text"], 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        if head["ripgrep"]:
            try:
                pattern = wider(head["pattern"])
            except (re.error, OverflowError, RecursionError):
                pattern = ""
            hits = by_ripgrep(found, head["ripgrep"], pattern, head["source"], ranges, limit)
            engine = "python" if hits is None else "ripgrep"
        if hits is None:
            hits = by_python(found, text, ranges, limit)
        hits += by_python(found, text, odd, limit)
    sys.stdout.write(json.dumps({"hits": sorted(hits or [])[:limit], "engine": engine}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
