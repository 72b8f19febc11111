"""The unmodified Copilot CLI does a task up to the review gate over each wire format that it speaks: it is refused once
and goes on, and obeys nothing planted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.agent_task import CLOSING, LOOK, Native, check, configured, go, offered
from tests.e2e.conftest import House
from tests.e2e.projects import NODE_MODULES, missing
from vestibule.agents.copilot import Copilot
from vestibule.core.tool_names import ToolNames

NATIVE = Native(
    task=("vestibule-get_task", {}),
    outside=("create", {"path": "/workspace/deploy/new.yaml", "file_text": "replicas: 9\n"}),
    edit=("edit", {"path": "/workspace/src/app.py", "old_str": "Hello", "new_str": "Please, hello"}),
    shell=("bash", {"command": LOOK, "description": "Look"}),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "api", "model"),
    [
        ("mcp", "responses", "gpt-5.5"),
        ("native", "chat", "gpt-4.1"),
        ("native", "anthropic", "claude-sonnet-5"),
    ],
)
def test_copilot_cli_does_a_task_up_to_the_review_gate(
    make_house: Callable[..., House], mode: str, api: str, model: str
) -> None:
    if not (NODE_MODULES / ".bin" / "copilot").exists():
        missing("Copilot CLI is not installed: make build/tools/.installed")
    native = mode == "native"
    house = make_house(configured("copilot", model, mode))
    _, ended = go(house, api, NATIVE if native else None)
    check(ended, native=native)
    assert ended.run["agent"]["version"].startswith(f"copilot@1.0.102+{model}+")
    assert Copilot().last_message(ended.transcript) == CLOSING
    assert bool(Copilot().own_denials(ended.transcript)) is not native

    names = ToolNames("copilot-cli", {})
    for request in ended.provider.requests:
        assert request["model"] == model
        own = {name for name in offered(request) if not name.startswith("vestibule-")}
        assert bool(own) is native
        assert {name for name in own if names.normal(name).kind in ("unknown", "network")} == set()
