"""Searching: the same answer whatever finds it, always of the files as they are now, and never more than is shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from context_fake import Endpoint, make_endpoint
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vestibule.boundary.context import search as module
from vestibule.boundary.context import search_worker, texts
from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.search import Found, ripgrep, search
from vestibule.boundary.context.texts import Texts
from vestibule.boundary.context.tree import Tree
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.errors import DependencyDown
from vestibule.core.model import Scope

LIMITS = ContextLimits()
RG = ripgrep()
needs_ripgrep = pytest.mark.skipif(RG is None, reason="ripgrep is not installed")


class Place:
    """A folder with what searches it."""

    def __init__(self, folder: Path, limits: ContextLimits = LIMITS, **scope: Any) -> None:
        self.folder = folder
        self.limits = limits
        self.workspace = Workspace(folder)
        rights = Rights(Scope.model_validate({"read": ("src/**",), "write": ("src/**", "drop/**"), **scope}))
        self.tree = Tree(self.workspace, rights)
        self.texts = Texts(self.workspace, self.tree, limits)

    def write(self, path: str, data: str | bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data if isinstance(data, bytes) else data.encode())

    def find(self, query: str, *, regex: bool = False, program: str | None = RG, **more: Any) -> Found:
        return search(self.texts, query, regex=regex, limits=self.limits, program=program, **more)

    def lines(self, query: str, **more: Any) -> list[tuple[str, int, str]]:
        return [(hit.path, hit.line, hit.text) for hit in self.find(query, **more).hits]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.workspace.close()


# the same answer


def by_hand(files: dict[str, bytes], query: str, regex: bool) -> list[tuple[str, int]]:
    """What a search means: Python's `re` on each line, files in order of path."""
    found = []
    test = re.compile(query if regex else re.escape(query)).search
    for path in sorted(files, key=lambda item: item.split("/")):
        data = files[path]
        if texts.is_binary(data):
            continue
        lines = data.decode("utf-8", "replace").split("\n")
        found += [(path, at) for at, line in enumerate(lines[: -1 if lines[-1] == "" else None], 1) if test(line)]
    return found


ALPHABET = "abkKsſiİıéÉß0９ _-.(\t\r\x1c\u00a0\u0301\U0001f600\x85\u2028"
CONTENT = st.lists(st.text(ALPHABET, max_size=12), max_size=6).map("\n".join)
ATOMS = (
    ["a", "k", "S", "ı", "é", "ß", ".", r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\b", r"\B", "^", "$", r"\(", r"\.",
     "[a-k]", "[^a]", r"[\w-]", r"[^\s]", r"[^\W]", "[é-ü]", r"\1", "(?=a)", "(?!k)", "(?<=a)", "(?<!_)", " ", r"\t"]
)  # fmt: skip
EXPRESSION = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map(lambda item: f"({item})"),
        inner.map(lambda item: f"(?:{item})?"),
        inner.map(lambda item: f"(?i:{item})"),
        st.tuples(inner, st.sampled_from(["*", "+?", "{2}", "{0,3}", "?+"])).map(
            lambda item: f"(?:{item[0]}){item[1]}"
        ),
        inner.map(lambda item: f"(?>{item})"),
    ),
    max_leaves=6,
)


@needs_ripgrep
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.lists(CONTENT, min_size=1, max_size=3),
    odd=st.booleans(),
    pattern=EXPRESSION,
    flags=st.sampled_from(["", "(?i)", "(?a)", "(?s)", "(?x)", "(?m)"]),
)
def test_every_engine_finds_what_python_finds(
    tmp_path_factory: pytest.TempPathFactory, contents: list[str], odd: bool, pattern: str, flags: str
) -> None:
    pattern = flags + pattern
    try:
        re.compile(pattern)
    except re.error:
        assume(False)
    place = Place(tmp_path_factory.mktemp("place"))
    files = {f"src/{at}.txt": text.encode() for at, text in enumerate(contents)}
    if odd:
        files["src/0.txt"] += b"\na\xff k\xc3\n"
    for path, data in files.items():
        place.write(path, data)
    wanted = by_hand(files, pattern, regex=True)
    for program in (None, RG):
        found = place.find(pattern, regex=True, program=program)
        assert [(hit.path, hit.line) for hit in found.hits] == wanted, (pattern, found.engine)
    place.workspace.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(CONTENT, min_size=1, max_size=4), query=st.text(ALPHABET, min_size=1, max_size=3))
def test_a_literal_search_is_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, contents: list[str], query: str
) -> None:
    place = Place(tmp_path_factory.mktemp("place"))
    files = {f"src/{at}/f.txt": text.encode() for at, text in enumerate(contents)}
    for path, data in files.items():
        place.write(path, data)
    assert [(path, line) for path, line, _ in place.lines(query)] == by_hand(files, query, regex=False)
    place.workspace.close()


@needs_ripgrep
@pytest.mark.parametrize("flags", ["", "(?i)"])
def test_each_construct_finds_each_character_with_and_without_ripgrep(place: Place, flags: str) -> None:
    odd = ALPHABET.replace("\t", "").replace("\r", "") + "²Ⅷ٣\u200d़\u212aſ"
    place.write("src/a.txt", "\n".join([*odd, *(f"x{char}" for char in odd), *(f"{char}_" for char in odd)]))
    for atom in ATOMS:
        if atom != r"\1":
            wanted = [hit.line for hit in place.find(flags + atom, regex=True, program=None).hits]
            found = place.find(flags + atom, regex=True)
            assert ([hit.line for hit in found.hits], found.engine) == (wanted, "ripgrep"), atom


@needs_ripgrep
def test_ripgrep_is_the_engine_where_it_is_and_python_where_it_fails(place: Place, tmp_path: Path) -> None:
    place.write("src/a.txt", "one\ntwo 22\n")
    assert place.find(r"\d+", regex=True).engine == "ripgrep"
    for broken in ("/bin/ls", str(tmp_path / "missing")):
        found = place.find(r"\d+", regex=True, program=broken)
        assert (found.engine, [hit.line for hit in found.hits]) == ("python", [2])
    # A line feed can match no line; ripgrep says that it is a mistake, and Python says that nothing matches.
    assert place.find(r"a\nb", regex=True).engine == "python"


@needs_ripgrep
def test_ripgrep_helps_a_process_that_has_many_files_open(place: Place) -> None:
    place.write("src/a.txt", "two 22\n")
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    try:
        assert place.find(r"\d+", regex=True).engine == "ripgrep"
    finally:
        for number in taken:
            os.close(number)


@needs_ripgrep
@pytest.mark.parametrize("pattern", [r"\bdef\s+(\w+)\(", "(?i)straße", r"^\s*#\s*(?!x)", r"(a)\1", "[^a-z]$", "x{2,}"])
def test_an_expression_is_only_ever_made_wider(pattern: str) -> None:
    wider = search_worker.wider(pattern)
    lines = ["def f(x):", "STRASSE", "Straße", " # y", "# x", "aa", "abc9", "xxx", "", "É"]
    found = subprocess.run(
        [str(RG), "--no-config", "-N", "--regexp", wider, "-"],
        input="\n".join(lines).encode(),
        capture_output=True,
        check=False,
    )
    assert found.returncode in (0, 1), found.stderr
    passed = found.stdout.decode().split("\n")
    assert all(line in passed for line in lines if re.search(pattern, line))


# the files as they are now


def test_what_changes_between_searches_is_seen(place: Place) -> None:
    place.write("src/a.txt", "alpha\n")
    place.write("src/b.txt", "beta\n")
    assert place.lines("alpha") == [("src/a.txt", 1, "alpha")]
    place.write("src/a.txt", "alphx\n")  # the same size, at once
    assert place.lines("alpha") == []
    place.write("src/d/c.txt", "alpha")
    assert place.lines("alpha") == [("src/d/c.txt", 1, "alpha")]
    (place.folder / "src/b.txt").replace(place.folder / "src/d/c.txt")
    assert place.lines("alpha") == []
    assert place.lines("beta") == [("src/d/c.txt", 1, "beta")]
    shutil.rmtree(place.folder / "src/d")
    assert place.lines("beta") == []
    place.write("src/d", "beta, a file now")
    assert place.lines("beta") == [("src/d", 1, "beta, a file now")]


def test_a_change_that_hides_its_time_is_seen(place: Place) -> None:
    place.write("src/a.txt", "alpha\n")
    old = (place.folder / "src/a.txt").stat()
    time.sleep(texts.RACY_NS * 2 / 1e9)
    assert place.lines("alpha")
    with (place.folder / "src/a.txt").open("r+b") as file:
        file.write(b"alphx")
    os.utime(place.folder / "src/a.txt", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert place.lines("alpha") == []


def test_a_file_that_changed_just_now_is_read_again(place: Place) -> None:
    now = time.time_ns()
    assert texts._settled((1, now - texts.RACY_NS // 2, 5)) is None
    assert texts._settled((1, now - 2 * texts.RACY_NS, 5)) == (1, now - 2 * texts.RACY_NS, 5)
    assert texts._settled((1, now + 10**12, 5)) is None  # a clock that was set back
    place.write("src/a.txt", "alpha\n")
    first = place.texts.snapshot("", time.monotonic() + 10)
    assert not first.settled
    assert place.texts.snapshot("", time.monotonic() + 10) is not first


def test_a_file_is_read_once_for_each_content(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        place.write(f"src/{number}.txt", f"text {number}\n")
    old = time.time_ns()
    while time.time_ns() - old <= texts.RACY_NS:
        time.sleep(0.01)
    read: list[str] = []
    real = Workspace.read_in

    def counted(self: Workspace, folder: int, path: str, *, limit: int) -> Any:
        read.append(path)
        return real(self, folder, path, limit=limit)

    monkeypatch.setattr(Workspace, "read_in", counted)
    assert len(place.lines("text")) == 20
    assert len(read) == 20
    place.write("src/7.txt", "other\n")
    assert len(place.lines("text")) == 19
    assert read[20:] == ["src/7.txt"]
    assert len(place.lines("other")) == 1


def test_folders_and_names_limit_a_search(place: Place) -> None:
    for path in ("src/a.py", "src/a/b.py", "src/a/c.md", "src/ab.py"):
        place.write(path, "word\n")
    assert [item[0] for item in place.lines("word")] == ["src/a/b.py", "src/a/c.md", "src/a.py", "src/ab.py"]
    for regex in (False, True):
        assert [item[0] for item in place.lines("wor[d]" if regex else "word", regex=regex, folder="src/a")] == [
            "src/a/b.py",
            "src/a/c.md",
        ]
        wanted = place.lines("w.rd" if regex else "word", regex=regex, wanted=lambda path: path.endswith(".py"))
        assert [item[0] for item in wanted] == ["src/a/b.py", "src/a.py", "src/ab.py"]


def test_no_line_reaches_over_the_end_of_a_file(place: Place) -> None:
    place.write("src/a.txt", "one")
    place.write("src/b.txt", "two")
    for pattern in (r"e\s*t", r"(?s)e.t", r"e\W*t"):
        assert place.lines(pattern, regex=True) == []
    assert place.lines("^two$", regex=True) == [("src/b.txt", 1, "two")]
    assert place.lines("onetwo") == place.lines("one\ntwo") == []


# never more than is shown


def test_what_the_scope_hides_changes_nothing_of_an_answer(tmp_path: Path) -> None:
    answers = []
    for name, hidden in (("plain", False), ("hiding", True)):
        place = Place(tmp_path / name if (tmp_path / name).mkdir() is None else tmp_path)
        place.write("src/a.txt", "needle\n")
        if hidden:
            for path in ("drop/x.txt", "other/y.txt", "src/CLAUDE.md", "src/.claude/z.txt", ".git/needle"):
                place.write(path, "needle\n" * 500)
        for regex in (False, True):
            answers.append((name, place.find("needle", regex=regex), [item.path for item in place.tree.items()]))
        place.workspace.close()
    assert answers[0][1:] == answers[2][1:]
    assert answers[1][1:] == answers[3][1:]


def test_a_file_that_may_be_written_but_not_read_is_never_opened(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("drop/x.txt", "needle\n")
    place.write("src/a.txt", "needle\n")
    opened: list[str] = []
    real = Workspace.read_in

    def seen(self: Workspace, folder: int, path: str, *, limit: int) -> Any:
        opened.append(path)
        return real(self, folder, path, limit=limit)

    monkeypatch.setattr(Workspace, "read_in", seen)
    assert place.lines("needle") == [("src/a.txt", 1, "needle")]
    assert opened == ["src/a.txt"]


def test_links_pipes_and_files_with_two_names_are_not_searched(place: Place, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("needle\n")
    place.write("src/a.txt", "needle\n")
    (place.folder / "src/link.txt").symlink_to(outside / "secret.txt")
    (place.folder / "src/folder").symlink_to(outside)
    os.mkfifo(place.folder / "src/pipe")
    os.link(outside / "secret.txt", place.folder / "src/hard.txt")
    for _ in range(2):
        assert place.lines("needle") == [("src/a.txt", 1, "needle")]
        assert place.lines("need.e", regex=True) == [("src/a.txt", 1, "needle")]


def test_the_copy_cannot_be_changed_through_its_descriptor(place: Place) -> None:
    place.write("src/a.txt", "needle\n")
    place.lines("needle")
    snapshot = place.texts.snapshot("", time.monotonic() + 10)
    with pytest.raises(OSError, match="not permitted"):
        os.write(snapshot.fd, b"x")
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(snapshot.fd, 0)


# bounded, whatever is asked


@pytest.mark.parametrize("program", [None, RG])
@pytest.mark.parametrize("pattern", ["(a|aa)+(?=c)", "(?:a*)*(?=c)", r"(a+)+\1\1\1(?<=c)"])
def test_an_evil_expression_is_killed_at_the_deadline(tmp_path: Path, program: str | None, pattern: str) -> None:
    place = Place(tmp_path, replace(LIMITS, search_seconds=0.5))
    place.write("src/evil.txt", "a" * 5000 + "b\n")
    began = time.monotonic()
    with pytest.raises(NotDone, match="took too long"):
        place.find(pattern, regex=True, program=program)
    assert time.monotonic() - began < 5
    place.workspace.close()


def test_texts_beyond_the_memory_bound_are_searched_by_folder(tmp_path: Path) -> None:
    place = Place(tmp_path, replace(LIMITS, search_total_bytes=4000))
    for number in range(10):
        place.write(f"src/d{number}/f.txt", f"needle {number}\n" + "x" * 990 + "\n")
    everything = place.find("needle")
    assert not everything.complete
    assert 0 < len(everything.hits) < 10
    for number in range(10):
        found = place.find("needle", folder=f"src/d{number}")
        assert ([hit.path for hit in found.hits], found.complete) == ([f"src/d{number}/f.txt"], True)
    place.workspace.close()


def test_large_and_binary_files_are_left_out_and_the_first_is_said(tmp_path: Path) -> None:
    place = Place(tmp_path, replace(LIMITS, search_file_bytes=1000))
    place.write("src/binary.bin", b"needle\0\n")
    place.write("src/a.txt", "needle\n")
    assert (len(place.find("needle").hits), place.find("needle").complete) == (1, True)
    place.write("src/large.txt", "needle\n" * 1000)
    assert (len(place.find("needle").hits), place.find("needle").complete) == (1, False)
    place.workspace.close()


def test_empty_scopes_and_wrong_expressions(place: Place) -> None:
    assert place.lines("x") == place.lines("x", regex=True) == []
    place.write("src/empty.txt", "")
    assert place.lines("", regex=True) == []
    with pytest.raises(NotDone, match="no regular expression"):
        place.find("(", regex=True)


def test_many_matches_are_cut_the_same_way_by_every_engine(tmp_path: Path) -> None:
    place = Place(tmp_path, replace(LIMITS, search_hits=5))
    for name in "abc":
        place.write(f"src/{name}.txt", "hit\nmiss\n" * 3)
    place.write("src/a2.txt", b"hit\xff\n")
    wanted = [("src/a.txt", 1), ("src/a.txt", 3), ("src/a.txt", 5), ("src/a2.txt", 1), ("src/b.txt", 1)]
    for more in ({}, {"regex": True, "program": None}, {"regex": True}):
        found = place.find("hit", **more)
        assert ([(hit.path, hit.line) for hit in found.hits], found.more) == (wanted, True)
    place.workspace.close()


def test_a_workspace_that_is_gone_is_down(place: Place) -> None:
    place.write("src/a.txt", "x\n")
    place.workspace.close()
    with pytest.raises(DependencyDown) as caught:
        place.find("x")
    assert caught.value.name == "workspace"


def test_nothing_of_a_search_stays_open(place: Place) -> None:
    place.write("src/a.txt", "needle\n")
    place.lines("needle")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(10):
        place.write("src/a.txt", f"needle {number}\n")
        place.lines("needle")
        place.lines("need.e", regex=True)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_ripgrep_is_taken_from_the_systems_folders_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert all(path.startswith(("/usr/bin/", "/usr/local/bin/")) for path in module.RIPGREP)
    fake = tmp_path / "rg"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ripgrep() != str(fake)


def test_through_the_tool_the_engine_is_in_the_log(folder: Path, loop: Any) -> None:
    endpoint: Endpoint = make_endpoint(folder, loop)
    endpoint.call("search_files", query="Hel+o", regex=True)
    assert endpoint.log.events[-1].details["engine"] == ("ripgrep" if RG else "python")
    endpoint.call("search_files", query="Hello")
    assert endpoint.log.events[-1].details == {"hits": 2, "engine": "scan"}


@pytest.mark.parametrize("fits", [True, False])
def test_no_more_copies_are_in_use_than_there_is_memory_for(tmp_path: Path, *, fits: bool) -> None:
    place = Place(tmp_path, replace(LIMITS, search_total_bytes=1000 if fits else 10))
    in_use = []
    for number in range(texts.COPIES):
        place.write("src/a.txt", f"text that is found {number}\n")
        in_use.append(place.texts.snapshot("", time.monotonic() + 5))
    place.write("src/a.txt", "text that is found in the end\n")
    with pytest.raises(NotDone, match="still going on"):
        place.texts.snapshot("", time.monotonic() + 0.05)
    in_use.pop()
    if fits:  # the last one is kept for the next search
        in_use.pop()
    assert place.texts.snapshot("", time.monotonic() + 5).spans.keys() == {"src/a.txt"}
    place.workspace.close()
