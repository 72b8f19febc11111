"""The log's signing key and its pin.

Rules it keeps:
1. The key is made once, on first use, readable by its owner only; a key others can read, or that belongs to
   someone else, is not used.
2. The verifying key is pinned outside what is verified when the key is made. A log whose folder is pinned but
   whose key is gone or different is not replaced by a new one: that would start history afresh unseen.
3. Beside the key stands the last head it signed (`signed-head`), from the first moment on: a log without it is refused.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from vestibule.audit.checkpoint import Checkpoint, open_checkpoint
from vestibule.audit.database import FILE
from vestibule.audit.note import BadNote, SigningKey
from vestibule.audit.tree import EMPTY_ROOT
from vestibule.audit.trust import Pin, Trust, TrustError, locked, sync_folder, write_durably
from vestibule.core.errors import DependencyDown

KEY_FILE: Final = "log.key"
HEAD_FILE: Final = "signed-head"

_RESTORE = "Restore the audit folder from a copy, and find out who changed it."
_RETIRED = " If this log was retired on purpose, move its .pin and .head files out of {} and start again."


def audit_down(reason: str, *, fact: str = "", person: str = "") -> DependencyDown:
    """The refusal for a log that cannot be relied on."""
    return DependencyDown("audit", reason, fact=fact, person=person or "Repair the audit log, then run it again.")


def ensure_key(folder: Path, trust: Trust, *, trust_domain: str = "vestibule.local", pin: bool = False) -> SigningKey:
    """The signing key of the log in `folder`, made and pinned on first use.

    `pin=True` (for `init`, a person's act) also pins a key that exists but is not pinned yet.

    Raises:
        DependencyDown: `audit`: the key is unreadable, exposed, missing or not the pinned one, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = _load(folder / KEY_FILE)
        if key is None or pin or trust.pin_for(key.name) is None:
            with locked(folder / ".lock"):
                key = _load(folder / KEY_FILE) or _make(folder, trust, trust_domain)
                # Without entries this is still the key's making, cut short by a crash.
                if pin or not (folder / FILE).exists():
                    trust.add(Pin(key.verifier, str(folder.resolve())))
                    sync_folder(trust.folder)
        _check_pin(folder, trust, key)
    except TrustError as error:
        raise audit_down(
            "The audit log's key is not the pinned one.",
            fact=str(error),
            person=_RESTORE + _RETIRED.format(trust.folder),
        ) from None
    except BadNote as error:
        raise audit_down("The audit log's key cannot be used.", fact=str(error), person=_RESTORE) from None
    except OSError as error:
        raise audit_down(
            "The audit log's key cannot be read or made.", fact=f"{error.filename}: {error.strerror}"
        ) from None
    return key


def pin_key(folder: Path, trust: Trust, *, trust_domain: str = "vestibule.local") -> str:
    """For `init`: makes the key if there is none, pins it, returns its verifying key's text. Raises as `ensure_key`."""
    return ensure_key(folder, trust, trust_domain=trust_domain, pin=True).verifier.text()


def read_signed_head(folder: Path, key: SigningKey) -> Checkpoint:
    """The last head this key signed.

    Raises:
        DependencyDown: `audit`: it is missing, malformed, or not signed by the key.
    """
    path = folder / HEAD_FILE
    try:
        return open_checkpoint(path.read_text("utf-8"), [key.verifier])
    except (OSError, UnicodeDecodeError, BadNote) as error:
        raise audit_down(
            "The audit log's memory of its last signed head is missing or damaged.",
            fact=f"{path}: {error}",
            person=_RESTORE,
        ) from None


def write_signed_head(folder: Path, note: str) -> None:
    """Raises `OSError`."""
    write_durably(folder / HEAD_FILE, note, mode=0o600)


def _load(path: Path) -> SigningKey | None:
    """The key, or None when there is no file. Raises `BadNote` or `OSError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "r", encoding="utf-8") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
            raise BadNote(f"{path} must be a file that only its owner, who runs this, can read (chmod 600)")
        try:
            return SigningKey.parse(file.read(4096).strip())
        except UnicodeDecodeError:
            raise BadNote(f"{path} is no text") from None


def _make(folder: Path, trust: Trust, trust_domain: str) -> SigningKey:
    """A new key with its empty head. Under the folder's lock."""
    pinned = trust.pin_of_folder(folder)
    if pinned is not None:
        raise TrustError(f"the key of the log {pinned.origin} is missing from {folder}")
    if (folder / FILE).exists():
        raise TrustError(f"there is a log in {folder}, but its key is missing")
    key = SigningKey.generate(f"{trust_domain}/{secrets.token_hex(8)}")
    write_signed_head(folder, Checkpoint(key.name, 0, EMPTY_ROOT).signed(key))
    write_durably(folder / KEY_FILE, key.text() + "\n", mode=0o600)
    sync_folder(folder)
    return key


def _check_pin(folder: Path, trust: Trust, key: SigningKey) -> None:
    pin = trust.pin_for(key.name)
    if pin is not None and pin.key != key.verifier:
        raise TrustError(f"another key is pinned for {key.name}")
    here = trust.pin_of_folder(folder)
    if here is not None and here.key != key.verifier:
        raise TrustError(f"{folder} is pinned as the log {here.origin}, but holds the key of {key.name}")
