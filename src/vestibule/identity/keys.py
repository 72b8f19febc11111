"""Where a provider's key comes from: read when needed, by the process outside the sandbox, never stored.

Rules it keeps:
1. A key that is missing, empty, malformed or readable by every user of the machine is `dependency.provider_key`.
2. No message holds the key or a part of it.
3. A key is one line, so that it cannot become a second header. Only where it is exchanged, and never sent itself, it
   may be a service account's file (`account`).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from vestibule.config.parts import KeySource
from vestibule.core.errors import DependencyDown

MAX_KEY_BYTES = 8192


def read_key(source: KeySource, environ: Mapping[str, str] | None = None, *, account: bool = False) -> str:
    """The key, without white space around it. `account`: it is a service account's file, a JSON object (Vertex).

    Raises:
        DependencyDown: `dependency.provider_key`.
    """
    if source.env is not None:
        place = f"the variable {source.env}"
        key = (os.environ if environ is None else environ).get(source.env, "")
    else:
        place = f"the file {source.file}"
        key = _from_file(Path(source.file or "").expanduser(), place)
    key = key.strip()
    if not key:
        raise _down("The key of the model provider is missing.", place, f"Set {place} for the process outside.")
    if account:
        if len(key) > MAX_KEY_BYTES or not isinstance(_object(key), dict):
            raise _down("The key of the model provider is no service account's file.", place, "Name its JSON file.")
        return key
    if len(key) > MAX_KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise _down("The key of the model provider is no key.", place, "A key is one line of printable characters.")
    return key


def secret_of(key: bytes) -> bytes:
    """What of a key nobody may learn: all of it; of a service account's file its private key, without the first third:
    that is public (modulus and exponent), or alike in all such keys. The rest of the file is in everybody's manuals."""
    found = _object(key)
    text = found.get("private_key") if isinstance(found, dict) else None
    if not isinstance(text, str):
        return key
    inner = re.sub(r"-----[A-Z ]+-----|\s", "", text)
    return inner[len(inner) // 3 :].encode("utf-8", "surrogatepass") or key


def _object(key: str | bytes) -> object:
    try:
        return json.loads(key)
    except (ValueError, RecursionError):
        return None


def _from_file(path: Path, place: str) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise _down("The key of the model provider is in no regular file.", place, "Name a file.")
            if mode & (stat.S_IROTH | stat.S_IWOTH):
                raise _down("The key's file is open to every user of this machine.", place, f"chmod 600 {path}")
            data = file.read(MAX_KEY_BYTES + 1)
        return data.decode("utf-8")
    except OSError as error:
        raise _down(
            "The key of the model provider cannot be read.", f"{place}: {error.strerror}", "Correct the file."
        ) from None
    except UnicodeDecodeError:
        raise _down("The key of the model provider is no text.", place, "A key is one line of text.") from None


def _down(reason: str, fact: str, person: str) -> DependencyDown:
    return DependencyDown(
        "provider_key",
        reason,
        fact=fact,
        person=person,
        agent="Stop here; a person has to provide the key outside the sandbox.",
    )
