"""The shortest way into the engine's library and back, over the C functions that regopy binds (rego-cpp's `rego_c.h`).

regopy's own classes build an input with two Python calls for each value and print each answer four times; here it is
one call and one print. Rules it keeps:
1. Strings reach the engine whole. C strings end at a NUL (`"a\\0b"` → `"a"`), and literals are kept in their escaped
   form: strings are escaped as JSON, so that input and literals compare alike and nothing is cut. Functions that look
   into a string would see the escapes there (`\\s` matches no tab that is written `\\t`), so a question with such a
   string is asked once more with the strings as they are (`as_they_are`), and the stricter answer counts.
2. Every return code is looked at; whatever is not plain raises `EngineError`.
3. What is taken from the library is given back, errors included.
"""

from __future__ import annotations

import ctypes
import functools
import json
import re
from typing import Any

import regopy
from regopy import Bundle, Input, Interpreter
from regopy.rego_shared import path as _path
from regopy.rego_shared import rego as _library

MAX_DEPTH = 16
MAX_ANSWER_BYTES = 256 * 1024
SHORT = 64
"""Strings up to this length are remembered in the form the engine takes: names of facts come with every question."""
_FIRST_BUFFER = 4096
_NEEDS_ESCAPE = re.compile(r'[\x00-\x1f"\\\x7f]')
_ESCAPED = re.compile(r'[\x01-\x1f"]')
"""What is written with an escape and need not be."""
_INT_LIMIT = 1 << 63
_TOO_SMALL = 2

# The functions that add one value return at once: they are called without giving up Python's lock in between.
_held = ctypes.PyDLL(_path)
_string = _held.regoInputString
_boolean = _held.regoInputBoolean
_int = _held.regoInputInt
_null = _held.regoInputNull
_item = _held.regoInputObjectItem
_object = _held.regoInputObject
_array = _held.regoInputArray
_ARGUMENTS: tuple[tuple[Any, list[Any]], ...] = (
    (_string, [ctypes.c_void_p, ctypes.c_char_p]),
    (_boolean, [ctypes.c_void_p, ctypes.c_bool]),
    (_int, [ctypes.c_void_p, ctypes.c_int64]),
    (_null, [ctypes.c_void_p]),
    (_item, [ctypes.c_void_p]),
    (_object, [ctypes.c_void_p, ctypes.c_uint32]),
    (_array, [ctypes.c_void_p, ctypes.c_uint32]),
)
for _function, _kinds in _ARGUMENTS:
    _function.argtypes = _kinds
    _function.restype = ctypes.c_uint32


class EngineError(Exception):
    """The engine gave no usable answer."""

    reason = "policy.error"


class BadInput(EngineError):
    """The question itself cannot be put to the engine; the policy's text has no part in it."""


class EngineDown(EngineError):
    """The engine cannot be asked: it is elsewhere and does not answer, or is not what it has to be."""

    reason = "dependency.policy"


def make_input(document: Any) -> Input:
    """`document` as the engine's input. Raises BadInput for what the engine could misread."""
    made = Input.__new__(Input)  # its own constructor is the slow way; its destructor frees
    made._impl = pointer = _library.regoNewInput()
    if not pointer:
        raise EngineError("the engine takes no input")
    if _add(pointer, document, 0):
        raise EngineError("the engine does not take this input")
    return made


def _add(pointer: int, value: Any, depth: int) -> int:
    """Adds one value; the sum of the return codes, 0 when all went well."""
    if value is True or value is False:
        return int(_boolean(pointer, value))
    kind = type(value)
    if kind is str:
        return int(_string(pointer, _short(value) if len(value) < SHORT else _bytes(value)))
    if kind is dict:
        if depth >= MAX_DEPTH:
            raise BadInput("the input is nested too deeply")
        bad = 0
        for key, item in value.items():
            if type(key) is str:
                bad += _string(pointer, _short(key) if len(key) < SHORT else _bytes(key))
            elif type(key) is _AsItIs:
                bad += _string(pointer, key.whole())
            else:
                raise BadInput("the input has a key that is no string")
            if item is True or item is False:
                bad += _boolean(pointer, item)
            else:
                bad += _add(pointer, item, depth + 1)
            bad += _item(pointer)
        return bad + int(_object(pointer, len(value)))
    if kind is list or kind is tuple:
        if depth >= MAX_DEPTH:
            raise BadInput("the input is nested too deeply")
        bad = sum([_add(pointer, item, depth + 1) for item in value])
        return bad + int(_array(pointer, len(value)))
    if value is None:
        return int(_null(pointer))
    if kind is int:
        if not -_INT_LIMIT <= value < _INT_LIMIT:
            raise BadInput("the input holds a number of more than 64 bits")
        return int(_int(pointer, value))
    if kind is _AsItIs:
        return int(_string(pointer, value.whole()))
    raise BadInput(f"the input holds a {kind.__name__}")


def _bytes(text: str) -> bytes:
    if _NEEDS_ESCAPE.search(text):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput("the input holds a lone surrogate") from None


class _AsItIs(str):
    """A string that the engine is given as it is. Two things stay escaped: a NUL, which would end it, and a backslash,
    which some functions take for the beginning of an escape."""

    __slots__ = ()

    def whole(self) -> bytes:
        return self.replace("\\", "\\\\").replace("\0", "\\u0000").encode("utf-8")


def as_they_are(document: Any) -> Any:
    """The same document with its strings as they are; None when that changes nothing."""
    return _unescaped(document) if _escaped(document) else None


def _escaped(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return _ESCAPED.search(value) is not None
    if kind is dict:
        return any(_escaped(item) for pair in value.items() for item in pair)
    return kind in (list, tuple) and any(_escaped(item) for item in value)


def _unescaped(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return _AsItIs(value) if _ESCAPED.search(value) else value
    if kind is dict:
        return {_unescaped(key): _unescaped(item) for key, item in value.items()}
    return [_unescaped(item) for item in value] if kind in (list, tuple) else value


def text_bytes(value: Any) -> int:
    """Bytes of all strings in a document together, as the engine has them."""
    kind = type(value)
    if kind is str:
        return len(value) if len(value) < SHORT else len(_bytes(value))
    if kind is _AsItIs:
        return len(value.whole())
    if kind is dict:
        return sum(text_bytes(key) + text_bytes(item) for key, item in value.items())
    return sum(map(text_bytes, value)) if kind is list or kind is tuple else 0


_short = functools.lru_cache(maxsize=4096)(_bytes)


def ask(interpreter: Interpreter, bundle: Bundle, entrypoint: bytes, document: Any) -> Any:
    """The value of the rule at `entrypoint`, as JSON; `UNDEFINED` when there is none.

    Raises:
        EngineError: an error in a built-in, conflicting rules, an answer that is no JSON.
        regopy.RegoError: the engine's own words for the same.
    """
    interpreter.set_input(make_input(document))
    output = _library.regoBundleQueryEntrypoint(interpreter._impl, bundle._impl, entrypoint)
    if not output:
        raise EngineError("the engine gave no answer")
    try:
        if not _library.regoOutputOk(output):
            raise EngineError("the engine reported an error")
        text = _print(output)
    finally:
        _library.regoFreeOutput(output)
    if text == b"undefined":
        return UNDEFINED
    try:
        found = json.loads(text)
    except ValueError:
        raise EngineError("the engine's answer is no JSON") from None
    values = found.get("expressions") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and len(values) == 1 else UNDEFINED


def _print(output: int) -> bytes:
    size = _FIRST_BUFFER
    while size <= MAX_ANSWER_BYTES:
        buffer = ctypes.create_string_buffer(size)
        code = _library.regoOutputJSON(output, buffer, size)
        if code == 0:
            return bytes(buffer.value)
        if code != _TOO_SMALL:
            break
        size *= 8
    raise EngineError("the engine's answer cannot be read")


class _Undefined:
    """Not a JSON value."""


UNDEFINED = _Undefined()
VERSION = f"regopy {str(regopy.__version__).split(' ', 1)[0]}"
