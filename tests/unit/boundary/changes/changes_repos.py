"""Small real repositories for the tests, made with plain git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vestibule.git import Git

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


def git(folder: Path, *argv: str, data: bytes | None = None) -> str:
    done = subprocess.run(["git", *argv], cwd=folder, env=ENV, input=data, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def new_repo(folder: Path, branch: str = "main") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", branch)
    return folder


def commit(folder: Path, files: dict[str, bytes | None], message: str = "c") -> str:
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def commit_entries(repo: Git, entries: list[tuple[str, bytes, bytes]], parents: list[str]) -> str:
    """A commit of `(mode, path, content)`; gitlinks take their content as the object name."""
    listing = b"".join(_tree_line(repo, mode, path, content) for mode, path, content in entries)
    tree = git(repo.git_dir, "--git-dir", str(repo.git_dir), "mktree", "-z", data=listing)
    argv = [part for parent in parents for part in ("-p", parent)]
    return git(repo.git_dir, "--git-dir", str(repo.git_dir), "commit-tree", "-m", "c", *argv, tree)


def _tree_line(repo: Git, mode: str, path: bytes, content: bytes) -> bytes:
    if mode == "160000":
        return f"{mode} commit {content.decode()}\t".encode() + path + b"\0"
    return f"{mode} blob {repo.hash_blob(content)}\t".encode() + path + b"\0"
