"""The pure parts: groups, tools, arguments, /etc."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.core.errors import ConfigError
from vestibule.core.text.names import inside_address
from vestibule.sandbox.local import argv, etc, landlock, limits, tools

CEILINGS = limits.Ceilings(memory_bytes=1 << 20, pids=10, cpu_seconds=None, file_bytes=1, open_files=10)


def _v2(folder: Path, subtree: str, *, busy: bool = False) -> Path:
    """A folder that looks like a v2 group; a busy one refuses to switch controllers on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids")
    (folder / "cgroup.procs").write_text("")
    if busy:
        (folder / "cgroup.subtree_control").mkdir()
    else:
        (folder / "cgroup.subtree_control").write_text(subtree)
    return folder


def test_a_scope_that_holds_processes_gets_its_group_beside_it(tmp_path: Path) -> None:
    top = _v2(tmp_path / "top", "")
    slice_ = _v2(top / "user.slice", "cpu memory pids")
    scope = _v2(slice_ / "session.scope", "", busy=True)
    group = limits.Group("vestibule-x")
    group.make(limits.Place(scope, {}, top))
    group.limit(CEILINGS)
    assert group.mechanism == "cgroup2"
    assert group.folders == [slice_ / "vestibule-x"]
    assert (slice_ / "vestibule-x/memory.max").read_text() == str(CEILINGS.memory_bytes)
    assert (slice_ / "vestibule-x/pids.max").read_text() == "10"


def test_a_group_without_controllers_anywhere_is_no_ceiling(tmp_path: Path) -> None:
    top = _v2(tmp_path / "top", "")
    scope = _v2(top / "session.scope", "", busy=True)
    _v2(tmp_path, "memory pids")  # above the tree's top: not ours to use
    group = limits.Group("vestibule-x")
    group.make(limits.Place(scope, {}, top))
    group.limit(CEILINGS)
    assert (group.mechanism, group.folders) == ("rlimit", [scope / "vestibule-x"])


def test_place_of_a_pure_v2_machine_is_the_own_group() -> None:
    place = limits.own_place("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "0::/\n")
    assert place == limits.Place(Path("/sys/fs/cgroup"), {}, Path("/sys/fs/cgroup"))


def test_place_of_a_hybrid_machine_names_both() -> None:
    mounts = (
        "cgroup /c/memory cgroup rw,memory 0 0\ncgroup /c/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
        "cgroup2 /c/unified cgroup2 rw 0 0\nproc /proc proc rw 0 0\nodd\n"
    )
    place = limits.own_place(mounts, "4:memory:/\n2:cpu,cpuacct:/\n0::/\n")
    assert place.v2 == Path("/c/unified")
    assert place.v1 == {"memory": Path("/c/memory"), "cpu": Path("/c/cpu,cpuacct")}


def test_a_machine_without_groups_has_no_place() -> None:
    assert limits.own_place("", "") == limits.Place(None, {})


def test_a_group_that_cannot_hold_memory_and_processes_is_no_ceiling(tmp_path: Path) -> None:
    group = limits.Group("vestibule-x")
    group.make(limits.Place(None, {}))
    group.limit(CEILINGS)
    assert (group.mechanism, group.folders) == ("rlimit", [])


def test_a_group_that_may_not_be_made_is_no_ceiling() -> None:
    group = limits.Group("vestibule-x")
    group.make(limits.Place(Path("/proc"), {"memory": Path("/proc")}))
    group.limit(CEILINGS)
    assert group.mechanism == "rlimit"


def test_half_a_mechanism_is_reported_as_rlimits(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    group = limits.Group("vestibule-x")
    group.make(limits.Place(None, {"memory": memory}))
    group.limit(CEILINGS)
    assert (group.memory, group.pids, group.mechanism) == ("cgroup1", "none", "rlimit")


@pytest.mark.parametrize("name", ["", "x", "../x", "vestibule-", "vestibule-A", "vestibule-a/b"])
def test_a_group_has_a_plain_name_of_ours(name: str) -> None:
    with pytest.raises(ValueError):
        limits.Group(name)


def test_destroy_says_when_a_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "vestibule-x"
    (folder / "full").mkdir(parents=True)
    group = limits.Group.recorded("vestibule-x", [str(folder), "/etc"])
    assert group.folders == [folder]
    assert not group.destroy(timeout=0.01)
    (folder / "full").rmdir()
    assert group.destroy()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    for name in (".ssh", "tools/node/bin", "bad/.ssh"):
        (folder / name).mkdir(parents=True)
    return folder


def test_a_tool_is_shown_at_its_own_path_with_its_programs_first(home: Path) -> None:
    tool = home / "tools/node"
    assert tools.check([tool], home=home) == (argv.Bind(str(tool), str(tool), False),)
    assert argv.environment({}, tools.bins([tool]))["PATH"].startswith(f"{tool}/bin:/usr/local/bin:")


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/etc/ssh", "/proc/self", "/run", "/var", "/tmp", "/root", "/home", "/dev/shm"]
)
def test_the_system_is_no_tool(home: Path, path: str) -> None:
    with pytest.raises(ConfigError):
        tools.check([path], home=home)


@pytest.mark.parametrize("name", [".", "..", ".ssh", "missing"])
def test_homes_and_what_holds_keys_are_no_tools(home: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        tools.check([home / name], home=home)


def test_a_link_to_a_secret_is_no_tool(home: Path, tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to(home / ".ssh")
    with pytest.raises(ConfigError):
        tools.check([tmp_path / "innocent"], home=home)


def test_a_folder_with_a_socket_is_no_tool(home: Path) -> None:
    tool = home / "tools/node"
    sock = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tool / "bin")  # socket paths are short
    try:
        sock.bind("s")
    finally:
        os.chdir(here)
    with sock, pytest.raises(ConfigError, match="socket"):
        tools.check([tool], home=home)


def test_vestibules_own_state_is_no_tool(home: Path) -> None:
    state = home / "tools/node/state"
    state.mkdir()
    for path in (state, home / "tools/node", state / "runs"):
        path.mkdir(exist_ok=True)
        with pytest.raises(ConfigError):
            tools.check([path], home=home, forbidden=[state])


def _plan(**fields: object) -> argv.Plan:
    values: dict[str, object] = {
        "argv": ("true",),
        "cwd": "/workspace",
        "env": {"A": "b"},
        "system": (),
        "links": (),
        "tools": (),
        "mounts": (),
        "etc_files": {},
        "home_files": {},
        "tmp_bytes": 1,
    }
    return argv.Plan(**{**values, **fields})  # type: ignore[arg-type]


INSIDE = argv.Inside(
    notify=20, filter=21, own=22, landlock=landlock.Ruleset(fs=7, scoped=3, rules=((4, "/usr"),)), program=b"ELF"
)


def test_every_namespace_is_new_and_everything_is_dropped() -> None:
    options, program = argv.build(_plan(), argv.Descriptors(10, 11), INSIDE, lambda _: 13)
    for kind in ("user", "pid", "net", "ipc", "uts", "cgroup"):
        assert f"--unshare-{kind}" in options
    for needed in ("--disable-userns", "--new-session", "--die-with-parent", "--clearenv"):
        assert needed in options
    assert options[options.index("--cap-drop") + 1] == "ALL"
    assert not [item for item in options if item.endswith("-try") or item in ("--share-net", "--dev-bind", "--cap-add")]
    assert options[-4:] == ["--remount-ro", "/", "--chdir", "/workspace"]
    assert "--as-pid-1" in options
    assert program == [argv.FIRST, "20", "21", "22", "7", "0", "3", "4", "/usr", "--", "true"]


def test_every_place_in_memory_that_can_be_written_has_a_size() -> None:
    options, _ = argv.build(_plan(tmp_bytes=4096), argv.Descriptors(1, 2), INSIDE, lambda _: 4)
    places = [index for index, item in enumerate(options) if item == "--tmpfs"]
    assert {options[index + 1] for index in places} == {"/dev/shm", "/tmp", "/home/agent"}
    assert all(options[index - 2 : index] == ["--size", "4096"] for index in places)


@given(st.permutations(["/workspace", "/workspace/a", "/workspace/a/b", "/workspace/c"]))
def test_outer_mounts_come_before_inner_ones(targets: list[str]) -> None:
    mounts = tuple(argv.Bind(f"/src{target}", target, False) for target in targets)
    options, _ = argv.build(_plan(mounts=mounts), argv.Descriptors(1, 2), INSIDE, lambda _: 4)
    order = [item for item in options if item.startswith("/workspace")][:-1]
    for outer, inner in (("/workspace", "/workspace/a"), ("/workspace/a", "/workspace/a/b")):
        assert order.index(outer) < order.index(inner)


def test_content_travels_by_descriptor_and_never_in_arguments() -> None:
    seen: list[bytes] = []

    def content(data: bytes) -> int:
        seen.append(data)
        return 40 + len(seen)

    options, _ = argv.build(_plan(home_files={".x/y": b"secret"}), argv.Descriptors(1, 2), INSIDE, content)
    assert b"secret" in seen
    assert "secret" not in " ".join(options)


def test_the_given_environment_wins() -> None:
    assert argv.environment({"LANG": "de", "X": "1"}, ())["LANG"] == "de"


def test_names_are_in_hosts_and_nowhere_else() -> None:
    files = etc.files({"a.example.com": "127.64.0.1"})
    assert b"127.64.0.1 a.example.com\n" in files["hosts"]
    assert b"dns" not in files["nsswitch.conf"]


@given(st.integers(0, 65533))
def test_every_position_has_its_own_loopback_address(position: int) -> None:
    first, second, high, low = (int(part) for part in inside_address(position).split("."))
    assert (first, second) == (127, 64)
    assert high * 256 + low == position + 1


@pytest.mark.parametrize("position", [-1, 65534])
def test_no_address_outside_the_range(position: int) -> None:
    with pytest.raises(ValueError):
        inside_address(position)
