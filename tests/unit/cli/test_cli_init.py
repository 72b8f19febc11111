"""`vestibule init`: useful, valid, never overwriting, never writing elsewhere."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from vestibule.cli.init import command, config_text, look
from vestibule.config.load import load_repo_config
from vestibule.core.errors import UsageError


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = tmp_path / "operator"
    operator.mkdir()
    (operator / "config.yaml").write_text("version: 1\n")
    monkeypatch.setenv("VESTIBULE_CONFIG", str(operator / "config.yaml"))
    monkeypatch.setenv("VESTIBULE_HOME", str(tmp_path / "home"))


def repository(folder: Path, *names: str) -> Path:
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    return folder


def init(folder: Path, *argv: str) -> str:
    done = CliRunner().invoke(command, [str(folder), *argv], standalone_mode=False)
    if done.exception:
        raise done.exception
    assert done.return_value == 0
    return done.stdout


def test_the_generated_configuration_is_valid_and_fits_the_repository(tmp_path: Path) -> None:
    repo = repository(tmp_path / "r", "src/pkg/a.py", "tests/test_a.py", "README.md", "tool.sh")
    said = init(repo)
    data = (repo / ".vestibule/config.yaml").read_bytes()
    config = load_repo_config(data)
    role = config.roles["developer"]
    assert role.write == ("src/**", "tests/**", "*.sh")
    assert "pytest" in role.commands
    assert config.verify.commands == (("pytest", "-q"),)
    assert config.gates.review.self_approval == "never"
    assert b"recorded" in data
    assert config.eligible(config.gates.review.from_) == (f"local:{pwd.getpwuid(os.getuid()).pw_name}",)
    assert {path.name for path in (repo / ".vestibule").iterdir()} == {"config.yaml", "policy", "ticket-template.md"}
    assert "pinned" in said
    assert list((tmp_path / "operator/trust").glob("*.pin"))


def test_nothing_is_overwritten_and_what_was_left_alone_is_said(tmp_path: Path) -> None:
    repo = repository(tmp_path / "r", ".vestibule/config.yaml")
    said = init(repo)
    assert (repo / ".vestibule/config.yaml").read_text() == "x\n"
    assert "left alone  .vestibule/config.yaml" in said
    again = init(repo)
    assert "wrote" not in again


def test_a_link_in_the_way_writes_nothing_elsewhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    repo = repository(tmp_path / "r")
    (repo / ".vestibule").symlink_to(outside)
    with pytest.raises(UsageError):
        init(repo)
    assert list(outside.iterdir()) == []
    other = repository(tmp_path / "o", ".vestibule/x")
    (other / ".vestibule/config.yaml").symlink_to(outside / "config.yaml")
    assert "left alone  .vestibule/config.yaml" in init(other)
    assert list(outside.iterdir()) == []


def test_no_repository_and_a_bare_one_end_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a git repository"):
        init(tmp_path)
    bare = tmp_path / "b.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    with pytest.raises(UsageError, match="bare"):
        init(bare)


@pytest.mark.parametrize(
    ("names", "language", "verify"),
    [
        ([], None, None),
        (["package.json", "src/a.ts"], "TypeScript", ["npm", "test"]),
        (["go.mod", "cmd/a/main.go"], "Go", ["go", "test", "./..."]),
        (["Cargo.toml", "src/lib.rs"], "Rust", ["cargo", "test", "--offline"]),
        (["pom.xml", "src/main/java/A.java"], "Java", ["mvn", "-q", "-o", "test"]),
        (["we ird/a.py", "a\nb/c.py", "{x}/y.py", "bad\udcff.py"], "Python", None),
    ],
)
def test_layouts_are_recognised_and_always_give_a_valid_file(
    names: list[str], language: str | None, verify: list[str] | None
) -> None:
    found = look(names)
    assert (found.languages[0] if found.languages else None) == language
    assert (found.verify[0] if found.verify else None) == verify
    config = load_repo_config(config_text(found, "local:someone").encode())
    assert config.roles["developer"].write


def test_the_schema_accepts_what_init_writes_and_refuses_unknown_keys() -> None:
    done = CliRunner().invoke(command, ["--schema"], standalone_mode=False)
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    value = yaml.safe_load(config_text(look(["src/a.py"]), "local:someone"))
    validator.validate(value)
    assert list(validator.iter_errors({**value, "modles": {}}))
