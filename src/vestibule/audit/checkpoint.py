"""Checkpoints (C2SP tlog-checkpoint): a log's signed size and root, as a signed note of three lines."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from vestibule.audit.note import BadNote, SigningKey, VerifyingKey, _unbase64, open_note, parse_note
from vestibule.audit.tree import HASH_SIZE

_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: `size` entries whose Merkle root is `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @property
    def root_base64(self) -> str:
        return base64.b64encode(self.root).decode()

    def text(self) -> str:
        """The note's text: origin, size, root, a line each."""
        return f"{self.origin}\n{self.size}\n{self.root_base64}\n"

    def signed(self, key: SigningKey) -> str:
        """The signed note. The key's name is the origin."""
        if key.name != self.origin:
            raise BadNote("a checkpoint is signed by the key that bears its origin's name")
        return key.sign_note(self.text())

    def trailer(self) -> str:
        """`<origin> <size> <root>`, the value of a `Vestibule-Checkpoint` commit trailer."""
        return f"{self.origin} {self.size} {self.root_base64}"


def parse_text(text: str) -> Checkpoint:
    """From a note's text. Extension lines are refused: nobody could audit them.

    Raises:
        BadNote: malformed.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise BadNote("a checkpoint has three lines: origin, size and root")
    return _checkpoint(lines[0], lines[1], lines[2])


def parse_trailer(value: str) -> Checkpoint:
    """From a commit trailer's value. Raises `BadNote`."""
    parts = value.split(" ")
    if len(parts) != 3:
        raise BadNote("a checkpoint trailer is origin, size and root")
    return _checkpoint(*parts)


def peek(note: str) -> Checkpoint:
    """What a note claims, signature unseen: only to find out which key is needed. Raises `BadNote`."""
    return parse_text(parse_note(note).text)


def open_checkpoint(note: str, keys: Iterable[VerifyingKey]) -> Checkpoint:
    """A checkpoint signed by one of `keys` whose name is its origin.

    Raises:
        BadNote: malformed, not so signed, or signed under another name.
    """
    claimed = peek(note)
    return parse_text(open_note(note, [key for key in keys if key.name == claimed.origin]))


def _checkpoint(origin: str, size: str, root: str) -> Checkpoint:
    if not _SIZE.match(size):
        raise BadNote("a checkpoint's size is a decimal number without leading zeros")
    data = _unbase64(root)
    if len(data) != HASH_SIZE:
        raise BadNote("a checkpoint's root has 32 bytes")
    return Checkpoint(origin, int(size), data)
