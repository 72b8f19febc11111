"""Which engine policy is asked of: as the operator says, and nobody else."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vestibule.config.schema import OperatorConfig, RepoConfig
from vestibule.core.errors import ConfigError, DependencyDown
from vestibule.pipeline.policies import load_policy


def operator(url: str, **more: object) -> OperatorConfig:
    return OperatorConfig.model_validate({"policy_backend": {"opa": {"url": url, **more}}})


def test_without_a_backend_policy_is_asked_in_this_process() -> None:
    policy = load_policy(OperatorConfig(), {}, {})
    assert policy.digest.startswith("sha256:")
    policy.close()


def test_a_configured_server_that_is_not_there_refuses_and_nothing_takes_its_place() -> None:
    with pytest.raises(DependencyDown) as found:
        load_policy(operator("http://127.0.0.1:1"), {}, {})
    assert found.value.refusal.rule == "dependency.policy"


def test_a_token_that_is_missing_refuses() -> None:
    with pytest.raises(DependencyDown) as found:
        load_policy(operator("http://127.0.0.1:1", token={"env": "OPA_TOKEN"}), {}, {})
    assert found.value.refusal.rule == "dependency.policy"
    assert "OPA_TOKEN" in found.value.refusal.fact


def test_an_address_in_the_clear_across_a_network_is_refused() -> None:
    with pytest.raises(ConfigError):
        load_policy(operator("http://opa.example.com"), {}, {})


def test_a_repository_names_no_server() -> None:
    with pytest.raises(ValidationError):
        RepoConfig.model_validate(
            {"version": 1, "roles": {"r": {"read": ["a"]}}, "policy_backend": {"opa": {"url": "https://a.example.com"}}}
        )
