"""What the tests of the changes crossing share: change sets from contents, and secrets made at run time."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable

from vestibule.boundary.changes.changeset import Change, ChangeSet, make_change
from vestibule.boundary.changes.guards import GuardContext
from vestibule.boundary.changes.rules import examine, ruling
from vestibule.core.model import Finding

EVERYTHING = GuardContext(write=("**",))
ALPHABETS = {
    "alnum": string.ascii_letters + string.digits,
    "upper": string.ascii_uppercase + "234567",
    "hex": "0123456789abcdef",
    "base64": string.ascii_letters + string.digits + "+/",
    "url": string.ascii_letters + string.digits + "-_",
}


def token(kind: str, length: int, seed: int = 0) -> str:
    """A random string of an alphabet; the same for the same seed, so that a failure can be repeated."""
    rng = random.Random(f"{kind}{length}{seed}")
    return "".join(rng.choice(ALPHABETS[kind]) for _ in range(length))


def change_set(*changes: Change, tree: Iterable[tuple[str, str]] = ()) -> ChangeSet:
    names = {path.encode(): mode for path, mode in tree}
    names.update({c.path: c.new_mode for c in changes if c.status != "D"})
    return ChangeSet("0" * 40, "1" * 40, changes, names)


def judge(*changes: Change, context: GuardContext = EVERYTHING, tree: Iterable[tuple[str, str]] = ()) -> str:
    """The ruling of the whole."""
    return ruling(examine(change_set(*changes, tree=tree), context)).value


def findings(
    *changes: Change, context: GuardContext = EVERYTHING, tree: Iterable[tuple[str, str]] = ()
) -> list[Finding]:
    return list(examine(change_set(*changes, tree=tree), context))


def added(path: str, text: str | bytes, *, old: str | bytes | None = None, mode: str = "100644") -> Change:
    as_bytes = text.encode() if isinstance(text, str) else text
    before = old.encode() if isinstance(old, str) else old
    return make_change(path, as_bytes, before, mode=mode)


def rules_of(items: Iterable[Finding], verdict: str = "deny") -> set[str]:
    return {item.rule for item in items if item.verdict.value == verdict}
