"""Programs that a repository's own configuration names under names of its choosing, and how they are put out of use.

`filter.<name>.clean` and its like cannot be overruled by a fixed setting, because the name is free. So the names are
listed first, and each is overruled for the command at hand. Diffing commands get the flags that ignore drivers.
Sources: gitattributes(5) "filter", "Performing text diffs", "Defining a custom merge driver"; git-config(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vestibule.core.errors import DependencyDown

MAX_CONFIG_BYTES = 4 << 20
MAX_DRIVERS = 1000

LISTING: tuple[str, ...] = (
    "config", "--includes", "--null", "--name-only", "--get-regexp",
    (r"^(filter\..*\.(clean|smudge|process|required)|merge\..*\.driver|credential\..*\.helper"
    r"|remote\..*\.(uploadpack|receivepack|vcs)|trailer\..*\.(cmd|command)|hook\..*\.command|gpg\..*\.program"
    r"|submodule\..*\.update)$"),
)  # fmt: skip
"""Exit code 1 when there are none."""

# A merge driver that fails is a conflict; one that is empty would succeed and keep one side silently.
_VALUES = {"required": "false", "driver": "false", "update": "none"}

_SECTION = re.compile(rb"(?i)\[\s*(?:include|filter|merge|credential|remote|trailer|hook|gpg|submodule)")
_DIFFING = frozenset({"diff", "diff-tree", "diff-index", "diff-files", "log", "show", "format-patch", "whatchanged"})
_NO_DRIVERS = ("--no-ext-diff", "--no-textconv")


def may_name_programs(git_dir: Path) -> bool:
    """Whether the configuration files have a section that could: a cheap look, wrong only in being too careful.

    Raises:
        DependencyDown: a configuration file is too large to be looked at.
    """
    folders = [git_dir]
    common = _read(git_dir / "commondir").strip()
    if common:
        folders.append(git_dir / common.decode("utf-8", "surrogateescape"))
    return any(_SECTION.search(_read(folder / name)) for folder in folders for name in ("config", "config.worktree"))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise DependencyDown("git", "A git configuration file cannot be read.", fact=error.strerror or "") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise DependencyDown("git", "A git configuration file is larger than 4 MiB.")
    return data


def overrules(listing: bytes) -> list[tuple[str, str]]:
    """(key, value) that put each listed program out of use.

    Raises:
        DependencyDown: more than `MAX_DRIVERS`.
    """
    keys = dict.fromkeys(key.decode("utf-8", "surrogateescape") for key in listing.split(b"\0") if key)
    if len(keys) > MAX_DRIVERS:
        raise DependencyDown("git", f"The repository's configuration names more than {MAX_DRIVERS:,} programs.")
    return [(key, _VALUES.get(key.rsplit(".", 1)[1].lower(), "")) for key in keys] + _unrequired(keys)


def _unrequired(keys: Iterable[str]) -> list[tuple[str, str]]:
    names = dict.fromkeys(key.rsplit(".", 1)[0] for key in keys if key.lower().startswith("filter."))
    return [(f"{name}.required", "false") for name in names]


def without_drivers(argv: Sequence[str]) -> list[str]:
    """`argv` with the flags that make a diffing command ignore drivers."""
    if argv and argv[0] in _DIFFING:
        return [argv[0], *_NO_DRIVERS, *argv[1:]]
    return list(argv)
