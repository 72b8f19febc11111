"""What commands print: one JSON object on stdout with `--json`, else words for people; errors in one form."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from vestibule.core.errors import ConfigError, Refused, VestibuleError
from vestibule.core.text.sanitize import show_hidden

_STEERING = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""What a terminal obeys or a reader does not see, and JSON lets stand as it is."""


def emit_json(value: dict[str, Any]) -> None:
    """The one JSON object of a `--json` call: the same data, with nothing in it that steers a terminal."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        sys.stdout.write(_STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        nobody_reads()


def nobody_reads() -> None:
    """Who read stdout has left (`| head`): the command goes on, and its exit code is still its verdict."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, sys.stdout.fileno())
    os.close(silent)


def say(text: str) -> None:
    """One line of progress or advice, on stderr."""
    sys.stderr.write(show_hidden(text) + "\n")


def show_error(error: VestibuleError, *, as_json: bool) -> int:
    """Print an error for people (and for `--json` its object); returns the exit code."""
    if as_json:
        emit_json(error_json(error))
    lines = [f"vestibule: {error.what}"]
    if error.why:
        lines.append(f"  why:  {error.why}")
    if error.next_step:
        lines.append(f"  next: {error.next_step}")
    if isinstance(error, Refused):
        lines.insert(1, f"  rule: {error.refusal.rule}")
    say("\n".join(lines))
    return error.exit_code


def error_json(error: VestibuleError) -> dict[str, Any]:
    """`{"error": {what, why, next}, "refusals": […]}` plus `where` for configuration errors."""
    found: dict[str, Any] = {"error": {"what": error.what, "why": error.why, "next": error.next_step}}
    if isinstance(error, ConfigError):
        found["error"]["where"] = error.where
    if isinstance(error, Refused):
        found["state"] = "refused"
        found["verdict"] = "deny"
        found["reasons"] = [error.refusal.rule]
        found["refusals"] = [error.refusal.as_json()]
    return found


def show_bug(error: BaseException, *, as_json: bool) -> None:
    """Exit code 1 is only ever our own bug: say so, and how to report it."""
    if as_json:
        emit_json({"error": {"what": f"internal error: {type(error).__name__}", "why": str(error)[:500], "next": ""}})
    say(
        f"vestibule: internal error: {type(error).__name__}: {str(error)[:500]}\n"
        "  This is a bug of ours. Run again with VESTIBULE_TRACEBACK=1 and report what it prints."
    )
