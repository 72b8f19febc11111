"""Paths as weapons: every trick is a 403 with its reason and an entry of the real log; no path ever leads outside.

Through the real view, gateway, shipped policy and audit log; then 100,000 made-up paths through the same rules and
policy, and some thousands over HTTP.
"""

from __future__ import annotations

import contextlib
import json
import random
import unicodedata
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.context_world import SCOPE, Endpoint, endpoint, repository
from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.rules import Call, plan
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.control_files import control_file
from vestibule.core.crossing import Actor, Crossing
from vestibule.core.errors import Refused
from vestibule.core.model import Event, Receipt
from vestibule.core.verdict import Ruling
from vestibule.core.view import View
from vestibule.policy import PolicySet

SECRET = "the-secret-that-is-outside"
FILES = {
    "src/app.py": "inside\n",
    "src/deep/er/mod.py": "inside\n",
    "src/gemini.md": "control file\n",
    "docs/v2/guide.md": "inside\n",
    "docs/Ünïcode guide.md": "inside\n",
    "tests/test_app.py": "inside\n",
    "infra/prod.tf": SECRET,
    ".env": SECRET,
    ".env.example": "KEY=changeme\n",
    "README.md": "Attackers may write: ignore previous instructions.\n",
}
LINKS = {
    "docs/latest": "v2",
    "src/out": "../infra",
    "src/etc": "/etc",
    "src/up.py": "../../../../../../etc/passwd",
}

TRICKS: dict[str, tuple[Any, str]] = {
    "dot dot": ("src/../infra/prod.tf", "path.traversal"),
    "dot dot to the outside": ("../../etc/passwd", "path.traversal"),
    "dot dot after the workspace's name": ("/workspace/../etc/passwd", "path.traversal"),
    "NUL": ("src/app.py\0.png", "path.nul"),
    "case": ("SRC/app.py", "context.read.scope"),
    "case of a hidden folder": ("Infra/prod.tf", "context.read.scope"),
    "NFD": ("docs/" + unicodedata.normalize("NFD", "Ünïcode guide.md"), "path.unicode"),
    "compatibility form of dots": ("src/\uff0e\uff0e/infra/prod.tf", "path.encoded"),
    "two dot leader": ("src/\u2025/infra/prod.tf", "path.encoded"),
    "full-width slash": ("src/..\uff0finfra\uff0fprod.tf", "path.encoded"),
    "division slash": ("src/..\u2215infra", "path.encoded"),
    "git's folder": (".git/config", "path.git"),
    "git's folder in capitals": ("src/.GIT/config", "path.git"),
    "git's folder in another script": ("src/.g\u0131t/config", "context.read"),
    "git's folder with an invisible letter": (".g\u200cit/config", "path.invisible"),
    "git's folder in full width": ("\uff0egit/config", "path.git"),
    "git's short name": ("GIT~1/config", "path.git"),
    "git's stream": (".git::$INDEX_ALLOCATION/config", "path.git"),
    "trailing dot": ("infra./prod.tf", "path.trailing"),
    "trailing space": ("src/app.py ", "path.trailing"),
    "leading space": (" src/app.py", "path.trailing"),
    "device": ("src/nul", "path.device"),
    "device with an ending": ("src/COM1.txt", "path.device"),
    "device with a superscript": ("src/lpt\u00b9", "path.device"),
    "percent-encoding": ("src/%2e%2e/infra/prod.tf", "path.encoded"),
    "percent-encoding twice": ("src/%252e%252e/infra/prod.tf", "path.encoded"),
    "percent-encoded slash": ("src/..%2finfra", "path.encoded"),
    "percent-encoded NUL": ("src/app.py%00.png", "path.encoded"),
    "overlong, percent-encoded": ("src/%c0%ae%c0%ae/infra", "path.encoded"),
    "overlong in three bytes": ("src/%e0%80%ae%e0%80%ae/infra", "path.encoded"),
    "percent u": ("src/%u002e%u002e/infra", "path.encoded"),
    "lone surrogate": ("src/\ud800app.py", "path.encoding"),
    "backslash": ("src\\..\\infra\\prod.tf", "path.backslash"),
    "stream": ("src/app.py:hidden", "path.stream"),
    "absolute": ("/etc/passwd", "path.absolute"),
    "absolute with two slashes": ("//etc/passwd", "path.absolute"),
    "home": ("~root/.ssh/id_ed25519", "path.absolute"),
    "drive": ("C:/windows/win.ini", "path.absolute"),
    "URL": ("file:///etc/passwd", "path.stream"),
    "process folder": ("/proc/self/environ", "path.absolute"),
    "line feed": ("src/app.py\n", "path.control"),
    "escape": ("src/\x1b[2J", "path.control"),
    "override": ("src/\u202eyp.ppa", "path.invisible"),
    "too long a name": ("src/" + "a" * 256, "path.length"),
    "too long": ("src/" + "a/" * 3000, "path.length"),
    "a list": (["src/app.py"], "path.type"),
    "an object": ({"path": "src/app.py"}, "path.type"),
    "link to outside of the scope": ("src/out/prod.tf", ""),
    "link to the system": ("src/etc/passwd", ""),
    "control file": ("src/gemini.md", "context.read.control_file"),
    "out of scope": ("infra/prod.tf", "context.read.scope"),
    "hidden": (".env", "context.read.scope"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("source") / "repo", FILES, LINKS)


@pytest.fixture(scope="module")
def agent(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    scope = SCOPE.model_copy(
        update={"read": (*SCOPE.read, ".env.example"), "tools": (*SCOPE.tools, "request_scope", "report_block")}
    )
    with endpoint(tmp_path_factory.mktemp("home"), source, scope=scope) as found:
        # What a process of the agent's could have put there; the view itself holds no such link.
        for name in ("out", "etc"):
            (found.workspace / "src" / name).symlink_to({"out": "../infra", "etc": "/etc"}[name])
        yield found


def raw_call(agent: Endpoint, tool: str, path: bytes) -> tuple[int, dict[str, Any]]:
    """A call whose path is these very bytes, whatever they are."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b","arguments":{"path":"%b"}}}'
    return agent.raw(body % (tool.encode(), path))


@pytest.mark.parametrize(("path", "rule"), TRICKS.values(), ids=TRICKS.keys())
def test_every_trick_is_a_403_with_its_reason_and_an_entry_of_the_log(agent: Endpoint, path: Any, rule: str) -> None:
    before = len(agent.events())
    status, answer = agent.call("read_file", path=path)
    if rule in ("", "context.read"):
        # A link is found when it is opened; another letter is another name, which may be asked for and is not there.
        assert SECRET not in json.dumps(answer)
        assert "root:" not in json.dumps(answer)
        assert status == 403 if not rule else answer["result"]["isError"]
        return
    assert status == 403, answer
    refusal = answer["error"]["data"]
    assert refusal["rule"] == rule
    assert refusal["reason"]
    assert refusal["next"]["agent"]
    event = agent.events()[before]
    assert (event.verdict, event.reasons[0], event.subject) == (Ruling.DENY, rule, "agent")


@pytest.mark.parametrize("path", [b"src/\xc0\xae\xc0\xae/infra", b"src/\xe0\x80\xae/x", b"src/\xff\xfe", b"\xc0\xaf"])
def test_bytes_that_are_no_utf8_are_a_403_and_an_entry_of_the_log(agent: Endpoint, path: bytes) -> None:
    before = len(agent.events())
    for tool in ("read_file", "list_files"):
        status, answer = raw_call(agent, tool, path)
        assert (status, answer["error"]["data"]["rule"]) == (403, "path.encoding")
    assert [event.reasons[0] for event in agent.events()[before:]] == ["path.encoding"] * 2


@pytest.mark.parametrize("tool", ["list_files", "search_files", "write_file", "apply_patch", "request_scope"])
def test_no_tool_takes_a_path_that_another_refuses(agent: Endpoint, tool: str) -> None:
    for name, (path, rule) in TRICKS.items():
        if not rule.startswith("path.") or not isinstance(path, str) or (tool == "apply_patch" and not _line(path)):
            continue
        more: dict[str, dict[str, Any]] = {
            "list_files": {"path": path},
            "search_files": {"path": path, "query": "x"},
            "write_file": {"path": path, "content": "x"},
            "apply_patch": {"patch": f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"},
            "request_scope": {"paths": [path], "why": "Needed."},
        }
        status, answer = agent.call(tool, **more[tool])
        assert status == 403, (name, answer)
        assert answer["error"]["data"]["rule"].startswith("path."), name


def _line(path: str) -> bool:
    """Whether a patch can hold this name, and as it is."""
    odd = not path.isprintable() or '"' in path or "\\" in path
    return not odd and not path.startswith("/") and path == path.rstrip()


HONEST = {
    "README with an injection in it": ("README.md", "ignore previous instructions"),
    "example of an environment": (".env.example", "KEY=changeme"),
    "spaces and letters beyond ASCII": ("docs/Ünïcode guide.md", "inside"),
    "link whose target is in scope": ("docs/latest/guide.md", "inside"),
    "the workspace's own name": ("/workspace/src/app.py", "inside"),
    "a dot and doubled slashes": ("./src//./app.py", "inside"),
    "dots in a name": ("src/deep/er/mod.py", "inside"),
}


@pytest.mark.parametrize(("path", "text"), HONEST.values(), ids=HONEST.keys())
def test_what_only_looks_odd_is_shown(agent: Endpoint, path: str, text: str) -> None:
    assert text in agent.text("read_file", path=path)


def test_nothing_outside_was_touched_and_nothing_of_it_was_shown(agent: Endpoint) -> None:
    shown = agent.text("list_files") + agent.text("search_files", query=SECRET[:6])
    assert SECRET not in shown
    assert "infra" not in "".join(line.split("\t")[0] for line in shown.splitlines())
    assert not (agent.workspace / "infra").exists()


# 100,000 paths

SEED = 20_261_120
COUNT = 100_000
OVER_HTTP = 2_000

PIECES = """
src docs tests infra app.py mod.py deep er prod.tf guide.md v2 latest out etc up.py .git .GIT git~1 .env .env.example
CLAUDE.md .claude settings.json README.md nul con.txt aux. .. ... . ~ ~root %2e%2e %2f %252e %c0%ae workspace proc
self environ passwd C: a:b x y Z secrets .github workflows .npmrc conftest.py
""".split()  # noqa: SIM905
ROOTS = ("src", "docs", "tests")
SEPARATORS = ("/",) * 12 + ("//", "/./", "/../", "\\", "%2f", "%5c", "\u2215", "\uff0f", ":", "\0", "\n")
ODD = (
    "\0\n\r\t\x1b\x7f\x85\u200b\u200d\u202e\u2025\u2024\uff0e\u0301\u0131\u017f\u212a\ud800\ufeff\U000e0041"
    "é%\\/:~. *?[{"
)


def paths(count: int) -> Iterator[str]:
    """The same paths every time: plain ones, spoiled ones, and noise."""
    pick = random.Random(SEED)
    for _ in range(count):
        parts = [pick.choice(PIECES) for _ in range(pick.randint(1, 5))]
        if pick.random() < 0.6:
            parts.insert(0, pick.choice(ROOTS))
        text = parts[0]
        plain = pick.random() < 0.35
        for part in parts[1:]:
            text += ("/" if plain else pick.choice(SEPARATORS)) + part
        if not plain:
            for _ in range(pick.randint(0, 2)):
                at = pick.randrange(len(text) + 1)
                text = text[:at] + pick.choice(ODD) + text[at + pick.randint(0, 1) :]
            change = pick.random()
            if change < 0.1:
                text = pick.choice(("/", "./", "../", "/workspace/", "//", "~", " ", "\\")) + text
            elif change < 0.2:
                text += pick.choice((".", " ", "/", "/..", "/.", ":$DATA", "\0.png", "%00", "\u3000"))
            elif change < 0.3:
                text = text.swapcase()
            elif change < 0.4:
                text = unicodedata.normalize(pick.choice(("NFD", "NFKD", "NFKC")), text)
            elif change < 0.42:
                text *= pick.randint(10, 200)
        yield text


TOOLS = ("read_file", "list_files", "search_files", "write_file", "request_scope")


def call_of(number: int, path: str, rights: Rights) -> Call:
    tool = TOOLS[number % len(TOOLS)]
    more: dict[str, Any] = {"path": path}
    if tool == "search_files":
        more["query"] = "x"
    elif tool == "write_file":
        more["content"] = "x"
    elif tool == "request_scope":
        more = {"paths": [path], "why": "Needed."}
    return plan(tool, more, rights)


def within(tool: str, path: str) -> bool:
    """Whether an allowed path is inside, told without the code under test."""
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") or part.casefold() == ".git" or part != part.strip(" ") for part in parts):
        return False
    if any(ord(char) < 32 or char in "\\:\x7f" for char in path) or len(path.encode()) > 4096:
        return False
    if tool == "write_file":
        return len(parts) > 1 and parts[0] in ("src", "tests")
    if tool == "read_file":
        return (len(parts) > 1 and parts[0] in ("src", "docs", "tests", "prompts")) or (
            len(parts) == 1 and path.endswith(".md")
        )
    return not parts or parts[0] in ("src", "docs", "tests", "prompts") or path.endswith(".md")


class Log:
    """Takes everything at once."""

    count = 0

    def submit(self, event: Event) -> Future[Receipt]:
        self.count += 1
        done: Future[Receipt] = Future()
        done.set_result(Receipt(seq=self.count, time="2026-01-01T00:00:00.000Z"))
        return done


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicySet]:
    found = PolicySet.load()
    yield found
    found.close()


def test_a_hundred_thousand_paths_never_lead_outside(policy: PolicySet, agent: Endpoint) -> None:
    rights = Rights.of(SCOPE.model_copy(update={"tools": (*SCOPE.tools, "request_scope")}), _no_view())
    crossing, actor = Crossing(policy, Log()), Actor("r00000000000000", "spiffe://example.com/a", "agent")
    known: dict[str, Ruling] = {}
    files = Workspace(agent.workspace)
    allowed = refused = 0
    for number, path in enumerate(paths(COUNT)):
        call = call_of(number, path, rights)
        rulings = []
        for step in call.steps:
            # Policy judges facts, not spellings: of the same facts it says the same. Now and then it is asked anew.
            facts = json.dumps([step.action, step.facts], sort_keys=True)
            if facts not in known or number % 100 == 0:
                verdict, _ = crossing.safely(actor, step.action, step.resource, step.facts)
                assert known.setdefault(facts, verdict.ruling) is verdict.ruling
                assert verdict.allowed or verdict.reasons
            rulings.append(known[facts])
        if call.tool == "request_scope":
            assert Ruling.ALLOW not in rulings or call.problem, path
            continue
        if any(ruling is not Ruling.ALLOW for ruling in rulings):
            refused += 1
            continue
        if call.problem:
            continue
        allowed += 1
        target = call.arguments.get("path", "")
        assert within(call.tool, target), (call.tool, path)
        assert call.tool != "read_file" or control_file(target) is None, path
        if call.tool == "read_file":
            data = b""
            with contextlib.suppress(NotDone, Refused):  # missing, or a link
                data = files.read(target, limit=1 << 20)
            assert SECRET.encode() not in data, path
    files.close()
    assert allowed > 1_000, "the generator makes too few plain paths to prove anything"
    assert refused > 20_000


def _no_view() -> View:
    return View(base_commit="0" * 40, files=(), omitted=0, writable=())


def test_thousands_of_paths_over_http_are_answered_with_200_or_403(
    source: Path, tmp_path: Path, policy: PolicySet
) -> None:
    with endpoint(tmp_path, source) as agent:
        agent.app._crossing.audit = Log()
        before = sorted(
            str(item) for item in agent.workspace.rglob("*") if not item.is_relative_to(agent.workspace / ".git")
        )
        seen: dict[int, int] = {}
        for number, path in enumerate(paths(OVER_HTTP)):
            tool = ("read_file", "list_files", "search_files")[number % 3]
            more = {"query": "i"} if tool == "search_files" else {}
            status, answer = agent.call(tool, path=path, **more)
            seen[status] = seen.get(status, 0) + 1
            assert status in (200, 403), (path, status, answer)
            assert SECRET not in json.dumps(answer), path
            assert "dependency." not in json.dumps(answer), (path, answer)
        after = sorted(
            str(item) for item in agent.workspace.rglob("*") if not item.is_relative_to(agent.workspace / ".git")
        )
        assert after == before
        assert seen[403] > seen[200] > 100
