"""The one statement that keeps the running sums of spend, run in the transaction that closes a hold, after that.

A slot is the first 15 characters of the hold's time (`2026-01-02T03:4`): ten minutes, and the same on every database.
"""

from __future__ import annotations

SLOT_CHARS = 15
HOUR_CHARS = 13

ADD_SPEND = (
    "INSERT INTO spend_slots (agent, slot, version, run, nano_usd, requests) "  # noqa: S608 constants only
    f"SELECT agent, substr(time, 1, {SLOT_CHARS}), agent_version, run, cost_nano_usd, 1 FROM holds "
    "WHERE id = ? AND state IN ('settled', 'charged') AND cost_nano_usd > 0 AND agent_version <> '' "
    "ON CONFLICT (agent, slot, version, run) DO UPDATE SET "
    "nano_usd = spend_slots.nano_usd + excluded.nano_usd, requests = spend_slots.requests + 1"
)
"""Its one value is the hold's id. What cost nothing, or names no agent version, is no spend."""
