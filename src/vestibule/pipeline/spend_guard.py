"""Spend of a run's agent version, looked at after every settlement while the agent works.

Rules it keeps:
1. A settlement is durable before anything is judged by it, and nothing of the gateway waits for the judgement: it
   happens in a thread of its own; settlements that come meanwhile are judged together by the next look.
2. A watch that fails ends the attempt: spend that nobody can judge is not spent.
3. With `spend.pause_running` the requests of a paused version are refused from the next look on; without it a run that
   is under way ends its round.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from vestibule.core.errors import DependencyDown, Refused, VestibuleError
from vestibule.core.model import Usage
from vestibule.core.refusal import refusal
from vestibule.pipeline.pause import PauseBook
from vestibule.pipeline.pause_rules import Standing

if TYPE_CHECKING:
    from vestibule.core.ports import ModelLedger
    from vestibule.pipeline.record import RunRecord
    from vestibule.pipeline.services import Services

STOP_SECONDS = 15.0
MAX_REST_SECONDS = 10.0


class SpendGuard:
    """`core.ports.ModelLedger` around the ledger. `failed` is called from a thread of ours."""

    def __init__(self, services: Services, record: RunRecord, failed: Callable[[Refused], None]) -> None:
        self._services = services
        self._record = record
        self._ledger: ModelLedger = services.ledger
        self._failed = failed
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._paused: Standing | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="spend", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Every settlement so far is judged when this returns. Idempotent."""
        self._stopping.set()
        self._settled.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    # --- the ledger ---------------------------------------------------------------------------------------

    def submit_hold(
        self, run: str, model: str, *, nano_usd: int, tokens: int, details: Mapping[str, Any] | None = None
    ) -> Future[str]:
        standing = self._paused
        if standing is not None and self._services.operator.spend.pause_running:
            refused: Future[str] = Future()
            refused.set_exception(Refused(_refusal(standing)))
            return refused
        return self._ledger.submit_hold(run, model, nano_usd=nano_usd, tokens=tokens, details=details)

    def submit_settle(self, hold: str, usage: Usage, details: Mapping[str, Any] | None = None) -> Future[None]:
        return self._then(self._ledger.submit_settle(hold, usage, details))

    def submit_charge(self, hold: str) -> Future[None]:
        return self._then(self._ledger.submit_charge(hold))

    def submit_release(self, hold: str) -> Future[None]:
        return self._ledger.submit_release(hold)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def _then(self, future: Future[None]) -> Future[None]:
        future.add_done_callback(lambda _: self._settled.set())
        return future

    # --- the thread ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        book = PauseBook(self._services)
        agent = self._record.agent
        try:
            while True:
                self._settled.wait()
                last = self._stopping.is_set()
                self._settled.clear()
                started = time.monotonic()
                standing = book.look(agent.name, agent.version)
                self._paused = standing if standing.paused else None
                if last:
                    return
                # A look at a large fleet's sums takes a while: it never takes more than a tenth of the time.
                self._stopping.wait(min(MAX_REST_SECONDS, 9 * (time.monotonic() - started)))
        except Refused as error:
            self._failed(error)
        except VestibuleError as error:
            self._failed(_broken(error.what))
        except Exception as error:  # noqa: BLE001 - fails closed, whatever it was
            with contextlib.suppress(Exception):
                self._failed(_broken(type(error).__name__))


def _broken(fact: str) -> DependencyDown:
    return DependencyDown("spend_watch", "What the agent version spends cannot be watched.", fact=fact)


def _refusal(standing: Standing) -> Any:
    return refusal(
        "model.agent_paused",
        "New work of this agent version is paused, and the operator lets running runs ask for nothing more.",
        fact=standing.version,
        agent="Stop here; what you have done so far is kept.",
        person="See `vestibule agents paused`; `vestibule agents release VERSION --reason …` undoes it.",
    )
