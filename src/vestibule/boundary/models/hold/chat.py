"""Streamed answers of OpenAI Chat Completions: text flows, calls wait until their choice is over.

Rules it keeps (with those of `hold.base`):
1. Calls have no end marks of their own, and their pieces may interleave: from the first piece on everything waits, in
   its order, until each choice that has calls is over; then all are decided. So what is allowed is the provider's
   bytes in the provider's order, and a call cannot go on after it was judged.
2. A denied call's text stands in `content` where the call began; remaining calls are numbered from 0; a choice without
   calls left ends with `stop`.
3. A piece of a call behind its choice's end is no answer. `[DONE]` is the last event, and without it none is whole.
4. The usage event is always asked for; a program that did not ask does not see it.
5. Of a continued answer all events bear the first one's id, model and time; the counts of output are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Held, Scanned, Step, Told
from vestibule.boundary.models.hold.chat_parts import (
    LEGACY,
    CallParts,
    Choice,
    DeniedTexts,
    continued,
    end_reason,
    joined,
    placed,
    spoil_by_end,
)
from vestibule.boundary.models.wire.chat import (
    CALL_ENDS,
    DONE,
    TEXTS,
    THOUGHTS,
    choices_of,
    more_words,
    parts_of,
    read_chunk,
    read_usage,
    reported,
    usage_of,
    words_of,
)
from vestibule.boundary.models.wire.sse import Frame, Frames, WireError, loads, word, written

_WORDS = frozenset((*TEXTS, *THOUGHTS))
_HEAD = ("id", "created", "model", "system_fingerprint")


class ChatStream:
    """A streamed answer. `usage`: the program asked for it. `single`: one answer was asked for."""

    def __init__(self, *, hold_text: bool = False, usage: bool = True, single: bool = True) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._hold_text = hold_text
        self._usage = usage
        self._single = single
        self._continued = False
        self._first: dict[str, Any] = {}
        self._earlier_output = 0
        self._shown: set[int] = set()
        """Choices of which the program was told some content."""
        self._text: list[str] = []
        self._fresh()

    def _fresh(self) -> None:
        self._frames = Frames()
        self._queue: list[Frame] = []
        self._choices: dict[int, Choice] = {}
        self._kept: list[tuple[Frame, str]] = []
        self._kept_bytes = 0
        self._spoilt = False
        self._seen_texts: set[tuple[int, str]] = set()
        self._order: list[tuple[int, str | CallParts]] = []
        self._asked = False
        self._said: list[str] = []
        self._thoughts: list[str] = []
        self._denied: list[tuple[CallParts, str]] = []
        self._gap = self._continued
        self._simple = False

    # --- in ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> Step:
        self._queue += self._frames.feed(data)
        return self._go()

    def end(self) -> Step:
        self._queue += self._frames.flush()
        step = self._go()
        if not self.told.stopped and not self.told.failed:
            raise WireError("its answer ended before its last event")
        return step

    def _go(self) -> Step:
        out: list[bytes] = []
        held: tuple[Held, ...] = ()
        while self._queue and not held and not self.told.stopped and not self.told.failed:
            out.append(self._see(self._queue.pop(0)))
            if self._order and not self._asked and not self._unfinished():
                self._asked = True
                held = tuple(self._ask())
        text, self._text = "".join(self._text), []
        return Step(b"".join(out), held, text)

    def _unfinished(self) -> bool:
        return any(choice.waiting and not choice.ended for choice in self._choices.values())

    def _ask(self) -> list[Held]:
        for choice in self._choices.values():
            spoil_by_end(list(choice.calls.values()), choice.reason)
        found = []
        for number, item in self._order:
            if isinstance(item, CallParts):
                found.append(item.as_held())
            else:
                text = "".join(self._choices[number].held[item]).encode("utf-8", "replace")
                found.append(Held("text", arguments=text, problem="oversized" if self._spoilt else ""))
        return found

    def _see(self, frame: Frame) -> bytes:
        if not frame.data:
            return self._keep(frame, "", ended=False) if self._order else frame.raw
        if frame.data.strip() == b"[DONE]":
            if self._order:
                raise WireError("its answer ended before a choice of it was over")
            self.told.stopped = True
            return b"" if self.blocked else frame.raw
        if frame.event.startswith("thread."):
            raise WireError("an event of its answer belongs to another API")  # the official SDKs read it otherwise
        value, twice = read_chunk(frame.data)
        self.told.events += 1
        if self._simple and not twice and (said := more_words(value)) is not None:
            self._said.append(said)
            self._text.append(said)
            self.scanned.text_bytes += len(said)
            return frame.raw
        if value.get("error") is not None and not value.get("choices"):
            self.told.failed = True
            # What waited is dropped, and nothing behind it is looked at any more.
            self._order, self._kept = [], []
            return frame.raw
        choices = choices_of(value)
        self._count(value.get("usage"))
        if not choices:
            return self._usage_event(frame, value)
        self.told.started = True
        if not self._first:
            self._first = {key: value[key] for key in _HEAD if key in value}
        held = False
        for choice in choices:
            held |= self._take(choice, twice=twice)
        if twice and not held:
            raise WireError("a key stands twice in an event of its answer")
        # From here on events of more words need no second look, for as long as nothing waits.
        self._simple = (
            not (held or self._order or self._hold_text or self._continued) and (0, "content") in self._seen_texts
        )
        if held or self._order:
            words = "".join(words_of(parts_of(choice, "delta")) for choice in choices)
            return self._keep(frame, words, ended=any(item.get("finish_reason") is not None for item in choices))
        return self._flow(frame, value, choices)

    def _count(self, usage: Any) -> None:
        if reported(usage):
            self.told.tokens, self.told.reported = read_usage(usage), True

    def _take(self, choice: dict[str, Any], *, twice: bool) -> bool:
        """Note what a choice says; whether it has to wait."""
        number = choice.get("index", 0)
        if number and self._single:
            raise WireError("it gave more answers than were asked for")
        parts = parts_of(choice, "delta")
        known = self._choices.setdefault(number, Choice())
        held = False
        for key, said in parts.items():
            if said and key in _WORDS:
                held |= self._words(number, known, key, said)
        for piece in parts.get("tool_calls") or ():
            place = piece.get("index", 0)
            if isinstance(place, bool) or not isinstance(place, int) or place < 0:
                raise WireError("a call of its answer has no number")
            self._call(number, known, place, twice=twice).add(piece, self.scanned)
            held = True
        if parts.get("function_call"):
            self._call(number, known, LEGACY, twice=twice).add(parts["function_call"], self.scanned)
            held = True
        known.waiting |= held
        if choice.get("finish_reason") is not None:
            known.ended, known.reason = True, choice["finish_reason"]
            self.told.stop_reason = word(known.reason)
        return held

    def _words(self, number: int, known: Choice, key: str, said: str) -> bool:
        if key in THOUGHTS:
            if key == "reasoning_content":
                self._thoughts.append(said)
        elif key == "content":
            self._said.append(said)
        if (number, key) not in self._seen_texts:
            self._seen_texts.add((number, key))
            self.scanned.blocks += 1
        self.scanned.text_bytes += len(said)
        if key in THOUGHTS or not self._hold_text:
            return False
        if known.ended:
            raise WireError("a text of its answer comes behind its end")
        if key not in known.held:
            known.held[key] = []
            self._order.append((number, key))
        known.held[key].append(said)
        return True

    def _call(self, number: int, known: Choice, place: int, *, twice: bool) -> CallParts:
        if known.ended:
            raise WireError("a call of its answer comes behind its end")
        call = known.calls.get(place)
        if call is None:
            self.scanned.call()
            call = known.calls[place] = CallParts(legacy=place == LEGACY)
            if self._spoilt:
                call.spoil("oversized")
            if place != LEGACY and place != sum(key != LEGACY for key in known.calls) - 1:
                # Programs that put calls together by number, and by order, would see different ones.
                call.spoil("shape")
            self._order.append((number, call))
            self.scanned.blocks += 1
        if twice:
            call.spoil("json")
        return call

    # --- out -----------------------------------------------------------------------------------------------

    def _flow(self, frame: Frame, value: dict[str, Any], choices: list[dict[str, Any]]) -> bytes:
        if self._continued:
            return self._write(value, {})
        for choice in choices:
            parts = choice.get("delta") or {}
            self._text.append(words_of(parts))
            if parts.get("content"):
                self._shown.add(choice.get("index", 0))
        return frame.raw

    def _usage_event(self, frame: Frame, value: dict[str, Any]) -> bytes:
        if (value.get("usage") is not None and not self._usage) or self.blocked:
            return b""
        if self._order:
            return self._keep(frame, "", ended=False)
        return written(self._headed(value)) if self._continued else frame.raw

    def _keep(self, frame: Frame, words: str, *, ended: bool) -> bytes:
        """Let an event wait. When too much waits, what waits is denied, and the rest need not wait for it."""
        if not self._spoilt:
            self._kept.append((frame, words))
            self._kept_bytes += len(frame.raw)
            if self._kept_bytes <= MAX_HELD:
                return b""
            self._spoilt = True
            kept, self._kept = self._kept, []
            for _, item in self._order:
                if isinstance(item, CallParts):
                    item.spoil("oversized")
        else:
            kept = [(frame, words)]
        out = []
        for waiting, said in kept:
            if waiting is frame and ended:
                self._kept.append((waiting, said))
            else:
                out.append(self._write(loads(waiting.data), {}, strip=True) if waiting.data else waiting.raw)
        return b"".join(out)

    def decide(self, decided: Sequence[Decided]) -> Step:
        if not self._asked or len(decided) != len(self._order):
            raise ValueError("nothing waits for so many decisions")
        denied: DeniedTexts = {}
        allowed = 0
        for (number, item), ruling in zip(self._order, decided, strict=True):
            if isinstance(item, str):
                if not ruling.allowed or self._spoilt:
                    denied[number, item] = ruling.text
            elif ruling.allowed and not item.problem:
                allowed += 1
            else:
                self.scanned.denied += 1
                self._denied.append((item, ruling.text))
                denied[id(item)] = ruling.text
        if self._single and self._denied and not allowed:
            self.blocked = self._choices[0].reason in CALL_ENDS
        kept, self._kept = self._kept, []
        if denied or self._continued:
            out = b"".join(self._write(loads(frame.data), denied) if frame.data else frame.raw for frame, _ in kept)
        else:
            out = b"".join(frame.raw for frame, _ in kept)
            self._text += [words for _, words in kept]
        self._shown |= {number for number, item in self._order if item == "content"}
        self._order, self._asked, self._kept_bytes, self._spoilt = [], False, 0, False
        step = self._go()
        step.out = out + step.out
        return step

    def _write(self, value: dict[str, Any], denied: DeniedTexts, *, strip: bool = False) -> bytes:
        """An event without what was denied, with the texts in its place; nothing when nothing is left of it.

        `strip`: without everything that is held, and with nothing in its place yet.
        """
        found = (self._judged(choice, denied, strip=strip) for choice in value["choices"])
        choices = [item for item in found if item is not None]
        if not choices and (value.get("usage") is None or not self._usage):
            return b""
        self._text += [words_of(choice["delta"]) for choice in choices]
        return written(self._headed({**value, "choices": choices}))

    def _judged(self, choice: dict[str, Any], denied: DeniedTexts, *, strip: bool) -> dict[str, Any] | None:
        number = choice.get("index", 0)
        known = self._choices[number]
        delta = dict(choice.get("delta") or {})
        instead: list[str] = []
        for key in TEXTS:
            if delta.get(key) and key in known.held and (strip or (number, key) in denied):
                del delta[key]
                instead += placed(denied, (number, key))
        remain = [place for place, call in known.calls.items() if place != LEGACY and id(call) not in denied]
        left = {place: number for number, place in enumerate(remain)}
        pieces = []
        for piece in delta.pop("tool_calls", None) or ():
            place = piece.get("index", 0)
            if not strip and place in left:
                pieces.append({**piece, "index": left[place]})
            elif not strip:
                instead += placed(denied, id(known.calls[place]))
        if pieces:
            delta["tool_calls"] = pieces
        if LEGACY in known.calls and (strip or id(known.calls[LEGACY]) in denied):
            delta.pop("function_call", None)
            instead += placed(denied, id(known.calls[LEGACY]))
        reason = choice.get("finish_reason")
        if reason is not None and not strip:
            for place, item in self._order:
                if place == number:
                    instead += placed(denied, id(item) if isinstance(item, CallParts) else (number, item))
            refused = any(id(call) in denied for call in known.calls.values())
            remaining = sum(id(call) not in denied for call in known.calls.values())
            reason = None if self.blocked else end_reason(reason, denied=refused, left=remaining)
        self._say(number, delta, instead)
        if self._continued:
            delta.pop("role", None)
        if reason is None and not any(item not in (None, "", [], {}) for item in delta.values()):
            return None
        return {**choice, "delta": delta, "finish_reason": reason}

    def _say(self, number: int, delta: dict[str, Any], instead: list[str]) -> None:
        """Put texts of our own into a piece's content; paragraphs apart from what was said before."""
        content = delta.get("content") or ""
        if content and self._gap:
            content, self._gap = joined("before", content), False
        for text in instead:
            content += joined(content or ("before" if number in self._shown else ""), text)
            self._gap = False
        if content:
            delta["content"] = content
            self._shown.add(number)

    def _headed(self, value: dict[str, Any]) -> dict[str, Any]:
        """With the first answer's head, and the output of all answers."""
        if not self._continued:
            return value
        found = {**value, **self._first}
        if isinstance(found.get("usage"), dict):
            found["usage"] = self._all_usage(found["usage"])
        return found

    def _all_usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        output = self.told.tokens.output + self._earlier_output
        return {**usage, "completion_tokens": output, "total_tokens": self.told.tokens.all_input + output}

    # --- the end of a turn whose calls were all denied -------------------------------------------------------

    def close(self) -> bytes:
        self.blocked = False
        head = {"object": "chat.completion.chunk", **self._first}
        out = written({**head, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]})
        if self._usage and self.told.reported:
            out += written({**head, "choices": [], "usage": self._all_usage(usage_of(self.told.tokens))})
        return out + DONE

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        found = continued(body, "".join(self._said), "".join(self._thoughts), self._denied)
        self._earlier_output += self.told.tokens.output
        self._continued = True
        self.blocked = False
        self.told = Told()
        self._fresh()
        return found
