"""A small outside on loopback: an authority made at test time, TLS servers for *.example.com, and sandboxes before it.

Names lead there by pins, as an operator may set them; nothing of the product is replaced.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.server
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vestibule.boundary.network.gateway import EgressGateway
from vestibule.boundary.network.learning import Learning
from vestibule.boundary.network.limits import NetworkLimits
from vestibule.boundary.network.outside import Outside
from vestibule.boundary.network.report import EgressReport
from vestibule.boundary.network.rules import plan
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.labels import Confidentiality, Integrity, Label, RunLabel
from vestibule.core.model import Event, Receipt
from vestibule.core.ports import AuditSink, Decider, Limits, Mount, RunningSandbox, SandboxResult, SandboxSpec
from vestibule.policy import PolicySet
from vestibule.sandbox.local import LocalSandbox, own_workspace

PREFIX = Path(sys.base_prefix).resolve()
PYTHON = os.path.realpath(sys.executable)
RUN = "r0egress"
MEMBER = Label(integrity=Integrity.MEMBER, confidentiality=Confidentiality.INTERNAL)

Handler = Callable[[str, str, bytes, Mapping[str, str]], tuple[int, str, bytes]]
"""(method, path with query, body, headers) → (status, content type, body)."""


class Authority:
    """A certificate authority, and one server certificate for every name that the tests use."""

    def __init__(self, folder: Path) -> None:
        key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)

        def made(subject: str, public: Any, *, more: list[tuple[x509.ExtensionType, bool]]) -> x509.Certificate:
            builder = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
                .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")]))
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(days=1))
            )
            for extension, critical in more:
                builder = builder.add_extension(extension, critical=critical)
            return builder.sign(key, hashes.SHA256())

        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        root = made(
            "Test authority",
            key.public_key(),
            more=[
                (x509.BasicConstraints(ca=True, path_length=0), True),
                (usage, True),
                (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            ],
        )
        names = x509.SubjectAlternativeName([x509.DNSName("*.example.com"), x509.DNSName("example.com")])
        leaf = made(
            "Test server",
            own.public_key(),
            more=[(names, False), (x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)],
        )
        self.certificate = folder / "authority.pem"
        self.certificate.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        chain = folder / "server.pem"
        secret = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + secret)
        self.chain = chain
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)


@contextlib.contextmanager
def web(handler: Handler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """An HTTP server on loopback, with TLS when there is a context; its port."""

    class Request(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            status, kind, data = handler(self.command, self.path, body, self.headers)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 - the base class's names

        def log_message(self, *_: Any) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        def get_request(self) -> tuple[Any, Any]:
            client, peer = self.socket.accept()
            return client if context is None else context.wrap_socket(
                client, server_side=True, do_handshake_on_connect=False
            ), peer  # fmt: skip

        def handle_error(self, *_: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Request)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def plain(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server on loopback that talks to each client in a thread of its own; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            talk(client)

    def loop() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def hello(_: str, path: str, __: bytes, ___: Mapping[str, str]) -> tuple[int, str, bytes]:
    """A page that says its path."""
    return 200, "text/plain", f"hello {path}\n".encode()


# --- what programs fetch from --------------------------------------------------------------------------------------


def git_server(root: Path) -> Handler:
    """git's own smart HTTP over the repositories below `root`."""

    def answer(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        place, _, query = path.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "REQUEST_METHOD": method,
                "PATH_INFO": place,
                "QUERY_STRING": query,
                "CONTENT_TYPE": headers.get("content-type", ""),
                "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
                "GIT_PROTOCOL": headers.get("git-protocol", ""),
            },
        )
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        found = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))
        }
        return int(found.get("status", "200").split()[0]), found.get("content-type", "text/plain"), data

    return answer


def python_index() -> Handler:
    """A simple index (PEP 503) with one wheel, `vestibule-demo` 1.0."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("vestibule_demo.py", "WORDS = 'from the index'\n")
        folder = "vestibule_demo-1.0.dist-info"
        wheel.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: vestibule-demo\nVersion: 1.0\n")
        wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{folder}/RECORD", "")
    name = "vestibule_demo-1.0-py3-none-any.whl"
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()

    def answer(_: str, path: str, __: bytes, ___: Mapping[str, str]) -> tuple[int, str, bytes]:
        if path == "/simple/vestibule-demo/":
            return (
                200,
                "text/html",
                f'<html><body><a href="/files/{name}#sha256={digest}">{name}</a></body></html>'.encode(),
            )
        return (200, "application/zip", buffer.getvalue()) if path == f"/files/{name}" else (404, "text/plain", b"")

    return answer


def node_registry(base: str) -> Handler:
    """An npm registry with one package, `vestibule-demo` 1.0.0; `base` is its URL."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        about = {"name": "vestibule-demo", "version": "1.0.0", "main": "index.js"}
        for name, text in (("package.json", json.dumps(about)), ("index.js", "module.exports = 'from the registry'\n")):
            item = tarfile.TarInfo(f"package/{name}")
            item.size = len(text)
            tar.addfile(item, io.BytesIO(text.encode()))
    data = buffer.getvalue()
    dist = {"tarball": f"{base}/vestibule-demo/-/vestibule-demo-1.0.0.tgz", "shasum": hashlib.sha1(data).hexdigest()}
    document = {
        "name": "vestibule-demo",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "vestibule-demo", "version": "1.0.0", "dist": dist}},
    }

    def answer(_: str, path: str, __: bytes, ___: Mapping[str, str]) -> tuple[int, str, bytes]:
        if path == "/vestibule-demo":
            return 200, "application/json", json.dumps(document).encode()
        return (200, "application/octet-stream", data) if path.endswith(".tgz") else (404, "application/json", b"{}")

    return answer


# --- sandboxes -----------------------------------------------------------------------------------------------------


class Sink:
    """A log that keeps what it is given. `fail`: from now on it takes nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fail = False
        self.lock = threading.Lock()

    def submit(self, event: Event) -> Future[Receipt]:
        done: Future[Receipt] = Future()
        with self.lock:
            if self.fail:
                done.set_exception(OSError("No space left on device"))
            else:
                self.events.append(event)
                done.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00Z"))
        return done

    def intents(self, action: str) -> list[Event]:
        return [event for event in self.events if event.phase == "intent" and event.action == action]

    def outcomes(self, action: str) -> list[Event]:
        return [event for event in self.events if event.phase == "outcome" and event.action == action]


@dataclass
class Ended:
    """A sandbox that ended."""

    result: SandboxResult
    report: EgressReport
    sink: Sink

    @property
    def out(self) -> str:
        return self.result.stdout.decode()

    @property
    def err(self) -> str:
        return self.result.stderr.decode()

    def decided(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """(resource, verdict, reasons) of each connection that was decided about."""
        found = self.sink.intents("network.connect")
        return [(item.resource, item.verdict.value if item.verdict else "", item.reasons) for item in found]


@dataclass
class World:
    """Makes sandboxes whose names lead to loopback."""

    backend: LocalSandbox
    workspace: Path
    authority: Authority
    decider: Decider = field(default_factory=PolicySet.load)

    def run(
        self,
        script: str | tuple[str, ...],
        pins: Mapping[str, int],
        *,
        hosts: tuple[str, ...] | None = None,
        programs: Mapping[str, tuple[str, ...]] | None = None,
        env: Mapping[str, str] | None = None,
        limits: NetworkLimits | None = None,
        label: Label = MEMBER,
        learn: bool = False,
        ceiling: tuple[str, ...] | None = None,
        outside: Outside | None = None,
        sink: AuditSink | None = None,
        meanwhile: Callable[[Live], None] | None = None,
        seconds: float = 60,
    ) -> Ended:
        """Run a shell script (or an argument list) inside; `pins` says at which port of loopback each name is."""
        planned = plan(
            ("context.vestibule.internal",), hosts=tuple(pins) if hosts is None else hosts, programs=programs
        )
        ca = "/workspace/authority.pem"
        spec = SandboxSpec(
            run=RUN,
            argv=("sh", "-c", script) if isinstance(script, str) else script,
            env={
                "CURL_CA_BUNDLE": ca,
                "GIT_SSL_CAINFO": ca,
                "PIP_CERT": ca,
                "SSL_CERT_FILE": ca,
                "NODE_EXTRA_CA_CERTS": ca,
                "npm_config_cafile": ca,
                **(env or {}),
            },
            mounts=(Mount(source=self.workspace, target="/workspace", write=True),),
            names=planned.names,
            endpoints=planned.endpoints,
            resolver=True,
            limits=Limits(wall_seconds=seconds, memory_bytes=1 << 30, pids=128),
        )
        sandbox = self.backend.create(spec)
        log = sink or Sink()
        gateway = EgressGateway(
            crossing=Crossing(decider=self.decider, audit=log, labels=RunLabel(label)),
            actor=Actor(RUN, "spiffe://example.com/agent", "agent"),
            plan=planned,
            outside=outside or Outside(pins={key: ("127.0.0.1", port) for key, port in pins.items()}),
            who=sandbox.programs_of,
            learning=Learning(sandbox.listen, ceiling=ceiling) if learn else None,
            limits=limits,
        )
        live = Live(sandbox, gateway)
        try:
            live.start()
            sandbox.go()
            if meanwhile is not None:
                meanwhile(live)
            result = sandbox.wait()
        finally:
            sandbox.kill()
            live.stop()
        return Ended(result, gateway.report(), log if isinstance(log, Sink) else Sink())


class Live:
    """A gateway on a loop in a thread of its own, as runs have it."""

    def __init__(self, sandbox: RunningSandbox, gateway: EgressGateway) -> None:
        self.sandbox, self.gateway = sandbox, gateway
        self.loop = uvloop.new_event_loop()
        self.task: Any = None
        self.died = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def _run(self) -> None:
        async def serve() -> None:
            import asyncio

            self.task = asyncio.current_task()
            with contextlib.suppress(asyncio.CancelledError):
                await self.gateway.serve(dict(self.sandbox.listeners))

        try:
            self.loop.run_until_complete(serve())
        finally:
            self.died.set()
            self.loop.close()

    def kill(self) -> None:
        """As a gateway ends that broke."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.task.cancel)

    def stop(self) -> None:
        self.kill()
        self.thread.join(10)
        assert not self.thread.is_alive(), "the gateway did not end"


def build_world(backend: LocalSandbox, folder: Path) -> World:
    folder.chmod(0o755)
    workspace = folder / "workspace"
    workspace.mkdir()
    outside = folder / "outside"
    outside.mkdir()
    authority = Authority(outside)
    (workspace / "authority.pem").write_bytes(authority.certificate.read_bytes())
    own_workspace(workspace, backend.workspace_uid(RUN))
    return World(backend, workspace, authority)
