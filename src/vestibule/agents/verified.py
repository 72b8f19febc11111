"""Which versions of agent programs this release was tested with, and by what.

The tests drive the unmodified programs at exactly these versions (`tests/tools/package.json`); a unit test keeps the
two in step. Any other version may work and is `not verified`: nothing is refused for it, for what holds an agent are
the walls and gateways, not the program's good behaviour. A switch that a program renamed would show in these tests.
"""

from __future__ import annotations

from vestibule.core.base import Noun


class Verified(Noun):
    """One version of a program, the modes it was driven in, and the tests that did."""

    version: str
    modes: tuple[str, ...]
    tests: tuple[str, ...]


CLAUDE_CODE = (
    Verified(
        version="2.1.197",
        modes=("mcp", "native"),
        tests=(
            "tests/e2e/test_claude_code.py::test_claude_code_repairs_a_real_bug_up_to_the_merge",
            "tests/e2e/test_claude_code_control_files.py::test_no_entry_of_the_list_is_shown_or_obeyed",
            "tests/agents/test_claude_code_quiet.py::test_claude_code_asks_for_no_name_but_the_gateways",
            "tests/agents/test_claude_code_quiet.py::test_planted_control_files_are_not_obeyed_even_where_they_are_seen",
        ),
    ),
)

CODEX = (
    Verified(
        version="0.169.0",
        modes=("mcp", "native"),
        tests=(
            "tests/e2e/test_codex_and_opencode.py::test_the_cli_finishes_its_task_and_obeys_no_file_of_the_repository",
            "tests/agents/test_codex_quiet.py::test_codex_asks_for_no_name_but_the_gateways_and_obeys_nothing_that_it_sees",
        ),
    ),
)
OPENCODE = (
    Verified(
        version="1.18.33",
        modes=("mcp", "native"),
        tests=(
            "tests/e2e/test_codex_and_opencode.py::test_the_cli_finishes_its_task_and_obeys_no_file_of_the_repository",
            "tests/agents/test_opencode_quiet.py::test_opencode_asks_for_no_name_but_the_gateways_and_what_it_obeys_is_known",
        ),
    ),
)
GEMINI = (
    Verified(
        version="0.61.0",
        modes=("mcp", "native"),
        tests=(
            "tests/e2e/test_gemini_cli.py::test_gemini_cli_does_a_task_up_to_the_review_gate",
            "tests/agents/test_gemini_cli_quiet.py::test_gemini_cli_is_quiet_and_what_it_obeys_is_known",
            "tests/agents/test_gemini_cli_quiet.py::test_side_calls_of_gemini_cli_ask_the_tasks_model",
        ),
    ),
)
COPILOT = (
    Verified(
        version="1.0.102",
        modes=("mcp", "native"),
        tests=(
            "tests/e2e/test_copilot_cli.py::test_copilot_cli_does_a_task_up_to_the_review_gate",
            "tests/agents/test_copilot_cli_quiet.py::test_copilot_cli_is_quiet_and_obeys_nothing_that_it_sees",
        ),
    ),
)

OURS = ("tests/e2e/test_whole_way.py::test_reference_agent_goes_the_whole_way",)
"""The reference agent ships with this release: its version is the release's own."""
