"""The ledger's statements, with `?` for values. Pure: nothing but names and numbers of ours goes into their text."""

from __future__ import annotations

from functools import lru_cache

INSERT = (
    "INSERT INTO holds (id, run, day, state, time, model, nano_usd, tokens, budgets, document, "
    "agent, agent_version, role, repository, provider, prices) VALUES"
)
_VALUES = "(?, ?, ?, 'held', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
COLUMNS = 15
ROWS = 16
"""Holds of one INSERT: between statements the interpreter's lock changes hands, which costs more than a row."""
CLOSE = (
    "UPDATE holds SET state = ?, closed = ?, document = ?, cost_nano_usd = ?, input_tokens = ?, output_tokens = ?, "
    "cache_read_tokens = ?, cache_write_tokens = ?, cache_write_1h_tokens = ? WHERE id = ? AND state = 'held'"
)
ROW = (
    "name, limit_nano_usd, limit_tokens, limit_requests, held_nano_usd, held_tokens, held_requests, "
    "spent_nano_usd, spent_tokens"
)


@lru_cache(maxsize=128)
def taking(keys: int, rates: tuple[str, ...]) -> str:
    """The conditional UPDATE of a hold over so many rows, with a count of requests for each of `rates` (columns)."""
    marks = ", ".join("?" * keys)
    since = [f"(SELECT count(*) FROM holds WHERE {column} = ? AND time > ?)" for column in rates]  # noqa: S608 ours
    slow = "".join(f" AND {count} <= ?" for count in since)
    return (
        "UPDATE budgets SET held_nano_usd = held_nano_usd + ?, held_tokens = held_tokens + ?, "  # noqa: S608 ours
        f"held_requests = held_requests + ? WHERE key IN ({marks}) AND (SELECT count(*) FROM budgets "
        f"WHERE key IN ({marks}) "
        "AND (limit_nano_usd IS NULL OR spent_nano_usd + held_nano_usd + ? <= limit_nano_usd) "
        "AND (limit_tokens IS NULL OR spent_tokens + held_tokens + ? <= limit_tokens) "
        f"AND (limit_requests IS NULL OR held_requests + ? <= limit_requests)) = {keys}{slow}"
    )


@lru_cache(maxsize=ROWS)
def inserting(rows: int) -> str:
    """So many holds in one INSERT, `COLUMNS` values each."""
    return f"{INSERT} {', '.join([_VALUES] * rows)}"


@lru_cache(maxsize=32)
def giving(keys: int) -> str:
    """What closed holds of so many rows give back and spent."""
    marks = ", ".join("?" * keys)
    return (
        "UPDATE budgets SET held_nano_usd = held_nano_usd - ?, held_tokens = held_tokens - ?, "  # noqa: S608 ours
        "held_requests = held_requests - ?, spent_nano_usd = spent_nano_usd + ?, spent_tokens = spent_tokens + ? "
        f"WHERE key IN ({marks})"
    )
