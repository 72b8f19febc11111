"""What is refused, how it is said, and that it is in the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from context_fake import Endpoint, make_endpoint, make_task

from vestibule.core.verdict import Ruling

TRICKS = [
    ("../etc/passwd", "path.traversal"),
    ("src/../../etc/passwd", "path.traversal"),
    ("/etc/passwd", "path.absolute"),
    ("/workspace/../etc/passwd", "path.traversal"),
    ("/workspace//etc/passwd", "path.absolute"),
    ("/workspace/workspace/../../x", "path.traversal"),
    ("~/.ssh/id", "path.absolute"),
    ("C:/Windows/win.ini", "path.absolute"),
    ("src/%2e%2e/%2e%2e/x", "path.encoded"),
    ("src/%252e%252e/x", "path.encoded"),
    ("src\\..\\..\\x", "path.backslash"),
    ("src/a.py\0.png", "path.nul"),
    ("src/a\n.py", "path.control"),
    ("src/.g\u200cit/config", "path.invisible"),
    (".git/config", "path.git"),
    ("src/.GIT/hooks/pre-commit", "path.git"),
    ("src/git~1/config", "path.git"),
    ("src/.git::$INDEX_ALLOCATION/config", "path.git"),
    ("src/a.py:stream", "path.stream"),
    ("src/con.txt", "path.device"),
    ("src/.. /x", "path.trailing"),
    ("src/e\u0301.py", "path.unicode"),
    ("src/" + "a" * 300, "path.length"),
    ("a/" * 2100 + "b", "path.length"),
    ("src/\ud800.py", "path.encoding"),
    ("", "path.empty"),
    (["src/greet.py"], "path.type"),
    (7, "path.type"),
]


def _calls(path: Any) -> list[tuple[str, dict[str, Any]]]:
    calls = [("read_file", {"path": path}), ("write_file", {"path": path, "content": "x"})]
    if path != "":
        calls += [("list_files", {"path": path}), ("search_files", {"path": path, "query": "x"})]
    return calls


@pytest.mark.parametrize(("path", "rule"), TRICKS, ids=[repr(path)[:40] for path, _ in TRICKS])
def test_path_trick_is_403_with_its_rule_and_an_event(endpoint: Endpoint, path: Any, rule: str) -> None:
    before = snapshot(endpoint.folder)
    for tool, arguments in _calls(path):
        answer = endpoint.call(tool, **arguments)
        assert answer.refusal["rule"] == rule, tool
        intent = endpoint.log.events[-1]
        assert (intent.phase, intent.verdict, intent.reasons[0]) == ("intent", Ruling.DENY, rule)
        assert intent.subject == "agent"
    assert snapshot(endpoint.folder) == before
    assert endpoint.log.outcomes() == []


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/config", "src/%2e%2e/x", '"src/\\000x"', "src/a\\..\\b"])
def test_path_trick_inside_a_patch_is_403_and_nothing_of_it_is_applied(endpoint: Endpoint, path: str) -> None:
    patch = f"--- /dev/null\n+++ b/src/fine.py\n@@ -0,0 +1 @@\n+x\n--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+x\n"
    answer = endpoint.call("apply_patch", patch=patch)
    assert answer.refusal["rule"].startswith("path.")
    assert not (endpoint.folder / "src/fine.py").exists()
    assert [event.verdict for event in endpoint.log.intents()] == [Ruling.ALLOW, Ruling.DENY]
    closed = endpoint.log.outcomes()
    assert [(event.intent, event.result) for event in closed] == [(1, "failed")]


def test_patch_asks_for_every_file_before_it_writes_one(endpoint: Endpoint) -> None:
    patch = "".join(
        f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n" for name in ("src/a.py", "infra/prod.tf", "src/b.py")
    )
    assert endpoint.call("apply_patch", patch=patch).refusal["rule"] == "context.write.scope"
    assert not (endpoint.folder / "src/a.py").exists()
    assert not (endpoint.folder / "src/b.py").exists()
    assert [event.resource for event in endpoint.log.intents()] == ["src/a.py", "infra/prod.tf", "src/b.py"]


OUT_OF_SCOPE = [
    ("read_file", {"path": "secret/key.txt"}, "context.read.scope"),
    ("list_files", {"path": "secret"}, "context.read.scope"),
    ("search_files", {"path": "secret", "query": "classified"}, "context.read.scope"),
    ("read_file", {"path": "src/CLAUDE.md"}, "context.read.control_file"),
    ("write_file", {"path": "docs/guide.md", "content": ""}, "context.write.scope"),
    ("write_file", {"path": "pyproject.toml", "content": ""}, "context.write.scope"),
    ("write_file", {"path": "src/AGENTS.md", "content": ""}, "context.write.protected"),
    ("write_file", {"path": "src/.vscode/tasks.json", "content": ""}, "context.write.protected"),
    ("write_file", {"path": "src/.gitattributes", "content": ""}, "context.write.protected"),
    ("run_command", {"argv": ["bash", "-c", "id"]}, "context.exec.command"),
    ("run_command", {"argv": ["/usr/bin/pytest"]}, "context.exec.command"),
    ("run_command", {"argv": ["./pytest"]}, "context.exec.command"),
    ("run_command", {"argv": ["pytest;id"]}, "context.exec.command"),
    ("run_command", {"argv": [""]}, "context.exec.command"),
    ("delete_everything", {}, "context.tool_unknown"),
    ("mcp__vestibule__read_file", {"path": "src/greet.py"}, "context.tool_unknown"),
]


@pytest.mark.parametrize(("tool", "arguments", "rule"), OUT_OF_SCOPE)
def test_beyond_the_scope_is_403(endpoint: Endpoint, tool: str, arguments: dict[str, Any], rule: str) -> None:
    before = snapshot(endpoint.folder)
    for version in ("2025-11-25", "2026-07-28"):
        endpoint.version = version
        answer = endpoint.call(tool, **arguments)
        assert answer.refusal["rule"] == rule
        assert answer.json["error"]["message"].startswith(f"[{rule}] ")
        assert answer.headers["content-type"] == "application/json"
        assert "www-authenticate" not in answer.headers
    assert snapshot(endpoint.folder) == before
    assert endpoint.runner.asked == []
    assert [event.verdict for event in endpoint.log.events] == [Ruling.DENY, Ruling.DENY]


def test_protected_paths_of_the_role_are_refused_in_any_case(folder: Path, loop: Any) -> None:
    found = make_endpoint(folder, loop, task=make_task(protected=("src/deploy/**",)))
    for path in ("src/deploy/a.py", "src/DEPLOY/a.py"):
        assert found.call("write_file", path=path, content="x").refusal["rule"] == "context.write.protected"


@pytest.mark.parametrize("missing", ["secret/none.txt", "nowhere/x", "secret"])
def test_refusal_does_not_tell_whether_a_hidden_file_exists(endpoint: Endpoint, missing: str) -> None:
    there = endpoint.call("read_file", path="secret/key.txt")
    absent = endpoint.call("read_file", path=missing)
    assert there.status == absent.status == 403
    shape = there.json["error"]["message"].replace("secret/key.txt", "PATH")
    assert absent.json["error"]["message"].replace(missing, "PATH") == shape


def test_lists_and_searches_say_nothing_of_hidden_files(endpoint: Endpoint) -> None:
    listed = endpoint.call("list_files")
    found = endpoint.call("search_files", query="Hello")
    by_expression = endpoint.call("search_files", query="classified|control", regex=True)
    empty = endpoint.call("list_files", path="src/private")
    (endpoint.folder / "src/private").mkdir()
    (endpoint.folder / "src/private/CLAUDE.md").write_text("x")
    assert endpoint.call("list_files", path="src/private").text == empty.text
    assert endpoint.call("list_files", path="docs/private").refusal["rule"] == "context.read.scope"
    for answer in (listed, found, by_expression):
        assert "secret" not in answer.text
        assert "CLAUDE" not in answer.text
        assert ".git" not in answer.text
    assert endpoint.log.outcomes()[0].details == {"entries": 5}


def test_only_the_roles_tools_are_listed_and_callable(folder: Path, loop: Any) -> None:
    found = make_endpoint(folder, loop, task=make_task(tools=("read_file",)))
    for version in ("2025-11-25", "2026-07-28"):
        found.version = version
        tools = found.rpc("tools/list").json["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["get_task", "read_file"]
        assert all(tool["inputSchema"]["additionalProperties"] is False for tool in tools)
    assert found.call("write_file", path="src/greet.py", content="").refusal["rule"] == "context.tool"
    assert found.call("run_command", argv=["pytest"]).refusal["rule"] == "context.tool"
    assert found.call("write_file", nonsense=1).refusal["rule"] == "context.tool"


@pytest.mark.parametrize(
    "method", ["resources/read", "resources/subscribe", "prompts/get", "completion/complete", "logging/setLevel", "x/y"]
)
def test_methods_beyond_tools_are_refused_and_recorded(endpoint: Endpoint, method: str) -> None:
    answer = endpoint.rpc(method, {"uri": "file:///../../etc/shadow"})
    assert answer.refusal["rule"] == "context.tool_unknown"
    assert (endpoint.log.events[0].action, endpoint.log.events[0].resource) == ("context.call", method)


def test_a_method_that_does_not_exist_is_the_404_that_its_revision_asks_for(endpoint: Endpoint) -> None:
    endpoint.version = "2026-07-28"
    for number, method in enumerate(("resources/read", "prompts/get", "x/y")):
        answer = endpoint.rpc(method, {"uri": "file:///etc/shadow"})
        assert (answer.status, answer.json["error"]["code"]) == (404, -32601)
        assert answer.json["error"]["data"]["rule"] == "context.tool_unknown"
        assert endpoint.log.intents()[number].resource == method
    # A tool that does not exist is a refusal like every other, and so is a method when the log cannot record it.
    assert endpoint.call("x").refusal["rule"] == "context.tool_unknown"
    endpoint.log.fails = OSError("disk full")
    assert endpoint.rpc("x/y").refusal["rule"] == "dependency.audit"


def test_a_hold_is_a_403_too(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    real = endpoint.policy.decide

    def hold(request: Any) -> Any:
        return real(request).model_copy(update={"ruling": Ruling.HOLD, "reasons": ("org.ask",)})

    monkeypatch.setattr(endpoint.policy, "decide", hold)
    assert endpoint.call("write_file", path="src/x.py", content="x").refusal["rule"] == "org.ask"
    assert not (endpoint.folder / "src/x.py").exists()


# authentication and HTTP


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic dTpw", "bearer \u00e9", "Bearer " + "x" * 9000]
)
def test_without_the_token_everything_is_a_plain_401(endpoint: Endpoint, value: str) -> None:
    for path in ("/mcp", "/", "/.well-known/oauth-protected-resource"):
        answer = endpoint.http(b"{}", path=path, headers={"authorization": value})
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json["error"] == "unauthorized"
    assert endpoint.log.events == []


def test_two_authorization_headers_are_none(endpoint: Endpoint) -> None:
    assert endpoint.http(b"{}", extra=[("authorization", "Bearer x")]).status == 401


def test_expired_lease_closes_the_endpoint_at_once(folder: Path, loop: Any) -> None:
    live = [True]
    found = make_endpoint(folder, loop)
    actor = found.app._authenticate(found.token)
    again = make_endpoint(folder, loop, authenticate=lambda _: actor if live[0] else None)
    assert again.call("read_file", path="src/greet.py").status == 200
    live[0] = False
    assert again.call("read_file", path="src/greet.py").status == 401


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"headers": {"host": "evil.example.com"}}, 421),
        ({"headers": {"host": "context.vestibule.internal.evil.example.com"}}, 421),
        ({"headers": {"host": "models.vestibule.internal"}}, 421),
        ({"drop": ["host"]}, 421),
        ({"headers": {"origin": "http://evil.example.com"}}, 403),
        ({"headers": {"origin": "null"}}, 403),
        ({"method": "GET"}, 405),
        ({"method": "DELETE"}, 405),
        ({"method": "PUT"}, 405),
        ({"path": "/mcp/"}, 404),
        ({"path": "/"}, 404),
        ({"headers": {"content-type": "text/plain"}}, 415),
        ({"headers": {"content-type": "application/json; charset=utf-16"}}, 415),
        ({"drop": ["content-type"]}, 415),
        ({"headers": {"content-encoding": "gzip"}}, 415),
        ({"headers": {"content-length": "99999999"}}, 413),
        ({"headers": {"content-length": "-1"}}, 413),
        ({"extra": [("host", "evil.example.com")]}, 400),
        ({"extra": [("content-type", "application/json")]}, 400),
        ({"headers": {"x-large": "x" * 70_000}}, 431),
    ],
)
def test_odd_requests_are_turned_away_before_they_are_read(
    endpoint: Endpoint, change: dict[str, Any], status: int
) -> None:
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "write_file", "arguments": {"path": "src/x.py", "content": "x"}},
    }
    answer = endpoint.http(json.dumps(message).encode(), **change)
    assert answer.status == status
    assert not (endpoint.folder / "src/x.py").exists()
    assert endpoint.log.events == []


def test_body_beyond_the_limit_is_413_however_it_is_announced(endpoint: Endpoint) -> None:
    assert endpoint.http(b" " * (8 << 20) + b"{}", drop=["content-length"]).status == 413


def test_hanging_up_before_the_body_is_there_does_nothing(endpoint: Endpoint) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/mcp",
        "headers": [
            (b"host", b"context.vestibule.internal"),
            (b"authorization", b"Bearer " + endpoint.token),
            (b"content-type", b"application/json"),
        ],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    endpoint.loop.run_until_complete(endpoint.app(scope, receive, send))
    assert sent == []
    assert endpoint.log.events == []


def test_probe_token_marks_its_events(endpoint: Endpoint) -> None:
    endpoint.token = endpoint.probe
    assert endpoint.call("read_file", path="../x").status == 403
    assert endpoint.log.events[0].subject == "probe"


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below the folder's parent, with its content."""
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.parent.rglob("*"))
    }
