"""The ledger's tables."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from tasks.database import Moment

VERSION = 1
"""Of these tables. A change that this code cannot read raises it."""

metadata = MetaData()

_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only when the key is called INTEGER."""

models = Table(
    "backstop_models",
    metadata,
    Column("model", String(63), primary_key=True),
    # The row is what PostgreSQL locks. The number is the head's, so that a compare-and-swap reads one row.
    Column("head", Integer, nullable=False),
)

transitions = Table(
    "backstop_transitions",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), ForeignKey(models.c.model), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("action", String(20), nullable=False),
    Column("version", String(40), nullable=False),
    Column("previous", String(40)),
    # What serves once this row is applied; null: nothing does. Who serves is thereby one row, not a calculation.
    Column("production", String(40)),
    Column("state", String(20), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("trail", String(64), nullable=False),
    Column("flow_run_id", String(64)),
    Column("evidence", Text, nullable=False),
    Column("intended_at", Moment, nullable=False),
    Column("applied_at", Moment),
    UniqueConstraint("model", "seq"),
)
Index("backstop_transitions_served", transitions.c.model, transitions.c.applied_at)

decisions = Table(
    "backstop_decisions",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("trail", String(64), nullable=False),
    Column("judge", String(20), nullable=False),
    Column("decision", String(40), nullable=False),
    Column("reason", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("flow_run_id", String(64)),
    Column("version", String(40)),
    # The head when it was recorded: what was decided before a promotion and what after needs no clock.
    Column("seq", Integer, nullable=False),
    Column("span_start", Moment),
    Column("span_end", Moment),
)
Index("backstop_decisions_by_judge", decisions.c.model, decisions.c.judge, decisions.c.id)
Index("backstop_decisions_by_trail", decisions.c.trail)

facts = Table(
    "backstop_facts",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("version", String(40), nullable=False),
    Column("fact", String(20), nullable=False),
    Column("at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("trail", String(64), nullable=False),
)
Index("backstop_facts_by_version", facts.c.model, facts.c.version, facts.c.id)

versions = Table(
    "backstop_versions",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("version", String(40), primary_key=True),
    Column("run_id", String(64)),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("trained_at", Moment),
    Column("profile", Text),
)

notifications = Table(
    "backstop_notifications",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("trail", String(64), nullable=False),
    Column("at", Moment, nullable=False),
    Column("sink", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("error", Text),
)
Index("backstop_notifications_by_model", notifications.c.model, notifications.c.id)
