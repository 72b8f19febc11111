"""The Rego engine (regopy, a binding of rego-cpp), wrapped so that it can only answer or fail.

Rules it keeps:
1. Strict built-in errors: an error inside a policy is an error of the decision, never "undefined".
2. What comes back is checked for its shape; anything else raises `EngineError`, and callers deny.
3. Strings reach the engine whole. The binding hands C strings over and would cut them at a NUL
   (`"a\\0b"` → `"a"`), and keeps literals in their escaped form: strings are escaped as JSON here, so
   that input and literals compare alike and nothing is cut.
4. One interpreter is used by one thread only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regopy
from regopy import Bundle, Interpreter, LogLevel

from vestibule.core.verdict import Ruling

QUERY = "answer = data.vestibule.decision"
MAX_DEPTH = 16
MAX_REASONS = 64
REASON = re.compile(r"[a-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*\Z")
_NEEDS_ESCAPE = re.compile(r'[\x00-\x1f"\\\x7f]')
_INT_LIMIT = 1 << 63

VERSION = f"regopy {str(regopy.__version__).split(' ', 1)[0]}"


class EngineError(Exception):
    """The engine gave no usable answer."""


class UndefinedDecision(EngineError):
    """The layer has no `decision` for this request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one layer said."""

    ruling: Ruling
    reasons: tuple[str, ...]


class Program:
    """A compiled bundle with an interpreter of its own."""

    def __init__(self, sources: Mapping[str, str], query: str = QUERY) -> None:
        """Raises EngineError with the engine's words when a source does not compile."""
        self._interpreter = Interpreter()
        self._interpreter.log_level = LogLevel.NONE
        self._interpreter.strict_built_in_errors = True
        try:
            for name, text in sorted(sources.items()):
                self._interpreter.add_module(name, text)
            self._bundle: Bundle = self._interpreter.build(query)
        except regopy.RegoError as error:
            raise EngineError(_message(str(error))) from None
        if not self._bundle.ok():
            raise EngineError("the bundle does not compile")

    def answer(self, document: Mapping[str, Any]) -> Answer:
        """The layer's decision on `document`.

        Raises:
            UndefinedDecision: the query has no result.
            EngineError: errors in built-ins, conflicting rules, a result of another shape.
        """
        return parse_answer(self.value(document))

    def value(self, document: Mapping[str, Any]) -> Any:
        """The value bound to `answer`, as JSON."""
        try:
            self._interpreter.set_input(_engine_value(document, 0))
            output = self._interpreter.query_bundle(self._bundle)
            if not output.ok():
                raise EngineError("the engine reported an error")
            results = output.results
        except json.JSONDecodeError:
            raise EngineError("the engine's answer is no JSON") from None
        except regopy.RegoError as error:
            raise EngineError(_message(str(error))) from None
        if len(results) != 1 or "answer" not in results[0].bindings:
            raise UndefinedDecision("the policy is undefined for this request")
        return results[0].bindings["answer"]


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


def _engine_value(value: Any, depth: int) -> Any:
    """`value` as the binding must get it. Raises EngineError for what it could misread."""
    if depth > MAX_DEPTH:
        raise EngineError("the input is nested too deeply")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)[1:-1] if _NEEDS_ESCAPE.search(value) else value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -_INT_LIMIT <= value < _INT_LIMIT:
            raise EngineError("the input holds a number of more than 64 bits")
        return value
    if isinstance(value, dict):
        return {_engine_key(key): _engine_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_engine_value(item, depth + 1) for item in value]
    raise EngineError(f"the input holds a {type(value).__name__}")


def _engine_key(key: Any) -> str:
    if not isinstance(key, str):
        raise EngineError("the input has a key that is no string")
    return str(_engine_value(key, 0))


def _message(text: str) -> str:
    """The sentences in an error tree of the engine, with their place."""
    places = re.findall(r"\(error \d+:([^|]+)\|\d+\|\d+\s*\(errormsg \d+:(.*?)\)\s*\(errorast", text, re.DOTALL)
    return "; ".join(f"{name}: {message}" for name, message in places) or text[:300]
