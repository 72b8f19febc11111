"""The engine's file holds JSON, and whatever else stands in it is refused.

DBOS pickles by default, and each row names its own format: whoever writes a row marked as a pickle would run code in
the supervisor (CWE-502). So JSON is configured, and the pickling serializer is closed for this process. A segment that
nobody could recover would be waited for without end; it is found beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn

from vestibule.core.errors import DependencyDown

if TYPE_CHECKING:
    from dbos._serialization import Serializer
    from sqlalchemy import Engine

FORMAT = "portable_json"
_WORK = (
    "SELECT serialization, status, name, application_version, executor_id, coalesce(i.inputs, s.inputs) AS given "
    "FROM workflow_status s LEFT JOIN workflow_input i ON i.workflow_uuid = s.workflow_uuid"
)
_STEPS = "SELECT serialization FROM operation_outputs"
_TABLES = frozenset({"workflow_status", "workflow_input", "operation_outputs"})


def refuse_pickles() -> Serializer:
    """Closes DBOS's pickling serializer in this process, and gives its JSON one. Idempotent."""
    from dbos import _serialization

    # The class, not an instance: DBOS takes instances from several places.
    vars_of: Any = _serialization.DefaultSerializer
    vars_of.serialize = _refuse
    vars_of.deserialize = _refuse
    return _serialization.DBOSPortableJSON


def check_file(database: Engine, run: str, version: str, segments: Collection[str]) -> None:
    """The rows of a run's engine file, before anything in it is taken up.

    Raises:
        DependencyDown: `engine`: a value of another format, or a segment that would never be recovered here.
    """
    from sqlalchemy import inspect, text

    if not set(inspect(database).get_table_names()) >= _TABLES:
        return  # a new file; one of another shape is made ours, or refused, by DBOS's migrations
    with database.connect() as connection:
        work = connection.execute(text(_WORK)).all()
        formats = {row[0] for row in connection.execute(text(_STEPS))} | {row.serialization for row in work}
    if formats - {FORMAT}:
        raise _down(f"a value in the format {min(map(str, formats - {FORMAT}))[:40]!r}")
    for row in work:
        ours = (row.name, row.application_version, row.executor_id) == ("segment", version, run)
        if row.status == "PENDING" and not (ours and _call(row.given) in segments):
            raise _down("a segment of another run, program or shape")


def _call(inputs: str | None) -> str:
    """The segment that a row's inputs name; empty when they are not what we write."""
    try:
        name, _run = json.loads(inputs or "")["positionalArgs"]
    except (ValueError, TypeError, KeyError):
        return ""
    return name if isinstance(name, str) else ""


def _refuse(_self: object, _data: object) -> NoReturn:
    raise _down("a pickled value, which could run code when loaded")


def _down(fact: str) -> DependencyDown:
    return DependencyDown(
        "engine",
        "The engine's file holds something that this program never writes.",
        fact=fact,
        person="Find out what else writes to the state folder; then cancel this run and start it anew.",
    )
