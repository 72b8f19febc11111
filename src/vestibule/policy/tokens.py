"""Rego's words, with their places: enough to lint a policy before the engine sees it.

Source: the Rego grammar (openpolicyagent.org, "Policy Reference: Grammar").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["name", "string", "number", "op", "newline"]

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r]+)
  | (?P<comment>\#[^\n]*)
  | (?P<newline>\n)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
  | (?P<op>:=|==|!=|<=|>=|[=<>+\-*/%&|,;:.()\[\]{}])
    """,
    re.VERBOSE,
)


class UnreadableRego(ValueError):
    """Not a word of Rego. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        self.message = message
        super().__init__(f"line {line}: {message}")


@dataclass(frozen=True, slots=True)
class Token:
    """A word. `depth` is the number of brackets open before it; `adjacent` says no space stands before it.

    `start` is its offset in the text, in characters; `line` and `column` count from 1.
    """

    kind: Kind
    text: str
    line: int
    column: int
    depth: int
    adjacent: bool
    start: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokens(text: str) -> list[Token]:
    """All tokens; comments and spaces are left out.

    Raises:
        UnreadableRego: a character that starts no token, or brackets that do not match.
    """
    found: list[Token] = []
    open_: list[tuple[str, int]] = []
    position, line, line_start, adjacent = 0, 1, 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnreadableRego(line, f"{text[position]!r} does not belong here")
        kind, word = match.lastgroup, match.group()
        if kind in ("space", "comment"):
            adjacent = False
        else:
            if word in (")", "]", "}") and kind == "op":
                _close(open_, word, line)
            depth = len(open_)
            found.append(Token(_kind(kind), word, line, position - line_start + 1, depth, adjacent, position))
            if word in ("(", "[", "{") and kind == "op":
                open_.append((word, line))
            adjacent = kind != "newline"
        breaks = word.count("\n")
        if breaks:
            line += breaks
            line_start = position + word.rindex("\n") + 1
        position = match.end()
    if open_:
        raise UnreadableRego(open_[-1][1], f"{open_[-1][0]!r} is not closed")
    return found


def _close(open_: list[tuple[str, int]], word: str, line: int) -> None:
    pairs = {")": "(", "]": "[", "}": "{"}
    if not open_ or open_[-1][0] != pairs[word]:
        raise UnreadableRego(line, f"{word!r} closes nothing")
    open_.pop()


def _kind(name: str | None) -> Kind:
    match name:
        case "name" | "string" | "number" | "op" | "newline":
            return name
    raise AssertionError(name)
