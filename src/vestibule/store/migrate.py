"""Changes of tables that hold rows already. Each runs once, in the transaction that raises the schema's version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Connection, Table, bindparam, inspect, select, text, update
from sqlalchemy.schema import CreateColumn

from vestibule.store import tables

_SPENDER = ("agent", "agent_version", "role", "repository", "provider", "prices")
_USED = ("cost_nano_usd", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def to_5(connection: Connection) -> None:
    """Ceilings of many kinds; what stood in a hold's document only becomes columns that can be summed."""
    _add_columns(connection, tables.budgets)
    _add_columns(connection, tables.holds)
    connection.execute(text("DROP INDEX IF EXISTS ix_holds_run"))
    holds = tables.holds
    changed = [{"of": row.id, **_columns(row)} for row in connection.execute(select(holds)).all()]
    if changed:
        names = [name for name in changed[0] if name != "of"]
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
        statement = update(holds).where(holds.c.id == bindparam("of")).values(values)
        connection.execute(
            statement, [{"of": row["of"], **{f"new_{name}": row[name] for name in names}} for row in changed]
        )


def _add_columns(connection: Connection, table: Table) -> None:
    there = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in _missing(table, there):
        written = CreateColumn(column).compile(dialect=connection.dialect)
        connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {written}"))


def _missing(table: Table, there: set[str]) -> Iterator[Column[Any]]:
    return (column for column in table.columns if column.name not in there)


def _columns(row: Any) -> dict[str, Any]:
    document = json.loads(row.document)
    details, usage = document.get("details", {}), document.get("usage") or {}
    return {
        **{name: str(details.get(name) or "") for name in _SPENDER},
        **{name: usage.get(name) for name in _USED},
        "cache_write_1h_tokens": 0 if usage else None,
        "budgets": f"run:{row.run}\nday:{row.day}",
    }
