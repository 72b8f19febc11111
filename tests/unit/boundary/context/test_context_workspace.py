"""A gateway is no deputy: whatever the agent does to the tree meanwhile, nothing outside is touched."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from context_fake import Endpoint

from vestibule.boundary.context import workspace as module
from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.tree import Item, Tree
from vestibule.boundary.context.workspace import Change, Workspace
from vestibule.core.errors import Refused
from vestibule.core.model import Scope

SWAPS = {"folder": 30_000, "file": 300}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    found = tmp_path / "outside"
    found.mkdir()
    (found / "file.py").write_text("classified")
    return found


@pytest.fixture
def workspace(folder: Path) -> Iterator[Workspace]:
    found = Workspace(folder)
    yield found
    found.close()


def shown(workspace: Workspace, folder: str = "") -> list[Item]:
    """Everything that a tree would show to a task that may read all."""
    return Tree(workspace, Rights(Scope(read=("**",), write=()))).items(folder)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


# links of every kind


def test_symlinks_are_not_followed_to_read_write_or_delete(workspace: Workspace, folder: Path, outside: Path) -> None:
    (folder / "src/file").symlink_to(outside / "file.py")
    (folder / "src/folder").symlink_to(outside)
    (folder / "src/inside").symlink_to("greet.py")
    before = contents(outside)
    for path in ("src/file", "src/folder/file.py", "src/inside"):
        with pytest.raises(Refused, match="symbolic link"):
            workspace.read(path, limit=100)
        with pytest.raises(Refused, match="symbolic link"):
            workspace.write(path, b"x")
        with pytest.raises(Refused, match="symbolic link"):
            workspace.apply([Change(path, None, b"classified")])
    with pytest.raises(Refused):
        workspace.write("src/folder/new/deep.py", b"x")
    assert contents(outside) == before
    assert (folder / "src/file").is_symlink()


def test_magic_links_and_other_mounts_are_not_entered(workspace: Workspace, folder: Path) -> None:
    (folder / "src/proc").symlink_to(f"/proc/{os.getpid()}/root")
    for path in ("src/proc/etc/hostname", "src/proc"):
        with pytest.raises(Refused):
            workspace.read(path, limit=100)


def test_hard_links_are_refused(workspace: Workspace, folder: Path, outside: Path) -> None:
    os.link(outside / "file.py", folder / "src/hard.py")
    with pytest.raises(Refused, match="more than one name"):
        workspace.read("src/hard.py", limit=100)
    with pytest.raises(Refused, match="more than one name"):
        workspace.write("src/hard.py", b"x")
    assert contents(outside) == {"file.py": "classified"}


def test_pipes_sockets_and_devices_are_refused_without_waiting(workspace: Workspace, folder: Path) -> None:
    os.mkfifo(folder / "src/pipe")
    for work in (lambda: workspace.read("src/pipe", limit=10), lambda: workspace.write("src/pipe", b"x")):
        with pytest.raises(Refused, match="no regular file"):
            work()


@pytest.mark.parametrize("path", [".git/HEAD", "src/.git/config", ".GIT/hooks/x"])
def test_git_folders_are_never_touched(workspace: Workspace, path: str) -> None:
    for work in (lambda: workspace.read(path, limit=10), lambda: workspace.write(path, b"x")):
        with pytest.raises(Refused, match=r"git's folder"):
            work()
    assert not any(".git" in entry.path for entry in shown(workspace))


@pytest.mark.parametrize("path", ["../x", "src/../../x", "/etc/passwd"])
def test_paths_that_were_not_normalised_stay_inside_all_the_same(workspace: Workspace, path: str) -> None:
    with pytest.raises((Refused, NotDone)):
        workspace.read(path, limit=1 << 20)
    with pytest.raises((Refused, NotDone)):
        workspace.write(path, b"x")


# races


SWAPPER = """
import ctypes, os, sys
kind, folder, outside, swaps = sys.argv[1:]
os.chdir(folder + "/src")
libc = ctypes.CDLL(None)
exchange = 2
for number in range(int(swaps)):
    if kind == "folder":
        # `race` is a folder, then a link to the outside, then a folder again.
        libc.renameat2(-100, b"race", -100, b"link", exchange)
    else:
        # `race/file.py` is a file, then a link to the outside.
        os.symlink(outside + "/file.py", "link")
        os.rename("link", "race/file.py")
        with open("plain", "w") as file:
            file.write("plain")
        os.rename("plain", "race/file.py")
    if number == 10:
        print("ready", flush=True)
"""


@contextmanager
def racing(kind: str, folder: Path, outside: Path) -> Iterator[Iterator[int]]:
    """A process that swaps a name for a link and back, as one in the sandbox would; rounds while it does."""
    (folder / "src/race").mkdir()
    if kind == "folder":
        (folder / "src/race/file.py").write_text("plain")
        (folder / "src/link").symlink_to(outside)
    swaps = SWAPS[kind]
    command = [sys.executable, "-I", "-S", "-c", SWAPPER, kind, str(folder), str(outside), str(swaps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def rounds() -> Iterator[int]:
            number = 0
            while process.poll() is None:
                yield number
                number += 1

        yield rounds()
    assert process.returncode == 0


both_kinds = pytest.mark.parametrize("kind", ["folder", "file"])


@both_kinds
def test_swapped_link_never_leads_a_write_outside(workspace: Workspace, folder: Path, outside: Path, kind: str) -> None:
    done = refused = 0
    with racing(kind, folder, outside) as rounds:
        for number in rounds:
            for path in ("src/race/file.py", "src/race/deep/file.py"):
                try:
                    workspace.write(path, b"%d" % number)
                    done += 1
                except (Refused, NotDone):
                    refused += 1
    assert contents(outside) == {"file.py": "classified"}
    assert done > 0
    assert refused > 0


@both_kinds
def test_swapped_link_never_leads_a_read_outside(workspace: Workspace, folder: Path, outside: Path, kind: str) -> None:
    seen: set[bytes] = set()
    refused = 0
    with racing(kind, folder, outside) as rounds:
        for _ in rounds:
            try:
                seen.add(workspace.read("src/race/file.py", limit=100))
            except (Refused, NotDone):
                refused += 1
    assert seen <= {b"plain", b""}
    assert refused > 0


@both_kinds
def test_swapped_link_never_leads_a_patch_outside(workspace: Workspace, folder: Path, outside: Path, kind: str) -> None:
    with racing(kind, folder, outside) as rounds:
        for number in rounds:
            changes = [
                Change("src/greet.py", b"%d" % number, workspace.read("src/greet.py", limit=100)),
                Change("src/race/file.py", None, b"classified"),
            ]
            with suppress(Refused, NotDone):
                workspace.apply(changes)
            with suppress(Refused, NotDone):
                workspace.apply([Change("src/race/file.py", b"new", None)])
    assert contents(outside) == {"file.py": "classified"}


def test_swapped_link_never_leads_a_walk_outside(workspace: Workspace, folder: Path, outside: Path) -> None:
    (outside / "treasure.py").write_text("x")
    with racing("folder", folder, outside) as rounds:
        for _ in rounds:
            assert not any("treasure" in entry.path for entry in shown(workspace, "src"))


def test_file_exchanged_under_the_write_is_reported(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def exchanged(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.unlink(source, dir_fd=src_dir_fd)
        os.symlink("/etc/passwd", source, dir_fd=src_dir_fd)
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(module.os, "replace", exchanged)
    with pytest.raises(NotDone, match="replaced by another process"):
        workspace.write("src/greet.py", b"ours")


def test_root_that_was_renamed_or_replaced_is_still_the_one_that_was_opened(
    workspace: Workspace, folder: Path, outside: Path
) -> None:
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(outside)
    workspace.write("src/new.py", b"x")
    assert not (outside / "src").exists()
    assert (folder.with_name("moved") / "src/new.py").read_text() == "x"


# ordinary work


def test_modes_are_kept_and_new_files_are_plain(workspace: Workspace, folder: Path) -> None:
    tool = folder / "src/tool.sh"
    tool.write_text("old")
    tool.chmod(0o755)
    assert workspace.write("src/tool.sh", b"new") is False
    assert workspace.write("src/a/b/c.py", b"x") is True
    assert stat.S_IMODE(tool.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "src/a/b/c.py").stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "src/a").stat().st_mode) == 0o755
    assert {entry.path for entry in shown(workspace, "src/a")} == {"src/a/b/c.py"}


def test_what_is_written_belongs_to_the_workspaces_owner(folder: Path) -> None:
    owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(folder, *owner)
    workspace = Workspace(folder)
    workspace.write("fresh/deep/file.py", b"x")
    for path in ("fresh", "fresh/deep", "fresh/deep/file.py"):
        found = (folder / path).stat()
        assert (found.st_uid, found.st_gid) == owner
    workspace.close()


def test_patch_that_fails_half_way_leaves_everything_as_it_was(workspace: Workspace, folder: Path) -> None:
    (folder / "src/blocked").write_text("a file, not a folder")
    before = contents(folder)
    changes = [
        Change("src/greet.py", b"changed", (folder / "src/greet.py").read_bytes()),
        Change("src/new.py", b"new", None),
        Change("docs/guide.md", None, (folder / "docs/guide.md").read_bytes()),
        Change("src/blocked/x.py", b"impossible", None),
    ]
    with pytest.raises(NotDone):
        workspace.apply(changes)
    assert contents(folder) == before


def test_patch_of_a_file_that_changed_meanwhile_is_not_applied(workspace: Workspace, folder: Path) -> None:
    with pytest.raises(NotDone, match="changed"):
        workspace.apply([Change("src/greet.py", b"x", b"something else")])
    with pytest.raises(NotDone, match="changed"):
        workspace.apply([Change("src/greet.py", b"x", None)])
    assert (folder / "src/greet.py").read_text().startswith("def greet")


@pytest.mark.parametrize(
    ("path", "code"), [("src/none.py", "missing"), ("src", "folder"), ("src/greet.py/x", "not_folder")]
)
def test_ordinary_failures_say_what_is_wrong(workspace: Workspace, path: str, code: str) -> None:
    with pytest.raises(NotDone) as caught:
        workspace.read(path, limit=100)
    assert caught.value.code == code
    if code != "missing":
        with pytest.raises(NotDone):
            workspace.write(path, b"x")


def test_large_files_are_not_read_into_memory(workspace: Workspace, folder: Path) -> None:
    with (folder / "src/large.bin").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(NotDone, match="104857600 bytes"):
        workspace.read("src/large.bin", limit=1 << 20)


def test_names_that_no_tool_could_name_are_left_out(workspace: Workspace, folder: Path) -> None:
    for name in (b"bad\xff.py", b"line\nfeed.py", b"back\\slash.py", b"con.txt", "e\u0301.py".encode()):
        (Path(os.fsdecode(os.fsencode(folder) + b"/src/" + name))).write_text("x")
    assert {entry.path for entry in shown(workspace, "src")} == {
        "src/deep/er/mod.py",
        "src/greet.py",
    }


def test_walk_is_bounded(workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (folder / f"src/f{number}.py").write_text("x")
    deep = folder / "tests"
    for _ in range(module.MAX_DEPTH + 5):
        deep /= "d"
        deep.mkdir()
    (deep / "bottom.py").write_text("x")
    assert not any("bottom" in entry.path for entry in shown(workspace, "tests"))
    monkeypatch.setattr(module, "MAX_VISITED", 10)
    assert len(list(shown(workspace, "src"))) <= 10


def test_link_that_shows_only_on_the_way_is_a_403_with_an_outcome(endpoint: Endpoint, tmp_path: Path) -> None:
    (endpoint.folder / "src/link.py").symlink_to(tmp_path)
    for tool, more in (("read_file", {}), ("write_file", {"content": "x"})):
        assert endpoint.call(tool, path="src/link.py", **more).refusal["rule"] == "path.link"
        assert (endpoint.log.events[-1].phase, endpoint.log.events[-1].result) == ("outcome", "failed")
        assert endpoint.log.events[-1].details == {"error": "path.link"}
    assert f"src/link.py\tlink to {tmp_path}" in endpoint.call("list_files", path="src").text
