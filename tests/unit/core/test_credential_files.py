"""Files whose purpose is to hold a secret are shown only where a glob names them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vestibule.boundary.context.rights import Rights
from vestibule.core.control_files import CREDENTIALS, credential_file, names_credential
from vestibule.core.model import Bound, Scope
from vestibule.core.text.globs import literal_text
from vestibule.core.view import View
from vestibule.git import Git
from vestibule.sandbox.view import project

HELD = [
    ".env",
    ".ENV",
    "a/.env",
    ".env.local",
    ".env.production",
    "a/.env-prod",
    "prod.env",
    ".envrc",
    "certs/server.pem",
    "tls/site.key",
    ".ssh/config",
    "id_rsa",
    "keys/id_ed25519",
    "deploy_rsa",
    ".netrc",
    "_netrc",
    ".pypirc",
    ".git-credentials",
    "store.p12",
    "a.pfx",
    "a.jks",
    "a.keystore",
    ".aws/credentials",
    "home/.aws/credentials",
    ".config/gcloud/credentials.db",
    "credentials.json",
    "infra/prod.tfvars",
    "x.auto.tfvars",
    "x.tfvars.json",
    "terraform.tfstate",
    "terraform.tfstate.backup",
    "s/prod.tfstate.d",
    ".htpasswd",
    ".pgpass",
    "secrets.yml",
    "conf/secrets.yaml",
    "kubeconfig",
    "x/kubeconfig.yaml",
    ".kube/config",
    "prod.kubeconfig",
    ".docker/config.json",
    "service-account-1.json",
    "client_secret_1.json",
    "Credentials.JSON",
    ".env.example.local",
    "example.com.env",
    "ID_RSA",
]
FREE = [
    ".env.example",
    ".env.sample",
    ".env.template",
    ".env.dist",
    ".env.local.example",
    "example.env",
    ".envrc.example",
    "src/env.py",
    "environment.yml",
    "src/credentials.py",
    "credentials/__init__.py",
    "id_rsa.pub",
    "deploy_rsa.pub",
    "secrets.py",
    "docs/secrets.md",
    "keys.py",
    "monkey.py",
    ".envoy/a.yaml",
    "src/kubeconfig.go",
    "README.md",
    "src/.environment",
    "certs/README.md",
    "terraform/main.tf",
]


@pytest.mark.parametrize("path", HELD)
def test_a_credential_file_is_read_only_where_a_glob_names_it(path: str) -> None:
    assert credential_file(path)
    name = path.rpartition("/")[2]
    for glob in ("**", "**/*", "**/*.*", "**/.*", "**/{*,x.md}", "{**,docs/*.md}", "**/[!x]*"):
        assert not Scope(read=(glob,), write=("**",)).reads(path), glob
        assert not Scope(read=(glob,), write=("**",)).shows(path), glob
        assert not Scope(read=(), write=(), granted_read=(glob,), granted_write=(glob,)).shows(path), glob
    for glob in (path, f"**/{name}", f"**/*{name[1:]}", f"{{docs/**,{path}}}"):
        assert Scope(read=(glob,), write=()).reads(path), glob
        assert Scope(read=("**",), write=(), granted_read=(glob,)).reads(path), glob
        assert Scope(read=(), write=(glob,)).shows(path), glob


@pytest.mark.parametrize("path", FREE)
def test_a_sample_a_public_key_and_code_about_secrets_are_no_credential_files(path: str) -> None:
    assert credential_file(path) is None
    assert Scope(read=("**",), write=()).reads(path)


def test_a_name_widens_nothing() -> None:
    organisation = Bound(by="organisation", read=("src/**",))
    assert not Scope(read=("**/.env",), write=(), bounds=(organisation,)).reads("tests/.env")
    assert Scope(read=("**/.env",), write=(), bounds=(organisation,)).reads("src/.env")
    assert not Scope(read=("tests/.env",), write=()).within(("src/**",)).reads("tests/.env")
    assert not names_credential("tests/.env", "src/.env")
    assert not names_credential("tests/.env", "{tests/**,.env}")


def test_a_glob_that_an_agent_asks_for_must_say_what_it_is_for() -> None:
    for glob in ("tests/*e*", "tests/.e*", "tests/*nv", "tests/?e?v", "tests/[!x]n[a-z]"):
        scope = Scope(read=("tests/**",), write=(), granted_read=(glob,))
        assert not scope.reads("tests/.env"), glob
    assert names_credential("keys/a.p8", "keys/*.p8")
    assert Scope(read=("tests/**",), write=(), granted_read=("tests/.env",)).reads("tests/.env")


def test_tools_and_view_follow(tmp_path: Path) -> None:
    for name in ("app/a.py", "app/.env", "app/.env.example", "app/tls/site.key"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("KEY=1\n")
    (tmp_path / "app/link").symlink_to(".env")
    for argv in (["init", "-q"], ["add", "-Af"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *argv], check=True)
    git = Git.open(tmp_path)
    commit = git.commit_of("HEAD")
    assert commit is not None

    def shown(*read: str) -> list[str]:
        view: View = project(git, commit, Scope(read=read, write=("app/**",)))
        assert all(Rights.of(Scope(read=read, write=()), view).readable(file.path) for file in view.files)
        return [file.path for file in view.files]

    assert shown("app/**") == ["app/.env.example", "app/a.py"]
    assert shown("app/**", "**/.env") == ["app/.env", "app/.env.example", "app/a.py", "app/link"]


def test_asking_is_quick_for_files_that_are_none() -> None:
    assert all(len(literal_text(glob)) > 2 for glob in CREDENTIALS)
