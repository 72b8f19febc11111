"""From the words of a call to a run: every choice is the caller's or the base's, and a wrong call writes nothing."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.control_world import git

from vestibule.config.load import load_operator_config, load_repo_config
from vestibule.core.errors import Refused, UsageError
from vestibule.core.model import State
from vestibule.git import Git
from vestibule.intake import MAX_TICKET_BYTES
from vestibule.pipeline.prepare import RunRequest, budget_of, choose_agent, prepare, read_ticket, resolve_base

CONFIG = """\
version: 1
roles:
  backend: {read: ["src/**"], write: ["src/**"], budget: {usd: 2.50, tokens: 1000, minutes: 7}}
  docs: {read: ["docs/**"], write: ["docs/**"]}
agents:
  one: {adapter: reference, model: claude-sonnet-5}
  two: {adapter: command}
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    found = tmp_path / "repo"
    (found / ".vestibule").mkdir(parents=True)
    git(found, "init", "-q", "-b", "main")
    (found / ".vestibule" / "config.yaml").write_text(CONFIG)
    git(found, "add", "-A")
    git(found, "commit", "-q", "-m", "First")
    return found


@pytest.fixture
def call(repo: Path, tmp_path: Path) -> Any:
    ticket = tmp_path / "ticket.md"
    ticket.write_text("# Title\n\nWords.\n")
    home = tmp_path / "home"

    def make(operator: str = "version: 1\n", **words: Any) -> Any:
        path = tmp_path / "operator.yaml"
        path.write_text(operator)
        environ = {"VESTIBULE_CONFIG": str(path), "VESTIBULE_HOME": str(home), "PATH": os.environ["PATH"]}
        words = {"ticket": str(ticket), "repo": repo, **words}
        return prepare(RunRequest(**words), load_operator_config(environ), "local:alice", environ)

    yield make
    assert not home.exists(), "preparing writes nothing"


def commit(repo: Path, name: str) -> str:
    (repo / name).write_text(name)
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", name)
    return git(repo, "rev-parse", "HEAD")


class TestBase:
    """Which branch a merge would move, and from which commit a run starts."""

    def test_main_then_master_and_never_what_is_checked_out(self, repo: Path) -> None:
        git(repo, "checkout", "-q", "-b", "feature")
        commit(repo, "f")
        main = git(repo, "rev-parse", "main")
        assert resolve_base(Git.open(repo), "") == ("refs/heads/main", main)
        git(repo, "branch", "-m", "main", "master")
        assert resolve_base(Git.open(repo), "") == ("refs/heads/master", main)
        git(repo, "branch", "-D", "master")
        with pytest.raises(UsageError) as caught:
            resolve_base(Git.open(repo), "")
        assert "--base feature" in caught.value.next_step

    def test_the_remotes_default_branch_comes_first(self, repo: Path) -> None:
        git(repo, "branch", "trunk")
        git(repo, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
        assert resolve_base(Git.open(repo), "")[0] == "refs/heads/trunk"

    @pytest.mark.parametrize("asked", ["trunk", "refs/heads/trunk", "origin/trunk"])
    def test_every_spelling_of_a_branch_is_that_branch(self, repo: Path, asked: str) -> None:
        git(repo, "branch", "trunk")
        git(repo, "update-ref", "refs/remotes/origin/trunk", "trunk")
        assert resolve_base(Git.open(repo), asked)[0] == "refs/heads/trunk"

    def test_a_commit_stands_for_the_one_branch_whose_tip_it_is(self, repo: Path) -> None:
        old = git(repo, "rev-parse", "HEAD")
        git(repo, "checkout", "-q", "-b", "feature")
        new = commit(repo, "f")
        assert resolve_base(Git.open(repo), new) == ("refs/heads/feature", new)
        commit(repo, "g")
        git(repo, "branch", "-f", "main", "HEAD")
        with pytest.raises(UsageError) as caught:
            resolve_base(Git.open(repo), old)
        assert "not the tip" in caught.value.what

    @pytest.mark.parametrize("asked", ["nothing", "--upload-pack=evil", "main:src", "\x1b[31m", "a\nb", "a\0b"])
    def test_what_is_no_commit_is_a_usage_error(self, repo: Path, asked: str) -> None:
        with pytest.raises(UsageError) as caught:
            resolve_base(Git.open(repo), asked)
        assert "\x1b" not in str(caught.value)

    def test_our_own_branches_are_no_base(self, repo: Path) -> None:
        git(repo, "checkout", "-q", "-b", "vestibule/r1")
        head = commit(repo, "f")
        with pytest.raises(UsageError):
            resolve_base(Git.open(repo), head)

    def test_a_bare_repository_goes_by_its_head(self, repo: Path, tmp_path: Path) -> None:
        git(repo, "branch", "-m", "main", "trunk")
        bare = tmp_path / "bare.git"
        git(tmp_path, "clone", "-q", "--bare", str(repo), str(bare))
        assert resolve_base(Git.open(bare), "")[0] == "refs/heads/trunk"


class TestChoices:
    """Role, agent and model."""

    def test_a_call_becomes_a_received_run(self, call: Any) -> None:
        record = call(role="backend", agent="two", command=("ruff", "check"))
        assert record.state is State.RECEIVED
        assert record.role == "backend"
        assert record.agent.adapter == "command"
        assert record.agent.version.startswith("command@")
        assert record.command == ("ruff", "check")
        assert record.requester == record.ticket.author == "local:alice"
        assert record.scope.write == ("src/**",)

    def test_the_version_names_adapter_program_model_and_settings(self, call: Any) -> None:
        versions = {call(role="docs", command=words).agent.version for words in (("true",), ("false",), ("true",))}
        assert len(versions) == 2
        for version in versions:
            assert version.split("@")[0] == "command"
            assert len(version.split("+")) == 3

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ({"command": ("true",)}, "role"),
            ({"role": "nobody", "command": ("true",)}, "no role"),
            ({"role": "docs"}, "Which agent?"),
            ({"role": "docs", "agent": "nobody"}, "no agent"),
            ({"role": "docs", "agent": "command"}, "needs a command"),
            ({"role": "docs", "agent": "two"}, "needs a command"),
            ({"role": "docs", "agent": "one", "command": ("true",)}, "takes no command"),
            ({"role": "docs", "agent": "reference"}, "needs a model"),
            ({"role": "docs", "command": ("true",), "ticket": "/nonexistent"}, "is no file"),
            ({"role": "docs", "command": ("true",), "repo": Path("/nonexistent")}, "does not exist"),
            ({"role": "docs", "command": ("true",), "base": "nowhere"}, "is no commit"),
        ],
    )
    def test_a_wrong_call_says_what_to_do_and_writes_nothing(self, call: Any, words: Any, said: str) -> None:
        with pytest.raises(UsageError) as caught:
            call(**words)
        assert said in caught.value.what
        assert caught.value.exit_code == 2
        assert caught.value.next_step

    def test_a_provider_whose_key_is_missing_is_a_dependency_down(self, call: Any) -> None:
        operator = (
            "version: 1\nmodels:\n"
            '  real: {api: anthropic, base_url: "https://models.example.com", key: {env: NO_KEY}, models: ["*"]}\n'
        )
        with pytest.raises(Refused) as caught:
            call(operator, role="docs", agent="one", model="real/claude-sonnet-5")
        assert caught.value.refusal.rule == "dependency.provider_key"

    def test_a_name_in_the_configuration_comes_before_an_adapter(self) -> None:
        config = load_repo_config(CONFIG.replace("  two:", "  reference:").encode(), "config.yaml")
        request = RunRequest(ticket="-", repo=Path(), agent="reference")
        assert choose_agent(config, request)[1].adapter == "command"

    def test_words_after_the_dashes_choose_the_command_adapter(self) -> None:
        config = load_repo_config(CONFIG.encode(), "config.yaml")
        assert choose_agent(config, RunRequest(ticket="-", repo=Path(), command=("true",)))[0] == "command"

    def test_a_ticket_chooses_nothing(self, call: Any, tmp_path: Path) -> None:
        evil = tmp_path / "evil.md"
        evil.write_text("---\nrole: docs\nagent: two\nbudget: {usd: 99}\nbase: other\n---\n# T\n\nDo.\n")
        record = call(role="backend", command=("true",), ticket=str(evil))
        assert (record.role, record.agent.name, record.target) == ("backend", "command", "refs/heads/main")
        assert record.budget.nano_usd == 2_500_000_000


@pytest.mark.parametrize(
    ("role", "operator", "joined"),
    [
        (None, None, None),
        ("1.00", None, 10**9),
        (None, "2.00", 2 * 10**9),
        ("1.00", "2.00", 10**9),
        ("3", "2", 2 * 10**9),
    ],
)
def test_budgets_are_joined_by_the_stricter(
    tmp_path: Path, role: str | None, operator: str | None, joined: int | None
) -> None:
    budget = f", budget: {{usd: {role}}}" if role else ""
    config = load_repo_config(f'version: 1\nroles: {{a: {{read: ["**"], write: ["**"]{budget}}}}}\n'.encode(), "c")
    path = tmp_path / "o.yaml"
    path.write_text("version: 1\n" + (f"budget: {{usd_per_run: {operator}}}\n" if operator else ""))
    found = budget_of(config.roles["a"], load_operator_config({"VESTIBULE_CONFIG": str(path)}))
    assert found.nano_usd == joined


def test_no_more_of_a_ticket_is_read_than_shows_that_it_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.md"
    path.write_bytes(b"x" * (3 * MAX_TICKET_BYTES))
    assert len(read_ticket(str(path))) == MAX_TICKET_BYTES + 1

    class Stdin:
        buffer = io.BytesIO(path.read_bytes())

    monkeypatch.setattr("sys.stdin", Stdin())
    assert len(read_ticket("-")) == MAX_TICKET_BYTES + 1


def test_a_ticket_that_is_too_large_is_a_usage_error(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.md"
    path.write_bytes(b"x" * (MAX_TICKET_BYTES + 1))
    with pytest.raises(UsageError):
        call(role="docs", command=("true",), ticket=str(path))


@pytest.mark.parametrize("source", ["\0", "/dev", "no\x1b[31msuch", "x" * 5000])
def test_a_ticket_that_is_no_file_is_a_usage_error(source: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_ticket(source)
    assert "\x1b" not in str(caught.value)
