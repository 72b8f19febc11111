"""The runtime monitor of one attempt: which sandboxes it watches, what follows from a match, what is kept of it.

Rules it keeps:
1. Where a monitor stood when the attempt began, every sandbox of the attempt is watched before its program starts;
   where it dies, falls silent or loses an event, the attempt ends as refused (`dependency.monitor`).
2. Each match is decided by policy and durable in the log before anything follows from it; a deny ends the sandbox,
   a hold holds the change, and either way people are told. A match that cannot be decided or recorded ends it too.
3. The events themselves are kept in a file of the run (0600, bounded); their digest and number are in the log.
4. A changed file that nobody was seen to write holds the change.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from vestibule.boundary.host.report import MAX_PROGRAMS, HostReport, Seen, held, unexplained
from vestibule.core.crossing import Crossing, first_refusal
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Event, Finding, Receipt, Wall, WallsReport
from vestibule.core.ports import AuditSink, KernelConnect, RunningSandbox
from vestibule.core.text.sanitize import one_line
from vestibule.core.verdict import Ruling

if TYPE_CHECKING:
    from vestibule.boundary.host.monitor import Monitor, Watch
    from vestibule.boundary.host.rules import Match
    from vestibule.boundary.host.seen import Standing, Summary
    from vestibule.core.view import Export
    from vestibule.pipeline.record import RunRecord
    from vestibule.pipeline.services import Services

WRITABLE = ("/workspace", "/tmp", "/home/agent", "/dev/shm")  # noqa: S108 - as seen inside


_here: tuple[int, Monitor] | None = None
_making = threading.Lock()


def monitor_here() -> Monitor:
    """The monitor of this process, made when it is first asked for, and anew when the last one died."""
    from vestibule.boundary.host.behaviours import shipped
    from vestibule.boundary.host.monitor import Monitor
    from vestibule.sandbox.local.limits import v2_folder

    global _here  # noqa: PLW0603 - one for the process, as its ring and programs are
    with _making:
        if _here is None or _here[0] != os.getpid() or _here[1].broken:
            _here = (os.getpid(), Monitor(lambda: shipped().as_data(), v2_folder))
        return _here[1]


def with_monitor(report: WallsReport, standing: Standing) -> WallsReport:
    """The walls of a sandbox, and those that the monitor adds."""
    refused = "connect and sendto from a watched group to 192.0.2.1 and 2001:db8::1: refused; loopback reached"
    added = {
        "monitor": Wall(
            state="up" if standing.up else "down",
            proved_by=f"rung {standing.rung}: {standing.proved_by}",
        ),
        "cgroup_egress": Wall(
            state="up" if standing.whole else "down",
            proved_by=refused if standing.whole else f"no address programs: {standing.proved_by}",
        ),
    }
    return report.model_copy(update={"walls": {**report.walls, **added}})


class WritesSeen:
    """An `AuditSink` that remembers which files our own tools were allowed to write."""

    def __init__(self, sink: AuditSink) -> None:
        self._sink = sink
        self.paths: set[str] = set()

    def submit(self, event: Event) -> Future[Receipt]:
        if event.action == "context.write" and event.phase == "intent" and event.verdict is Ruling.ALLOW:
            self.paths.add(event.resource)
        return self._sink.submit(event)


class HostMonitor:
    """One attempt's. `trouble` is called, from another thread, with what must end the attempt."""

    def __init__(
        self,
        services: Services,
        record: RunRecord,
        crossing: Crossing,
        trouble: Callable[[Refused], None],
        *,
        name: str = "",
        writable: tuple[str, ...] = (),
    ) -> None:
        """`name` tells several of one run apart; by default it is the attempt's. `writable` joins `WRITABLE`."""
        self._writable = (*WRITABLE, *writable)
        self._name = name or f"{record.round}-{record.attempt}"
        self._services = services
        self._record = record
        self._crossing = crossing
        self._trouble = trouble
        self._watch: Watch | None = None
        self._file = ""
        self._summary: Summary | None = None
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._held: list[Finding] = []
        self._standing: Standing | None = None
        self._ending = False

    # --- watching -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the watch, where a monitor stands. Raises DependencyDown: `monitor`."""
        monitor = self._services.monitor
        self._standing = monitor.standing()
        if not self._standing.up:
            return
        self._file = f"events-{self._name}.bin"
        path = self._services.folder(self._record.id) / self._file
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            key = f"{self._record.id}-{self._name}"
            self._watch = monitor.watch(
                key, writable=self._writable, file=file, on_match=self._matched, on_down=self._down
            )
        finally:
            os.close(file)

    def watch(self, sandbox: RunningSandbox) -> Callable[[], None]:
        """Watch a sandbox whose program has not started. What it gives is called when every process of it is dead.

        Raises DependencyDown: `monitor`.
        """
        if self._watch is None:
            return lambda: None
        group, inside = sandbox.place
        if group is None and self._standing is not None and self._standing.whole:
            raise DependencyDown("monitor", "This sandbox has no control group, so it cannot be watched.")
        watched = self._watch.add(group, inside)

        def ended() -> None:
            if self._watch is None or self._ending or self._watch.down:
                return  # the whole watch is closed, and this with it
            try:
                self._watch.drop(watched)
            except DependencyDown:
                if not self._ending:
                    raise

        return ended

    def finish(self) -> HostReport:
        """When every process is dead: all of it. Raises DependencyDown: `monitor`."""
        if self._standing is None or self._watch is None:
            why = self._standing.proved_by if self._standing else "it was not asked for"
            return HostReport(rung="none", why=why[:300])
        with self._lock:
            self._ending = True
        summary = self._summary = self._watch.close()
        if self._watch.down:
            raise _dead(self._watch.down)
        with self._lock:
            programs = summary.programs[:MAX_PROGRAMS]
            return HostReport(
                rung=self._standing.rung,
                why=self._standing.proved_by[:300],
                events=summary.count,
                lost=summary.drops,
                sha256=summary.sha256,
                file=self._file,
                cut=summary.cut,
                programs=programs,
                matches=tuple(self._seen),
                alarms=tuple(self._held),
            )

    def abandon(self) -> None:
        """However the attempt ended, nothing stays watched. Idempotent; never raises."""
        if self._watch is not None and self._summary is None:
            with contextlib.suppress(DependencyDown):
                self._summary = self._watch.close()

    @property
    def connects(self) -> tuple[KernelConnect, ...] | None:
        """What the kernel saw the sandboxes connect to; None where nobody looked."""
        whole = self._standing is not None and self._standing.whole
        return self._summary.connects if self._summary is not None and whole else None

    def agreed(self, report: HostReport, export: Export, gateway: Iterable[str]) -> HostReport:
        """The report, and what the patch holds that nobody was seen to write, in the log as well.

        Raises DependencyDown: `audit`.
        """
        if self._summary is None or self._standing is None or not self._standing.whole:
            return report
        changed = ((item.path, item.status) for item in export.files)
        found = unexplained(changed, self._summary, gateway)
        for item in found:
            self._services.note(
                self._record,
                "host.open",
                item.place.path if item.place else self._record.id,
                verdict=Ruling.HOLD,
                reasons=(item.rule,),
            )
        return report.model_copy(update={"alarms": (*report.alarms, *found)})

    # --- what is told from the monitor's thread -----------------------------------------------------------

    def _matched(self, match: Match) -> None:
        from vestibule.boundary.host.behaviours import WORDS, shipped

        actor = self._services.actor(self._record, "agent")
        known = shipped().of(match.behaviour)
        words = known.what if known else WORDS.get(match.behaviour, "")
        what = one_line(match.what, 300)
        resource = {"id": what, "behaviour": match.behaviour, "program": one_line(match.program, 300)}
        facts = {
            "known": bool(words),
            "severity": match.severity,
            "sound": self._watch is not None and not self._watch.down,
        }
        crossing = self._crossing
        verdict, digest = crossing.safely(actor, match.action, resource, facts)
        details = {"behaviour": match.behaviour, "program": resource["program"], "pid": match.pid, "cut": match.cut}
        intent = crossing.intent(actor, match.action, what, verdict, input_digest=digest, details=details)
        receipt = crossing.record(intent)
        rule = verdict.reasons[0] if verdict.reasons else ""
        seen = Seen(
            behaviour=match.behaviour,
            action=match.action,
            verdict=verdict.ruling.value,
            rule=rule,
            program=resource["program"],
            what=what,
        )
        with self._lock:
            self._seen.append(seen)
            if verdict.ruling is Ruling.HOLD:
                self._held.append(held(seen, words))
        if verdict.ruling is Ruling.ALLOW:
            crossing.record(crossing.outcome(intent, receipt, ok=True))
        if match.severity != "notice" or verdict.ruling is not Ruling.ALLOW:
            self._services.say(f"Monitor: {words} ({resource['program']}: {what})")
        if verdict.ruling is Ruling.DENY:
            self._trouble(Refused(first_refusal(verdict, match.action, what)))

    def _down(self, why: str) -> None:
        self._trouble(_dead(why))


def host_findings(record: RunRecord) -> tuple[Finding, ...]:
    """What a reviewer has to know of what the monitor saw; each of them holds the change."""
    return record.host.alarms if record.host is not None else ()


def _dead(why: str) -> DependencyDown:
    return DependencyDown(
        "monitor",
        "The runtime monitor ended or lost events while it watched, so what ran under it is not taken over.",
        fact=why,
        person="Start the run again; `vestibule doctor` says whether the monitor stands.",
    )
