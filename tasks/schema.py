"""The tables: the ledger's and the request log's. They may share a database, and know nothing of each other."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from tasks.database import Moment, Ticks

LEDGER_REVISION = "0007"
LOG_REVISION = "0003"
"""Newest migration of each; a test holds the tables below against what the migrations make."""

ledger = MetaData()
log = MetaData()

_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only when the key is called INTEGER."""

models = Table(
    "backstop_models",
    ledger,
    Column("model", String(63), primary_key=True),
    # The row is what PostgreSQL locks. The number is the head's, so that a compare-and-swap reads one row.
    Column("head", Integer, nullable=False),
)

transitions = Table(
    "backstop_transitions",
    ledger,
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
    ledger,
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
    # Digest of what it rested on, among the evidence below; null: a row from before evidence was kept.
    Column("evidence", String(64)),
)
Index("backstop_decisions_by_judge", decisions.c.model, decisions.c.judge, decisions.c.id)
Index("backstop_decisions_by_trail", decisions.c.trail)
Index("backstop_decisions_by_model", decisions.c.model, decisions.c.id)

evidence = Table(
    "backstop_evidence",
    ledger,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the body: the same evidence is kept once
    Column("body", LargeBinary, nullable=False),
)

removals = Table(
    "backstop_removals",
    ledger,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("at", Moment, nullable=False),
    # Only evidence of decisions that were made before this moment is among it.
    Column("before", Moment, nullable=False),
    Column("digests", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
)
"""Evidence that was taken out as the policy says; what is gone and not named here was not taken out by it."""
Index("backstop_removals_by_model", removals.c.model, removals.c.id)

facts = Table(
    "backstop_facts",
    ledger,
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
Index("backstop_facts_by_fact", facts.c.model, facts.c.fact, facts.c.id)

versions = Table(
    "backstop_versions",
    ledger,
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
    ledger,
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

messages = Table(
    "backstop_messages",
    ledger,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("trail", String(64), nullable=False),
    Column("at", Moment, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("sink", Text, nullable=False),
    # Digest of the address as the policy writes it: addresses hold secrets, and the policy knows them.
    Column("address", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("due", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
)
"""What has to be told. Its rows change; every attempt is a row of its own among the notifications, which do not."""
Index("backstop_messages_due", messages.c.model, messages.c.state, messages.c.due)

rollouts = Table(
    "backstop_rollouts",
    ledger,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("version", String(40), nullable=False),
    Column("baseline", String(40), nullable=False),
    # Percent of the requests from now on; the version in Production has the others.
    Column("weight", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("started", Moment, nullable=False),
    Column("at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("trail", String(64), nullable=False),
    Column("flow_run_id", String(64)),
)
"""One row per step of a progressive rollout, and one that says how it ended; never changed."""
Index("backstop_rollouts_by_model", rollouts.c.model, rollouts.c.id)

lessons = Table(
    "backstop_lessons",
    ledger,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    # That learned it; null: it was set aside and is learned by nobody.
    Column("version", String(40)),
    # In Production when it was learned, and the version that it was added to.
    Column("base", String(40), nullable=False),
    Column("requests", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("trail", String(64), nullable=False),
)
"""Which feedback went into which version; never changed. Whether it counts as learned follows from the transitions."""
Index("backstop_lessons_by_model", lessons.c.model, lessons.c.id)

chain = Table(
    "backstop_chain",
    ledger,
    Column("model", String(63), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(20), nullable=False),
    Column("row", String(40), nullable=False),
    Column("digest", String(64), nullable=False),
)
"""One link per row that was written, and one more when a transition is settled."""

requests = Table(
    "backstop_requests",
    log,
    # On PostgreSQL the keys are those of each week, see tasks.partitions; a table in partitions has none as a whole.
    # Models that share a log may use the same ids: an order has a price and a risk.
    Column("model", String(63), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    # A shadow answers the very request that Production answered; a canary answers in its place.
    Column("role", String(20), primary_key=True),
    Column("version", String(40), nullable=False),
    Column("at", Ticks, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("features", Text, nullable=False),
    Column("prediction", Text),
    Column("score", Float),
)
# A look reads its own interval and nothing older, so a tick costs the same after a year.
Index("backstop_requests_by_version", requests.c.model, requests.c.version, requests.c.role, requests.c.at)
Index("backstop_requests_by_time", requests.c.model, requests.c.role, requests.c.at)

labels = Table(
    "backstop_labels",
    log,
    Column("model", String(63), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    # The one that counts; null: two contradict each other for the same moment.
    Column("label", Text),
    Column("at", Ticks, nullable=False),
    Column("contradictions", Integer, nullable=False),
    # Every other one that was told, as JSON, with its newest moment: what is told again is known by it.
    Column("others", Text, nullable=False),
    # When the row was made, or what it says became known where that is later; never changed. On PostgreSQL it tells the
    # partition: a label comes after its request, so whoever reads recent requests reads recent labels only.
    Column("made", Ticks, nullable=False),
)

expired = Table(
    "backstop_expired",
    log,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("at", Ticks, nullable=False),
    # week: a partition; rows: of a model; turn: somebody looked whether there was anything.
    Column("kind", String(10), nullable=False),
    Column("name", String(80), nullable=False),
    Column("rows", BigInteger, nullable=False),
)
"""What was taken out of the log because no policy needs it any more."""
Index("backstop_expired_by_name", expired.c.kind, expired.c.name, expired.c.at)
