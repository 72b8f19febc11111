"""`.vestibule/trust.yaml`: strict, for one version, and nobody climbs by a file that cannot be read."""

from __future__ import annotations

import pytest

from vestibule.config.load import load_repo_config
from vestibule.config.trust import TrustFile, TrustStep, load_trust, may_take, rung
from vestibule.core.errors import ConfigError

CONFIG = b"""\
version: 1
roles:
  docs: {read: ["docs/**"], write: ["docs/**"]}
  backend: {read: ["src/**"], write: ["src/**"]}
  other: {read: ["src/**"]}
trust: {ladders: {main: [docs, backend]}}
"""


def step(**fields: str) -> TrustStep:
    base = {"agent": "claude", "ladder": "main", "role": "backend", "version": "v1", "by": "local:a", "time": "t"}
    return TrustStep(**{**base, "reason": "because", **fields})


def test_without_an_entry_an_agent_stands_on_the_first_rung() -> None:
    config = load_repo_config(CONFIG)
    assert may_take(config, TrustFile(), "docs", "claude", "v1")
    assert not may_take(config, TrustFile(), "backend", "claude", "v1")
    assert may_take(config, TrustFile(), "other", "claude", "v1")


def test_a_step_is_for_exactly_one_version_and_agent() -> None:
    config, file = load_repo_config(CONFIG), TrustFile(steps=(step(),))
    assert may_take(config, file, "backend", "claude", "v1")
    assert not may_take(config, file, "backend", "claude", "v2")
    assert not may_take(config, file, "backend", "codex", "v1")


def test_a_role_that_left_the_ladder_lifts_nobody() -> None:
    config = load_repo_config(CONFIG)
    assert rung(config, TrustFile(steps=(step(role="gone"),)), "main", "claude", "v1") == 0


def test_the_file_is_read_as_it_is_written() -> None:
    file = TrustFile(steps=(step(reason="it's: «fine» #1"),)).with_step(step(agent="codex", version="x: y"))
    assert load_trust(file.dump()) == file
    again = file.with_step(step(role="docs"))
    assert [item.role for item in again.steps if item.agent == "claude"] == ["docs"]


@pytest.mark.parametrize(
    "data", [b"", b"version: 2\n", b"version: 1\nsteps: [{agent: a}]\n", b"version: 1\nmore: 1\n", b"!!python/x {}\n"]
)
def test_what_cannot_be_read_is_an_error(data: bytes) -> None:
    with pytest.raises(ConfigError):
        load_trust(data)


@pytest.mark.parametrize(
    "ladders",
    ["{main: [docs, nope]}", "{main: [docs]}", "{a: [docs, backend], b: [backend, other]}", '{"a;b": [docs, backend]}'],
)
def test_a_ladder_names_roles_once_each(ladders: str) -> None:
    with pytest.raises(ConfigError):
        load_repo_config(CONFIG.replace(b"{main: [docs, backend]}", ladders.encode()))
