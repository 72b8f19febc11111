"""From the words of a `run` call to a run's first row. Nothing is written before all of it holds.

Rules it keeps:
1. The base is the one asked for, else the remote's default branch, else `main` or `master`; never silently
   whatever is checked out. A merge needs a branch, so the base must be the tip of one.
2. Configuration comes from the base commit; role, agent and model come from the call, never from the ticket.
3. A role, a budget and a minimum of walls are joined with the operator's by the stricter.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from vestibule.agents.registry import ADAPTERS, adapter
from vestibule.config.load import REPO_CONFIG_PATH, load_repo_config
from vestibule.config.roles import choose_role, scope_of
from vestibule.config.schema import AgentConfig, OperatorConfig, RepoConfig, RoleConfig
from vestibule.config.trust import TRUST_PATH, TrustFile, load_trust
from vestibule.core import clock
from vestibule.core.base import Noun
from vestibule.core.canonical import digest
from vestibule.core.errors import UsageError
from vestibule.core.ids import Sha, new_run_id
from vestibule.core.labels import Integrity
from vestibule.core.model import AgentRef, Budget
from vestibule.core.text.sanitize import one_line
from vestibule.git import Git
from vestibule.pipeline.record import Cause, RunRecord


class RunRequest(Noun):
    """The words of the call."""

    ticket: str
    repo: Path
    base: str = ""
    role: str = ""
    agent: str = ""
    model: str = ""
    command: tuple[str, ...] = ()
    egress: Literal["named", "learn"] = "named"


def prepare(
    request: RunRequest, operator: OperatorConfig, requester: str, environ: Mapping[str, str] | None = None
) -> RunRecord:
    """The run's first record, state `received`.

    Raises:
        UsageError: exit 2, with what to do next. Refused: it asks to learn, and the operator does not let it.
    """
    from vestibule.intake import parse_ticket, specify
    from vestibule.pipeline.egress import may_learn

    if request.egress == "learn":
        may_learn(operator)

    environ = os.environ if environ is None else environ
    git = Git.open(request.repo)
    target, base = resolve_base(git, request.base)
    config = read_config(git, base)
    role_name, role = choose_role(config, request.role)
    name, agent = choose_agent(config, request)
    if (agent.adapter == "command") is not bool(request.command):
        raise UsageError(
            f"The agent {one_line(name)!r} {'needs a command' if agent.adapter == 'command' else 'takes no command'}.",
            next_step="Use --agent command -- PROGRAM …, for example -- ruff check --fix src.",
        )
    program = adapter(agent.adapter)
    version = program.program_version(tuple(Path(item) for item in operator.sandbox.tools))
    model = request.model or agent.model
    provider = ""
    scripted = False
    if program.needs_model or model:
        provider, model, scripted = choose_model(operator, agent, model, environ)
    settings = settings_digest(agent.adapter, agent.mode, model, provider, request.command)
    ticket = parse_ticket(
        read_ticket(request.ticket), source=request.ticket, author=requester, integrity=Integrity.MEMBER
    )
    specify(ticket)  # fields that cannot be read are said before there is a run
    now = clock.now()
    return RunRecord(
        id=new_run_id(time.time_ns() // 1_000_000),
        created=now,
        updated=now,
        ticket=ticket,
        requester=requester,
        cause=Cause(trigger="cli", by=requester),
        role=role_name,
        agent=AgentRef(
            name=name,
            adapter=agent.adapter,
            model=model,
            version=f"{agent.adapter}@{version}+{model or 'none'}+{settings}",
        ),
        command=request.command,
        native=agent.mode == "native",
        provider=provider,
        scripted=scripted,
        repo=git.root,
        target=target,
        base_commit=base,
        scope=scope_of(role, config, operator),
        budget=budget_of(role, operator),
        egress=request.egress,
    )


def settings_digest(adapter_name: str, mode: str, model: str, provider: str, command: tuple[str, ...]) -> str:
    """The last part of an agent's version: 12 hex digits that name how it is started."""
    settings = {"adapter": adapter_name, "mode": mode, "model": model, "provider": provider, "command": list(command)}
    return digest(settings)[7:19]


def version_now(record: RunRecord, operator: OperatorConfig) -> str:
    """The agent's version with the program as it is installed now: it may be another one than when the run began.

    Raises:
        UsageError: the program is not there any more.
    """
    agent = record.agent
    program = adapter(agent.adapter).program_version(tuple(Path(item) for item in operator.sandbox.tools))
    rest = f"+{agent.model or 'none'}+{agent.version[-12:]}"
    return f"{agent.adapter}@{program}{rest}" if agent.version.endswith(rest) else agent.version


def resolve_base(git: Git, asked: str) -> tuple[str, Sha]:
    """The branch a merge would move, and the commit to start from."""
    heads = _heads(git)
    if asked:
        commit = git.commit_of(asked)
        if commit is None:
            raise UsageError(
                f"The base {one_line(asked)!r} is no commit of {git.root}.", next_step="Name a branch with --base."
            )
        short = asked.removeprefix("refs/heads/").removeprefix("refs/remotes/").removeprefix("origin/")
        if heads.get(f"refs/heads/{short}") == commit:
            return f"refs/heads/{short}", commit
        tips = [ref for ref, sha in heads.items() if sha == commit and not ref.startswith("refs/heads/vestibule/")]
        default = default_branch(git, heads)
        current = git.branch()
        for wanted in (default, current, *(tips if len(tips) == 1 else ())):
            if wanted in tips and wanted:
                return wanted, commit
        raise UsageError(
            f"The base {one_line(asked)!r} is not the tip of one branch.",
            why="A run ends in a merge, and a merge moves a branch.",
            next_step="Name a branch with --base, or make one there with `git branch NAME COMMIT`.",
        )
    default = default_branch(git, heads)
    if default:
        return default, heads[default]
    if not heads:
        raise UsageError(
            f"{git.root} has no commits on any branch.",
            why="A change is made against a base commit, and there is none.",
            next_step="Make a first commit on `main`.",
        )
    raise UsageError(
        f"{git.root} has no default branch: neither the remote names one, nor is there `main` or `master`.",
        next_step=f"Name the base with --base, for example --base {next(iter(heads)).removeprefix('refs/heads/')}.",
    )


def default_branch(git: Git, heads: dict[str, Sha]) -> str | None:
    """The local branch of the remote's default name, else `main`, else `master`; in a bare one also HEAD's."""
    from vestibule.git import GitError

    names = []
    try:
        remote = git.text(["symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"])
        names.append("refs/heads/" + remote.removeprefix("refs/remotes/origin/"))
    except GitError:
        pass
    if git.bare:
        names.append(git.branch() or "")
    names += ["refs/heads/main", "refs/heads/master"]
    return next((name for name in names if name in heads), None)


def _heads(git: Git) -> dict[str, Sha]:
    listing = git.text(["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/"])
    return {line.split(" ", 1)[1]: line.split(" ", 1)[0] for line in listing.splitlines()}


def read_config(git: Git, commit: Sha) -> RepoConfig:
    """The repository's configuration in `commit`.

    Raises:
        UsageError: there is none (naming `vestibule init`), or it is wrong.
    """
    data = git.blob(commit, REPO_CONFIG_PATH, limit=1 << 20)
    if data is None:
        uncommitted = git.work_tree is not None and (git.work_tree / REPO_CONFIG_PATH).exists()
        raise UsageError(
            f"There is no {REPO_CONFIG_PATH} in the base commit {commit[:12]}.",
            why="It is written but not committed on the base branch: an agent's rules are read from there only."
            if uncommitted
            else "What an agent may do is decided by that file.",
            next_step="Commit it on the base branch."
            if uncommitted
            else "Run `vestibule init` and commit what it writes.",
        )
    return load_repo_config(data, f"{commit[:12]}:{REPO_CONFIG_PATH}")


def read_trust(git: Git, commit: Sha) -> TrustFile:
    """The rungs that agents stand on, in `commit`. Raises ConfigError when the file is there and wrong."""
    return load_trust(git.blob(commit, TRUST_PATH, limit=1 << 20), f"{commit[:12]}:{TRUST_PATH}")


def choose_agent(config: RepoConfig, request: RunRequest) -> tuple[str, AgentConfig]:
    """A name in the configuration, else an adapter, else the only agent configured."""
    if request.agent:
        if request.agent in config.agents:
            return request.agent, config.agents[request.agent]
        if request.agent in ADAPTERS:
            return request.agent, AgentConfig(adapter=request.agent)
        known = ", ".join(sorted({*config.agents, *ADAPTERS}))
        raise UsageError(f"There is no agent {one_line(request.agent)!r}.", next_step=f"Agents and adapters: {known}.")
    if request.command:
        return "command", AgentConfig(adapter="command")
    if len(config.agents) == 1:
        return next(iter(config.agents.items()))
    raise UsageError(
        "Which agent?", next_step=f"Choose with --agent: {', '.join(sorted({*config.agents, *ADAPTERS}))}."
    )


def choose_model(
    operator: OperatorConfig, agent: AgentConfig, model: str, environ: Mapping[str, str]
) -> tuple[str, str, bool]:
    """The first provider's name, the model's (as the provider knows it, or the alias), whether it is scripted."""
    from vestibule.boundary.models.routing import resolve
    from vestibule.identity.keys import read_key

    if not model:
        raise UsageError(
            f"The agent with adapter {agent.adapter!r} needs a model.",
            next_step="Name it with --model, or in agents.NAME.model of the repository's configuration.",
        )
    _, routes = resolve(operator.models, operator.model_aliases, model, adapter(agent.adapter).about.apis)
    for route in routes:
        if route.provider.key is not None:
            read_key(route.provider.key, environ, account=route.provider.api == "vertex")
    first = routes[0]
    return first.name, model if model in operator.model_aliases else first.model, first.provider.api == "scripted"


def budget_of(role: RoleConfig, operator: OperatorConfig) -> Budget:
    """The stricter of the role's and the operator's ceilings."""
    limits = [value for value in (role.budget.usd, operator.budget.usd_per_run) if value is not None]
    return Budget(
        nano_usd=min(limits, default=None),
        tokens=role.budget.tokens,
        minutes=role.budget.minutes,
        idle_minutes=role.budget.idle_minutes,
    )


def read_ticket(source: str) -> bytes:
    """The ticket's bytes from a file or standard input, bounded; intake judges their size.

    Raises:
        UsageError: missing, a folder or unreadable.
    """
    from vestibule.intake import MAX_TICKET_BYTES

    if source == "-":
        data = sys.stdin.buffer.read(MAX_TICKET_BYTES + 1)
    else:
        path = Path(source)
        try:
            if not path.is_file():
                raise UsageError(
                    f"The ticket {one_line(source)!r} is no file.",
                    next_step="Give a Markdown or YAML file, or `-` for standard input.",
                )
            with path.open("rb") as file:
                data = file.read(MAX_TICKET_BYTES + 1)
        except OSError as error:
            raise UsageError(f"The ticket {one_line(source)!r} cannot be read: {error.strerror}.") from None
        except ValueError:
            raise UsageError(f"The ticket {one_line(source)!r} is no path.") from None
    return data  # one byte beyond the limit is enough for intake to refuse it
