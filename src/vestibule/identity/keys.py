"""Where a provider's key comes from: read when needed, by the process outside the sandbox, never stored.

Rules it keeps:
1. A key that is missing, empty, malformed or readable by every user of the machine is `dependency.provider_key`.
2. No message holds the key or a part of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from vestibule.config.parts import KeySource
from vestibule.core.errors import DependencyDown

MAX_KEY_BYTES = 8192


def read_key(source: KeySource, environ: Mapping[str, str] | None = None) -> str:
    """The key, without white space around it.

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
    if len(key) > MAX_KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise _down("The key of the model provider is no key.", place, "A key is one line of printable characters.")
    return key


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
