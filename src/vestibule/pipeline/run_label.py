"""What a run has read: the view it begins with, and what an earlier attempt that was cut off had read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vestibule.audit.entry import Entry
from vestibule.core.labels import Label, joined
from vestibule.core.view import View
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.services import Services, start_label

MAX_NAMED = 20


def recorded_label(services: Services, record: RunRecord) -> Label:
    """The join of all labels in the run's entries of the log.

    An attempt that was cut off left nothing but what it sent out and asked for meanwhile; what comes back of that must
    not seem to come from a run that had read less. Of an earlier round the row says it too, but rows can be written to.

    Raises:
        DependencyDown: `audit`, the log cannot be read.
    """
    return joined(entry.event.labels for entry in services.audit.entries(record.id))


def label_so_far(record: RunRecord, entries: Iterable[Entry]) -> Label:
    """What is shown to people: what the run's row and its own entries say. Probes read nothing."""
    seen = joined(entry.event.labels for entry in entries if entry.event.subject != "probe")
    return start_label(record).join(seen)


def view_details(view: View) -> dict[str, Any]:
    """What the start of an agent says of its view. Names only of what people should look into."""
    return {
        "files": len(view.files),
        "partial": len(view.partial),
        "left_out": len(view.unshowable),
        "left_out_first": list(view.unshowable[:MAX_NAMED]),
    }
