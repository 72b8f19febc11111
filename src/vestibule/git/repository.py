"""Git as a tool that obeys us and nobody else.

Rules it keeps:
1. Every git process runs as `process` says: nothing that a repository names is started, nothing is fetched. Programs
   under names of a repository's own choosing, such as filters, are listed and overruled first (`drivers`).
2. Arguments are lists; user data never begins an argument (`--end-of-options`, `--`, or stdin).
3. Output is bytes, NUL-separated where git offers it, and bounded.
4. It never runs in a tree an agent owns.

Source: CVE-2022-24975; the others stand in `process`.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vestibule.core.base import Noun
from vestibule.core.errors import DependencyDown, UsageError
from vestibule.core.ids import SHA, Sha
from vestibule.git import drivers
from vestibule.git.process import GitError, argv_of, config_env, env_of, execute

MAX_BLOB = 64 << 20


class TreeEntry(Noun):
    """One entry of a tree, recursively listed. `mode` as git writes it: 100644, 100755, 120000, 160000."""

    mode: str
    kind: str
    sha: Sha
    size: int | None
    path_bytes: bytes

    @property
    def path(self) -> str:
        """The path as text; bytes that are no UTF-8 come as surrogates (and the path normaliser refuses them)."""
        return self.path_bytes.decode("utf-8", "surrogateescape")


class Git:
    """A repository, addressed by its git directory (and work tree, for a working clone that is ours)."""

    def __init__(self, git_dir: Path, work_tree: Path | None = None) -> None:
        self.git_dir = git_dir
        self.work_tree = work_tree
        self._programs_off: list[tuple[str, str]] | None = None

    @classmethod
    def open(cls, path: Path) -> Git:
        """The repository at `path`: a bare one, or a working clone's top folder.

        Raises:
            UsageError: nothing there, not a repository, or a folder below one.
            DependencyDown: git itself is missing.
        """
        if not path.exists():
            raise UsageError(f"{path} does not exist.", next_step="Give the repository's folder with --repo.")
        path = path.resolve()
        dot_git = path / ".git"
        if dot_git.is_dir():
            found = cls(dot_git, path)
        elif dot_git.is_file():
            text = dot_git.read_text("utf-8", "replace").strip()
            target = (path / text.removeprefix("gitdir:").strip()).resolve()
            found = cls(target, path)
        elif (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir():
            found = cls(path)
        else:
            raise UsageError(
                f"{path} is not a git repository.",
                why="It has neither a .git folder nor the files of a bare repository.",
                next_step="Give the repository's top folder with --repo, or run `git init` there.",
            )
        try:
            found.run(["rev-parse", "--git-dir"])
        except GitError as error:
            raise UsageError(f"{path} is not a usable git repository.", why=error.stderr.strip()[:300]) from None
        return found

    @classmethod
    def init(cls, path: Path, *, bare: bool = False) -> Git:
        """A new repository without templates or hooks."""
        path.mkdir(parents=True, exist_ok=True)
        execute(["init", "--quiet", "--initial-branch=main", *(["--bare"] if bare else []), str(path)], cwd=path)
        return cls(path if bare else path / ".git", None if bare else path)

    @property
    def bare(self) -> bool:
        return self.work_tree is None

    @property
    def root(self) -> Path:
        """The folder a person would name."""
        return self.work_tree or self.git_dir

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        config: Sequence[str] = (),
        ok_codes: Sequence[int] = (0,),
        timeout: float = 300,
    ) -> bytes:
        """Standard output of one git command.

        Raises:
            GitError: another exit code than `ok_codes`.
            DependencyDown: git is missing, or ran out of time or bounds.
        """
        prefix = self._prefix()
        return execute(
            drivers.without_drivers(argv),
            cwd=self.root,
            prefix=prefix,
            stdin=stdin,
            env=env,
            config=config,
            ok_codes=ok_codes,
            timeout=timeout,
            overrules=self._overrules(),
        )

    def _prefix(self) -> list[str]:
        prefix = [f"--git-dir={self.git_dir}"]
        if self.work_tree is not None:
            prefix.append(f"--work-tree={self.work_tree}")
        return prefix

    def _overrules(self) -> list[tuple[str, str]]:
        """What puts the programs that the repository's configuration names out of use, for every command."""
        if self._programs_off is None:
            listing = b""
            if drivers.may_name_programs(self.git_dir):
                listing = execute(drivers.LISTING, cwd=self.root, prefix=self._prefix(), ok_codes=(0, 1))
            self._programs_off = drivers.overrules(listing)
        return self._programs_off

    def _quiet_env(self) -> dict[str, str]:
        """The environment of a process that is read while it runs."""
        return env_of(None) | config_env([("safe.directory", "*"), *self._overrules()])

    def run_bounded(self, argv: Sequence[str], count: int, *, timeout: float = 60) -> bytes:
        """The first `count` bytes of what one git command prints; the rest is neither read nor kept.

        Raises:
            GitError: it failed before it had printed so much.
            DependencyDown: git is missing, or ran out of time.
        """
        process = subprocess.Popen(
            argv_of(drivers.without_drivers(argv), [f"--git-dir={self.git_dir}"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._quiet_env(),
            cwd=self.git_dir,
        )
        if process.stdout is None:
            raise DependencyDown("git", "git could not be started with pipes.")
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            found = process.stdout.read(count)
            if len(found) < count:
                process.wait()
        finally:
            timer.cancel()
            process.kill()
            code = process.wait()
            process.stdout.close()
        if late.is_set():
            raise DependencyDown("git", f"git {argv[0]} took longer than {timeout:.0f} s.")
        if len(found) < count and code != 0:
            raise GitError(argv, code, "")
        return found

    def text(self, argv: Sequence[str], **kwargs: object) -> str:
        """`run`, decoded and stripped of the last line feed."""
        return self.run(argv, **kwargs).decode("utf-8", "surrogateescape").rstrip("\n")  # type: ignore[arg-type]

    def commit_of(self, revision: str) -> Sha | None:
        """The commit that `revision` names, else None. A leading `-` is never an option."""
        if not revision or "\0" in revision or "\n" in revision:
            return None
        try:
            out = self.text(["rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}"])
        except GitError:
            return None
        return out if SHA.match(out) else None

    def tree_of(self, commit: Sha) -> Sha:
        return self.text(["rev-parse", "--verify", "--end-of-options", commit + "^{tree}"])

    def merge_base(self, one: Sha, two: Sha) -> Sha | None:
        try:
            return self.text(["merge-base", one, two])
        except GitError:
            return None

    def branch(self) -> str | None:
        """The checked-out branch's full ref name; None when HEAD is detached."""
        try:
            return self.text(["symbolic-ref", "--quiet", "HEAD"])
        except GitError:
            return None

    def default_branch_commit(self) -> tuple[str, Sha] | None:
        """The remote's default branch, else `main` or `master`; never whatever happens to be checked out."""
        # The last two serve a CI checkout: a detached head, and no local branch at all.
        origin = "remotes/origin"
        for name in (f"{origin}/HEAD", "heads/main", "heads/master", f"{origin}/main", f"{origin}/master"):
            sha = self.commit_of("refs/" + name)
            if sha:
                return "refs/" + name, sha
        return None

    def tree(self, treeish: str) -> list[TreeEntry]:
        """All entries, recursively, in git's order. Submodules come as kind `commit`."""
        out = self.run(["ls-tree", "-r", "-z", "--long", "--full-tree", "--end-of-options", treeish])
        entries = []
        for record in out.split(b"\0"):
            if not record:
                continue
            meta, _, path = record.partition(b"\t")
            mode, kind, sha, size = meta.decode("ascii").split()
            entries.append(
                TreeEntry(
                    mode=mode, kind=kind, sha=sha, size=None if size == "-" else _size(sha, size), path_bytes=path
                )
            )
        return entries

    def blob(self, commit: Sha, path: str, *, limit: int = MAX_BLOB) -> bytes | None:
        """The bytes of a regular file at `path` in `commit`; None when there is none (a link is none)."""
        out = self.run(["ls-tree", "-z", "--long", "--full-tree", commit, "--", path])
        for record in out.split(b"\0"):
            meta, _, name = record.partition(b"\t")
            if name == path.encode("utf-8", "surrogateescape"):
                mode, kind, sha, size = meta.decode("ascii").split()
                if kind != "blob" or mode == "120000":
                    return None
                if _size(sha, size) > limit:
                    raise UsageError(f"{path} in {commit[:12]} is larger than {limit} bytes.")
                return self.run(["cat-file", "blob", sha])
        return None

    def blobs(self, shas: Iterable[Sha]) -> Iterator[tuple[Sha, bytes]]:
        """Contents of many blobs through one process, in order."""
        wanted = list(shas)
        if not wanted:
            return
        argv = argv_of(["cat-file", "--batch"], [f"--git-dir={self.git_dir}"])
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._quiet_env(),
            cwd=self.git_dir,
        )
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise DependencyDown("git", "git could not be started with pipes.")

        def feed() -> None:
            try:
                for sha in wanted:
                    stdin.write(sha.encode("ascii") + b"\n")
                stdin.close()
            except (BrokenPipeError, ValueError):
                pass

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        try:
            for sha in wanted:
                header = stdout.readline().split()
                if len(header) != 3:
                    raise GitError(["cat-file"], 128, f"object {sha} is missing")
                size = int(header[2])
                data = stdout.read(size)
                stdout.read(1)
                if len(data) != size:
                    raise GitError(["cat-file"], 128, f"object {sha} was cut short")
                yield sha, data
        finally:
            process.kill()
            process.wait()
            stdout.close()
            feeder.join(1)
            stdin.close()

    def blob_head(self, sha: Sha, count: int) -> bytes:
        """The first `count` bytes of a blob, without reading the rest."""
        process = subprocess.Popen(
            argv_of(["cat-file", "blob", sha], [f"--git-dir={self.git_dir}"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._quiet_env(),
            cwd=self.git_dir,
        )
        if process.stdout is None:
            raise DependencyDown("git", "git could not be started with pipes.")
        try:
            return process.stdout.read(count)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def hash_blob(self, data: bytes) -> Sha:
        """Store a blob."""
        return self.text(["hash-object", "-w", "-t", "blob", "--no-filters", "--stdin"], stdin=data)

    def write_tree(self, entries: Iterable[tuple[str, Sha, bytes]]) -> Sha:
        """Store a tree of `(mode, blob, path)`, through an index of its own."""
        with _scratch() as folder:
            env = {"GIT_INDEX_FILE": str(folder / "index")}
            listing = b"".join(f"{mode} {sha}\t".encode() + path + b"\0" for mode, sha, path in entries)
            self.run(["update-index", "-z", "--index-info"], stdin=listing, env=env)
            return self.text(["write-tree"], env=env)

    def commit_tree(self, tree: Sha, parents: Sequence[Sha], message: str, *, name: str, email: str, time: str) -> Sha:
        """Store a commit. `time` is `<unix seconds> +0000`."""
        env = {
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": email,
            "GIT_AUTHOR_DATE": time,
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": email,
            "GIT_COMMITTER_DATE": time,
        }
        argv = ["commit-tree", tree]
        for parent in parents:
            argv += ["-p", parent]
        return self.text([*argv, "-F", "-"], stdin=message.encode("utf-8", "replace"), env=env)

    def update_ref(self, ref: str, new: Sha, old: Sha | None) -> None:
        """Move a ref by compare-and-swap; `old=None` means it must not exist yet.

        Raises:
            GitError: it moved meanwhile.
        """
        self.run(["update-ref", "--no-deref", "-m", "vestibule", ref, new, old or "0" * len(new)])

    def fetch_commit(self, source: Git, commit: Sha) -> None:
        """Bring `commit` and what it needs from another local repository; no ref is made."""
        have = dict.fromkeys(self.text(["for-each-ref", "--format=%(objectname)"]).split())
        known = source.run(["cat-file", "--batch-check"], stdin="".join(f"{sha}\n" for sha in have).encode())
        common = [line.split()[0].decode() for line in known.splitlines() if line.split()[1:2] == [b"commit"]]
        wants = "\n".join([commit, *(f"^{sha}" for sha in common), ""]).encode()
        pack = source.run(["pack-objects", "--stdout", "--revs", "--thin", "-q"], stdin=wants)
        self.run(["index-pack", "--stdin", "--fix-thin", "--strict"], stdin=pack)


def _size(sha: Sha, text: str) -> int:
    """A size as `ls-tree --long` writes it; `BAD` is an object that is not there."""
    if not text.isdigit():
        raise DependencyDown(
            "git",
            "An object of the repository is missing, and nothing is fetched for it.",
            fact=sha,
            person="Fetch what a partial clone lacks (`git fetch --refetch --filter=blob:limit=1g`), or run git fsck.",
        )
    return int(text)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vestibule-") as folder:
        yield Path(folder)


_REF = re.compile(r"refs/heads/[A-Za-z0-9][A-Za-z0-9._/-]{0,200}\Z")


def valid_branch_ref(ref: str) -> bool:
    """Whether `ref` is a branch name that we would ever write."""
    return bool(_REF.match(ref)) and ".." not in ref and "//" not in ref and not ref.endswith((".lock", "/", "."))
