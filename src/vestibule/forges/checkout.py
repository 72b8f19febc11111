"""Moving a checked-out branch: files, index and ref, or nothing.

Rules it keeps:
1. Nothing is touched unless the tree is clean: no operation under way, nothing staged, no tracked file changed, nothing
   in the way of a new one. All of it is looked at under git's index lock, with the branch and HEAD read again.
2. The repository's configuration takes no part: status and index run in a git directory of our own, so no hook,
   filter, fsmonitor or merge driver of the person's (or of a change's) runs. A change that needs one of them
   (a filter such as LFS, another encoding, CRLF line ends) is left to the person.
3. Files first, then the index, then the ref by compare-and-swap: whoever sees the branch moved sees the work done.
4. A journal is durable before the first file. Killed anywhere, the next attempt goes on or goes back, path by path,
   and touches no path that holds something else than the old or the new content. Until then the index lock stays,
   so that git refuses to commit a half-made state.

What it is no wall against: a program that writes into the work tree without git's lock at the same moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from vestibule.core.base import Noun
from vestibule.core.canonical import canonical_json
from vestibule.core.errors import DependencyDown
from vestibule.core.ids import Sha
from vestibule.core.text.sanitize import one_line
from vestibule.forges.files import Change, Entry, Files, plain_path
from vestibule.forges.scratch import Scratch
from vestibule.git import Git, GitError

JOURNAL = "vestibule-merge.json"
LOCK = "vestibule-merge.lock"
STAGE = "vestibule-merge.file"
_SCRAPS = "vestibule-scrap.*"
_MARK = b"vestibule merge "

_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisect",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "sequencer": "a sequence of picks",
}


class Journal(Noun):
    """What a move is about; written before the first file changes."""

    run: str
    target: str
    old: Sha
    new: Sha
    nonce: str


class NotClean(Exception):
    """The tree is left as it is. `rule` is stable, `reason` one sentence."""

    def __init__(self, rule: str, reason: str) -> None:
        self.rule = rule
        self.reason = reason
        super().__init__(reason)


class Checkout:
    """A work tree and its branch. Use it inside `exclusive()`."""

    def __init__(self, git: Git) -> None:
        if git.work_tree is None:
            raise DependencyDown("forge", "A bare repository has no work tree.")
        self._git = git
        self._root = git.work_tree
        self._index = git.git_dir / "index"
        self._index_lock = git.git_dir / "index.lock"
        self._journal = git.git_dir / JOURNAL

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One of our processes at a time. The kernel gives the lock back when a process dies.

        Raises NotClean (`merge.busy`) when another one is at it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._git.git_dir / LOCK, flags, 0o600)
        except OSError as error:
            raise DependencyDown("forge", "The repository cannot be written.", fact=error.strerror or "") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotClean("merge.busy", "Another merge of ours is under way in this clone.") from None
            yield
        finally:
            os.close(descriptor)

    def pending(self) -> Journal | None:
        """The move that a killed process left unfinished."""
        try:
            return Journal.model_validate_json(self._journal.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise NotClean(
                "merge.journal", f"{self._journal} is damaged; look at `git status`, then delete it."
            ) from None

    def advance(self, *, run: str, target: str, old: Sha, new: Sha) -> None:
        """Move `target`, which is checked out here, from `old` to `new`.

        Raises NotClean; then files, index and ref are as they were.
        """
        journal = Journal(run=run, target=target, old=old, new=new, nonce=secrets.token_hex(8))
        changes = self._changes(old, new)
        self._take_index_lock(journal)
        try:
            with self._scratch(old) as scratch:
                self._refuse_unless_clean(journal, changes, scratch)
                _write_durably(self._journal, canonical_json(journal.model_dump()))
                try:
                    self._move(journal, changes, scratch)
                except (OSError, GitError) as error:
                    self._move_back(journal, changes, scratch)
                    raise NotClean("merge.write", _told(error)) from error
                self._journal.unlink(missing_ok=True)
        finally:
            if not self._journal.exists():
                self._drop_index_lock(journal)

    def finish(self, journal: Journal, *, forward: bool) -> None:
        """Go on with an interrupted move, or go back.

        Raises NotClean when a path holds neither side: someone worked there since. The lock is given back to them,
        the journal stays, and the next attempt looks again.
        """
        self._adopt_index_lock(journal)
        try:
            head = self._git.commit_of(journal.target)
            if head == journal.old and self._git.branch() == journal.target:
                changes = self._changes(journal.old, journal.new)
                with self._scratch(journal.old) as scratch:
                    self._refuse_foreign_work(changes, scratch)
                    if forward:
                        self._move(journal, changes, scratch)
                    else:
                        self._place([change.reversed() for change in changes], scratch)
            # Otherwise the ref moved: by us as the last step, or by a person who has gone on since.
            self._files().sweep()
            self._journal.unlink(missing_ok=True)
        except (OSError, GitError) as error:
            raise NotClean("merge.write", _told(error)) from error
        finally:
            self._drop_index_lock(journal)

    def _changes(self, old: Sha, new: Sha) -> list[Change]:
        """What differs, or NotClean where only the person's own git should write it."""
        out = self._git.run(["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", old, new])
        fields = iter(out.split(b"\0"))
        changes = []
        for meta in fields:
            if not meta:
                continue
            old_mode, new_mode, old_sha, new_sha, _ = meta.decode("ascii").removeprefix(":").split()
            change = Change(path=next(fields), old=_entry(old_mode, old_sha), new=_entry(new_mode, new_sha))
            if "160000" in (old_mode, new_mode):
                raise NotClean("merge.submodule", f"The change moves the submodule {_shown(change.path)}.")
            if not plain_path(change.path):
                raise NotClean("merge.path", f"The change holds a path that is not written: {_shown(change.path)}.")
            changes.append(change)
        removed = {change.path for change in changes if change.new is None}
        added = {change.path for change in changes if change.old is None}
        for path, others in [(path, added) for path in removed] + [(path, removed) for path in added]:
            parts = path.split(b"/")
            if any(b"/".join(parts[:count]) in others for count in range(1, len(parts))):
                raise NotClean("merge.path", f"The change turns a file into a folder or back: {_shown(path)}.")
        return changes

    def _refuse_unless_clean(self, journal: Journal, changes: Sequence[Change], scratch: Scratch) -> None:
        git = self._git
        if git.branch() != journal.target:
            raise NotClean("merge.head_moved", "Another branch was checked out meanwhile.")
        if git.commit_of(journal.target) != journal.old:
            raise NotClean("merge.base_moved", "The branch moved meanwhile.")
        for name, what in _UNDER_WAY.items():
            if os.path.lexists(git.git_dir / name):
                raise NotClean("merge.under_way", f"There is {what} under way in the work tree.")
        self._refuse_special_setup()
        dirty = scratch.dirty()
        if dirty:
            raise NotClean("merge.not_clean", f"The work tree has changes of its own: {_shown(dirty[0])}.")
        self._refuse_conversions(changes, scratch, journal.new)
        files = self._files()
        for change in changes:
            if files.seen(change) != "old":
                rule, what = (
                    ("merge.in_the_way", "is in the way of")
                    if change.old is None
                    else ("merge.not_clean", "differs from the last commit and is changed by")
                )
                raise NotClean(rule, f"{_shown(change.path)} {what} the merge.")

    def _refuse_special_setup(self) -> None:
        if self._setting("core.sparseCheckout", "bool") == "true":
            raise NotClean("merge.sparse", "The work tree is a sparse checkout.")
        elsewhere = self._setting("core.worktree")
        if elsewhere and (self._git.git_dir / elsewhere).resolve() != self._root.resolve():
            raise NotClean("merge.worktree", "The repository's configuration puts its work tree elsewhere.")

    def _refuse_conversions(self, changes: Sequence[Change], scratch: Scratch, new: Sha) -> None:
        """Attributes are read from the new tree and the repository's own info/attributes, and nothing is run."""
        paths = [change.path for change in changes if change.new is not None and change.new.mode != "120000"]
        if not paths:
            return
        index = scratch.index_of(new)
        out = self._git.run(
            ["check-attr", "-z", "--stdin", "--cached", "filter", "working-tree-encoding", "eol"],
            stdin=b"\0".join(paths) + b"\0",
            env={"GIT_INDEX_FILE": str(index)},
        )
        fields = out.split(b"\0")
        for path, name, value in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
            if value in (b"unspecified", b"unset", b"") or (name == b"eol" and value != b"crlf"):
                continue
            told = f"{name.decode()}={one_line(value.decode('utf-8', 'replace'), 40)}"
            raise NotClean(
                "merge.conversion", f"{_shown(path)} needs git's conversion {told}, and filters are off here."
            )

    def _refuse_foreign_work(self, changes: Sequence[Change], scratch: Scratch) -> None:
        mine = {change.path for change in changes}
        files = self._files()
        for path in scratch.dirty():
            if path not in mine:
                raise NotClean("merge.interrupted", f"A merge was interrupted, and {_shown(path)} was changed since.")
        for change in changes:
            if files.seen(change) == "other":
                raise NotClean(
                    "merge.interrupted", f"A merge was interrupted, and {_shown(change.path)} was changed since."
                )

    def _move(self, journal: Journal, changes: Sequence[Change], scratch: Scratch) -> None:
        self._place(changes, scratch)
        self._git.update_ref(journal.target, journal.new, journal.old)

    def _move_back(self, journal: Journal, changes: Sequence[Change], scratch: Scratch) -> None:
        """After a failure: everything as it was. When even that fails the journal stays for the next attempt."""
        if self._git.commit_of(journal.target) == journal.new:
            return  # the ref moved after all: the move is done
        try:
            self._place([change.reversed() for change in changes], scratch)
        except (OSError, GitError) as error:
            raise NotClean("merge.interrupted", _told(error)) from error
        self._files().sweep()
        self._journal.unlink(missing_ok=True)

    def _place(self, changes: Sequence[Change], scratch: Scratch) -> None:
        """Files, then the index. Every step may be repeated."""
        files = self._files()
        todo = [change for change in changes if files.seen(change) != "new"]
        for change in todo:
            if change.new is None:
                files.put(change.path, None, b"")
        writes = [(change, change.new) for change in todo if change.new is not None]
        contents = self._git.blobs(entry.sha for _, entry in writes)
        for (change, entry), (_, content) in zip(writes, contents, strict=True):
            files.put(change.path, entry, content)
        # A name of its own each time: a git that outlived its killed parent may still hold the last one.
        scratch.write_index(self._index, _scrap(self._git.git_dir), changes)

    def _files(self) -> Files:
        stage = self._git.git_dir / STAGE
        return Files(self._root, stage, executable_bit=self._setting("core.fileMode", "bool") != "false")

    def _setting(self, key: str, kind: str = "") -> str:
        # Not --local: a linked work tree has settings of its own. System and user configuration is not read anyway.
        argv = ["config", *([f"--type={kind}"] if kind else []), "--get", key]
        try:
            return self._git.text(argv, ok_codes=(0, 1))
        except GitError:
            return "true" if kind else ""  # unreadable: assume the setting that makes us leave

    def _scratch(self, head: Sha) -> contextlib.AbstractContextManager[Scratch]:
        return Scratch.make(self._git, self._root, self._index, head, self._setting("core.fileMode", "bool"))

    def clear_stale(self) -> None:
        """Remove what a killed process of ours left without a journal. Call it inside `exclusive()`."""
        for left in (self._git.git_dir / STAGE, *self._git.git_dir.glob(_SCRAPS)):
            left.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            if self._index_lock.read_bytes().startswith(_MARK):
                self._index_lock.unlink()

    def _take_index_lock(self, journal: Journal) -> None:
        """git's own protocol (lockfile.h): whoever makes index.lock has it. Linked whole, so it always names us."""
        temporary = _scrap(self._git.git_dir)
        try:
            temporary.write_bytes(_marker(journal))
            os.link(temporary, self._index_lock)
        except FileExistsError:
            raise NotClean("merge.index_locked", "Another git command is at work here (index.lock exists).") from None
        except OSError as error:
            raise NotClean("merge.write", _told(error)) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _adopt_index_lock(self, journal: Journal) -> None:
        """The dead process's lock is ours; if a person removed it, take a new one; anybody else's is respected."""
        try:
            if self._index_lock.read_bytes() == _marker(journal):
                return
        except OSError:
            pass
        self._take_index_lock(journal)

    def _drop_index_lock(self, journal: Journal) -> None:
        with contextlib.suppress(OSError):
            if self._index_lock.read_bytes() == _marker(journal):
                self._index_lock.unlink()


def _entry(mode: str, sha: Sha) -> Entry | None:
    return None if mode == "000000" else Entry(mode=mode, sha=sha)


def _marker(journal: Journal) -> bytes:
    """What our index lock holds, so that a later attempt knows it for ours."""
    return _MARK + f"{journal.run} {journal.nonce}\n".encode()


def _write_durably(path: Path, data: bytes) -> None:
    temporary = _scrap(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)  # noqa: PTH104
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _scrap(folder: Path) -> Path:
    """A new name for a file on its way to another one."""
    return folder / f"vestibule-scrap.{secrets.token_hex(8)}"


def _shown(path: bytes) -> str:
    return one_line(path.decode("utf-8", "replace"), 120)


def _told(error: OSError | GitError) -> str:
    what = error.strerror if isinstance(error, OSError) else error.stderr.strip().splitlines()[-1:]
    return f"The work tree could not be written ({one_line(str(what), 160)})."
