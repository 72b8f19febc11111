"""The durable engine: named segments of named steps that survive `kill -9`.

Rules it keeps:
1. A step that finished is never run again: its result is durable before the next step starts.
2. A step in flight when the process died runs again: every effect in it is idempotent or has a key.
3. The same key starts one segment, however often it is asked for.
4. One process hosts a run at a time (`lease.py`); each run has its engine file, so recovery of one run never
   touches another and an ended segment leaves nothing behind. A process may host one run after another: launching
   ends the former engine, and is refused while that one works.
5. The file is data: JSON in, JSON out. Nothing in it is ever loaded as code (`serial`).

DBOS core does the work (docs/adr/0002); nothing outside this file knows it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vestibule.core.errors import DependencyDown, VestibuleError, decode_error, encode_error
from vestibule.core.text.sanitize import one_line
from vestibule.git import GitError

if TYPE_CHECKING:
    from sqlalchemy import ExceptionContext

APPLICATION_VERSION = "segments-1"
"""Raised only when a segment changes shape; an upgrade of anything else never strands a run."""

EXECUTOR_THREADS = 8

Json = Any
Step = Callable[[], Json]
Segment = Callable[["Steps", str], Json]


class Steps:
    """What a segment may do: run a named step once."""

    def run(self, name: str, step: Step) -> Json:
        """The step's result (plain JSON), from the record when it ran before.

        Raises:
            VestibuleError: what the step raised, now or before; it is not run again.
        """
        from dbos import DBOS

        return _open(DBOS.run_step({"name": name}, lambda: _sealed(step)))


class Engine:
    """The engine of one run, in this process."""

    def __init__(self, folder: Path, run: str, segments: dict[str, Segment]) -> None:
        self.run_id = run
        self.path = folder / "engine.db"
        self.segments = segments
        self._launch()

    def _launch(self) -> None:
        from dbos import DBOS, DBOSConfig
        from sqlalchemy import event
        from sqlalchemy.exc import SQLAlchemyError

        from vestibule.pipeline.serial import check_file, refuse_pickles
        from vestibule.store.database import make_engine

        _workflow.clear()
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        url = f"sqlite:///{self.path}"
        database = make_engine(url, synchronous="FULL", immediate=False)
        event.listen(database, "handle_error", _end_waiting)
        try:
            check_file(database, self.run_id, APPLICATION_VERSION, self.segments)
            # Recovered segments start as soon as DBOS launches: the table must stand before.
            _workflow.table = self
            DBOS(
                config=DBOSConfig(
                    name="vestibule",
                    system_database_url=url,
                    system_database_engine=database,
                    serializer=refuse_pickles(),
                    application_version=APPLICATION_VERSION,
                    executor_id=self.run_id,
                    max_executor_threads=EXECUTOR_THREADS,
                    log_level="CRITICAL",
                    console_log_level="CRITICAL",
                    enable_otlp=False,
                )
            )
            _workflow.register()
            DBOS.launch()
        except (SQLAlchemyError, OSError) as error:
            _workflow.clear()
            raise _engine_down(error) from error
        except DependencyDown:
            _workflow.clear()
            raise

    def perform(self, segment: str, key: str) -> Json:
        """Run a segment to its end (or join the one that this key started) and return its result.

        Raises:
            VestibuleError: what a step raised; the segment has ended then and may be started under a new key.
        """
        from dbos import DBOS, SetWorkflowID

        if segment not in self.segments:
            raise KeyError(segment)
        with _workflow.working(self):
            with SetWorkflowID(f"{self.run_id}:{key}"):
                handle = DBOS.start_workflow(_workflow.function(), segment, self.run_id)
            return _open(handle.get_result())

    def close(self) -> None:
        """Forget the run's engine file once nothing in it is pending. Threads end with the process."""
        forget(self.path.parent)

    def _dispatch(self, segment: str, run: str) -> Json:
        return _sealed(lambda: self.segments[segment](Steps(), run))


def forget(folder: Path) -> None:
    """Leave nothing of a run's engine file: whatever was pending in it is over."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{folder / 'engine.db'}{suffix}").unlink(missing_ok=True)


class _Workflow:
    """DBOS registers workflows by name once per process; this holds the one and the table it dispatches to."""

    table: Engine | None = None
    _function: Callable[[str, str], Json] | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0

    @contextmanager
    def working(self, engine: Engine) -> Iterator[None]:
        """Marks the process as working on the engine's run; a former engine, ended by a later one, is refused."""
        with self._lock:
            if self.table is not engine:
                raise DependencyDown("engine", f"The engine of run {engine.run_id} was ended by a later one.")
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def clear(self) -> None:
        """End what a former engine of this process left running; what is registered stays."""
        from dbos import DBOS

        with self._lock:
            if self._busy and self.table is not None:
                raise DependencyDown("engine", f"This process is still working on run {self.table.run_id}.")
            if self.table is not None:
                DBOS.destroy()
                self.table = None

    def register(self) -> None:
        from dbos import DBOS

        if self._function is None:

            @DBOS.workflow(name="segment", max_recovery_attempts=100)
            def segment(name: str, run: str) -> Json:
                if self.table is None:
                    raise RuntimeError("the engine is not launched")
                return self.table._dispatch(name, run)

            self._function = segment

    def function(self) -> Callable[[str, str], Json]:
        if self._function is None:
            raise RuntimeError("the engine is not launched")
        return self._function


_workflow = _Workflow()


def _engine_down(error: Exception) -> DependencyDown:
    fact = str(getattr(error, "orig", None) or error)[:300]
    return DependencyDown("engine", "The engine's file cannot be used.", fact=fact)


def _end_waiting(context: ExceptionContext) -> None:
    """DBOS waits for a locked file without end; the file's own busy time has passed when this is called."""
    code = getattr(context.original_exception, "sqlite_errorname", "")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        raise DependencyDown(
            "engine",
            "The engine's file is held by another program.",
            fact=code,
            person="Find out what holds it, stop that, then go on with `vestibule resume RUN`.",
        )


def _sealed(call: Step) -> Json:
    """The result or the error for people, as JSON: what is recorded must survive this process."""
    try:
        return {"ok": json.loads(json.dumps(call()))}
    except VestibuleError as error:
        return {"error": encode_error(error)}
    except (OSError, GitError) as error:
        return {"error": encode_error(_machine_down(error))}


def _machine_down(error: OSError | GitError) -> DependencyDown:
    """A full disk, a folder that is gone, too many open files: the machine's, not a bug of ours."""
    if isinstance(error, GitError):
        words = one_line(error.stderr.strip(), 300)
        return DependencyDown(
            "git", "git could not do what the run needs.", fact=words, person="Look at git's message; a full disk?"
        )
    fact = ": ".join(str(part) for part in (error.strerror or type(error).__name__, error.filename) if part)
    return DependencyDown(
        "machine",
        "The machine refused something that the run needs.",
        fact=one_line(fact, 300),
        person="Make room or repair what is named here, then run the ticket again.",
    )


def _open(sealed: Json) -> Json:
    if "error" in sealed:
        raise decode_error(sealed["error"])
    return sealed["ok"]
