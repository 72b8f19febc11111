"""Both configurations, read strictly: errors name file, line and nearest key; no repository governs the operator."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.config.load import load_operator_config, load_repo_config, shipped_role
from vestibule.config.strict_yaml import MAX_BYTES, parse
from vestibule.core.errors import ConfigError

CONTRACT = b"""version: 1
roles:
  backend:
    read:  ["src/**", "tests/**", "pyproject.toml"]
    write: ["src/**", "tests/**"]
    tools: [read_file, list_files, search_files, write_file, apply_patch, run_command]
    commands: ["pytest", "ruff"]
    network: {hosts: ["docs.example.com:443"], registries: [pip]}
    budget: {usd: 2.50, tokens: 500000, minutes: 20}
agents:
  claude: {adapter: claude-code, model: claude-sonnet-5}
groups: {maintainers: ["local:alice", "oidc:https://idp.example.com/#platform"]}
gates:
  review: {approvals: 1, from: ["group:maintainers"], self_approval: never, expires: 7d, when: always}
changes: {max_files: 50, max_lines: 2000, protected: ["deploy/**"]}
scanners: [bandit, zizmor]
verify: {commands: [["pytest", "-q"]]}
sandbox: {minimum: [mounts, network, seccomp, no_new_privs]}
"""
SMALL = b"version: 1\nroles:\n  dev:\n    read: ['**']\n"


def test_the_contracts_example_is_read_as_written() -> None:
    config = load_repo_config(CONTRACT)
    role = config.roles["backend"]
    assert role.budget.usd == 2_500_000_000
    assert role.network.hosts == ("docs.example.com:443",)
    assert config.gates.review.expires == 7 * 86400
    assert config.eligible(config.gates.review.from_) == ("local:alice", "oidc:https://idp.example.com/#platform")


def test_only_version_and_roles_are_required() -> None:
    config = load_repo_config(SMALL)
    assert config.gates.review.self_approval == "never"
    assert config.changes.max_files == 50
    assert shipped_role().write == ("**",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALL + b"modles: {}\n", ["config.yaml:5", "modles", "Did you mean"]),
        (SMALL.replace(b"read", b"raed"), ["config.yaml:4", "raed", "'read'"]),
        (SMALL + b"    budget: {uds: 1}\n", ["config.yaml:5", "uds", "'usd'"]),
        (SMALL + b"changes:\n  max_file: 3\n", ["config.yaml:6", "'max_files'"]),
        (b"roles: {}\n", ["config.yaml", "version"]),
        (b"version: 1\nroles: {}\n", ["config.yaml:2", "roles"]),
        (b"version: 2\nroles: {a: {read: ['**']}}\n", ["config.yaml:1"]),
        (b"version: 1\nroles: {a: {read: []}}\n", ["config.yaml:2"]),
        (SMALL.replace(b"'**'", b"'../x'"), ["config.yaml:4", "../x"]),
        (SMALL.replace(b"'**'", b"'/etc/**'"), ["config.yaml:4", "relative"]),
        (SMALL + b"    commands: ['sh -c x']\n", ["config.yaml:5", "plain name"]),
        (SMALL + b"    commands: ['../bin/sh']\n", ["config.yaml:5"]),
        (SMALL + b"    budget: {usd: -1}\n", ["config.yaml:5"]),
        (SMALL + b"    budget: {usd: 0.0000000001}\n", ["config.yaml:5", "nano"]),
        (SMALL + b"    network: {hosts: ['1.2.3.4:443']}\n", ["config.yaml:5", "IP address"]),
        (SMALL + b"gates: {review: {from: ['group:ghosts']}}\n", ["ghosts"]),
        (SMALL + b"gates: {review: {from: ['alice']}}\n", ["local:NAME"]),
        (SMALL + b"gates: {review: {expires: never}}\n", ["7d"]),
        (SMALL + b"version: 1\n", ["config.yaml:5", "twice"]),
        (SMALL + b"x: !!python/object:os.system {}\n", ["config.yaml:5", "tag"]),
        (SMALL + b"x: &a [*a]\n", ["config.yaml"]),
        (SMALL + b"<<: {a: 1}\n", ["config.yaml:5", "merge"]),
        (SMALL + b"---\nversion: 1\n", ["config.yaml"]),
        (b"- 1\n", ["mapping"]),
        (b"", ["mapping"]),
        (b"\xff\xfe", ["UTF-8"]),
        (b"a: [1, 2\n", ["not valid YAML"]),
        (b"x" * (MAX_BYTES + 1), ["256 KiB"]),
        (b"[" * 5000, ["config.yaml"]),
        (b"a: .inf\n", ["config.yaml:1", "number"]),
        (b"version: 0x1\n", ["decimal"]),
    ],
)
def test_errors_name_file_line_and_what_to_write_instead(text: bytes, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_repo_config(text)
    assert error.value.exit_code == 2
    said = str(error.value)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    "text",
    [
        b"models: {x: {api: anthropic, base_url: 'https://evil.example.com', key: {env: X}}}\n",
        b"policy: ['/etc/x']\n",
        b"budget: {usd_per_run: 1}\n",
        b"trust_domain: x.example\n",
        b"sandbox: {tools: ['/opt']}\n",
        b"agents: {a: {adapter: x, base_url: 'https://evil.example.com'}}\n",
        b"agents: {a: {adapter: x, key: {env: X}}}\n",
    ],
)
def test_a_repository_never_sets_what_the_operator_defines(text: bytes) -> None:
    with pytest.raises(ConfigError, match="belongs to the operator"):
        load_repo_config(SMALL + text)


def operator(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "operator.yaml"
    path.write_text(text)
    return {"VESTIBULE_CONFIG": str(path)}


def test_the_operators_file_adds_to_the_shipped_providers(tmp_path: Path) -> None:
    config = load_operator_config(operator(tmp_path, "version: 1\nmodels: {s: {api: scripted, script: a.yaml}}\n"))
    assert set(config.models) == {"anthropic", "gemini", "openai", "s"}
    assert config.models["anthropic"].key
    assert config.sandbox.minimum == ("mounts", "network", "seccomp", "no_new_privs")


@pytest.mark.parametrize(
    "text",
    [
        "models: {a: {api: anthropic}}\n",
        "models: {a: {api: anthropic, base_url: 'file:///x'}}\n",
        "models: {a: {api: anthropic, base_url: 'https://user:pw@x.example'}}\n",
        "models: {a: {api: anthropic, base_url: 'https://x.example', key: {env: A, file: b}}}\n",
        "models: {a: {api: scripted, script: x, base_url: 'https://x.example'}}\n",
        "sandbox: {tools: ['relative']}\n",
        "sandbox: {tools: ['/opt/../etc']}\n",
        "sandbox: {tools: ['/']}\n",
        "sandbox: {minimum: [moat]}\n",
        "budget: {usd_per_run: lots}\n",
        "nonsense: 1\n",
    ],
)
def test_an_operators_mistake_is_an_error_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_operator_config(operator(tmp_path, text))
    assert error.value.where.endswith("operator.yaml:1")


def test_a_named_operator_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_operator_config({"VESTIBULE_CONFIG": str(tmp_path / "nothing.yaml")})


def test_numbers_with_a_point_are_decimals_of_their_text() -> None:
    value = parse(b"a: 2.10\nb: 1\nc: yes\nd: null\n", "x").value
    assert value == {"a": Decimal("2.10"), "b": 1, "c": True, "d": None}
    assert str(value["a"]) == "2.10"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"#, \n\t0.1%@`?~", max_size=120).map(str.encode))
def test_any_bytes_are_a_value_or_an_error_with_a_place(data: bytes) -> None:
    where = "f.yaml"
    try:
        parse(data, "f.yaml")
    except ConfigError as error:
        where = error.where
    assert where.startswith("f.yaml")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_behind_a_valid_file_never_crash_the_loader(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        load_repo_config(SMALL + data)
