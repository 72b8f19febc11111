"""All tables. Documents are canonical JSON of a noun; columns are only what is searched, joined or compared."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("state", String(32), nullable=False, index=True),
    Column("created", String(32), nullable=False),
    Column("updated", String(32), nullable=False),
    Column("version", Integer, nullable=False),
    Column("document", Text, nullable=False),
)
"""One row a run. `version` rises with each write: a writer that saw an older one loses."""

gates = Table(
    "gates",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run", String(32), ForeignKey("runs.id"), nullable=False, index=True),
    Column("state", String(32), nullable=False),
    Column("expires", String(32), nullable=False),
    Column("document", Text, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("gate", String(32), ForeignKey("gates.id"), nullable=False, index=True),
    Column("person", String(256), nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("gate", "person", name="one_decision_per_person_and_gate"),
)

questions = Table(
    "questions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run", String(32), ForeignKey("runs.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("asked", String(80), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("expires", String(32), nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("run", "kind", "asked", name="one_question_per_run_and_content"),
)
"""One row a question of an agent's. `asked` is the digest of what it asks, `document` the question and its answer."""

budgets = Table(
    "budgets",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("limit_nano_usd", BigInteger),
    Column("limit_tokens", BigInteger),
    Column("limit_requests", BigInteger),
    Column("held_nano_usd", BigInteger, nullable=False, server_default="0"),
    Column("held_tokens", BigInteger, nullable=False, server_default="0"),
    Column("held_requests", BigInteger, nullable=False, server_default="0"),
    Column("spent_nano_usd", BigInteger, nullable=False, server_default="0"),
    Column("spent_tokens", BigInteger, nullable=False, server_default="0"),
)
"""One row a ceiling: `run:<id>`, `day:<date>`, or one of the operator's limits in one window. A hold is one conditional
UPDATE over all rows that apply. `name` is for people; `limit_requests` is of requests under way."""

holds = Table(
    "holds",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run", String(32), nullable=False),
    Column("day", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("time", String(32), nullable=False),
    Column("closed", String(32)),
    Column("agent", String(128), nullable=False, server_default=""),
    Column("agent_version", String(512), nullable=False, server_default=""),
    Column("role", String(128), nullable=False, server_default=""),
    Column("repository", Text, nullable=False, server_default=""),
    Column("provider", String(128), nullable=False, server_default=""),
    Column("model", String(128), nullable=False),
    Column("prices", String(128), nullable=False, server_default=""),
    Column("nano_usd", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cache_read_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("cache_write_1h_tokens", BigInteger),
    Column("budgets", Text, nullable=False, server_default=""),
    Column("document", Text, nullable=False),
    Index("ix_holds_run_time", "run", "time"),
    Index("ix_holds_version_time", "agent_version", "time"),
    Index("ix_holds_time", "time"),
)
"""One row a model request: `held`, then `settled`, `charged` (at its hold: `input_tokens` is all of it) or `released`.

`nano_usd` and `tokens` are what was held, `cost_nano_usd` and the tokens by kind (which do not overlap, but for
`cache_write_1h_tokens`, a part of `cache_write_tokens`) what was used; they are null as long as it is held. `budgets`
are the keys of the ceilings that it counts against, one a line.
"""

spend_slots = Table(
    "spend_slots",
    metadata,
    Column("agent", String(128), primary_key=True),
    Column("slot", String(15), primary_key=True),
    Column("version", String(512), primary_key=True),
    Column("run", String(32), primary_key=True),
    Column("nano_usd", BigInteger, nullable=False),
    Column("requests", Integer, nullable=False),
)
"""What each run of an agent version spent in each ten minutes (`cost.spend_watch`): sums of the closed holds. A slot is
the beginning of its time, `2026-01-02T03:4`."""

agent_pauses = Table(
    "agent_pauses",
    metadata,
    Column("version", String(512), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("document", Text, nullable=False),
)
"""One row an agent version whose new work was ever paused. The audit log holds the same (`pipeline.pause`)."""
