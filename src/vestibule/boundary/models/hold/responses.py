"""Streamed answers of the OpenAI Responses API: text flows, a tool call waits for its decision.

Rules it keeps (with those of `hold.base`):
1. What came keeps its order: behind the beginning of a call that is not decided, everything waits. Items may be
   interleaved; each is judged when it is finished.
2. A denied call becomes a message at the same `output_index`. From then on every event gets its `sequence_number`
   anew, and the last event, which repeats the whole answer, repeats it as it was shown.
3. The last event may hold no call that was not judged, and none that says something else than the judged one.
4. Thoughts are never touched: their encrypted content goes back to the provider as it came.
5. An event in which a key stands twice is no answer: it says two things to two readers.
6. A continued answer keeps its first start and its first id; items of later provider answers get the next indices,
   their counts of output are added up.

Source: Responses API reference, "Streaming events".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Problem, Scanned, Step, Told
from vestibule.boundary.models.hold.responses_items import (
    Earlier,
    Ruling,
    continued,
    known_kind,
    our_item,
    replaced,
    tell,
)
from vestibule.boundary.models.hold.responses_open import OpenItem
from vestibule.boundary.models.wire.responses import AWAITED, BEGINNINGS, CALLS, ENDS, FLOWING, PARTS, said, text_events
from vestibule.boundary.models.wire.sse import Frame, Frames, WireError, loads, loads_once, written

MAX_ITEMS = 2_000
"""Items of one answer. More is no answer."""
MAX_WAITING_BYTES = 4 * MAX_HELD
"""Bytes of events that wait: a call's arguments come up to three times, in pieces, at their end and with the item."""


class _Entry(NamedTuple):
    """A frame on its way: the held item that it belongs to, what it says, its number."""

    frame: Frame
    item: OpenItem | None
    text: str
    number: int


class ResponsesStream:
    """A streamed response."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._hold_text = hold_text
        self._provider_tools = provider_tools
        self._id = ""
        self._named = True
        self._sequence = -1
        self._shift = self._next = 0
        self._changed = self._continued = False
        self._shown: list[dict[str, Any]] = []
        self._earlier = Earlier()
        self._text: list[str] = []
        self._out: list[bytes] = []
        self._begin_again()

    def _begin_again(self) -> None:
        self._frames = Frames()
        self._queue: deque[Frame] = deque()
        self._pending: deque[_Entry] = deque()
        self._pending_bytes = 0
        self._items: dict[int, OpenItem] = {}
        self._asked: list[OpenItem] = []
        self._last: tuple[Frame, dict[str, Any]] | None = None

    def feed(self, data: bytes) -> Step:
        self._queue += self._frames.feed(data)
        return self._go()

    def decide(self, decided: Sequence[Decided]) -> Step:
        if not self._asked or len(decided) != len(self._asked):
            raise ValueError("nothing waits for so many decisions")
        for item, ruling in zip(self._asked, decided, strict=True):
            whole = not item.problem or (item.problem == "cut" and item.kind not in CALLS)
            item.state = "allowed" if ruling.allowed and whole else "denied"
            if item.state == "denied":
                item.instead = our_item(ruling.text, self._id, item.index)
                self._changed = True
                self.scanned.denied += item.kind in CALLS
        self._asked = []
        return self._go()

    def end(self) -> Step:
        self._queue += self._frames.flush()
        step = self._go()
        if not step.held and not self.told.stopped and not self.told.failed:
            raise WireError("its answer ended before its last event")
        return step

    def close(self) -> bytes:
        self.blocked = False
        return self._ending()

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        assert self._last is not None  # noqa: S101 `blocked` says so
        items = self._in_order()
        turn = [
            item.whole for item in items if item.state != "denied" or item.kind in AWAITED or item.kind == "message"
        ]
        found = continued(body, turn, [(item.whole, said(item.instead)[0]) for item in items if item.refused])
        response = self._last[1]["response"]
        self._shown = self._shown_with(response)
        self._earlier = self._earlier.plus(response)
        self._shift, self._continued, self._changed = self._next, True, True
        self.blocked = False
        self.told = Told()
        self._begin_again()
        return found

    def _go(self) -> Step:
        self._flush()
        while self._queue and not self._asked and not self.told.failed:
            self._see(self._queue.popleft())
            if self._pending:
                self._flush()
            if self._pending_bytes > MAX_WAITING_BYTES:
                self._too_much(self._in_order())
            if self._last is not None and not self.told.stopped and not self.told.failed:
                failed = self._last[1]["type"] == "response.failed"
                self.told.failed, self.told.stopped = failed, not failed
                self.blocked = self._all_denied()
                self._out += () if self.blocked else (self._ending(),)
        held = tuple(item.as_held() for item in self._asked)
        text, self._text = "".join(self._text), []
        out, self._out = b"".join(self._out), []
        return Step(out, held, text)

    def _see(self, frame: Frame) -> None:
        if not frame.data or frame.data.strip() == b"[DONE]":
            if not self.blocked:
                self._keep(frame, {})
            return
        if self._last is not None:
            raise WireError("its answer goes on after its last event")
        value = loads_once(frame.data)
        kind = value.get("type")
        if not isinstance(kind, str) or (frame.event and frame.event != kind):
            raise WireError("an event's name and its type differ")
        self.told.events += 1
        if kind == "response.output_item.added":
            self._start(frame, value)
        elif kind == "response.output_item.done":
            self._stop(frame, value)
        elif kind in PARTS:
            self._part(frame, value, kind.removeprefix("response."))
        elif kind in BEGINNINGS:
            self._begin(frame, value)
        elif kind in ENDS:
            self._finish(frame, value)
        elif kind == "error":
            self._drop()
            self._keep(frame, value)
            self.told.failed = True
        elif kind == "keepalive":
            self._keep(frame, value)
        else:
            raise WireError("its answer holds an event of an unknown kind")

    def _begin(self, frame: Frame, value: dict[str, Any]) -> None:
        response, first = value.get("response"), value["type"] == "response.created"
        if not isinstance(response, dict) or response.get("output") or self._items or first == self.told.started:
            raise WireError("its answer begins in no known way")
        self.told.started = True
        if not self._continued:
            self._id, self._named = str(response.get("id") or ""), bool(frame.event)
            self._keep(frame, value)

    def _start(self, frame: Frame, value: dict[str, Any]) -> None:
        item, index = value.get("item"), value.get("output_index")
        kind = item.get("type") if isinstance(item, dict) else None
        if not self.told.started or not isinstance(item, dict) or not _is_index(index) or index in self._items:
            raise WireError("an item of its answer begins out of order")
        if not known_kind(kind, self._provider_tools):
            raise WireError("its answer holds an item of an unknown kind")
        if len(self._items) >= MAX_ITEMS:
            raise WireError("its answer holds too many items")
        held = kind in CALLS or (kind == "message" and self._hold_text)
        found = OpenItem(str(kind), index + self._shift, item, held=held)
        self._items[index] = found
        self._next = max(self._next, found.index + 1)
        self.scanned.blocks += 1
        self._keep(frame, value, found, found.new_texts(item))

    def _part(self, frame: Frame, value: dict[str, Any], event: str) -> None:
        item = self._item(value)
        if item.done or not event.startswith(item.parts):
            raise WireError("a part of its answer is of another kind than its item")
        if item.kind in CALLS:
            item.note(value, event)
            self._keep(frame, value, item)
            if item.size > MAX_HELD:
                self._too_much([item])
        else:
            self._keep(frame, value, item, item.says(event, value))

    def _stop(self, frame: Frame, value: dict[str, Any]) -> None:
        item, whole = self._item(value), value.get("item")
        if item.done or not isinstance(whole, dict) or whole.get("type") != item.kind:
            raise WireError("an item of its answer ends that is not open")
        item.done = True
        item.whole = whole
        self._keep(frame, value, item, "" if item.kind in CALLS else item.new_texts(whole))
        if item.held and item.state == "open":
            self._ask(item)

    def _finish(self, frame: Frame, value: dict[str, Any]) -> None:
        response, failed = value.get("response"), value["type"] == "response.failed"
        if not isinstance(response, dict) or not (self.told.started or failed):
            raise WireError("its answer ends in no known way")
        cut = [item for item in self._in_order() if item.held and item.state == "open"]
        if failed:
            self._drop()
        elif cut:
            for item in cut:
                self._ask(item, "cut")
            self._queue.appendleft(frame)
            self.told.events -= 1
            return
        tell(self.told, response)
        final = response.get("output")
        if isinstance(final, list):
            try:
                replaced(final, self._rulings(), texts=self._hold_text, provider_tools=self._provider_tools)
            except WireError:
                if not failed:
                    raise
                self._changed = True
            known = {text for item in self._items.values() for text in item.known()}
            flowing = (item for item in final if isinstance(item, dict) and item.get("type") in FLOWING)
            self._text += [text for item in flowing if not self._hold_text for text in said(item) if text not in known]
        self._last = (frame, value)

    def _drop(self) -> None:
        """The provider reports an error: what is held is dropped."""
        for item in self._items.values():
            if item.held and item.state == "open":
                item.state, self._changed = "dropped", True

    def _keep(self, frame: Frame, value: dict[str, Any], item: OpenItem | None = None, text: str = "") -> None:
        if item is not None and item.kind in CALLS:
            self.scanned.call_bytes += len(frame.raw)
        self.scanned.text_bytes += len(text)
        if item is not None and item.problem == "oversized":
            return  # of no use, whatever is decided
        number = value.get("sequence_number")
        held = item if item is not None and item.held else None
        entry = _Entry(frame, held, text, number if _is_index(number) else -1)
        if held is None and not self._pending:
            self._text.append(text)
            self._out.append(self._passed(entry))
            return
        self._pending.append(entry)
        self._pending_bytes += len(frame.raw)

    def _ask(self, item: OpenItem, problem: Problem = "") -> None:
        item.problem = item.problem or problem
        item.state = "asked"
        self._asked.append(item)
        if item.kind in CALLS:
            self.scanned.call()

    def _too_much(self, items: Sequence[OpenItem]) -> None:
        """More waits than may be held: what waits is asked about as it is, and will not be allowed."""
        for item in items:
            if item.waits and not item.problem:
                item.problem = "oversized"
                item.forget()
                if item.state == "open":
                    self._ask(item)
        begun: set[int] = set()
        kept: deque[_Entry] = deque()
        for entry in self._pending:
            if entry.item is None or entry.item.problem != "oversized":
                kept.append(entry)
            elif entry.item.index not in begun:
                # Where it begins stays, so that what comes in its place comes there.
                begun.add(entry.item.index)
                kept.append(_Entry(Frame(b"", "", b""), entry.item, "", -1))
        self._pending = kept
        self._pending_bytes = sum(len(entry.frame.raw) for entry in kept)

    def _flush(self) -> None:
        """Send what waits, up to the first item that is not decided."""
        while self._pending and not (self._pending[0].item is not None and self._pending[0].item.waits):
            entry = self._pending.popleft()
            item = entry.item
            self._pending_bytes -= len(entry.frame.raw)
            if item is None or item.state == "allowed":
                self._text.append(entry.text)
                self._out.append(self._passed(entry))
            elif item.state == "denied" and not item.sent:
                item.sent = True
                self._text += said(item.instead)
                self._out += [self._own(event) for event in text_events(item.index, item.instead)]

    def _passed(self, entry: _Entry) -> bytes:
        """The frame as it came, or with the numbers that it has in what was sent."""
        if not self._changed or not entry.frame.data or entry.frame.data.strip() == b"[DONE]":
            self._sequence = max(self._sequence, entry.number)
            return entry.frame.raw
        value = loads(entry.frame.data)
        if _is_index(value.get("output_index")):
            value["output_index"] += self._shift
        return self._numbered(value, entry.frame.event)

    def _own(self, value: dict[str, Any]) -> bytes:
        return self._numbered({**value, "sequence_number": 0}, value["type"] if self._named else "")

    def _numbered(self, value: dict[str, Any], event: str) -> bytes:
        if "sequence_number" in value:
            self._sequence += 1
            value["sequence_number"] = self._sequence
        return written(value, event)

    def _ending(self) -> bytes:
        assert self._last is not None  # noqa: S101 asked for by the callers
        frame, value = self._last
        if not self._changed:
            return frame.raw
        response = {**value["response"], "output": self._shown_with(value["response"])}
        response.update({"id": self._id} if self._id else {})
        response.update(self._earlier.added_to(response))
        return self._numbered({**value, "response": response}, frame.event)

    def _shown_with(self, response: dict[str, Any]) -> list[dict[str, Any]]:
        """What was shown of the whole answer: as its last event repeats it, where that does."""
        final, rulings = response.get("output"), self._rulings()
        if isinstance(final, list) and final and response.get("status") != "failed":
            known = replaced(final, rulings, texts=self._hold_text, provider_tools=self._provider_tools)
            return [*self._shown, *known]
        items = [item for item in self._in_order() if item.done or item.state == "denied"]
        whole = [item.instead if item.state == "denied" else item.whole for item in items if item.state != "dropped"]
        return [*self._shown, *whole]

    def _rulings(self) -> list[Ruling]:
        return [Ruling(item.whole, item.state == "allowed", item.instead) for item in self._in_order() if item.held]

    def _in_order(self) -> list[OpenItem]:
        return [self._items[place] for place in sorted(self._items)]

    def _all_denied(self) -> bool:
        """Whether the turn waits for the results of calls, and every one of them was denied."""
        awaited = [item for item in self._items.values() if item.kind in AWAITED]
        over = self._last is not None and self._last[1]["type"] == "response.completed"
        return over and bool(awaited) and all(item.refused for item in awaited)

    def _item(self, value: dict[str, Any]) -> OpenItem:
        index = value.get("output_index")
        if not _is_index(index) or index not in self._items:
            raise WireError("a part of its answer belongs to no item")
        return self._items[index]


def _is_index(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1_000_000_000
