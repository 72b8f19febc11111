"""Regular expressions that end soon, whatever text they are tried on (CWE-1333).

Python's engine tries alternatives one after another, so a pattern can take time that grows exponentially with the
text. Rules this module keeps:
1. No choice within a repetition: no further repetition of varying length, no alternatives other than characters.
   No look-around, no back-reference.
2. The ways in which a pattern can be tried on one text, over all its choices, are at most `MAX_WAYS`: two
   repetitions without a bound, or some more with small ones.
3. A pattern is tried on bounded texts only (`MAX_TEXT`), and on the whole text.
"""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parse  # type: ignore[import-not-found]
from functools import lru_cache
from typing import Any

MAX_PATTERN = 512
MAX_TEXT = 1024
MAX_WAYS = 1 << 20
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


class SlowPattern(ValueError):
    """The pattern is wrong, or could take long."""


def check_pattern(pattern: str) -> None:
    """Raises `SlowPattern` with a sentence that says what is wrong."""
    if len(pattern) > MAX_PATTERN:
        raise SlowPattern(f"a pattern has at most {MAX_PATTERN} characters")
    try:
        parsed = sre_parse.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SlowPattern(f"{pattern!r} is no regular expression: {error}") from None
    if _ways(parsed, inside=False) > MAX_WAYS:
        raise SlowPattern(f"{pattern!r} can be tried in so many ways that it could take long; use fewer repetitions")


def _ways(parsed: Any, *, inside: bool) -> int:
    """In how many ways the repetitions of a pattern can share a text. Raises `SlowPattern` for what no pattern may."""
    found = 1
    for op, argument in parsed:
        if op in _REPEATS:
            low, high, body = argument
            if inside and low != high:
                raise SlowPattern("a repetition of varying length within a repetition could take long")
            found *= min(int(high) - int(low), MAX_TEXT - 1) + 1
            found *= _ways(body, inside=inside or high > 1)
        elif op is sre.BRANCH:
            if inside:  # alternatives of one character each were made a set by the parser
                raise SlowPattern("alternatives within a repetition could take long")
            found *= sum(_ways(branch, inside=inside) for branch in argument[1])
        elif op is sre.SUBPATTERN:
            found *= _ways(argument[-1], inside=inside)
        elif op is sre.ATOMIC_GROUP:
            found *= _ways(argument, inside=inside)
        elif op in (sre.ASSERT, sre.ASSERT_NOT, sre.GROUPREF, sre.GROUPREF_EXISTS):
            raise SlowPattern("look-around and back-references are not supported here")
    return found


def literal_run(pattern: str) -> str:
    """The longest text, found without trying the pattern, that every match contains; may be empty."""
    runs, run = [""], ""
    for op, argument in sre_parse.parse(pattern):
        run = run + chr(argument) if op is sre.LITERAL else ""
        runs.append(run)
    return max(runs, key=len)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    check_pattern(pattern)
    return re.compile(pattern)


def matches_whole(pattern: str, text: str) -> bool:
    """Whether all of `text` is matched. A text longer than `MAX_TEXT` never is.

    Raises:
        SlowPattern: it is not one to be used.
    """
    return len(text) <= MAX_TEXT and _compiled(pattern).fullmatch(text) is not None
