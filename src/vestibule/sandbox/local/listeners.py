"""Sockets in a sandbox's network namespace, made from outside. *Stdlib only; runs in the keeper.*

Rules it keeps:
1. The namespace holds `lo` and nothing else: no route, no resolver, no other interface.
2. Each name has one loopback address and one listener; accepted connections come out by descriptor, so no
   Vestibule code runs inside and the program cannot take the address before we do.
3. A probe of egress that neither connects nor is refused at once counts as connected: a packet that waits for an
   answer has left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from vestibule.sandbox.local import syscalls

PORT = 80
_IP_FREEBIND = 15

PROBES: tuple[tuple[str, int, int, str, int], ...] = (
    ("tcp 192.0.2.1:443", socket.AF_INET, socket.SOCK_STREAM, "192.0.2.1", 443),
    ("tcp 169.254.169.254:80", socket.AF_INET, socket.SOCK_STREAM, "169.254.169.254", 80),
    ("tcp 10.0.0.1:22", socket.AF_INET, socket.SOCK_STREAM, "10.0.0.1", 22),
    ("tcp 127.0.0.1:22", socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 22),
    ("tcp [2001:db8::1]:443", socket.AF_INET6, socket.SOCK_STREAM, "2001:db8::1", 443),
    ("tcp [fd00:ec2::254]:80", socket.AF_INET6, socket.SOCK_STREAM, "fd00:ec2::254", 80),
    ("udp 192.0.2.53:53", socket.AF_INET, socket.SOCK_DGRAM, "192.0.2.53", 53),
    ("udp [2001:db8::53]:443", socket.AF_INET6, socket.SOCK_DGRAM, "2001:db8::53", 443),
)
"""Documentation addresses (RFC 5737, RFC 3849), link-local metadata services, a private and a loopback address."""


def enter_network(pid: int, *, privileged: bool) -> None:
    """Move the calling process into the network namespace of `pid`, a sandbox's first process.

    Without privileges the way leads through the user namespace that owns it, whose creator we are.
    """
    net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(net).st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116
            return
        if not privileged:
            user = syscalls.owning_userns(net)
            try:
                syscalls.setns(user, syscalls.CLONE_NEWUSER)
            finally:
                os.close(user)
        syscalls.setns(net, syscalls.CLONE_NEWNET)
    finally:
        os.close(net)


def listen(address: str, port: int = PORT, kind: str = "tcp") -> socket.socket:
    """A listener there, or a datagram socket (`udp`). The loopback interface may still be coming up."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == "tcp":
            sock.listen(256)
    except OSError:
        sock.close()
        raise
    return sock


def connect(address: str, port: int = PORT) -> socket.socket:
    """A client socket from inside. The kernel completes it; nobody has to accept yet."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(2)
        sock.connect((address, port))
        sock.setblocking(True)
    except OSError:
        sock.close()
        raise
    return sock


def probe_egress() -> dict[str, str]:
    """Target → `ENETUNREACH` and the like, or `connected`."""
    found = {target: _attempt(family, kind, host, port) for target, family, kind, host, port in PROBES}
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    found["interfaces other than lo"] = "connected" if others else "ENODEV"
    return found


def _attempt(family: int, kind: int, host: str, port: int) -> str:
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "error")
    with contextlib.closing(sock):
        sock.settimeout(0.25)
        try:
            if kind == socket.SOCK_DGRAM:
                sock.sendto(b"vestibule", (host, port))
            else:
                sock.connect((host, port))
        except TimeoutError:
            return "connected"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "error")
    return "connected"
