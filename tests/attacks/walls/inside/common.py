"""What the attacks share. Runs inside a sandbox, and outside as a control. *Stdlib only.*

An attack is a function that says what it got: `heard` takes text that came from somewhere (the judge outside looks for
its canary in it), `gained` names a thing that nobody inside should hold. Whatever is refused raises or returns.
"""

# mypy: ignore-errors
import contextlib
import ctypes
import errno
import json
import os
import re
import select
import signal
import socket
import ssl
import time

ATTACKS = {}
libc = ctypes.CDLL(None, use_errno=True)
GIVEN = {}


class Report:
    """What one attack got."""

    def __init__(self):
        self.got = {"heard": [], "gained": [], "how": []}

    def heard(self, data):
        text = data.decode("latin-1") if isinstance(data, bytes) else str(data)
        self.got["heard"] += [text[:60], *re.findall(r"CANARY-[0-9a-f]+-[a-z]+|gateway answers", text)[:20]]

    def gained(self, what):
        self.got["gained"].append(str(what))

    def how(self, what):
        self.got["how"].append(str(what)[:200])

    @contextlib.contextmanager
    def trying(self, what=""):
        """An error ends this try, not the attack, and is told."""
        try:
            yield
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, type(error).__name__)
            self.how(f"{what}: {name}" if what else name)
        except (ValueError, UnicodeError) as error:
            self.how(f"{what}: {type(error).__name__}")


def attack(*ids, seconds=5):
    def register(function):
        for name in ids:
            ATTACKS[name] = (function, seconds)
        return function

    return register


def call(name, *args):
    """A system call by name; raises OSError."""
    ctypes.set_errno(0)
    numbers = [ctypes.c_long(item) if isinstance(item, int) else item for item in args]
    result = libc.syscall(ctypes.c_long(GIVEN["numbers"][name]), *numbers)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def run(name):
    """One attack in a process of its own, ended after its time."""
    function, seconds = ATTACKS[name]
    began = time.monotonic()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        report = Report()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        try:
            with report.trying("attack"):
                function(report, name)
        except Exception as error:
            report.how(f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(OSError):
                os.write(writing, json.dumps(report.got).encode()[:60000] + b"\n")
            os._exit(0)
    os.close(writing)
    data, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
        part = os.read(reading, 65536)
        data += part
        if not part or data.endswith(b"\n"):  # whatever else it started may hold the pipe open
            break
    os.close(reading)
    with contextlib.suppress(OSError):
        if not data:
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if data:
        return {**json.loads(data), "ms": int((time.monotonic() - began) * 1000)}
    code = os.waitstatus_to_exitcode(status)
    return {
        "heard": [],
        "gained": [],
        "how": [f"ended by signal {-code}" if code < 0 else f"no answer, exit {code}"],
        "ms": seconds * 1000,
    }


# --- talking ---------------------------------------------------------------------------------------------------------


def speak(address, port, send=b"", *, family=None, kind=socket.SOCK_STREAM, seconds=1.0, most=65536):
    """What the other side says to `send`, over a plain connection or a datagram."""
    family = family or (socket.AF_INET6 if ":" in str(address) else socket.AF_INET)
    with socket.socket(family, kind) as sock:
        sock.settimeout(seconds)
        sock.connect((address, port))
        if send:
            sock.sendall(send)
        return drain(sock, most)


def drain(sock, most=65536):
    data = b""
    with contextlib.suppress(OSError):
        while len(data) < most:
            part = sock.recv(65536)
            if not part:
                break
            data += part
    return data


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def request(host, path, case, *, method="GET", more=b"", body=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Case: case={case};\r\nConnection: close\r\n"
    return head.encode() + more + (b"Content-Length: %d\r\n" % len(body) if body else b"") + b"\r\n" + body


def https(address, port, sni, case, *, path="/", host=None, method="GET", body=b"", seconds=2.0):
    """An HTTPS answer; `sni` None sends none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as plain:
        plain.settimeout(seconds)
        plain.connect((address, port))
        with context().wrap_socket(plain, server_hostname=sni) as sock:
            sock.sendall(request(host or sni or address, path, case, method=method, body=body))
            return drain(sock)


def http(address, port, host, case, *, path="/", raw=None):
    return speak(address, port, raw or request(host, path, case), seconds=1.5)


def address_of(name):
    """The address of a name here: what the machine's resolver says, or what the control knows."""
    if name in GIVEN.get("names", {}):
        return GIVEN["names"][name]
    return socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]


def client_hello(sni, case, *, ech=False, extra=b""):
    """A ClientHello made by hand; the case is in its random bytes, so whoever gets it can tell."""
    extensions = b""
    for name in [sni] if isinstance(sni, bytes) else sni or []:
        entry = b"\0" + len(name).to_bytes(2, "big") + name
        listed = len(entry).to_bytes(2, "big") + entry
        extensions += b"\0\0" + len(listed).to_bytes(2, "big") + listed
    if ech:
        extensions += b"\xfe\x0d" + (64).to_bytes(2, "big") + b"\0" * 64
    extensions += extra
    random = f"case={case};".encode().ljust(32, b"\0")
    body = b"\x03\x03" + random + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def query(name, kind=1, case=""):
    """A DNS query; labels are given as bytes between dots."""
    raw = name if isinstance(name, bytes) else name.encode()
    labels = b"".join(bytes([len(part)]) + part for part in raw.split(b".") if part)
    return b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\x01"


def resolves(name, kind=1):
    """Whether the resolver inside gives any record for the name."""
    answer = speak("127.0.0.1", 53, query(name, kind), kind=socket.SOCK_DGRAM, seconds=1.0, most=1)
    return int.from_bytes(answer[6:8], "big") > 0


def resolves_text(name):
    with contextlib.suppress(OSError, UnicodeError):
        return bool(socket.getaddrinfo(name, 443))
    return False
