"""Answers of the Gemini API: text flows, a function call waits for its decision.

Rules it keeps (with those of `hold.base`):
1. A call comes whole, as a part of a chunk; several may, between texts. A chunk leaves when each of its calls is
   decided: as it came if all are allowed, else with a text part where a denied call stood. Signatures of thoughts
   are never touched.
2. There is no last event: an answer is whole when each of its candidates gave a reason and the bytes ended in order.
   The chunks with the reason wait for that, so that the books are settled before the agent sees the end.
3. Parts of a kind that is not known are no answer; fields around them that are not known are left out: a client that
   knows more than this machine must not find a call there. Calls in pieces (`partialArgs`) are never asked for: denied.
4. A continued answer adds up its output; what was sent of it gave no reason, so that clients go on reading.

Source: Gemini API reference ("GenerateContentResponse", "Part", "FinishReason"), "Thought signatures".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Step
from vestibule.boundary.models.hold.gemini_reader import Chunk, Reader, text_of
from vestibule.boundary.models.wire.gemini import bare, error_of, event, event_of
from vestibule.boundary.models.wire.sse import Frame, Frames, WireError, dumped, loads_marked


class GeminiStream(Reader):
    """A streamed answer, as server-sent events."""

    def _reset(self) -> None:
        super()._reset()
        self._frames = Frames()
        self._queue: deque[Frame] = deque()
        self._line: deque[Chunk] = deque()
        self._line_bytes = 0
        self._ending = False
        self._early = False
        self._broken: WireError | None = None
        self._tail: dict[str, Any] = {}

    def feed(self, data: bytes) -> Step:
        self._queue += self._frames.feed(data)
        return self._go()

    def decide(self, decided: Sequence[Decided]) -> Step:
        self._judged(decided)
        return self._go()

    def end(self) -> Step:
        self._queue += self._frames.flush()
        self._ending = True
        return self._go()

    def close(self) -> bytes:
        self.blocked = False
        candidate = {"content": {"parts": [], "role": "model"}, "finishReason": "STOP", "index": 0}
        return event({**self._tail, "candidates": [candidate]})

    def _go(self) -> Step:
        step, out, said = Step(), bytearray(), list[str]()
        try:
            if self._broken is not None:
                raise self._broken
            self._send(out, said)
            while self._queue and not self._asks and not self.told.failed:
                self._take(self._queue.popleft(), out)
                self._send(out, said)
            if self._asks:
                step.held = self._ask()
            elif self._ending and not self.told.failed:
                self._end(out, said)
        except WireError as error:
            if not out or self._ending:
                raise
            # What was good before it goes first, however the bytes were split; after the end there is no later call.
            self._broken = error
        step.out, step.text = bytes(out), "".join(said)
        return step

    def _take(self, frame: Frame, out: bytearray) -> None:
        value, clean = event_of(frame)
        if value is None:
            # Blank lines mean nothing to anyone; comments mean something else to some.
            return
        if "error" in value:
            self._fail(value, out)
            return
        chunk = self._look(frame.raw, value, clean=clean)
        if chunk.has_parts and self._line and self._line[-1].last:
            # It goes on: this provider gives its reason in each chunk, and none of them is known to be the last.
            self._early = True
            for item in reversed(self._line):
                if not item.last:
                    break
                item.last = False
        self._line.append(chunk)
        self._line_bytes += len(chunk.raw)
        if self._line_bytes - len(chunk.raw) > MAX_HELD:
            raise WireError("more of its answer would have to be held than may be")

    def _fail(self, value: dict[str, Any], out: bytearray) -> None:
        """The provider's error, in the form that clients do not take for an answer; what was held is dropped."""
        self.told.events += 1
        self.told.failed = True
        self._line.clear()
        out += bare(value)

    def _send(self, out: bytearray, said: list[str]) -> None:
        """What waits for nothing."""
        while self._line and not self._line[0].waiting and not self._line[0].last:
            self._pass(self._line.popleft(), out, said)

    def _pass(self, chunk: Chunk, out: bytearray, said: list[str]) -> None:
        self._line_bytes -= len(chunk.raw)
        value = self._shown(chunk)
        said.append(text_of(value))
        out += chunk.raw if self._untouched(chunk) else event(value)

    def _end(self, out: bytearray, said: list[str]) -> None:
        rest = self._frames.rest.strip()
        if rest.startswith(b"{"):
            self._fail(error_of(rest), out)
            return
        if rest or not self._whole:
            raise WireError("its answer ended before its last event")
        self.told.stopped = True
        self.blocked = not self._early and self._blockable()
        while self._line:
            chunk = self._line.popleft()
            if not self.blocked:
                self._pass(chunk, out, said)
                continue
            value = self._shown(chunk)
            self._tail = {**self._tail, **value}
            if text := text_of(value):
                said.append(text)
                out += event(_open(value))


class GeminiWhole(Reader):
    """An answer that came in one piece."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        super().__init__(hold_text=hold_text, provider_tools=provider_tools)
        self._chunk = Chunk(b"", {})
        self._parts: list[dict[str, Any]] = []

    def feed(self, data: bytes) -> Step:
        self._chunk = self._look(data, loads_marked(data))
        if not self._whole:
            raise WireError("its answer is no whole one")
        self.told.stopped = True
        return Step(held=self._ask()) if self._asks else self._out()

    def decide(self, decided: Sequence[Decided]) -> Step:
        self._judged(decided)
        return self._out()

    def end(self) -> Step:
        return Step()

    def close(self) -> bytes:
        self.blocked = False
        return dumped(self._joined())

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        self._parts = _parts(self._joined())
        return super().again(body)

    def _out(self) -> Step:
        self.blocked = self._blockable()
        said = text_of(self._shown(self._chunk))
        if self.blocked:
            return Step(text=said)
        untouched = self._untouched(self._chunk) and not self._parts
        return Step(self._chunk.raw if untouched else dumped(self._joined()), (), said)

    def _joined(self) -> dict[str, Any]:
        """The answer, after the parts of those before it."""
        value = self._shown(self._chunk)
        if not self._parts or not value.get("candidates"):
            return value
        first, *others = value["candidates"]
        content = {"role": "model", **(first.get("content") or {}), "parts": [*self._parts, *_parts(value)]}
        return {**value, "candidates": [{**first, "content": content}, *others]}


def _open(value: dict[str, Any]) -> dict[str, Any]:
    """A chunk without what says that it is the last one."""
    found = {key: item for key, item in value.items() if key != "usageMetadata"}
    found["candidates"] = [
        {key: item for key, item in candidate.items() if key not in ("finishReason", "finishMessage")}
        for candidate in value["candidates"]
    ]
    return found


def _parts(value: dict[str, Any]) -> list[dict[str, Any]]:
    return list((value["candidates"][0].get("content") or {}).get("parts") or ())


__all__ = ["GeminiStream", "GeminiWhole"]
