"""Rows of the tables `gates` and `decisions`, read and written strictly: a row that is not ours is refused."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy import Connection, select, update

from vestibule.core.canonical import canonical_json
from vestibule.core.errors import DependencyDown, UsageError
from vestibule.core.model import Gate
from vestibule.store.tables import gates


def gate_id(run: str, round: int) -> str:  # noqa: A002
    """One gate a run and round: opening it twice is opening it once."""
    return f"g-{run}-{round}"


def row_of(gate: Gate) -> dict[str, str]:
    document = canonical_json(gate.model_dump(mode="json")).decode("utf-8")
    return {"id": gate.id, "run": gate.run, "state": gate.state, "expires": gate.expires, "document": document}


def gate_of(name: str, state: str, document: str) -> Gate:
    try:
        gate = Gate.model_validate_json(document)
    except ValidationError:
        raise damaged("gate", name) from None
    if gate.id != name or gate.state != state:
        raise damaged("gate", name)
    return gate


def load(connection: Connection, name: str, *, lock: bool = False) -> Gate | None:
    query = select(gates).where(gates.c.id == name)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else gate_of(row.id, row.state, row.document)


def must(connection: Connection, name: str, *, lock: bool = False) -> Gate:
    gate = load(connection, name, lock=lock)
    if gate is None:
        raise UsageError(f"There is no gate {name!r}.", next_step="List the runs that wait with `vestibule runs`.")
    return gate


def of_run(connection: Connection, run: str) -> tuple[Gate, ...]:
    rows = connection.execute(select(gates).where(gates.c.run == run)).all()
    return tuple(sorted((gate_of(row.id, row.state, row.document) for row in rows), key=lambda gate: gate.round))


def store_state(connection: Connection, gate: Gate, state: str) -> Gate:
    """The gate in its new state; refuses when another writer was there first."""
    after = gate.model_copy(update={"state": state})
    row = row_of(after)
    done = connection.execute(
        update(gates)
        .where(gates.c.id == gate.id, gates.c.state == gate.state)
        .values(state=row["state"], document=row["document"])
    )
    if done.rowcount != 1:
        raise DependencyDown("database", "A gate changed while it was being written.", fact=gate.id)
    return after


def damaged(what: str, name: str) -> DependencyDown:
    return DependencyDown(
        "database",
        f"A {what} in the state database is not what this program wrote.",
        fact=name,
        person="Find out what else writes to the state database; restore it from a backup.",
    )
