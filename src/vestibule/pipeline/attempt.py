"""One attempt at the work: view, sandbox, gateways, live guards, agent, export.

Rules it keeps:
1. A fresh view and a fresh sandbox each time; what a dead supervisor left is reaped first, and its spend stays.
2. The agent starts only when the minimum of walls stands and a forbidden call at every crossing was refused.
3. A gateway that ends, or an agent that asks without end, kills the sandbox at once; the attempt is refused.
4. Results are read from outside when every process is dead, the agent's and every command's, and nothing is run in
   the tree.
5. Where a runtime monitor stands, every sandbox of the attempt is watched before its program starts; a behaviour
   that policy denies, and a monitor that fails, end the attempt.
6. What people grant while it works is put into effect by `live_scope` alone; one that cannot be believed ends it.
7. The token is worthless outside this run's listeners, is renewed while this process lives, and dies with the attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestibule.agents.base import CONTEXT_HOST, MODELS_HOST, Plan, Situation
from vestibule.agents.registry import adapter
from vestibule.boundary.host.report import HostReport
from vestibule.boundary.network.report import EgressReport
from vestibule.core import clock
from vestibule.core.base import Noun
from vestibule.core.errors import AgentFailed, DependencyDown, Refused
from vestibule.core.instructions import Instruction
from vestibule.core.labels import Label
from vestibule.core.labels import label_of_all as label_of_files
from vestibule.core.model import WallsReport
from vestibule.core.ports import Mount, RunningSandbox, SandboxResult, SandboxSpec
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.verdict import Ruling, Verdict
from vestibule.core.view import View
from vestibule.git import Git
from vestibule.identity.tokens import TaskTokens
from vestibule.pipeline.admission import require_admitted
from vestibule.pipeline.ceilings import disk_of, limits_of, over_quota
from vestibule.pipeline.egress import egress_of, egress_report, network_of
from vestibule.pipeline.flood import MAX_DECISIONS, BoundedSink, flooded
from vestibule.pipeline.hosting import GatewayHost
from vestibule.pipeline.idle import IdleWatch, Requests
from vestibule.pipeline.instructions import as_details, instructions_of, label_of_all, owners_of
from vestibule.pipeline.live_scope import LiveScope
from vestibule.pipeline.monitor import HostMonitor, WritesSeen
from vestibule.pipeline.providers import routes_of
from vestibule.pipeline.record import RunRecord, task_of
from vestibule.pipeline.results import save_export, source_of, start_commit
from vestibule.pipeline.run_label import recorded_label, view_details
from vestibule.pipeline.services import Services
from vestibule.pipeline.spend_guard import SpendGuard
from vestibule.pipeline.toolchains import Prepared, prepare
from vestibule.pipeline.transcripts import keep, transcript_of
from vestibule.sandbox.quota import WorkspaceDisk, clear
from vestibule.sandbox.removal import remove_tree

if TYPE_CHECKING:
    from vestibule.boundary.models.gateway import ModelGateway
    from vestibule.boundary.network.gateway import EgressGateway
    from vestibule.pipeline.commands import SandboxedCommands
    from vestibule.pipeline.upstreams import SandboxedServers, Upstreams

RENEW_SECONDS = 300.0
COMMAND_SECONDS = 600.0
SETTLE_SECONDS = 60.0


class AttemptResult(Noun):
    """What the run's row keeps of an attempt."""

    walls: WallsReport
    exit_code: int
    message: str
    own_denials: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]
    down: tuple[Refusal, ...]
    labels: Label
    network: EgressReport | None
    host: HostReport | None
    sandbox_ms: float
    agent_ms: float


class Attempt:
    """One attempt of one run."""

    def __init__(self, services: Services, record: RunRecord) -> None:
        task = task_of(record)
        if task is None:
            raise AgentFailed("The run has no spec.", next_step="Start a new run.")
        self.task = task
        self.services = services
        self.record = record
        self.config = services.config_of(record)
        self.folder = services.folder(record.id) / f"attempt-{record.attempt}"
        self._disk: WorkspaceDisk | None = None
        self.prepared = Prepared()
        self._requests = Requests()
        self._idle = threading.Event()
        self.network = network_of(services, record, (CONTEXT_HOST, MODELS_HOST))
        self.egress: EgressGateway | None = None
        self._flooded = threading.Event()
        self.crossing = services.crossing(record)
        self.crossing.audit = self._written = WritesSeen(BoundedSink(self.crossing.audit, self._asked_too_much))
        self.monitor = HostMonitor(services, record, self.crossing, self._ungranted)
        self._host = HostReport(rung="none")
        self._commands: SandboxedCommands | None = None
        self._servers: SandboxedServers | None = None
        self.instructions: tuple[Instruction, ...] = ()
        self.spend = SpendGuard(services, record, self._ungranted)
        self.live = LiveScope(services, record, self.crossing, self._ungranted)
        self._trouble: Refused | None = None
        self._dead_gateway = threading.Event()
        self._dead_name = ""
        self._sandbox: RunningSandbox | None = None
        self._models: ModelGateway | None = None

    def perform(self) -> AttemptResult:
        """Everything, to the saved export.

        Raises:
            Refused: a wall, a guard or a dependency is down.
            AgentFailed: it ran out of time.
        """
        require_admitted(self.services, self.record)
        self.services.sandbox.reap(self.record.id)
        self.services.ledger.recover(self.record.id)
        try:
            for leftover in self.folder.parent.glob("attempt-*"):
                clear(leftover)
                remove_tree(leftover)
        except OSError as error:
            raise DependencyDown(
                "workspace", "An earlier attempt's workspace cannot be removed.", fact=error.strerror or ""
            ) from None
        self.folder.mkdir(mode=0o700)
        try:
            self._disk = disk_of(self.services.operator.sandbox, self.folder)
            with contextlib.ExitStack() as living:
                view, walls, sandbox_ms, result = self._inside(living)
            if self._trouble is not None:
                raise self._trouble
            return self._collect(self.live.view or view, result, walls, sandbox_ms)
        finally:
            if self._disk is not None:
                self._disk.close()
            with contextlib.suppress(OSError):
                remove_tree(self.folder)
            self.services.sandbox.release(self.record.id)

    @property
    def disk(self) -> WorkspaceDisk:
        """The workspace's own."""
        if self._disk is None:
            raise DependencyDown("workspace", "The attempt has no workspace.")
        return self._disk

    @property
    def workspace(self) -> Path:
        return self.disk.workspace

    def _inside(self, living: contextlib.ExitStack) -> tuple[View, WallsReport, float, SandboxResult]:
        """All that has processes, sockets or tokens; `living` ends it, last opened first."""
        started = time.monotonic()
        living.callback(self.spend.stop)  # after the last settlement
        self.spend.start()
        host = GatewayHost(self._gateway_died)
        living.callback(host.stop)
        living.callback(self._settle, host)
        tokens = TaskTokens(
            agent=self.services.actor(self.record, "agent"), probe=self.services.actor(self.record, "probe")
        )
        self.prepared = prepare(self.services, self.record, self.config)
        living.callback(self.prepared.close)
        view = self._project()
        self._instruct()
        plan = self._plan(tokens.agent_token)
        self.monitor.begin()
        living.callback(self.monitor.abandon)
        sandbox = self._sandbox = self.services.sandbox.create(self._spec(plan, view))
        living.callback(sandbox.kill)
        walls = self.services.with_monitor(sandbox.report)
        self.services.require_walls(walls, self.services.minimum(self.config))
        self._open_gateways(host, living, sandbox, tokens, view)
        living.callback(sandbox.kill)
        living.callback(tokens.revoke)
        self._prove_guards(sandbox, tokens.probe_token)
        tokens.forget()
        stop = threading.Event()
        living.callback(stop.set)
        threading.Thread(target=self._renew, args=(tokens, stop), name="lease", daemon=True).start()
        sandbox_ms = clock.elapsed_ms(started)
        return view, walls, sandbox_ms, self._run_agent(sandbox, view)

    # --- before -------------------------------------------------------------------------------------------

    def _project(self) -> View:
        from vestibule.sandbox.view import materialise, project

        source = source_of(self.services, self.record)
        view = project(source, start_commit(self.services, self.record), self.record.scope)
        # Every file of the view is in the sandbox, and no gateway sees a native program read it.
        self.crossing.labels.join(label_of_files((file.path for file in view.files), self.record.scope.labels))
        if self.record.attempt > 1 or self.record.round > 1:
            self.crossing.labels.join(recorded_label(self.services, self.record))
        if view.unshowable:
            count = len(view.unshowable)
            self.services.say(f"{count} file(s) are left out: no part of them can be shown as a view asks.")
        uid = self.services.sandbox.workspace_uid(self.record.id)
        try:
            materialise(source, view, self.workspace, uid=uid)
        except OSError as error:
            if error.errno == errno.ENOSPC and self.disk.quota.held:
                raise over_quota(self.services.operator.sandbox) from None
            raise
        return view

    def _instruct(self) -> None:
        """Reads the base commit's instructions, and joins their label before anybody is told anything."""
        self.instructions = instructions_of(Git.open(self.record.repo), self.record.base_commit, self.record.scope)
        self.crossing.labels.join(label_of_all(self.instructions))

    def _plan(self, token: str) -> Plan:
        record = self.record
        tools = tuple(Path(item) for item in self.services.operator.sandbox.tools)
        return adapter(record.agent.adapter).plan(
            Situation(
                task=self.task,
                token=token,
                tools=tools,
                command=record.command,
                native=record.native,
                instructions=self.instructions,
                api=routes_of(self.services, record)[0] if record.provider else "anthropic",
            )
        )

    def _spec(self, plan: Plan, view: View) -> SandboxSpec:
        return SandboxSpec(
            run=self.record.id,
            argv=plan.argv,
            env={**self.network.env, **self.prepared.env, **plan.env},
            path=self.prepared.path,
            mounts=(*self._workspace_mounts(view, begun=False), *self.prepared.mounts, *plan.mounts),
            home_files={**self.network.home_files, **plan.home_files},
            names=self.network.plan.names,
            endpoints=self.network.plan.endpoints,
            resolver=True,
            limits=limits_of(self.services.operator.sandbox, self.record.budget.minutes * 60),
            quota=self.disk.quota,
        )

    def _workspace_mounts(self, view: View, *, begun: bool) -> tuple[Mount, ...]:
        from vestibule.sandbox.view import mounts_for

        return mounts_for(view, self.record.scope, self.workspace, begun=begun)

    def _open_gateways(
        self, host: GatewayHost, living: contextlib.ExitStack, sandbox: RunningSandbox, tokens: TaskTokens, view: View
    ) -> None:
        from vestibule.boundary.context.gateway import build_context_app
        from vestibule.boundary.context.workspace import Workspace
        from vestibule.pipeline.commands import SandboxedCommands

        commands = SandboxedCommands(
            self.services,
            self.record.id,
            self._workspace_mounts(view, begun=True),
            limits_of(self.services.operator.sandbox, COMMAND_SECONDS),
            self.services.minimum(self.config),
            quota=self.disk.quota,
            prepared=self.prepared,
            watch=self.monitor.watch,
        )
        self._commands = commands
        files = Workspace(self.workspace)
        living.callback(files.close)
        upstreams = self._upstreams()
        context = build_context_app(
            crossing=self.crossing,
            authenticate=tokens.authenticate,
            workspace=files,
            task=self.task,
            view=view,
            runner=commands,
            feedback=self.record.feedback,
            instructions=self.instructions,
            owners=owners_of(source_of(self.services, self.record), self.record.base_commit),
            sources=(upstreams.source,) if upstreams is not None else (),
            questions=self.live.questions,
            preload=adapter(self.record.agent.adapter).needs_model,
        )
        living.callback(context.close)
        if upstreams is not None:
            self._servers = upstreams.runner
            living.callback(upstreams.stop)  # before the endpoint waits for its calls to end
        living.callback(self.live.stop)
        living.callback(commands.stop)
        self.live.start(context, source_of(self.services, self.record), self.workspace, view)
        host.serve("context", self._requests.counted(context), sandbox.listeners[CONTEXT_HOST])
        host.serve("models", self._requests.counted(self._models_app(host, tokens)), sandbox.listeners[MODELS_HOST])
        self.egress = egress_of(self.services, self.record, self.network, self.crossing, sandbox)
        host.run("network", self.egress.serve(dict(sandbox.listeners)))

    def _upstreams(self) -> Upstreams | None:
        """The upstream servers of the task's role; none is started yet."""
        if not self.task.scope.upstreams:
            return None
        from vestibule.boundary.context.provenance import VOUCHED, Trusted
        from vestibule.pipeline.upstreams import upstreams_for

        told = (item.text for item in self.instructions if item.label.integrity in VOUCHED)
        return upstreams_for(
            self.services,
            self.record.id,
            self.task.scope.upstreams,
            labels=self.crossing.labels,
            minimum=self.services.minimum(self.config),
            seconds=self.record.budget.minutes * 60 + SETTLE_SECONDS,
            trusted=Trusted.of(self.task.spec, instructions=told),
            questions=self.live.questions,
            watch=self.monitor.watch,
        )

    def _models_app(self, host: GatewayHost, tokens: TaskTokens) -> ModelGateway:
        from vestibule.boundary.models.gateway import build_models_app
        from vestibule.pipeline.model_guards import guards_of
        from vestibule.pipeline.providers import upstreams_of
        from vestibule.pipeline.tool_calls import house_of

        upstreams, prices = upstreams_of(self.services, self.record, host)
        self._models = build_models_app(
            crossing=self.crossing,
            authenticate=tokens.authenticate,
            upstreams=upstreams,
            ledger=self.spend,
            prices=prices,
            task=self.task,
            house=house_of(self.record, self.task, lambda: self.live.scope),
            repository=str(self.record.repo),
            guards=guards_of(self.services, self.record, tokens, upstreams, self.crossing.labels),
        )
        return self._models

    def _prove_guards(self, sandbox: RunningSandbox, token: str) -> None:
        from vestibule.pipeline.live_guards import prove

        prove(self.services, self.record, sandbox, token, self.network.plan)

    # --- during -------------------------------------------------------------------------------------------

    def _run_agent(self, sandbox: RunningSandbox, view: View) -> SandboxResult:
        report = self.services.with_monitor(sandbox.report)
        walls = {name: wall.state for name, wall in report.walls.items()}
        for refused in self.network.plan.denied:
            self.services.say(f"{refused.fact}: {refused.reason}")
        record = self.record
        details = {
            "walls": walls,
            "repo": str(record.repo),
            "agent": record.agent.name,
            "role": record.role,
            "round": record.round,
            "scripted": record.scripted,
            "instructions": as_details(self.instructions),
            "view": view_details(view),
            "limits": sandbox.report.limits,
        }
        labels = self.crossing.labels.current
        with self.services.recorded(record, "agent.start", record.agent.version, details, labels=labels) as found:
            if self.egress is not None:
                self.egress.begin()
            self.monitor.watch(sandbox)
            sandbox.go()
            watch = self._watch_idle(sandbox)
            try:
                result = sandbox.wait()
            finally:
                watch.stop()
            reason = "idle" if self._idle.is_set() else result.reason
            found.update({"exit_code": result.exit_code, "reason": reason, "wall_ms": int(result.wall_ms)})
            found["transcript"] = self._keep_transcript(result)
            self._tell_calls(result)
            found["monitor"] = self._watched()
        if self._trouble is not None:
            raise self._trouble
        if self._flooded.is_set():
            raise flooded(MAX_DECISIONS)
        if self._dead_gateway.is_set():
            raise DependencyDown(
                "gateway",
                f"The {self._dead_name} gateway ended while the agent was working, so the agent was stopped.",
                person=f"Run `vestibule resume {self.record.id}` or start the run anew.",
            )
        return result

    def _watched(self) -> dict[str, Any]:
        """The monitor's account, when no command runs any more either; what the log says of it."""
        for others in (self._commands, self._servers):
            if others is not None:
                others.stop()
        try:
            self._host = self.monitor.finish()
        except DependencyDown as error:
            self._trouble = self._trouble or error
            return {"error": error.refusal.rule}
        return self._host.as_details()

    def _watch_idle(self, sandbox: RunningSandbox) -> IdleWatch:
        """Stops the agent when it does nothing; without a limit it never looks."""
        minutes = self.record.budget.idle_minutes
        watch = IdleWatch(sandbox, self._requests, seconds=(minutes or 0) * 60.0, idle=self._is_idle)
        if minutes is not None:
            watch.start()
        return watch

    def _is_idle(self) -> None:
        self._idle.set()
        self._kill_aside()

    def _tell_calls(self, result: SandboxResult) -> None:
        """System calls that the filter refused and no ordinary program makes, each an entry of the log."""
        actor = self.services.actor(self.record, "agent")
        for name, count in sorted(result.refused_calls.items()):
            refused = refusal(
                "host.call",
                "The program made a system call that no ordinary program makes; it was refused.",
                fact=f"{name}, {count} time(s)",
                agent="Do without it.",
                person="Look at what the agent ran; debuggers and nested sandboxes make such calls too.",
            )
            verdict = Verdict(ruling=Ruling.DENY, reasons=(refused.rule,), refusals=(refused,))
            self.crossing.record(self.crossing.intent(actor, "host.call", name, verdict, details={"count": count}))

    def _keep_transcript(self, result: SandboxResult) -> dict[str, Any]:
        data, cut = transcript_of(result.stdout, result.stderr, cut=result.truncated)
        name = f"transcript-{self.record.round}-{self.record.attempt}.log"
        return keep(self.services.folder(self.record.id), name, data, cut=cut)

    def _settle(self, host: GatewayHost) -> None:
        """Model requests under way are read to their end, so that what was spent is what the provider says."""
        if self._models is not None:
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._models.drain(), host.loop).result(SETTLE_SECONDS)
            asyncio.run_coroutine_threadsafe(self._models.close(), host.loop).result(SETTLE_SECONDS)

    def _renew(self, tokens: TaskTokens, stop: threading.Event) -> None:
        while not stop.wait(RENEW_SECONDS):
            tokens.renew()

    def _gateway_died(self, name: str) -> None:
        self._dead_name = name
        self._dead_gateway.set()
        self._kill_aside()

    def _ungranted(self, error: Refused) -> None:
        """A grant that cannot be believed or kept ends the attempt."""
        self._trouble = self._trouble or error
        self._kill_aside()

    def _asked_too_much(self) -> None:
        self._flooded.set()
        self._kill_aside()

    def _kill_aside(self) -> None:
        """End the sandbox from a thread of its own: who notices may be the loop that its end waits for."""
        if self._sandbox is not None:
            threading.Thread(target=self._sandbox.kill, name="end-of-sandbox", daemon=True).start()

    # --- after --------------------------------------------------------------------------------------------

    def _collect(self, view: View, result: SandboxResult, walls: WallsReport, sandbox_ms: float) -> AttemptResult:
        from vestibule.boundary.changes.export import export_workspace

        message = adapter(self.record.agent.adapter).last_message(result.stdout or result.stderr)
        if result.reason == "wall-clock":
            raise AgentFailed(
                f"The agent was stopped after {self.record.budget.minutes} minutes.",
                why="That is the role's limit of wall-clock time.",
                next_step="Make the task smaller, or raise budget.minutes of the role.",
            )
        if result.reason == "quota":
            raise over_quota(self.services.operator.sandbox)
        if self._idle.is_set():
            raise AgentFailed(
                f"The agent was stopped after {self.record.budget.idle_minutes} minutes in which it did nothing.",
                why="It used no processor, wrote no output and asked no gateway for anything.",
                next_step="Look at its transcript; raise or remove budget.idle_minutes of the role if it had to wait.",
            )
        export = export_workspace(self.workspace, view)
        save_export(self.services, self.record, export)
        self._host = self.monitor.agreed(self._host, export, self._written.paths)
        return AttemptResult(
            walls=walls,
            exit_code=result.exit_code,
            message=message,
            own_denials=adapter(self.record.agent.adapter).own_denials(result.stdout),
            dropped=export.dropped,
            down=self._down(),
            labels=self.crossing.labels.current,
            network=self._network_report(),
            host=self._host,
            sandbox_ms=sandbox_ms,
            agent_ms=round(result.wall_ms, 1),
        )

    def _network_report(self) -> EgressReport | None:
        if self.egress is None:
            return None
        return egress_report(self.services, self.record, self.egress, self.monitor.connects)

    def _down(self) -> tuple[Refusal, ...]:
        """Dependencies of the model gateway that were down when the agent asked."""
        met = self._models.refusals if self._models is not None else ()
        return tuple(dict.fromkeys(item for item in met if item.rule.startswith("dependency.")))
