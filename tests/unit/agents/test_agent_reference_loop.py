"""The reference agent's loop against gateways that say what a test wants."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from vestibule.agents import reference_loop

TOOLS = [{"name": "read_file", "description": "Reads.", "inputSchema": {"type": "object"}}]
Body = dict[str, Any]


def _text(text: str) -> Body:
    return {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}


def _use(*inputs: Body) -> Body:
    blocks = [{"type": "tool_use", "id": f"toolu_{n}", "name": "read_file", "input": i} for n, i in enumerate(inputs)]
    return {"content": blocks, "stop_reason": "tool_use"}


@dataclass
class Gateways:
    """Both gateways on one port. `answers` are the model's, in order; the last one is repeated."""

    answers: list[tuple[int, Body]] = field(default_factory=lambda: [(200, _text("Done."))])
    tool: Callable[[Body], tuple[int, Body]] = lambda _: (
        200,
        {"result": {"content": [{"type": "text", "text": "ok"}]}},
    )
    listed: Body = field(default_factory=lambda: {"result": {"tools": TOOLS}})
    hang_up_after_each: bool = False
    mcp: list[tuple[Body, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[Body, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str, body: Body, headers: dict[str, str]) -> tuple[int, Body]:
        if path == "/mcp":
            self.mcp.append((body, headers))
            return self._context(body)
        assert path == "/models/anthropic/v1/messages"
        self.asked.append((json.loads(json.dumps(body)), headers))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]

    def _context(self, body: Body) -> tuple[int, Body]:
        if body["method"] == "tools/list":
            return 200, {"jsonrpc": "2.0", "id": body["id"], **self.listed}
        if body["method"] == "tools/call":
            if body["params"]["name"] == "get_task":
                return 200, {"result": {"content": [{"type": "text", "text": "Greet politely."}]}}
            return self.tool(body["params"])
        return (202, {}) if body["method"].startswith("notifications/") else (200, {"result": {}})

    def called(self) -> list[Body]:
        """Arguments of the tool calls, in order."""
        return [
            body["params"]["arguments"]
            for body, _ in self.mcp
            if body["method"] == "tools/call" and body["params"]["name"] != "get_task"
        ]

    def results(self) -> list[Body]:
        """Tool results of the last model request."""
        return [block for block in self.asked[-1][0]["messages"][-1]["content"] if block["type"] == "tool_result"]


@pytest.fixture
def gateways(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateways]:
    found = Gateways()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = found.answer(self.path, body, {k.lower(): v for k, v in self.headers.items()})
            data = json.dumps(answer).encode() if answer else b""
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            # The socket is closed although the client was let to think that it stays open.
            self.close_connection = found.hang_up_after_each

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("VESTIBULE_TASK_TOKEN", secrets.token_urlsafe(16))
        monkeypatch.setenv("VESTIBULE_CONTEXT_URL", f"{address}/mcp")
        monkeypatch.setenv("VESTIBULE_MODELS_URL", f"{address}/models")
        monkeypatch.setenv("VESTIBULE_MODEL", "claude-sonnet-5")
        yield found
        server.shutdown()


@pytest.fixture
def token(gateways: Gateways) -> str:
    import os

    return os.environ["VESTIBULE_TASK_TOKEN"]


def test_the_task_is_the_prompt_and_the_roles_tools_are_offered(gateways: Gateways, token: str) -> None:
    assert reference_loop.main() == 0
    body, headers = gateways.asked[0]
    assert body["model"] == "claude-sonnet-5"
    assert body["messages"] == [{"role": "user", "content": "Greet politely."}]
    assert [tool["name"] for tool in body["tools"]] == ["read_file"]
    assert headers["x-api-key"] == token
    assert [message["method"] for message, _ in gateways.mcp] == [
        "initialize",
        "notifications/initialized",
        "tools/list",
        "tools/call",
    ]
    assert {sent["authorization"] for _, sent in gateways.mcp} == {f"Bearer {token}"}


def test_tool_calls_cross_the_context_gateway_and_results_go_back(gateways: Gateways) -> None:
    gateways.answers = [(200, _use({"path": "a"}, {"path": "b"})), (200, _text("Done."))]
    gateways.tool = lambda params: (
        200,
        {"result": {"content": [{"type": "text", "text": f"text of {params['arguments']['path']}"}]}},
    )
    assert reference_loop.main() == 0
    assert gateways.called() == [{"path": "a"}, {"path": "b"}]
    assert [(item["tool_use_id"], item["content"], item["is_error"]) for item in gateways.results()] == [
        ("toolu_0", "text of a", False),
        ("toolu_1", "text of b", False),
    ]


def test_a_refused_call_is_told_to_the_model_and_the_loop_goes_on(
    gateways: Gateways, capsys: pytest.CaptureFixture[str]
) -> None:
    gateways.answers = [(200, _use({"path": "deploy/x"})), (200, _use({"path": "src/a"})), (200, _text("Done."))]
    gateways.tool = lambda params: (
        (403, {"error": {"code": -32010, "message": "[context.read.scope] not yours", "data": {}}})
        if params["arguments"]["path"].startswith("deploy")
        else (200, {"result": {"content": [], "isError": False}})
    )
    assert reference_loop.main() == 0
    first = gateways.asked[1][0]["messages"][-1]["content"][0]
    assert first["is_error"] is True
    assert "[context.read.scope]" in first["content"]
    assert "[context.read.scope]" in capsys.readouterr().out
    assert len(gateways.asked) == 3


def test_a_failed_tool_is_an_error_result(gateways: Gateways) -> None:
    gateways.answers = [(200, _use({})), (200, _text("Done."))]
    gateways.tool = lambda _: (200, {"result": {"isError": True, "content": [{"type": "text", "text": "exit code 1"}]}})
    assert reference_loop.main() == 0
    assert gateways.results()[0]["is_error"] is True


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_a_refused_model_request_ends_the_loop_with_the_reason(
    gateways: Gateways, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    gateways.answers = [(status, {"error": {"message": "[budget.usd] spent"}})]
    assert reference_loop.main() == 1
    assert "[budget.usd] spent" in capsys.readouterr().err
    assert len(gateways.asked) == 1


def test_a_refused_list_of_tools_ends_the_loop_before_any_model_request(gateways: Gateways) -> None:
    gateways.listed = {"error": {"code": -32010, "message": "no"}}
    assert reference_loop.main() == 1
    assert gateways.asked == []


def test_a_model_that_never_stops_is_stopped(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_loop, "MAX_TURNS", 4)
    gateways.answers = [(200, _use({"path": "a"}))]
    assert reference_loop.main() == 1
    assert len(gateways.asked) == 4


def test_a_connection_closed_in_between_is_opened_again(gateways: Gateways) -> None:
    gateways.hang_up_after_each = True
    gateways.answers = [(200, _use({"path": "a"})), (200, _text("Done."))]
    assert reference_loop.main() == 0
    assert gateways.called() == [{"path": "a"}]


def test_it_imports_nothing_but_the_standard_library() -> None:
    import ast
    import sys
    from pathlib import Path

    tree = ast.parse(Path(reference_loop.__file__).read_text())
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names
