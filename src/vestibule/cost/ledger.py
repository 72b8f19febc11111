"""Budget: durable holds before dispatch, settled from what the provider reported.

Rules it keeps:
1. A hold is one conditional UPDATE per ceiling (the run's, the day's) in one writing transaction: of any number
   of racing requests exactly as many are admitted as fit (CWE-362; check-then-increment is the usual bug).
2. Everything is an integer: nano-USD and tokens. A ceiling that is not set is still counted.
3. A hold leaves the books in one way only: settled from real usage, charged in full when the provider was
   reached but told no usage, or released when the provider was never reached.
4. A hold that a killed process left behind stays held, and is charged in full by `recover`.
5. A run whose ceilings were never opened is refused; a database that cannot answer refuses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Connection, and_, bindparam, insert, or_, select, update

from vestibule.core import clock
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.ids import new_id
from vestibule.core.model import Budget, Usage
from vestibule.core.money import format_usd
from vestibule.core.refusal import refusal
from vestibule.store import tables
from vestibule.store.database import Database

MOST = 1 << 50
"""Tokens or nano-USD (1.1 million US dollars) of one request."""

BUDGETS = tables.budgets
HOLDS = tables.holds

# Statements are built once: building them costs more than running them.
_NANO: BindParameter[int] = bindparam("nano_usd", type_=BigInteger)
_TOKENS: BindParameter[int] = bindparam("tokens", type_=BigInteger)
_RESERVE = (
    update(BUDGETS)
    .where(
        and_(
            BUDGETS.c.key == bindparam("of"),
            or_(
                BUDGETS.c.limit_nano_usd.is_(None),
                BUDGETS.c.spent_nano_usd + BUDGETS.c.held_nano_usd + _NANO <= BUDGETS.c.limit_nano_usd,
            ),
            or_(
                BUDGETS.c.limit_tokens.is_(None),
                BUDGETS.c.spent_tokens + BUDGETS.c.held_tokens + _TOKENS <= BUDGETS.c.limit_tokens,
            ),
        )
    )
    .values(held_nano_usd=BUDGETS.c.held_nano_usd + _NANO, held_tokens=BUDGETS.c.held_tokens + _TOKENS)
)
_SET_DAY = update(BUDGETS).where(BUDGETS.c.key == bindparam("of")).values(limit_nano_usd=bindparam("day_limit"))
_INSERT_HOLD = insert(HOLDS)
_FIND_HOLD = select(HOLDS).where(HOLDS.c.id == bindparam("of"))
_CLOSE_HOLD = (
    update(HOLDS)
    .where(HOLDS.c.id == bindparam("of"), HOLDS.c.state == "held")
    .values(state=bindparam("to"), document=bindparam("text"))
)
_MOVE = (
    update(BUDGETS)
    .where(BUDGETS.c.key == bindparam("of"))
    .values(
        held_nano_usd=BUDGETS.c.held_nano_usd - _NANO,
        held_tokens=BUDGETS.c.held_tokens - _TOKENS,
        spent_nano_usd=BUDGETS.c.spent_nano_usd + bindparam("cost"),
        spent_tokens=BUDGETS.c.spent_tokens + bindparam("used"),
    )
)


class Ledger:
    """`core.ports.ModelLedger` on the state database. Safe to use from many threads and processes."""

    def __init__(self, db: Database, *, day_nano_usd: int | None = None, now: Callable[[], str] = clock.now) -> None:
        """`day_nano_usd` is the operator's ceiling of all runs of one UTC day."""
        self._db = db
        self._day_limit = day_nano_usd
        self._now = now
        self._writer = ThreadPoolExecutor(1, "vestibule-ledger")

    def open(self, run: str, budget: Budget, *, nano_usd_per_run: int | None = None) -> None:
        """Set the run's ceilings: its budget, tightened by the operator's ceiling per run. What was spent stays."""
        limits = [limit for limit in (budget.nano_usd, nano_usd_per_run) if limit is not None]
        values = {"limit_nano_usd": min(limits) if limits else None, "limit_tokens": budget.tokens}
        with self._db.write() as connection:
            key = f"run:{run}"
            if connection.execute(update(BUDGETS).where(BUDGETS.c.key == key).values(**values)).rowcount == 0:
                connection.execute(insert(BUDGETS).values(key=key, **values))

    def hold(
        self, run: str, model: str, *, nano_usd: int, tokens: int, details: Mapping[str, Any] | None = None
    ) -> str:
        """Reserve the most that a request may cost. `details` go into the spend record.

        Raises:
            Refused: `budget.usd`, `budget.tokens`.
            DependencyDown: `database`, or `budget` when the run's ceilings were never opened.
        """
        if nano_usd < 0 or tokens < 0:
            raise ValueError("a hold is not negative")
        now = self._now()
        day = now[:10]
        hold = new_id("h")
        with self._db.write() as connection:
            self._ensure_day(connection, day)
            for key in (f"run:{run}", f"day:{day}"):
                _reserve(connection, key, nano_usd, tokens)
            connection.execute(
                _INSERT_HOLD,
                {
                    "id": hold,
                    "run": run,
                    "day": day,
                    "state": "held",
                    "time": now,
                    "model": model[:128],
                    "nano_usd": nano_usd,
                    "tokens": tokens,
                    "document": json.dumps({"details": dict(details or {})}, sort_keys=True),
                },
            )
        return hold

    def settle(self, hold: str, usage: Usage) -> None:
        """The provider reported this usage. Settling twice changes nothing.

        A number beyond `MOST` counts as `MOST`: no request used that, and sums stay exact.
        """
        self._close(hold, "settled", Usage(**{name: min(value, MOST) for name, value in usage.model_dump().items()}))

    def charge(self, hold: str) -> None:
        """The provider was reached and reported no usage: the whole hold counts as spent."""
        self._close(hold, "charged", None)

    def release(self, hold: str) -> None:
        """The request never reached a provider."""
        self._close(hold, "released", Usage())

    def recover(self, run: str) -> int:
        """Charge what a killed process left held; returns how many holds that were.

        Only for a run that nothing works on any more: its gateway is gone.
        """
        with self._db.read() as connection:
            left = list(
                connection.execute(select(HOLDS.c.id).where(HOLDS.c.run == run, HOLDS.c.state == "held")).scalars()
            )
        for hold in left:
            self.charge(hold)
        return len(left)

    def submit_hold(
        self, run: str, model: str, *, nano_usd: int, tokens: int, details: Mapping[str, Any] | None = None
    ) -> Future[str]:
        return self._writer.submit(self.hold, run, model, nano_usd=nano_usd, tokens=tokens, details=details)

    def submit_settle(self, hold: str, usage: Usage, details: Mapping[str, Any] | None = None) -> Future[None]:  # noqa: ARG002
        return self._writer.submit(self.settle, hold, usage)

    def submit_charge(self, hold: str) -> Future[None]:
        return self._writer.submit(self.charge, hold)

    def submit_release(self, hold: str) -> Future[None]:
        return self._writer.submit(self.release, hold)

    def usage(self, run: str) -> Usage:
        """What the run consumed: settled requests as reported, charged ones at their hold."""
        total = Usage()
        query = select(HOLDS.c.document).where(HOLDS.c.run == run, HOLDS.c.state.in_(("settled", "charged")))
        with self._db.read() as connection:
            for document in connection.execute(query).scalars():
                total = total.plus(Usage.model_validate(json.loads(document)["usage"]))
        return total

    def _ensure_day(self, connection: Connection, day: str) -> None:
        key = f"day:{day}"
        done = connection.execute(_SET_DAY, {"of": key, "day_limit": self._day_limit})
        if done.rowcount:
            return
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as upsert

            connection.execute(upsert(BUDGETS).values(key=key, limit_nano_usd=self._day_limit).on_conflict_do_nothing())
        else:
            # SQLite's writing transactions are IMMEDIATE: nobody else can have inserted it meanwhile.
            connection.execute(insert(BUDGETS).values(key=key, limit_nano_usd=self._day_limit))

    def _close(self, hold: str, state: str, usage: Usage | None) -> None:
        with self._db.write() as connection:
            row = connection.execute(_FIND_HOLD, {"of": hold}).one_or_none()
            if row is None:
                raise DependencyDown("budget", "A budget hold is missing from the books.", fact=hold)
            spent = usage or Usage(requests=1, input_tokens=row.tokens, cost_nano_usd=row.nano_usd)
            document = {**json.loads(row.document), "usage": spent.model_dump(mode="json")}
            closed = {"of": hold, "to": state, "text": json.dumps(document, sort_keys=True)}
            done = connection.execute(_CLOSE_HOLD, closed)
            if done.rowcount == 0:
                return
            for key in (f"run:{row.run}", f"day:{row.day}"):
                moved = {"nano_usd": row.nano_usd, "tokens": row.tokens}
                paid = {"cost": spent.cost_nano_usd, "used": spent.budgeted_tokens}
                connection.execute(_MOVE, {"of": key, **moved, **paid})


def _reserve(connection: Connection, key: str, nano_usd: int, tokens: int) -> None:
    done = connection.execute(_RESERVE, {"of": key, "nano_usd": nano_usd, "tokens": tokens})
    if done.rowcount == 1:
        return
    row = connection.execute(select(BUDGETS).where(BUDGETS.c.key == key)).one_or_none()
    if row is None:
        raise DependencyDown("budget", "This run has no budget on the books.", fact=key)
    whose = "the run" if key.startswith("run:") else "the day, over all runs,"
    scope = "run" if key.startswith("run:") else "day"
    if row.limit_nano_usd is not None and row.spent_nano_usd + row.held_nano_usd + nano_usd > row.limit_nano_usd:
        raise Refused(
            refusal(
                "budget.usd",
                f"This request may cost more than the budget of {whose} has left.",
                fact=f"{scope}: {format_usd(row.spent_nano_usd)} spent and {format_usd(row.held_nano_usd)} reserved "
                f"of {format_usd(row.limit_nano_usd)}; this request may cost up to {format_usd(nano_usd)}",
                agent="Finish with what you have, or ask for less: a smaller max_tokens or a shorter conversation.",
                person="Raise the role's budget.usd, or the operator's budget.usd_per_run or usd_per_day.",
            )
        )
    raise Refused(
        refusal(
            "budget.tokens",
            f"This request may use more tokens than the budget of {whose} has left.",
            fact=f"{scope}: {row.spent_tokens} tokens spent and {row.held_tokens} reserved of {row.limit_tokens}; "
            f"this request may use up to {tokens}",
            agent="Finish with what you have, or ask for less: a smaller max_tokens or a shorter conversation.",
            person="Raise the role's budget.tokens.",
        )
    )
