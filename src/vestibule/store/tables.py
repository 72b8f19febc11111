"""All tables. Documents are canonical JSON of a noun; columns are only what is searched, joined or compared."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, String, Table, Text, UniqueConstraint

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
    Column("limit_nano_usd", BigInteger),
    Column("limit_tokens", BigInteger),
    Column("held_nano_usd", BigInteger, nullable=False, default=0),
    Column("held_tokens", BigInteger, nullable=False, default=0),
    Column("spent_nano_usd", BigInteger, nullable=False, default=0),
    Column("spent_tokens", BigInteger, nullable=False, default=0),
)
"""One row a ceiling: `run:<id>` or `day:<date>`. A hold is one conditional UPDATE on it."""

holds = Table(
    "holds",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run", String(32), nullable=False, index=True),
    Column("day", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("time", String(32), nullable=False, index=True),
    Column("model", String(128), nullable=False),
    Column("nano_usd", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)
"""One row a model request: `held`, then `settled` (document: its usage) or `released`."""
