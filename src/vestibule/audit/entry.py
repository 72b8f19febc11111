"""An entry's bytes: canonical JSON of an event plus its place and time in the log.

Rules it keeps:
1. The bytes are made once, stored, and hashed as stored; nobody re-serialises them to verify.
2. Every entry fits 65,535 bytes (the uint16 length prefix of C2SP tlog-tiles). What does not fit
   is replaced by its digest and size, and the entry says so in `oversize`.
3. No floats, no integer beyond 64 bits, no lone surrogate (these become `\\udcXX` as text), bounded
   nesting: whatever is stored can be read back by any JSON parser.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from vestibule.core.base import Noun
from vestibule.core.canonical import digest_bytes
from vestibule.core.clock import parse_rfc3339, rfc3339
from vestibule.core.labels import Confidentiality, Integrity
from vestibule.core.model import Event

VERSION: Final = 1
MAX_ENTRY: Final = 65_535
MAX_DEPTH: Final = 32
_ROOM: Final = 256  # for sequence number and time, not yet known when an entry is prepared
_SHOWN: Final = 1_024  # characters kept of a resource that is too long
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "action": (str,),
    "actor": (str,),
    "attempt": (int,),
    "details": (dict,),
    "input_digest": (str,),
    "intent": (int, type(None)),
    "labels": (dict,),
    "oversize": (dict,),
    "phase": (str,),
    "policy_digest": (str,),
    "reasons": (list,),
    "resource": (str,),
    "result": (str,),
    "run": (str,),
    "seq": (int,),
    "subject": (str,),
    "time": (str,),
    "v": (int,),
    "verdict": (str, type(None)),
}
KEYS: Final = frozenset(_TYPES)
_SHAPES: Final = frozenset(itertools.product(*(_TYPES[key] for key in sorted(_TYPES))))
_LABELS: Final = frozenset(("confidentiality", "integrity"))
_INTEGRITY: Final = frozenset(item.value for item in Integrity)
_SECRECY: Final = frozenset(item.value for item in Confidentiality)
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
            "labels": event.labels.model_dump(mode="json"),
            "run": event.run,
            "intent": event.intent,
            "result": event.result,
            "details": event.details,
        }


class Prepared(NamedTuple):
    """An event in canonical form without its number and time. Keys sort as `…, run, seq, subject, time, v, …`."""

    event: Event
    run: str
    action: str
    before_seq: bytes
    before_time: bytes
    after_time: bytes

    def entry(self, seq: int, time: str) -> bytes:
        """The entry's bytes."""
        moment = time.encode("ascii")
        return b"%b%d%b%b%b" % (self.before_seq, seq, self.before_time, moment, self.after_time)


def prepare(event: Event) -> Prepared:
    """Everything of an entry but its place and time; done by the caller's thread.

    Raises:
        Unrecordable: floats, wrong phase fields, or too large even without details and resource.
    """
    _check_phase(event)
    try:
        details, resource = _json(event.details) if event.details else "{}", event.resource
        prepared = _assemble(event, details, resource, "{}")
        if _size(prepared) <= MAX_ENTRY:
            return prepared
        oversize = {}
        if event.details:
            oversize["details"] = _replaced(details.encode())
            prepared = _assemble(event, "{}", resource, _json(oversize))
        if _size(prepared) > MAX_ENTRY:
            oversize["resource"] = _replaced(_string(resource).encode())
            prepared = _assemble(event, "{}", resource[:_SHOWN] + "…", _json(oversize))
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


def _encoding() -> Callable[[Any], str]:
    """What `_ENCODER.encode` does with a container, with its inner encoder made once and not anew each time."""
    make, string = getattr(json.encoder, "c_make_encoder", None), getattr(json.encoder, "encode_basestring", None)
    if make is None or string is None:
        return _ENCODER.encode
    chunks = make(None, _ENCODER.default, string, None, ":", ",", True, False, False)
    return lambda value: "".join(chunks(value, 0))


_encoded = _encoding()


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
    try:
        _check_shape(fields)
    except TypeError:  # a list where a name belongs
        raise ValueError("a field has another type than an entry's") from None
    found: dict[str, Any] = fields
    return found


def as_entry(fields: dict[str, Any]) -> Entry:
    """The noun behind checked fields."""
    rest = {key: value for key, value in fields.items() if key not in ("seq", "time", "v", "oversize")}
    return Entry(seq=fields["seq"], time=fields["time"], event=Event(**rest), oversize=fields["oversize"])


def _check_shape(fields: Any) -> None:
    if type(fields) is not dict or fields.keys() != KEYS:
        raise ValueError("it has other fields than an entry has")
    # Canonical bytes put the keys in order, so the types of all values are one comparison.
    if tuple(map(type, fields.values())) not in _SHAPES:
        raise ValueError("a field has another type than an entry's")
    if fields["v"] != VERSION:
        raise ValueError(f"its version is {fields['v']}")
    if len(fields["time"]) != 24 or fields["time"][-1] != "Z":
        raise ValueError("its time is not UTC with milliseconds")
    if not all(type(reason) is str for reason in fields["reasons"]):
        raise ValueError("its reasons are no list of names")
    labels = fields["labels"]
    if labels.keys() != _LABELS or labels["integrity"] not in _INTEGRITY or labels["confidentiality"] not in _SECRECY:
        raise ValueError("its labels are unknown")
    if fields["subject"] not in _SUBJECTS or fields["verdict"] not in _VERDICTS:
        raise ValueError("its subject or verdict is unknown")
    if fields["phase"] == "intent":
        if fields["intent"] is not None or fields["result"] != "":
            raise ValueError("an intent neither names an intent nor has a result")
    elif fields["phase"] == "outcome":
        if fields["intent"] is None or fields["result"] not in _RESULTS:
            raise ValueError("an outcome names its intent and has a result")
    else:
        raise ValueError("its phase is neither intent nor outcome")


def _check_phase(event: Event) -> None:
    if event.phase == "intent" and (event.intent is not None or event.result):
        raise Unrecordable("an intent neither names an intent nor has a result")
    if event.phase == "outcome" and (event.intent is None or not event.result):
        raise Unrecordable("an outcome names its intent and has a result")


def _assemble(event: Event, details: str, resource: str, oversize: str) -> Prepared:
    """The bytes, field by field in the order of their names: most texts are the same from entry to entry."""
    labels, verdict = event.labels, event.verdict
    before_time, after_time = _end(event.subject, verdict._value_ if verdict else "")
    before = (
        f'{_start(event.action, event.actor, event.attempt)}{details},"input_digest":{_string(event.input_digest)},'
        f'"intent":{"null" if event.intent is None else event.intent},"labels":'
        f'{_labels(labels.confidentiality._value_, labels.integrity._value_)},"oversize":{oversize},'
        f"{_ruled(event.phase, event.policy_digest, tuple(event.reasons))}{_string(resource)},"
        f'"result":"{event.result}","run":{_string(event.run)},"seq":'
    )
    return Prepared(event, event.run, event.action, before.encode(), before_time, after_time)


@functools.lru_cache(maxsize=1024, typed=True)
def _start(action: str, actor: str, attempt: int) -> str:
    return f'{{"action":{_string(action)},"actor":{_string(actor)},"attempt":{attempt},"details":'


@functools.lru_cache(maxsize=64)
def _labels(confidentiality: str, integrity: str) -> str:
    return f'{{"confidentiality":"{confidentiality}","integrity":"{integrity}"}}'


@functools.lru_cache(maxsize=1024)
def _ruled(phase: str, policy_digest: str, reasons: tuple[str, ...]) -> str:
    written = _json(reasons) if reasons else "[]"
    return f'"phase":"{phase}","policy_digest":{_string(policy_digest)},"reasons":{written},"resource":'


@functools.lru_cache(maxsize=64)
def _end(subject: str, verdict: str) -> tuple[bytes, bytes]:
    written = f'"{verdict}"' if verdict else "null"
    return f',"subject":"{subject}","time":"'.encode(), f'","v":{VERSION},"verdict":{written}}}'.encode()


_CACHED: Final = 200


def _replaced(stored: bytes) -> dict[str, Any]:
    return {"digest": digest_bytes(stored), "size": len(stored)}


def _size(prepared: Prepared) -> int:
    return len(prepared.before_seq) + len(prepared.before_time) + len(prepared.after_time) + _ROOM


def _json(value: Any) -> str:
    """The canonical text of `value`; nothing in it that JSON cannot carry exactly."""
    if not _ready(value, 0):
        return _ENCODER.encode(_clean(value, 0))
    text = _encoded(value)
    return text if text.isascii() or not _SURROGATE.search(text) else _ENCODER.encode(_clean(value, 0))


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _ready(value: Any, depth: int) -> bool:
    """Whether the encoder writes it as it stands; surrogates apart. Nearly everything is."""
    if depth > MAX_DEPTH:
        return False
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind is int:
            if not -(1 << 63) <= item < 1 << 63:
                return False
        elif kind is dict or kind is list or kind is tuple:
            if not _ready(item, depth + 1):
                return False
        elif kind is not str and kind is not bool and item is not None:
            return False
    return type(value) is not dict or all(type(key) is str for key in value)


def _clean(value: Any, depth: int) -> Any:
    """`value` with nothing in it that JSON cannot carry exactly."""
    kind = type(value)
    if kind is str:
        return _plain(value)
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


def _string(value: str) -> str:
    return _cached(value) if len(value) <= _CACHED else _ENCODER.encode(_plain(value))


def _plain(value: str) -> str:
    """Lone surrogates become text."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")


@functools.lru_cache(maxsize=4096)
def _cached(value: str) -> str:
    return _ENCODER.encode(_plain(value))
