"""A ledger with requests in it, written by the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestibule.core.model import Budget, Usage
from vestibule.cost.ledger import Ledger
from vestibule.store.database import Database

VERSION = "claude@claude-code-2.1+claude-sonnet-5+abc"


@dataclass
class Books:
    """`now` is the time of what is written next."""

    db: Database
    now: str = "2026-01-02T03:04:05.678Z"

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.db, now=lambda: self.now)
        self._opened: set[str] = set()

    @classmethod
    def new(cls, folder: Path) -> Books:
        return cls(Database(f"sqlite:///{folder / 'state.db'}"))

    def hold(
        self, run: str = "r1", *, model: str = "claude-sonnet-5", nano_usd: int = 10**9, tokens: int = 5000, **more: Any
    ) -> str:
        if run not in self._opened:
            self._opened.add(run)
            self.ledger.open(run, Budget())
        details = {
            "agent": "claude",
            "agent_version": VERSION,
            "role": "backend",
            "repository": "example.com/shop",
            "provider": "anthropic",
            "provider_model": model,
            "prices": "sha256:" + "ab" * 32,
            **more,
        }
        return self.ledger.hold(run, model, nano_usd=nano_usd, tokens=tokens, details=details)

    def settle(self, hold: str, *, cost: int = 123_456_789, took: int | None = 1500, first: int | None = 400) -> None:
        usage = Usage(
            requests=1,
            input_tokens=1000,
            output_tokens=200,
            cache_read_tokens=300,
            cache_write_tokens=50,
            cost_nano_usd=cost,
        )
        details: dict[str, Any] = {"cache_write_1h_tokens": 20}
        if took is not None:
            details["milliseconds"] = took
        if first is not None:
            details["first_byte_ms"] = first
        self.ledger.submit_settle(hold, usage, details).result()

    def spend(self, run: str = "r1", *, cost: int = 123_456_789, at: str = "", **more: Any) -> None:
        self.now = at or self.now
        self.settle(self.hold(run, **more), cost=cost)

    def charge(self, run: str = "r1", **more: Any) -> None:
        self.ledger.charge(self.hold(run, **more))
