"""From bytes to checked configuration, with errors that name file, line and the nearest valid key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vestibule.config.parts import KeySource
from vestibule.config.providers import Provider
from vestibule.config.schema import OPERATOR_ONLY, OperatorConfig, RepoConfig, RoleConfig
from vestibule.config.strict_yaml import Document, Where, parse
from vestibule.core.errors import ConfigError

REPO_CONFIG_PATH = ".vestibule/config.yaml"

M = TypeVar("M", bound=BaseModel)


def load_repo_config(data: bytes, name: str = REPO_CONFIG_PATH) -> RepoConfig:
    """The repository's configuration from the bytes of the base commit.

    Raises:
        ConfigError: exit 2, naming file, line and the nearest valid key.
    """
    return validate(RepoConfig, parse(data, name), operator_hint=True)


def load_operator_config(environ: Mapping[str, str] | None = None) -> OperatorConfig:
    """The operator's configuration, with shipped providers filled in.

    A file named by `VESTIBULE_CONFIG` must exist; the platform's default file may be absent.

    Raises:
        ConfigError: exit 2.
    """
    environ = os.environ if environ is None else environ
    path = operator_config_path(environ)
    if not path.exists():
        if environ.get("VESTIBULE_CONFIG"):
            raise ConfigError(
                "VESTIBULE_CONFIG names a file that does not exist",
                where=str(path),
                next_step="Create it or unset the variable.",
            )
        return with_shipped_providers(OperatorConfig())
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
    return with_shipped_providers(validate(OperatorConfig, parse(data, str(path)), operator_hint=False))


def operator_config_path(environ: Mapping[str, str]) -> Path:
    """`VESTIBULE_CONFIG`, else `config.yaml` in the platform's configuration directory."""
    named = environ.get("VESTIBULE_CONFIG")
    return Path(named).expanduser() if named else config_dir(environ) / "config.yaml"


def config_dir(environ: Mapping[str, str]) -> Path:
    """Where the operator's configuration, pinned keys and remembered log heads live."""
    import platformdirs

    named = environ.get("VESTIBULE_CONFIG")
    return Path(named).expanduser().absolute().parent if named else Path(platformdirs.user_config_dir("vestibule"))


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`VESTIBULE_HOME`, else the platform's data directory. Not created here."""
    import platformdirs

    environ = os.environ if environ is None else environ
    named = environ.get("VESTIBULE_HOME")
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_data_dir("vestibule"))


def with_shipped_providers(config: OperatorConfig) -> OperatorConfig:
    """Shipped providers tie each key variable to its host; the operator's entries win by name."""
    shipped = {
        "anthropic": Provider(
            api="anthropic", base_url="https://api.anthropic.com", key=KeySource(env="ANTHROPIC_API_KEY")
        ),
        "openai": Provider(api="openai", base_url="https://api.openai.com/v1", key=KeySource(env="OPENAI_API_KEY")),
        "gemini": Provider(
            api="gemini", base_url="https://generativelanguage.googleapis.com", key=KeySource(env="GEMINI_API_KEY")
        ),
    }
    return config.model_copy(update={"models": {**shipped, **config.models}})


def shipped_role() -> RoleConfig:
    """The role `check` and `sandbox exec` use where a repository has no `.vestibule/`: everything but the protected."""
    return RoleConfig(read=("**",), write=("**",))


def validate(model: type[M], document: Document, *, operator_hint: bool = False) -> M:
    """The document as `model`. Raises ConfigError naming file, line and the nearest valid key."""
    if not isinstance(document.value, dict):
        raise ConfigError(
            "the file is no mapping of keys to values",
            where=document.where(()),
            next_step="`vestibule init` writes an example.",
        )
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        raise _explain(model, document, error, operator_hint) from None


def _explain(model: type[BaseModel], document: Document, error: ValidationError, operator_hint: bool) -> ConfigError:
    found = error.errors(include_url=False)
    first = next((item for item in found if item["type"] == "extra_forbidden"), found[0])
    path = _existing(document, tuple(first["loc"]))
    label = ".".join(str(part) for part in first["loc"])
    where = document.where(path)
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        if operator_hint and key in OPERATOR_ONLY:
            return ConfigError(
                f"{label!r} belongs to the operator, not to a repository",
                where=where,
                why="Providers, base URLs, key sources, host paths and organisation policy are the operator's.",
                next_step="Remove it here; an operator sets it in the file named by VESTIBULE_CONFIG.",
            )
        near = difflib.get_close_matches(key, _keys_at(model, tuple(first["loc"][:-1])), n=1, cutoff=0.0)
        return ConfigError(
            f"unknown key {label!r}", where=where, next_step=f"Did you mean {near[0]!r}?" if near else "Remove it."
        )
    if first["type"] == "missing":
        return ConfigError(f"the key {label!r} is missing", where=where)
    message = str(first["msg"]).removeprefix("Value error, ")
    return ConfigError(f"{label}: {message}" if label else message, where=where)


def _existing(document: Document, path: Where) -> Where:
    while path and path not in document.lines:
        path = path[:-1]
    return path


def _keys_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Valid keys of the mapping at `path`, walked through the JSON Schema."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in path:
        node = _deref(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        if not isinstance(node, dict):
            return []
    return list(_deref(schema, node).get("properties", {}))


def _deref(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", []):
        if "$ref" in option or "properties" in option:
            node = option
    ref = node.get("$ref")
    if isinstance(ref, str):
        found = schema["$defs"][ref.rsplit("/", 1)[1]]
        return dict(found)
    return node


def repo_config_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `.vestibule/config.yaml`."""
    schema = RepoConfig.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": REPO_CONFIG_PATH, **schema}
