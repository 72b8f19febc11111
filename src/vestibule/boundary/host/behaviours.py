"""Behaviours as data: `behaviours.yaml`, read strictly.

Rules it keeps:
1. An unknown key, an empty step, a pattern that could take long: the file is refused, with its line.
2. Nothing in it decides: a severity is a fact that policy sees.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from vestibule.boundary.host import rules
from vestibule.boundary.host.events import CALL_NAMES, FLAGS
from vestibule.config.strict_yaml import parse
from vestibule.core.base import Noun
from vestibule.core.control_files import CONTROL_FILES
from vestibule.core.errors import ConfigError
from vestibule.core.text.globs import expressions, literal_text
from vestibule.core.text.patterns import SlowPattern

FILE = Path(__file__).with_name("behaviours.yaml")
MAX_BEHAVIOURS, MAX_STEPS, MAX_PATTERNS = 128, 4, 32

Action = Literal["host.exec", "host.open", "host.connect", "host.match"]
Severity = Literal["notice", "warning", "critical"]
Patterns = tuple[str, ...]


class StepData(Noun):
    """One step. See the file's head for what each condition means."""

    event: Literal["exec", "write", "unlink", "rename", "connect", "unix", "call"]
    program: Patterns = Field(default=(), max_length=MAX_PATTERNS)
    path: Patterns = Field(default=(), max_length=MAX_PATTERNS)
    except_path: Patterns = Field(default=(), max_length=MAX_PATTERNS)
    argument: tuple[Patterns, ...] = Field(default=(), max_length=4)
    except_argument: Patterns = Field(default=(), max_length=MAX_PATTERNS)
    parent: Patterns = Field(default=(), max_length=MAX_PATTERNS)
    flags: tuple[str, ...] = ()
    outside: bool = False
    calls: tuple[str, ...] = ()

    @field_validator("flags")
    @classmethod
    def _known_flags(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - set(FLAGS):
            raise ValueError(f"unknown flags: {', '.join(sorted(unknown))}")
        return value

    @field_validator("calls")
    @classmethod
    def _known_calls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - CALL_NAMES:
            raise ValueError(f"unknown calls: {', '.join(sorted(unknown))}")
        return value

    @model_validator(mode="after")
    def _conditions(self) -> StepData:
        if not self.model_fields_set - {"event"}:
            raise ValueError("a step needs a condition beside its event")
        try:
            rules.compile_step(self.model_dump())
        except SlowPattern as error:
            raise ValueError(str(error)) from None
        return self


class BehaviourData(Noun):
    """One behaviour. `what` is the sentence that people read."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")
    what: str = Field(min_length=10, max_length=200)
    severity: Severity
    action: Action
    steps: tuple[StepData, ...] = Field(min_length=1, max_length=MAX_STEPS)
    seconds: int = Field(default=0, ge=0, le=3600)
    times: int = Field(default=1, ge=1, le=100)
    control_files: bool = False
    """The path is also one of the agent-control files (`core.control_files`)."""

    @model_validator(mode="after")
    def _together(self) -> BehaviourData:
        if (len(self.steps) > 1) != (self.seconds > 0):
            raise ValueError("several steps need `seconds`, and one step has none")
        if self.times > 1 and len(self.steps) > 1:
            raise ValueError("`times` is for one step")
        if self.control_files and any(step.event not in ("write", "unlink", "rename") for step in self.steps):
            raise ValueError("`control_files` is for files")
        return self


class Behaviours(Noun):
    """The whole file."""

    version: Literal[1]
    behaviours: tuple[BehaviourData, ...] = Field(min_length=1, max_length=MAX_BEHAVIOURS)

    @field_validator("behaviours")
    @classmethod
    def _different(cls, value: tuple[BehaviourData, ...]) -> tuple[BehaviourData, ...]:
        names = [item.name for item in value]
        if len(set(names)) != len(names) or {rules.OUTSIDE, rules.UNRESOLVED} & set(names):
            raise ValueError("every behaviour has a name of its own")
        return value

    def as_data(self) -> list[dict[str, Any]]:
        """What the monitor's process is given."""
        found = []
        for item in self.behaviours:
            data = item.model_dump(mode="json", exclude={"what", "control_files"})
            if item.control_files:
                for step in data["steps"]:
                    step["listed"] = _control_files()
            found.append(data)
        return found

    def of(self, name: str) -> BehaviourData | None:
        return next((item for item in self.behaviours if item.name == name), None)


def load(data: bytes, name: str) -> Behaviours:
    """Raises ConfigError, naming the line."""
    document = parse(data, name)
    try:
        return Behaviours.model_validate(document.value)
    except ValidationError as error:
        first = error.errors()[0]
        where = document.where(tuple(first["loc"]))
        raise ConfigError(f"not a known behaviour: {first['msg']}", where=where) from None


@lru_cache(maxsize=1)
def shipped() -> Behaviours:
    """The shipped behaviours. Raises ConfigError."""
    return load(FILE.read_bytes(), FILE.name)


@lru_cache(maxsize=1)
def _control_files() -> dict[str, Any]:
    """The agent-control files of the workspace as expressions; `needles`: each match has one of these texts."""
    needles = set()
    for pattern in CONTROL_FILES:
        text = literal_text(pattern).strip("/")
        hidden = pattern.startswith(text) or f"/{text}" in pattern  # a name that begins so, not one that ends so
        needles.add("/." if text.startswith(".") and hidden else text)
    if "" in needles:
        raise ValueError("a control file's pattern has no literal text")
    return {"folder": "/workspace/", "patterns": expressions(CONTROL_FILES), "needles": sorted(needles)}


WORDS = {
    rules.OUTSIDE: "A file is written where nothing is writable.",
    rules.UNRESOLVED: "A file was opened for writing and exchanged before it could be looked at.",
}
"""The two behaviours that are not in the file."""
