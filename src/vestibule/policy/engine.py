"""The Rego engine (regopy, a binding of rego-cpp), wrapped so that it can only answer or fail.

Rules it keeps:
1. Strict built-in errors: an error inside a policy is an error of the decision, never "undefined".
2. What comes back is checked for its shape; anything else raises `EngineError`, and callers deny.
3. Strings reach the engine whole (see `native`), and literals with an escape in the one form that strings come in.
4. One interpreter is used by one thread only.
5. Text that tries expressions is asked nothing with more than `MATCHED_BYTES`, which it could join to one string: the
   question is refused (see `worker`, CWE-674).
6. A question is asked of the rules that can fire for it (see `index`); text that does not compile without the others
   is asked whole.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regopy
from regopy import Bundle, Interpreter, LogLevel

from vestibule.core.verdict import Ruling, strictest_ruling
from vestibule.policy.index import LayerIndex, Signature, narrow, parts_named
from vestibule.policy.native import (
    MAX_DEPTH,
    UNDEFINED,
    VERSION,
    BadInput,
    EngineDown,
    EngineError,
    as_they_are,
    ask,
    text_bytes,
)
from vestibule.policy.tokens import tokens

__all__ = [
    "DECISION",
    "MAX_DEPTH",
    "VERSION",
    "Answer",
    "EngineDown",
    "EngineError",
    "Program",
    "UndefinedDecision",
    "parse_answer",
]

DECISION = "decision"
MAX_REASONS = 64
MAX_VARIANTS = 64
"""How many compiled forms of one layer are kept, one for each set of rules that can fire."""
MATCHED_BYTES = 64 * 1024
"""Of all strings that a text which tries expressions names in a question."""
_MATCHES = re.compile(r"\b(?:regex|glob)\s*\.\s*match\b")
REASON = re.compile(r"[a-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*\Z")


class UndefinedDecision(EngineError):
    """The layer has no `decision` for this request."""

    reason = "policy.undefined"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one layer said."""

    ruling: Ruling
    reasons: tuple[str, ...]


class Program:
    """A compiled bundle with interpreters of its own. Used by one thread."""

    def __init__(self, sources: Mapping[str, str], rule: str = DECISION, *, indexed: bool = True) -> None:
        """`rule` is what is asked for, a name of package `vestibule`.

        Raises:
            EngineError: with the engine's words when a source does not compile.
        """
        self._rule = rule
        self._whole = _compile(sources, {}, rule)
        self._index = LayerIndex(sources) if indexed and rule == DECISION else None
        self._variants: OrderedDict[Signature, _Form] = OrderedDict()

    def answer(self, document: Mapping[str, Any]) -> Answer:
        """The layer's decision on `document`.

        Raises:
            UndefinedDecision: the rule is undefined.
            EngineError: errors in built-ins, conflicting rules, a result of another shape.
        """
        found = parse_answer(self.value(document))
        again = as_they_are(narrow(document, self._whole.parts))
        return found if again is None else _stricter(found, parse_answer(self.value(again)))

    def value(self, document: Mapping[str, Any]) -> Any:
        """The rule's value, as JSON."""
        if self._index is None:
            return self._whole.value(document)
        signature = self._index.signature(document)
        form = self._variant(self._index, signature)
        try:
            return form.value(document)
        except (UndefinedDecision, BadInput):
            raise
        except EngineError:
            if form is self._whole:
                raise
            self._variants[signature] = self._whole  # whatever is wrong, the text as it was written decides
            return self._whole.value(document)

    def _variant(self, index: LayerIndex, signature: Signature) -> _Form:
        known = self._variants.get(signature)
        if known is not None:
            self._variants.move_to_end(signature)
            return known
        try:
            made = _compile(index.sources(signature), index.data(signature), self._rule)
        except EngineError:
            made = self._whole
        self._variants[signature] = made
        if len(self._variants) > MAX_VARIANTS:
            self._variants.popitem(last=False)
        return made


@dataclass(frozen=True, slots=True)
class _Form:
    """Compiled text, and the parts of an input that it names."""

    interpreter: Interpreter
    bundle: Bundle
    entrypoint: bytes
    parts: frozenset[tuple[str, ...]]
    matches: bool
    """Whether it tries expressions."""

    def value(self, document: Mapping[str, Any]) -> Any:
        named = narrow(document, self.parts)
        if self.matches and text_bytes(named) > MATCHED_BYTES:
            raise BadInput("the input is too long for expressions")
        try:
            found = ask(self.interpreter, self.bundle, self.entrypoint, named)
        except regopy.RegoError as error:
            raise EngineError(_message(str(error))) from None
        if found is UNDEFINED:
            raise UndefinedDecision("the policy is undefined for this request")
        return found


def _compile(sources: Mapping[str, str], data: Mapping[str, Any], rule: str) -> _Form:
    interpreter = Interpreter()
    interpreter.log_level = LogLevel.NONE
    interpreter.strict_built_in_errors = True
    entrypoint = f"vestibule/{rule}"
    try:
        if data:
            interpreter.add_data(data)
        for name, text in sorted(sources.items()):
            interpreter.add_module(name, _literals(text))
        bundle: Bundle = interpreter.build(None, [entrypoint])
    except regopy.RegoError as error:
        raise EngineError(_message(str(error))) from None
    matches = any(_MATCHES.search(text) for text in sources.values())
    if not bundle.ok():
        raise EngineError("the bundle does not compile")
    return _Form(interpreter, bundle, entrypoint.encode("utf-8"), parts_named(sources, rule), matches)


def _literals(text: str) -> str:
    """`text` with every literal that holds an escape written as strings of an input are: the engine compares both as
    they are written, and `"caf\\u00e9"` would not be `café`. A text that cannot be read is the engine's to refuse."""
    if "\\" not in text:
        return text
    try:
        found = [word for word in tokens(text) if word.kind == "string" and word.text[0] == '"' and "\\" in word.text]
        for word in reversed(found):
            text = f"{text[: word.start]}{json.dumps(json.loads(word.text), ensure_ascii=False)}{text[word.end :]}"
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise EngineError("a literal holds half a character") from None
    except ValueError:
        return text
    return text


def _stricter(one: Answer, other: Answer) -> Answer:
    ruling = strictest_ruling((one.ruling, other.ruling))
    reasons = {reason for answer in (one, other) if answer.ruling is ruling for reason in answer.reasons}
    return Answer(ruling, tuple(sorted(reasons)))


def parse_answer(value: Any) -> Answer:
    """`{"verdict": …, "reasons": […]}` exactly; a hold or deny gives at least one reason.

    Raises:
        EngineError: another shape.
    """
    if not isinstance(value, dict) or set(value) != {"verdict", "reasons"}:
        raise EngineError("a decision is an object with exactly `verdict` and `reasons`")
    verdict, reasons = value["verdict"], value["reasons"]
    if verdict not in ("allow", "hold", "deny"):
        raise EngineError("a verdict is allow, hold or deny")
    if not isinstance(reasons, list) or len(reasons) > MAX_REASONS:
        raise EngineError(f"reasons are a set or list of at most {MAX_REASONS}")
    for reason in reasons:
        if not isinstance(reason, str) or len(reason) > 200 or not REASON.match(reason):
            raise EngineError("a reason is a dotted rule name such as acme.freeze")
    if verdict != "allow" and not reasons:
        raise EngineError("a hold or deny names at least one reason")
    return Answer(Ruling(verdict), tuple(sorted(set(reasons))))


def _message(text: str) -> str:
    """The sentences in an error tree of the engine, with their place."""
    places = re.findall(r"\(error \d+:([^|]+)\|\d+\|\d+\s*\(errormsg \d+:(.*?)\)\s*\(errorast", text, re.DOTALL)
    return "; ".join(f"{name}: {message}" for name, message in places) or text[:300]
