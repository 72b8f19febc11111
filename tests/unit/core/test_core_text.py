"""Paths, globs, names and the sanitizer: properties that every room relies on."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vestibule.core.control_files import control_file, protected_path
from vestibule.core.text import globs, sanitize
from vestibule.core.text.globs import ImpossibleGlob, check_glob, first_match, is_whole_folder, literal_prefix, matches
from vestibule.core.text.names import NameRefused, canonical_endpoint, canonical_host
from vestibule.core.text.paths import PathRefused, fold, normalise_path
from vestibule.core.text.sanitize import find_hidden, one_line, show_hidden

HOSTILE = st.text(alphabet=st.sampled_from(list("ab./\\%~: \0\n\t2eEfFgGiItT\u200b\u202e\u0301é.ﬁ\udcff")), max_size=24)


@settings(max_examples=600, deadline=None)
@given(HOSTILE | st.text(max_size=40))
@example("a/../b")
@example(".git")
@example("a/.GIT/x")
@example("..%2f")
def test_a_normalised_path_is_relative_plain_and_stable(text: str) -> None:
    try:
        normal = normalise_path(text)
    except PathRefused as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.rule.startswith("path.")
        assert refused.hint
        return
    assert normalise_path(normal) == normal
    parts = normal.split("/")
    assert not normal.startswith("/")
    assert all(part not in ("", ".", "..") for part in parts)
    assert all(unicodedata.normalize("NFKC", part).casefold() != ".git" for part in parts)
    assert "\\" not in normal
    assert unicodedata.normalize("NFC", normal) == normal
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in normal)
    normal.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("../x", "path.traversal"),
        ("a/../../x", "path.traversal"),
        ("/etc/passwd", "path.absolute"),
        ("C:/x", "path.absolute"),
        ("~/x", "path.absolute"),
        ("a\0b", "path.nul"),
        ("a\nb", "path.control"),
        ("a\\b", "path.backslash"),
        ("%2e%2e/x", "path.encoded"),
        ("a%2Fb", "path.encoded"),
        ("%252e", "path.encoded"),
        (".git/config", "path.git"),
        ("x/.Git", "path.git"),
        ("git~1/x", "path.git"),
        (".git ", "path.trailing"),
        (".git.", "path.trailing"),
        ("ab:c", "path.stream"),
        ("nul", "path.device"),
        ("x/COM1.txt", "path.device"),
        ("e\u0301", "path.unicode"),
        ("a\u200bb", "path.invisible"),
        ("a\u202eb", "path.invisible"),
        ("", "path.empty"),
        (".", "path.empty"),
        ("\udcff", "path.encoding"),
        ("x" * 300, "path.length"),
        ("a/" * 3000, "path.length"),
        (".\uff47it/x", "path.git"),
    ],
)
def test_what_could_be_read_as_another_path_is_refused(text: str, rule: str) -> None:
    with pytest.raises(PathRefused) as error:
        normalise_path(text)
    assert error.value.rule == rule


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("./a//b", "a/b"),
        ("a/./b", "a/b"),
        ("docs/Ünïcode guide.md", "docs/Ünïcode guide.md"),
        ("a/", "a"),
        (".github", ".github"),
    ],
)
def test_harmless_spellings_have_one_normal_form(text: str, normal: str) -> None:
    assert normalise_path(text) == normal


def test_the_root_is_named_only_where_asked() -> None:
    assert normalise_path("", allow_root=True) == ""
    assert normalise_path("./", allow_root=True) == ""


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_folding_is_idempotent_over_case_and_forms(text: str) -> None:
    assert fold(fold(text)) == fold(fold(fold(text)))
    assert fold("A/B") == fold("a/b")


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("src/a.py", "src/**", True),
        ("src/.hidden/a", "src/**", True),
        ("srcx/a", "src/**", False),
        ("a.py", "*.py", True),
        ("x/a.py", "*.py", False),
        ("x/a.py", "**/*.py", True),
        ("a.py", "**/*.py", True),
        ("docs/a.md", "docs/**/*.md", True),
        ("a.py", "{a,b}.py", True),
        ("c.py", "{a,b}.py", False),
        ("A.py", "a.py", False),
        ("a.py", "[ab].py", True),
        ("ab", "a?", True),
        ("a/b", "a?b", False),
        ("a/b/c", "a/*/c", True),
        ("a/b/d/c", "a/*/c", False),
        ("x\ny", "*", True),
        ("src/a\n", "src/a", False),
    ],
)
def test_globs(path: str, pattern: str, expected: bool) -> None:
    assert matches(path, pattern) is expected


@pytest.mark.parametrize(
    "pattern",
    ["", " a", "a ", "/abs", "!x", "~/x", "../x", "a/../b", ".git/**", "a\\b", "a\0", "{a,b}" * 12, "c:/x", "%2e%2e/*"],
)
def test_globs_that_can_match_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ImpossibleGlob):
        check_glob(pattern)


@settings(max_examples=1500, deadline=None)
@given(st.text(alphabet="aab*?[]{},!/.-()|+^$", max_size=14), st.text(alphabet="ab/.", max_size=10))
def test_any_glob_is_refused_or_answers(pattern: str, path: str) -> None:
    try:
        check_glob(pattern)
    except ImpossibleGlob:
        return
    assert matches(path, pattern) == any(regex.fullmatch(path) for regex in globs._compiled(pattern))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_folder_pattern_covers_exactly_what_lies_below(parts: list[str]) -> None:
    path = "/".join(parts)
    assert matches(f"{path}/x", f"{path}/**")
    assert not matches(f"{path}x/y", f"{path}/**")
    assert is_whole_folder(f"{path}/**")
    assert literal_prefix(f"{path}/**") == path
    assert first_match(f"{path}/x", ("nope", f"{path}/**")) == f"{path}/**"


@pytest.mark.parametrize(
    "path",
    [
        "CLAUDE.md",
        "a/b/Agents.MD",
        ".claude/settings.json",
        ".mcp.json",
        ".cursor/rules/x",
        ".github/copilot-instructions.md",
        ".vscode/tasks.json",
        "x.code-workspace",
        ".agent/memory.md",
        "skills/SKILL.md",
    ],
)
def test_agent_control_files_in_any_case_and_place(path: str) -> None:
    assert control_file(path)
    assert control_file(path.upper())
    assert protected_path(path)


@pytest.mark.parametrize(
    "path", ["src/claude.py", "docs/agents.rst", "src/vscode/x.py", "README.md", "docs/ci.md", "src/licence_plate.py"]
)
def test_ordinary_files_are_not_protected(path: str) -> None:
    assert protected_path(path) is None


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Docs.Example.COM", "docs.example.com"),
        ("a-b.c1", "a-b.c1"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_host_names_have_one_form(text: str, host: str) -> None:
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3.4",
        "0x7f.1",
        "127.1",
        "2130706433",
        "[::1]",
        "a..b",
        "a.",
        ".a",
        "-a.b",
        "a_b.c",
        "*.a",
        "bücher.example",
        "a\0b",
        "a b",
        "a" * 64 + ".x",
        "x." * 130 + "y",
        "a\n",
    ],
)
def test_anything_else_is_no_host_name(text: str) -> None:
    with pytest.raises(NameRefused):
        canonical_host(text)


@pytest.mark.parametrize("text", ["a.b", "a.b:", "a.b:0", "a.b:65536", "a.b:+1", "a.b:٣", ":443", "1.2.3.4:443"])
def test_endpoints_need_a_name_and_a_port(text: str) -> None:
    with pytest.raises(NameRefused):
        canonical_endpoint(text)
    assert canonical_endpoint("A.b:443") == ("a.b", 443)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60))
def test_what_is_shown_hides_nothing(text: str) -> None:
    shown = show_hidden(text)
    assert not find_hidden(shown)
    line = one_line(text)
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    assert len(line) <= 200


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab \n\té漢µλ", max_size=40))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert show_hidden(text) == text


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("a\u202eb", ["bidi"]),
        ("a\u200bb", ["zero-width"]),
        ("\ufeffa", []),
        ("a\ufeff", ["zero-width"]),
        ("\u2764\ufe0f", []),
        ("a\ufe0f", ["variation"]),
        ("a\U000e0101", ["variation"]),
        ("葛\U000e0100", []),
        ("\u2764\ufe0f\ufe0f", ["variation"]),
        ("x\U000e0041", ["tag"]),
        ("\u3164", ["blank"]),
        ("a\rb", ["control"]),
        ("a\r\nb", []),
        ("\x1b[0m", ["control"]),
        ("می\u200cخواهم", []),
        ("a\u200cb", ["zero-width"]),
        ("\u200f", []),
        ("\ue000", ["control"]),
        ("\u2028", ["control"]),
        ("\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", []),
        ("\U0001f3f4\U000e0072\U000e0075\U000e006e\U000e007f", ["tag"] * 4),
    ],
)
def test_hidden_characters_by_kind(text: str, kinds: list[str]) -> None:
    assert [item.kind for item in find_hidden(text)] == kinds


def test_a_text_of_many_flags_is_looked_through_once() -> None:
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    begin = time.process_time()
    assert find_hidden(flag * 20_000) == []
    assert time.process_time() - begin < 20


@pytest.mark.parametrize("text", ["a\u200b" * 200_000, "\r\n" * 400_000, "é" * 400_000, "\r" * 100_000])
def test_one_line_looks_at_what_it_shows_and_no_further(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(part: str) -> str:
        seen.append(len(part))
        return show_hidden(part)

    monkeypatch.setattr(sanitize, "show_hidden", noted)
    line = one_line(text, 100)
    assert len(line) == 100
    whole = show_hidden(text[:5000].replace("\r\n", "\n")).replace("\n", "⏎")
    assert line == f"{whole[:99]}…"
    assert max(seen) <= 300


_PARTS = st.sampled_from(["**", "**", "**", "*", "a", "b", "a*", "?", "[ab]", "{a,b}", "*.py", "a**", ".a", "{a,**}"])
_NAMES = st.sampled_from(["a", "b", "ab", "a.py", ".a", "c"])


@settings(max_examples=1500, deadline=None)
@given(st.lists(_PARTS, min_size=1, max_size=6).map("/".join), st.lists(_NAMES, min_size=1, max_size=7).map("/".join))
@example("a/**", "a")
@example("**/a/**", "a")
@example("**/**", "a")
def test_a_deep_path_is_matched_as_any_other(pattern: str, path: str) -> None:
    slowly = any(regex.fullmatch(path) for regex in globs._compiled(pattern))
    blocks = globs._blocks(pattern)
    assert blocks is not None
    assert any(globs._fits(path.split("/"), *one) for one in blocks) == slowly


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**/a/**/b/**/*.py", "a/b/" * 1000 + "x.txt.", False),
        ("**/a/**/b/**/*.py", "a/b/" * 1000 + "x.py", True),
        ("{a,b}/**/x/**/{d,e}/*", "a/" + "x/d/" * 1000 + "q/z/y", False),
    ],
)
def test_no_depth_of_a_path_makes_matching_slow(pattern: str, path: str, *, expected: bool) -> None:
    begin = time.process_time()
    assert matches(path, pattern) is expected
    assert time.process_time() - begin < 2
