"""Export and apply: what leaves, what stays, and that nothing is read or written outside."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from changes_repos import commit, git, new_repo

from vestibule.boundary.changes import export
from vestibule.boundary.changes.apply import Applied, apply_export
from vestibule.boundary.changes.export import Bounds, blob_sha, export_workspace
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.view import Export, ExportedFile, View, ViewFile
from vestibule.git import Git

TIME = "2026-01-02T03:04:05.000Z"


def view_of(files: dict[str, bytes], *, mode: str = "100644") -> View:
    shown = tuple(
        ViewFile(path=path, mode=mode, blob=blob_sha(data, "0" * 40), size=len(data))  # type: ignore[arg-type]
        for path, data in files.items()
    )
    return View(base_commit="0" * 40, files=shown, omitted=0, writable=("**",))


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def statuses(export: Export) -> dict[str, str]:
    return {item.path: item.status for item in export.files}


def test_only_what_differs_from_the_view_by_content_or_mode_leaves(tmp_path: Path) -> None:
    files = {"a.py": b"1\n", "b/c.py": b"2\n", "d.sh": b"3\n", "e": b"4\n"}
    work = lay_out(tmp_path / "w", files)
    (work / "b/c.py").write_bytes(b"changed\n")
    (work / "d.sh").chmod(0o755)
    (work / "e").unlink()
    (work / "new").symlink_to("a.py")
    os.utime(work / "b/c.py", (0, 0))
    export = export_workspace(work, view_of(files))
    assert statuses(export) == {"b/c.py": "modified", "d.sh": "modified", "e": "deleted", "new": "added"}
    by_path = {item.path: item for item in export.files}
    assert by_path["new"].mode == "120000"
    assert by_path["new"].content == b"a.py"
    assert by_path["d.sh"].mode == "100755"
    assert export.dropped == ()


def test_git_folders_never_leave_and_nothing_in_them_runs(tmp_path: Path) -> None:
    work = lay_out(tmp_path / "w", {"a": b"1\n"})
    git(work, "init", "-q")
    marker = tmp_path / "ran"
    (work / ".git/config").write_text(f"[core]\n\tfsmonitor = touch {marker}\n\thooksPath = .\n")
    lay_out(work, {"x/.git/config": b"[core]\n", "y/.GIT/hooks/pre-commit": b"#!/bin/sh\n", "z/.git": b"gitdir: /\n"})
    export = export_workspace(work, view_of({"a": b"1\n"}))
    assert export.files == ()
    assert {path for path, _ in export.dropped} == {"x/.git", "y/.GIT", "z/.git"}
    assert not marker.exists()


def test_special_files_hard_links_and_set_user_id_stay_behind_with_a_reason(tmp_path: Path) -> None:
    work = lay_out(tmp_path / "w", {"keep": b"1\n", "suid": b"2\n"})
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    os.mkfifo(work / "pipe")
    os.link(outside, work / "hard")
    (work / "suid").chmod(0o4755)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(work / "sock"))
    export = export_workspace(work, view_of({"keep": b"1\n", "suid": b"old\n", "hard": b"view\n"}))
    sock.close()
    assert export.files == ()  # a hard link over a file of the view is no deletion of it
    reasons = {path: reason.split(":")[0] for path, reason in export.dropped}
    assert reasons == {
        "pipe": "change.export.special",
        "sock": "change.export.special",
        "hard": "change.export.hard_link",
        "suid": "change.export.setuid",
    }


def test_links_are_exported_as_links_and_never_followed(tmp_path: Path) -> None:
    outside = lay_out(tmp_path / "outside", {"secret": b"s3cret\n"})
    work = lay_out(tmp_path / "w", {"a": b"1\n"})
    (work / "dir").symlink_to(outside)
    (work / "file").symlink_to(outside / "secret")
    export = export_workspace(work, view_of({"a": b"1\n", "dir/secret": b"old\n"}))
    assert all(item.content is None or b"s3cret" not in item.content for item in export.files)
    assert statuses(export) == {"dir": "added", "dir/secret": "deleted", "file": "added"}


def test_the_workspace_itself_is_no_link(tmp_path: Path) -> None:
    real = lay_out(tmp_path / "real", {"a": b"1\n"})
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(DependencyDown):
        export_workspace(tmp_path / "link", view_of({}))


def test_a_name_swapped_for_a_link_during_the_walk_reads_nothing_outside(tmp_path: Path) -> None:
    outside = lay_out(tmp_path / "outside", {f"f{n}": b"OUTSIDE" for n in range(20)})
    work = lay_out(tmp_path / "w", {f"d/f{n}": b"inside" for n in range(20)})
    stop = threading.Event()
    turns = [0]

    def swap() -> None:
        file, other, folder, away = work / "d/f7", work / "d/.other", work / "d", work / "away"
        while not stop.is_set():
            try:
                other.symlink_to(outside / "f7")
                other.replace(file)
                folder.rename(away)
                folder.symlink_to(outside)
                folder.unlink()
                away.rename(folder)
                other.write_bytes(b"inside")
                other.replace(file)
            except OSError:
                continue
            turns[0] += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(400):
            export = export_workspace(work, view_of({}))
            for item in export.files:
                assert item.mode == "120000" or b"OUTSIDE" not in (item.content or b""), item.path
    finally:
        stop.set()
        thread.join()
    assert turns[0] > 0


@pytest.mark.parametrize("swapped", ["d", "d/file"])
def test_a_name_swapped_between_the_look_and_the_opening_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    outside = lay_out(tmp_path / "outside", {"file": b"OUTSIDE"})
    work = lay_out(tmp_path / "w", {"d/file": b"inside"})
    target = outside / swapped.removeprefix("d").removeprefix("/")
    real = export.open_beneath

    def swap_first(folder: int, name: bytes, flags: int) -> int:
        if name == os.fsencode(Path(swapped).name):
            (work / swapped).rename(tmp_path / "away")
            (work / swapped).symlink_to(target)
        return real(folder, name, flags)

    monkeypatch.setattr(export, "open_beneath", swap_first)
    found = export_workspace(work, view_of({}))
    assert found.files == ()
    assert [path for path, _ in found.dropped] == [swapped]


def test_bounds_refuse_and_never_cut(tmp_path: Path) -> None:
    work = lay_out(tmp_path / "w", {f"{n}": b"x" * 10 for n in range(5)})
    with pytest.raises(Refused) as error:
        export_workspace(work, view_of({}), Bounds(entries=4))
    assert error.value.refusal.rule == "change.export.limits"
    with pytest.raises(Refused):
        export_workspace(work, view_of({}), Bounds(total_bytes=49))
    deep = lay_out(tmp_path / "deep", {"/".join("d" * 20) + "/f": b"x"})
    with pytest.raises(Refused):
        export_workspace(deep, view_of({}), Bounds(depth=10))
    export = export_workspace(work, view_of({"0": b"old"}), Bounds(file_bytes=9))
    assert export.files == ()
    assert all(reason.startswith("change.export.size") for _, reason in export.dropped)


def test_hostile_names_are_refused_not_crashed_on(tmp_path: Path) -> None:
    work = lay_out(tmp_path / "w", {"ok": b"1\n"})
    for name in (b"new\nline", b"esc\x1b[31m", b"bad\xff", b"-rf", b"con", b"git~1"):
        (Path(os.fsdecode(bytes(work) + b"/" + name))).write_bytes(b"x")
    export = export_workspace(work, view_of({}))
    assert any(reason.startswith("path.encoding") for _, reason in export.dropped)
    assert all(shown.isprintable() for shown, _ in export.dropped)
    applied = run_apply(tmp_path, export, {"base": b"1\n"})
    rules = {finding.rule for finding in applied.findings}
    assert rules == {"path.control", "path.encoding", "path.device", "path.git"}
    assert all(finding.verdict.value == "deny" for finding in applied.findings)
    assert set(applied.files) == {"ok", "-rf"}


def run_apply(tmp_path: Path, export: Export, base: dict[str, bytes]) -> Applied:
    repo = new_repo(tmp_path / "base")
    sha = commit(repo, base)  # type: ignore[arg-type]
    clone = Git.init(tmp_path / "clone.git", bare=True)
    clone.fetch_commit(Git.open(repo), sha)
    applied = apply_export(export, clone, sha, message="m", time=TIME)
    if not applied.empty:
        git(clone.git_dir, "--git-dir", str(clone.git_dir), "fsck", "--strict")
    return applied


def test_adding_what_exists_unseen_is_a_modification_of_a_hidden_file(tmp_path: Path) -> None:
    hidden = {"secret/key": b"k\n", "hidden.txt": b"h\n", "src/a.py": b"1\n"}
    export = Export(
        files=(
            ExportedFile(path="hidden.txt", status="added", mode="100644", content=b"mine\n"),
            ExportedFile(path="hidden.txt/x", status="added", mode="100644", content=b"mine\n"),
            ExportedFile(path="secret", status="added", mode="120000", content=b"src"),
            ExportedFile(path="src/a.py", status="modified", mode="100644", content=b"2\n"),
            ExportedFile(path="src/gone.py", status="modified", mode="100644", content=b"2\n"),
        )
    )
    applied = run_apply(tmp_path, export, hidden)
    assert {f.rule for f in applied.findings} == {"change.unseen_file"}
    assert len(applied.findings) == 4
    assert applied.files == ("src/a.py",)
    clone = Git(tmp_path / "clone.git")
    assert clone.blob(applied.commit, "hidden.txt") == b"h\n"
    assert clone.blob(applied.commit, "secret/key") == b"k\n"
    assert clone.blob(applied.commit, "src/a.py") == b"2\n"


def test_a_seen_folder_may_become_a_file_and_back(tmp_path: Path) -> None:
    export = Export(
        files=(
            ExportedFile(path="a", status="deleted", mode="100644", content=None),
            ExportedFile(path="a/b", status="added", mode="100644", content=b"1\n"),
            ExportedFile(path="c", status="added", mode="100644", content=b"2\n"),
            ExportedFile(path="c/d", status="deleted", mode="100644", content=None),
        )
    )
    applied = run_apply(tmp_path, export, {"a": b"x\n", "c/d": b"y\n"})
    assert applied.findings == ()
    assert git(tmp_path / "clone.git", "ls-tree", "-r", "--name-only", applied.commit).split() == ["a/b", "c"]


def test_the_bases_ignore_rules_decide_and_the_agents_do_not(tmp_path: Path) -> None:
    base = {".gitignore": b"build/\n*.log\n", "sub/.gitignore": b"local\n!keep.log\n", "tracked.log": b"old\n"}
    names = ["build/x", "a.log", "sub/local", "sub/keep.log", "src/new.py", "agent-ignored", "new\u00fc.log"]
    export = Export(
        files=(
            *(ExportedFile(path=name, status="added", mode="100644", content=b"x\n") for name in names),
            ExportedFile(path=".gitignore", status="modified", mode="100644", content=b"agent-ignored\n"),
            ExportedFile(path="tracked.log", status="modified", mode="100644", content=b"new\n"),
        )
    )
    applied = run_apply(tmp_path, export, base)
    assert set(applied.files) == {".gitignore", "tracked.log", "sub/keep.log", "src/new.py", "agent-ignored"}
    assert {path for path, why in applied.dropped if why.startswith("ignored")} == {
        "build/x",
        "a.log",
        "sub/local",
        "new\u00fc.log",
    }


def test_an_export_without_changes_is_the_base_itself(tmp_path: Path) -> None:
    applied = run_apply(tmp_path, Export(files=()), {"a": b"1\n"})
    assert applied.empty
    assert applied.commit == git(tmp_path / "base", "rev-parse", "HEAD")


def test_the_same_export_gives_the_same_commit(tmp_path: Path) -> None:
    export = Export(files=(ExportedFile(path="n", status="added", mode="100755", content=b"#!/bin/sh\n"),))
    restored = Export.model_validate_json(export.model_dump_json())
    one = run_apply(tmp_path / "1", export, {"a": b"1\n"})
    two = run_apply(tmp_path / "2", restored, {"a": b"1\n"})
    assert one.commit == two.commit


def test_bytes_of_an_export_survive_json() -> None:
    export = Export(files=(ExportedFile(path="n", status="added", mode="100644", content=bytes(range(256))),))
    assert Export.model_validate_json(export.model_dump_json()) == export


def test_suspicious_leftovers_reach_the_reviewer(tmp_path: Path) -> None:
    export = Export(files=(), dropped=(("x", "change.export.setuid: never leaves"), ("p", "change.export.git: never")))
    applied = run_apply(tmp_path, export, {"a": b"1\n"})
    assert [(f.rule, f.verdict.value) for f in applied.findings] == [("change.export.setuid", "hold")]


def test_a_flood_of_leftovers_is_named_in_part_and_counted(tmp_path: Path) -> None:
    """A reviewer must not have to find one finding among sixty thousand, and no rule may get lost among others."""
    work = lay_out(tmp_path / "w", {"keep": b"1\n", "suid": b"2\n"})
    for number in range(300):
        os.mkfifo(work / f"pipe{number:03}")
    (work / "suid").chmod(0o4755)
    (work / "folder").mkdir()
    view = {"keep": b"1\n", "pipe299": b"view\n", "pipe299/x": b"view\n"}
    export = export_workspace(work, view_of(view), Bounds(named=10))
    assert export.files == ()  # not named one by one, and no deletion all the same
    assert len(export.dropped) == 12
    assert ("(290 others)", "change.export.special: not named one by one") in export.dropped
    assert ("suid", "change.export.setuid: a set-user-id or set-group-id file never leaves") in export.dropped


def test_findings_of_an_export_are_named_in_part_and_counted(tmp_path: Path) -> None:
    bad = [ExportedFile(path=f"a\u200b{number}", status="added", mode="100644", content=b"") for number in range(120)]
    applied = run_apply(
        tmp_path, Export(files=tuple(bad), dropped=(("p", "change.export.special: a pipe"),)), {"a": b""}
    )
    assert len([f for f in applied.findings if f.rule == "path.invisible"]) == 51
    assert {f.verdict.value for f in applied.findings if f.rule == "path.invisible"} == {"deny"}
    assert any(f.message.startswith("70 other files") for f in applied.findings)
    assert any(f.rule == "change.export.special" for f in applied.findings)


def test_more_files_than_guards_read_are_refused_before_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vestibule.boundary.changes.apply.MAX_ENTRIES", 2)
    monkeypatch.setattr(Git, "hash_blob", None)
    files = [ExportedFile(path=f"f{number}", status="added", mode="100644", content=b"x") for number in range(3)]
    with pytest.raises(Refused) as caught:
        run_apply(tmp_path, Export(files=tuple(files)), {"a": b"1\n"})
    assert caught.value.refusal.rule == "change.export.limits"


def test_of_many_ignored_files_some_are_named(tmp_path: Path) -> None:
    files = [ExportedFile(path=f"out/{number}", status="added", mode="100644", content=b"x") for number in range(80)]
    applied = run_apply(tmp_path, Export(files=tuple(files)), {".gitignore": b"out/\n", "a": b"1\n"})
    assert applied.empty
    assert len(applied.dropped) == 51
    assert applied.dropped[-1][0] == "(30 others)"


def test_without_openat2_nothing_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes
    import errno

    from vestibule.boundary.changes import openat

    class NoCall:
        @staticmethod
        def syscall(*args: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

    monkeypatch.setattr(openat, "_libc", NoCall)
    work = lay_out(tmp_path / "w", {"a": b"1\n"})
    with pytest.raises(DependencyDown) as error:
        export_workspace(work, view_of({}))
    assert error.value.refusal.rule == "dependency.openat2"
