"""Removing a folder that an agent filled: whatever it left there, it is gone afterwards.

An agent names and nests what it likes, and takes away its own rights. `shutil.rmtree` follows the nesting with one
frame and one descriptor a level, so a few thousand levels end it, and with it whoever cleans up.
Rules this module keeps:
1. Depth costs neither stack nor descriptors: folders are moved up beside each other, then emptied one by one.
2. No symbolic link is followed; a folder without rights is given back its owner's rights first.
3. Call it when every process that could write there is dead.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BATCH = 4096
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove `path` and everything below; nothing there is fine.

    Raises:
        OSError: something cannot be removed; what could be removed before it is.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(kind):
        path.unlink()
        return
    with _opened(None, str(path)) as top:
        _flatten(top)
    path.rmdir()


def _flatten(top: int) -> None:
    """Empty the folder `top`. Each of its folders first gives its own folders to `top`, so that all end up there."""
    serial = itertools.count()
    while names := _names(top):
        for name in names:
            if not _is_folder(top, name):
                os.unlink(name, dir_fd=top)
                continue
            with _opened(top, name) as inner:
                while inside := _names(inner):
                    for item in inside:
                        if not _is_folder(inner, item):
                            os.unlink(item, dir_fd=inner)
                        else:
                            _lift(inner, item, top, serial)
            os.rmdir(name, dir_fd=top)


def _lift(inner: int, item: str, top: int, serial: Iterator[int]) -> None:
    # Moving a folder changes its `..`, for which its owner needs the right to write it.
    os.chmod(item, 0o700, dir_fd=inner)
    while True:
        name = f".{next(serial)}"
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(item, name, src_dir_fd=inner, dst_dir_fd=top)
            return


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in itertools.islice(entries, _BATCH)]


@contextmanager
def _opened(folder: int | None, name: str) -> Iterator[int]:
    """The folder, open, with all its owner's rights."""
    os.chmod(name, 0o700, dir_fd=folder)
    found = os.open(name, _FLAGS, dir_fd=folder)
    try:
        yield found
    finally:
        os.close(found)
