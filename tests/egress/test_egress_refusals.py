"""What does not leave: other names in the handshake, no handshake, inner addresses, spent budgets, wrong programs."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from tests.egress.world import PYTHON, World, hello, plain, web
from vestibule.boundary.network.limits import NetworkLimits
from vestibule.boundary.network.outside import Outside
from vestibule.core.labels import Confidentiality, Integrity, Label

DOCS = "docs.example.com:443"


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-I", "-c", "import socket, ssl, sys, struct, time\n" + code)


class Counting:
    """A handler that counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, client: socket.socket) -> None:
        self.count += 1
        client.recv(4096)


HANDSHAKE = """
def shake(name, check=True):
    raw = socket.create_connection(('docs.example.com', 443), timeout=5)
    context = ssl._create_unverified_context()
    try:
        context.wrap_socket(raw, server_hostname=name)
        return 'through'
    except (ssl.SSLError, ConnectionError, EOFError, OSError):
        return 'cut'
"""

SEND = """
def send(data):
    raw = socket.create_connection(('docs.example.com', 443), timeout=5)
    raw.sendall(data)
    try:
        return 'answered' if raw.recv(1) else 'cut'
    except ConnectionError:
        return 'cut'
"""


@pytest.mark.parametrize(
    ("what", "code", "rule"),
    [
        ("another name", HANDSHAKE + "print(shake('other.example.com'))", "network.sni"),
        ("a name below", HANDSHAKE + "print(shake('docs.example.com.evil.example'))", "network.sni"),
        ("no name", HANDSHAKE + "print(shake(None))", "network.sni"),
        ("an address for a name", HANDSHAKE + "print(shake('127.64.0.2'))", "network.sni"),
        ("ssh", SEND + "print(send(b'SSH-2.0-x\\r\\n'))", "network.tls"),
        ("plain http", SEND + "print(send(b'GET / HTTP/1.1\\r\\nhost: docs.example.com\\r\\n\\r\\n'))", "network.tls"),
        ("a proxy's CONNECT", SEND + "print(send(b'CONNECT other.example.com:443\\r\\n\\r\\n'))", "network.tls"),
        ("a record that is none", SEND + "print(send(bytes([22, 3, 1, 255, 255]) + b'x' * 40))", "network.tls"),
        ("a half hello, then the end", SEND.replace("raw.sendall(data)", "raw.sendall(data); raw.shutdown(1)")
         + "print(send(bytes([22, 3, 1, 2, 0, 1, 0, 1])))", "network.tls"),
    ],
)  # fmt: skip
def test_of_a_connection_that_does_not_name_its_host_nothing_goes_out(
    world: World, what: str, code: str, rule: str
) -> None:
    seen = Counting()
    with plain(seen) as port:
        done = world.run(python(code), {DOCS: port})
    assert done.out == "cut\n", (what, done.err)
    assert done.decided() == [(DOCS, "deny", (rule,))]
    assert seen.count == 0
    assert done.report.connections[0].verdict == "deny"


def _looking_up(*addresses: str) -> tuple[Outside, list[str]]:
    asked: list[str] = []

    async def look(host: str, _: int) -> list[str]:
        asked.append(host)
        return list(addresses)

    return Outside(lookup=look), asked


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.100.100.200", "::1", "::ffff:127.0.0.1", "fd00:ec2::254"],
)
def test_a_name_that_leads_inside_is_not_dialled(world: World, address: str) -> None:
    outside, asked = _looking_up(address)
    done = world.run(python(HANDSHAKE + "print(shake('docs.example.com'))"), {DOCS: 1}, outside=outside)
    assert done.out == "cut\n"
    assert done.decided() == [(DOCS, "deny", ("network.private",))]
    assert asked == ["docs.example.com"]


def test_a_name_is_looked_up_once_and_what_was_judged_is_dialled(world: World) -> None:
    """A second answer, given to whoever asks again, leads nowhere."""
    answers = ["127.0.0.1", "169.254.169.254"]
    asked: list[str] = []

    async def look(host: str, _: int) -> list[str]:
        asked.append(host)
        return [answers[min(len(asked), len(answers)) - 1]]

    seen = Counting()
    with plain(seen) as port:
        outside = Outside(lookup=look, private=frozenset({"docs.example.com"}))
        done = world.run(
            python(f"socket.create_connection(('docs.example.com', {port})).sendall(b'x')"),
            {f"docs.example.com:{port}": port},
            outside=outside,
        )
        # The program does not wait for an answer: the server may take the connection after its end.
        deadline = time.monotonic() + 10
        while not seen.count and time.monotonic() < deadline:
            time.sleep(0.01)
    assert seen.count == 1, done.err
    assert asked == ["docs.example.com"]


def test_a_name_without_an_address_says_so(world: World) -> None:
    async def look(_: str, __: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    done = world.run(python(HANDSHAKE + "print(shake('docs.example.com'))"), {DOCS: 1}, outside=Outside(lookup=look))
    assert done.decided() == [(DOCS, "deny", ("network.unresolved",))]


def test_what_a_name_may_be_sent_in_one_run_is_bounded_over_its_connections(world: World) -> None:
    got: list[int] = []

    def swallow(client: socket.socket) -> None:
        count = 0
        while part := client.recv(65536):
            count += len(part)
            got.append(len(part))

    code = (
        "for _ in range(3):\n"
        "  s = socket.create_connection(('db.example.com', 5432)); s.settimeout(5)\n"
        "  try:\n"
        "    for _ in range(8): s.sendall(b'x' * 65536); time.sleep(0.01)\n"
        "    s.shutdown(1); s.recv(1); print('sent')\n"
        "  except OSError: print('cut')\n"
    )
    with plain(swallow) as port:
        done = world.run(python(code), {"db.example.com:5432": port}, limits=NetworkLimits(sent_bytes=700_000))
    assert done.out == "sent\ncut\ncut\n", done.err
    assert sum(got) <= 700_000
    assert done.decided()[-1] == ("db.example.com:5432", "deny", ("network.bytes",))
    assert "network.bytes" in {row.rule for row in done.report.connections if row.verdict == "allow"}


def test_the_rate_of_a_name_is_kept(world: World) -> None:
    def give(client: socket.socket) -> None:
        client.sendall(b"x" * 600_000)

    code = (
        "began = time.monotonic(); s = socket.create_connection(('db.example.com', 5432)); count = 0\n"
        "while part := s.recv(65536): count += len(part)\n"
        "print(count, time.monotonic() - began > 0.25)\n"
    )
    with plain(give) as port:
        done = world.run(python(code), {"db.example.com:5432": port}, limits=NetworkLimits(rate_bytes=2_000_000))
    assert done.out == "600000 True\n", done.err


def test_a_rule_for_one_program_says_who_asked_instead(world: World) -> None:
    other = "import socket as s; c = s.create_connection(('docs.example.com', 443)); c.send(bytes(1)); c.recv(1)"
    script = (
        f'curl -sS https://docs.example.com/ok; {PYTHON} -I -c "{other}" 2>/dev/null;'
        "cp /usr/bin/curl /tmp/curl; /tmp/curl -sS https://docs.example.com/copy"
    )
    with web(hello, world.authority.context) as port:
        done = world.run(script, {DOCS: port}, programs={DOCS: ("curl",)})
    assert done.out.split("\n")[0] == "hello /ok", done.err
    assert "copy" not in done.out
    refused = [item for item in done.sink.intents("network.connect") if item.verdict == "deny"]
    assert len(refused) == 2
    assert refused[1].reasons == ("network.program",)
    assert refused[1].details["refusal"]["fact"] == "docs.example.com:443: allowed for curl, asked by curl"
    assert "network.program" in refused[0].reasons
    assert "asked by python3" in refused[0].details["refusal"]["fact"]


def test_a_program_that_shares_its_connection_is_judged_with_who_it_shares_it_with(world: World) -> None:
    code = (
        "import os, subprocess\n"
        "raw = socket.create_connection(('docs.example.com', 443)); os.set_inheritable(raw.fileno(), True)\n"
        "if sys.argv[1:]:\n"
        "  child = subprocess.Popen(['sleep', '20'], close_fds=False)\n"
        "  while os.readlink(f'/proc/{child.pid}/exe') != '/usr/bin/sleep': time.sleep(0.01)\n"
        "try:\n"
        "  ssl._create_unverified_context().wrap_socket(raw, server_hostname='docs.example.com')\n"
        "  print('through', flush=True)\n"
        "except OSError: print('cut', flush=True)\n"
        "os._exit(0)\n"
    )
    only = {DOCS: ("python3",)}
    with web(hello, world.authority.context) as port:
        alone = world.run(python(code), {DOCS: port}, programs=only)
        shared = world.run((*python(code), "share"), {DOCS: port}, programs=only)
    assert alone.out == "through\n", alone.err
    assert shared.out == "cut\n", shared.err
    assert shared.decided() == [(DOCS, "deny", ("network.program",))]


OUTSIDER = Label(integrity=Integrity.OUTSIDER, confidentiality=Confidentiality.INTERNAL)


@pytest.mark.parametrize(
    ("label", "verdict", "reason"),
    [
        (OUTSIDER, "hold", "labels.rule_of_two"),
        (Label(integrity=Integrity.WEB, confidentiality=Confidentiality.PUBLIC), "allow", ""),
        (Label(integrity=Integrity.MEMBER, confidentiality=Confidentiality.SECRET), "deny", "labels.clearance"),
    ],
)
def test_what_the_run_has_read_decides_whether_anything_leaves(
    world: World, label: Label, verdict: str, reason: str
) -> None:
    with web(hello, world.authority.context) as port:
        done = world.run("curl -sS https://docs.example.com/", {DOCS: port}, label=label)
    assert done.decided() == [(DOCS, verdict, (reason,) if reason else ())]
    assert (done.out == "hello /\n") is (verdict == "allow")
    assert done.report.connections[0].verdict == verdict


def _dns(name: bytes, kind: int, *, flags: int = 0x0100, count: int = 1) -> str:
    labels = b"".join(bytes([len(part)]) + part for part in name.split(b".")) + b"\0"
    return repr(struct.pack(">6H", 7, flags, count, 0, 0, 0) + labels + struct.pack(">2H", kind, 1))


def test_dns_answers_from_the_table_and_forwards_nothing(world: World) -> None:
    code = (
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(('127.0.0.1', 53))\n"
        "def ask(data):\n  s.send(data); return s.recv(600)\n"
        f"a = ask({_dns(b'docs.example.com', 1)}); print(a[3] & 15, a[7], socket.inet_ntoa(a[-4:]))\n"
        f"for q in ({_dns(b'docs.example.com', 16)}, {_dns(b'docs.example.com', 28)}):\n"
        "  a = ask(q); print(a[3] & 15, a[7])\n"
        f"a = ask({_dns(b'x' * 60 + b'.evil.example', 16)}); print(a[3] & 15, a[7])\n"
        f"a = ask({_dns(b'docs.example.com', 1, count=2)}); print(a[3] & 15, a[7])\n"
    )
    done = world.run(python(code), {DOCS: 1})
    assert done.out == "0 1 127.64.0.2\n0 0\n0 0\n3 0\n1 0\n", done.err
    assert [item.resource for item in done.sink.intents("network.resolve")] == ["x" * 60 + ".evil.example"]


def test_names_are_compared_in_one_form(world: World) -> None:
    with web(hello, world.authority.context) as port:
        done = world.run(
            "curl -sS https://DOCS.Example.COM/case; curl -sS https://docs.example.com./dot || echo no-dot;"
            "curl -sS https://xdocs.example.com/ || echo no-suffix;"
            "curl -sS https://docs.example.com.evil.example/ || echo no",
            {DOCS: port},
        )  # fmt: skip
    assert done.out.split("\n")[0] == "hello /case"
    assert done.out.split("\n")[-3:-1] == ["no-suffix", "no"]


def test_udp_and_other_sockets_lead_nowhere(world: World) -> None:
    code = (
        "def out(family, kind, proto, place):\n"
        "  try:\n"
        "    s = socket.socket(family, kind, proto); s.settimeout(2); s.connect(place); s.send(b'x'); return 'sent'\n"
        "  except OSError as e: return type(e).__name__\n"
        "print(out(2, 2, 0, ('192.0.2.1', 443)), out(2, 2, 0, ('127.64.0.2', 443)), out(2, 3, 1, ('192.0.2.1', 0)),"
        " out(10, 1, 0, ('2001:db8::1', 443)), out(2, 1, 0, ('127.0.0.1', 8080)))\n"
    )
    done = world.run(python(code), {DOCS: 1})
    words = done.out.split()
    assert words[0] == "OSError", done.err
    assert words[2] in ("PermissionError", "OSError")
    assert words[3] in ("OSError", "PermissionError")
    assert words[4] == "ConnectionRefusedError"
    assert done.decided() == []


def _talker(reply: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(reply)


def test_a_half_closed_connection_carries_the_other_half_to_its_end(world: World) -> None:
    done_reading = threading.Event()

    def talk(client: socket.socket) -> None:
        while client.recv(4096):
            pass
        done_reading.set()
        client.sendall(b"after your end")

    code = (
        "s = socket.create_connection(('db.example.com', 5432)); s.sendall(b'all'); s.shutdown(socket.SHUT_WR)\n"
        "print(s.recv(100).decode())\n"
    )
    with plain(talk) as port:
        done = world.run(python(code), {"db.example.com:5432": port})
    assert done.out == "after your end\n", done.err
    assert done_reading.is_set()
    assert done.report.connections[0].rule == ""
