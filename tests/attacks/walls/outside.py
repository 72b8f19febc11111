"""The outside of the battery: hosts, a metadata service, sockets, secrets, processes. They notice who reaches them.

Everything that must stay out of reach says a canary, `CANARY-<random>-<label>`, and writes down what arrived. The
random part is made anew for each run and is never told to what runs inside.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import datetime
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks.walls.cases import BY_ID
from tests.attacks.walls.stage import ADDRESSES, ADDRESSES6, HOME

_CASE = re.compile(rb"case[=-]([A-Za-z0-9-]+)")
_IDS = sorted(BY_ID, key=len, reverse=True)
_HOLDER = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)
held = ctypes.create_string_buffer(sys.argv[1].encode(), 64)
fd = os.open(sys.argv[2], os.O_RDONLY)
print(ctypes.addressof(held), fd, flush=True)
time.sleep(3600)
"""


class Outside:
    """Everything outside the sandbox, alive until `close`."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        self.house = Path("/srv/house")
        self.arrived: list[tuple[str, str]] = []
        """(case, where) of everything that got somewhere."""
        self.lookups: list[str] = []
        self.bytes: dict[str, int] = {}
        self._sockets: list[socket.socket] = []
        self._children: list[subprocess.Popen[str]] = []
        self._closing = False
        self._folders()
        self._certificate()
        self._hosts()
        self._local_sockets()
        self._processes()

    def canary(self, label: str) -> str:
        return f"CANARY-{self.token}-{label}"

    def heard(self, text: str) -> set[str]:
        """Labels of the canaries in a text."""
        return set(re.findall(rf"CANARY-{self.token}-([a-z]+)", text))

    def note(self, data: bytes, where: str, default: str = "") -> None:
        found = {item.decode() for item in _CASE.findall(data)} or {default}
        for text in found:
            if text.endswith(("-first", "-after")):
                continue
            case = next((item for item in _IDS if text.lower().startswith(item.lower())), "")
            self.arrived.append((case, where))

    # --- files --------------------------------------------------------------------------------------------------------

    def _folders(self) -> None:
        house = self.house
        for name in ("victims", "marks", "state", "work", "logs"):
            (house / name).mkdir(parents=True)
        (house / "secret").write_text(self.canary("secret"))
        (house / "state" / "secret").write_text(self.canary("state"))
        for case in ("F01", "F02", "F04", "F17", "M06"):
            (house / "victims" / case).write_text("")
        (house / "logs" / "audit").write_text("")
        self.secrets = [str(house / "secret"), str(house / "state" / "secret")]
        for name in _CREDENTIALS:
            path = Path(HOME, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.canary("credential"))
            self.secrets.append(str(path))

    def _certificate(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.com")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        path = self.house / "origin.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        path.chmod(0o600)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(path)

    # --- hosts --------------------------------------------------------------------------------------------------------

    def _hosts(self) -> None:
        for label, addresses in {
            "allowed": (ADDRESSES["allowed4"], ADDRESSES6["allowed6"]),
            "denied": (ADDRESSES["denied4"], ADDRESSES6["denied6"]),
            "other": (ADDRESSES["other4"],),
            "inner": ("127.0.0.1",),
        }.items():
            for address in addresses:
                self._stream(address, 443, partial(self._https, label=label))
                if label != "inner":
                    self._stream(address, 80, partial(self._http, label=label, data=b""))
        for port in (22, 8080, 8443, 25):
            self._stream(ADDRESSES["allowed4"], port, lambda sock: self._plain(sock, "port"))
        self._stream(ADDRESSES["denied4"], 9418, lambda sock: self._plain(sock, "denied"))
        for port in (22, 8080, 3306, 6379, 5432):
            for address in (ADDRESSES["private4"], "127.0.0.1"):
                self._stream(address, port, lambda sock: self._plain(sock, "private"))
        for address in (ADDRESSES["metadata4"], ADDRESSES6["metadata6"]):
            self._stream(address, 80, lambda sock: self._http(sock, "metadata", b""))
        for port in (3128, 1080):
            self._stream(ADDRESSES["relay4"], port, lambda sock: self._plain(sock, "relay", "B-overrides"))
        for address in (ADDRESSES["resolver4"], ADDRESSES6["resolver6"]):
            self._stream(address, 53, lambda sock: self._plain(sock, "resolver"))
            self._stream(address, 853, lambda sock: self._https(sock, "resolver"))
            self._stream(address, 443, lambda sock: self._https(sock, "resolver"))
            self._datagram(address, 53, "resolver")
        for address in (ADDRESSES["allowed4"], ADDRESSES6["allowed6"], ADDRESSES["denied4"]):
            self._datagram(address, 443, "datagram")

    def _stream(self, address: str, port: int, serve: Callable[[socket.socket], None]) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        self._listen(listener, serve)

    def _listen(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        listener.listen(64)
        self._sockets.append(listener)

        def one(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError, ValueError):
                client.settimeout(3)
                serve(client)

        def accept() -> None:
            while not self._closing:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def _datagram(self, address: str, port: int, label: str) -> None:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, port))
        self._sockets.append(sock)

        def serve() -> None:
            while not self._closing:
                try:
                    data, peer = sock.recvfrom(4096)
                    if peer is None:  # shut down
                        return
                    self.note(data, label)
                    sock.sendto(data[:12] + self.canary(label).encode(), peer)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()

    def _https(self, plain: socket.socket, label: str) -> None:
        hello = plain.recv(16384, socket.MSG_PEEK)
        self.note(hello, label) if b"case=" in hello else None
        with self.tls.wrap_socket(plain, server_side=True) as sock:
            self._http(sock, label, b"")

    def _http(self, sock: socket.socket, label: str, data: bytes) -> None:
        while b"\r\n\r\n" not in data:
            part = sock.recv(65536)
            if not part:
                break
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        wanted, count = int(length[1]) if length else 0, len(body)
        found = _CASE.search(head)
        name = found[1].decode() if found else ""
        self.note(head, label)
        self.bytes[name] = self.bytes.get(name, 0) + count
        while count < wanted and (part := sock.recv(65536)):
            count += len(part)
            self.bytes[name] += len(part)
        path = head.split(b" ", 2)[1] if head.count(b" ") > 1 else b"/"
        answer, more = b"200 OK", b""
        said = self.canary(label).encode()
        if path == b"/redirect":
            answer, more, said = b"302 Found", b"Location: https://denied.example.com/\r\n", b""
        elif path == b"/redirect-metadata":
            answer, more, said = b"302 Found", b"Location: http://%s/\r\n" % ADDRESSES["metadata4"].encode(), b""
        sock.sendall(b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (answer, more, len(said), said))
        if b"keep-alive" in head:
            rest = sock.recv(65536)
            self.note(rest, label) if rest else None

    def _plain(self, sock: socket.socket, label: str, default: str = "") -> None:
        sock.sendall(f"banner {self.canary(label)}\r\n".encode())
        sock.settimeout(0.5)
        data = b""
        with contextlib.suppress(OSError):
            data = sock.recv(4096)
        self.note(data, label, default)

    # --- sockets by path and by name ----------------------------------------------------------------------------------

    def _local_sockets(self) -> None:
        self.abstract = f"outside-{secrets.token_hex(6)}"
        self.giver = f"giver-{secrets.token_hex(6)}"
        self.giver_path = str(self.house / "giver.sock")
        runtime = f"/run/user/{os.geteuid()}"
        self.engines = [
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/podman/podman.sock",
            "/var/run/docker.sock",
        ]
        self.agents = [
            "/run/dbus/system_bus_socket", f"{runtime}/bus", "/run/systemd/private", f"{runtime}/gnupg/S.gpg-agent",
            f"{HOME}/.gnupg/S.gpg-agent", "/tmp/ssh-agent/agent.1", str(self.house / "state" / "monitor.sock"),
        ]  # fmt: skip
        for path in (*self.engines, *self.agents):
            if path.startswith("/var/run"):
                continue
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._unix(path, self._engine)
        self._unix("\0" + self.abstract, self._engine)
        for address in ("\0" + self.giver, self.giver_path):
            self._unix(address, self._give)

    def _unix(self, address: str, serve: Callable[[socket.socket], None]) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        if not address.startswith("\0"):
            Path(address).chmod(0o666)
        self._listen(listener, serve)

    def _engine(self, sock: socket.socket) -> None:
        sock.sendall(f'HTTP/1.0 200 OK\r\n\r\n{{"Version": "{self.canary("socket")}"}}'.encode())

    def _give(self, sock: socket.socket) -> None:
        fd = os.open(self.house / "secret", os.O_RDONLY)
        try:
            sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        finally:
            os.close(fd)

    # --- processes ----------------------------------------------------------------------------------------------------

    def _processes(self) -> None:
        self.leaked = os.open(self.house / "secret", os.O_RDONLY)
        os.set_inheritable(self.leaked, True)
        argv = [sys.executable, "-I", "-S", "-c", _HOLDER, self.canary("memory"), str(self.house / "secret")]
        holder = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._children.append(holder)
        assert holder.stdout is not None
        self.holder = holder.pid
        self.holder_address, self.holder_fd = (int(item) for item in holder.stdout.readline().split())
        self.victims: dict[str, subprocess.Popen[str]] = {}
        self.renew()

    def renew(self) -> None:
        """Living victims for the cases that kill."""
        for case in ("P02", "M02"):
            old = self.victims.get(case)
            if old is not None and old.poll() is None:
                continue
            self.victims[case] = subprocess.Popen(["sleep", "3600"], text=True)
            self._children.append(self.victims[case])

    def given(self, attacks: list[str], **more: Any) -> dict[str, Any]:
        """What the attacks are told: places, never the canary."""
        return {
            "attacks": attacks,
            **ADDRESSES,
            **ADDRESSES6,
            "abstract": self.abstract,
            "giver": self.giver,
            "giver_path": self.giver_path,
            "engines": self.engines,
            "agents": self.agents,
            "secret": str(self.house / "secret"),
            "state_secret": str(self.house / "state" / "secret"),
            "secrets": self.secrets,
            "victims": str(self.house / "victims"),
            "marks": str(self.house / "marks"),
            "workspace_outside": str(self.house / "work" / "workspace"),
            "victim": self.holder,
            "victim_address": self.holder_address,
            "victim_fd": self.holder_fd,
            **{f"victim_{case}": process.pid for case, process in self.victims.items()},
            "ours": [os.getpid()],
            "logs": [str(self.house / "logs" / "audit"), str(self.house / "victims" / "M06")],
            "gateways": ["context.vestibule.internal"],
            "home": HOME,
            "left": "",
            "pids": 64,
            "memory_mb": 64,
            **more,
        }

    def reset(self) -> None:
        """Forget what arrived and changed, before the next look."""
        self.arrived.clear()
        self.lookups.clear()
        self.bytes.clear()
        for folder in ("victims", "marks", "logs"):
            for path in (self.house / folder).iterdir():
                path.write_text("") if folder != "marks" else path.unlink()
        self.renew()

    def changed(self) -> dict[str, str]:
        """Case → what changed outside."""
        found = {}
        for path in (self.house / "victims").iterdir():
            if path.stat().st_size:
                found[path.name] = "a file outside was written"
        for path in (self.house / "marks").iterdir():
            found[path.name] = "a planted program ran outside"
        if (self.house / "logs" / "audit").stat().st_size:
            found["M06"] = "a log was written"
        for case, process in self.victims.items():
            time.sleep(0)
            if process.poll() is not None:
                found[case] = "a process outside was ended"
        return found

    def close(self) -> None:
        self._closing = True
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            child.wait()
        os.close(self.leaked)


_CREDENTIALS = (
    ".ssh/id_ed25519", ".ssh/config", ".aws/credentials", ".config/gcloud/application_default_credentials.json",
    ".azure/accessTokens.json", ".docker/config.json", ".config/gh/hosts.yml", ".npmrc", ".pypirc", ".netrc",
    ".git-credentials", ".cargo/credentials.toml", ".kube/config", ".gnupg/private-keys-v1.d/key", ".m2/settings.xml",
    ".config/vestibule/config.yaml", ".bash_history", ".cache/agent/memory.md", ".claude/CLAUDE.md",
)  # fmt: skip


def subreaper() -> None:
    """Orphans below us become ours, so that none is overlooked."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
