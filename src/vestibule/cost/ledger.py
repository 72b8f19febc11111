"""Budget: durable holds before dispatch, settled from what the provider reported.

Rules it keeps:
1. A hold is one conditional UPDATE over every ceiling that applies (the run's, the day's, the operator's limits): of
   any number of racing requests exactly as many are admitted as fit (CWE-362; check-then-increment is the usual bug).
2. Everything is an integer: nano-USD and tokens. A ceiling that is not set is still counted.
3. A hold leaves the books in one way only: settled from real usage, charged in full when the provider was
   reached but told no usage, or released when the provider was never reached.
4. A hold that a killed process left behind stays held, and is charged in full by `recover`.
5. A run whose ceilings were never opened is refused; a database that cannot answer refuses.
6. What is answered is durable: the answer comes after the commit, which all that waited at that time share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from sqlalchemy import func, select

from vestibule.config.spending import OperatorBudget
from vestibule.core import clock
from vestibule.core.model import Budget, Usage
from vestibule.cost.books import MOST, Books, Close, Hold
from vestibule.cost.ceilings import Ceilings, Standing
from vestibule.cost.writer import Writer
from vestibule.store import tables
from vestibule.store.database import Database

_NOTHING: Mapping[str, Any] = {}
_RELEASED = Usage()


class Ledger:
    """`core.ports.ModelLedger` on the state database. Safe to use from many threads and processes."""

    def __init__(
        self,
        db: Database,
        budget: OperatorBudget | None = None,
        *,
        day_nano_usd: int | None = None,
        now: Callable[[], str] = clock.now,
    ) -> None:
        """`budget` is what the operator allows beyond the runs' own; `day_nano_usd` sets its `usd_per_day`."""
        found = budget or OperatorBudget()
        if day_nano_usd is not None:
            found = found.model_copy(update={"usd_per_day": day_nano_usd})
        self._db = db
        self._budget = found
        self._writer = Writer(Books(db, Ceilings(found), now))

    def open(self, run: str, budget: Budget, *, nano_usd_per_run: int | None = None) -> None:
        """Set the run's ceilings: its budget, tightened by the operator's ceilings per run. What was spent stays."""
        limits = [limit for limit in (budget.nano_usd, nano_usd_per_run, self._budget.usd_per_run) if limit is not None]
        nano_usd, tokens = min(limits) if limits else None, budget.tokens
        requests = self._budget.concurrent.run
        self._writer.submit(lambda books: books.open(run, nano_usd, tokens, requests)).result()

    def hold(
        self, run: str, model: str, *, nano_usd: int, tokens: int, details: Mapping[str, Any] | None = None
    ) -> str:
        """Reserve the most that a request may cost. `details` go into the spend record.

        Raises:
            Refused: `budget.usd`, `budget.tokens`, `budget.concurrent`, `budget.rate`.
            DependencyDown: `database`, or `budget` when the run's ceilings were never opened.
        """
        return self.submit_hold(run, model, nano_usd=nano_usd, tokens=tokens, details=details).result()

    def settle(self, hold: str, usage: Usage, details: Mapping[str, Any] | None = None) -> None:
        """The provider reported this usage. Settling twice changes nothing.

        A number beyond `MOST` counts as `MOST`: no request used that, and sums stay exact.
        """
        self.submit_settle(hold, usage, details).result()

    def charge(self, hold: str) -> None:
        """The provider was reached and reported no usage: the whole hold counts as spent."""
        self.submit_charge(hold).result()

    def release(self, hold: str) -> None:
        """The request never reached a provider."""
        self.submit_release(hold).result()

    def recover(self, run: str) -> int:
        """Charge what a killed process left held; returns how many holds that were.

        Only for a run that nothing works on any more: its gateway is gone.
        """
        return self._writer.submit(lambda books: books.charge_all(run)).result()

    def submit_hold(
        self, run: str, model: str, *, nano_usd: int, tokens: int, details: Mapping[str, Any] | None = None
    ) -> Future[str]:
        if nano_usd < 0 or tokens < 0:
            raise ValueError("a hold is not negative")
        found = details or _NOTHING
        return self._writer.submit(Hold(run, model, nano_usd, tokens, found))

    def submit_settle(self, hold: str, usage: Usage, details: Mapping[str, Any] | None = None) -> Future[None]:
        found = details or _NOTHING
        return self._writer.submit(Close(hold, "settled", usage, found))

    def submit_charge(self, hold: str) -> Future[None]:
        return self._writer.submit(Close(hold, "charged", None, _NOTHING))

    def submit_release(self, hold: str) -> Future[None]:
        return self._writer.submit(Close(hold, "released", _RELEASED, _NOTHING))

    def usage(self, run: str) -> Usage:
        """What the run consumed: settled requests as reported, charged ones at their hold."""
        holds = tables.holds.c
        sums = [
            func.coalesce(func.sum(column), 0)
            for column in (
                holds.input_tokens,
                holds.output_tokens,
                holds.cache_read_tokens,
                holds.cache_write_tokens,
                holds.cost_nano_usd,
            )
        ]
        query = select(func.count(), *sums).where(holds.run == run, holds.state.in_(("settled", "charged")))
        with self._db.read() as connection:
            requests, fresh, output, read, write, cost = (int(value) for value in connection.execute(query).one())
        return Usage(
            requests=requests,
            input_tokens=fresh,
            output_tokens=output,
            cache_read_tokens=read,
            cache_write_tokens=write,
            cost_nano_usd=cost,
        )

    def standings(self) -> dict[str, Standing]:
        """Every ceiling by its key, as it stands now."""
        budgets = tables.budgets.c
        columns = [getattr(budgets, name) for name in Standing._fields]
        with self._db.read() as connection:
            return {row[0]: Standing(*row[1:]) for row in connection.execute(select(budgets.key, *columns))}

    def standing(self, run: str) -> Standing | None:
        """The run's own ceilings; None: they were never opened."""
        budgets = tables.budgets.c
        columns = [getattr(budgets, name) for name in Standing._fields]
        with self._db.read() as connection:
            row = connection.execute(select(*columns).where(budgets.key == f"run:{run}")).one_or_none()
        return None if row is None else Standing(*row)

    def close(self) -> None:
        """What was submitted is written; nothing is taken any more. Idempotent."""
        self._writer.close()


__all__ = ["MOST", "Ledger"]
