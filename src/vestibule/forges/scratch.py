"""A git directory of our own over a person's objects and work tree: their configuration is not read.

A `.gitattributes` in the tree can name a filter, but no driver is configured here, so none can run; git's own line-end
rules stay in force, so that a tree with CRLF files is as clean as its person sees it. Submodules are not entered.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vestibule.core.ids import Sha
from vestibule.forges.files import Change
from vestibule.git.repository import Git


class Scratch:
    """Status and index of a work tree, without its repository's configuration."""

    def __init__(self, folder: Path, git: Git, env: dict[str, str]) -> None:
        self._folder = folder
        self._git = git
        self._env = env

    @classmethod
    @contextmanager
    def make(cls, real: Git, root: Path, index: Path, head: Sha, file_mode: str) -> Iterator[Scratch]:
        common = (real.git_dir / real.text(["rev-parse", "--git-common-dir"])).resolve()
        with tempfile.TemporaryDirectory(prefix="vestibule-merge-") as name:
            folder = Path(name) / "git"
            (folder / "refs").mkdir(parents=True)
            (folder / "objects").mkdir()
            (folder / "HEAD").write_text(head + "\n")
            sha256 = len(head) == 64
            (folder / "config").write_text(
                f"[core]\n\trepositoryFormatVersion = {int(sha256)}\n\tbare = false\n"
                f"\tfileMode = {'false' if file_mode == 'false' else 'true'}\n"
                + ("[extensions]\n\tobjectFormat = sha256\n" if sha256 else "")
            )
            env = {"GIT_OBJECT_DIRECTORY": str(common / "objects"), "GIT_INDEX_FILE": str(index)}
            yield cls(folder, Git(folder, root), env)

    def dirty(self) -> list[bytes]:
        """Tracked paths that differ between HEAD, index and work tree. Submodules are not entered."""
        argv = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=all"]
        out = self._git.run(argv, env=self._env)
        return [record[3:] for record in out.split(b"\0") if record]

    def index_of(self, commit: Sha) -> Path:
        """An index that holds exactly a commit's tree."""
        path = self._folder / "index-of-commit"
        self._git.run(["read-tree", commit], env=self._env | {"GIT_INDEX_FILE": str(path)})
        return path

    def write_index(self, index: Path, temporary: Path, changes: Sequence[Change]) -> None:
        """Replace `index` by a copy with `changes` in it and fresh stat data. The caller holds the index lock."""
        env = self._env | {"GIT_INDEX_FILE": str(temporary)}
        lines = []
        for change in changes:
            mode, sha = (change.new.mode, change.new.sha) if change.new else ("0", "0" * _length(change))
            lines.append(f"{mode} {sha}\t".encode() + change.path + b"\0")
        try:
            temporary.write_bytes(index.read_bytes())
            self._git.run(["update-index", "-z", "--index-info"], stdin=b"".join(lines), env=env)
            self._git.run(["update-index", "-q", "--refresh"], env=env, ok_codes=(0, 1))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.rename(temporary, index)  # noqa: PTH104  the same call as everywhere here
        finally:
            temporary.unlink(missing_ok=True)


def _length(change: Change) -> int:
    known = change.old or change.new
    return len(known.sha) if known else 40
