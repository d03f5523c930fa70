"""The ledger's first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database import Moment

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Models, transitions, decisions, facts, versions and notifications."""
    op.create_table(
        "backstop_models",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("head", sa.Integer, nullable=False),
    )
    op.create_table(
        "backstop_transitions",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(63), sa.ForeignKey("backstop_models.model"), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("previous", sa.String(40)),
        sa.Column("production", sa.String(40)),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("trail", sa.String(64), nullable=False),
        sa.Column("flow_run_id", sa.String(64)),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("intended_at", Moment, nullable=False),
        sa.Column("applied_at", Moment),
        sa.UniqueConstraint("model", "seq"),
    )
    op.create_index("backstop_transitions_served", "backstop_transitions", ["model", "applied_at"])
    op.create_table(
        "backstop_decisions",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("trail", sa.String(64), nullable=False),
        sa.Column("judge", sa.String(20), nullable=False),
        sa.Column("decision", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("flow_run_id", sa.String(64)),
        sa.Column("version", sa.String(40)),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("span_start", Moment),
        sa.Column("span_end", Moment),
    )
    op.create_index("backstop_decisions_by_judge", "backstop_decisions", ["model", "judge", "id"])
    op.create_index("backstop_decisions_by_trail", "backstop_decisions", ["trail"])
    op.create_table(
        "backstop_facts",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("fact", sa.String(20), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("trail", sa.String(64), nullable=False),
    )
    op.create_index("backstop_facts_by_version", "backstop_facts", ["model", "version", "id"])
    op.create_table(
        "backstop_versions",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.String(40), primary_key=True),
        sa.Column("run_id", sa.String(64)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("trained_at", Moment),
        sa.Column("profile", sa.Text),
    )
    op.create_table(
        "backstop_notifications",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("trail", sa.String(64), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_index("backstop_notifications_by_model", "backstop_notifications", ["model", "id"])
