"""Events → matches: which known behaviour a run of events shows. Pure. *Stdlib only: the monitor's process loads it.*

Rules it keeps:
1. What is matched is data (`behaviours.yaml`); nothing here names a program or a payload.
2. A behaviour says that something was seen; what follows from it is policy's to decide.
3. Everything kept is bounded: processes, half-seen sequences, matches, written files. What no longer fits is counted
   and said.
4. Expressions end soon whatever text they are tried on (`core.text.patterns`).
5. A program that was forked and has not executed anything is its parent's program.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from vestibule.boundary.host import events
from vestibule.boundary.host.events import Event
from vestibule.core.text.paths import MAX_PATH_BYTES, fold
from vestibule.core.text.patterns import MAX_TEXT, SlowPattern, check_pattern, literal_run

MAX_PROCESSES = 8192
MAX_SEQUENCES = 2048
MAX_MATCHES = 200
MAX_WRITES = 200_000
MAX_CONNECTS = 20_000
MAX_ANCESTORS = 16
OUTSIDE = "outside-write"
"""The one behaviour that is not in the data: a file written where nothing is writable."""
UNRESOLVED = "unresolved-write"
"""Another: a file opened for writing, but exchanged before it could be looked at."""

LOOPBACK = ("127.", "::1", "::ffff:127.", "0.0.0.0", "::")  # noqa: S104 - compared with, never bound


class Texts(NamedTuple):
    """Expressions, any of which may fit. `needles`: every text that fits has one of them (empty: not known)."""

    pattern: re.Pattern[str]
    needles: tuple[str, ...] = ()

    def fits(self, text: str) -> bool:
        """A text that is too long is tried on its beginning and its end, so that padding hides nothing."""
        if self.needles and not any(needle in text for needle in self.needles):
            return False
        if len(text) <= MAX_TEXT:
            return self.pattern.fullmatch(text) is not None
        return any(self.pattern.fullmatch(part) is not None for part in (text[:MAX_TEXT], text[-MAX_TEXT:]))


class Listed(NamedTuple):
    """A list of files in a folder: expressions over the folded rest of the path, and texts of which a path that fits
    has one (so that most paths need no expression)."""

    folder: str
    pattern: re.Pattern[str]
    needles: tuple[str, ...]

    def fits(self, path: str) -> bool:
        if not path.startswith(self.folder):
            return False
        rest = fold(path[len(self.folder) :])
        if not any(needle in f"/{rest}" for needle in self.needles):
            return False
        return len(rest) <= MAX_PATH_BYTES and self.pattern.fullmatch(rest) is not None


class Step(NamedTuple):
    """One event of a behaviour; every condition that is given must hold. Expressions match the whole text."""

    event: str
    program: Texts | None = None
    path: Texts | None = None
    except_path: Texts | None = None
    argument: tuple[Texts, ...] = ()
    except_argument: Texts | None = None
    parent: Texts | None = None
    flags: int = 0
    outside: bool = False
    calls: frozenset[str] = frozenset()
    listed: Listed | None = None


class Behaviour(NamedTuple):
    """A name, what a match is decided as, how grave it is, and the steps, each by the process of the one before it
    or a descendant of it, within `seconds`. `times`: so many different texts of a one-step behaviour."""

    name: str
    action: str
    severity: str
    steps: tuple[Step, ...]
    seconds: float = 0
    times: int = 1


class Match(NamedTuple):
    """What was seen. `what` is the text that showed it, chosen by a program: untrusted, bounded."""

    behaviour: str
    action: str
    severity: str
    program: str
    pid: int
    time: int
    what: str
    cut: bool


class Process(NamedTuple):
    """What is known of a process since it executed something."""

    path: str
    command: str
    parent: int


def compile_step(given: Mapping[str, Any]) -> Step:
    """A step as `behaviours.py` checked it. Raises SlowPattern."""
    return Step(
        event=given["event"],
        program=_any(given.get("program", ())),
        path=_any(given.get("path", ())),
        except_path=_any(given.get("except_path", ())),
        argument=tuple(found for item in given.get("argument", ()) if (found := _any(item)) is not None),
        except_argument=_any(given.get("except_argument", ())),
        parent=_any(given.get("parent", ())),
        flags=sum(events.FLAGS[name] for name in given.get("flags", ())),
        outside=bool(given.get("outside", False)),
        calls=frozenset(given.get("calls", ())),
        listed=_listed(given.get("listed")),
    )


def compile_behaviours(given: Iterable[Mapping[str, Any]]) -> tuple[Behaviour, ...]:
    """Behaviours as data. Raises SlowPattern, KeyError."""
    return tuple(
        Behaviour(
            name=item["name"],
            action=item["action"],
            severity=item["severity"],
            steps=tuple(compile_step(step) for step in item["steps"]),
            seconds=float(item.get("seconds", 0)),
            times=int(item.get("times", 1)),
        )
        for item in given
    )


def _listed(given: Mapping[str, Any] | None) -> Listed | None:
    """Ours, made from `core.control_files`: not checked as patterns of the data are."""
    if given is None:
        return None
    whole = re.compile("|".join(f"(?:{pattern})" for pattern in given["patterns"]))
    return Listed(given["folder"], whole, tuple(given["needles"]))


def _any(patterns: Iterable[str]) -> Texts | None:
    found = tuple(patterns)
    for pattern in found:
        check_pattern(pattern)
        if "(?" in pattern.replace("(?:", ""):
            raise SlowPattern(f"{pattern!r}: flags within a pattern are not supported here")
    if not found:
        return None
    needles = {literal_run(pattern) for pattern in found}
    whole = re.compile("|".join(f"(?:{pattern})" for pattern in found), re.DOTALL)
    return Texts(whole, () if "" in needles else tuple(sorted(needles)))


def _fits(texts: Texts | None, text: str) -> bool:
    return texts is None or texts.fits(text)


class Matcher:
    """The events of one watched run, in order; `take` gives the matches that each completes."""

    def __init__(self, behaviours: tuple[Behaviour, ...], writable: Iterable[str]) -> None:
        """`writable`: folders inside that may be written."""
        self.writes: dict[str, None] = {}
        """Files that were written, made, cut or took another's place."""
        self.moved: dict[str, None] = {}
        """Names that something was moved or linked to: a folder brings all that is in it."""
        self.gone: dict[str, None] = {}
        """Names that were removed or moved away."""
        self.connects: dict[tuple[str, str, int, str, bool], int] = {}
        """(`tcp` or `udp`, address, port, program, whether nothing went there) → how often."""
        self._callers: dict[tuple[str, int], str] = {}
        self.programs: dict[tuple[str, int, tuple[int, int]], int] = {}
        """(path, inode, device) → how often it was executed."""
        self.full = False
        """Whether something of these no longer fitted."""
        self.left_out = 0
        """Matches beyond the bound."""
        self._writable = tuple(folder.rstrip("/") for folder in writable)
        self._processes: OrderedDict[int, Process] = OrderedDict()
        self._by_event: dict[str, list[tuple[Behaviour, int, int]]] = {}
        self._steps: list[Step] = []
        for behaviour in behaviours:
            for number, step in enumerate(behaviour.steps):
                self._by_event.setdefault(step.event, []).append((behaviour, number, len(self._steps)))
                self._steps.append(step)
        self._half: OrderedDict[tuple[str, int], tuple[int, int]] = OrderedDict()
        self._counted: dict[str, set[str]] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._plain: set[str] = set()
        self._writers_matter = any(
            step.program is not None or step.parent is not None
            for item in behaviours
            for step in item.steps
            if step.event == "write"
        )
        self._exec = lru_cache(maxsize=2048)(self._fits_exec)
        self._name = lru_cache(maxsize=8192)(self._fits_name)
        self._place = lru_cache(maxsize=8192)(self._fits_place)

    def take(self, event: Event) -> list[Match]:
        """The matches that this event completes, each told once."""
        kind = event.kind
        if kind == events.EXEC:
            self._executed(event)
        elif kind == events.MET:
            self._count("tcp", event, self._callers.get((event.address, event.port), ""), refused=False)
            return []
        elif kind == events.CONNECT:
            self._connected(event)
        elif kind in (events.UNLINK, events.RENAME_FROM):
            self._keep(self.gone, event.path, MAX_WRITES)
        elif kind not in (events.UNIX, events.CALL):
            if event.path in self._plain and not event.flags & events.RACED:
                return []  # written before, by nothing that matters here
            self._keep(self.writes, event.path, MAX_WRITES)
            if kind in (events.RENAME_TO, events.LINK):
                self._keep(self.moved, event.path, MAX_WRITES)
            if found := self._where(event):
                return self._tell([found])
        matches = []
        concerned = False
        for behaviour, number, number_of in self._by_event.get(event.name, ()):
            if self._step(number_of, behaviour.steps[number], event):
                concerned = True
                if self._complete(behaviour, number, event):
                    matches.append(self._match(behaviour, event))
        if kind == events.WRITE and not concerned and len(self._plain) < MAX_WRITES and not self._writers_matter:
            self._plain.add(event.path)
        return self._tell(matches)

    def _keep(self, kept: dict[str, Any], key: str, most: int) -> None:
        if key not in kept:
            if len(kept) < most:
                kept[key] = None
            else:
                self.full = True

    def _connected(self, event: Event) -> None:
        """A connection is counted when it came about (`MET`); what was refused, and messages, at once."""
        found = self._process(event)
        program = found.path if found else event.comm
        if len(self._callers) < MAX_CONNECTS:
            self._callers[event.address, event.port] = program
        if event.flags & events.REFUSED:
            self._count("udp" if event.flags & events.DATAGRAM else "tcp", event, program, refused=True)
        elif event.argument:
            self._count("udp", event, program, refused=False)

    def _count(self, protocol: str, event: Event, program: str, *, refused: bool) -> None:
        key = (protocol, event.address, event.port, program, refused)
        if key in self.connects or len(self.connects) < MAX_CONNECTS:
            self.connects[key] = self.connects.get(key, 0) + 1
        else:
            self.full = True

    def _executed(self, event: Event) -> None:
        command = "\0".join(event.arguments)
        self._processes[event.pid] = Process(event.path, command, event.parent)
        self._processes.move_to_end(event.pid)
        if len(self._processes) > MAX_PROCESSES:
            self._processes.popitem(last=False)
        key = (event.path, event.inode, event.device)
        if key in self.programs or len(self.programs) < MAX_PROCESSES:
            self.programs[key] = self.programs.get(key, 0) + 1
        else:
            self.full = True

    def _where(self, event: Event) -> Match | None:
        """A write where nothing is writable, or one that could not be looked at."""
        if event.flags & events.RACED:
            return self._own(UNRESOLVED, "warning", event)
        if event.flags & events.DETACHED or event.path.startswith("/proc/"):
            return None
        if any(event.path == folder or event.path.startswith(folder + "/") for folder in self._writable):
            return None
        return self._own(OUTSIDE, "critical", event)

    def _own(self, name: str, severity: str, event: Event) -> Match:
        return self._match(Behaviour(name, "host.open", severity, ()), event)

    def _step(self, number: int, step: Step, event: Event) -> bool:
        if event.flags & step.flags != step.flags:
            return False
        if step.outside and event.address.startswith(LOOPBACK[:3]):
            return False
        if step.outside and event.address in LOOPBACK:
            return False
        if step.calls and event.call not in step.calls:
            return False
        if step.program is not None and not self._fits_program(number, event):
            return False
        if event.kind == events.EXEC:
            if not self._exec(number, event.path, event.arguments):
                return False
        elif (step.path is not None or step.listed is not None) and not self._place(number, event.path):
            return False
        return step.parent is None or self._parent_fits(step.parent, event)

    def _fits_exec(self, number: int, path: str, arguments: tuple[str, ...]) -> bool:
        step = self._steps[number]  # by its number: an expression's own hash takes longer than trying it
        if not _fits(step.path, path):
            return False
        if not all(any(_fits(one, text) for text in arguments[1:]) for one in step.argument):
            return False
        return step.except_argument is None or not any(_fits(step.except_argument, text) for text in arguments[1:])

    def _fits_place(self, number: int, path: str) -> bool:
        step = self._steps[number]
        if step.listed is not None and not step.listed.fits(path):
            return False
        return _fits(step.path, path) and (step.except_path is None or not _fits(step.except_path, path))

    def _fits_program(self, number: int, event: Event) -> bool:
        """By the file's own name or by the name it was started as: a link or another name hides neither."""
        found = self._process(event)
        if found is None:
            return self._name(number, event.comm)
        started = found.command.split("\0", 1)[0]
        return self._name(number, found.path.rsplit("/", 1)[-1]) or self._name(number, started.rsplit("/", 1)[-1])

    def _fits_name(self, number: int, name: str) -> bool:
        return _fits(self._steps[number].program, name.lstrip("-"))

    def _parent_fits(self, pattern: Texts, event: Event) -> bool:
        """Some ancestor's command line, its words parted by spaces."""
        for pid in self._family(event)[1:]:
            found = self._processes.get(pid)
            if found is not None and _fits(pattern, found.command.replace("\0", " ")):
                return True
        return False

    def _process(self, event: Event) -> Process | None:
        return self._processes.get(event.pid) or self._processes.get(event.parent)

    def _family(self, event: Event) -> list[int]:
        """The process and its ancestors, as far as they are known."""
        family = [event.pid]
        known = self._processes.get(event.pid)
        pid = known.parent if known else event.parent  # who started it, even if that one is gone
        while pid and pid not in family and len(family) < MAX_ANCESTORS:
            family.append(pid)
            known = self._processes.get(pid)
            pid = known.parent if known else 0
        return family

    def _complete(self, behaviour: Behaviour, number: int, event: Event) -> bool:
        if behaviour.times > 1:
            seen = self._counted.setdefault(behaviour.name, set())
            if len(seen) < MAX_SEQUENCES:
                seen.add(self._text(event))
            return len(seen) >= behaviour.times
        if len(behaviour.steps) == 1:
            return True
        if number > 0:
            begun = next(
                (
                    key
                    for pid in self._family(event)
                    if (key := (behaviour.name, pid)) in self._half
                    and self._half[key][0] >= number
                    and 0 <= event.time - self._half[key][1] <= behaviour.seconds * 1e9
                ),
                None,
            )
            if begun is None:
                return False
            if number == len(behaviour.steps) - 1:
                return True
        self._half[behaviour.name, event.pid] = (number + 1, event.time)
        if len(self._half) > MAX_SEQUENCES:
            self._half.popitem(last=False)
        return False

    def _match(self, behaviour: Behaviour, event: Event) -> Match:
        found = self._process(event)
        return Match(
            behaviour=behaviour.name,
            action=behaviour.action,
            severity=behaviour.severity,
            program=(found.path if found else event.comm)[:300],
            pid=event.pid,
            time=event.time,
            what=self._text(event)[:500],
            cut=bool(event.flags & events.CUT),
        )

    @staticmethod
    def _text(event: Event) -> str:
        if event.kind == events.EXEC:
            return " ".join(event.arguments) or event.path
        if event.kind == events.CONNECT:
            return f"[{event.address}]:{event.port}" if ":" in event.address else f"{event.address}:{event.port}"
        return event.path or event.address or event.call

    def _tell(self, matches: list[Match]) -> list[Match]:
        fresh = []
        for match in matches:
            key = (match.behaviour, match.program, match.what)
            if key in self._told:
                continue
            if len(self._told) >= MAX_MATCHES:
                self.left_out += 1
                continue
            self._told.add(key)
            fresh.append(match)
        return fresh
