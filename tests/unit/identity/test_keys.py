"""Provider keys: read when needed, refused when in doubt, never in a message."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from vestibule.config.parts import KeySource
from vestibule.core.errors import DependencyDown
from vestibule.identity.keys import read_key


@pytest.fixture
def key() -> str:
    return secrets.token_hex(16)


def test_a_key_comes_from_the_named_variable(key: str) -> None:
    assert read_key(KeySource(env="SOME_KEY"), {"SOME_KEY": f" {key}\n", "OTHER": "x"}) == key


def test_a_key_comes_from_the_named_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "key"
    path.write_text(key + "\n")
    path.chmod(0o600)
    assert read_key(KeySource(file=str(path)), {}) == key


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_missing_key_is_a_broken_dependency(value: str | None) -> None:
    with pytest.raises(DependencyDown) as found:
        read_key(KeySource(env="SOME_KEY"), {} if value is None else {"SOME_KEY": value})
    assert found.value.refusal.rule == "dependency.provider_key"
    assert "SOME_KEY" in found.value.refusal.fact
    assert found.value.exit_code == 4


@pytest.mark.parametrize("shape", ["{} {}", "{}\n{}", "{}\x07", "{}é"])
def test_a_malformed_key_is_refused_and_not_shown(key: str, shape: str) -> None:
    with pytest.raises(DependencyDown) as found:
        read_key(KeySource(env="SOME_KEY"), {"SOME_KEY": shape.format(key, key)})
    assert key not in str(found.value)
    assert key not in found.value.refusal.model_dump_json()


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_key_file_open_to_everyone_is_refused(tmp_path: Path, key: str, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(key)
    path.chmod(mode)
    with pytest.raises(DependencyDown, match="every user") as found:
        read_key(KeySource(file=str(path)), {})
    assert key not in str(found.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "binary", "device"])
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    if kind == "folder":
        path.mkdir()
    elif kind in ("empty", "binary"):
        path.write_bytes(b"" if kind == "empty" else b"\xff\xfe\0")
        path.chmod(0o600)
    elif kind == "device":
        path = Path("/dev/null")
    with pytest.raises(DependencyDown) as found:
        read_key(KeySource(file=str(path)), {})
    assert found.value.name == "provider_key"
