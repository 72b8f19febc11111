"""Upstream MCP servers of a run: each program in a sandbox of its own, each key added outside; and looking at them.

Rules it keeps:
1. A server's sandbox has no network, no workspace and no token: the operator's folders read-only, its variables, and
   nothing else. It is of this run only, and ends with the attempt.
2. A server does not start without the walls of the configured minimum.
3. A folder that holds, or lies in, Vestibule's own state or configuration is never shown.
4. A role's wish for a server that the operator does not define is nothing: there is no such server.
5. Pinning pins what the person was shown, and is in the log before it is in the file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestibule.boundary.context.upstream import names, pins
from vestibule.boundary.context.upstream.http import HttpConnection
from vestibule.boundary.context.upstream.server import Catalogue, UpstreamServer
from vestibule.boundary.context.upstream.session import Connection
from vestibule.boundary.context.upstream.source import UpstreamSource
from vestibule.boundary.context.upstream.stdio import StdioConnection
from vestibule.config.load import config_dir
from vestibule.config.schema import Upstream
from vestibule.core import clock
from vestibule.core.canonical import digest
from vestibule.core.crossing import error_details
from vestibule.core.errors import ConfigError, DependencyDown, UsageError
from vestibule.core.labels import RunLabel
from vestibule.core.model import Event, UpstreamUse
from vestibule.core.ports import Limits, Mount, Questions, RunningSandbox, SandboxSpec, ServerProcess
from vestibule.core.verdict import Ruling
from vestibule.identity.keys import read_key
from vestibule.pipeline.services import Services

if TYPE_CHECKING:
    from vestibule.audit.entry import Entry
    from vestibule.boundary.context.provenance import Trusted

STDERR_CHARS = 4000
"""The tail of a server's stderr that is kept for people."""


class SandboxedServers:
    """Implements `core.ports.ServerRunner` for one run (or one look). `stop` ends all, and none starts any more."""

    def __init__(self, services: Services, run: str, minimum: tuple[str, ...], *, seconds: float) -> None:
        self.services = services
        self.run = run
        self.minimum = minimum
        self.seconds = seconds
        self.watch: Callable[[RunningSandbox], Callable[[], None]] | None = None
        """Puts a server's sandbox under the run's monitor before it starts; what it gives is called at its end."""
        self._lock = threading.Lock()
        self._live: set[_Process] = set()
        self._stopped = False

    def start(
        self, server: str, command: Sequence[str], env: Mapping[str, str], folders: Sequence[str], memory_mb: int
    ) -> ServerProcess:
        spec = SandboxSpec(
            run=f"{self.run}-up-{server}",
            argv=tuple(command),
            cwd="/tmp",  # noqa: S108 - inside its own sandbox
            env=dict(env),
            mounts=tuple(self._mount(server, folder) for folder in folders),
            limits=Limits(wall_seconds=self.seconds, memory_bytes=memory_mb << 20, pids=256),
        )
        theirs_in, ours_in = os.pipe2(os.O_CLOEXEC)
        ours_out, theirs_out = os.pipe2(os.O_CLOEXEC)
        try:
            sandbox = self.services.sandbox.create(spec, stdin=theirs_in, stdout=theirs_out)
        except BaseException:
            os.close(ours_in)
            os.close(ours_out)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        process = _Process(sandbox, ours_in, ours_out)
        try:
            self.services.require_walls(sandbox.report, self.minimum)
            with self._lock:
                if self._stopped:
                    raise DependencyDown("upstream", "The run has ended; no server starts any more.", fact=server)
                self._live.add(process)
            if self.watch is not None:
                process.ended = self.watch(sandbox)
            sandbox.go()
        except BaseException:
            process.kill()
            os.close(ours_in)
            os.close(ours_out)
            raise
        return process

    def stop(self) -> None:
        """Every server is gone when this returns, and none starts any more. Idempotent."""
        with self._lock:
            self._stopped = True
            live, self._live = list(self._live), set()
        for process in live:
            process.kill()

    def _mount(self, server: str, folder: str) -> Mount:
        path = Path(folder)
        real = path.resolve()
        for own in (self.services.home.resolve(), config_dir(self.services.environ).resolve()):
            if real == own or own in real.parents or real in own.parents:
                raise ConfigError(
                    f"upstreams.{server}.folders: {folder} cannot be shown to a server",
                    why="it holds Vestibule's own state or configuration",
                    next_step="Name the folder that holds the documents only.",
                )
        if not real.exists():
            raise DependencyDown(
                "upstream",
                f"A folder of the upstream server {server!r} does not exist.",
                fact=f"{server}: {folder}",
                person="Create it, or correct `folders` in the operator's configuration.",
                agent="Go on without this server's tools.",
            )
        return Mount(source=real, target=str(path))


class _Process:
    """One server's sandbox as `core.ports.ServerProcess`."""

    def __init__(self, sandbox: RunningSandbox, stdin: int, stdout: int) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._sandbox = sandbox
        self.ended: Callable[[], None] | None = None
        """Called once, when it is dead."""

    def kill(self) -> str:
        self._sandbox.kill()
        ended, self.ended = self.ended, None
        if ended is not None:
            ended()
        try:
            said = self._sandbox.wait().stderr
        except DependencyDown:  # such as a disk that it filled; it is gone all the same
            return ""
        return said[-STDERR_CHARS:].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What one attempt has of upstream servers. `stop` ends it: no server of it runs, and none starts."""

    source: UpstreamSource
    servers: tuple[UpstreamServer, ...]
    runner: SandboxedServers

    def stop(self) -> None:
        for server in self.servers:
            server.close()
        self.runner.stop()


def upstreams_for(
    services: Services,
    run: str,
    uses: Sequence[UpstreamUse],
    *,
    labels: RunLabel,
    minimum: tuple[str, ...],
    seconds: float,
    trusted: Trusted | None = None,
    questions: Questions | None = None,
    watch: Callable[[RunningSandbox], Callable[[], None]] | None = None,
) -> Upstreams | None:
    """The upstream servers of a role, none of them started; None when it has none.

    Raises:
        DependencyDown: `upstream_pins`; `audit`, what went in earlier attempts cannot be read.
        ConfigError: two servers' names look the same.
    """
    defined = services.operator.upstreams
    for use in uses:
        if use.server not in defined:
            services.say(f"The role names the upstream server {use.server!r}; the operator defines none of that name.")
    wanted = [use for use in uses if use.server in defined]
    if not wanted:
        return None
    _told_apart(defined)
    keys: dict[str, str] = {}
    runner = SandboxedServers(services, run, minimum, seconds=seconds)
    runner.watch = watch
    servers = tuple(_server(services, use.server, runner, keys) for use in wanted)
    folder = pin_folder(services)
    source = UpstreamSource(
        servers,
        wanted,
        {use.server: folder.read(use.server) for use in wanted},
        labels=labels,
        trusted=trusted,
        questions=questions,
        keys=keys,
        used=used_calls(services.audit.entries(run)),
    )
    return Upstreams(source, servers, runner)


def used_calls(entries: Iterable[Entry]) -> dict[str, int]:
    """How often each outward call of a run was let go, by its name in the log.

    A call whose intent is durable counts, whether or not its effect is known: after a crash an approval is used up
    rather than used twice. One that was judged anew before anything happened does not.
    """
    seen: dict[int, str] = {}
    for entry in entries:
        event = entry.event
        call = event.details.get("call")
        if event.phase == "intent" and event.verdict is Ruling.ALLOW and isinstance(call, str):
            seen[entry.seq] = call
        elif event.phase == "outcome" and event.details.get("error") == "labels.moved":
            seen.pop(event.intent or 0, None)
    return dict(Counter(seen.values()))


def _server(services: Services, name: str, runner: SandboxedServers, keys: dict[str, str]) -> UpstreamServer:
    config = services.operator.upstreams[name]

    def connect() -> Connection:
        if config.url:
            key = keys[name] = _key(services, name, config)
            return HttpConnection(config.url, header=config.key_header, key=key)
        process = runner.start(name, config.command, config.env, config.folders, config.memory_mb)
        return StdioConnection(process)

    return UpstreamServer(name, config, connect)


def _key(services: Services, name: str, config: Upstream) -> str:
    if config.key is None:
        return ""
    try:
        return read_key(config.key, services.environ)
    except DependencyDown as down:
        raise DependencyDown(
            "upstream_key",
            f"The key of the upstream server {name!r} is missing or cannot be used.",
            fact=down.refusal.fact,
            person=down.refusal.next.person,
            agent="Go on without this server's tools.",
        ) from None


def _told_apart(defined: Mapping[str, Upstream]) -> None:
    for one, other in names.alike(defined):
        raise ConfigError(
            f"upstreams: {one!r} and {other!r} look the same",
            why="An agent, or a person who reads a log, could take one for the other.",
            next_step="Give one of them another name.",
        )


# --- looking and pinning -----------------------------------------------------------------------------------------


def pin_folder(services: Services) -> pins.PinFolder:
    return pins.PinFolder(config_dir(services.environ) / "upstreams")


@dataclass(frozen=True, slots=True)
class Looked:
    """One server as it is now. `live` is None when it cannot be asked; `down` says why, `said` is its stderr's tail."""

    server: str
    config: Upstream
    pinned: pins.Pins
    live: Catalogue | None
    down: str = ""
    said: str = ""

    def states(self) -> dict[str, pins.State]:
        """Of every tool; without the server, of what is pinned."""
        if self.live is None:
            return dict.fromkeys(sorted(self.pinned.tools), "pinned")
        return pins.states(self.pinned, self.live)

    def digest(self, tools: Iterable[str]) -> str:
        """Of what the server says of these tools now: what a person names to pin exactly what was seen."""
        live = self.live or {}
        return digest({tool: pins.digest_of(said) for tool in sorted(tools) if (said := live.get(tool)) is not None})


def look(services: Services, name: str, *, ask: bool = True) -> Looked:
    """What a server offers now beside what is pinned.

    Raises:
        UsageError: there is no such server. DependencyDown: `upstream_pins`.
    """
    defined = services.operator.upstreams
    if name not in defined:
        known = ", ".join(sorted(defined)) or "none"
        raise UsageError(f"There is no upstream server {name!r}.", next_step=f"The operator defines: {known}.")
    _told_apart(defined)
    config = defined[name]
    pinned = pin_folder(services).read(name)
    if not ask:
        return Looked(name, config, pinned, None)
    _sweep(services)
    runner = SandboxedServers(services, f"look-{os.getpid()}", services.operator.sandbox.minimum, seconds=300)
    server = _server(services, name, runner, {})
    try:
        live = server.offers()
    except (DependencyDown, ConfigError) as error:
        fact = error.refusal.fact if isinstance(error, DependencyDown) else error.what
        return Looked(name, config, pinned, None, fact or error.what, server.said)
    finally:
        server.close()
        runner.stop()
    return Looked(name, config, pinned, live)


def _sweep(services: Services) -> None:
    """Remove what looks left that were killed before they could do it themselves."""
    for path in (services.home / "sandboxes").glob("vestibule-look-*-up-*.json"):
        pid = path.name.split("-")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            services.sandbox.reap(f"look-{pid}")


def pin(services: Services, seen: Looked, tools: Sequence[str]) -> pins.Pins:
    """Pin these tools as they were seen. Written to the log first.

    Raises:
        UsageError: a tool is not offered, or cannot be pinned. DependencyDown: `audit`, `upstream_pins`.
    """
    live = seen.live or {}
    for tool in tools:
        if live.get(tool) is None:
            why = "It lists the name twice, or says more of it than can be looked at." if tool in live else ""
            raise UsageError(f"The server {seen.server!r} offers no tool {tool!r} that could be pinned.", why=why)
    person, now = services.person, clock.now()
    folder = pin_folder(services)
    folder.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = folder.read(seen.server)
    fresh = {
        tool: pins.Pin(digest=pins.digest_of(said), by=person.id, time=now, said=dict(said))
        for tool in tools
        if (said := live[tool]) is not None
    }
    after = before.model_copy(update={"tools": {**before.tools, **fresh}})
    changes = {
        tool: {"before": before.tools[tool].digest if tool in before.tools else "", "after": item.digest}
        for tool, item in sorted(fresh.items())
    }
    _recorded(services, "upstream.pin", seen.server, {"tools": changes}, lambda: folder.write(after))
    return after


def unpin(services: Services, server: str, tools: Sequence[str]) -> pins.Pins:
    """Forget these pins. Written to the log first. Raises as `pin` does."""
    folder = pin_folder(services)
    before = folder.read(server)
    missing = [tool for tool in tools if tool not in before.tools]
    if missing:
        raise UsageError(f"Nothing is pinned of {', '.join(missing)}.", next_step=f"`vestibule upstream show {server}`")
    after = before.model_copy(update={"tools": {k: v for k, v in before.tools.items() if k not in tools}})
    changes = {tool: {"before": before.tools[tool].digest, "after": ""} for tool in sorted(tools)}
    _recorded(services, "upstream.unpin", server, {"tools": changes}, lambda: folder.write(after))
    return after


def _recorded(services: Services, action: str, server: str, details: dict[str, Any], effect: Any) -> None:
    person = services.person
    intent = Event(
        run="",
        phase="intent",
        action=action,
        resource=server,
        subject="person",
        actor=person.id,
        verdict=Ruling.ALLOW,
        details={**details, "how": person.how},
    )
    receipt = services.audit.submit(intent).result()
    outcome: dict[str, Any] = {"phase": "outcome", "intent": receipt.seq}
    try:
        effect()
    except OSError as error:
        failed = {"result": "failed", "details": error_details(error)}
        with contextlib.suppress(Exception):  # what went wrong first is what is told
            services.audit.submit(intent.model_copy(update={**outcome, **failed})).result()
        raise DependencyDown(
            "upstream_pins", "The pins cannot be written.", fact=error.strerror or type(error).__name__
        ) from None
    services.audit.submit(intent.model_copy(update={**outcome, "result": "ok", "details": {}})).result()
