"""A person in the embedded default: the operating-system user of this process.

Rules it keeps:
1. The user is the real user id of the process, looked up in the user database. No environment variable
   (`USER`, `LOGNAME`, `SUDO_USER`) takes part: whoever can start a process can set those.
2. The evidence says how weak this is: any program of that user could have decided.
"""

from __future__ import annotations

import os
import pwd
import re

from vestibule.core.model import Person

HOW = "operating-system user of the process (any program of this user could have decided)"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")


def current_person() -> Person:
    """`local:NAME`; `local:uid-N` for a user id without a name that a configuration could hold."""
    return person_of(os.getuid())


def person_of(uid: int) -> Person:
    """The person behind a user id."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    usable = _NAME.match(name) and not name.startswith("uid-")
    return Person(id=f"local:{name}" if usable else f"local:uid-{uid}", how=HOW)
