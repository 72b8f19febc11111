"""The hold matrix: what every wire format has to keep, told once and without a format.

A format's test module gives a `Wire`: how a `Scenario` looks as a provider's bytes, and how its official SDK reads an
answer. Everything else is here:

    WIRE = MyWire()

    @pytest.mark.parametrize("name", stream_scenarios(WIRE))
    def test_stream(name): check_machine(WIRE, SCENARIOS[name])                 # whole, every split, byte by byte
    @pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
    @pytest.mark.parametrize("name", list(SCENARIOS))
    def test_sdk(house, name, stream): check_sdk(house, WIRE, SCENARIOS[name], stream=stream)   # real sockets, real SDK

The pure part: `machine` makes a format's answer machine, `play` drives one as `exchange.py` does and notes what was
out when; `splits` gives every split of a stream. `Player` is a provider that says given bytes in given pieces with
given pauses, and ends well, cut, reset or never. Arguments of each call hold a `mark` of their own, so that a leak is
a substring. Tools are `look` (allowed) and `harm` (denied); a request offers both (`TOOLS`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, Self

from models_house import MODEL, RUN, House

from vestibule.boundary.models.call_rules import MARK
from vestibule.boundary.models.formats import by_name
from vestibule.boundary.models.formats.base import Asked, FormatName, Offered
from vestibule.boundary.models.hold.base import MAX_HELD, Answer, Decided, Held, Scanned, Told
from vestibule.boundary.models.wire.sse import WireError

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}, "note": {"type": "string"}}}
TOOLS = {"look": SCHEMA, "harm": SCHEMA}
INPUT_TOKENS, OUTPUT_TOKENS = 40, 9
"""What providers of the matrix report, in each answer."""
WHY = f"{MARK}no"


class Part(NamedTuple):
    """A part of an answer. A call's `arguments` are JSON text as the model wrote it; `problem`: what is wrong."""

    kind: Literal["text", "call"]
    text: str = ""
    name: str = ""
    arguments: str = ""
    mark: str = ""
    problem: str = ""

    @property
    def allowed(self) -> bool:
        return self.name == "look" and not self.problem


@dataclass(frozen=True)
class Scenario:
    """An answer. `ending`: it ends as it should, at its longest (`cut`: within the last call), or the connection breaks
    within the last call (`dies`). `interleaved`: the pieces of its calls come in turn."""

    name: str
    parts: tuple[Part, ...]
    ending: Literal["whole", "cut", "dies"] = "whole"
    interleaved: bool = False

    @property
    def calls(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.kind == "call")

    @property
    def released(self) -> tuple[Part, ...]:
        """Calls that reach the agent."""
        good = tuple(part for part in self.calls if part.allowed)
        return good[:-1] if self.ending == "dies" else good

    @property
    def identical(self) -> bool:
        """Everything is allowed, so that the bytes stay as they are."""
        return self.ending == "whole" and all(part.allowed for part in self.calls)

    @property
    def blocked(self) -> bool:
        """Every call of a whole answer is denied: the model is asked again."""
        return self.ending == "whole" and bool(self.calls) and not any(part.allowed for part in self.calls)


def said(text: str) -> Part:
    return Part("text", text)


def call(name: str, number: int, *, problem: str = "", pad: int = 0) -> Part:
    """A call with a mark of its own; `problem` `json` is a key that stands twice, `cut` arguments that do not end."""
    mark = f"mark-{number}-{name}"
    arguments = json.dumps({"path": "a.py", "note": mark + "x" * pad, "odd": 'ü\\n"{'}, ensure_ascii=False)
    if problem == "json":
        arguments = arguments[:-1] + ', "path": "/etc/passwd"}'
    elif problem == "cut":
        arguments = arguments[: arguments.index(mark) + len(mark)]
    return Part("call", name=name, arguments=arguments, mark=mark, problem=problem)


def fragments(part: Part) -> list[str]:
    """A call's arguments in pieces as a provider would stream them, the mark in one of them whole."""
    head, mark, tail = part.arguments.partition(part.mark)
    size = max(6, len(tail) // 4)
    return [head[:4], head[4:], mark, *(tail[i : i + size] for i in range(0, len(tail), size))]


FINAL = Scenario("final", (said("I go another way."),))
"""What the model says after its calls were refused."""
SCENARIOS = {
    item.name: item
    for item in (
        Scenario("text", (said("Hello there."),)),
        Scenario("allow", (said("I look. "), call("look", 0))),
        Scenario("allow_two", (call("look", 0), call("look", 1))),
        Scenario("deny", (said("I do it. "), call("harm", 0))),
        Scenario("deny_two", (call("harm", 0), call("harm", 1))),
        Scenario("mixed", (said("Both. "), call("look", 0), call("harm", 1), call("look", 2))),
        Scenario("cut", (said("I look. "), call("look", 0, problem="cut")), ending="cut"),
        Scenario("dies", (said("I look. "), call("look", 0), call("look", 1)), ending="dies"),
        Scenario("large", (call("look", 0, pad=MAX_HELD // 2),)),
        Scenario("oversized", (said("Much. "), call("look", 0, problem="oversized", pad=MAX_HELD + 1))),
        Scenario("duplicate_keys", (said("Twice. "), call("look", 0, problem="json"))),
        Scenario("interleaved", (call("look", 0), call("harm", 1), call("look", 2)), interleaved=True),
    )
}
HEAVY = frozenset(("large", "oversized"))
"""Too long to be split at every byte; `check_machine` splits them into pieces of odd sizes."""


class Reading(NamedTuple):
    """What the official SDK made of an answer. `calls`: name and arguments, parsed. `error`: what it raised."""

    text: str
    calls: tuple[tuple[str, Any], ...]
    stop: str = ""
    error: BaseException | None = None
    output_tokens: int = 0


class Wire(Protocol):
    """One wire format, for tests."""

    format: FormatName
    prefix: str

    def stream(self, scenario: Scenario) -> bytes | None:
        """The provider's event stream, up to where it breaks if it `dies`. None: the format cannot say this."""
        ...

    def whole(self, scenario: Scenario) -> bytes | None:
        """The provider's JSON; None: the format cannot say this."""
        ...

    def read(self, house: House, url: str, *, stream: bool) -> Reading:
        """Ask with the official SDK, offering `TOOLS`, without retries; never raises what the SDK raises."""
        ...

    def stops(self, reading: Reading, scenario: Scenario) -> bool:
        """Whether the answer's stop reason fits: calls to carry out, an ordinary end, or a length reached."""
        ...


# --- pure machines ---------------------------------------------------------------------------------------


@dataclass
class Played:
    """What a machine gave. `before[i]`: what was out when its i-th question came."""

    out: bytes = b""
    held: list[Held] = field(default_factory=list)
    before: list[bytes] = field(default_factory=list)
    text: str = ""
    told: Told = field(default_factory=Told)
    scanned: Scanned = field(default_factory=Scanned)
    blocked: bool = False
    error: WireError | None = None


Rule = Callable[[Held], Decided]


def by_rule(held: Held) -> Decided:
    """The matrix' policy: `harm` and calls with something wrong are denied, texts pass."""
    if held.kind == "text":
        return Decided(True)
    twice = _twice(held.arguments)
    if held.name != "look" or held.problem or twice:
        return Decided(False, WHY)
    return Decided(True)


def _twice(arguments: bytes) -> bool:
    def pairs(found: list[tuple[str, Any]]) -> Any:
        if len(dict(found)) != len(found):
            raise ValueError
        return dict(found)

    try:
        json.loads(arguments or b"{}", object_pairs_hook=pairs)
    except ValueError:
        return True
    return False


def asked(wire: Wire, *, stream: bool, **more: Any) -> Asked:
    tools = tuple(Offered(name, schema=schema) for name, schema in TOOLS.items())
    body = {"model": MODEL, "messages": [{"role": "user", "content": "go"}]}
    return Asked(wire.format, "generate", MODEL, body, stream, 100, 1, **{"tools": tools, **more})


def machine(wire: Wire, *, stream: bool, hold_text: bool = False, **more: Any) -> Answer:
    form, request = by_name(wire.format), asked(wire, stream=stream, **more)
    return form.stream(request, hold_text=hold_text) if stream else form.whole(request, hold_text=hold_text)


def play(answer: Answer, chunks: Sequence[bytes], rule: Rule = by_rule, *, close: bool = True) -> Played:
    """Drive a machine as the exchange does. `close`: end a turn of denied calls instead of asking again."""
    found = Played()
    out = bytearray()

    def through(step: Any) -> None:
        while True:
            out.extend(step.out)
            found.text += step.text
            if not step.held:
                return
            found.held += step.held
            found.before += [bytes(out)] * len(step.held)
            step = answer.decide([rule(item) for item in step.held])

    try:
        for chunk in chunks:
            through(answer.feed(chunk))
            if answer.told.stopped or answer.told.failed:
                break
        through(answer.end())
    except WireError as error:
        found.error = error
    found.blocked = answer.blocked
    if answer.blocked and close:
        out += answer.close()
    found.out, found.told, found.scanned = bytes(out), answer.told, answer.scanned
    return found


def splits(data: bytes) -> Iterator[list[bytes]]:
    """The data cut in two at every byte, and into single bytes."""
    for cut in range(len(data) + 1):
        yield [data[:cut], data[cut:]]
    yield [data[i : i + 1] for i in range(len(data))]


def pieces(data: bytes, size: int = 65_537) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def stream_scenarios(wire: Wire) -> list[str]:
    return [name for name, scenario in SCENARIOS.items() if wire.stream(scenario) is not None]


def check_machine(wire: Wire, scenario: Scenario) -> Played:
    """A streamed scenario through the machine, however it is split: what leaves, when, and what was said of it."""
    data = wire.stream(scenario)
    assert data is not None
    first = play(machine(wire, stream=True), [data])
    check_played(scenario, first, data)
    for chunks in (pieces(data), pieces(data, 999)) if scenario.name in HEAVY else splits(data):
        again = play(machine(wire, stream=True), chunks)
        assert again.out == first.out
        assert again.held == first.held
        assert (again.told.tokens, again.told.stop_reason) == (first.told.tokens, first.told.stop_reason)
        assert again.scanned == first.scanned
        assert again.text == first.text
        no_leak(scenario, again)
    return first


def check_whole_machine(wire: Wire, scenario: Scenario) -> Played:
    data = wire.whole(scenario)
    assert data is not None
    found = play(machine(wire, stream=False), [data])
    check_played(scenario, found, data)
    return found


def check_played(scenario: Scenario, found: Played, data: bytes) -> None:
    no_leak(scenario, found)
    if scenario.identical:
        assert found.out == data
    if scenario.ending == "dies":
        assert found.error is not None
    else:
        assert found.error is None
        assert [item.name for item in found.held if item.kind == "call"] == [part.name for part in scenario.calls]
        assert found.scanned.calls == len(scenario.calls)
        assert found.scanned.denied == len(scenario.calls) - len(scenario.released)
        assert (found.told.tokens.input, found.told.tokens.output) == (INPUT_TOKENS, OUTPUT_TOKENS)
        assert found.told.reported
        assert found.told.stopped
    assert found.blocked == scenario.blocked
    for part in scenario.parts:
        if part.kind == "text":
            assert part.text in found.text


def no_leak(scenario: Scenario, found: Played) -> None:
    """No byte of a call before its decision, nor of one that was not allowed ever."""
    released = {part.mark for part in scenario.released}
    for part in scenario.calls:
        assert (part.mark.encode() in found.out) == (part.mark in released)
    calls = [held for held in found.held if held.kind == "call"]
    for place, (held, before) in enumerate(zip(calls, found.before, strict=False)):
        for later in scenario.calls[place:]:
            assert later.mark.encode() not in before, held


# --- a provider that says given bytes --------------------------------------------------------------------


@dataclass(frozen=True)
class Says:
    """One answer of a provider: pieces of its body (a float is a pause in seconds) and how it ends.

    `then`: `end` as it should; `cut` closes the connection too early, `reset` hard; `wait` says nothing more until the
    player is closed. `length`: the content-length it claims; None: chunked.
    """

    pieces: tuple[bytes | float, ...]
    kind: str = "text/event-stream"
    status: str = "200 OK"
    headers: str = ""
    then: Literal["end", "cut", "reset", "wait"] = "end"
    length: int | None = None


def says_stream(*parts: bytes | float, **more: Any) -> Says:
    return Says(parts, **more)


def says_json(body: bytes, **more: Any) -> Says:
    return Says((body,), **{"kind": "application/json", "length": len(body), **more})


class Player:
    """A provider on loopback that answers its n-th request with the n-th of `answers` (the last again and again).

    Serves connections at once, keeps them open between answers. `bodies`: what it was asked, parsed.
    """

    def __init__(self, *answers: Says) -> None:
        self.answers = answers
        self.bodies: list[Any] = []
        self.connections = 0
        self.paths: list[str] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._open: list[socket.socket] = []
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._sock.getsockname()[1]}"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    def close(self) -> None:
        self._closed.set()
        self._sock.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next(int(x.partition(b":")[2]) for x in lines if x.startswith(b"content-length:"))
                parts, size = [data], len(data)
                while size < length:
                    parts.append(connection.recv(1 << 20))
                    size += len(parts[-1])
                whole = b"".join(parts)
                body, data = whole[:length], whole[length:]
                with self._lock:
                    says = self.answers[min(len(self.bodies), len(self.answers) - 1)]
                    self.bodies.append(json.loads(body) if body else None)
                    self.paths.append(head.split(b" ")[1].decode())
                if not self._say(connection, says):
                    return

    def _say(self, connection: socket.socket, says: Says) -> bool:
        size = f"content-length: {says.length}" if says.length is not None else "transfer-encoding: chunked"
        head = f"HTTP/1.1 {says.status}\r\ncontent-type: {says.kind}\r\n{size}\r\n{says.headers}\r\n"
        connection.sendall(head.encode())
        for piece in says.pieces:
            if isinstance(piece, float):
                self._closed.wait(piece)
            elif piece:
                framed = piece if says.length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
                connection.sendall(framed)
        if says.then == "end":
            if says.length is None:
                connection.sendall(b"0\r\n\r\n")
            return True
        if says.then == "wait":
            self._closed.wait(60)
        elif says.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


# --- through the real gateway, with the official SDK ------------------------------------------------------


def player_for(wire: Wire, scenario: Scenario, *, stream: bool) -> Player | None:
    """A provider that answers with the scenario, and after refused calls with `FINAL`."""
    render = wire.stream if stream else wire.whole
    data, final = render(scenario), render(FINAL)
    if data is None or final is None:
        return None
    if stream:
        then: Any = "cut" if scenario.ending == "dies" else "end"
        return Player(says_stream(*pieces(data, 40_001), then=then), says_stream(final))
    if scenario.ending == "dies":
        return Player(says_json(data[: len(data) // 2], length=len(data), then="cut"))
    return Player(says_json(data), says_json(final))


def open_house(house: House, wire: Wire, player: Player) -> str:
    house.decider.denied_tools.add("harm")
    return house.open(player.url, form=wire.format)


def check_sdk(house: House, wire: Wire, scenario: Scenario, *, stream: bool) -> Reading | None:
    """A scenario through the real gateway: what the SDK reads, what is paid, what the log says.

    None: the format cannot say this.
    """
    player = player_for(wire, scenario, stream=stream)
    if player is None:
        return None
    with player:
        reading = wire.read(house, open_house(house, wire, player), stream=stream)
        house.drain()
    requests = 2 if scenario.blocked else 1
    assert player.requests == requests
    if scenario.ending == "dies":
        assert reading.error is not None
        assert "dependency.provider" in str(reading.error)
        # Nothing of a whole answer passes; of a stream, what was complete.
        assert len(reading.calls) <= len(scenario.released)
    else:
        assert reading.error is None, reading.error
        found = [(name, arguments) for name, arguments in reading.calls]
        assert found == [(part.name, json.loads(part.arguments)) for part in scenario.released]
        assert wire.stops(reading, scenario)
        for part in scenario.parts:
            if part.kind == "text":
                assert part.text.strip() in reading.text
        assert reading.text.count(MARK) == len(scenario.calls) - len(scenario.released)
        if scenario.blocked:
            assert FINAL.parts[0].text in reading.text
        check_paid(house, requests)
    check_log(house, scenario, requests)
    return reading


def check_paid(house: House, requests: int) -> None:
    usage = house.ledger.usage(RUN)
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (
        requests,
        requests * INPUT_TOKENS,
        requests * OUTPUT_TOKENS,
    )


def check_log(house: House, scenario: Scenario, requests: int) -> None:
    """Each request has its intent and outcome; the outcome says what was looked at."""
    intents = [event for event in house.audit.of("intent") if event.action == "model.request"]
    outcomes = [event for event in house.audit.of("outcome") if event.action == "model.request"]
    assert len(intents) == len(outcomes) == requests
    calls = [event for event in house.audit.of("intent") if event.action == "model.tool_call"]
    scanned = [event.details["scanned"] for event in outcomes]
    if scenario.ending == "dies":
        assert [event.result for event in outcomes] == ["failed"]
        return
    assert [event.result for event in outcomes] == ["ok"] * requests
    assert len(calls) == len(scenario.calls) == scanned[0]["calls"]
    assert [event.verdict.value for event in calls] == ["allow" if part.allowed else "deny" for part in scenario.calls]
    assert scanned[0]["denied"] == len(scenario.calls) - len(scenario.released)


def later(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        threading.Event().wait(0.01)


__all__ = [
    "FINAL",
    "HEAVY",
    "INPUT_TOKENS",
    "OUTPUT_TOKENS",
    "SCENARIOS",
    "TOOLS",
    "WHY",
    "Part",
    "Played",
    "Player",
    "Reading",
    "Says",
    "Scenario",
    "Wire",
    "asked",
    "by_rule",
    "call",
    "check_log",
    "check_machine",
    "check_paid",
    "check_played",
    "check_sdk",
    "check_whole_machine",
    "fragments",
    "later",
    "machine",
    "no_leak",
    "open_house",
    "pieces",
    "play",
    "player_for",
    "said",
    "says_json",
    "says_stream",
    "splits",
    "stream_scenarios",
]
