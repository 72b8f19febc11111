"""Policies as the operator configured them: which engine, which layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vestibule.config.schema import OperatorConfig
from vestibule.core.errors import DependencyDown
from vestibule.core.ids import Sha
from vestibule.git import Git

if TYPE_CHECKING:
    from vestibule.policy import PolicySet
    from vestibule.policy.opa import OpaAddress

FOLDER = ".vestibule/policy/"


def load_policy(
    operator: OperatorConfig,
    environ: Mapping[str, str] | None,
    repository: Mapping[str, bytes],
    *,
    organisation: Sequence[Path] | None = None,
) -> PolicySet:
    """Shipped, organisation's and repository's policies on the configured engine.

    `organisation` takes the place of the operator's `policy:` folders.

    Raises:
        ConfigError: a layer or the engine's address says something impossible.
        DependencyDown: `dependency.policy`.
    """
    from vestibule.policy import PolicySet

    folders = tuple(Path(item) for item in operator.policy) if organisation is None else tuple(organisation)
    return PolicySet.load(organisation=folders, repository=repository, opa=_opa(operator, environ))


def repository_policy(git: Git, commit: Sha) -> dict[str, bytes]:
    """The policy files of a commit."""
    entries = [
        entry
        for entry in git.tree(commit)
        if entry.path.startswith(FOLDER) and entry.path.endswith(".rego") and entry.kind == "blob"
    ]
    contents = dict(git.blobs(entry.sha for entry in entries))
    return {entry.path: contents[entry.sha] for entry in entries}


def _opa(operator: OperatorConfig, environ: Mapping[str, str] | None) -> OpaAddress | None:
    found = operator.policy_backend.opa
    if found is None:
        return None
    from vestibule.identity.keys import read_key
    from vestibule.policy.opa import OpaAddress

    try:
        token = read_key(found.token, environ) if found.token else ""
    except DependencyDown as error:
        raise DependencyDown(
            "policy", "The token for the OPA server is missing or is no token.", fact=error.refusal.fact
        ) from None
    return OpaAddress(found.url, token)
