"""Scripts of the scripted provider: YAML, read strictly.

```yaml
version: 1
tool_prefix: mcp__vestibule__      # put before a tool's name when the request offers none that fits
latency_ms: 200                    # before each answer
token_delay_ms: 5                  # between pieces of a streamed text
turns:                             # the n-th answer of a conversation, counted by its assistant messages
  - text: I read the file first.
    tools: [{name: read_file, input: {path: src/a.py}}]
  - when: {last_result_contains: "refused"}
    text: I may not.
    otherwise: {tools: [{name: write_file, input: {path: src/a.py, content: "…"}}]}
conversations:                     # other turns for conversations whose first message holds a text
  - when: {prompt_contains: "asked for changes"}
    turns: [{text: Done.}]
```
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vestibule.config.strict_yaml import Document, parse
from vestibule.core.errors import ConfigError


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ScriptedTool(_Strict):
    """One tool call; `name` as the context gateway calls it, or as the request offers it."""

    name: Annotated[str, Field(min_length=1)]
    input: Annotated[dict[str, Any], BeforeValidator(_plain)] = {}


Count = Annotated[int, Field(ge=0)]


class ScriptedUsage(_Strict):
    """Numbers to report instead of the estimate."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0


class TurnCondition(_Strict):
    last_result_contains: str


class Turn(_Strict):
    """One answer. With `when`, `otherwise` is the answer if the condition does not hold."""

    text: str = ""
    tools: Annotated[tuple[ScriptedTool, ...], BeforeValidator(_tuple)] = ()
    usage: ScriptedUsage | None = None
    latency_ms: Count | None = None
    when: TurnCondition | None = None
    otherwise: Turn | None = None


Turns = Annotated[tuple[Turn, ...], BeforeValidator(_tuple), Field(min_length=1)]


class ConversationCondition(_Strict):
    prompt_contains: str


class Conversation(_Strict):
    when: ConversationCondition
    turns: Turns


class Script(_Strict):
    """What a scripted provider answers."""

    version: Literal[1]
    turns: Turns
    conversations: Annotated[tuple[Conversation, ...], BeforeValidator(_tuple)] = ()
    tool_prefix: str = "mcp__vestibule__"
    latency_ms: Count = 0
    token_delay_ms: Count = 0
    ended: str = "The script has no further turn."


def load_script(data: bytes, name: str) -> Script:
    """Read a script.

    Raises:
        ConfigError: exit 2, naming file and line.
    """
    document = parse(data, name)
    try:
        return Script.model_validate(document.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        where = _where(document, tuple(first["loc"]))
        message = "unknown key" if first["type"] == "extra_forbidden" else str(first["msg"])
        raise ConfigError(
            f"{place}: {message}" if place else message,
            where=where,
            next_step="The form of a script is in the reference of the scripted provider.",
        ) from None


def _where(document: Document, path: tuple[str | int, ...]) -> str:
    return document.where(path)
