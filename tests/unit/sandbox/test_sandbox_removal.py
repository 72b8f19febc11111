"""Whatever an agent leaves in its folder, removing the folder ends and touches nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vestibule.sandbox.removal import remove_tree


def _nest(folder: Path, levels: int) -> None:
    """Folders below each other, deeper than a path can name."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        deeper = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)


def test_folders_nested_beyond_stack_and_path_length_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "workspace"
    target.mkdir()
    _nest(target, 6000)
    remove_tree(target)
    assert not target.exists()


def test_depth_costs_no_descriptors(tmp_path: Path) -> None:
    target = tmp_path / "workspace"
    target.mkdir()
    _nest(target, 300)
    code = (
        "import resource, sys; from pathlib import Path; from vestibule.sandbox.removal import remove_tree\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)); remove_tree(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=True)
    assert not target.exists()


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    target = tmp_path / "workspace"
    (target / "a").mkdir(parents=True)
    (target / "a" / "folder").symlink_to(outside)
    (target / "a" / "file").symlink_to(outside / "kept")
    (target / "dangling").symlink_to("nowhere")
    os.link(outside / "kept", target / "hard")
    os.mkfifo(target / "a" / "pipe")
    mode = outside.stat().st_mode
    remove_tree(target)
    assert not target.exists()
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode == mode


def test_a_link_in_the_folders_place_is_removed_itself(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "workspace").symlink_to(tmp_path / "outside")
    remove_tree(tmp_path / "workspace")
    assert (tmp_path / "outside").is_dir()
    assert not (tmp_path / "workspace").is_symlink()
    remove_tree(tmp_path / "never was")


def test_folders_without_rights_and_names_like_ours_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "workspace"
    for name in (".0/.1/.2", "x/.0/y", "x/.1/y", "many"):
        (target / name).mkdir(parents=True)
    for number in range(5000):
        (target / "many" / f"f{number}").touch()
    code = (
        "import os, sys; from pathlib import Path\nfrom vestibule.sandbox.removal import remove_tree\n"
        "os.geteuid() or (os.chown(sys.argv[1], 65534, 65534), os.setgid(65534), os.setuid(65534))\n"
        "remove_tree(Path(sys.argv[1], 'workspace'))"
    )
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        if path.is_dir():
            path.chmod(0)
    folder = tmp_path
    while (
        os.geteuid() == 0
        and folder != folder.parent
        and folder.stat().st_uid == 0
        and folder.stat().st_mode & 0o77 == 0
    ):
        folder.chmod(0o711)  # pytest's own folders are private to root
        folder = folder.parent
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert not target.exists()
