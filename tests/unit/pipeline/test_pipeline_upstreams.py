"""Upstream servers of a run: what they are started with, what refuses them, and how they are pinned."""

from __future__ import annotations

import concurrent.futures
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.upstream_fake import FakeServer, pinned, text, tool

from vestibule.audit.log import read_entries
from vestibule.boundary.context.upstream import pins
from vestibule.core.errors import ConfigError, DependencyDown, UsageError
from vestibule.core.labels import RunLabel
from vestibule.core.model import UpstreamUse, Wall, WallsReport
from vestibule.core.ports import SandboxResult, SandboxSpec
from vestibule.pipeline import upstreams
from vestibule.pipeline.services import Services

USES = (UpstreamUse(server="docs", tools=("*",)),)
UP = ("mounts", "network", "seccomp", "no_new_privs")


class FakeSandbox:
    """Sandboxes whose program is a scripted server."""

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self.specs: list[SandboxSpec] = []
        self.walls = UP
        self.killed = 0
        self.live: Any = None

    def create(self, spec: SandboxSpec, *, stdin: int, stdout: int) -> FakeSandbox:
        self.specs.append(spec)
        self._fds = (os.dup(stdin), os.dup(stdout))
        return self

    @property
    def report(self) -> WallsReport:
        return WallsReport(tier="user", walls={name: Wall(state="up", proved_by="test") for name in self.walls})

    def go(self) -> None:
        process = self.fake.start()
        theirs_in, theirs_out = self._fds
        # The scripted server has pipes of its own; two copiers join them to the ones it was given.
        for source, sink in ((theirs_in, process.stdin), (process.stdout, theirs_out)):
            _copy(source, sink)

    def kill(self) -> None:
        self.killed += 1

    def wait(self) -> SandboxResult:
        return SandboxResult(exit_code=0, reason="killed", stderr=b"its last words", walls=self.report)


def _copy(source: int, sink: int) -> None:
    import threading

    def work() -> None:
        try:
            while data := os.read(source, 65536):
                os.write(sink, data)
        except OSError:
            pass
        finally:
            os.close(source)
            os.close(sink)

    threading.Thread(target=work, daemon=True).start()


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer([tool("find_page")], lambda *_: text("found"))


@pytest.fixture
def make(tmp_path: Path, fake: FakeServer) -> Iterator[Callable[..., Services]]:
    made: list[Services] = []

    def services(server: dict[str, Any], **env: str) -> Services:
        folder = tmp_path / "operator"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(f"version: 1\nupstreams: {json.dumps({'docs': server})}\n")
        found = Services(
            {"VESTIBULE_CONFIG": str(folder / "config.yaml"), "VESTIBULE_HOME": str(tmp_path / "home"), **env}
        )
        found.__dict__["sandbox"] = FakeSandbox(fake)
        made.append(found)
        return found

    yield services
    for found in made:
        found.close()


def _made(services: Services, uses: tuple[UpstreamUse, ...] = USES) -> upstreams.Upstreams | None:
    return upstreams.upstreams_for(services, "r1", uses, labels=RunLabel(), minimum=UP, seconds=60)


def _pins(services: Services, fake: FakeServer) -> None:
    upstreams.pin_folder(services).write(pinned("docs", fake.tools))


COMMAND: dict[str, Any] = {"command": ["server"], "tools": ["*"], "outward": []}


def test_a_server_starts_with_what_the_operator_says_and_nothing_else(
    make: Callable[..., Services], fake: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    services = make({**COMMAND, "env": {"A": "b"}, "folders": [str(tmp_path / "docs")]}, SECRET_OF_OURS="x")
    _pins(services, fake)
    found = _made(services)
    assert found is not None
    assert services.sandbox.specs == []  # type: ignore[attr-defined]
    call = found.source.plan("docs__find_page", {"text": "x"})
    assert call is not None
    assert "found" in found.source.carry_out(call).texts[0]
    found.stop()
    (spec,) = services.sandbox.specs  # type: ignore[attr-defined]
    assert spec.env == {"A": "b"}
    assert spec.names == ()
    assert [(str(m.source), m.target, m.write) for m in spec.mounts] == [
        (str(tmp_path / "docs"), str(tmp_path / "docs"), False)
    ]
    assert spec.run.startswith("r1-")
    assert services.sandbox.killed  # type: ignore[attr-defined]
    with pytest.raises(DependencyDown):  # nothing starts after the end
        found.runner.start("docs", ("server",), {}, (), 64)


def test_a_server_does_not_start_without_a_wall_of_the_minimum(make: Callable[..., Services], fake: FakeServer) -> None:
    services = make(COMMAND)
    services.sandbox.walls = ("mounts",)  # type: ignore[attr-defined]
    runner = upstreams.SandboxedServers(services, "r1", UP, seconds=5)
    with pytest.raises(DependencyDown) as caught:
        runner.start("docs", ("server",), {}, (), 64)
    assert caught.value.name == "walls"
    assert fake.started == 0
    assert services.sandbox.killed  # type: ignore[attr-defined]


def test_a_missing_key_means_no_request(make: Callable[..., Services], fake: FakeServer) -> None:
    services = make({"url": "http://127.0.0.1:9/mcp", "key": {"env": "DOCS_KEY"}, "tools": ["*"], "outward": []})
    _pins(services, fake)
    found = _made(services)
    assert found is not None
    call = found.source.plan("docs__find_page", {"text": "x"})
    assert call is not None
    with pytest.raises(DependencyDown) as caught:
        found.source.carry_out(call)
    assert caught.value.name == "upstream_key"
    assert "DOCS_KEY" in caught.value.refusal.fact
    found.stop()


def test_pins_that_were_changed_by_hand_stop_the_run_before_an_agent_is_there(
    make: Callable[..., Services], fake: FakeServer
) -> None:
    services = make(COMMAND)
    _pins(services, fake)
    path = upstreams.pin_folder(services).path("docs")
    path.write_text(path.read_text().replace("Says it.", "Obey it."))
    with pytest.raises(DependencyDown) as caught:
        _made(services)
    assert caught.value.name == "upstream_pins"


def test_a_role_can_name_no_server_into_being(make: Callable[..., Services]) -> None:
    services = make(COMMAND)
    heard: list[str] = []
    services.say = heard.append
    assert _made(services, (UpstreamUse(server="elsewhere", tools=("*",)),)) is None
    assert "elsewhere" in heard[0]
    assert _made(services, ()) is None


def test_servers_that_look_the_same_are_an_error_of_configuration(
    make: Callable[..., Services], tmp_path: Path
) -> None:
    services = make(COMMAND)
    config = tmp_path / "operator" / "config.yaml"
    config.write_text(f"version: 1\nupstreams: {json.dumps({'modern': COMMAND, 'modem': COMMAND, 'docs': COMMAND})}\n")
    services = Services(services.environ)
    with pytest.raises(ConfigError, match="look the same"):
        _made(services)


@pytest.mark.parametrize("server", ["Docs", "a__b", "a_b", "mcp", "vestibule", "1x", "x" * 25])
def test_a_servers_name_is_plain(make: Callable[..., Services], tmp_path: Path, server: str) -> None:
    made = make(COMMAND)
    (tmp_path / "operator" / "config.yaml").write_text(f"version: 1\nupstreams: {json.dumps({server: COMMAND})}\n")
    with pytest.raises(ConfigError):
        Services(made.environ)


# --- pinning -------------------------------------------------------------------------------------------------------


def test_a_pin_is_what_was_shown_and_says_who_and_when_there_and_in_the_log(
    make: Callable[..., Services], fake: FakeServer
) -> None:
    services = make(COMMAND)
    seen = upstreams.look(services, "docs")
    fake.tools[0] = tool("find_page", "Something else by now.")
    found = upstreams.pin(services, seen, ["find_page"])
    assert found.tools["find_page"].said["description"] == "Says it."
    assert found.tools["find_page"].by == services.person.id
    assert upstreams.pin_folder(services).read("docs") == found
    assert upstreams.look(services, "docs").states() == {"find_page": "changed"}
    upstreams.unpin(services, "docs", ["find_page"])
    assert upstreams.look(services, "docs", ask=False).states() == {}
    events = [entry.event for entry in read_entries(services.home / "audit", "", 0)]
    assert [(event.action, event.phase, event.subject) for event in events] == [
        ("upstream.pin", "intent", "person"),
        ("upstream.pin", "outcome", "person"),
        ("upstream.unpin", "intent", "person"),
        ("upstream.unpin", "outcome", "person"),
    ]
    digest = found.tools["find_page"].digest
    assert events[0].details["tools"] == {"find_page": {"before": "", "after": digest}}


def test_what_cannot_be_recorded_is_not_pinned(make: Callable[..., Services], monkeypatch: pytest.MonkeyPatch) -> None:
    services = make(COMMAND)
    seen = upstreams.look(services, "docs")

    def broken(_: Any) -> concurrent.futures.Future[Any]:
        found: concurrent.futures.Future[Any] = concurrent.futures.Future()
        found.set_exception(DependencyDown("audit", "The log is down."))
        return found

    monkeypatch.setattr(services.audit, "submit", broken)
    with pytest.raises(DependencyDown) as caught:
        upstreams.pin(services, seen, ["find_page"])
    assert caught.value.name == "audit"
    assert upstreams.pin_folder(services).read("docs").tools == {}


def test_what_is_not_offered_or_too_long_cannot_be_pinned(make: Callable[..., Services], fake: FakeServer) -> None:
    fake.tools.append(tool("endless", "x" * pins.MAX_TOOL_BYTES))
    services = make(COMMAND)
    seen = upstreams.look(services, "docs")
    for name in ("endless", "nothing"):
        with pytest.raises(UsageError):
            upstreams.pin(services, seen, [name])


def test_a_server_that_cannot_be_asked_says_why_and_what_it_printed(
    make: Callable[..., Services], fake: FakeServer
) -> None:
    secret = secrets.token_hex(8)
    fake.raw["initialize"] = lambda _: secret.encode()
    seen = upstreams.look(make(COMMAND), "docs")
    assert seen.live is None
    assert seen.down.startswith("docs: ")
    assert secret not in seen.down
    assert seen.said == "its last words"


def test_what_a_killed_look_left_is_removed_by_the_next(make: Callable[..., Services], tmp_path: Path) -> None:
    services = make(COMMAND)
    reaped: list[str] = []
    services.sandbox.reap = reaped.append  # type: ignore[method-assign, assignment]
    (tmp_path / "home" / "sandboxes").mkdir()
    for pid in (4_194_305, os.getpid()):  # the first is beyond the largest that Linux gives
        (tmp_path / "home" / "sandboxes" / f"vestibule-look-{pid}-up-docs-0badcafe.json").write_text("{}")
    upstreams.look(services, "docs")
    assert reaped == ["look-4194305"]


def test_the_key_of_an_upstream_server_never_leaves_in_a_change(make: Callable[..., Services]) -> None:
    from types import SimpleNamespace

    from vestibule.pipeline.providers import known_secrets

    key = secrets.token_hex(16)
    services = make({"url": "http://127.0.0.1:9/", "key": {"env": "DOCS_KEY"}, "tools": ["*"]}, DOCS_KEY=key)
    record: Any = SimpleNamespace(provider="", scripted=False, scope=SimpleNamespace(upstreams=USES))
    assert [item.value for item in known_secrets(services, record)] == [key.encode()]
