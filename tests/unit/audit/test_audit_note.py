"""Signed notes against the published examples and the bad cases of Go's sumdb/note (BSD-3-Clause), re-told."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.audit.checkpoint import Checkpoint, open_checkpoint, parse_text, parse_trailer, peek
from vestibule.audit.note import BadNote, SigningKey, VerifyingKey, open_note, parse_note
from vestibule.audit.tree import EMPTY_ROOT

PETER = VerifyingKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
ENOCH = VerifyingKey.parse("EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop")
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_SIG = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_SIG = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"


def test_the_example_of_the_specification_verifies() -> None:
    """C2SP signed-note, section "Example"."""
    key = VerifyingKey.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    signature = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    note = f"This is an example message.\n\n— example.com/foo {signature}\n"
    assert open_note(note, [key]) == "This is an example message.\n"
    with pytest.raises(BadNote):
        open_note(note.replace("example message", "exemple message"), [key])


def test_every_mangling_of_a_verifier_key_is_refused() -> None:
    text = PETER.text()
    mangled = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)} - {text}
    mangled |= {text[:i] + chr(ord(text[i]) + 1) + text[i + 1 :] for i in range(len(text))}
    mangled |= {
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        text.upper(),
        text + "\n",
        "",
    }
    for bad in mangled:
        with pytest.raises(BadNote):
            VerifyingKey.parse(bad)


def test_every_mangling_of_a_signing_key_is_refused() -> None:
    text = SigningKey.generate("EnochRoot").text()
    assert SigningKey.parse(text).text() == text
    for i in range(0, len(text), 3):
        for bad in (text[i + 1 :], text[:i], text[:i] + chr(ord(text[i]) + 1) + text[i + 1 :]):
            with pytest.raises(BadNote) as caught:
                SigningKey.parse(bad)
            assert text[-20:] not in str(caught.value)


def test_a_signing_key_never_prints_itself() -> None:
    key = SigningKey.generate("a")
    # PRIVATE+KEY+NAME+ID+KEY: the key's base64 may hold a plus sign itself.
    assert key.text().split("+", 4)[4] not in repr(key)
    assert repr(key.seed) not in repr(key)


def test_signatures_by_unknown_keys_are_ignored_but_one_known_is_needed() -> None:
    note = TEXT + "\n" + PETER_SIG + ENOCH_SIG
    assert open_note(note, [PETER]) == open_note(note, [ENOCH]) == open_note(note, [PETER, ENOCH]) == TEXT
    with pytest.raises(BadNote):
        open_note(note, [])


def test_a_bad_signature_of_a_known_key_refuses_the_note_even_beside_a_good_one() -> None:
    bad = PETER_SIG[:60] + "ABCD" + PETER_SIG[60:]
    with pytest.raises(BadNote):
        open_note(TEXT + "\n" + bad, [PETER])
    with pytest.raises(BadNote):
        open_note(TEXT + "\n" + ENOCH_SIG + bad, [PETER, ENOCH])
    assert open_note(TEXT + "\n" + ENOCH_SIG + bad, [ENOCH]) == TEXT


def test_a_signature_under_another_name_or_id_is_no_signature() -> None:
    for bad in (PETER_SIG.replace("PeterNeumann", "CarmenSandiego"), PETER_SIG.replace("x08g", "xxxx")):
        with pytest.raises(BadNote):
            open_note(TEXT + "\n" + bad, [PETER])


@pytest.mark.parametrize(
    "bad",
    [
        TEXT,
        TEXT + "\n",
        TEXT + "\n" + PETER_SIG[:-1],
        "\x01" + TEXT + "\n" + PETER_SIG,
        "\t" + TEXT + "\n" + PETER_SIG,
        TEXT.replace("\n", "\r\n") + "\r\n" + PETER_SIG,
        TEXT + "\n" + PETER_SIG.replace("PeterNeumann", "Bad Name"),
        TEXT + "\n" + PETER_SIG.replace("PeterNeumann", "Bad+Name"),
        TEXT + "\n" + PETER_SIG.replace("PeterNeumann", "Bad\u00a0Name"),
        TEXT + "\n" + PETER_SIG + "Unexpected line.\n",
        TEXT + "\n" + PETER_SIG + "\n",
        TEXT + "\n" + PETER_SIG.replace("— ", "- "),
        TEXT + "\n— PeterNeumann x08g\n",
        TEXT + "\n— PeterNeumann x08go/Z\n",
        TEXT + "\n" + PETER_SIG * 101,
        PETER_SIG,
        "",
    ],
)
def test_malformed_notes_are_refused(bad: str) -> None:
    with pytest.raises(BadNote):
        open_note(bad, [PETER])


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(BadNote):
        open_note(b"\xff" + (TEXT + "\n" + PETER_SIG).encode(), [PETER])


def test_base64_has_one_spelling() -> None:
    bent = PETER_SIG.replace("nAM=", "nAN=")
    with pytest.raises(BadNote):
        open_note(TEXT + "\n" + bent, [PETER])


def test_sixteen_signatures_are_accepted() -> None:
    keys = [SigningKey.generate(f"example.com/{n}") for n in range(16)]
    note = TEXT + "\n" + "".join(key.sign_note(TEXT).rsplit("\n\n", 1)[1] for key in keys)
    assert open_note(note, [keys[15].verifier]) == TEXT


def test_only_text_that_ends_in_a_line_feed_is_signed() -> None:
    key = SigningKey.generate("example.com/log")
    for bad in ("abc", "a\x00b\n", "a\udcff\n"):
        with pytest.raises(BadNote):
            key.sign_note(bad)


@given(st.text(max_size=200))
def test_parsing_never_fails_otherwise_than_by_refusal(text: str) -> None:
    for parse in (parse_note, peek, VerifyingKey.parse, SigningKey.parse, parse_text, parse_trailer):
        with contextlib.suppress(BadNote):
            parse(text)


@given(st.binary(max_size=200))
def test_bytes_never_fail_otherwise_than_by_refusal(data: bytes) -> None:
    with contextlib.suppress(BadNote):
        parse_note(data)


def test_the_checkpoint_of_the_specification_parses() -> None:
    """C2SP tlog-checkpoint, first example (its key is not published)."""
    note = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/"
        "behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    )
    head = peek(note)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)


ROOT = Checkpoint("o", 1, EMPTY_ROOT).root_base64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n1\n" + ROOT + "\n",
        "o\n01\n" + ROOT + "\n",
        "o\n-1\n" + ROOT + "\n",
        "o\n+1\n" + ROOT + "\n",
        "o\n1_0\n" + ROOT + "\n",
        "o\n١\n" + ROOT + "\n",
        "o\n1\n" + ROOT[:-4] + "\n",
        "o\n1\n" + ROOT + "AAAA\n",
        "o\n1\n" + ROOT,
        "o\n1\n" + ROOT + "\nextension\n",
        "o\n99999999999999999999\n" + ROOT + "\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(BadNote):
        parse_text(text)


def test_a_checkpoint_counts_only_under_its_own_origin() -> None:
    key, other = SigningKey.generate("example.com/a"), SigningKey.generate("example.com/b")
    head = Checkpoint("example.com/a", 7, EMPTY_ROOT)
    assert open_checkpoint(head.signed(key), [key.verifier, other.verifier]) == head
    with pytest.raises(BadNote):
        head.signed(other)
    with pytest.raises(BadNote):
        open_checkpoint(other.sign_note(head.text()), [key.verifier, other.verifier])


def test_a_trailer_says_the_same_as_the_checkpoint() -> None:
    head = Checkpoint("example.com/a", 7, EMPTY_ROOT)
    assert parse_trailer(head.trailer()) == head
