"""What can be wrong with a file of the workspace: ordinary failures, refusals, and a workspace that is down.

Rule it keeps: links, files with several names and what is no regular file are refusals (they can lead
outside); a missing file is an ordinary failure; an error of the disk is a dependency that is down.
"""

from __future__ import annotations

import errno
import os
import stat

from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.refusal import Refusal, refusal


class NotDone(Exception):
    """An ordinary failure, such as a missing file. `code` is a stable word, the text one sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        super().__init__(sentence)


def no_git(path: str) -> None:
    """Raises `Refused` for a path through a folder of git's."""
    if any(part.casefold() == ".git" for part in path.split("/")):
        raise Refused(_refusal("path.git", "The path leads into git's folder.", path, "Work on tracked files only."))


def check_regular(path: str, found: os.stat_result) -> os.stat_result:
    """Passes a regular file with one name; raises `NotDone` or `Refused` for anything else."""
    if stat.S_ISDIR(found.st_mode):
        raise NotDone("folder", f"{path} is a folder.")
    if stat.S_ISLNK(found.st_mode):
        raise Refused(_link(path))
    if not stat.S_ISREG(found.st_mode):
        raise Refused(_refusal("path.kind", "The path is no regular file.", path, "Work on regular files only."))
    if found.st_nlink != 1:
        raise Refused(
            _refusal("path.hard_link", "The file has more than one name.", path, "Copy it, and work on the copy.")
        )
    return found


def explained(path: str, error: OSError) -> Exception:
    """What an error of the system means: an ordinary failure, a link, or a workspace that is down."""
    if error.errno in (errno.ELOOP, errno.EXDEV):
        return Refused(_link(path))
    if error.errno == errno.ENOENT:
        return NotDone("missing", f"There is no file {path}.")
    if error.errno == errno.ENOTDIR:
        return NotDone("not_folder", f"{path}: a name on the way is a file, not a folder.")
    if error.errno == errno.EISDIR:
        return NotDone("folder", f"{path} is a folder.")
    if error.errno == errno.ENXIO:
        return Refused(_refusal("path.kind", "The path is no regular file.", path, "Work on regular files only."))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotDone("no_access", f"{path} cannot be opened ({os.strerror(error.errno)}).")
    if error.errno in (errno.ESTALE, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        return gone(error)
    return NotDone("failed", f"{path}: {os.strerror(error.errno or errno.EIO)}.")


def _link(path: str) -> Refusal:
    return _refusal(
        "path.link",
        "The path goes through a symbolic link or out of the workspace.",
        path,
        "Name the file that the link points to by its own path.",
    )


def _refusal(rule: str, reason: str, path: str, agent: str) -> Refusal:
    return refusal(rule, reason, fact=path, agent=agent, person="Nothing to do, unless the file should be reachable.")


def gone(error: OSError) -> DependencyDown:
    """The workspace cannot be used."""
    return DependencyDown(
        "workspace",
        "The workspace of this run cannot be used.",
        fact=os.strerror(error.errno or errno.EIO),
        person="Look for a full or failing disk; then `vestibule resume` the run.",
    )
