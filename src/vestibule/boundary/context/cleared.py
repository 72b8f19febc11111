"""The proof that a tool call was decided: without one of these no tool body runs.

Rules this module keeps:
1. A `Cleared` is made in one place, after every intent of the call is durable (`gateway`).
2. It is for one call: the same tool and the same normalised arguments, once.
3. It travels beside the request, in the ASGI scope, where nothing that a client sends can reach.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from vestibule.boundary.context.rules import Call
from vestibule.boundary.context.tools import Answer
from vestibule.core.errors import DependencyDown, Refused

SCOPE_KEY = "vestibule.cleared"

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Undecided(Exception):
    """A tool body was reached without a decision for exactly this call: our bug, and nothing happens."""


class Cleared:
    """One decided call. After `take`, `answer` or `refused` is set."""

    def __init__(self, call: Call, carry_out: Callable[[Call], Awaitable[Answer]]) -> None:
        self._call = call
        self._carry_out = carry_out
        self._taken = False
        self.answer: Answer | None = None
        self.refused: Refused | None = None

    @property
    def source(self) -> object:
        """Who carries the call out; None is the built-in toolbox."""
        return self._call.source

    async def take(self, tool: str, arguments: dict[str, Any]) -> Answer:
        """Carries the call out.

        A refusal that only shows on the way (a link, a dependency, a bug of ours) is kept in `refused`, so
        that the HTTP layer can answer 403; the answer is empty then.

        Raises:
            Undecided: another call than the decided one, or the same a second time.
        """
        self._take(tool, arguments)
        try:
            self.answer = await self._carry_out(self._call)
        except Refused as error:
            self.refused = error
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer is a refusal
            _log.exception("a tool failed")
            self.refused = DependencyDown("context", "The tool failed.", fact=type(error).__name__)
        return self.answer or Answer((), ok=False)

    async def take_with(self, tool: str, arguments: dict[str, Any], body: Callable[[], Awaitable[T]]) -> T:
        """The same for what a surface does itself in `body`, whose errors are the protocol layer's to answer.

        Raises:
            Undecided: as `take`.
        """
        self._take(tool, arguments)
        self.answer = Answer((), ok=False, details={"error": "protocol"})
        found = await body()
        self.answer = Answer(())
        return found

    def _take(self, tool: str, arguments: dict[str, Any]) -> None:
        if self._taken or tool != self._call.tool or arguments != self._call.arguments:
            raise Undecided(tool)
        self._taken = True


def take_from(scope: dict[str, Any]) -> Cleared:
    """The proof that came with a request.

    Raises:
        Undecided: there is none.
    """
    found = scope.get(SCOPE_KEY)
    if not isinstance(found, Cleared):
        raise Undecided("no decision")
    return found
