"""One internal record of a model request's spend, as metrics, exports and reconciliation read it from the ledger.

Rules it keeps:
1. The ledger's rows are the truth: nothing here counts on its own, and nothing is rounded.
2. Reading keeps no request waiting for the books.
3. A request that was charged at its hold has no tokens that anyone counted; they are told apart (`estimated`).
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, select

from vestibule.core.model import Usage
from vestibule.store import tables
from vestibule.store.database import Database

HOLDS = tables.holds
_NEEDED = tuple(HOLDS.c[name] for name in ("id", "run", "time", "state", "model", "nano_usd", "document"))
KINDS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "estimated")
"""Kinds of tokens; they do not overlap. `estimated`: the hold of a request whose provider told no usage."""
MAX_WORD = 200
UNKNOWN = "unknown"


class Spend(NamedTuple):
    """One request: whose it was, what it used and cost. Money in nano-USD, times in milliseconds where known."""

    id: str
    run: str
    time: str
    """When it was reserved: RFC 3339, UTC."""
    state: str
    """`held`, `settled` or `charged`."""
    agent: str
    agent_version: str
    role: str
    repository: str
    provider: str
    model: str
    """As its provider knows it."""
    asked: str
    """As the task names it."""
    prices: str
    usage: Usage
    tokens: tuple[int, int, int, int, int, int]
    """In the order of `KINDS`."""
    held_nano_usd: int
    milliseconds: int | None
    first_byte_ms: int | None

    @property
    def day(self) -> str:
        return self.time[:10]


def spend_of(row: Row[Any]) -> Spend:
    """The record in a row of `holds`."""
    document: Mapping[str, Any] = json.loads(row.document)
    details: Mapping[str, Any] = document.get("details") or {}
    # The ledger wrote it: checking it again would be most of the work.
    usage = Usage.model_construct(**document["usage"]) if "usage" in document else Usage()
    hour = min(_count(details.get("cache_write_1h_tokens")) or 0, usage.cache_write_tokens)
    if row.state == "charged":
        tokens = (0, 0, 0, 0, 0, usage.input_tokens + usage.output_tokens)
    else:
        fresh, written = usage.input_tokens, usage.cache_write_tokens
        tokens = (fresh, usage.cache_read_tokens, written - hour, hour, usage.output_tokens, 0)
    model = str(row.model)
    return Spend(
        id=row.id,
        run=row.run,
        time=row.time,
        state=row.state,
        agent=_word(details.get("agent")),
        agent_version=_word(details.get("agent_version")),
        role=_word(details.get("role")),
        repository=_word(details.get("repository")),
        provider=_word(details.get("provider")),
        model=_word(details.get("provider_model") or model.rpartition("/")[2]),
        asked=_word(model),
        prices=str(details.get("prices") or ""),
        usage=usage,
        tokens=tokens,
        held_nano_usd=row.nano_usd if row.state == "held" else 0,
        milliseconds=_count(details.get("milliseconds")),
        first_byte_ms=_count(details.get("first_byte_ms")),
    )


def read_spends(
    db: Database, *, since: str = "", until: str = "", ids: Iterable[str] | None = None, but: Container[str] = ()
) -> Iterator[Spend]:
    """Requests in the order of their time, `since` included, `until` not; released ones cost nothing and are left out.

    `ids`: these alone; `but`: without these. All of one call are of one moment of the database.

    Raises:
        DependencyDown: `database`.
    """
    query: Select[Any] = select(*_NEEDED).where(HOLDS.c.state != "released").order_by(HOLDS.c.time, HOLDS.c.id)
    if since:
        query = query.where(HOLDS.c.time >= since)
    if until:
        query = query.where(HOLDS.c.time < until)
    if ids is not None:
        query = query.where(HOLDS.c.id.in_(tuple(ids)))
    with db.read() as connection:
        for row in connection.execution_options(yield_per=1000).execute(query):
            if row.id not in but:
                yield spend_of(row)


def _word(value: object) -> str:
    return str(value)[:MAX_WORD] if value else UNKNOWN


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


__all__ = ["KINDS", "UNKNOWN", "Spend", "read_spends", "spend_of"]
