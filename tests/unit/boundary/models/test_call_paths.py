"""Paths and hosts of built-in tools: what an agent's program would touch is what is judged."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from vestibule.boundary.models.call_rules import MAX_PATHS, House, judge_call
from vestibule.boundary.models.formats.base import Asked, Offered
from vestibule.boundary.models.hold.base import Held
from vestibule.core.model import Scope
from vestibule.core.tool_names import Cli, ToolNames

SCOPE = Scope(read=("src/**", "docs/**"), write=("src/**",), hosts=("docs.example.com:443",))
GOOD = {"path_rule": "", "in_read": True, "in_write": True, "control_file": False, "protected": False}


def facts(cli: Cli, name: str, arguments: Any) -> dict[str, Any]:
    text = isinstance(arguments, str)
    data = arguments.encode() if text else json.dumps(arguments).encode()
    form: Any = "text" if text else "json"
    asked = Asked("responses", "generate", "m", {}, True, 9, 1, (Offered(name, form=form),))
    held = Held("call", name, arguments=data, form=form)
    return judge_call(held, asked, House(ToolNames(cli, {}).normal, lambda: SCOPE, native=True)).facts


def good(cli: Cli, name: str, arguments: Any) -> bool:
    found = facts(cli, name, arguments)
    assert found["tool_known"]
    return all(found[key] == value for key, value in GOOD.items())


def patch(*heads: str, end: str = "\n") -> str:
    return end.join(("*** Begin Patch", *heads, "+x", "*** End Patch"))


OUTSIDE = "other/a.py"


@pytest.mark.parametrize(
    "head",
    [
        f"*** Add File: {OUTSIDE}",
        f"  *** Add File: {OUTSIDE}",
        f"\t*** Update File: {OUTSIDE}\t",
        f"\u00a0*** Delete File: {OUTSIDE}",
        f"*** Add File:{OUTSIDE}",
        f"*** add file: {OUTSIDE}",
        f"***Update File: {OUTSIDE}",
        f"*** Move to: {OUTSIDE}",
        f"+x\r*** Add File: {OUTSIDE}",
        "*** Add File: src/ok.py\x0c/../../a.py",
        "*** Add File: src/ok.py\u2028/../../a.py",
        "*** Add File: src/ok.py:x",
        "*** Add File:  src/ok.py",
        "*** Add File: CLAUDE.md\u00a0",
        "*** Move to: src/../a.py",
        "*** Add File: /etc/x",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_patch_touches_what_the_most_lenient_reader_reads(head: str, end: str) -> None:
    text = patch("*** Update File: src/a.py", "@@", " y", head, end=end)
    assert not good("codex", "apply_patch", text)
    assert not good("opencode", "apply_patch", {"patchText": text})
    assert not good("copilot-cli", "apply_patch", {"input": text})


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_patch_within_the_scope_is_good(end: str) -> None:
    text = patch("*** Update File: src/a.py", "*** Move to: src/b.py", "@@", " y", "*** Add File: src/c.py  ", end=end)
    assert good("codex", "apply_patch", text)
    assert good("opencode", "apply_patch", {"patchText": text})


@pytest.mark.parametrize("text", ["", "*** Begin Patch\n*** End Patch", "*** Put File: a\n+x", "rm -rf /"])
def test_a_patch_that_names_no_file_that_is_found_is_not_let_through(text: str) -> None:
    assert facts("codex", "apply_patch", text)["path_rule"] == "path.empty"
    assert facts("opencode", "patch", {"patchText": text})["path_rule"] == "path.empty"


@pytest.mark.parametrize("text", ["--- a/{0}\n+++ b/{0}\n", "--- {0}\n+++ {0}\n", "rename from {0}\nrename to {0}\n"])
def test_a_unified_diff_names_files_too(text: str) -> None:
    assert good("opencode", "patch", {"patchText": text.format("src/a.py")})
    assert not good("opencode", "patch", {"patchText": text.format(OUTSIDE)})


@pytest.mark.parametrize(
    ("cli", "name", "arguments"),
    [
        ("claude-code", "Write", {"target": OUTSIDE, "content": "x"}),
        ("claude-code", "Edit", {"file_path": [OUTSIDE]}),
        ("claude-code", "Read", {}),
        ("gemini-cli", "replace", {"edits": [{"file_path": OUTSIDE}]}),
        ("gemini-cli", "write_file", {"file_path": "src/a.py", "more": {"path": OUTSIDE}}),
        ("gemini-cli", "read_many_files", {"paths": ["src/a.py", OUTSIDE]}),
        ("copilot-cli", "edit", {"path": "src/a.py", "files": [{"path": OUTSIDE}]}),
        ("copilot-cli", "create", {"path": " src/a.py"}),
        ("claude-code", "Write", {"file_path": "src/a.py\u00a0"}),
        ("claude-code", "Write", {"file_path": "\u3000/workspace/other/a.py"}),
        ("claude-code", "Read", {"file_path": "~/x"}),
        ("claude-code", "Glob", {"pattern": "/etc/**"}),
        ("claude-code", "Glob", {"pattern": "~/.ssh/*"}),
        ("claude-code", "Glob", {"pattern": "src/{a,../..}/*"}),
        ("opencode", "glob", {"pattern": "../*"}),
    ],
)
def test_every_path_of_a_call_is_looked_at(cli: Cli, name: str, arguments: dict[str, Any]) -> None:
    assert not good(cli, name, arguments)


@pytest.mark.parametrize(
    ("cli", "name", "arguments"),
    [
        ("claude-code", "Glob", {"pattern": "**/*.{py,ts}"}),
        ("claude-code", "Glob", {"pattern": "/workspace/src/**"}),
        ("claude-code", "Grep", {"pattern": "/etc/|\\.\\./"}),
        ("claude-code", "MultiEdit", {"file_path": "/workspace/src/a.py", "edits": [{"old_string": "path"}]}),
        ("gemini-cli", "list_directory", {"path": "."}),
        ("copilot-cli", "view", {"path": "/tmp/x"}),
        ("codex", "view_image", {"path": "docs/a.png"}),
    ],
)
def test_calls_within_the_scope_are_good(cli: Cli, name: str, arguments: dict[str, Any]) -> None:
    assert good(cli, name, arguments)


def test_a_call_of_very_many_paths_is_refused_without_looking_at_each() -> None:
    begun = time.monotonic()
    found = facts("gemini-cli", "read_many_files", {"paths": [f"src/{i}" for i in range(300_000)]})
    assert found["path_rule"] == "path.many"
    many = "".join(f"*** Add File: src/{i}\n" for i in range(200_000))
    assert facts("codex", "apply_patch", many)["path_rule"] == "path.many"
    assert time.monotonic() - begun < 10
    assert good("gemini-cli", "read_many_files", {"paths": [f"src/{i}" for i in range(MAX_PATHS)]})


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.org\\@docs.example.com/",
        "https://evil.example.org\\\\@docs.example.com/",
        "https://docs.example.com\t.evil.example.org/",
        "https://evil.example.org/ @docs.example.com/",
        "https:evil.example.org",
        "//docs.example.com",
    ],
)
def test_a_host_is_the_one_that_browsers_read(url: str) -> None:
    assert not facts("claude-code", "WebFetch", {"url": url})["host_allowed"]
    assert facts("claude-code", "WebFetch", {"url": "https://docs.example.com/a?b#c"})["host_allowed"]


def test_what_people_grant_while_the_agent_works_counts_from_then_on() -> None:
    scope = SCOPE
    house = House(ToolNames("claude-code", {}).normal, lambda: scope, native=True)
    asked = Asked("anthropic", "generate", "m", {}, True, 9, 1, (Offered("Write"),))
    held = Held("call", "Write", arguments=json.dumps({"file_path": OUTSIDE, "content": "x"}).encode())
    assert judge_call(held, asked, house).refusal is not None
    scope = SCOPE.model_copy(update={"granted_write": (OUTSIDE,)})
    assert judge_call(held, asked, house).refusal is None
