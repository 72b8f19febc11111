"""A run at its gate without a sandbox: real git, real state, real log; the agent's result is made by hand.

The attacks here are on what happens outside the sandbox, so nothing is lost by leaving it out.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestibule.core.crossing import Actor
from vestibule.core.ids import new_run_id
from vestibule.core.model import Person, State
from vestibule.core.verdict import Ruling
from vestibule.pipeline.drive import Driver
from vestibule.pipeline.prepare import RunRequest, prepare
from vestibule.pipeline.record import RunRecord
from vestibule.pipeline.results import source_of
from vestibule.pipeline.segments import Segments
from vestibule.pipeline.services import Services

CONFIG = """\
version: 1
roles:
  fixer: {read: ["src/**"], write: ["src/**"]}
groups: {maintainers: ["local:alice", "local:bob"]}
gates:
  review: {approvals: 1, from: ["group:maintainers"], self_approval: never, expires: 1d}
"""

ALICE = Person(id="local:alice", how="test")
BOB = Person(id="local:bob", how="test")
CAROL = Person(id="local:carol", how="test")


@dataclass
class World:
    """A repository, a state folder, and one run that waits at its gate."""

    folder: Path
    env: dict[str, str]
    services: Services
    run: str

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def record(self) -> RunRecord:
        return self.services.runs.get(self.run)

    @property
    def driver(self) -> Driver:
        return Driver(self.services)

    @property
    def segments(self) -> Segments:
        return Segments(self.services)

    def git(self, *argv: str, **kwargs: Any) -> str:
        return git(self.repo, *argv, **kwargs)

    def approve(self, person: Person = BOB, reason: str = "Looks right.") -> RunRecord:
        return self.driver.record(self.run, "approve", reason, person=person, channel="cli")

    def events(self, action: str = "") -> list[Any]:
        found = [entry.event for entry in self.services.audit.entries(run=self.run)]
        return [event for event in found if not action or event.action == action]

    def reopened(self) -> World:
        """Another process's view of the same state."""
        self.services.close()
        return World(self.folder, self.env, Services(self.env), self.run)


def git(repo: Path, *argv: str, check: bool = True) -> str:
    env = {
        **os.environ,
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.com",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.com",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    done = subprocess.run(["git", "-C", str(repo), *argv], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def make_world(
    folder: Path, *, config: str = CONFIG, operator: str = "version: 1\n", bare: bool = False, ticket: str = ""
) -> World:
    """A world whose run, asked for by alice, waits for bob or alice."""
    repo = folder / "repo"
    (folder / "operator").mkdir()
    (folder / "operator" / "config.yaml").write_text(operator)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "VESTIBULE_HOME": str(folder / "home"),
        "VESTIBULE_CONFIG": str(folder / "operator" / "config.yaml"),
    }
    work = folder / "clone" if bare else repo
    (work / "src").mkdir(parents=True)
    (work / ".vestibule").mkdir()
    git(work, "init", "-q", "-b", "main")
    (work / "src" / "app.py").write_text("one\n")
    (work / ".vestibule" / "config.yaml").write_text(config)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "First")
    if bare:
        git(folder, "clone", "-q", "--bare", str(work), str(repo))
    (folder / "ticket.md").write_text(ticket or "# Two\n\nSay two.\n")
    services = Services(env)
    run = start_run(services, folder, repo)
    Segments(services)._propose(run)
    return World(folder, env, services, run)


def start_run(services: Services, folder: Path, repo: Path) -> str:
    """A run whose work and checks are done; its branch and gate are not there yet."""
    from vestibule.intake import specify

    request = RunRequest(ticket=str(folder / "ticket.md"), repo=repo, agent="command", command=("true",))
    record = prepare(request, services.operator, ALICE.id, services.environ)
    record = record.model_copy(update={"id": new_run_id(1)})
    services.runs.create(record)
    facts = dict.fromkeys(
        ("requester_known", "role_defined", "agent_defined", "walls_ok", "config_from_base", "author_trusted"), True
    )
    facts |= {"trigger": "cli", "permission": "admin", "permission_source": "local_user", "is_bot": False, "paid": True}
    facts |= {"rounds_left": True, "role_earned": True, "agent_paused": ""}
    resource = {"id": record.id, "role": record.role, "source": record.ticket.source}
    alice = Actor(record.id, ALICE.id, "person")
    services.crossing(record).cross_sync(alice, "task.admit", resource, facts, lambda: (None, {}))
    services.ledger.open(record.id, record.budget)
    result = source_of(services, record)
    blob = result.hash_blob(b"two\n")
    entries = [(item.mode, item.sha, item.path_bytes) for item in result.tree(record.base_commit)]
    tree = result.write_tree([(m, blob if p == b"src/app.py" else s, p) for m, s, p in entries])
    head = result.commit_tree(
        tree, [record.base_commit], "Two\n", name="Vestibule", email="v@example.com", time="1700000000 +0000"
    )
    services.runs.set(
        record.id,
        state=State.CHECKING,
        spec=specify(record.ticket),
        attempt=1,
        head_commit=head,
        tree=tree,
        verdict=Ruling.HOLD,
        changed_files=("src/app.py",),
        policy_digest=services.policy(record.repo, record.base_commit).digest,
    )
    return record.id
