"""Signed decisions: what a person answered, provable without this installation's database.

Rules it keeps:
1. The signed bytes are a context line and the canonical JSON of the whole decision (or answer): nothing of it can
   change, and no other signature of this installation means one.
2. The review key is its own, apart from the audit log's, and lies in a file that only its owner can read.
3. A key that is missing, readable by others, or damaged is `DependencyDown("review_key")`; none is made in its place
   unless the caller asks for the first one.

A signature says that this installation recorded the decision for the identity in it. It does not say more: a program
running as the same operating-system user can read the key.
Algorithm: Ed25519 (RFC 8032).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vestibule.core.base import Noun
from vestibule.core.canonical import canonical_json
from vestibule.core.errors import DependencyDown, VerificationFailed
from vestibule.core.model import Decision, Question
from vestibule.store.database import make_private_folder

CONTEXT = b"vestibule decision v1\n"
ANSWER_CONTEXT = b"vestibule answer v1\n"
KEY_NAME = "review.key"
_SEED = 32


class DecisionSignature(Noun):
    """`key` is the first 16 hex digits of SHA-256 of the raw public key; `value` standard base64 of 64 bytes."""

    algorithm: str = "Ed25519"
    key: str
    value: str


class SignedDecision(Noun):
    """What the table holds: the decision, its signature, and what the same person had said before at this gate."""

    decision: Decision
    signature: DecisionSignature
    earlier: tuple[SignedDecision, ...] = ()


class ReviewKey:
    """The installation's key for decisions."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    @classmethod
    def new(cls) -> ReviewKey:
        """A key that is stored nowhere."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, home: Path, *, create: bool = False) -> ReviewKey:
        """The key in `home`/keys/review.key; with `create` the first use makes it.

        Raises:
            DependencyDown: `review_key`, when it is missing, open to others, or no key.
        """
        path = home / "keys" / KEY_NAME
        if create and not path.exists():
            _make(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _down(f"The review key {path} cannot be read.", error.strerror or "") from None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            seed = file.read(_SEED + 1)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o077:
            raise _down(f"The review key {path} is open to others.", f"mode {found.st_mode & 0o7777:04o}")
        if len(seed) != _SEED:
            raise _down(f"The review key {path} is damaged.", f"{len(seed)} bytes instead of {_SEED}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, decision: Decision) -> DecisionSignature:
        return self._signature(signed_bytes(decision))

    def sign_answer(self, question: Question) -> DecisionSignature:
        return self._signature(answer_bytes(question))

    def _signature(self, data: bytes) -> DecisionSignature:
        value = self._private.sign(data)
        return DecisionSignature(key=self.id, value=base64.b64encode(value).decode("ascii"))


def key_id(public: bytes) -> str:
    """The short name of a raw public key (32 bytes)."""
    return hashlib.sha256(public).hexdigest()[:16]


def signed_bytes(decision: Decision) -> bytes:
    """What is signed. Raises ValueError when a text in it has no UTF-8 form."""
    return CONTEXT + canonical_json(decision.model_dump(mode="json"))


def answer_bytes(question: Question) -> bytes:
    """What is signed of an answered question: what was asked (by its digest), and the whole answer."""
    answer = {
        "question": question.id,
        "digest": question.digest,
        "state": question.state,
        "person": question.person.model_dump(mode="json") if question.person else None,
        "reason": question.reason,
        "self_review": question.self_review,
        "answered": question.answered,
    }
    return ANSWER_CONTEXT + canonical_json(answer)


def verify_decision(decision: Decision, signature: DecisionSignature, public: bytes) -> None:
    """Holds, or raises `VerificationFailed`. `public` is the raw key, from where the caller trusts it."""
    _verify(f"decision {decision.id}", lambda: signed_bytes(decision), signature, public)


def verify_answer(question: Question, signature: DecisionSignature | None, public: bytes) -> None:
    """The same for the answer of a question; none at all does not hold."""
    missing = DecisionSignature(algorithm="", key="", value="")
    _verify(f"the answer to {question.id}", lambda: answer_bytes(question), signature or missing, public)


def _verify(what: str, data: Callable[[], bytes], signature: DecisionSignature, public: bytes) -> None:
    problem = ""
    if signature.algorithm != "Ed25519":
        problem = f"an unknown algorithm {signature.algorithm!r}"
    elif signature.key != key_id(public):
        problem = f"it names the key {signature.key}, this one is {key_id(public)}"
    else:
        try:
            value = base64.b64decode(signature.value, validate=True)
            Ed25519PublicKey.from_public_bytes(public).verify(value, data())
        except (binascii.Error, ValueError, InvalidSignature):
            problem = "the signature does not fit"
    if problem:
        raise VerificationFailed(
            f"The signature of {what} does not hold.",
            why=problem[:1].upper() + problem[1:] + ".",
            next_step="Treat it as never given, and find out who wrote to the database.",
        )


def _make(path: Path) -> None:
    """Write a new seed beside the place and link it there, so that a key is never seen half written or replaced."""
    folder = make_private_folder(path.parent)
    temporary = folder / f".{KEY_NAME}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Ed25519PrivateKey.generate().private_bytes_raw())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        raise _down(f"The review key {path} cannot be made.", error.strerror or "") from None
    finally:
        temporary.unlink(missing_ok=True)


def _down(reason: str, fact: str) -> DependencyDown:
    return DependencyDown(
        "review_key",
        reason,
        fact=fact,
        person="Put the key back from a backup with mode 0600; a new one would leave older decisions unverifiable.",
    )
