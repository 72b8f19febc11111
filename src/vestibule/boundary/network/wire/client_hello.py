"""The name in a TLS ClientHello, read from the first bytes of a connection. Pure; nothing is decrypted or changed.

Rules this module keeps:
1. Only a whole, well-formed ClientHello gives a name. What is cut, too long, not TLS or contradicts itself is a reason.
2. Exactly one host name of exactly one server_name extension counts: none, two or another kind is a reason, so that
   the other side cannot read another name than we did.
3. An encrypted ClientHello (ECH) hides the true name from us: it is refused, except for the empty-handed form (GREASE)
   that browsers send to servers without ECH, which cannot be told apart and so is refused as well.

Sources: RFC 8446 §4.1.2 and §5.1, RFC 5246 §7.4.1.2, RFC 6066 §3 (server_name), RFC 9849 (ECH, extension 0xfe0d).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_HELLO = 16 * 1024
"""Bytes of records that are read for one ClientHello; post-quantum key shares take about 2 KiB."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ECH = 0, 0xFE0D
_HOST_NAME = 0


class NotAHello(ValueError):
    """The bytes are no ClientHello with one usable name. `rule` says why: `network.tls` or `network.sni`."""

    def __init__(self, rule: str, reason: str) -> None:
        self.rule = rule
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Hello:
    """What a ClientHello says: the name as sent, in lower case."""

    name: str


def read_hello(data: bytes) -> Hello | None:
    """The hello at the beginning of `data`; None when more bytes are needed.

    Raises:
        NotAHello: whatever follows, it will not become an acceptable one.
    """
    message = _handshake(data)
    if message is None:
        return None
    return Hello(_server_name(_extensions(message)))


def _handshake(data: bytes) -> bytes | None:
    """The body of the first handshake message, gathered over records; None when more bytes are needed."""
    at = 0
    message = bytearray()
    while True:
        head = data[at : at + 5]
        if head and head[0] != _HANDSHAKE:
            raise NotAHello("network.tls", "The connection does not begin with a TLS handshake.")
        if len(head) > 1 and head[1] != 3:
            raise NotAHello("network.tls", "The connection does not begin with TLS.")
        if len(head) < 5:
            _not_too_long(data)
            return None
        size = int.from_bytes(head[3:5], "big")
        if not 0 < size <= 16384:
            raise NotAHello("network.tls", "A TLS record has an impossible length.")
        part = data[at + 5 : at + 5 + size]
        message += part
        if message and message[0] != _CLIENT_HELLO:
            raise NotAHello("network.tls", "The handshake does not begin with a ClientHello.")
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if length > MAX_HELLO:
                raise NotAHello("network.tls", "The ClientHello is too long.")
            if len(message) > 4 + length:
                raise NotAHello("network.tls", "Something follows the ClientHello before the server answered.")
            if len(message) == 4 + length:
                return bytes(message[4:])
        if len(part) < size:
            _not_too_long(data)
            return None
        at += 5 + size


def _not_too_long(data: bytes) -> None:
    if len(data) >= MAX_HELLO:
        raise NotAHello("network.tls", "The ClientHello is too long.")


class _Reader:
    """Bytes taken from the front; anything missing is a malformed hello."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise NotAHello("network.tls", "The ClientHello is malformed.")
        self.at += count
        return part

    def vector(self, width: int) -> bytes:
        """A vector with a length of `width` bytes before it."""
        return self.take(int.from_bytes(self.take(width), "big"))

    def done(self) -> bool:
        return self.at == len(self.data)


def _extensions(message: bytes) -> list[tuple[int, bytes]]:
    body = _Reader(message)
    body.take(2 + 32)  # version, random
    body.vector(1)  # session id
    body.vector(2)  # cipher suites
    body.vector(1)  # compression
    if body.done():
        return []
    block = _Reader(body.vector(2))
    if not body.done():
        raise NotAHello("network.tls", "The ClientHello is malformed.")
    found = []
    while not block.done():
        found.append((int.from_bytes(block.take(2), "big"), block.vector(2)))
    return found


def _server_name(extensions: list[tuple[int, bytes]]) -> str:
    if any(kind == _ECH for kind, _ in extensions):
        raise NotAHello("network.sni", "The name is encrypted (ECH), so it cannot be checked.")
    named = [data for kind, data in extensions if kind == _SERVER_NAME]
    if len(named) != 1:
        raise NotAHello("network.sni", "The ClientHello names no server, or names one more than once.")
    outer = _Reader(named[0])
    names = _Reader(outer.vector(2))
    kind, name = names.take(1)[0], names.vector(2)
    if kind != _HOST_NAME or not names.done() or not outer.done():
        raise NotAHello("network.sni", "The ClientHello names more than one server.")
    try:
        return name.decode("ascii").lower()
    except UnicodeDecodeError:
        raise NotAHello("network.sni", "The name in the ClientHello is not ASCII.") from None
