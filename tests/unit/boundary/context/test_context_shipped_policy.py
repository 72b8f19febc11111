"""The facts that this crossing computes are what the shipped policy asks for, and the reasons come out as promised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from context_fake import Endpoint

from vestibule.policy import PolicySet


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicySet]:
    found = PolicySet.load()
    yield found
    found.close()


@pytest.fixture
def governed(endpoint: Endpoint, policy: PolicySet) -> Endpoint:
    endpoint.app._crossing.decider = policy
    endpoint.app._crossing.task = {"read": ["src/**"], "write": ["src/**"]}
    return endpoint


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("get_task", {}, ""),
    ("list_files", {}, ""),
    ("read_file", {"path": "src/greet.py"}, ""),
    ("search_files", {"query": "x"}, ""),
    ("write_file", {"path": "src/new.py", "content": "x"}, ""),
    ("apply_patch", {"patch": "--- /dev/null\n+++ b/src/p.py\n@@ -0,0 +1 @@\n+x\n"}, ""),
    ("run_command", {"argv": ["pytest", "-q"]}, ""),
    ("read_file", {"path": "../x"}, "path.traversal"),
    ("write_file", {"path": ".git/config", "content": ""}, "path.git"),
    ("list_files", {"path": "/etc"}, "path.absolute"),
    ("search_files", {"path": "a\\b", "query": "x"}, "path.backslash"),
    ("read_file", {"path": "secret/key.txt"}, "context.read.scope"),
    ("read_file", {"path": "src/CLAUDE.md"}, "context.read.control_file"),
    ("write_file", {"path": "docs/x.md", "content": ""}, "context.write.scope"),
    ("write_file", {"path": "src/.npmrc", "content": ""}, "context.write.protected"),
    ("run_command", {"argv": ["bash"]}, "context.exec.command"),
    ("shell", {}, "context.tool_unknown"),
]


@pytest.mark.parametrize(("tool", "arguments", "rule"), CASES)
def test_shipped_policy_decides_as_promised(
    governed: Endpoint, tool: str, arguments: dict[str, Any], rule: str
) -> None:
    answer = governed.call(tool, **arguments)
    if not rule:
        assert answer.status == 200, answer.body
        return
    assert answer.refusal["rule"] == rule
    assert answer.refusal["next"]["agent"]
    assert answer.refusal["next"]["person"]
    assert governed.log.events[-1].reasons[0] == rule
