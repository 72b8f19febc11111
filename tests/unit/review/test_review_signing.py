"""A decision's signature covers all of it, and a key is never guessed, shared or replaced."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest
from review_world import BOB, RUN, binding

from vestibule.core.errors import DependencyDown, VerificationFailed
from vestibule.core.model import Decision
from vestibule.review.signing import CONTEXT, ReviewKey, key_id, signed_bytes, verify_decision


@pytest.fixture
def decision() -> Decision:
    return Decision(
        id="d-1",
        gate="g-1",
        run=RUN,
        person=BOB,
        choice="approve",
        reason="looked at it",
        binding=binding(),
        time="2026-01-02T03:04:05.000Z",
    )


OTHER = {
    "id": "d-2",
    "gate": "g-2",
    "run": "r-2",
    "person": BOB.model_copy(update={"how": "other"}),
    "choice": "reject",
    "reason": "other",
    "binding": binding(2),
    "self_review": True,
    "channel": "console",
    "time": "2027-01-02T03:04:05.000Z",
}


@pytest.mark.parametrize("field", list(Decision.model_fields))
def test_every_field_is_signed(decision: Decision, field: str) -> None:
    key = ReviewKey.new()
    signature = key.sign(decision)
    verify_decision(decision, signature, key.public)
    with pytest.raises(VerificationFailed):
        verify_decision(decision.model_copy(update={field: OTHER[field]}), signature, key.public)


def test_a_signature_of_anything_else_is_none_of_a_decision(decision: Decision) -> None:
    key = ReviewKey.new()
    assert signed_bytes(decision).startswith(CONTEXT)
    bare = key._private.sign(signed_bytes(decision)[len(CONTEXT) :])
    forged = key.sign(decision).model_copy(update={"value": base64.b64encode(bare).decode()})
    with pytest.raises(VerificationFailed):
        verify_decision(decision, forged, key.public)


@pytest.mark.parametrize(
    "update",
    [{"algorithm": "none"}, {"key": "0" * 16}, {"value": ""}, {"value": "!!"}, {"value": "AAAA"}, {"value": "A" * 88}],
)
def test_a_damaged_signature_does_not_hold(decision: Decision, update: dict[str, str]) -> None:
    key = ReviewKey.new()
    with pytest.raises(VerificationFailed):
        verify_decision(decision, key.sign(decision).model_copy(update=update), key.public)


def test_another_key_does_not_verify(decision: Decision) -> None:
    key, other = ReviewKey.new(), ReviewKey.new()
    signature = key.sign(decision)
    with pytest.raises(VerificationFailed):
        verify_decision(decision, signature, other.public)
    with pytest.raises(VerificationFailed):
        verify_decision(decision, signature.model_copy(update={"key": key_id(other.public)}), other.public)


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = ReviewKey.load(tmp_path, create=True)
    path = tmp_path / "keys/review.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert ReviewKey.load(tmp_path).public == key.public
    assert ReviewKey.load(tmp_path, create=True).public == key.public
    assert [item.name for item in path.parent.iterdir()] == ["review.key"]


def test_a_missing_key_is_refused_unless_it_is_the_first(tmp_path: Path) -> None:
    with pytest.raises(DependencyDown) as down:
        ReviewKey.load(tmp_path)
    assert down.value.name == "review_key"


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_key_is_refused_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    ReviewKey.load(tmp_path, create=True)
    path = tmp_path / "keys/review.key"
    path.write_bytes(content)
    with pytest.raises(DependencyDown):
        ReviewKey.load(tmp_path, create=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    ReviewKey.load(tmp_path, create=True)
    (tmp_path / "keys/review.key").chmod(mode)
    with pytest.raises(DependencyDown):
        ReviewKey.load(tmp_path)


def test_a_link_in_the_key_s_place_is_refused(tmp_path: Path) -> None:
    ReviewKey.load(tmp_path, create=True)
    path = tmp_path / "keys/review.key"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DependencyDown):
        ReviewKey.load(tmp_path)


def test_a_key_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(DependencyDown):
        ReviewKey.load(tmp_path, create=True)


def test_two_first_uses_at_once_make_one_key(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(ReviewKey.load(tmp_path, create=True).public)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
