"""The guard proven live: what must be refused is asked for from inside, before the agent starts."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import struct


def _nowhere() -> str:
    """A name that nobody has (RFC 6761, section 6.4)."""
    return f"probe-{secrets.token_hex(6)}.invalid"


def refuses_name(sock: socket.socket, *, seconds: float = 10) -> bool:
    """Whether the resolver says of a name that is not the task's that there is none.

    `sock` is connected to the resolver's listener from inside the sandbox; it is closed here.
    """
    name = b"".join(bytes([len(part)]) + part.encode() for part in _nowhere().split("."))
    query = struct.pack(">6H", 0x5652, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack(">2H", 1, 1)
    try:
        with sock:
            sock.settimeout(seconds)
            sock.sendall(len(query).to_bytes(2, "big") + query)
            answer = _exactly(sock, int.from_bytes(_exactly(sock, 2), "big"))
    except OSError:
        return False
    if len(answer) < 12:
        return False
    number, flags, _, answers, authority, more = struct.unpack(">6H", answer[:12])
    return number == 0x5652 and flags & 0x800F == 0x8003 and not (answers or authority or more)


def refuses_connection(sock: socket.socket, *, seconds: float = 10) -> bool:
    """Whether a TLS connection that names another server is cut without an answer.

    `sock` is connected to the listener of an allowed name from inside the sandbox; it is closed here.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname=_nowhere())
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    try:
        with sock:
            sock.settimeout(seconds)
            sock.sendall(outgoing.read())
            return sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    except OSError:
        return False


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data
