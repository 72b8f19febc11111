"""What the gateway asks of a wire format. One object a format, without state; everything of one request is in `Asked`.

Formats: `anthropic` (Messages), `responses` and `chat` (OpenAI), `gemini` (generateContent).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from vestibule.core.refusal import Refusal

if TYPE_CHECKING:
    from vestibule.boundary.models.asgi import Scope
    from vestibule.boundary.models.hold.base import Answer

FormatName = Literal["anthropic", "responses", "chat", "gemini"]
Operation = Literal["generate", "count", "models"]


class Route(NamedTuple):
    """What a path asks for. `model` and `stream` only where the path says them (Gemini); `query` goes on upstream."""

    operation: Operation
    model: str = ""
    stream: bool | None = None
    query: str = ""


class Offered(NamedTuple):
    """A tool that the request offers to the model. `schema` is its arguments' JSON Schema, if it has one.

    `form` is `text` for custom tools, whose argument is free text. `provider`: carried out by the provider itself,
    which is only there when policy names it.
    """

    name: str
    namespace: str = ""
    schema: dict[str, Any] | None = None
    form: Literal["json", "text"] = "json"
    provider: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that passed its format's field rules, in terms that all formats share.

    `body` is the parsed request as it may be sent, `changed` whether it differs from what came (then it is written
    anew, else the bytes that came are sent). `most_output` is the most output that can be billed. `fixed_tokens` are
    tokens of input that its bytes do not tell (images, documents, overhead).
    """

    format: FormatName
    operation: Operation
    model: str
    body: dict[str, Any]
    stream: bool
    most_output: int
    messages: int
    tools: tuple[Offered, ...] = ()
    changed: bool = False
    fixed_tokens: int = 0
    hour_cache: bool = False
    query: str = ""
    shows_usage: bool = True
    """Whether the program asked for the usage of a stream (`chat`; elsewhere it is part of the answer)."""


class Format(Protocol):
    """One wire format."""

    name: FormatName
    prefix: str
    """The path under which agent programs reach it, as in the contract."""
    heartbeat: bytes
    """A frame that means nothing to clients: sent when a stream is silent for long. Only between frames."""

    def route(self, method: str, path: str, query: bytes) -> Route | None:
        """`path` without `prefix`. None: not served, which refuses."""
        ...

    def key(self, scope: Scope) -> tuple[bytes, ...]:
        """Every credential that the request shows, in the headers (or query) where this format's clients put it."""
        ...

    def headers(self, scope: Scope, *, stream: bool) -> dict[str, str]:
        """The agent's headers that go on, checked. Raises `FieldRefused`."""
        ...

    def read(
        self, body: dict[str, Any], route: Route, *, run: str, provider_tools: frozenset[str] = frozenset()
    ) -> Asked:
        """The field rules. `provider_tools` are tool types that policy names for this role.

        Raises:
            FieldRefused: `model.field.*`: the first thing that may not pass.
        """
        ...

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        """The body that asks the provider for `model`; the same object when nothing changes."""
        ...

    def path(self, asked: Asked, model: str) -> str:
        """Path and query on a provider that speaks this format natively, after its `base_url`."""
        ...

    def stream(self, asked: Asked, *, hold_text: bool = False) -> Answer: ...

    def whole(self, asked: Asked, *, hold_text: bool = False) -> Answer: ...

    def models(self, names: tuple[str, ...], one: str = "") -> bytes:
        """The list of models, as this API gives it; or what it says of `one`, where `Route.model` can name one."""
        ...

    def error(self, status: int, found: Refusal) -> bytes:
        """An error in the API's shape: `found.sentence()`, and the typed refusal under `vestibule`."""
        ...

    def error_event(self, found: Refusal) -> bytes:
        """The same as the last event of a stream."""
        ...

    def is_error(self, body: bytes) -> bool:
        """Whether it is the API's own error object: then the provider says that it did not answer, or bill."""
        ...
