"""Each thing the endpoint depends on, broken: a 403 that names it, no effect, never a 500."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from context_fake import Endpoint, asgi, make_endpoint

from vestibule.boundary.context import openat2, protocol
from vestibule.boundary.context.cleared import SCOPE_KEY, Cleared, Undecided
from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.rules import plan
from vestibule.boundary.context.tools import Answer
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.crossing import Crossing
from vestibule.core.errors import DependencyDown
from vestibule.core.verdict import Ruling

WRITE = {"path": "src/new.py", "content": "x"}


def _refused(endpoint: Endpoint, rule: str) -> None:
    answer = endpoint.call("write_file", **WRITE)
    assert answer.refusal["rule"] == rule
    assert not (endpoint.folder / "src/new.py").exists()


def test_policy_that_raises_is_a_deny_and_recorded(endpoint: Endpoint) -> None:
    endpoint.policy.broken = RuntimeError("bundle unreadable")
    _refused(endpoint, "dependency.policy")
    assert [(event.phase, event.verdict) for event in endpoint.log.events] == [("intent", Ruling.DENY)]


@pytest.mark.parametrize("error", [DependencyDown("audit", "The disk is full."), OSError("disk full")])
def test_log_that_cannot_record_is_a_deny(endpoint: Endpoint, error: BaseException) -> None:
    endpoint.log.fails = error
    _refused(endpoint, "dependency.audit")
    endpoint.log.fails, endpoint.log.raises = None, error
    _refused(endpoint, "dependency.audit")


def test_refusal_needs_the_log_too(endpoint: Endpoint) -> None:
    endpoint.log.fails = OSError("disk full")
    assert endpoint.call("read_file", path="../x").refusal["rule"] == "dependency.audit"


def test_effect_waits_until_the_intent_is_durable(endpoint: Endpoint) -> None:
    slow: list[concurrent.futures.Future[Any]] = []
    real = endpoint.log.submit

    def submit(event: Any) -> concurrent.futures.Future[Any]:
        if event.phase != "intent":
            return real(event)
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        slow.append(done)
        endpoint.loop.call_later(0.05, lambda: (seen.append(target.exists()), done.set_result(real(event).result())))
        return done

    seen: list[bool] = []
    target = endpoint.folder / "src/new.py"
    endpoint.log.submit = submit  # type: ignore[method-assign]
    assert endpoint.call("write_file", **WRITE).status == 200
    assert seen == [False]
    assert target.exists()


def test_runner_that_is_down_is_a_403(endpoint: Endpoint) -> None:
    for error in (DependencyDown("sandbox", "No bubblewrap."), RuntimeError("boom"), OSError("fork")):
        endpoint.runner.broken = error
        assert endpoint.call("run_command", argv=["pytest"]).refusal["rule"] == "dependency.sandbox"
        assert endpoint.log.events[-1].result == "failed"
        assert endpoint.log.events[-1].details == {"error": "dependency.sandbox"}


def test_workspace_that_is_gone_is_a_403(endpoint: Endpoint) -> None:
    shutil.rmtree(endpoint.folder)
    for tool, arguments in (
        ("read_file", {"path": "src/greet.py"}),
        ("write_file", WRITE),
        ("list_files", {}),
        ("search_files", {"query": "x"}),
        ("apply_patch", {"patch": "--- /dev/null\n+++ b/src/a\n@@ -0,0 +1 @@\n+x\n"}),
    ):
        assert endpoint.call(tool, **arguments).refusal["rule"] == "dependency.workspace", tool


def test_closed_workspace_is_a_403(endpoint: Endpoint) -> None:
    endpoint.workspace.close()
    endpoint.workspace.close()
    _refused(endpoint, "dependency.workspace")


def test_workspace_that_is_no_folder_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("none", "file", "link"):
        with pytest.raises(DependencyDown, match="workspace"):
            Workspace(tmp_path / name)


def test_kernel_without_openat2_is_refused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openat2, "SYS_OPENAT2", 100_000)
    with pytest.raises(DependencyDown) as caught:
        Workspace(folder)
    assert caught.value.name == "openat2"


def test_openat2_lost_on_the_way_is_a_403(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openat2, "SYS_OPENAT2", 100_000)
    _refused(endpoint, "dependency.openat2")
    assert endpoint.call("read_file", path="src/greet.py").refusal["rule"] == "dependency.openat2"


def test_sdk_that_cannot_be_loaded_is_a_403(folder: Path, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_MODULE", "vestibule.boundary.context.no_such_module")
    endpoint = make_endpoint(folder, loop)
    _refused(endpoint, "dependency.mcp")
    assert endpoint.rpc("tools/list").refusal["rule"] == "dependency.mcp"
    assert endpoint.call("read_file", path="../x").refusal["rule"] == "path.traversal"


def test_refusals_do_not_wait_for_the_sdk(folder: Path, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol.Protocol, "_load", lambda self: None)  # it never comes
    endpoint = make_endpoint(folder, loop)
    assert endpoint.http(b"{}", headers={"authorization": ""}).status == 401
    assert endpoint.call("read_file", path="../x").refusal["rule"] == "path.traversal"


@pytest.mark.parametrize("status", [0, 500, 503])
def test_sdk_that_fails_is_a_403(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    assert endpoint.rpc("ping").status == 200
    sdk = importlib.import_module("vestibule.boundary.context.sdk")

    async def serve(_: Any, __: Any, ___: Any, send: Any) -> None:
        if not status:
            raise RuntimeError("boom")
        await send({"type": "http.response.start", "status": status, "headers": []})

    monkeypatch.setattr(sdk.Endpoint, "serve", serve)
    endpoint.version = "2025-06-18"  # a revision that only the SDK answers
    _refused(endpoint, "dependency.mcp")
    assert endpoint.rpc("tools/list").refusal["rule"] == "dependency.mcp"


def test_a_call_that_the_sdk_answers_is_not_taken_for_a_plain_one(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = importlib.import_module("vestibule.boundary.context.direct")

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    for name in ("classify_inbound_request", "validate_client_request"):
        with monkeypatch.context() as patched:
            patched.setattr(direct, name, broken)
            endpoint.version = "2026-07-28"
            _refused(endpoint, "dependency.context")
    assert [event.result for event in endpoint.log.outcomes()] == ["failed", "failed"]


def test_authentication_that_fails_lets_nobody_in(folder: Path, loop: Any) -> None:
    def broken(_: bytes) -> None:
        raise OSError("database is locked")

    endpoint = make_endpoint(folder, loop, authenticate=broken)
    _refused(endpoint, "dependency.identity")
    assert endpoint.log.events == []


def test_bug_of_ours_is_a_403_and_the_loop_goes_on(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("vestibule.boundary.context.rules.plan", bug)
        _refused(endpoint, "dependency.context")
    with monkeypatch.context() as patched:
        patched.setattr("vestibule.boundary.context.http.Headers", bug)
        _refused(endpoint, "dependency.context")
    assert endpoint.call("write_file", **WRITE).status == 200


def test_bug_in_a_tool_is_a_403_with_a_failed_outcome(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(endpoint.workspace, "write", bug)
    for version in ("2025-11-25", "2026-07-28"):
        endpoint.version = version
        _refused(endpoint, "dependency.context")
        assert endpoint.log.events[-1].details == {"error": "dependency.context"}


def test_closed_endpoint_runs_nothing_more(endpoint: Endpoint) -> None:
    assert endpoint.call("read_file", path="src/greet.py").status == 200
    endpoint.app.close()
    endpoint.app.close()
    _refused(endpoint, "dependency.context")


def test_closing_waits_for_the_tool_that_runs_and_refuses_the_next(endpoint: Endpoint) -> None:
    started, released = threading.Event(), threading.Event()
    order: list[str] = []

    def run(argv: Any, *, timeout_seconds: float) -> Any:
        started.set()
        released.wait(10)
        order.append("command ended")
        raise DependencyDown("sandbox", "killed")

    def close() -> None:
        started.wait(10)
        threading.Thread(target=released.set).start()
        endpoint.app.close()
        order.append("closed")

    endpoint.runner.run = run  # type: ignore[method-assign]
    closer = threading.Thread(target=close)
    closer.start()
    assert endpoint.call("run_command", argv=["pytest"]).refusal["rule"] == "dependency.sandbox"
    closer.join()
    assert order == ["command ended", "closed"]
    _refused(endpoint, "dependency.context")


def test_slow_body_is_408_and_too_many_calls_are_429(folder: Path, loop: Any) -> None:
    limits = ContextLimits(body_seconds=0.05, concurrent_calls=1, waiting_calls=1)
    endpoint = make_endpoint(folder, loop, limits=limits)
    head = [
        (b"host", b"context.vestibule.internal"),
        (b"authorization", b"Bearer " + endpoint.token),
        (b"content-type", b"application/json"),
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": head}
    loop.run_until_complete(endpoint.app(scope, receive, send))
    assert sent[0]["status"] == 408

    released = threading.Event()
    real = endpoint.runner.run
    endpoint.runner.run = lambda *a, **k: (released.wait(10), real(*a, **k))[1]  # type: ignore[method-assign]
    call = {"name": "run_command", "arguments": {"argv": ["pytest"]}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()

    async def crowd() -> list[int]:
        tasks = [asyncio.ensure_future(asgi(endpoint.app, scope, body)) for _ in range(5)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result().status for task in done} == {429}
        released.set()
        return sorted(answer.status for answer in await asyncio.gather(*tasks))

    assert loop.run_until_complete(crowd()) == [200, 200, 429, 429, 429]
    assert len(endpoint.log.intents()) == 2


def test_bodies_of_many_unfinished_requests_are_bounded_together(folder: Path, loop: Any) -> None:
    """The endpoint's memory is the supervisor's: a sandbox must not fill it with requests that never end."""
    endpoint = make_endpoint(folder, loop, limits=ContextLimits(bodies_bytes=10_000))
    head = [
        (b"host", b"context.vestibule.internal"),
        (b"authorization", b"Bearer " + endpoint.token),
        (b"content-type", b"application/json"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": head}
    statuses: list[int] = []

    def one(goes_on: asyncio.Event) -> Any:
        parts = [{"type": "http.request", "body": b" " * 4_000, "more_body": True}]

        async def receive() -> Any:
            if parts:
                return parts.pop()
            await goes_on.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        return endpoint.app(scope, receive, send)

    async def crowd() -> None:
        leave = asyncio.Event()
        tasks = [asyncio.ensure_future(one(leave)) for _ in range(4)]
        while len(statuses) < 4:  # status and body of each of the two that are too many
            await asyncio.sleep(0)
        assert [status for status in statuses if status] == [429, 429]
        leave.set()
        await asyncio.gather(*tasks)

    loop.run_until_complete(crowd())
    # What they held was given back: the next request is served.
    assert not endpoint.call("list_files").failed


def test_disk_full_while_writing_leaves_the_old_file(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    before = (endpoint.folder / "src/greet.py").read_bytes()
    monkeypatch.setattr("vestibule.boundary.context.workspace.os.write", full)
    answer = endpoint.call("write_file", path="src/greet.py", content="new")
    assert answer.refusal["rule"] == "dependency.workspace"
    assert (endpoint.folder / "src/greet.py").read_bytes() == before
    assert [name for name in (endpoint.folder / "src").iterdir() if name.name.startswith(".vestibule")] == []


# defence in depth: no tool body without a decision


def _sdk(endpoint: Endpoint, cleared: Any) -> Any:
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"write_file",'
        b'"arguments":{"path":"src/new.py","content":"x"}}}'
    )
    return endpoint.loop.run_until_complete(endpoint.app._protocol.serve(body, [], cleared))


def test_sdk_runs_no_tool_without_a_decision(endpoint: Endpoint) -> None:
    ran: list[str] = []

    async def carry_out(call: Any) -> Answer:
        ran.append(call.tool)
        return Answer(("done",))

    rights = endpoint.app._rights
    for wrong in (
        None,
        object(),
        Cleared(plan("write_file", {"path": "src/other.py", "content": "x"}, rights), carry_out),
        Cleared(plan("read_file", {"path": "src/new.py"}, rights), carry_out),
    ):
        answer = _sdk(endpoint, wrong)
        assert b'"error"' in answer.body
    assert ran == []
    once = Cleared(plan("write_file", dict(WRITE), rights), carry_out)
    assert b"done" in _sdk(endpoint, once).body
    assert b'"error"' in _sdk(endpoint, once).body
    assert ran == ["write_file"]


def test_decision_cannot_be_sent_by_a_client(endpoint: Endpoint) -> None:
    answer = endpoint.call("read_file", path="../x", **{SCOPE_KEY: True})
    assert answer.status == 403
    assert endpoint.http(b"{}", headers={SCOPE_KEY: "1"}).status == 400


def test_crossing_without_steps_is_no_permission(endpoint: Endpoint) -> None:
    async def effect() -> tuple[None, bool, dict[str, Any]]:
        raise AssertionError("ran")

    crossing = Crossing(endpoint.policy, endpoint.log)
    with pytest.raises(ValueError, match="needs a decision"):
        endpoint.loop.run_until_complete(crossing.cross_all(SimpleNamespace(), [], effect))  # type: ignore[arg-type]


def test_undecided_is_an_error_of_its_own() -> None:
    async def carry_out(_: Any) -> Answer:
        return Answer(())

    cleared = Cleared(SimpleNamespace(tool="a", arguments={}), carry_out)  # type: ignore[arg-type]
    with pytest.raises(Undecided):
        asyncio.run(cleared.take("b", {}))
