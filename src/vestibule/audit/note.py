"""Signed notes (C2SP signed-note v1.0.0) with Ed25519 keys, signature type 0x01.

Rules it keeps:
1. Parsing is strict: valid UTF-8, no control character but the line feed, canonical base64, a bounded size.
2. The text is trusted only after a signature by a key the caller already holds; keys never come from a note.
3. A bad signature by a known key refuses the whole note; signatures by unknown keys are ignored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_NOTE = 1 << 20
MAX_SIGNATURES = 100
ED25519 = b"\x01"


class BadNote(ValueError):
    """The note, or a key in text form, is malformed or not signed by a known key."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key under a name. `text()` is the vkey form: `<name>+<key id in hex>+<base64(0x01 || key)>`."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifyingKey:
        """From the vkey form.

        Raises:
            BadNote: malformed, another algorithm, or the key id is not that of name and key.
        """
        name, key_hex, encoded = _three_parts(text)
        data = _unbase64(encoded)
        if data[:1] != ED25519 or len(data) != 33:
            raise BadNote("the verifier key is no Ed25519 key")
        key = cls(check_name(name), data[1:])
        if key_hex != key.id.hex():
            raise BadNote("the verifier key's id does not belong to its name and key")
        return key

    @property
    def id(self) -> bytes:
        """Four bytes: SHA-256(name || 0x0A || 0x01 || key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    def text(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """RFC 8032 verification."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key under a name. Its text form is `PRIVATE+KEY+<name>+<key id>+<base64(0x01 || seed)>`."""

    name: str
    seed: bytes = field(repr=False)
    verifier: VerifyingKey

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        return cls._of(check_name(name), secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """From the text form.

        Raises:
            BadNote: malformed; the message never holds key material.
        """
        if not text.startswith("PRIVATE+KEY+"):
            raise BadNote("this is no signing key")
        name, key_hex, encoded = _three_parts(text.removeprefix("PRIVATE+KEY+"))
        data = _unbase64(encoded)
        if data[:1] != ED25519 or len(data) != 33:
            raise BadNote("the signing key is no Ed25519 key")
        key = cls._of(check_name(name), data[1:])
        if key_hex != key.verifier.id.hex():
            raise BadNote("the signing key's id does not belong to its name and key")
        return key

    @classmethod
    def _of(cls, name: str, seed: bytes) -> SigningKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return cls(name, seed, VerifyingKey(name, public))

    def text(self) -> str:
        encoded = base64.b64encode(ED25519 + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.id.hex()}+{encoded}"

    def sign_note(self, text: str) -> str:
        """The note: text, an empty line, one signature line.

        Raises:
            BadNote: the text has no final line feed or holds characters a note may not hold.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if not text.endswith("\n"):
            raise BadNote("a note's text ends with a line feed")
        message = _check_characters(text).encode()
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)
        return f"{text}\n— {self.name} {base64.b64encode(self.verifier.id + signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, not yet verified."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note, not yet verified: `text` is not to be believed before `open_note`."""

    text: str
    signatures: tuple[Signature, ...]


def parse_note(data: bytes | str) -> Note:
    """Raises `BadNote` unless `data` is a well-formed note."""
    if len(data) > MAX_NOTE:
        raise BadNote("the note is too large")
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadNote("the note is no UTF-8") from None
    _check_characters(data)
    split = data.rfind("\n\n")
    if split < 0:
        raise BadNote("the note has no signatures")
    text, lines = data[: split + 1], data[split + 2 :]
    if not lines or not lines.endswith("\n"):
        raise BadNote("the note's last line is cut off")
    found = tuple(_signature(line) for line in lines[:-1].split("\n"))
    if len(found) > MAX_SIGNATURES:
        raise BadNote("the note has too many signatures")
    return Note(text, found)


def open_note(data: bytes | str, keys: Iterable[VerifyingKey]) -> str:
    """The text of a note that at least one of `keys` signed.

    Raises:
        BadNote: malformed, a bad signature by one of them, or none by any of them.
    """
    note = parse_note(data)
    known: dict[tuple[str, bytes], VerifyingKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise BadNote(f"two different keys are both {key.name}+{key.id.hex()}")
    message = note.text.encode()
    good = False
    for item in note.signatures:
        held = known.get((item.name, item.key_id))
        if held is None:
            continue
        if not held.verifies(message, item.signature):
            raise BadNote(f"the signature of {item.name}+{item.key_id.hex()} is not valid")
        good = True
    if not good:
        raise BadNote("the note is not signed by a known key")
    return note.text


def check_name(name: str) -> str:
    """A key's name: not empty, no space of any kind, no plus sign, no control character."""
    if not name or "+" in name or any(char.isspace() for char in name):
        raise BadNote("a key's name is not empty and has neither spaces nor plus signs")
    return _check_characters(name)


def _signature(line: str) -> Signature:
    mark, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if mark != "—" or not name or not encoded:
        raise BadNote("a signature line is malformed")
    data = _unbase64(encoded)
    if len(data) < 5:
        raise BadNote("a signature is too short")
    return Signature(check_name(name), data[:4], data[4:])


def _three_parts(text: str) -> tuple[str, str, str]:
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise BadNote("a key in text form has a name, an id and a key, joined by plus signs")
    return parts[0], parts[1], parts[2]


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise BadNote("base64 is malformed") from None
    # Other encoders' sloppy padding would give one signature two spellings.
    if base64.b64encode(data).decode() != text:
        raise BadNote("base64 is not canonical")
    return data


def _check_characters(text: str) -> str:
    if any(char < " " and char != "\n" for char in text):
        raise BadNote("a note holds no control characters")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise BadNote("a note is UTF-8")
    return text
