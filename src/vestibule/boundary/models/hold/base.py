"""What every format's answer machine has in common. Pure: bytes in, bytes and questions out.

An `Answer` reads what a provider sends and says, step by step, which bytes may go to the agent and what has to be
judged first. It neither waits nor decides: its driver (`exchange.py`) asks policy and hands the decisions back.

Rules it keeps:
1. A tool call is released whole or not at all: no byte of it leaves before its decision, its start included.
2. What is allowed is passed on byte for byte; nothing is written anew unless something was judged otherwise.
3. An answer that ended without its last event is incomplete, whatever its length; held parts of it are dropped.
4. What is held is bounded (`MAX_HELD`); more of it is a call that is denied, never unbounded memory. So is the number
   of calls (`MAX_CALLS`): each is a decision and a record.
5. Of what the provider sends, a kind of item that the format's machine does not know is no answer (`WireError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from vestibule.boundary.models.wire.sse import WireError
from vestibule.cost.prices import Tokens

MAX_HELD = 8 * 1024 * 1024
"""Bytes of one answer that wait for a decision. Beyond: the call is denied as `oversized`."""

MAX_CALLS = 1_000
"""Calls in what one client request is answered. More is no answer."""

Problem = Literal["", "cut", "oversized", "json", "shape"]


class Held(NamedTuple):
    """Something of an answer that waits for a decision.

    A call: `name` (and `namespace`, Responses only) as the provider wrote it, `arguments` the argument text as the
    agent's program will read it, `form` whether that is JSON or free text (custom tools). `problem`: it is no whole
    call (`cut`: the answer ended within it; `oversized`; `shape`: its parts contradict each other).
    A text: `arguments` is the text in UTF-8; only given when the answer was made with `hold_text`.
    """

    kind: Literal["call", "text"]
    name: str = ""
    namespace: str = ""
    arguments: bytes = b""
    form: Literal["json", "text"] = "json"
    problem: Problem = ""
    id: str = ""


class Decided(NamedTuple):
    """A decision. Not allowed: `text` stands in the held item's place (empty for a text: nothing does)."""

    allowed: bool
    text: str = ""


@dataclass(slots=True)
class Step:
    """`out` may be sent now. With `held`, `Answer.decide` comes next, with one decision each and in this order.

    `text`: what `out` says to the agent, for matching known secrets; without marks between its parts.
    """

    out: bytes = b""
    held: tuple[Held, ...] = ()
    text: str = ""


@dataclass(slots=True)
class Told:
    """What a provider said of one request's usage and end. Kinds of tokens do not overlap."""

    tokens: Tokens = field(default_factory=Tokens)
    started: bool = False
    """It answered: what it took in is known."""
    reported: bool = False
    """The final usage came."""
    stopped: bool = False
    """The last event came, so that the answer is whole."""
    failed: bool = False
    """It reported an error within its answer; that was passed on."""
    stop_reason: str = ""
    events: int = 0


@dataclass(slots=True)
class Scanned:
    """What was looked at, for the audit event: an answer whose blocks were not all looked at is an error."""

    blocks: int = 0
    """Items of the answer: texts, thoughts, calls."""
    calls: int = 0
    denied: int = 0
    text_bytes: int = 0
    call_bytes: int = 0

    def call(self) -> None:
        """One more call.

        Raises:
            WireError: there are more than any model makes.
        """
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise WireError("its answer holds too many calls")

    def counts(self) -> dict[str, int]:
        return {
            "blocks": self.blocks,
            "calls": self.calls,
            "denied": self.denied,
            "text_bytes": self.text_bytes,
            "call_bytes": self.call_bytes,
        }


class Answer(Protocol):
    """One answer of a provider on its way to the agent. One for each client request, streamed or whole.

    `feed` takes what came (of a whole answer: all of it, once). `blocked`: the turn consists of denied calls only and
    nothing of its end was sent; then either `close` gives the end (the agent's turn is over), or `again` gives the
    body of a request that shows the model why, whose answer is fed to the same machine and continues this one.
    """

    told: Told
    scanned: Scanned
    blocked: bool

    def feed(self, data: bytes) -> Step:
        """Raises `wire.sse.WireError`: this is no answer in the format."""
        ...

    def decide(self, decided: Sequence[Decided]) -> Step: ...

    def end(self) -> Step:
        """The provider's bytes are over. Raises `WireError` when the answer is incomplete."""
        ...

    def close(self) -> bytes: ...

    def again(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` is the one that was last sent, in this format. Resets `told` for the next provider answer."""
        ...
