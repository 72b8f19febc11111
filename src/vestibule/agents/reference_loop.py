"""The loop of the reference agent. Runs inside the sandbox: standard library only, no imports of ours.

It asks the context gateway for the task and its tools, offers exactly these tools to the model, carries out
the model's tool calls through the context gateway, and stops when the model stops or after MAX_TURNS.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.parse
from typing import Any

MAX_TURNS = 60
MAX_TOKENS = 8192
PROTOCOL = "2025-11-25"
SYSTEM = "Work on the task with the tools. Make the smallest change that fulfils it, then say what you did."


class Gateway:
    """One keep-alive connection to a gateway."""

    def __init__(self, url: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host = parts.hostname or ""
        self.path = parts.path
        self.token = token
        self.connection = http.client.HTTPConnection(self.host, parts.port or 80, timeout=600)

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Status and JSON body (an empty one is `{}`)."""
        data = json.dumps(body).encode("utf-8")
        for retry in (False, True):
            try:
                self.connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
                answer = self.connection.getresponse()
                raw = answer.read()
                break
            except ConnectionError:
                # An idle connection that the other side has closed.
                self.connection.close()
                if retry:
                    raise
        return answer.status, json.loads(raw) if raw.strip() else {}


class Context(Gateway):
    """MCP over streamable HTTP, plain JSON answers."""

    serial = 0
    session = ""

    def call(self, method: str, params: dict[str, Any], *, notify: bool = False) -> dict[str, Any]:
        """The result, or `{"error": …}` in the gateway's own words."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            self.serial += 1
            message["id"] = self.serial
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": PROTOCOL,
        }
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        _, answer = self.post(self.path, message, headers)
        if "error" in answer:
            return {"error": answer["error"]}
        result = answer.get("result", {})
        return result if isinstance(result, dict) else {}


def main() -> int:
    """Work until the model is done. Exit 0 says only that the loop ended; work is judged elsewhere."""
    token = os.environ["VESTIBULE_TASK_TOKEN"]
    context = Context(os.environ["VESTIBULE_CONTEXT_URL"], token)
    models = Gateway(os.environ["VESTIBULE_MODELS_URL"], token)
    context.call(
        "initialize",
        {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "reference", "version": "1"}},
    )
    context.call("notifications/initialized", {}, notify=True)
    listed = context.call("tools/list", {})
    if "error" in listed:
        print("The context gateway refused the list of tools:", listed["error"].get("message"), file=sys.stderr)
        return 1
    tools = [
        {"name": tool["name"], "description": tool.get("description", ""), "input_schema": tool["inputSchema"]}
        for tool in listed["tools"]
    ]
    task = text_of(context.call("tools/call", {"name": "get_task", "arguments": {}}))
    messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
    for _ in range(MAX_TURNS):
        status, answer = models.post(
            models.path + "/anthropic/v1/messages",
            {
                "model": os.environ["VESTIBULE_MODEL"],
                "max_tokens": MAX_TOKENS,
                "system": SYSTEM,
                "tools": tools,
                "messages": messages,
            },
            {"x-api-key": token, "anthropic-version": "2023-06-01"},
        )
        if status != 200:
            print("The model gateway answered", status, json.dumps(answer)[:2000], file=sys.stderr)
            return 1
        content = answer.get("content", [])
        messages.append({"role": "assistant", "content": content})
        results = []
        for block in content:
            if block.get("type") == "text":
                print(block["text"])
            elif block.get("type") == "tool_use":
                print(f"> {block['name']} {json.dumps(block['input'])[:200]}")
                result = context.call("tools/call", {"name": block["name"], "arguments": block["input"]})
                failed = "error" in result or bool(result.get("isError"))
                if failed:
                    print(f"  {text_of(result)[:500]}")
                results.append(
                    {
                        "type": "tool_result",
                        "tool_use_id": block["id"],
                        "content": text_of(result),
                        "is_error": failed,
                    }
                )
        if not results:
            return 0
        messages.append({"role": "user", "content": results})
    print(f"Stopped after {MAX_TURNS} turns.", file=sys.stderr)
    return 1


def text_of(result: dict[str, Any]) -> str:
    """The text of a tool result or of a refusal."""
    if "error" in result:
        return str(result["error"].get("message", "refused"))
    return "\n".join(part.get("text", "") for part in result.get("content", []) if part.get("type") == "text")


if __name__ == "__main__":
    sys.exit(main())
