"""The hold matrix through a translation: a provider that speaks one format, the other one's official SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anthropic_wire import AnthropicWire
from chat_wire import ChatWire
from hold_matrix import SCENARIOS as SHARED
from hold_matrix import Played, Reading, Rule, Scenario, Wire, by_rule, call, machine, play, said
from models_house import House

from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.hold.base import Answer, Decided, Step
from vestibule.boundary.models.translate import Stream, translate

SCENARIOS = {**SHARED, "dies": Scenario("dies", (said("I look. "), call("look", 0)), ending="dies")}
"""Of a stream that breaks no call is released: in Chat Completions they end with the choice."""


class Across:
    """`client` reads what `upstream` says. For the kit it is the upstream's wire with the client's SDK."""

    def __init__(self, client: Wire, upstream: Wire) -> None:
        self.client = client
        self.upstream = upstream
        self.format: FormatName = upstream.format
        self.prefix = upstream.prefix

    def stream(self, scenario: Scenario) -> bytes | None:
        return self.upstream.stream(scenario)

    def whole(self, scenario: Scenario) -> bytes | None:
        return self.upstream.whole(scenario)

    def read(self, house: House, url: str, *, stream: bool) -> Reading:
        return self.client.read(house, url.removesuffix(self.upstream.prefix) + self.client.prefix, stream=stream)

    def stops(self, reading: Reading, scenario: Scenario) -> bool:
        return self.client.stops(reading, scenario)

    def translated(self, data: bytes) -> bytes:
        stream = self._way().stream()
        return stream.feed(data) + stream.end()

    def play(self, chunks: Sequence[bytes], rule: Rule = by_rule, **more: Any) -> Played:
        answer = machine(self.client, stream=True, **more)
        through: Any = Through(answer, self._way().stream())
        found = play(through, chunks, rule, close=False)
        if answer.blocked:
            found.out += answer.close()
        return found

    def _way(self) -> Any:
        found = translate(self.client.format, self.upstream.format)
        assert found is not None
        return found


class Through:
    """An answer machine behind a translation, as the gateway drives the two."""

    def __init__(self, answer: Answer, stream: Stream) -> None:
        self._answer = answer
        self._stream = stream

    def feed(self, data: bytes) -> Step:
        return self._answer.feed(self._stream.feed(data))

    def decide(self, decided: Sequence[Decided]) -> Step:
        return self._answer.decide(decided)

    def end(self) -> Step:
        rest = self._stream.end()
        if rest:
            step = self._answer.feed(rest)
            if step.out or step.held:
                return step
        return self._answer.end()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)


WAYS = {
    "anthropic-at-chat": Across(AnthropicWire(), ChatWire()),
    "chat-at-anthropic": Across(ChatWire(), AnthropicWire()),
}
