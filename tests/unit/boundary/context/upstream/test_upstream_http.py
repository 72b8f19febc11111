"""The way to an upstream server over HTTP: both revisions, and whatever a hostile endpoint sends."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.upstream_fake import text, tool

from vestibule.boundary.context.upstream import http as http_way
from vestibule.boundary.context.upstream import wire
from vestibule.boundary.context.upstream.http import HttpConnection
from vestibule.boundary.context.upstream.session import MODERN, Session
from vestibule.config.schema import Upstream

Handle = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class Site:
    """An HTTP server on loopback. `handle` answers POSTs; `seen` holds their headers and messages."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.verbs: list[str] = []
        self.handle: Handle = legacy
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                site.verbs.append("POST")
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                site.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
                site.handle(self, body)

            def do_DELETE(self) -> None:
                site.verbs.append("DELETE")
                reply(self, b"", status=204)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mcp"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def reply(
    handler: BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    kind: str = "application/json",
    **headers: str,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def answer(message: dict[str, Any]) -> dict[str, Any]:
    method = message["method"]
    if method == "tools/list":
        result: dict[str, Any] = {"tools": [tool("find_page")]}
    elif method == "tools/call":
        result = text("found")
    elif method == "server/discover":
        result = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}
    else:
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def legacy(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
    if "id" not in message:
        reply(handler, b"", status=202)
    elif message["method"] == "initialize":
        reply(handler, json.dumps(answer(message)).encode(), Mcp_Session_Id="s-1")
    else:
        reply(handler, json.dumps(answer(message)).encode())


def modern(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
    if message["method"] == "initialize":
        error = {"code": -32022, "message": "unsupported", "data": {"supported": [MODERN]}}
        reply(handler, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode(), status=400)
    else:
        reply(handler, json.dumps(answer(message)).encode())


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def test_a_server_of_2025_11_25_is_greeted_listed_called_and_left(site: Site) -> None:
    connection = HttpConnection(site.url)
    session = Session(connection)
    session.open(soon())
    assert set(session.tools(soon())) == {"find_page"}
    assert session.call("find_page", {"text": "x"}, soon()).result == text("found")
    connection.close()
    headers = [seen for seen, _ in site.seen]
    assert "mcp-session-id" not in headers[0]
    assert all(seen["mcp-session-id"] == "s-1" for seen in headers[1:])
    assert all(seen["mcp-protocol-version"] == "2025-11-25" for seen in headers[1:])
    assert site.verbs[-1] == "DELETE"
    assert not any("authorization" in seen for seen in headers)


def test_a_server_of_2026_07_28_is_spoken_to_in_its_own_way(site: Site) -> None:
    site.handle = modern
    session = Session(HttpConnection(site.url))
    session.open(soon())
    session.call("find_page", {"text": "x"}, soon())
    seen, message = site.seen[-1]
    assert seen["mcp-protocol-version"] == MODERN
    assert seen["mcp-method"] == "tools/call"
    assert seen["mcp-name"] == "find_page"
    assert message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == MODERN
    assert message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}


@pytest.mark.parametrize(("header", "form"), [("Authorization", "Bearer {}"), ("X-Api-Key", "{}")])
def test_the_key_goes_to_the_server_in_its_header_and_into_no_error(site: Site, header: str, form: str) -> None:
    key = "k-" + secrets.token_hex(16)
    connection = HttpConnection(site.url, header=header, key=key)
    Session(connection).open(soon())
    assert all(seen[header.lower()] == form.format(key) for seen, _ in site.seen)
    site.handle = lambda handler, _: reply(handler, key.encode(), status=401)
    with pytest.raises(wire.ServerFailed) as caught:
        connection.request("tools/list", {}, soon())
    assert key not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


def test_no_redirect_is_followed(site: Site) -> None:
    other = Site()
    site.handle = lambda handler, _: reply(handler, b"", status=307, Location=other.url)
    with pytest.raises(wire.BadServer, match="redirect"):
        HttpConnection(site.url, key="k").request("tools/list", {}, soon())
    assert other.seen == []
    other.server.shutdown()
    other.server.server_close()


def test_no_proxy_variable_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    Session(HttpConnection(site.url)).open(soon())


def _stream(*messages: dict[str, Any]) -> bytes:
    return b"".join(b"event: message\ndata: " + json.dumps(item).encode() + b"\n\n" for item in messages)


def test_an_answer_as_a_stream_is_read_to_its_message_and_questions_in_it_are_refused(site: Site) -> None:
    def streaming(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        if message.get("method") != "tools/call":
            reply(handler, b"", status=202)
            return
        asked = {"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}}
        told = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        reply(handler, _stream(asked, told, answer(message)), kind="text/event-stream")

    site.handle = streaming
    connection = HttpConnection(site.url)
    assert connection.request("tools/call", {}, soon()).result == text("found")
    assert connection.changed.is_set()
    refused = [message for _, message in site.seen if message.get("id") == "q"]
    assert refused[0]["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"jsonrpc":"2.0","id":99,"result":{}}', "application/json"),
        (b'data: {"jsonrpc":"2.0","id":99,"result":{}}\n\n', "text/event-stream"),
        (b"<html>", "text/html"),
        (b"", "application/json"),
        (b"data: x\n\n", "text/event-stream"),
        (b": nothing\n\n", "text/event-stream"),
        (b"event: message\n\n" * 3, "text/event-stream"),
        (b'{"jsonrpc":"2.0","id":1,"id":1,"result":{}}', "application/json"),
    ],
)
def test_an_answer_that_is_none_of_ours_is_refused(site: Site, body: bytes, kind: str) -> None:
    site.handle = lambda handler, _: reply(handler, body, kind=kind)
    with pytest.raises(wire.ServerFailed):
        HttpConnection(site.url).request("tools/list", {}, soon())


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_an_answer_that_is_too_large_is_not_kept(site: Site, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_way, "MAX_BODY", 100_000)
    site.handle = lambda handler, _: reply(handler, b"data: " + b"x" * 300_000, kind=kind)
    with pytest.raises(wire.BadServer, match="too large"):
        HttpConnection(site.url).request("tools/list", {}, soon())


def test_a_compressed_answer_is_not_inflated(site: Site) -> None:
    site.handle = lambda handler, _: reply(handler, b"\x1f\x8b", Content_Encoding="gzip")
    with pytest.raises(wire.BadServer, match="compressed"):
        HttpConnection(site.url).request("tools/list", {}, soon())


def test_an_answer_that_comes_drop_by_drop_ends_with_the_calls_time(site: Site) -> None:
    stop = threading.Event()

    def dripping(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        try:
            while not stop.wait(0.02):
                handler.wfile.write(b": still here\n")
                handler.wfile.flush()
        except OSError:
            handler.close_connection = True

    site.handle = dripping
    began = time.monotonic()
    with pytest.raises(wire.Slow):
        HttpConnection(site.url).request("tools/list", {}, soon(0.3))
    assert time.monotonic() - began < 3
    stop.set()


def test_a_server_that_is_not_there_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(wire.Gone):
        HttpConnection(f"http://127.0.0.1:{port}/mcp").request("tools/list", {}, soon())


def test_closing_ends_what_is_under_way(site: Site) -> None:
    arrived, stop = threading.Event(), threading.Event()

    def silent(_: BaseHTTPRequestHandler, __: dict[str, Any]) -> None:
        arrived.set()
        stop.wait(10)

    site.handle = silent
    connection = HttpConnection(site.url)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            connection.request("tools/list", {}, soon(30))
        except wire.ServerFailed as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert arrived.wait(5)
    connection.close()
    thread.join(5)
    assert not thread.is_alive()
    assert failed
    stop.set()
    with pytest.raises(wire.Gone):
        connection.request("tools/list", {}, soon())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/mcp",
        "http://127.0.0.1.example.com/mcp",
        "http://10.0.0.1/mcp",
        "https://user@example.com/mcp",
        "https://example.com/mcp?x=1",
        "https://example.com/mcp#x",
        "https://example.com\\@elsewhere.example.com/mcp",
        "ftp://example.com/",
        "https:///mcp",
        "https://exämple.com/mcp",
    ],
)
def test_an_address_that_is_not_https_or_this_machine_is_no_configuration(url: str) -> None:
    with pytest.raises(ValueError, match=r"url|https"):
        Upstream(url=url, tools=("*",))


@pytest.mark.parametrize(
    "url", ["https://example.com/mcp", "http://127.0.0.1:80/x", "http://localhost:1/", "http://[::1]:1/"]
)
def test_https_and_this_machine_are_fine(url: str) -> None:
    assert Upstream(url=url, tools=("*",)).url == url
