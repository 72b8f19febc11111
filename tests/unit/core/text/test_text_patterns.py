"""Regular expressions of operators and schemas end soon, whatever text they are tried on."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.core.text.patterns import MAX_TEXT, SlowPattern, check_pattern, matches_whole


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+", "(a*)*b", "(x?x?)+y", "(a|a)*b".replace("(a|a)", "(ab|a)"), "(.|a)*b", "([a-z]{1,3}){2}", "a*a*a*b",
        ".*.*.*", "(?=a)a", "(a)\\1", "(?<!b)a", "(", "a" * 600, "a{0,64}" * 8, "(a{1,2}b?)*c",
    ],
)  # fmt: skip
def test_a_pattern_that_could_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(SlowPattern):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("[A-Z]{2,8}-[0-9]{1,6}", "ABC-12", True),
        ("[A-Z]{2,8}-[0-9]{1,6}", "ABC-12\n", False),
        ("[A-Z]{2,8}-[0-9]{1,6}", "x ABC-12", False),
        ("(open|closed)", "open", True),
        ("(open|closed)", "opened", False),
        (".*", "a" * MAX_TEXT, True),
        (".*", "a" * (MAX_TEXT + 1), False),
    ],
)
def test_the_whole_of_a_bounded_text_is_matched(pattern: str, text: str, fits: bool) -> None:
    assert matches_whole(pattern, text) is fits


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab.*+?()|[]{}1,2x^$", max_size=14))
def test_what_is_accepted_ends_soon_on_a_hostile_text(pattern: str) -> None:
    try:
        check_pattern(pattern)
    except SlowPattern:
        return
    began = time.process_time()
    for text in ("a" * MAX_TEXT, "ab" * (MAX_TEXT // 2), "a" * (MAX_TEXT - 1) + "!"):
        matches_whole(pattern, text)
    assert time.process_time() - began < 2
