"""An OPA server as the engine: the same layers, input and answers, asked over HTTP. Only the operator names it.

Rules it keeps:
1. The server holds exactly our text. At start every module of every layer is put there under a package of its own,
   whose name has the bundle's digest in it, and read back; anything else under that package is refused. It is looked
   at again every `LOOK_AGAIN_SECONDS`, and after every lost connection.
2. No answer is a deny: a time-out, a status but 200, a body too long or of another shape is `dependency.policy`; a
   policy that is undefined is `policy.undefined`.
3. Errors in built-ins are errors (`strict-builtin-errors`).
4. Nothing is asked in the clear across a network: `https`, or `http` to this machine. No redirect is followed.
5. The layers are joined here, never there.

Source: OPA REST API v1 (openpolicyagent.org, "REST API Reference": Policy API, Data API).
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from vestibule.core.canonical import canonical_json
from vestibule.core.errors import ConfigError, DependencyDown
from vestibule.policy.engine import DECISION, Answer, EngineDown, EngineError, UndefinedDecision, parse_answer
from vestibule.policy.layers import Layer, layers_digest
from vestibule.policy.tokens import tokens

ROOT = "vestibule_layers"
TIMEOUT_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 30.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OpaAddress:
    """Where the server is. `token` is sent as Bearer token when it is not empty."""

    url: str
    token: str = ""
    timeout_seconds: float = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        """Raises ConfigError for an address that is neither https nor on this machine."""
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            host, parts = "", urlsplit("")
        plain = parts.username is None and parts.password is None and not parts.query and not parts.fragment
        if not host or not plain or not (parts.scheme == "https" or (parts.scheme == "http" and _here(host))):
            raise ConfigError(
                "the address of the OPA server is not usable",
                why="It is `https://…`, or `http://` with a loopback address, without user, query and fragment.",
                next_step="Correct `policy_backend.opa.url` in the operator's configuration.",
            )


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OpaServer:
    """One connection to the server. Used by one thread."""

    def __init__(self, address: OpaAddress) -> None:
        self._address = address
        parts = urlsplit(address.url)
        self._base = parts.path.rstrip("/")
        host, port = parts.hostname or "", parts.port
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(
                host, port, timeout=address.timeout_seconds, context=ssl.create_default_context()
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=address.timeout_seconds)
        )
        self.fresh = True
        """Whether nothing was asked since the connection was made."""

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, Any]:
        """Status and JSON body. Raises EngineDown when there is no whole, readable answer in time."""
        headers = {"Content-Type": kind} if body else {}
        if self._address.token:
            headers["Authorization"] = f"Bearer {self._address.token}"
        ends = time.monotonic() + self._address.timeout_seconds
        try:
            self._connection.request(method, self._base + path, body=body or None, headers=headers)
            response = self._connection.getresponse()
            data = b""
            while chunk := response.read1(65536):
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    raise EngineDown("the OPA server's answer is too long")
                if time.monotonic() > ends:
                    raise EngineDown("the OPA server is too slow")
            response.close()
            found = json.loads(data) if data else {}
        except EngineDown:
            self.close()
            raise
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            self.close()
            raise EngineDown(f"the OPA server does not answer ({type(error).__name__})") from None
        return response.status, found

    def close(self) -> None:
        """The next call connects anew."""
        self._connection.close()
        self.fresh = True


class OpaPrograms:
    """All layers on one server. Made and used by one thread."""

    def __init__(self, layers: Sequence[Layer], address: OpaAddress) -> None:
        """Puts the layers there and reads them back.

        Raises:
            EngineError: the server cannot be reached, refuses a module, or holds something else.
        """
        self._server = OpaServer(address)
        self._prefix = prefix(layers)
        self._modules = {
            f"{self._prefix}/{number}/{package}": text
            for number, layer in enumerate(layers)
            for package, text in modules(layer.sources, f"{self._prefix}.l{number}").items()
        }
        self.programs = [(layer.name, OpaProgram(self, number)) for number, layer in enumerate(layers)]
        self._put()
        self._looked = time.monotonic()

    def _put(self) -> None:
        for name, text in self._modules.items():
            path = f"/v1/policies/{quote(name)}"
            status, _ = self._server.call("PUT", path, text.encode("utf-8"), "text/plain")
            if status != 200:
                raise EngineDown(f"the OPA server does not take {name} (status {status})")
        self._look()

    def _look(self) -> None:
        """That the server holds our modules and nothing else in our package."""
        status, found = self._server.call("GET", "/v1/policies")
        policies = found.get("result") if status == 200 and isinstance(found, dict) else None
        if not isinstance(policies, list):
            raise EngineDown("the OPA server does not say what it holds")
        held = {}
        for policy in policies:
            try:
                first, name = policy["ast"]["package"]["path"][1]["value"], policy["id"]
                second = policy["ast"]["package"]["path"][2]["value"]
                raw = policy["raw"]
            except (KeyError, IndexError, TypeError):
                continue  # not below our package
            if first == ROOT and f"{ROOT}.{second}" == self._prefix:
                held[name] = raw
        if held != self._modules:
            raise EngineDown("the OPA server does not hold the policy that was put there, or holds more")
        self._server.fresh = False
        self._looked = time.monotonic()

    def ask(self, number: int, document: Mapping[str, Any]) -> Any:
        """The value of a layer's `decision`. Raises EngineDown, UndefinedDecision."""
        if self._server.fresh or time.monotonic() - self._looked > LOOK_AGAIN_SECONDS:
            self._look()
        place = self._prefix.replace(".", "/")
        path = f"/v1/data/{place}/l{number}/vestibule/{DECISION}?strict-builtin-errors=true"
        status, found = self._server.call("POST", path, canonical_json({"input": dict(document)}))
        if status == 500 and isinstance(found, dict) and found.get("code") == "internal_error":
            raise EngineError("the policy ended with an error")  # as the engine in this process says it
        if status != 200 or not isinstance(found, dict):
            raise EngineDown(f"the OPA server answers with status {status}")
        if "result" not in found:
            raise UndefinedDecision("the policy is undefined for this request")
        return found["result"]


@dataclass(frozen=True, slots=True)
class OpaProgram:
    """One layer on the server; asked like the engine in this process."""

    set: OpaPrograms
    number: int

    def answer(self, document: Mapping[str, Any]) -> Answer:
        """As `engine.Program.answer`."""
        return parse_answer(self.set.ask(self.number, document))


def version(address: OpaAddress) -> str:
    """`opa 1.4.2`, as the server says it.

    Raises:
        DependencyDown: `dependency.policy`: it says nothing.
    """
    server = OpaServer(address)
    try:
        status, found = server.call("GET", "/v1/data/system/version/version")
    except EngineError as error:
        raise down(str(error), address) from None
    finally:
        server.close()
    name = found.get("result") if isinstance(found, dict) else None
    if status != 200 or not isinstance(name, str) or len(name) > 100:
        raise down(f"it does not tell its version (status {status})", address)
    return f"opa {name}"


def down(why: str, address: OpaAddress) -> DependencyDown:
    """The refusal when policy cannot be asked of the server."""
    return DependencyDown(
        "policy",
        "The OPA server that decides cannot be used.",
        fact=f"{address.url}: {why}"[:300],
        person="Start it, or correct `policy_backend` in the operator's configuration; without policy nothing runs.",
    )


def prefix(layers: Sequence[Layer]) -> str:
    """The package under which these layers stand: equal text, equal name."""
    return f"{ROOT}.d{layers_digest(layers, 'opa').removeprefix('sha256:')[:32]}"


def modules(sources: Mapping[str, str], package: str) -> dict[str, str]:
    """One module for each package of a layer, below `package`: the server compiles one module at a time, and the files
    of a layer use each other's rules.

    Raises:
        EngineError: a file that cannot be moved there.
    """
    heads: dict[str, list[str]] = {}
    bodies: dict[str, list[str]] = {}
    for _, text in sorted(sources.items()):
        lines = relocate(text, package).split("\n")
        try:
            words = [word for word in tokens(text) if word.kind != "newline"]
        except ValueError as error:
            raise EngineError(str(error)) from None
        top = [word for word in words if word.depth == 0 and word.column == 1 and word.text in ("package", "import")]
        if not top or top[0].text != "package":
            raise EngineError("a policy file begins with its package")
        name = lines[top[0].line - 1]
        found = heads.setdefault(name, [])
        for word in top[1:]:
            found.append(lines[word.line - 1])
        for word in top:
            lines[word.line - 1] = ""
        bodies.setdefault(name, []).append("\n".join(lines))
    return {
        name.removeprefix("package").strip(): "\n".join([name, *dict.fromkeys(heads[name]), *bodies[name]])
        for name in heads
    }


def relocate(text: str, package: str) -> str:
    """`text` with its package and every reference to it below `package`.

    Raises:
        EngineError: a reference that cannot be moved (lint refuses it too).
    """
    try:
        words = tokens(text)
    except ValueError as error:
        raise EngineError(str(error)) from None
    places = []
    for index, word in enumerate(words):
        following = [item.text for item in words[index + 1 : index + 3]]
        if word.kind != "name" or (index and words[index - 1].text == "."):
            continue
        if word.text == "package" and word.depth == 0 and following[:1] == ["vestibule"]:
            places.append(words[index + 1].start)
        elif word.text == "data":
            if following != [".", "vestibule"]:
                raise EngineError("`data` outside the policy's own package")
            places.append(words[index + 2].start)
    for place in reversed(places):
        text = f"{text[:place]}{package}.{text[place:]}"
    return text
