"""What holds of provenance for any text, value and call."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.context.catalogue import Tool
from vestibule.boundary.context.provenance import Trusted, trusted_arguments, words
from vestibule.boundary.context.values import HIDDEN, identifiers, moments_of, number_in

TOOL = Tool("t", "", {"properties": {"a": {}}}, read_only=False)
TEXT = st.text(alphabet=st.sampled_from("ab1 2.,-:@/\n'\"é支\u200b\0"), max_size=40) | st.text(max_size=60)
SCALAR = TEXT | st.integers() | st.floats() | st.booleans() | st.none()
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
TOKEN = st.from_regex(r"[a-z]{6}[0-9]{6}[a-z]{6}", fullmatch=True)


def untrusted(value: Any, trusted: Trusted) -> set[str]:
    return set(trusted_arguments(TOOL, {"a": value}, trusted).untrusted)


@given(VALUE, st.lists(TEXT, max_size=3), TEXT)
def test_more_trusted_text_never_takes_trust_away(value: Any, texts: list[str], more: str) -> None:
    few = untrusted(value, Trusted(texts))
    assert untrusted(value, Trusted([*texts, more])) <= few
    assert untrusted(value, Trusted(texts).also(more)) <= few


@given(TOKEN, st.lists(TEXT, max_size=3), TEXT, TEXT)
def test_a_random_token_that_is_in_no_text_is_never_trusted(
    token: str, texts: list[str], before: str, after: str
) -> None:
    trusted = Trusted(texts)
    for value in (token, f"{before} {token}", f"{token} {after}", f"{before} {token} {after}", f"{before}{token}"):
        assert untrusted(value, trusted) >= {"/a"}, value


@given(st.text(alphabet="abz019.-_/@:", min_size=1, max_size=12), st.text(alphabet="abz019", min_size=1, max_size=4))
def test_a_part_of_a_longer_word_is_not_trusted(part: str, more: str) -> None:
    for whole in (part + more, more + part, more + part + more):
        if not set(words(part)) <= set(words(whole)):
            assert untrusted(part, Trusted([whole])) or moments_of(part) is not None


@given(TEXT)
def test_what_stands_in_the_text_is_trusted_as_a_whole(text: str) -> None:
    plain = "".join(char for char in text if char in " \n\t" or not (char.isspace() or ord(char) in (*range(32), 127)))
    alone = words(plain)
    if alone and not (len(alone) == 1 and number_in(alone[0]) is not None):
        assert not untrusted(plain, Trusted([f"{plain}"]))


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_numbers_come_from_the_same_number_only(said: int, used: int) -> None:
    trusted = Trusted([f"the amount is {said:,} in all"])
    assert (not untrusted(used, trusted)) == (used == said)
    assert not untrusted(said, trusted)


@given(VALUE)
def test_shown_as_identifiers_data_keeps_its_shape_and_says_nothing(value: Any) -> None:
    shown = identifiers(value)
    assert not any(" " in text.replace(HIDDEN, "") for text in _texts(shown))
    assert identifiers(shown) == shown or HIDDEN in json.dumps(shown, ensure_ascii=False)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _texts(item)]


@settings(deadline=None, max_examples=5)
@given(st.sampled_from(["a", "a ", "1", "1 ", "a.", "''", "支", "May 1 ", "1:", "-", "@", "a@", "://", "  "]))
def test_a_megabyte_costs_no_more_than_its_length(piece: str) -> None:
    """Twenty times the text costs about twenty times the time, with room for noise; a square would be four hundred."""

    def cost(chars: int) -> float:
        text = (piece * chars)[:chars]
        start = time.process_time()
        trusted = Trusted([text])
        for value in (text[: 60 << 10], text[: chars // 2][: 60 << 10] + "x", "x" + text[:2000], 1):
            trusted_arguments(TOOL, {"a": value}, trusted, free_text=("a",))
        return time.process_time() - start

    small = max(cost(50_000), 0.005)
    assert cost(1_000_000) < 100 * small
