"""Roles by name, and what a task in one may touch."""

from __future__ import annotations

import difflib

from vestibule.config.schema import OperatorConfig, RepoConfig, RoleConfig, uses
from vestibule.core.errors import UsageError
from vestibule.core.model import Scope


def choose_role(config: RepoConfig, asked: str) -> tuple[str, RoleConfig]:
    """The role asked for, or the only one.

    Raises:
        UsageError: there is none of that name, or several and none was named.
    """
    if not asked and len(config.roles) == 1:
        return next(iter(config.roles.items()))
    if asked in config.roles:
        return asked, config.roles[asked]
    names = ", ".join(sorted(config.roles))
    if not asked:
        raise UsageError("The configuration has several roles.", next_step=f"Choose one with --role: {names}.")
    near = difflib.get_close_matches(asked, config.roles, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"There is no role {asked!r}.", next_step=f"{hint}The roles are: {names}.")


def scope_of(role: RoleConfig, config: RepoConfig, operator: OperatorConfig | None = None) -> Scope:
    """What a task in this role may touch. The operator's label and view rules come first, so they decide."""
    above = operator or OperatorConfig()
    return Scope(
        read=role.read,
        write=role.write,
        tools=role.tools,
        commands=role.commands,
        hosts=role.network.endpoints,
        host_programs=role.network.programs,
        registries=role.network.registries,
        protected=config.changes.protected,
        max_files=config.changes.max_files,
        max_lines=config.changes.max_lines,
        bounds=above.scope.bounds(),
        labels=tuple(item.rule() for item in (*above.labels, *config.labels)),
        views=(
            *(item.rule("organisation") for item in above.views),
            *(item.rule("repository") for item in config.views),
        ),
        upstreams=uses(role),
    )
