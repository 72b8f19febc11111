"""The one statement that keeps the running sums of spend, run in the transaction that closes holds, after that.

A slot is the first 15 characters of the hold's time (`2026-01-02T03:4`): ten minutes, and the same on every database.
"""

from __future__ import annotations

SLOT_CHARS = 15
HOUR_CHARS = 13

ADD_SPEND = (
    "INSERT INTO spend_slots (agent, slot, version, run, nano_usd, requests) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (agent, slot, version, run) DO UPDATE SET nano_usd = spend_slots.nano_usd + excluded.nano_usd, "
    "requests = spend_slots.requests + excluded.requests"
)
"""What cost nothing, or names no agent version, is no spend."""
