"""Translation between wire formats: an agent program that speaks one, a provider that speaks another. Pure.

`translate(client, upstream)` gives a new `Translation` for each dispatch, or None. What it makes of a provider's answer
goes into the answer machine of the *client's* format, like a provider's bytes: calls are held, usage is read and the
answer is judged there and nowhere else.

Rules it keeps:
1. A request is translated after it passed the field rules of the format it came in. What cannot be said in the other
   format and would change what the agent gets is refused (`FieldRefused`); what only tunes the answer is left out.
2. Arguments of a call keep their text: a key that stands twice, a cut object or nonsense reaches the judge as it is.
3. Of an answer only known kinds are translated; anything else is no answer (`WireError`).
4. An answer that did not end in its own format does not end in the other either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from vestibule.boundary.models.formats.base import FormatName


class Stream(Protocol):
    """A provider's stream on its way into the client's format."""

    def feed(self, data: bytes) -> bytes:
        """Raises `WireError`: this is no answer in the provider's format."""
        ...

    def end(self) -> bytes:
        """The provider's bytes are over."""
        ...


class Translation(Protocol):
    """One request's. It may remember what it did to the request, for the answer."""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body in the upstream's format. Raises `FieldRefused`: it cannot be said there."""
        ...

    def headers(self, *, stream: bool) -> dict[str, str]:
        """What the upstream's API wants besides the credentials; nothing of the client's headers goes on."""
        ...

    def stream(self) -> Stream: ...

    def whole(self, data: bytes) -> bytes:
        """A whole answer. Raises `WireError`."""
        ...

    def error(self, status: int, data: bytes) -> bytes:
        """An error answer; `data` itself when it is no error of the upstream's API."""
        ...


def translate(client: FormatName, upstream: FormatName) -> Translation | None:
    """The translation for a client that speaks `client` to a provider that speaks `upstream`; None: there is none."""
    from vestibule.boundary.models.translate.anthropic_client import AnthropicToChat
    from vestibule.boundary.models.translate.chat_client import ChatToAnthropic

    made: dict[tuple[str, str], Callable[[], Translation]] = {
        ("anthropic", "chat"): AnthropicToChat,
        ("chat", "anthropic"): ChatToAnthropic,
    }
    found = made.get((client, upstream))
    return found() if found is not None else None


__all__ = ["Stream", "Translation", "translate"]
