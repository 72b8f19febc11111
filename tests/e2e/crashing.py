"""Runs the command line with one method that kills the process: `python -m tests.e2e.crashing POINT WHEN ARGV…`.

POINT is a method of a class in the pipeline (`Segments._propose`, `Attempt._run_agent`) or a function, WHEN is
`before` or `after` its effect. The kill is SIGKILL, as a lost machine would be; it happens once, for a file marks that
it did.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

PLACES = {
    "Segments": "vestibule.pipeline.segments",
    "Attempt": "vestibule.pipeline.attempt",
    "QuestionBook": "vestibule.review.questions",
    "LiveScope": "vestibule.pipeline.live_scope",
    "PauseBook": "vestibule.pipeline.pause",
    "segments": "vestibule.pipeline.segments",
    "drive": "vestibule.pipeline.drive",
}
"""Classes, and modules whose functions are called by their own names."""


def main() -> None:
    point, when, *argv = sys.argv[1:]
    times = int(os.environ.get("CRASH_TIMES", "1"))
    mark = Path(os.environ["CRASH_MARK"])
    kind, _, method = point.partition(".")
    module = importlib.import_module(PLACES[kind])
    owner = module if kind.islower() else getattr(module, kind)
    original = getattr(owner, method)

    def crash() -> None:
        done = len(mark.read_text()) if mark.exists() else 0
        if done < times:
            mark.write_text("x" * (done + 1))
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            crash()
        result = original(*args, **kwargs)
        if when == "after":
            crash()
        return result

    setattr(owner, method, wrapped)
    sys.argv = ["vestibule", *argv]
    from vestibule.cli.main import main as cli

    cli()


if __name__ == "__main__":
    main()
