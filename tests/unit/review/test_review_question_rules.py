"""How far a grant can go: by tables and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_world import REQUESTER, RUN

from vestibule.core.control_files import control_file
from vestibule.core.model import Bound, Question
from vestibule.core.text.globs import matches
from vestibule.review.question_rules import Ceiling, beyond, paths_of, question_digest, within

CEILING = Ceiling(read=("src/**", "docs/*.md", "data/{a,b}/**"), write=("src/**",), protected=("src/locked/**",))


def asked(*paths: Any, access: Any = "read", **more: Any) -> Question:
    values: dict[str, Any] = {
        "id": "q-1", "run": RUN, "round": 1, "attempt": 1, "kind": "scope", "why": "", "digest": "",
        "asked": {"paths": list(paths), "access": access}, "requester": REQUESTER.id, "eligible": (),
        "self_approval": "never", "opened": "2026-01-01T00:00:00.000Z", "expires": "2026-01-02T00:00:00.000Z", **more,
    }  # fmt: skip
    return Question.model_validate(values)


@pytest.mark.parametrize(
    "path", ["src/a.py", "src/deep/er/a.py", "docs/a.md", "src/**", "src/x/*.py", "docs/*.md", "src/[id].js"]
)
def test_what_is_plainly_within_may_be_granted(path: str) -> None:
    assert beyond(asked(path), CEILING) == ()


@pytest.mark.parametrize(
    "path",
    [
        "lib/a.py", "docs/deep/a.md", "docs/**", "**", "*", "s*/**", "{src,lib}/**", "src*/a.py", "srcs/a.py",
        "docs/[a-z].md", "data/*/x", "",
        "../x", "src/../lib/a", "/src/a", "src//a", "./src/a", "src/a\0", "src\\a", "src/%2e%2e/lib", "src/a.",
        "SRC/a.py",
        "src/.git/config", "src/con", "!src/a", "~/src", "src/\u202ea", "src/AGENTS.md", "src/.claude/settings.json",
    ],
)  # fmt: skip
def test_whatever_is_not_plainly_within_may_not(path: str) -> None:
    [out] = beyond(asked("src/fine.py", path), CEILING)
    assert out.path == path
    assert out.why


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("docs/a.md", "to write"),
        ("src/locked/a.py", "protected"),
        ("src/LOCKED/a.py", "protected"),
        ("src/locked/**", "protected"),
        ("src/.npmrc", "protected"),
        (".github/workflows/x.yml", "protected"),
        ("src/claude.md", "control"),
    ],
)
def test_writing_is_granted_to_nothing_that_is_protected(path: str, why: str) -> None:
    [out] = beyond(asked(path, access="write"), CEILING)
    assert why in out.why


def test_what_may_be_written_may_be_read() -> None:
    assert beyond(asked("gen/a"), Ceiling(write=("gen/**",))) == ()


@pytest.mark.parametrize(
    ("bound", "read", "write"),
    [
        (Bound(by="organisation", read=("src/a/**",)), False, False),
        (Bound(by="organisation", write=("src/a/**",)), True, False),
        (Bound(by="organisation", read=("src/**",), write=("src/**",)), True, True),
        (Bound(by="organisation"), True, True),
    ],
)
def test_the_organisations_bounds_hold_for_every_grant(bound: Bound, read: bool, write: bool) -> None:
    ceiling = CEILING.model_copy(update={"bounds": (bound,)})
    for path in ("src/b.py", "src/**"):
        assert (beyond(asked(path), ceiling) == ()) is read
        assert (beyond(asked(path, access="write"), ceiling) == ()) is write


@pytest.mark.parametrize(
    "content",
    [
        {}, {"paths": [], "access": "read"}, {"paths": ["src/a"]}, {"paths": "src/a", "access": "read"},
        {"paths": ["src/a"], "access": "exec"}, {"paths": [1], "access": "read"},
        {"paths": ["src/a"] * 51, "access": "read"},
    ],
)  # fmt: skip
def test_a_question_without_plain_paths_grants_nothing(content: dict[str, Any]) -> None:
    question = asked(asked=content)
    assert paths_of(question) is None
    assert beyond(question, CEILING)


def test_an_empty_ceiling_lets_nothing_be_granted() -> None:
    assert beyond(asked("src/a.py"), Ceiling())


def test_a_held_call_has_no_ceiling_here_and_a_block_grants_nothing() -> None:
    assert beyond(asked(kind="call"), Ceiling()) == ()
    assert beyond(asked("src/a.py", kind="block"), CEILING)


@pytest.mark.parametrize(
    "field", ["id", "run", "round", "attempt", "why", "requester", "eligible", "self_approval", "opened", "expires"]
)
def test_an_answer_is_bound_to_everything_that_was_shown(field: str) -> None:
    changed: dict[str, Any] = {
        "round": 2, "attempt": 2, "eligible": ("local:x",), "self_approval": "recorded",
    }  # fmt: skip
    other = changed.get(field, "2026-02-02T00:00:00.000Z")
    assert question_digest(asked("src/a", **{field: other})) != question_digest(asked("src/a"))
    assert question_digest(asked("src/b")) != question_digest(asked("src/a"))


segments = st.sampled_from(["src", "a", "b", "*", "**", "{src,lib}", "lib", "[a-s]rc", "x?", ".hidden", "a.py", "s*"])
patterns = st.lists(segments, min_size=1, max_size=4).map("/".join)
names = st.lists(
    st.sampled_from(["src", "a", "b", "lib", "x1", ".hidden", "a.py", "arc", "sub"]), min_size=1, max_size=5
)


@given(patterns, patterns, names)
def test_a_pattern_that_is_within_matches_nothing_outside(asked_for: str, allowed: str, parts: list[str]) -> None:
    path = "/".join(parts)
    if within(asked_for, (allowed,)) and matches(path, asked_for):
        assert matches(path, allowed)


@given(st.text(max_size=40), st.sampled_from(["read", "write"]))
def test_no_text_at_all_is_granted_outside_of_the_ceiling(text: str, access: str) -> None:
    for candidate in (text, f"src/{text}", f"{text}/src"):
        if not beyond(asked(candidate, access=access), CEILING):
            assert candidate.startswith(("src/", "docs/", "data/"))
            assert ".." not in candidate.split("/")
            assert control_file(candidate) is None
