"""The view: exactly the files a sandbox is given, with a history of its own.

Rules it keeps:
1. A file is in the view only if the scope reads or writes it and it is no agent-control file; a credential file only
   if one of the scope's globs names it; a path without a safe normal form and a submodule never are; a symbolic link
   only if its target stays in the view.
2. The view's `.git` is a fresh repository: one root commit, the objects of the view and no other, no remotes,
   alternates, hooks or configuration beyond the format. What the scope hides is in no object, so no git command
   finds it.
3. Files are written through descriptors below the workspace's own, never through a link.
4. A file that a view rule names is projected before anything is written: its original is in no file, no object and no
   mount. What cannot be projected is left out. It is read-only for the agent, in writable folders too: mounted so for
   the agent's sandbox, and not the agent's own file; a change of it that appears all the same is refused at the export.
5. The workspace is read-only but for what the scope writes. Mounts are the coarse wall here: where a pattern names no
   whole folder, the folder around it is writable, and the changes guard judges each path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from vestibule.core.control_files import control_file, control_link
from vestibule.core.errors import UsageError
from vestibule.core.ids import Sha
from vestibule.core.model import Scope, ViewRule
from vestibule.core.ports import Mount
from vestibule.core.text.globs import is_whole_folder, literal_prefix
from vestibule.core.text.paths import PathRefused, normalise_path
from vestibule.core.view import View, ViewFile
from vestibule.git import Git, TreeEntry
from vestibule.sandbox.view_files import Writer

WORKSPACE = "/workspace"
_NAME, _EMAIL, _TIME = "Vestibule", "view@vestibule.invalid", "946684800 +0000"
_MODES = {"100644": "100644", "100664": "100644", "100755": "100755", "120000": "120000"}
MAX_LINK = 4096
MAX_PARTS = 256 << 20
"""Bytes of all files that are shown in part; those beyond are left out."""
MAX_SEALED = 16
"""Files shown in part that are mounted one by one in a writable folder; with more the whole folder is read-only."""
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENOENT)
"""What an agent's own doing can lead to while a file is added."""


def project(git: Git, commit: Sha, scope: Scope) -> View:
    """The files of `commit` that `scope` shows, those that a view rule names in part."""
    entries = git.tree(commit)
    shown = [entry for entry in entries if _shown(entry, scope)]
    parts = _parts(git, [entry for entry in shown if entry.mode != "120000"], scope)
    regular = {entry.path for entry in shown if entry.mode != "120000" and parts.get(entry.path, b"") is not None}
    links = [entry for entry in shown if entry.mode == "120000"]
    targets = dict(git.blobs(dict.fromkeys(link.sha for link in links if (link.size or 0) <= MAX_LINK)))
    folders = {str(parent) for path in regular for parent in PurePosixPath(path).parents if str(parent) != "."}
    files = [
        _file(entry, parts.get(entry.path), len(commit))
        for entry in shown
        if (
            entry.path in regular
            if entry.mode != "120000"
            else _stays(entry.path, targets.get(entry.sha), regular, folders)
        )
    ]
    return View(
        base_commit=commit,
        files=tuple(files),
        omitted=len(entries) - len(files),
        writable=scope.writable,
        unshowable=tuple(path for path, part in parts.items() if part is None),
    )


def _file(entry: TreeEntry, part: bytes | None, digits: int) -> ViewFile:
    mode = cast("Literal['100644', '100755', '120000']", _MODES[entry.mode])
    if part is None:
        return ViewFile(path=entry.path, mode=mode, blob=entry.sha, size=entry.size or 0)
    kind = hashlib.sha256 if digits == 64 else hashlib.sha1
    name = kind(b"blob %d\0" % len(part) + part).hexdigest()
    return ViewFile(path=entry.path, mode=mode, blob=name, size=len(part), partial=True, content=part)


def _parts(git: Git, entries: Sequence[TreeEntry], scope: Scope) -> dict[str, bytes | None]:
    """What is shown of each file that a view rule names; None: nothing of it can be."""
    from vestibule.core import projection

    found: dict[str, bytes | None] = {}
    wanted: list[tuple[TreeEntry, tuple[ViewRule, ...]]] = []
    for entry in entries if scope.views else ():
        rules = projection.rules_for(entry.path, scope.views)
        if rules:
            found[entry.path] = None
            if (entry.size or 0) <= projection.MAX_BYTES:
                wanted.append((entry, rules))
    total = 0
    for (entry, rules), (_, data) in zip(wanted, git.blobs(entry.sha for entry, _ in wanted), strict=True):
        try:
            part = projection.project(data, entry.path, rules)
        except projection.CannotProject:
            continue
        if part == data:
            del found[entry.path]  # all of it is shown, so it is no part
            continue
        total += len(part)
        if total <= MAX_PARTS:
            found[entry.path] = part
    return found


def _shown(entry: TreeEntry, scope: Scope) -> bool:
    if entry.kind != "blob" or entry.mode not in _MODES:
        return False
    try:
        if normalise_path(entry.path) != entry.path:
            return False
    except PathRefused:
        return False
    if not scope.shows(entry.path):
        return False
    found = control_link(entry.path) if entry.mode == "120000" else control_file(entry.path)
    return found is None


def _stays(path: str, target: bytes | None, regular: set[str], folders: set[str]) -> bool:
    """Whether a link leads, relatively, to a file or folder of the view (not to another link)."""
    if target is None:
        return False
    try:
        text = target.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if not text or text.startswith("/") or "\0" in text:
        return False
    parts = list(PurePosixPath(path).parts[:-1])
    for part in text.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return False
            parts.pop()
        else:
            parts.append(part)
            # Each step on the way must be a real folder of the view: a climb through a link would lead elsewhere.
            if "/".join(parts) not in folders and "/".join(parts) not in regular:
                return False
    return "/".join(parts) in regular or "/".join(parts) in folders


def materialise(git: Git, view: View, folder: Path, *, uid: int | None) -> None:
    """Write the view into `folder` (new or empty) with its own `.git`; everything belongs to `uid` (None: to us).

    Raises:
        UsageError: the folder is not empty.
        GitError, OSError: it could not be written; the caller removes the folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty.")
    with Writer(folder, uid) as writer:
        for file, data in _contents(git, view.files):
            writer.write(file, data)
        for prefix in writable_folders(view):
            writer.folder(prefix)
    scratch = Path(tempfile.mkdtemp(prefix=".view-", dir=folder.parent))
    try:
        build_repository(git, view, scratch / "git")
        (scratch / "git").rename(folder / ".git")
    finally:
        shutil.rmtree(scratch)
    if uid is not None:
        from vestibule.sandbox.local.uids import own_workspace

        own_workspace(folder / ".git", uid)
        os.chown(folder, uid, uid, follow_symlinks=False)


def extend(git: Git, view: View, scope: Scope, folder: Path, *, uid: int | None) -> View:
    """Show what `scope` allows beyond `view` in a workspace that an agent is working in; the view with what was added.

    A path where something stands already keeps what stands there, and stays out of the view: what the agent put there
    without seeing the file must not become a change of it. The view's `.git` is the agent's by now and stays as it is.

    Raises:
        GitError, DependencyDown: the repository cannot be read.
        OSError: the workspace is gone, or its disk is full.
    """
    wider = project(git, view.base_commit, scope)
    known = {file.path for file in view.files}
    fresh = [file for file in wider.files if file.path not in known]
    added: list[ViewFile] = []
    with Writer(folder, uid) as writer:
        for file, data in _contents(git, fresh):
            try:
                writer.write(file, data)
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
            else:
                added.append(file)
    files = sorted((*view.files, *added), key=lambda file: file.path)
    return view.model_copy(
        update={
            "files": tuple(files),
            "omitted": view.omitted - len(added),
            "writable": scope.writable,
            "unshowable": wider.unshowable,
        }
    )


def _contents(git: Git, files: Sequence[ViewFile]) -> Iterator[tuple[ViewFile, bytes]]:
    """Files with what is shown of them."""
    whole = [file for file in files if file.content is None]
    for file, (_, data) in zip(whole, git.blobs(file.blob for file in whole), strict=True):
        yield file, data
    for file in files:
        if file.content is not None:
            yield file, file.content


def build_repository(git: Git, view: View, git_dir: Path) -> Sha:
    """A git directory holding one root commit with exactly the view; its commit.

    Laid out by hand: `git init` would bring templates and settings that nobody here asked for.
    """
    sha256 = len(view.base_commit) == 64
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        (git_dir / name).mkdir(parents=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    (git_dir / "config").write_text(
        "[core]\n\trepositoryformatversion = {}\n\tfilemode = true\n\tbare = false\n{}".format(
            *((1, "[extensions]\n\tobjectformat = sha256\n") if sha256 else (0, ""))
        )
    )
    own = Git(git_dir)
    blobs = dict.fromkeys(file.blob for file in view.files if file.content is None)
    if blobs:
        # Named objects only, without --revs: nothing that they were stored beside comes along.
        pack = git.run(["pack-objects", "--stdout", "-q"], stdin="".join(f"{sha}\n" for sha in blobs).encode())
        own.run(["index-pack", "--stdin", "--fix-thin"], stdin=pack)
    for file in view.files:
        if file.content is not None:
            _loose(git_dir, file.blob, file.content)
    listing = b"".join(f"{file.mode} {file.blob}\t".encode() + file.path.encode() + b"\0" for file in view.files)
    env = {"GIT_INDEX_FILE": str(git_dir / "index")}
    own.run(["update-index", "-z", "--index-info"], stdin=listing, env=env)
    tree = own.text(["write-tree"], env=env)
    commit = own.commit_tree(tree, [], "The files of this task\n", name=_NAME, email=_EMAIL, time=_TIME)
    (git_dir / "refs/heads/main").write_text(f"{commit}\n")
    return commit


def _loose(git_dir: Path, name: Sha, content: bytes) -> None:
    """A blob of the view's own, as a loose object (gitformat-loose(5))."""
    path = git_dir / "objects" / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content, 1))


def writable_folders(view: View) -> tuple[str, ...]:
    """Folders of the workspace that are mounted writable, widest first, none below another; `""` is all of it."""
    paths = {file.path for file in view.files}
    links = {file.path for file in view.files if file.mode == "120000"}
    found: set[str] = set()
    for pattern in view.writable:
        if pattern not in paths:
            folder = pattern.removesuffix("/**") if is_whole_folder(pattern) and pattern != "**" else ""
            folder = folder or literal_prefix(pattern)
            # A file of the view where the pattern wants a folder, or a link on the way: nothing to mount there.
            if not any(step in links or step in paths for step in _steps(folder)):
                found.add(folder)
    return tuple(sorted(path for path in found if not any(step in found for step in ("", *_steps(path)[:-1]) if path)))


def _steps(path: str) -> list[str]:
    """`a/b/c` → `a`, `a/b`, `a/b/c`."""
    parts = path.split("/") if path else []
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def mounts_for(view: View, scope: Scope, folder: Path, *, begun: bool = False) -> tuple[Mount, ...]:
    """The workspace's mounts: read-only, with writable places where the scope writes, and the view's own `.git`.

    `begun`: an agent works in the workspace already. Then no mount is made below a folder that it can write to: what
    it puts in the place of a name on the way would decide what is mounted, and where.
    """
    return tuple(_mounts(view.model_copy(update={"writable": scope.writable}), folder, begun=begun))


def _mounts(view: View, folder: Path, *, begun: bool) -> Iterator[Mount]:
    crowded = _crowded(view)
    folders = tuple(path for path in writable_folders(view) if not path or path not in crowded)
    if "" in folders:
        yield Mount(source=folder, target=WORKSPACE, write=True)
    else:
        yield Mount(source=folder, target=WORKSPACE)
        yield Mount(source=folder / ".git", target=f"{WORKSPACE}/.git", write=True)
        with Writer(folder) as writer:
            for path in folders:
                writer.folder(path)
        for path in folders:
            yield Mount(source=folder / path, target=f"{WORKSPACE}/{path}", write=True)
        for file in view.files:
            covered = any(step in folders for step in _steps(file.path))
            if file.path in view.writable and file.mode != "120000" and not covered and not file.partial:
                yield Mount(source=folder / file.path, target=f"{WORKSPACE}/{file.path}", write=True)
    if not begun:
        for path in _sealed(view, folders):
            yield Mount(source=folder / path, target=f"{WORKSPACE}/{path}")


def _sealed(view: View, folders: tuple[str, ...]) -> list[str]:
    """What is mounted read-only within writable folders: files shown in part; where there are many, their folder.

    Many of them at the very top are not mounted: they are not the agent's own, and a change of them is refused.
    """
    crowded = _crowded(view)
    inside = [path for path in view.partial if "" in folders or any(step in folders for step in _steps(path))]
    found = {
        next((step for step in _steps(path) if step in crowded), path)
        for path in inside
        if "/" in path or "" not in crowded
    }
    return sorted(found)


def _crowded(view: View) -> frozenset[str]:
    """Folders with more files shown in part than are mounted one by one."""
    parents = Counter(path.rpartition("/")[0] for path in view.partial)
    return frozenset(parent for parent, count in parents.items() if count > MAX_SEALED)
