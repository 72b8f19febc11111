"""Answers that arrive while the agent works: noticed, believed, and put into effect without ending anything.

Rules it keeps:
1. A grant is believed only by the evidence (`questions`); one that the evidence does not bear out ends the attempt.
2. Order: the labels of what will be shown join the run's; the grant is durable in the log and in the run's row; the
   files appear; the gateway shows them; and only then is the agent told.
3. The rows are looked at once a second, and only while something that was asked is open.
4. Native programs of the sandbox get no new writable mount: a grant to write holds for the tools at once, for programs
   from the next round on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from vestibule.core.crossing import Crossing
from vestibule.core.errors import DependencyDown, Refused, VestibuleError
from vestibule.core.labels import label_of_all
from vestibule.core.model import Question, Scope
from vestibule.core.view import View
from vestibule.git import Git, GitError
from vestibule.pipeline.questions import doubtful, grant, granted_by, in_scope, pending, problem_of, terms_of
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services
from vestibule.review.run_questions import POLL_SECONDS, RunQuestions


class Widens(Protocol):
    """What shows an agent its files."""

    def widen(self, scope: Scope, view: View) -> None: ...


class LiveScope:
    """Watches the questions of one attempt. `failed` is called, from a thread of ours, when a grant cannot be kept."""

    def __init__(
        self,
        services: Services,
        record: RunRecord,
        crossing: Crossing,
        failed: Callable[[Refused], None],
    ) -> None:
        self._services = services
        self._record = record
        self._crossing = crossing
        self._failed = failed
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._believed: set[str] = set()
        self._applied: set[str] = set()
        self._context: Widens | None = None
        self._source: Git | None = None
        self._workspace = Path()
        self.view: View | None = None
        """The view as it stands now, for the export."""
        self.questions = RunQuestions(
            services.questions,
            crossing,
            services.actor(record, "agent"),
            round=record.round,
            terms=terms_of(services, record),
            stands=self._stands,
        )

    @property
    def scope(self) -> Scope:
        """The run's scope with everything that was granted and shown so far."""
        return self._record.scope

    def start(self, context: Widens, source: Git, workspace: Path, view: View) -> None:
        """Begin to look out. Grants of earlier rounds are in the view already."""
        self._context, self._source, self._workspace, self.view = context, source, workspace, view
        if self._services.questions.of_run(self._record.id):
            self.questions.asked.set()
        self._thread = threading.Thread(target=self._watch, name="questions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nothing is put into effect any more when this returns, and nobody waits. Idempotent."""
        self._stop.set()
        self.questions.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        asked = self.questions.asked
        try:
            while not self._stop.is_set():
                asked.wait()
                asked.clear()
                while not self._stop.is_set() and self._look():
                    self._stop.wait(POLL_SECONDS)
        except Refused as error:
            self._failed(error)
        except VestibuleError as error:
            # A signature that does not hold: somebody else wrote to the database.
            self._failed(doubtful(self._record.id, error.what))
        except (OSError, GitError) as error:
            self._failed(DependencyDown("workspace", "What was granted could not be shown.", fact=type(error).__name__))
        except Exception as error:  # noqa: BLE001 - fails closed, whatever it was
            self._failed(DependencyDown("questions", "Answers cannot be looked out for.", fact=type(error).__name__))

    def _look(self) -> bool:
        """Puts new grants into effect; whether something is still open."""
        book = self._services.questions
        found = book.of_run(self._record.id)
        if any(item.state == "open" for item in found):
            book.expire()
        for question in found:
            if question.kind == "scope" and question.state == "granted" and question.id not in self._applied:
                self._apply(question)
        self.questions.nudge()
        return bool(pending(found))

    def _apply(self, question: Question) -> None:
        from vestibule.sandbox.view import extend, project

        self._believe(question)
        with self._lock:
            if self._stop.is_set() or self.view is None or self._context is None or self._source is None:
                return
            if not in_scope(self._record.scope, question):
                # From what the attempt began with: the row may say anything by now.
                wider = _widened(self._record.scope, question)
                known = {file.path for file in self.view.files}
                fresh = [file.path for file in project(self._source, self.view.base_commit, wider).files]
                self._crossing.labels.join(label_of_all((path for path in fresh if path not in known), wider.labels))
                grant(self._services, self._crossing, self._record, question)
                uid = self._services.sandbox.workspace_uid(self._record.id)
                self.view = extend(self._source, self.view, wider, self._workspace, uid=uid)
                self._record = self._record.model_copy(update={"scope": wider})
                self._context.widen(wider, self.view)
            self._applied.add(question.id)

    # --- what the agent is told ---------------------------------------------------------------------------

    def _stands(self, question: Question) -> bool:
        """Whether a granted question is told as granted: for paths once they are shown, for a call once believed."""
        if question.kind == "scope":
            return question.id in self._applied
        try:
            self._believe(question)
        except Refused as error:
            self._failed(error)
            return False
        return True

    def _believe(self, question: Question) -> None:
        if question.id in self._believed:
            return
        if problem := problem_of(self._services, self._record, question):
            raise doubtful(question.id, problem)
        self._believed.add(question.id)


def _widened(scope: Scope, question: Question) -> Scope:
    read, write = granted_by(question)
    return scope.model_copy(
        update={
            "granted_read": tuple(dict.fromkeys((*scope.granted_read, *read))),
            "granted_write": tuple(dict.fromkeys((*scope.granted_write, *write))),
        }
    )
