"""What both machines of the Gemini API do with a chunk: look at it, ask, write it anew. Pure.

Rules it keeps: those of `hold.gemini`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vestibule.boundary.models.hold.base import MAX_HELD, Decided, Held, Problem, Scanned, Told
from vestibule.boundary.models.wire.gemini import MAX_CANDIDATES, Counts, with_earlier
from vestibule.boundary.models.wire.sse import Twice, WireError, has_twice, word

_CHUNK = frozenset(
    (
        "candidates",
        "usageMetadata",
        "promptFeedback",
        "modelVersion",
        "responseId",
        "createTime",
        "modelStatus",
    )
)
_CANDIDATE = frozenset(
    (
        "content",
        "finishReason",
        "finishMessage",
        "index",
        "safetyRatings",
        "citationMetadata",
        "tokenCount",
        "avgLogprobs",
        "logprobsResult",
    )
)
_OF_PROVIDER = frozenset(("groundingMetadata", "groundingAttributions", "urlContextMetadata"))
_TOOL_PARTS = frozenset(("executableCode", "codeExecutionResult", "toolCall", "toolResponse"))
"""What a provider's own tools leave behind. Only there when policy names the tool."""
_BESIDE = frozenset(("thought", "thoughtSignature"))
_CALL = frozenset(("id", "name", "args"))


@dataclass(eq=False, slots=True)
class Chunk:
    """A chunk on its way. `edits`: parts by candidate and place that are replaced (None: left out)."""

    raw: bytes
    value: dict[str, Any]
    changed: bool = False
    waiting: int = 0
    has_parts: bool = False
    last: bool = False
    """Every candidate seen so far had given its reason."""
    edits: dict[tuple[int, int], dict[str, Any] | None] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Item:
    """What is judged at once: a call, or the texts of a candidate that follow one another."""

    held: Held | None
    part: dict[str, Any]
    places: list[tuple[Chunk, int, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def asked(self) -> Held:
        return self.held or Held("text", arguments="".join(self.texts).encode("utf-8", "replace"))


@dataclass(slots=True)
class _Candidate:
    reason: str = ""
    ended: bool = False
    kind: tuple[str, bool] = ("", False)
    run: _Item | None = None


class Reader:
    """What both machines do with a chunk: look at it, ask, write it anew where something was judged otherwise."""

    def __init__(self, *, hold_text: bool = False, provider_tools: bool = False) -> None:
        self.told = Told()
        self.scanned = Scanned()
        self.blocked = False
        self._hold_text = hold_text
        self._tool_parts = _TOOL_PARTS if provider_tools else frozenset()
        self._candidate_keys = _CANDIDATE | _OF_PROVIDER if provider_tools else _CANDIDATE
        self._earlier = (0, 0)
        self._reset()

    def _reset(self) -> None:
        self._counts = Counts()
        self._candidates: dict[int, _Candidate] = {}
        self._asks: list[_Item] = []
        self._asked: list[_Item] = []
        self._content: list[dict[str, Any]] = []
        self._content_bytes = 0
        self._denied: list[tuple[dict[str, Any], str]] = []
        self._allowed = 0
        self._whole = False

    def _look(self, raw: bytes, value: dict[str, Any], *, clean: bool = True) -> Chunk:
        """Read a chunk, and put what has to be judged into `_asks`."""
        self.told.events += 1
        self._content_bytes += len(raw)
        chunk = Chunk(raw, _known(value, _CHUNK), changed=not clean)
        candidates = chunk.value.get("candidates")
        if not isinstance(candidates, list | None):
            raise WireError("its answer holds something else than candidates")
        found = [self._one(chunk, place, item) for place, item in enumerate(candidates or ())]
        if any(new is not old for new, old in zip(found, candidates or (), strict=True)):
            chunk.value = {**chunk.value, "candidates": found}
        chunk.changed = chunk.changed or chunk.value is not value
        feedback, usage = chunk.value.get("promptFeedback"), chunk.value.get("usageMetadata")
        if isinstance(feedback, dict) and word(feedback.get("blockReason")) and not self._candidates:
            self._whole, self.told.stop_reason = True, word(feedback["blockReason"])
        elif self._candidates:
            self._whole = all(item.ended for item in self._candidates.values())
            self.told.stop_reason = self._candidates[min(self._candidates)].reason
        chunk.last = self._whole
        self.told.started = True
        if isinstance(usage, dict):
            self._counts.add(usage)
            self.told.tokens = self._counts.tokens()
        # Reports before the end count what was written until then.
        self.told.reported = self._whole and self._counts.told
        return chunk

    def _one(self, chunk: Chunk, place: int, given: Any) -> dict[str, Any]:
        value = _known(given, self._candidate_keys)
        index, content, reason = value.get("index", 0), value.get("content"), value.get("finishReason")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < MAX_CANDIDATES:
            raise WireError("a candidate of its answer has no place")
        candidate = self._candidates.setdefault(index, _Candidate())
        if content is not None:
            content = _known(content, frozenset(("parts", "role")), strict=True)
            parts = content.get("parts")
            if content.get("role") not in (None, "model") or not isinstance(parts, list | None):
                raise WireError("a candidate of its answer is no turn of the model")
            for number, part in enumerate(parts or ()):
                self._part(chunk, (place, number), candidate, part)
                chunk.has_parts = chunk.has_parts or part != {"text": ""}
        if reason is not None:
            candidate.reason, candidate.ended = word(reason), True
            self._close_run(candidate)
        return value

    def _part(self, chunk: Chunk, place: tuple[int, int], candidate: _Candidate, part: Any) -> None:
        if not isinstance(part, dict) or isinstance(part, Twice):
            raise WireError("a part of its answer is none")
        kinds = part.keys() - _BESIDE
        kind = next(iter(kinds), "")
        thought = part.get("thought") or False
        if len(kinds) > 1 or (kind not in ("", "text", "functionCall") and kind not in self._tool_parts):
            raise WireError("its answer holds a part of an unknown kind")
        if not isinstance(thought, bool):
            raise WireError("a part of its answer is none")
        if kind == "functionCall" or (kind, thought) != candidate.kind:
            self._close_run(candidate)
            self.scanned.blocks += 1
        candidate.kind = (kind, thought)
        self._keep(part)
        if kind == "functionCall":
            held = held_call(part["functionCall"])
            self.scanned.call()
            self.scanned.call_bytes += len(held.arguments)
            chunk.waiting += 1
            self._asks.append(_Item(held, part, [(chunk, *place)]))
        elif kind == "text":
            said = part["text"]
            if not isinstance(said, str):
                raise WireError("a text of its answer is none")
            self.scanned.text_bytes += len(said)
            if self._hold_text and not thought:
                chunk.waiting += 1
                candidate.run = candidate.run or _Item(None, part)
                candidate.run.places.append((chunk, *place))
                candidate.run.texts.append(said)

    def _keep(self, part: dict[str, Any]) -> None:
        """For showing the model its own turn; not where it can no longer be blocked."""
        if self._allowed or self._content_bytes > 2 * MAX_HELD:
            self._content = []
        elif part not in ({}, {"text": ""}):
            self._content.append(part)

    def _close_run(self, candidate: _Candidate) -> None:
        if candidate.run is not None:
            self._asks.append(candidate.run)
            candidate.run = None

    def _ask(self) -> tuple[Held, ...]:
        self._asked, self._asks = self._asks, []
        return tuple(item.asked() for item in self._asked)

    def _judged(self, decided: Sequence[Decided]) -> None:
        asked, self._asked = self._asked, []
        if len(asked) != len(decided) or not asked:
            raise ValueError("nothing waits for so many decisions")
        for item, ruling in zip(asked, decided, strict=True):
            for number, (chunk, candidate, place) in enumerate(item.places):
                chunk.waiting -= 1
                if not ruling.allowed:
                    # One text stands for all of them. That of a call is never empty: clients reject such parts.
                    text = ruling.text or ("…" if item.held else "")
                    chunk.edits[candidate, place] = {"text": text} if text and not number else None
            if item.held is not None and ruling.allowed:
                self._allowed += 1
            elif item.held is not None:
                self.scanned.denied += 1
                self._denied.append((item.part, ruling.text))

    def _blockable(self) -> bool:
        """The turn consists of denied calls, and the model waits for their results."""
        return bool(
            self._denied
            and not self._allowed
            and self._content
            and len(self._candidates) == 1
            and self.told.stop_reason == "STOP"
        )

    def _shown(self, chunk: Chunk) -> dict[str, Any]:
        """The chunk with its edits, and with the output of earlier answers in its usage."""
        value = chunk.value
        if chunk.edits:
            value = {**value, "candidates": [_edited(item, n, chunk) for n, item in enumerate(value["candidates"])]}
        usage = value.get("usageMetadata")
        if any(self._earlier) and isinstance(usage, dict):
            value = {**value, "usageMetadata": with_earlier(usage, *self._earlier)}
        return value

    def _untouched(self, chunk: Chunk) -> bool:
        return not (chunk.changed or chunk.edits or (any(self._earlier) and "usageMetadata" in chunk.value))

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        found = continued(body, self._content, self._denied)
        self._earlier = (self._earlier[0] + self._counts.candidates, self._earlier[1] + self._counts.thoughts)
        self.blocked = False
        self.told = Told()
        self._reset()
        return found


def held_call(call: Any) -> Held:
    """A `functionCall` as it is judged."""
    if not isinstance(call, dict):
        return Held("call", problem="shape")
    name, given, key = call.get("name"), call.get("args"), call.get("id", "")
    problem: Problem = ""
    arguments = b"{}"
    if call.keys() - _CALL or not isinstance(given, dict | None) or not isinstance(key, str | None):
        problem = "shape"
    elif has_twice(call):
        problem = "json"
    elif given is not None:
        try:
            arguments = json.dumps(given, ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, RecursionError):
            problem = "json"
    if len(arguments) > MAX_HELD:
        problem, arguments = "oversized", b""
    return Held("call", name if isinstance(name, str) else "", "", arguments, problem=problem, id=str(key or ""))


def continued(
    body: dict[str, Any], content: Sequence[dict[str, Any]], denied: Sequence[tuple[dict[str, Any], str]]
) -> dict[str, Any]:
    """The request that shows the model why its calls were refused."""
    results = []
    for part, text in denied:
        call = _sendable(part)["functionCall"]
        result = {"name": call["name"], "response": {"error": text}}
        results.append({"functionResponse": {"id": call["id"], **result} if call.get("id") else result})
    turns = [
        {"role": "model", "parts": [_sendable(part) for part in content]},
        {"role": "user", "parts": results},
    ]
    # Halves of surrogate pairs cannot be sent on.
    turns = json.loads(json.dumps(turns, ensure_ascii=False).encode("utf-8", "replace"))
    return {**body, "contents": [*body["contents"], *turns]}


def _sendable(part: dict[str, Any]) -> dict[str, Any]:
    """A part as the API takes it back: itself, but for calls that are none."""
    if "functionCall" not in part:
        return part
    call = part["functionCall"]
    found = held_call(call)
    if not found.problem and found.name:
        return part
    name = found.name if found.name.isidentifier() else "unknown"
    return {**part, "functionCall": {"name": name, "args": {}, **({"id": found.id} if found.id else {})}}


def text_of(value: dict[str, Any]) -> str:
    """What an answer's parts say, thoughts included."""
    candidates = value.get("candidates") or ()
    return "".join(
        part["text"]
        for item in candidates
        for part in (item.get("content") or {}).get("parts") or ()
        if isinstance(part.get("text"), str)
    )


def _known(given: Any, keys: frozenset[str], *, strict: bool = False) -> dict[str, Any]:
    """The object without what is not known; the very same object if that is nothing."""
    if not isinstance(given, dict) or isinstance(given, Twice):
        raise WireError("its answer has a form that is not known")
    if given.keys() <= keys:
        return given
    if strict:
        raise WireError("its answer has a form that is not known")
    return {key: item for key, item in given.items() if key in keys}


def _edited(candidate: dict[str, Any], number: int, chunk: Chunk) -> dict[str, Any]:
    content = candidate.get("content")
    if not content or not any(place[0] == number for place in chunk.edits):
        return candidate
    parts = [chunk.edits.get((number, n), part) for n, part in enumerate(content["parts"])]
    return {**candidate, "content": {**content, "parts": [part for part in parts if part is not None]}}


__all__ = ["Chunk", "Reader", "text_of"]
