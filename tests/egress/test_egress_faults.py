"""Whatever breaks at the network crossing closes it: at once or in time, in bounds, and said."""

from __future__ import annotations

import resource
import socket
import struct
import threading
import time

from tests.egress.world import PYTHON, Live, Sink, World, hello, plain, web
from vestibule.boundary.network.limits import NetworkLimits
from vestibule.boundary.network.outside import Outside
from vestibule.core.verdict import Verdict

DOCS, DB = "docs.example.com:443", "db.example.com:5432"


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-I", "-c", "import socket, struct, sys, time\n" + code)


def test_a_gateway_that_ends_in_the_middle_of_a_transfer_cuts_it(world: World) -> None:
    flowing = threading.Event()

    def endless(client: socket.socket) -> None:
        while True:
            client.sendall(b"x" * 65536)
            flowing.set()

    code = (
        "s = socket.create_connection(('db.example.com', 5432)); count = 0\n"
        "try:\n"
        "  while part := s.recv(65536): count += len(part)\n"
        "  print('ended', count > 0)\n"
        "except ConnectionError: print('reset', count > 0)\n"
        "try: answer = socket.create_connection(('db.example.com', 5432), timeout=2).recv(1)\n"
        "except OSError: answer = b''\n"
        "print('answered' if answer else 'closed')\n"
    )

    def kill(live: Live) -> None:
        assert flowing.wait(10)
        live.kill()
        assert live.died.wait(10)
        for sock in live.sandbox.listeners.values():
            sock.close()  # as the end of a sandbox does

    with plain(endless) as port:
        done = world.run(python(code), {DB: port}, meanwhile=kill)
    assert done.out == "reset True\nclosed\n", done.err
    (outcome,) = done.sink.outcomes("network.connect")
    assert outcome.result == "failed"
    assert {row.rule for row in done.report.connections} == {"network.closed"}


def test_a_log_that_takes_nothing_lets_nothing_out(world: World) -> None:
    reached: list[int] = []
    sink = Sink()
    sink.fail = True
    with plain(lambda client: reached.append(1)) as port:
        done = world.run(
            python("s = socket.create_connection(('db.example.com', 5432), timeout=5)\nprint(s.recv(1))"),
            {DB: port},
            sink=sink,
        )
    assert done.out == "b''\n", done.err
    assert reached == []
    assert [(row.verdict, row.rule) for row in done.report.connections] == [("deny", "dependency.audit")]


def test_a_log_that_fills_up_during_a_transfer_is_said_and_the_next_connection_stays_inside(world: World) -> None:
    sink = Sink()

    def talk(client: socket.socket) -> None:
        client.recv(10)
        sink.fail = True
        client.sendall(b"last words")

    code = (
        "s = socket.create_connection(('db.example.com', 5432))\n"
        "s.sendall(b'x'); print(s.recv(99).decode()); s.close()\n"
        "s = socket.create_connection(('db.example.com', 5432), timeout=5); print(s.recv(1))\n"
    )
    with plain(talk) as port:
        done = world.run(python(code), {DB: port}, sink=sink)
    assert done.out == "last words\nb''\n", done.err
    assert sorted((row.verdict, row.rule) for row in done.report.connections) == [
        ("allow", ""),
        ("deny", "dependency.audit"),
    ]


def test_a_policy_that_raises_lets_nothing_out(world: World) -> None:
    class Broken:
        digest = ""

        def decide(self, _: object) -> Verdict:
            raise RuntimeError("broken")

    world.decider = Broken()
    reached: list[int] = []
    with plain(lambda client: reached.append(1)) as port:
        done = world.run(
            python("print(socket.create_connection(('db.example.com', 5432), timeout=5).recv(1))"), {DB: port}
        )
    assert done.out == "b''\n"
    assert done.decided() == [(DB, "deny", ("dependency.policy",))]
    assert reached == []


def test_a_look_up_that_breaks_or_stalls_lets_nothing_out(world: World) -> None:
    async def broken(_: str, __: int) -> list[str]:
        raise ValueError("a bug of the resolver's")

    code = python("print(socket.create_connection(('db.example.com', 5432), timeout=5).recv(1))")
    done = world.run(code, {DB: 1}, outside=Outside(lookup=broken))
    assert done.out == "b''\n"
    assert [(row.verdict, row.rule) for row in done.report.connections] == [("deny", "dependency.network")]

    async def stalled(_: str, __: int) -> list[str]:
        import asyncio

        await asyncio.sleep(60)
        return []

    began = time.monotonic()
    done = world.run(code, {DB: 1}, outside=Outside(lookup=stalled), limits=NetworkLimits(dial_seconds=0.3))
    assert done.out == "b''\n"
    assert done.decided() == [(DB, "deny", ("network.unresolved",))]
    assert time.monotonic() - began < 10


def test_a_slow_client_is_cut_and_others_are_served_meanwhile(world: World) -> None:
    code = (
        "import ssl\n"
        "slow = [socket.create_connection(('docs.example.com', 443), timeout=9) for _ in range(20)]\n"
        "for s in slow: s.send(b'\\x16')\n"
        "raw = socket.create_connection(('docs.example.com', 443), timeout=9)\n"
        "tls = ssl._create_unverified_context().wrap_socket(raw, server_hostname='docs.example.com')\n"
        "tls.sendall(b'GET /fast HTTP/1.0\\r\\n\\r\\n'); print(tls.recv(15).decode()); cut = 0\n"
        "for s in slow:\n"
        "  try: cut += s.recv(1) == b''\n"
        "  except ConnectionError: cut += 1\n"
        "print(cut)\n"
    )
    with web(hello, world.authority.context) as port:
        done = world.run(python(code), {DOCS: port}, limits=NetworkLimits(hello_seconds=1.0))
    assert done.out == "HTTP/1.1 200 OK\n20\n", done.err
    assert [(row.rule, row.count) for row in done.report.connections if row.verdict == "deny"] == [("network.tls", 20)]


def test_more_connections_than_there_may_be_are_turned_away_and_counted(world: World) -> None:
    code = (
        "held = [socket.create_connection(('db.example.com', 5432), timeout=5) for _ in range(4)]\n"
        "for s in held: print(s.recv(5).decode())\n"
        "more = [socket.create_connection(('db.example.com', 5432), timeout=5) for _ in range(30)]\n"
        "for s in more:\n"
        "  try: assert s.recv(5) == b''\n"
        "  except ConnectionError: pass\n"
        "for s in held: s.close()\n"
    )

    def talk(client: socket.socket) -> None:
        client.sendall(b"hello")
        client.recv(1)

    with plain(talk) as port:
        done = world.run(python(code), {DB: port}, limits=NetworkLimits(connections=4))
    assert done.out == "hello\n" * 4, done.err
    assert done.result.exit_code == 0, done.err
    assert done.report.turned_away == 30


def test_an_outside_that_stalls_is_left_after_its_time(world: World) -> None:
    def silent(client: socket.socket) -> None:
        client.recv(1 << 20)
        client.recv(1 << 20)

    code = (
        "s = socket.create_connection(('db.example.com', 5432), timeout=9); s.sendall(b'x')\n"
        "try: print(s.recv(1))\n"
        "except ConnectionError: print('reset')\n"
    )
    with plain(silent) as port:
        done = world.run(python(code), {DB: port}, limits=NetworkLimits(idle_seconds=0.5))
    assert done.out == "reset\n", done.err
    assert [(row.verdict, row.rule) for row in done.report.connections] == [("allow", "idle")]


def test_an_outside_that_resets_is_passed_on_as_a_reset(world: World) -> None:
    def reset(client: socket.socket) -> None:
        client.sendall(b"half of it")
        client.recv(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    code = (
        "s = socket.create_connection(('db.example.com', 5432), timeout=9)\n"
        "print(s.recv(99).decode()); s.sendall(b'x')\n"
        "try: print('ended', s.recv(99))\n"
        "except ConnectionResetError: print('reset')\n"
    )
    with plain(reset) as port:
        done = world.run(python(code), {DB: port})
    assert done.out == "half of it\nreset\n", done.err
    assert done.sink.outcomes("network.connect")[0].result == "failed"


def test_an_outside_that_refuses_is_said(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        done = world.run(
            python("print(socket.create_connection(('db.example.com', 5432), timeout=9).recv(1))"),
            {DB: taken.getsockname()[1]},
        )
    assert done.out == "b''\n"
    assert [(row.verdict, row.rule) for row in done.report.connections] == [("allow", "ConnectionRefusedError")]


def test_ten_thousand_names_are_answered_at_once_and_take_no_room(world: World) -> None:
    code = (
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(9); s.connect(('127.0.0.1', 53))\n"
        "began = time.monotonic(); none = 0\n"
        "for n in range(10000):\n"
        "  label = b'n%d' % n; head = struct.pack('>6H', n, 256, 1, 0, 0, 0)\n"
        "  s.send(head + bytes([len(label)]) + label + b'\\x07example\\x03com\\0\\0\\1\\0\\1')\n"
        "  answer = s.recv(600); none += answer[3] & 15 == 3 and answer[:2] == struct.pack('>H', n)\n"
        "print(none, time.monotonic() - began < 8)\n"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = world.run(python(code), {DOCS: 1}, limits=NetworkLimits(names=50))
    assert done.out == "10000 True\n", done.err
    assert len(done.report.unknown) == 51
    assert done.report.unknown["(others)"] == 9950
    assert len(done.sink.intents("network.resolve")) == 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_flood_of_queries_ends_and_connections_go_on(world: World) -> None:
    code = (
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setblocking(False); s.connect(('127.0.0.1', 53))\n"
        "q = struct.pack('>6H', 1, 256, 1, 0, 0, 0) + b'\\4evil\\7example\\0\\0\\1\\0\\1'\n"
        "for n in range(20000):\n"
        "  try: s.send(q)\n"
        "  except OSError: pass\n"
        "print(socket.create_connection(('db.example.com', 5432), timeout=9).recv(5).decode())\n"
        "s.setblocking(True); s.settimeout(0.5)\n"
        "try:\n"
        "  while True: s.recv(600)\n"
        "except OSError: pass\n"
        "s.send(q)\n"
        "try: s.recv(600); print('answered')\n"
        "except TimeoutError: print('no more')\n"
    )
    with plain(lambda client: client.sendall(b"hello")) as port:
        done = world.run(python(code), {DB: port}, limits=NetworkLimits(queries=100))
    assert done.out == "hello\nno more\n", done.err


def test_dns_over_tcp_that_stalls_or_lies_is_closed(world: World) -> None:
    code = (
        "def closed(data):\n"
        "  s = socket.create_connection(('127.0.0.1', 53), timeout=9); s.sendall(data)\n"
        "  try: return s.recv(1) == b''\n"
        "  except ConnectionError: return True\n"
        "print(closed(b'\\0'), closed(b'\\xff\\xff'), closed(b'\\0\\0'), closed(b'\\0\\x05abcde'))\n"
    )
    done = world.run(python(code), {}, limits=NetworkLimits(hello_seconds=0.5))
    assert done.out == "True True True True\n", done.err


def test_what_nobody_took_any_more_is_in_the_report(world: World) -> None:
    """What the kernel completed and the gateway did not live to take is no connection that nobody recorded."""
    held, go_on = threading.Event(), threading.Event()

    def busy_then_gone(live: Live) -> None:
        held.set()
        go_on.wait(10)
        live.task.cancel()

    def kill(live: Live) -> None:
        live.loop.call_soon_threadsafe(busy_then_gone, live)
        assert held.wait(10)
        with live.sandbox.connect(DB), live.sandbox.connect(DB):
            go_on.set()
            assert live.died.wait(10)

    with plain(lambda client: None) as port:
        done = world.run("sleep 1", {DB: port}, meanwhile=kill)
    assert [(row.verdict, row.rule, row.count) for row in done.report.connections] == [("deny", "network.closed", 2)]
