"""How often what was decided, counted by the log's database itself: nothing is parsed here."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from vestibule.audit.database import FILE, BrokenLog, open_reader
from vestibule.audit.log import down

_BODY = "CAST(body AS TEXT)"
_QUERY = (
    f"SELECT action, json_extract({_BODY}, '$.verdict') AS verdict, "  # noqa: S608 constants
    f"coalesce(json_extract({_BODY}, '$.reasons[0]'), '') AS reason, count(*), min(seq) FROM entries "
    "WHERE seq > ? AND seq <= ? AND phase = 'intent' "
    f"AND json_extract({_BODY}, '$.subject') = 'agent' AND verdict IS NOT NULL "
    "GROUP BY action, verdict, reason ORDER BY min(seq)"
)


def decisions_after(folder: Path, after: int) -> tuple[int, list[tuple[str, str, str, int]]]:
    """Of entries beyond `after`: the last one's number, and (action, verdict, first reason or "", how many) of the
    agents' own intents, in the order in which each combination first appeared. A log that was not begun has none.

    Raises:
        DependencyDown: `audit`.
    """
    if not (folder / FILE).exists():
        return after, []
    try:
        with contextlib.closing(open_reader(folder / FILE)) as connection:
            last = int(connection.execute("SELECT ifnull(max(seq), 0) FROM entries").fetchone()[0])
            if last <= after:
                return after, []
            rows = connection.execute(_QUERY, (after, last))
            return last, [(str(row[0]), str(row[1]), str(row[2]), int(row[3])) for row in rows]
    except (sqlite3.Error, OSError, BrokenLog) as error:
        raise down(error, folder) from None
