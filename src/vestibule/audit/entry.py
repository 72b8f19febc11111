"""An entry's bytes: canonical JSON of an event plus its place and time in the log.

Rules it keeps:
1. The bytes are made once, stored, and hashed as stored; nobody re-serialises them to verify.
2. Every entry fits 65,535 bytes (the uint16 length prefix of C2SP tlog-tiles). What does not fit
   is replaced by its digest and size, and the entry says so in `oversize`.
3. No floats, no integer beyond 64 bits, no lone surrogate (these become `\\udcXX` as text), bounded
   nesting: whatever is stored can be read back by any JSON parser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vestibule.core.base import Noun
from vestibule.core.canonical import canonical_json, digest_bytes
from vestibule.core.clock import parse_rfc3339, rfc3339
from vestibule.core.model import Event

VERSION: Final = 1
MAX_ENTRY: Final = 65_535
MAX_DEPTH: Final = 32
_ROOM: Final = 256  # for sequence number and time, not yet known when an entry is prepared
_SHOWN: Final = 1_024  # characters kept of a resource that is too long
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_STRINGS: Final = ("action", "actor", "input_digest", "policy_digest", "resource", "run")
KEYS: Final = frozenset(
    (
        *_STRINGS,
        *("attempt", "details", "intent", "labels", "oversize", "phase", "reasons", "result"),
        *("seq", "subject", "time", "v", "verdict"),
    )
)
_LABELS: Final = frozenset(("confidentiality", "integrity"))
_SUBJECTS: Final = frozenset(("agent", "probe", "person", "system"))
_RESULTS: Final = frozenset(("ok", "failed", "unknown"))
_VERDICTS: Final = frozenset(("allow", "hold", "deny", None))


class Unrecordable(ValueError):
    """The event has no canonical form or breaks the log's own rules. Only this event is refused."""


class Entry(Noun):
    """An event as it stands in the log."""

    seq: int
    time: str
    event: Event
    oversize: dict[str, Any] = {}

    def as_json(self) -> dict[str, Any]:
        """The contract's `events[]` shape, with the outcome's `intent` and `result` besides."""
        event = self.event
        return {
            "seq": self.seq,
            "time": self.time,
            "phase": event.phase,
            "attempt": event.attempt,
            "actor": event.actor,
            "subject": event.subject,
            "action": event.action,
            "resource": event.resource,
            "verdict": event.verdict.value if event.verdict else None,
            "reasons": list(event.reasons),
            "run": event.run,
            "intent": event.intent,
            "result": event.result,
            "details": event.details,
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event in canonical form, with gaps where sequence number and time will stand."""

    event: Event
    run: str
    action: str
    before_seq: bytes
    before_time: bytes
    after_time: bytes

    def entry(self, seq: int, time: str) -> bytes:
        """The entry's bytes."""
        return b'%b,"seq":%d,%b,"time":"%b",%b' % (
            self.before_seq,
            seq,
            self.before_time,
            time.encode("ascii"),
            self.after_time,
        )


def prepare(event: Event) -> Prepared:
    """Everything of an entry but its place and time; done by the caller's thread.

    Raises:
        Unrecordable: floats, wrong phase fields, or too large even without details and resource.
    """
    _check_phase(event)
    try:
        fields = _clean(_fields(event), 0)
        prepared = _assemble(event, fields)
        if _size(prepared) > MAX_ENTRY:
            fields, oversize = dict(fields), {}
            for name, replacement in (("details", {}), ("resource", fields["resource"][:_SHOWN] + "…")):
                if fields[name] != replacement and _size(prepared) > MAX_ENTRY:
                    stored = canonical_json(fields[name])
                    oversize[name] = {"digest": digest_bytes(stored), "size": len(stored)}
                    fields |= {name: replacement, "oversize": oversize}
                    prepared = _assemble(event, fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unrecordable(str(error)) from None
    if _size(prepared) > MAX_ENTRY:
        raise Unrecordable(f"the event does not fit {MAX_ENTRY} bytes, even without details and resource")
    return prepared


def time_of(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, without passing through a float."""
    return rfc3339(_EPOCH + timedelta(milliseconds=unix_ms))


def ms_of(time: str) -> int:
    """Milliseconds since 1970. Raises `ValueError`."""
    return (parse_rfc3339(time) - _EPOCH) // timedelta(milliseconds=1)


def _no_float(text: str) -> Any:
    raise ValueError(f"the number {text} is no integer")


_DECODER = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


def parse_entry(body: bytes) -> dict[str, Any]:
    """The fields of an entry, checked: canonical bytes and exactly the shape this module writes.

    Raises:
        ValueError: what is wrong, in words.
    """
    if len(body) > MAX_ENTRY:
        raise ValueError(f"it is larger than {MAX_ENTRY} bytes")
    try:
        fields = _DECODER.decode(body.decode("utf-8"))
        canonical = _ENCODER.encode(fields).encode("utf-8") == body
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON of ours ({type(error).__name__})") from None
    if not canonical:
        raise ValueError("it is not in canonical form")
    _check_shape(fields)
    found: dict[str, Any] = fields
    return found


def as_entry(fields: dict[str, Any]) -> Entry:
    """The noun behind checked fields."""
    rest = {key: value for key, value in fields.items() if key not in ("seq", "time", "v", "oversize")}
    return Entry(seq=fields["seq"], time=fields["time"], event=Event(**rest), oversize=fields["oversize"])


def _check_shape(fields: Any) -> None:
    if type(fields) is not dict or fields.keys() != KEYS:
        raise ValueError("it has other fields than an entry has")
    if fields["v"] != VERSION:
        raise ValueError(f"its version is {fields['v']!r}")
    if type(fields["seq"]) is not int or type(fields["attempt"]) is not int:
        raise ValueError("its numbers are no integers")
    if any(type(fields[name]) is not str for name in _STRINGS):
        raise ValueError("a text field is no text")
    if type(fields["time"]) is not str or len(fields["time"]) != 24 or fields["time"][-1] != "Z":
        raise ValueError("its time is not UTC with milliseconds")
    if type(fields["reasons"]) is not list or any(type(reason) is not str for reason in fields["reasons"]):
        raise ValueError("its reasons are no list of names")
    labels = fields["labels"]
    if type(labels) is not dict or labels.keys() != _LABELS or any(type(item) is not str for item in labels.values()):
        raise ValueError("its labels are malformed")
    if type(fields["details"]) is not dict or type(fields["oversize"]) is not dict:
        raise ValueError("its details are malformed")
    for name, allowed in (("subject", _SUBJECTS), ("verdict", _VERDICTS)):
        if fields[name].__hash__ is None or fields[name] not in allowed:
            raise ValueError(f"its {name} is unknown")
    if fields["phase"] == "intent":
        if fields["intent"] is not None or fields["result"] != "":
            raise ValueError("an intent neither names an intent nor has a result")
    elif fields["phase"] == "outcome":
        if type(fields["intent"]) is not int or fields["result"] not in _RESULTS:
            raise ValueError("an outcome names its intent and has a result")
    else:
        raise ValueError("its phase is neither intent nor outcome")


def _check_phase(event: Event) -> None:
    if event.phase == "intent" and (event.intent is not None or event.result):
        raise Unrecordable("an intent neither names an intent nor has a result")
    if event.phase == "outcome" and (event.intent is None or not event.result):
        raise Unrecordable("an outcome names its intent and has a result")


def _fields(event: Event) -> dict[str, Any]:
    return {
        "action": event.action,
        "actor": event.actor,
        "attempt": event.attempt,
        "details": event.details,
        "input_digest": event.input_digest,
        "intent": event.intent,
        "labels": {
            "confidentiality": event.labels.confidentiality.value,
            "integrity": event.labels.integrity.value,
        },
        "oversize": {},
        "phase": event.phase,
        "policy_digest": event.policy_digest,
        "reasons": event.reasons,
        "resource": event.resource,
        "result": event.result,
        "run": event.run,
        "subject": event.subject,
        "v": VERSION,
        "verdict": event.verdict.value if event.verdict else None,
    }


def _assemble(event: Event, fields: dict[str, Any]) -> Prepared:
    def part(low: str, high: str) -> bytes:
        return _ENCODER.encode({key: value for key, value in fields.items() if low < key < high}).encode("utf-8")

    return Prepared(
        event=event,
        run=fields["run"],
        action=fields["action"],
        before_seq=part("", "seq")[:-1],
        before_time=part("seq", "time")[1:-1],
        after_time=part("time", "~")[1:],
    )


def _size(prepared: Prepared) -> int:
    return len(prepared.before_seq) + len(prepared.before_time) + len(prepared.after_time) + _ROOM


def _clean(value: Any, depth: int) -> Any:
    """`value` with nothing in it that JSON cannot carry exactly."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if kind is int:
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError("an integer has more than 64 bits")
        return value
    if value is None or kind is bool:
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key is no string")
        return {_clean(str(key), depth): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, str):  # enumerations
        return _clean(str.__str__(value), depth)
    raise TypeError(f"a value of type {kind.__name__} has no canonical form")
