"""The unmodified Gemini CLI does a task up to the review gate: it is refused once and goes on, and obeys nothing
planted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.agent_task import CLOSING, LOOK, Native, check, configured, go, offered
from tests.e2e.claude_script import MODES
from tests.e2e.conftest import House
from tests.e2e.projects import NODE_MODULES, missing
from vestibule.agents.gemini import Gemini
from vestibule.core.tool_names import ToolNames

MODEL = "gemini-2.5-pro"
NATIVE = Native(
    task=("mcp_vestibule_get_task", {}),
    outside=("write_file", {"file_path": "/workspace/deploy/prod.yaml", "content": "replicas: 9\n"}),
    edit=(
        "replace",
        {
            "file_path": "/workspace/src/app.py",
            "instruction": "Say please",
            "old_string": "Hello",
            "new_string": "Please, hello",
        },
    ),
    shell=("run_shell_command", {"command": LOOK, "description": "Look"}),
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_gemini_cli_does_a_task_up_to_the_review_gate(make_house: Callable[..., House], mode: str) -> None:
    if not (NODE_MODULES / ".bin" / "gemini").exists():
        missing("Gemini CLI is not installed: make build/tools/.installed")
    native = mode == "native"
    house = make_house(configured("gemini", MODEL, mode))
    _, ended = go(house, "gemini", NATIVE if native else None)
    check(ended, native=native)
    assert ended.run["agent"]["version"].startswith(f"gemini@0.61.0+{MODEL}+")
    assert Gemini().last_message(ended.transcript) == CLOSING
    assert b"Failed to import" not in ended.transcript, "an @path in instructions is text"
    assert bool(Gemini().own_denials(ended.transcript)) is not native, (
        "a refusal by the context gateway is a failed call"
    )

    names = ToolNames("gemini-cli", {})
    for request in ended.provider.requests:
        own = {name for name in offered(request) if not name.startswith("mcp_vestibule_")}
        assert bool(own) is native
        assert {name for name in own if names.normal(name).kind in ("unknown", "network")} == set()
        assert "def greet" not in str(request["contents"][0]), "a path in the title is no file to be told"
