"""Attacks by how an upstream server behaves: garbage, floods, silence, crashes, answers to others' requests."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.upstream_fake import FakeClock, FakeServer, config, running, text, tool
from vestibule.boundary.context.upstream import http as http_way
from vestibule.boundary.context.upstream import stdio, wire


def _reply(message: dict[str, Any], **result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result or text("ok")}).encode()


BROKEN: dict[str, Any] = {
    "no JSON": lambda _: b"hello",
    "not UTF-8": lambda _: b'{"jsonrpc": "2.0", "id": 1, "result": {"x": "\xff"}}',
    "a list": lambda m: b"[" + _reply(m) + b"]",
    "another's id": lambda m: _reply({"id": m["id"] + 1}),
    "an id of text": lambda m: _reply({"id": str(m["id"])}),
    "an id that is true": lambda _: _reply({"id": True}),
    "no id": lambda _: b'{"jsonrpc": "2.0", "result": {}}',
    "a key twice": lambda m: _reply(m)[:-1] + b', "result": {"content": [{"type": "text", "text": "other"}]}}',
    "a key twice within": lambda m: b'{"jsonrpc":"2.0","id":%d,"result":{"isError":true,"isError":false}}' % m["id"],
    "NaN": lambda m: b'{"jsonrpc":"2.0","id":%d,"result":{"structuredContent":NaN}}' % m["id"],
    "a long number": lambda m: b'{"jsonrpc":"2.0","id":%d,"result":{"a":%s}}' % (m["id"], b"9" * 5000),
    "too deep": lambda m: b'{"jsonrpc":"2.0","id":%d,"result":{"a":%s}}' % (m["id"], b"[" * 5000 + b"]" * 5000),
    "too many values": lambda m: b'{"jsonrpc":"2.0","id":%d,"result":{"a":[%s0]}}' % (m["id"], b"0," * 300_000),
    "result and error": lambda m: _reply(m)[:-1] + b', "error": {"code": 1, "message": "x"}}',
    "an error that is none": lambda m: b'{"jsonrpc":"2.0","id":%d,"error":"x"}' % m["id"],
    "a result that is none": lambda m: b'{"jsonrpc":"2.0","id":%d,"result":"x"}' % m["id"],
    "another version": lambda m: b'{"jsonrpc":"1.0","id":%d,"result":{}}' % m["id"],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_breaks_the_protocol_is_ended_and_its_tool_refused(tmp_path: Path, kind: str) -> None:
    fake = FakeServer([tool("find_page")])
    fake.raw["tools/call"] = BROKEN[kind]
    with running(tmp_path, {"docs": (fake, config(seconds=3))}) as run:
        refusal = run.refused("docs__find_page", text="x")
        assert refusal["rule"] == "dependency.upstream"
        assert refusal["fact"].startswith("docs: ")
        fake.raw.clear()
        assert run.said("docs__find_page", text="x")["ok"] is True  # a new process of it
        assert run.call("read_file", path="src/a.py")[0] == 200
        events = run.events()
    assert fake.started == 2
    assert fake.live[0].killed
    assert any(e.phase == "outcome" and e.details.get("error") == "dependency.upstream" for e in events)


def test_a_line_without_end_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "MAX_LINE", 100_000)
    fake = FakeServer([tool("find_page")])
    fake.raw["tools/call"] = lambda _: b"x" * 400_000
    with running(tmp_path, {"docs": (fake, config())}) as run:
        refusal = run.refused("docs__find_page", text="x")
    assert "a line without end" in refusal["fact"]


def test_a_server_that_talks_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "MAX_UNASKED", 50)
    told = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}).encode()
    fake = FakeServer([tool("find_page")])
    fake.raw["tools/call"] = lambda m: b"\n".join([told] * 100 + [_reply(m)])
    with running(tmp_path, {"docs": (fake, config())}) as run:
        assert "talks without end" in run.refused("docs__find_page", text="x")["fact"]


@pytest.mark.parametrize("line", [b"", b" ", b"\r"])
def test_a_server_that_sends_empty_lines_without_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr(stdio, "MAX_UNASKED", 50)
    fake = FakeServer([tool("find_page")])
    fake.raw["tools/call"] = lambda m: b"\n".join([line] * 100 + [_reply(m)])
    with running(tmp_path, {"docs": (fake, config())}) as run:
        assert "talks without end" in run.refused("docs__find_page", text="x")["fact"]


def test_a_server_that_tells_long_things_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "UNASKED_BYTES", 10_000)
    params = {"level": "info", "data": "x" * 3000}
    told = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).encode()
    fake = FakeServer([tool("find_page")])
    fake.raw["tools/call"] = lambda m: b"\n".join([told] * 10 + [_reply(m)])
    with running(tmp_path, {"docs": (fake, config())}) as run:
        assert "talks without end" in run.refused("docs__find_page", text="x")["fact"]


def test_a_server_that_does_not_answer_is_waited_for_in_time_and_its_late_answer_is_nobodys(tmp_path: Path) -> None:
    late: list[dict[str, Any]] = []

    def silent(message: dict[str, Any]) -> bytes:
        late.append(message)
        return b""

    fake = FakeServer([tool("find_page")])
    fake.raw["tools/call"] = silent
    with running(tmp_path, {"docs": (fake, config(seconds=1))}) as run:
        assert "in time" in run.refused("docs__find_page", text="x")["fact"]
        fake.raw.clear()
        fake.live[-1].write(_reply(late[0], content=[{"type": "text", "text": "of another call"}]) + b"\n")
        assert run.said("docs__find_page", text="y")["data"] == 'find_page {"text": "y"}'
    assert fake.started == 1


def test_whatever_a_server_asks_of_us_is_refused(tmp_path: Path) -> None:
    asked = ["sampling/createMessage", "elicitation/create", "roots/list", "ping", "tools/call"]

    def asking(message: dict[str, Any]) -> bytes:
        lines = [
            json.dumps({"jsonrpc": "2.0", "id": f"s{at}", "method": method, "params": {}}).encode()
            for at, method in enumerate(asked)
        ]
        return b"\n".join([*lines, _reply(message)])

    fake = FakeServer([tool("find_page")])
    fake.raw["tools/call"] = asking
    with running(tmp_path, {"docs": (fake, config(cache_seconds=0))}) as run:
        run.said("docs__find_page", text="x")
        fake.raw.clear()
        run.said("docs__find_page", text="y")  # what was answered before this is there
    answers = {m["id"]: m for m in fake.heard if str(m.get("id", "")).startswith("s")}
    assert len(answers) == len(asked)
    assert all(m["error"]["code"] == -32601 and "result" not in m for m in answers.values())


def test_a_tool_that_asks_for_more_input_has_failed(tmp_path: Path) -> None:
    result = {"resultType": "input_required", "inputRequests": {"x": {"method": "elicitation/create"}}}
    with running(tmp_path, {"docs": (FakeServer([tool("find_page")], lambda *_: result), config())}) as run:
        _, answer = run.call("docs__find_page", text="x")
    assert answer["result"]["isError"] is True


def test_a_server_that_crashes_is_started_again_a_bounded_number_of_times(tmp_path: Path) -> None:
    clock = FakeClock()
    fake = FakeServer([tool("find_page")])
    fake.raw["initialize"] = lambda _: b"Segmentation fault"
    with running(tmp_path, {"docs": (fake, config(failures=3, pause_seconds=60))}, now=clock) as run:
        for _ in range(10):
            assert run.refused("docs__find_page", text="x")["rule"] == "dependency.upstream"
        tried = fake.started
        assert tried <= 4
        clock.now += 61
        run.refused("docs__find_page", text="x")
        assert fake.started <= tried + 1  # one try, and the next pause is longer
        fake.raw.clear()
        clock.now += 61
        run.refused("docs__find_page", text="x")
        clock.now += 121
        assert run.said("docs__find_page", text="x")["ok"] is True


def test_a_server_without_its_own_tools_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    good, bad = FakeServer([tool("find_page")]), FakeServer([tool("find_bug")])
    bad.raw["initialize"] = lambda _: b"{}"
    with running(tmp_path, {"docs": (good, config()), "bugs": (bad, config())}) as run:
        assert run.refused("bugs__find_bug", text="x")["fact"].startswith("bugs: ")
        assert run.said("docs__find_page", text="x")["ok"] is True


@pytest.mark.parametrize(
    "page",
    [
        {"tools": "none"},
        {"tools": [{"name": "find_page"}]},
        {"tools": [{"name": "", "inputSchema": {}}]},
        {"tools": [tool("find_page", description=[1])]},  # type: ignore[arg-type]
        {"tools": [], "nextCursor": "again"},
        {"tools": [tool(f"t{n}") for n in range(600)]},
    ],
)
def test_a_list_of_tools_that_is_none_or_does_not_end_is_refused(tmp_path: Path, page: dict[str, Any]) -> None:
    fake = FakeServer([tool("find_page")])
    fake.raw["tools/list"] = lambda message: _reply(message, **page)
    with running(tmp_path, {"docs": (fake, config())}) as run:
        assert run.refused("docs__find_page", text="x")["rule"] == "dependency.upstream"
    assert fake.calls == []


def test_a_server_that_speaks_another_revision_is_not_used(tmp_path: Path) -> None:
    fake = FakeServer([tool("find_page")])
    fake.version = "2099-01-01"
    with running(tmp_path, {"docs": (fake, config())}) as run:
        assert "no revision" in run.refused("docs__find_page", text="x")["fact"]


def test_calls_at_once_are_bounded(tmp_path: Path) -> None:
    """A third call waits for its turn, within its own time, while two are under way."""
    fake = FakeServer([tool("find_page")])
    go = threading.Event()
    lock = threading.Lock()
    waiting: list[dict[str, Any]] = []
    most = [0]

    def slow(message: dict[str, Any]) -> bytes:
        with lock:
            waiting.append(message)
            most[0] = max(most[0], len(waiting))
        if len(waiting) == 2:
            go.set()
        return b""

    fake.raw["tools/call"] = slow
    with running(tmp_path, {"docs": (fake, config(concurrent=2, seconds=2, cache_seconds=0, failures=100))}) as run:
        run.source._servers["docs"].offers()
        threads = [threading.Thread(target=lambda n=n: _quietly(run, n), daemon=True) for n in range(3)]
        for thread in threads:
            thread.start()
        assert go.wait(5)
        with lock:
            assert most[0] == 2
            for message in waiting:
                fake.live[-1].write(_reply(message) + b"\n")
            waiting.clear()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)


def _quietly(run: Any, number: int) -> None:
    call = run.source.plan("docs__find_page", {"text": str(number)})
    with contextlib.suppress(Exception):  # the third may time out, which is not what this is about
        run.source.carry_out(call)


def test_nothing_a_server_says_stands_in_a_refusal() -> None:
    for error in (wire.BadServer("x"), wire.Gone("x"), wire.Slow("x"), wire.Rejected(500)):
        assert isinstance(error, wire.ServerFailed)
    with pytest.raises(wire.BadServer) as caught:
        wire.read(b'{"jsonrpc": "2.0", "id": 1, "sk-secret": "sk-secret", "sk-secret": 1}')
    assert "sk-secret" not in str(caught.value)
    assert http_way.MAX_BODY > 0
