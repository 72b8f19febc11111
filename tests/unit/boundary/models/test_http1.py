"""The HTTP client towards providers: an answer is whole or an error, whatever a server does; nothing is asked twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.models.http1 import HEAD_BYTES, BrokenAnswer, NoConnection, Pool

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello"


@contextlib.asynccontextmanager
async def serving(play: Play, *, idle: float = 5) -> AsyncIterator[tuple[Pool, str, list[bytes]]]:
    """A server that plays for each request; the pool, its address, and the requests that it got."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                asked.append(head + await reader.readexactly(size))
                await play(reader, writer)
                if writer.is_closing():
                    return

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def look_up(host: str, port: int) -> list[tuple[str, int]]:
        return [(host, port)]

    pool = Pool(look_up, connect=5, idle=idle)
    try:
        yield pool, f"http://127.0.0.1:{port}/v1/messages?beta=true", asked
    finally:
        await pool.close()
        server.close()


def sends(*pieces: bytes, close: bool = False) -> Play:
    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    return play


async def ask(pool: Pool, url: str, body: bytes = b"{}") -> tuple[int, dict[str, str], bytes]:
    async with pool.post(url, {"x-api-key": "k"}, body) as answer:
        data = b"".join([chunk async for chunk in answer.chunks()])
        return answer.status, dict(answer.headers), data


def test_a_request_is_written_whole_and_an_answer_read_whole() -> None:
    async def run() -> None:
        async with serving(sends(OK)) as (pool, url, asked):
            assert await ask(pool, url, b'{"a":1}') == (200, {"content-length": "5", "x-a": "1, 2"}, b"hello")
            assert asked[0].startswith(b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: 127.0.0.1:")
            assert asked[0].endswith(b'x-api-key: k\r\ncontent-length: 7\r\n\r\n{"a":1}')

    asyncio.run(run())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: t\r\n\r\n"


def test_an_answer_split_at_every_byte_is_the_same() -> None:
    async def run() -> None:
        for data, body in ((OK, b"hello"), (CHUNKED, b"hello!")):
            for cut in range(1, len(data)):
                async with serving(sends(data[:cut], data[cut:])) as (pool, url, _):
                    assert (await ask(pool, url))[2] == body

    asyncio.run(run())


def test_a_connection_is_used_again_only_after_a_whole_answer() -> None:
    ports: list[int] = []

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        writer.write(OK)

    async def run() -> None:
        async with serving(play) as (pool, url, _):
            await ask(pool, url)
            await ask(pool, url)
            async with pool.post(url, {}, b"{}"):
                pass  # left before its end
            await ask(pool, url)
        assert ports[0] == ports[1] == ports[2] != ports[3]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("pieces", "what"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",), "ended within"),
        ((b"HTTP/1.1 200 OK\r\nContent-Le",), "ended within"),
        ((b"",), "ended within"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",), "ended within"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "no HTTP"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",), "no HTTP"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",), "no HTTP"),
        ((b"SSH-2.0-OpenSSH_9\r\n",), "no HTTP"),
        ((b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhi",), "no HTTP|ended within"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * (HEAD_BYTES + 1),), "head of the answer"),
    ],
    ids=[
        "content-length lies", "cut head", "no answer", "cut chunk", "bad chunk", "two lengths", "length and chunks",
        "no http", "switched", "endless head",
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_is_an_error(pieces: tuple[bytes, ...], what: str) -> None:
    async def run() -> None:
        async with serving(sends(*pieces, close=True)) as (pool, url, asked):
            with pytest.raises(BrokenAnswer, match=what):
                await ask(pool, url)
            assert len(asked) == 1  # never again by itself

    asyncio.run(run())


def test_an_interim_answer_is_passed_over() -> None:
    async def run() -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        async with serving(sends(b"HTTP/1.1 100 Continue\r\n\r\n", interim + OK)) as (pool, url, _):
            status, headers, body = await ask(pool, url)
            assert (status, body) == (200, b"hello")
            assert "link" not in headers

    asyncio.run(run())


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async def run() -> None:
        async with serving(sends(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", close=True)) as (pool, url, _):
            assert (await ask(pool, url))[2] == b"hello"

    asyncio.run(run())


def test_a_second_answer_nobody_asked_for_is_no_part_of_the_next() -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    async def run() -> None:
        async with serving(sends(OK + smuggled)) as (pool, url, asked):
            assert (await ask(pool, url))[2] == b"hello"
            assert (await ask(pool, url))[2] == b"hello"
            assert len(asked) == 2

    asyncio.run(run())


def test_silence_is_bounded_before_and_within_an_answer() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def halfway(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK[:-2])
        await asyncio.sleep(5)

    async def run() -> None:
        for play in (silent, halfway):
            async with serving(play, idle=0.2) as (pool, url, _):
                with pytest.raises(BrokenAnswer, match="silent"):
                    await ask(pool, url)

    asyncio.run(run())


def test_a_slow_reader_stops_the_sender_and_is_no_silence() -> None:
    size = 64 << 20
    written = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        with contextlib.suppress(OSError):
            while written < size:
                writer.write(b"x" * 65536)
                await writer.drain()
                written += 65536

    async def run() -> None:
        async with serving(flood, idle=0.2) as (pool, url, _), pool.post(url, {}, b"{}") as answer:
            chunks = answer.chunks()
            got = len(await anext(chunks))
            await asyncio.sleep(0.6)
            assert written < 32 << 20  # what lies in the kernel's buffers, not in ours
            async for chunk in chunks:
                got += len(chunk)
            assert got == size

    asyncio.run(run())


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\x00b", "\x1b[0m"])
def test_a_head_of_ours_holds_no_line_end(value: str) -> None:
    async def run() -> None:
        async with serving(sends(OK)) as (pool, url, asked):
            with pytest.raises(NoConnection):
                async with pool.post(url, {"x-a": value}, b"{}"):
                    pass
            assert not asked

    asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "http:///x", "http://127.0.0.1:1/a b", "http://127.0.0.1:1/a\r\nb"]
)
def test_what_is_no_address_of_a_provider_is_not_asked(url: str) -> None:
    async def run() -> None:
        async with serving(sends(OK)) as (pool, _, _):
            with pytest.raises((NoConnection, ValueError)):
                async with pool.post(url, {}, b"{}"):
                    pass

    asyncio.run(run())


def test_nobody_there_means_that_nothing_was_sent() -> None:
    async def run() -> None:
        async with serving(sends(OK)) as (pool, _, _):
            with pytest.raises(NoConnection):
                async with pool.post("http://127.0.0.1:1/x", {}, b"{}"):
                    pass

    asyncio.run(run())


def test_a_connection_whose_request_is_not_all_sent_is_not_used_again() -> None:
    """Answered early: what is asked next would wait behind bytes that nobody reads, and count as sent."""
    begun: list[asyncio.StreamWriter] = []

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        if len(begun) == 1:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(30)

    async def look_up(host: str, port: int) -> list[tuple[str, int]]:
        return [(host, port)]

    async def run() -> None:
        server = await asyncio.start_server(early, "127.0.0.1", 0)
        pool = Pool(look_up, connect=5, idle=2)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        try:
            assert (await ask(pool, url, b"a" * (32 << 20)))[2] == b"hello"
            assert (await ask(pool, url))[2] == b"hello"
            assert len(begun) == 2
        finally:
            await pool.close()
            server.close()

    asyncio.run(run())


TRAILED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"


def test_trailers_change_nothing_of_the_head() -> None:
    async def run() -> None:
        async with serving(sends(TRAILED, b"2\r\n{}\r\n0\r\nX-A: 2\r\nX-B: 3\r\n\r\n")) as (pool, url, _):
            assert await ask(pool, url) == (200, {"transfer-encoding": "chunked", "x-a": "1"}, b"{}")

    asyncio.run(run())


@pytest.mark.parametrize(
    "flood",
    [b"X-A: " + b"a" * 1000 + b"\r\n", b"a" * 1000],
    ids=["trailers", "a-trailer-without-end"],
)
def test_trailers_without_end_are_not_kept(flood: bytes) -> None:
    async def run() -> None:
        start = TRAILED + b"2\r\n{}\r\n0\r\nX-T: "
        pieces = [flood] * (HEAD_BYTES * 16 // len(flood))
        async with serving(sends(start, *pieces, b"\r\n\r\n")) as (pool, url, _):
            with pytest.raises(BrokenAnswer, match="beside its body"):
                await ask(pool, url)

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    async def run() -> None:
        async with serving(sends(b"HTTP/1.1 " + data, close=True), idle=2) as (pool, url, _):
            with contextlib.suppress(BrokenAnswer):
                status, _, body = await ask(pool, url)
                assert status >= 200
                assert len(body) <= len(data)

    asyncio.run(run())
