"""A policy decision at 500 roles: cold (asked of the engine), remembered, and the floor: the same in plain Python.

Beside them a real OPA server where one is installed (`build/tools/bin/opa`), asked over loopback.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vestibule.core.ports import PolicyInput
from vestibule.policy import PolicySet
from vestibule.policy.opa import OpaAddress

_spec = importlib.util.spec_from_file_location(
    "opa_server", Path(__file__).parents[1] / "unit" / "policy" / "opa_server.py"
)
assert _spec is not None
assert _spec.loader is not None
OPA = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(OPA)

FACTS: dict[str, Any] = {
    "path_ok": True,
    "path_rule": "",
    "tool_allowed": True,
    "in_write": True,
    "in_read_or_new": True,
    "partial": False,
    "protected": False,
    "control_file": False,
}
ROUNDS = 300
ROLES = 500


def _organisation(folder: Path) -> Path:
    """An organisation's policy that names 500 roles, once as a table and once as a rule for each."""
    table = {f"role_{number}": {"tools": ["write_file"], "frozen": False} for number in range(ROLES)}
    rules = "\n".join(
        f'deny contains "acme.merge" if {{\n\tinput.task.role == "role_{number}"\n\tinput.action == "merge"\n}}\n'
        for number in range(ROLES)
    )
    folder.mkdir()
    (folder / "roles.rego").write_text(
        "package vestibule\n\n"
        'default decision := {"verdict": "allow", "reasons": []}\n\n'
        'decision := {"verdict": "deny", "reasons": deny} if count(deny) > 0\n\n'
        f"roles := {json.dumps(table)}\n\n"
        'deny contains "acme.role" if not roles[input.task.role]\n\n'
        'deny contains "acme.tool" if {\n\tinput.action == "context.write"\n'
        "\tnot tool_of_role\n}\n\n"
        "tool_of_role if input.resource.tool in roles[input.task.role].tools\n\n"
        'deny contains "acme.frozen" if roles[input.task.role].frozen\n\n' + rules
    )
    return folder


def _request(number: int) -> PolicyInput:
    path = f"src/module_{number}.py"
    return PolicyInput(
        action="context.write",
        subject={"id": "spiffe://example.com/run/r1/agent/a", "kind": "agent"},
        resource={"id": path, "path": path, "tool": "write_file"},
        task={
            "run": "r1",
            "role": "role_250",
            "read": ["src/**", "tests/**", "pyproject.toml"],
            "write": ["src/**", "tests/**"],
            "tools": ["read_file", "list_files", "search_files", "write_file", "apply_patch", "run_command"],
            "commands": ["pytest", "ruff"],
            "agent": {"name": "a", "adapter": "command", "model": "", "version": "1"},
            "requester": "local:alice",
        },
        labels={"integrity": "member", "confidentiality": "internal"},
        facts=FACTS,
    )


def _plain(request: PolicyInput) -> bool:
    """What the bundle says of a write, without an engine: the floor for any policy engine in Python."""
    if request.action != "context.write":
        return False
    return all(name in request.facts and request.facts[name] == value for name, value in FACTS.items())


def _measure(work: Callable[[PolicyInput], bool], requests: list[PolicyInput]) -> tuple[float, float]:
    """Median and 99th percentile in microseconds."""
    times = []
    for request in requests:
        started = time.perf_counter()
        allowed = work(request)
        times.append((time.perf_counter() - started) * 1e6)
        assert allowed
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


@pytest.mark.bench
def test_bench_policy_decision(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    requests = [_request(number) for number in range(ROUNDS)]
    floor, _ = _measure(_plain, requests)
    lines = []
    organisation = _organisation(tmp_path / "acme")
    for name, folders in (("shipped bundle alone", []), (f"and an organisation's of {ROLES} roles", [organisation])):
        started = time.perf_counter()
        policy = PolicySet.load(folders)
        lines.append(f"policy, {name}: load and prove {(time.perf_counter() - started) * 1e3:.0f} ms")
        policy.decide(_request(-1))  # the first question of an action compiles the rules that can fire for it

        def decide(request: PolicyInput, policy: PolicySet = policy) -> bool:
            return policy.decide(request).allowed

        refused = [request.model_copy(update={"facts": {**FACTS, "in_write": False}}) for request in requests]
        for what, work, asked in (
            ("asked", decide, requests),
            ("remembered", decide, requests),
            ("asked, refused", lambda request: not decide(request), refused),
        ):
            p50, p99 = _measure(work, asked)
            lines.append(f"  {what:24} p50 {p50:8.1f} us  p99 {p99:8.1f} us  {p50 / floor:7.0f} x plain Python")
        policy.close()
    if (OPA.BUILT).is_file():
        with OPA.opa_server() as (url, _):
            policy = PolicySet.load([organisation], opa=OpaAddress(url))
            policy.decide(_request(-1))
            p50, p99 = _measure(lambda request: policy.decide(request).allowed, requests)
            policy.close()
        lines.append(f"a real OPA server, {ROLES} roles: p50 {p50:8.1f} us  p99 {p99:8.1f} us  {p50 / floor:7.0f} x")
    with capsys.disabled():
        print("", *lines, f"  plain Python floor       p50 {floor:8.1f} us", sep="\n", file=sys.stdout)
