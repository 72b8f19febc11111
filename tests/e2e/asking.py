"""A small MCP client that a test's agent runs inside the sandbox: standard library only.

The agent is `python3 -c CLIENT STEPS`: STEPS is Python that uses `call` and `say`, as a hijacked agent could.
"""

from __future__ import annotations

CLIENT = r"""
import json, os, sys, time, urllib.error, urllib.parse, http.client
URL = urllib.parse.urlsplit(os.environ["VESTIBULE_CONTEXT_URL"])
TOKEN = os.environ["VESTIBULE_TASK_TOKEN"]
serial = 0

def rpc(method, params):
    global serial
    serial += 1
    connection = http.client.HTTPConnection(URL.hostname, URL.port or 80, timeout=120)
    body = json.dumps({"jsonrpc": "2.0", "id": serial, "method": method, "params": params})
    connection.request("POST", URL.path, body, {
        "Authorization": "Bearer " + TOKEN, "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25",
    })
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return answer.status, json.loads(raw) if raw.strip() else {}

def call(tool, **arguments):
    status, answer = rpc("tools/call", {"name": tool, "arguments": arguments})
    if "error" in answer:
        return status, answer["error"].get("message", "")
    result = answer.get("result", {})
    text = "\n".join(part.get("text", "") for part in result.get("content", []))
    return (status if not result.get("isError") else 0), text

def say(*words):
    print(*words, flush=True)

rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}})
"""


def agent(steps: str) -> tuple[str, ...]:
    """The arguments of a run whose agent performs `steps`."""
    return ("--agent", "command", "--", "python3", "-c", CLIENT + steps)
