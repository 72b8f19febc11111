"""The guards of one run's model texts, as the gateway uses them.

Rules it keeps:
1. Every text of a request and every text, thought and call of an answer is looked at for known values.
2. An answer with a known value is stopped at once; nothing more of it is passed on, and it ends with the API's error.
3. What validators read is held until it is judged. One that denies, or breaks, is a denial: a text is replaced by
   words that say why, a call is refused, a turn whose last text does not fit ends with the API's error.
4. What was looked at is counted for the audit event; a verdict that is not there is not claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vestibule.boundary.models.call_rules import replacement
from vestibule.boundary.models.formats.base import Asked
from vestibule.boundary.models.guards.known import Known
from vestibule.boundary.models.guards.requests import Placeholders, Requests, Reviewed, guards_down
from vestibule.boundary.models.guards.stream import Flow
from vestibule.boundary.models.hold.base import Decided, Held
from vestibule.boundary.models.wire.strict_json import BadJson, parse
from vestibule.core.errors import Refused
from vestibule.core.labels import Confidentiality, Label
from vestibule.core.ports import AnswerGuard
from vestibule.core.projection.redact import redact_text
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.sanitize import one_line
from vestibule.core.text.secrets import KnownSecret

_ORDER = list(Confidentiality)
_TELLS = "it holds a value that must not leave, or a part of one"


@dataclass(frozen=True)
class GuardSettings:
    """What the operator configured, for one role. `redact_for` is a provider's clearance at or below which."""

    secrets: tuple[KnownSecret, ...] = ()
    mark_results: bool = True
    redact: tuple[str, ...] = ()
    redact_for: Confidentiality = Confidentiality.PUBLIC
    validators: tuple[AnswerGuard, ...] = ()


class Guards:
    """One run's. `label` gives what the run has read; `clearances` are those of the providers it may be sent to."""

    def __init__(
        self, settings: GuardSettings, label: Callable[[], Label], clearances: Iterable[Confidentiality] = ()
    ) -> None:
        self.known = Known(settings.secrets)
        self.validators = settings.validators
        least = min((_ORDER.index(item) for item in clearances), default=0)
        self.kinds = settings.redact if least <= _ORDER.index(settings.redact_for) else ()
        self.placeholders = Placeholders()
        self._requests = Requests(self.known, label, settings.mark_results, self.kinds, self.placeholders)

    @property
    def holds_text(self) -> bool:
        """Whether texts of answers wait until they are whole: for validators that read them, or to be redacted."""
        return bool(self.kinds) or any(guard.reads & {"text", "final"} for guard in self.validators)

    async def request(self, asked: Asked) -> Reviewed:
        """Raises `DependencyDown`: `guards`."""
        return await self._requests.review(asked)

    def told(self, body: bytes) -> Refusal | None:
        """What a provider's error answer tells: some repeat the key that they were shown."""
        try:
            found = self.known.look(body.decode("utf-8", "replace")).found
        except Exception as error:  # noqa: BLE001 a guard that breaks has not let anything pass
            return guards_down(error).refusal
        return _answer_secret(found) if found else None

    def answer(self) -> AnswerDesk:
        return AnswerDesk(self)


class AnswerDesk:
    """The guards on one answer, over all requests that continue it."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards
        self._flow = Flow(guards.known)
        self._finals = tuple(guard for guard in guards.validators if "final" in guard.reads)
        self._last_texts: list[str] = []
        self._calls = False
        self._waiting = bytearray()
        self._texts = self._replaced = self._redacted = self._refused = 0
        self._found = ""

    def see(self, out: bytes, text: str, *, last: bool = False, failed: bool = False) -> bytes:
        """What of `out` may be sent now; see `Flow.see`.

        Raises:
            Refused: `model.answer.secret`, `model.answer.final`; `dependency.guards`. Nothing more may be sent.
        """
        try:
            ready = self._flow.see(out, text, last=last)
        except Exception as error:  # noqa: BLE001 a guard that breaks has not let anything pass
            raise guards_down(error) from None
        if self._flow.stopped:
            self._found = "model.answer.secret"
            raise Refused(_answer_secret(self._flow.sight.found))
        if failed:
            self._waiting.clear()  # of a turn that never ended nothing was judged
            return ready
        if not self._finals or self._calls:
            return self._released(ready)
        # Whether a text is a turn's last one is known at its end only.
        if not self._last_texts and not last:
            return ready
        self._waiting += ready
        if not last:
            return b""
        self._judge_final()
        return self._released(b"")

    def again(self) -> None:
        """The answer goes on with another request: its next turn is judged by itself."""
        self._last_texts, self._calls = [], False

    def judge_text(self, held: Held) -> Decided:
        """A text that waited: passed, redacted, or replaced by words that say why."""
        self._texts += 1
        text = held.arguments.decode("utf-8", "replace")
        if held.problem:
            return self._replace("it is larger than what can be looked at")
        for guard in self._guards.validators:
            if "text" in guard.reads and (wrong := _checked(guard, text)):
                return self._replace(f"{wrong} ({guard.name})")
        self._last_texts.append(text)
        if self._guards.kinds:
            shown = redact_text(text, self._guards.kinds, self._guards.placeholders.put)
            if shown != text:
                self._redacted += 1
                return Decided(False, shown)
        return Decided(True)

    def judge_call(self, held: Held) -> Refusal | None:
        """What the guards have against a call; None: nothing."""
        self._calls = True
        known = self._guards.known
        try:
            texts = _texts_of(held)
            # As it stands too: a call is kept in the agent's history as it was written.
            raw = held.arguments.decode("utf-8", "replace")
            sight = known.look("\n".join((held.name, *texts, raw))) if known else None
        except Exception as error:  # noqa: BLE001 a guard that breaks has not let anything pass
            return guards_down(error).refusal
        if sight is not None and sight.found:
            self._refused += 1
            return _call_refusal("model.call.secret", _TELLS, sight.found)
        for guard in self._guards.validators:
            if "call" not in guard.reads:
                continue
            for text in texts:
                if wrong := _checked(guard, text):
                    self._refused += 1
                    return _call_refusal("model.call.guard", wrong, guard.name)
        return None

    def notes(self) -> dict[str, Any]:
        """For the audit event: counts, and the rule that stopped it."""
        flow = self._flow
        found: dict[str, Any] = {
            "text": flow.text,
            "looks": flow.looks,
            "kept_back": flow.kept,
            "texts": self._texts,
            "replaced": self._replaced,
            "redacted": self._redacted,
            "calls_refused": self._refused,
            "verdict": self._found or "clear",
        }
        return found

    def _released(self, ready: bytes) -> bytes:
        if not self._waiting:
            return ready
        out = bytes(self._waiting) + ready
        self._waiting.clear()
        return out

    def _judge_final(self) -> None:
        text = self._last_texts[-1] if self._last_texts else ""
        for guard in self._finals:
            if wrong := _checked(guard, text):
                self._found = "model.answer.final"
                self._waiting.clear()
                raise Refused(
                    refusal(
                        "model.answer.final",
                        f"The model's answer was not passed on: {one_line(wrong, 300)}.",
                        fact=guard.name,
                        agent="Ask again, for an answer of the form that the task wants.",
                        person="See guardrails.answers in the operator's configuration.",
                    )
                )

    def _replace(self, wrong: str) -> Decided:
        self._replaced += 1
        found = refusal(
            "model.answer.text",
            f"A text of the model was not passed on: {one_line(wrong, 300)}.",
            agent="Write it again so that it fits.",
            person="See guardrails.answers in the operator's configuration.",
        )
        return Decided(False, replacement(found))


def _checked(guard: AnswerGuard, text: str) -> str:
    """What the guard says; one that breaks denies."""
    try:
        return str(guard.check(text) or "")
    except Exception as error:  # noqa: BLE001 whatever a validator raises, it has not allowed the text
        return f"it could not be checked ({type(error).__name__})"


def _texts_of(held: Held) -> list[str]:
    """What a call's arguments say, as its program will read them; as they stand, if they cannot be read."""
    raw = held.arguments.decode("utf-8", "replace")
    if held.form == "text":
        return [raw]
    try:
        value = parse(held.arguments or b"{}")
    except BadJson:
        return [raw]
    out: list[str] = []
    _each_text(value, out)
    return out


def _each_text(value: Any, out: list[str]) -> None:
    if isinstance(value, str):
        out.append(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            out.append(key)
            _each_text(item, out)
    elif isinstance(value, list):
        if value and all(type(item) is int for item in value):
            out.append(", ".join(map(str, value)))
        for item in value:
            _each_text(item, out)


def _call_refusal(rule: str, why: str, fact: str) -> Refusal:
    return refusal(
        rule,
        f"The call was not carried out: {one_line(why, 300)}.",
        fact=fact,
        agent="Leave it out and send the call again."
        if rule.endswith("secret")
        else "Send the call again so that it fits.",
        person="See guardrails in the operator's configuration.",
    )


def _answer_secret(name: str) -> Refusal:
    return refusal(
        "model.answer.secret",
        "The model's answer was stopped: it held a value that must not leave, or a part of one.",
        fact=name,
        agent="Do not ask for that value again; stop here if the task needs it.",
        person="Find out how the model came to know the value, and change it if it was real.",
    )
