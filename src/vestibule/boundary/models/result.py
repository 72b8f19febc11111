"""What became of one request that was sent: its result, and what the log and the books are told. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vestibule.boundary.models.dispatch import Outgoing
from vestibule.boundary.models.formats.base import Asked
from vestibule.boundary.models.providers import Upstream
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import Usage
from vestibule.cost.prices import ModelPrice, Tokens


@dataclass(slots=True)
class Result:
    """What became of one dispatch. Integers only, for the outcome event."""

    status: int = 0
    tokens: Tokens | None = None
    usage: Usage = field(default_factory=Usage)
    charged_hold: bool = False
    bytes_out: int = 0
    stop_reason: str = ""
    error: Refused | None = None
    cut: bool = False
    """A guard stopped it: no other upstream is asked."""
    error_shown: bool = False
    """The provider's own error event went through."""
    unsent: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None
    """The provider's error answer, which the caller shows unless another upstream answers instead."""
    settle_error: DependencyDown | None = None
    client_left: bool = False
    milliseconds: int = 0
    first_byte_ms: int = 0
    scanned: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.error is None and self.settle_error is None and self.status == 200

    @property
    def elsewhere(self) -> bool:
        """Whether another upstream may be asked instead: nothing of an answer came."""
        if self.cut:
            return False
        return self.unsent is not None or (self.error is not None and not self.bytes_out and not self.error_shown)

    def details(self, prices_digest: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "status": self.status,
            "bytes": self.bytes_out,
            "usage": self.usage.__dict__.copy(),
            "prices": prices_digest,
            "milliseconds": self.milliseconds,
            **({"first_byte_ms": self.first_byte_ms} if self.first_byte_ms else {}),
            "scanned": self.scanned,
        }
        if self.charged_hold:
            found["charged_hold"] = True
        if self.stop_reason:
            found["stop_reason"] = self.stop_reason
        if self.client_left:
            found["client_left"] = True
        if self.error is not None:
            found["error"] = self.error.refusal.rule
            found["fact"] = self.error.refusal.fact[:200]
        if self.settle_error is not None:
            found["settle_error"] = self.settle_error.refusal.rule
        return found


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was checked, priced and reserved."""

    asked: Asked
    size: int
    upstream: Upstream
    outgoing: Outgoing
    price: ModelPrice
    hold: str
    ceiling: Usage


def usage_of(tokens: Tokens, price: ModelPrice) -> Usage:
    """Tokens and their price as the contract's usage."""
    return Usage.model_construct(
        requests=1,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
        cost_nano_usd=price.cost(tokens),
    )


def kinds_of(tokens: Tokens) -> dict[str, Any]:
    """Kinds of tokens that `Usage` does not tell apart, where there are any."""
    return {"cache_write_1h_tokens": tokens.cache_write_1h} if tokens.cache_write_1h else {}


__all__ = ["Admitted", "Result", "kinds_of", "usage_of"]
