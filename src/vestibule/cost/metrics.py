"""What Prometheus is told: families, and their sums over the ledger's rows, kept up to date by small reads.

Rules it keeps:
1. The ledger is the truth. A process that serves metrics counts nothing itself: it reads, so that the spend of every
   short-lived `vestibule run` is in, and a restart changes no number.
2. Each request is counted once, when its books are closed; a row is read again only while it may still change.
3. Labels are bounded (`exposition.ValueTable`); runs, people and tasks are never labels.

A row's time is taken before it is committed, so rows may appear late: those younger than `SETTLING` are looked at
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from vestibule.core.clock import rfc3339
from vestibule.cost.exposition import OTHER, Histogram, Labels, Metric, ValueTable, written
from vestibule.cost.report import budget_name
from vestibule.cost.spend import KINDS, Spend, read_spends
from vestibule.store import tables
from vestibule.store.database import Database

SETTLING = timedelta(hours=1)
MOST_VALUES: Mapping[str, int] = {
    "agent": 100,
    "agent_version": 1000,
    "model": 200,
    "provider": 50,
    "name": 200,
    "rule": 500,
    "action": 100,
    "scope": 20,
    "state": 50,
}
"""Values of each label; more are `other`."""
MOST_SERIES = 5000
"""Combinations of labels of spend; more are `other` in every label."""
BASELINE_HOURS = 24
DURATION_BOUNDS = (250, 500, 1000, 2500, 5000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000)
FIRST_TOKEN_BOUNDS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 40_000)
"""Milliseconds."""

_BUDGET = ("scope", "window", "name")
_SPENDER = ("agent", "agent_version", "model", "provider")
REQUESTS = Metric(
    "vestibule_llm_requests_total",
    "counter",
    (*_SPENDER, "outcome"),
    0,
    "Model requests whose books are closed: settled at the provider's count, or charged at their hold.",
)
TOKENS = Metric(
    "vestibule_llm_tokens_total",
    "counter",
    (*_SPENDER, "kind"),
    0,
    "Tokens by billed kind; kinds do not overlap. Estimated ones are the holds of requests without a count.",
)
COST = Metric("vestibule_llm_cost_usd_total", "counter", _SPENDER, 9, "What model requests cost, in US dollars.")
DURATION = Metric(
    "vestibule_llm_request_duration_seconds",
    "histogram",
    ("model", "provider"),
    3,
    "From dispatch until the provider had told its count of tokens.",
)
FIRST_TOKEN = Metric(
    "vestibule_llm_time_to_first_token_seconds",
    "histogram",
    ("model", "provider"),
    3,
    "From dispatch until the first byte of a streamed answer went to the agent.",
)
OPEN = Metric("vestibule_llm_requests_held", "gauge", (), 0, "Requests under way, or left behind by a killed process.")
HELD = Metric(
    "vestibule_llm_budget_held_usd",
    "gauge",
    _BUDGET,
    9,
    "Reserved for requests that are not settled.",
)
SPENT = Metric("vestibule_llm_budget_spent_usd", "gauge", _BUDGET, 9, "Spent within a budget.")
LIMIT = Metric("vestibule_llm_budget_limit_usd", "gauge", _BUDGET, 9, "A budget's ceiling; none, no sample.")
BASELINE = Metric(
    "vestibule_cost_baseline_usd_per_hour",
    "gauge",
    ("agent",),
    9,
    "Mean spend per hour over the 24 complete hours before this one.",
)
GUARDRAILS = Metric(
    "vestibule_guardrail_decisions_total",
    "counter",
    ("rule", "decision"),
    0,
    "Decisions on agents' model requests and tool calls, by their first reason.",
)
DECISIONS = Metric(
    "vestibule_decisions_total",
    "counter",
    ("action", "decision"),
    0,
    "Decisions on whatever agents wanted to do, at every crossing.",
)
RUNS = Metric("vestibule_runs", "gauge", ("state",), 0, "Runs by state.")
FOLDED = Metric(
    "vestibule_metrics_folded_values",
    "gauge",
    ("label",),
    0,
    "Values of a label (all: of all labels of spend together) that found no room and are counted as other.",
)
METRICS: tuple[Metric, ...] = (
    REQUESTS,
    TOKENS,
    COST,
    DURATION,
    FIRST_TOKEN,
    OPEN,
    HELD,
    SPENT,
    LIMIT,
    BASELINE,
    GUARDRAILS,
    DECISIONS,
    RUNS,
    FOLDED,
)
MODEL_ACTIONS = frozenset(("model.request", "model.tool_call"))

Decision = tuple[str, str, str, int]
"""Action, verdict, first reason (may be empty), how many."""


class SpendSums:
    """Sums over closed requests, and what is still held. Not for several threads at once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._tables = {name: ValueTable(most) for name, most in MOST_VALUES.items()}
        self._since = ""
        self._seen: dict[str, str] = {}
        """Requests at or after `_since` that were looked at: id → time."""
        self.open: dict[str, int] = {}
        """Requests whose books are open: id → nano-USD held."""
        self._hours: dict[tuple[str, str], int] = {}
        """(agent, hour such as `2026-01-02T03`) → nano-USD, of the last day."""
        self._series = ValueTable(MOST_SERIES)
        self.requests: dict[Labels, int] = {}
        self.tokens: dict[Labels, int] = {}
        self.cost: dict[Labels, int] = {}
        self.durations: dict[Labels, Histogram] = {}
        self.first_tokens: dict[Labels, Histogram] = {}

    def label(self, name: str, value: str) -> str:
        """`value` as the label `name` may take it."""
        return self._tables[name](value)

    def advance(self, now: datetime) -> None:
        """Take in what was closed since the last call.

        Raises:
            DependencyDown: `database`.
        """
        if self.open:
            still: dict[str, int] = {}
            for spend in read_spends(self._db, ids=self.open):
                if spend.state == "held":
                    still[spend.id] = spend.held_nano_usd
                else:
                    self._add(spend)
            self.open = still
        for spend in read_spends(self._db, since=self._since, but=self._seen):
            self._seen[spend.id] = spend.time
            if spend.state == "held":
                self.open[spend.id] = spend.held_nano_usd
            else:
                self._add(spend)
        self._since = max(self._since, rfc3339(now - SETTLING))
        self._seen = {name: time for name, time in self._seen.items() if time >= self._since}
        first = rfc3339(now - timedelta(hours=BASELINE_HOURS + 1))[:13]
        self._hours = {key: nano for key, nano in self._hours.items() if key[1] >= first}

    def baselines(self, now: datetime) -> dict[Labels, int]:
        """Agent → nano-USD per hour over the last complete 24 hours, rounded down."""
        first, this = rfc3339(now - timedelta(hours=BASELINE_HOURS))[:13], rfc3339(now)[:13]
        sums: dict[Labels, int] = {}
        for (agent, hour), nano in self._hours.items():
            if first <= hour < this:
                sums[agent,] = sums.get((agent,), 0) + nano
        return {key: nano // BASELINE_HOURS for key, nano in sums.items()}

    def folded(self) -> dict[Labels, int]:
        found: dict[Labels, int] = {(name,): table.folded for name, table in self._tables.items()}
        found["all",] = self._series.folded
        return found

    def _add(self, spend: Spend) -> None:
        named = tuple(
            self.label(name, value)
            for name, value in zip(
                _SPENDER, (spend.agent, spend.agent_version, spend.model, spend.provider), strict=True
            )
        )
        if self._series("\x1f".join(named)) == OTHER:
            named = (OTHER,) * len(_SPENDER)
        _count(self.requests, (*named, spend.state), spend.usage.requests)
        _count(self.cost, named, spend.usage.cost_nano_usd)
        for kind, number in zip(KINDS, spend.tokens, strict=True):
            if number:
                _count(self.tokens, (*named, kind), number)
        hour = (named[0], spend.time[:13])
        self._hours[hour] = self._hours.get(hour, 0) + spend.usage.cost_nano_usd
        if spend.milliseconds is not None:
            self.durations.setdefault(named[2:], Histogram(DURATION_BOUNDS)).add(spend.milliseconds)
        if spend.first_byte_ms is not None:
            self.first_tokens.setdefault(named[2:], Histogram(FIRST_TOKEN_BOUNDS)).add(spend.first_byte_ms)


class Metrics:
    """The page that a scrape gets. One call at a time.

    `decisions` returns what was decided since its last call; its caller owns the log.
    """

    def __init__(
        self,
        db: Database,
        decisions: Callable[[], Iterable[Decision]] = tuple,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._db = db
        self._now = now
        self._read_decisions = decisions
        self._sums = SpendSums(db)
        self._guardrails: dict[Labels, int] = {}
        self._decisions: dict[Labels, int] = {}

    def page(self) -> str:
        """All families, in Prometheus' text format.

        Raises:
            DependencyDown: `database`, `audit`.
        """
        now, sums = self._now(), self._sums
        sums.advance(now)
        for action, verdict, reason, number in self._read_decisions():
            _count(self._decisions, (sums.label("action", action), verdict), number)
            if action in MODEL_ACTIONS:
                _count(self._guardrails, (sums.label("rule", reason or action), verdict), number)
        held, spent, limits = self._budgets(now)
        return written(
            (
                (REQUESTS, sums.requests),
                (TOKENS, sums.tokens),
                (COST, sums.cost),
                (DURATION, sums.durations),
                (FIRST_TOKEN, sums.first_tokens),
                (OPEN, {(): len(sums.open)}),
                (HELD, held),
                (SPENT, spent),
                (LIMIT, limits),
                (BASELINE, sums.baselines(now)),
                (GUARDRAILS, self._guardrails),
                (DECISIONS, self._decisions),
                (RUNS, self._runs()),
                (FOLDED, sums.folded()),
            )
        )

    def _budgets(self, now: datetime) -> tuple[dict[Labels, int], dict[Labels, int], dict[Labels, int]]:
        """Held, spent, limits. All runs are one sum, without a limit of its own; of windows the present one is told."""
        every = ("run", "total", "all")
        held: dict[Labels, int] = {}
        spent: dict[Labels, int] = {}
        limits: dict[Labels, int] = {}
        budgets = tables.budgets
        runs = budgets.c.key.like("run:%")
        with self._db.read() as connection:
            total = select(func.sum(budgets.c.held_nano_usd), func.sum(budgets.c.spent_nano_usd)).where(runs)
            for held_sum, spent_sum in connection.execute(total):
                held[every], spent[every] = int(held_sum or 0), int(spent_sum or 0)
            for row in connection.execute(select(budgets).where(~runs)):
                named = budget_name(row.key, row.name, rfc3339(now))
                if named is None:
                    continue
                key = (self._sums.label("scope", named.scope), named.window, self._sums.label("name", named.name))
                _count(held, key, row.held_nano_usd)
                _count(spent, key, row.spent_nano_usd)
                if row.limit_nano_usd is not None:
                    limits[key] = min(row.limit_nano_usd, limits.get(key, row.limit_nano_usd))
        return held, spent, limits

    def _runs(self) -> dict[Labels, int]:
        found: dict[Labels, int] = {}
        with self._db.read() as connection:
            for state, number in connection.execute(
                select(tables.runs.c.state, func.count()).group_by(tables.runs.c.state)
            ):
                _count(found, (self._sums.label("state", state),), number)
        return found


def _count(sums: dict[Labels, int], key: Labels, number: int) -> None:
    sums[key] = sums.get(key, 0) + number


__all__ = ["METRICS", "Decision", "Metrics", "SpendSums"]
