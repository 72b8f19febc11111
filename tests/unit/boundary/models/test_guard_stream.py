"""Known values in an answer as it flows: split anywhere, hardly a byte of them leaves."""

from __future__ import annotations

import base64
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.guards.known import Known
from vestibule.boundary.models.guards.stream import STRETCH, Flow
from vestibule.core.text.secrets import KnownSecret

VALUE = "Zq7Rt2Lw9Xc4Vb6Nm1Kj8Hg3Fd5Sa0PoIuYtReWq"
KNOWN = Known((KnownSecret("key", VALUE.encode()),))


def run(pieces: list[str]) -> tuple[str, Flow]:
    """What leaves, each piece being its own frame."""
    flow = Flow(KNOWN)
    out = b"".join(flow.see(piece.encode(), piece) for piece in pieces)
    out += flow.see(b"", "", last=True)
    return out.decode(), flow


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(at)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 500), max_size=80), st.text(" .\nabc", max_size=60), st.text(" .\nabc", max_size=60))
def test_split_anywhere_at_most_five_characters_leave(places: list[int], before: str, behind: str) -> None:
    out, flow = run(cut(f"{before} {VALUE} {behind}", places))
    assert flow.sight.found == "key"
    assert VALUE[:6] not in out
    assert behind.strip() == "" or not out.endswith(f" {behind}")


def test_split_at_every_character() -> None:
    out, flow = run([*"Here it is: ", *VALUE, *" and more"])
    assert flow.sight.found
    assert out == "Here it is: " + VALUE[:5]


def test_an_end_that_could_go_on_waits_and_comes_out_whole() -> None:
    flow = Flow(KNOWN)
    assert flow.see(b"a", "see ") == b"a"
    assert flow.see(b"b", VALUE[:9]) == b""
    assert flow.see(b"c", " ") == b""
    assert flow.see(b"d", "is no key") == b"bcd"
    assert flow.kept == 2


def test_what_waits_at_the_end_of_a_clear_answer_is_sent() -> None:
    flow = Flow(KNOWN)
    assert flow.see(b"a", VALUE[:9]) == b""
    assert flow.see(b"b", "", last=True) == b"ab"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=30))
def test_other_texts_come_out_as_they_were(pieces: list[str]) -> None:
    out, flow = run([piece.encode("utf-8", "replace").decode() for piece in pieces])
    assert not flow.sight.found
    assert out == "".join(piece.encode("utf-8", "replace").decode() for piece in pieces)


def test_encodings_are_found_as_they_flow() -> None:
    for spelled in (
        VALUE[::-1],
        VALUE.encode().hex(),
        *(base64.b64encode(b"x" * n + VALUE.encode()).decode() for n in range(3)),
        " ".join(VALUE),
    ):
        out, flow = run([*"so: ", *spelled, *" end"])
        assert flow.sight.found, spelled
        assert len(out) <= len("so: ") + 16


def test_what_must_be_decoded_is_found_before_the_end() -> None:
    twice = base64.b64encode(base64.b64encode(VALUE.encode())).decode()
    _, flow = run([*twice])
    assert flow.sight.found
    # And of a long answer long before its end.
    flow = Flow(KNOWN)
    flow.see(b"", twice)
    for _ in range(STRETCH // 10):
        flow.see(b"", "some words.")
        if flow.stopped:
            break
    assert flow.stopped


def test_a_long_fragment_is_looked_at_as_a_whole() -> None:
    flow = Flow(KNOWN)
    assert flow.see(b"all", "word " * 400 + VALUE + " word" * 400) == b""
    assert flow.stopped
    flow = Flow(KNOWN)
    assert flow.see(b"all", "word " * 400 + VALUE[:10]) == b""
    assert not flow.stopped
    assert flow.see(b"more", VALUE[10:14]) == b""
    assert flow.stopped
