"""Provider keys: read when needed, refused when in doubt, never in a message."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from vestibule.config.parts import KeySource
from vestibule.core.errors import DependencyDown
from vestibule.core.text.secrets import part_of
from vestibule.identity.keys import read_key, secret_of


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


# --- a service account's file (Vertex) ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(65537, 2048)
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def account(private_key: str) -> str:
    told = {
        "type": "service_account",
        "client_email": "runner@project.iam.example.com",
        "private_key": private_key,
        "token_uri": "https://oauth2.example.com/token",
    }
    return json.dumps(told, indent=2)


def test_a_service_accounts_file_is_read_where_it_is_exchanged_and_nowhere_else(
    tmp_path: Path, private_key: str
) -> None:
    path = tmp_path / "account.json"
    path.write_text(account(private_key) + "\n")
    path.chmod(0o600)
    assert json.loads(read_key(KeySource(file=str(path)), {}, account=True))["private_key"] == private_key
    with pytest.raises(DependencyDown) as found:
        read_key(KeySource(file=str(path)), {})
    assert private_key.splitlines()[3] not in found.value.refusal.model_dump_json()


@pytest.mark.parametrize("shape", ["{}", '"{}"', "[1]"])
def test_what_is_no_service_accounts_file_is_refused(key: str, shape: str) -> None:
    with pytest.raises(DependencyDown) as found:
        read_key(KeySource(env="SOME_KEY"), {"SOME_KEY": shape.format(key)}, account=True)
    assert found.value.refusal.rule == "dependency.provider_key"
    assert key not in found.value.refusal.model_dump_json()


def test_of_a_service_accounts_file_the_private_key_is_the_secret_and_nothing_of_the_rest(private_key: str) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    secret = secret_of(account(private_key).encode())
    lines = private_key.splitlines()
    assert part_of(secret, lines[len(lines) // 2].encode()) is not None
    assert part_of(secret, lines[-3].encode()) is not None
    for harmless in (b"https://oauth2.example.com/token", b'"type": "service_account"', b"-----BEGIN PRIVATE KEY-----"):
        assert part_of(secret, harmless) is None
    for size in (2048, 4096):
        another = rsa.generate_private_key(65537, size).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        assert part_of(secret, another) is None


def test_of_any_other_key_all_of_it_is_the_secret(key: str) -> None:
    assert secret_of(key.encode()) == key.encode()
    assert secret_of(b'{"token": "x"}') == b'{"token": "x"}'
