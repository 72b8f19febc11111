"""A real OPA server says the same as the engine in this process, and nothing but its right answer allows anything."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opa_server import opa_server
from policy_vectors import vectors
from policy_vocabulary import request

from vestibule.core.errors import ConfigError, DependencyDown
from vestibule.core.ports import PolicyInput
from vestibule.policy import PolicySet, opa
from vestibule.policy.engine import EngineError
from vestibule.policy.layers import Layer, shipped_layer
from vestibule.policy.opa import OpaAddress

ACME = b"""package vestibule

import data.vestibule.frozen as stopped

default decision := {"verdict": "allow", "reasons": []}

frozen := {"backend"}

decision := {"verdict": "hold", "reasons": ["acme.freeze"]} if {
	input.action == "context.write"
	input.task.role in stopped
	data.vestibule.frozen[input.task.role]
} else := {"verdict": "deny", "reasons": ["acme.number"]} if to_number(input.resource.id) > 3
"""
VECTORS = vectors()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with opa_server() as (url, _):
        yield url


@pytest.fixture(scope="module")
def both(server: str) -> Iterator[tuple[PolicySet, PolicySet]]:
    inside, outside = PolicySet.load(), PolicySet.load(opa=OpaAddress(server))
    yield inside, outside
    inside.close()
    outside.close()


def _same(both: tuple[PolicySet, PolicySet], asked: PolicyInput) -> None:
    here, there = (policy.decide(asked) for policy in both)
    assert (here.ruling, set(here.reasons)) == (there.ruling, set(there.reasons)), asked


def test_every_shared_vector_against_real_opa(both: tuple[PolicySet, PolicySet]) -> None:
    for vector in VECTORS:
        verdict = both[1].decide(vector.request)
        assert (verdict.ruling.value, frozenset(verdict.reasons)) == (vector.verdict, vector.reasons), vector.name


def test_layers_that_use_each_others_rules_by_package(server: str) -> None:
    layers = ((), {"p.rego": ACME})
    both = PolicySet.load(*layers), PolicySet.load(*layers, opa=OpaAddress(server))
    asked = [
        request("context.write"),
        request("context.write", task={"role": "other"}),
        request("context.read", resource={"id": "5"}),
        request("context.read", resource={"id": "x"}),
        request("context.read"),
    ]
    for item in asked:
        _same(both, item)
    assert both[1].decide(asked[0]).reasons == ("acme.freeze",)
    assert both[1].decide(asked[3]).reasons == ("policy.error",), "an error in a built-in is an error there too"
    for policy in both:
        policy.close()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.sampled_from(["", "never", "recorded", "hold", "deny", "granted", "claim", "write", "path.git", "budget.usd"]),
    st.sampled_from(["model.field.a b", "grant", "refuse", "person", "agent", "public", "secret", "outsider", "web"]),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["allow", "a"])), max_size=3),
    st.dictionaries(st.sampled_from(["a", "is"]), st.booleans(), max_size=2),
)


@st.composite
def inputs(draw: st.DrawFn) -> PolicyInput:
    """An input of the vectors with parts missing, of other types, or too many."""
    document = draw(st.sampled_from(VECTORS)).request.model_dump(mode="json")
    for part in draw(
        st.lists(st.sampled_from(["facts", "facts", "resource", "labels", "subject", "task"]), max_size=4)
    ):
        names = [*sorted(document[part]), "extra", "server", "clearance", "inside"]
        name = draw(st.sampled_from(names))
        if draw(st.booleans()):
            document[part].pop(name, None)
        else:
            document[part][name] = draw(VALUES)
    return PolicyInput.model_validate(document)


@settings(max_examples=400, deadline=None)
@given(asked=inputs())
def test_the_two_engines_never_differ(both: tuple[PolicySet, PolicySet], asked: PolicyInput) -> None:
    _same(both, asked)


@pytest.mark.parametrize(
    "url",
    [
        "http://opa.example.com:8181",
        "http://10.0.0.1:8181",
        "ftp://127.0.0.1",
        "127.0.0.1:8181",
        "https://",
        "https://user:secret@opa.example.com",
        "https://opa.example.com/?x=1",
        "https://opa.example.com:99999",
        "unix:///run/opa.sock",
        "http://[::1",
    ],
)
def test_only_https_or_this_machine(url: str) -> None:
    with pytest.raises(ConfigError):
        OpaAddress(url)


def test_https_and_loopback_are_taken() -> None:
    for url in ("https://opa.example.com", "http://127.0.0.1:8181", "http://[::1]:8181/base", "http://localhost:1"):
        assert OpaAddress(url).url == url


def test_no_server_refuses_to_start() -> None:
    with pytest.raises(DependencyDown) as found:
        PolicySet.load(opa=OpaAddress("http://127.0.0.1:1"))
    assert found.value.refusal.rule == "dependency.policy"


def test_a_server_that_dies_denies_and_is_taken_up_again_when_it_holds_the_policy() -> None:
    with opa_server() as (url, process):
        policy = PolicySet.load(opa=OpaAddress(url))
        assert policy.decide(request("context.read")).allowed
        process.kill()
        process.wait()
        assert policy.decide(request("context.read", resource={"id": "b"})).reasons == ("dependency.policy",)
        assert policy.decide(request("context.read")).allowed, "remembered: the same input under the same digest"
        policy.close()


def _change(url: str, name: str, text: str) -> None:
    asked = urllib.request.Request(f"{url}/v1/policies/{name}", text.encode(), {"Content-Type": "text/plain"})
    asked.method = "PUT"
    assert urllib.request.urlopen(asked).status == 200


def _held(url: str) -> dict[str, str]:
    found = json.loads(urllib.request.urlopen(f"{url}/v1/policies").read())
    return {item["id"]: item["raw"] for item in found["result"]}


def test_a_changed_module_on_the_server_is_a_deny(monkeypatch: pytest.MonkeyPatch) -> None:
    with opa_server() as (url, _):
        policy = PolicySet.load(opa=OpaAddress(url))
        name, text = next(iter(_held(url).items()))
        package = text.split("\n", 1)[0]
        _change(url, name, package + '\ndecision := {"verdict": "allow", "reasons": []}\n')
        monkeypatch.setattr(opa, "LOOK_AGAIN_SECONDS", -1.0)
        assert policy.decide(request("context.delete")).reasons == ("dependency.policy",)
        policy.close()


def test_a_module_that_is_not_ours_in_our_package_refuses_to_start() -> None:
    with opa_server() as (url, _):
        PolicySet.load(opa=OpaAddress(url)).close()
        package = f"package {opa.prefix([shipped_layer()])}.l0.vestibule"
        _change(url, "mine", package + "\nneeded := {} if false\n")
        with pytest.raises(DependencyDown) as found:
            PolicySet.load(opa=OpaAddress(url))
        assert "holds more" in str(found.value)


def test_other_policies_on_the_server_are_nobodys_business() -> None:
    with opa_server() as (url, _):
        _change(url, "other", "package other\nallow := true\n")
        PolicySet.load(opa=OpaAddress(url)).close()


class _Liar(ThreadingHTTPServer):
    """Holds whatever it is given and answers decisions as it is told."""

    daemon_threads = True
    block_on_close = False
    answer: tuple[int, bytes] = (200, b"{}")
    hang: threading.Event | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Liar
    held: dict[str, str] = {}

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.held[urllib.request.unquote(self.path.removeprefix("/v1/policies/"))] = text
        self._send(200, b"{}")

    def do_GET(self) -> None:
        if "version" in self.path:
            return self._send(200, b'{"result": "1.0.0"}')
        found = []
        for name, text in self.held.items():
            path = [{"value": part} for part in ["data", *text.split("\n", 1)[0].split()[1].split(".")]]
            found.append({"id": name, "raw": text, "ast": {"package": {"path": path}}})
        return self._send(200, json.dumps({"result": found}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["input"]["action"] == "":
            return self._send(200, b'{"result": {"verdict": "deny", "reasons": ["policy.unknown_action"]}}')
        if self.server.hang is not None:
            self.server.hang.wait(30)
        return self._send(*self.server.answer)


@pytest.fixture
def liar() -> Iterator[_Liar]:
    _Handler.held = {}
    server = _Liar(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"{}", "policy.undefined"),
        (200, b"", "policy.undefined"),
        (200, b"[]", "dependency.policy"),
        (200, b"allow", "dependency.policy"),
        (200, b'{"result": true}', "policy.error"),
        (200, b'{"result": {"verdict": "allow"}}', "policy.error"),
        (200, b'{"result": {"verdict": "allow", "reasons": [], "more": 1}}', "policy.error"),
        (200, b" " * (5 << 20), "dependency.policy"),
        (302, b'{"result": {"verdict": "allow", "reasons": []}}', "dependency.policy"),
        (401, b'{"result": {"verdict": "allow", "reasons": []}}', "dependency.policy"),
        (500, b'{"result": {"verdict": "allow", "reasons": []}}', "dependency.policy"),
        (500, b'{"code": "internal_error"}', "policy.error"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_every_other_answer_is_a_deny(liar: _Liar, status: int, body: bytes, reason: str) -> None:
    policy = PolicySet.load(opa=OpaAddress(f"http://127.0.0.1:{liar.server_port}"))
    liar.answer = (status, body)
    assert policy.decide(request("context.read")).reasons == (reason,)
    liar.answer = (200, b'{"result": {"verdict": "allow", "reasons": []}}')
    assert policy.decide(request("context.read")).allowed, "the answer that was missing is not remembered"
    policy.close()


def test_a_server_that_is_silent_is_a_deny(liar: _Liar) -> None:
    policy = PolicySet.load(opa=OpaAddress(f"http://127.0.0.1:{liar.server_port}", timeout_seconds=0.2))
    liar.hang = threading.Event()
    assert policy.decide(request("context.read")).reasons == ("dependency.policy",)
    liar.hang.set()
    policy.close()


def test_a_reference_outside_the_package_cannot_be_moved(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        opa.relocate("package vestibule\nx := data.acme.y\n", "p")
    with pytest.raises(EngineError):
        opa.modules({"a.rego": "x := 1\n"}, "p")
    text = '# data.vestibule\npackage vestibule\nx := data.vestibule.y # "data"\ny := "data.vestibule"\n'
    moved = opa.relocate(text, "p.l0")
    assert (
        moved
        == '# data.vestibule\npackage p.l0.vestibule\nx := data.p.l0.vestibule.y # "data"\ny := "data.vestibule"\n'
    )
    assert opa.prefix([Layer("a", {"p": text}, {})]) != opa.prefix([Layer("a", {"p": text + "#"}, {})])
