"""Requests and labels by model: until now a request id could be used by one model of a log only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database import Ticks

revision = "0002"
down_revision = "0001"

_REQUESTS = "request_id, role, model, version, at, seconds, failed, features, prediction, score"
_INTO = "INSERT INTO backstop_labels (model, request_id, label, at, contradictions, others)"
_WITHOUT_REQUEST = """
    SELECT {model}, l.request_id, l.label, l.at, l.contradictions, '{{}}' FROM backstop_labels_0001 l {models}
    WHERE NOT EXISTS (SELECT 1 FROM backstop_requests r WHERE r.request_id = l.request_id)
"""
_WITH_REQUEST = """
    SELECT DISTINCT r.model, l.request_id, l.label, l.at, l.contradictions, '{}'
    FROM backstop_labels_0001 l JOIN backstop_requests r ON r.request_id = l.request_id
"""
_NONE = " AND NOT EXISTS (SELECT 1 FROM backstop_requests)"
_MODELS = "(SELECT DISTINCT model FROM backstop_requests) m"


def upgrade() -> None:
    """Every row is kept. A label whose request has not come is kept for each model: until now ids told them apart."""
    for name in ("backstop_requests_by_version", "backstop_requests_by_time"):
        op.drop_index(name, "backstop_requests")
    for name in ("backstop_requests", "backstop_labels"):
        op.rename_table(name, f"{name}_0001")
    _create()
    op.execute(
        f"INSERT INTO backstop_requests ({_REQUESTS}) SELECT {_REQUESTS} FROM backstop_requests_0001"  # noqa: S608  constants
    )
    op.execute(_INTO + _WITH_REQUEST)
    op.execute(_INTO + _WITHOUT_REQUEST.format(model="m.model", models=f"CROSS JOIN {_MODELS}"))
    # No request was ever put down: nobody knows whose they are.
    op.execute(_INTO + _WITHOUT_REQUEST.format(model="''", models="") + _NONE)
    for name in ("backstop_requests", "backstop_labels"):
        op.drop_table(f"{name}_0001")
    op.create_index("backstop_requests_by_version", "backstop_requests", ["model", "version", "role", "at"])
    op.create_index("backstop_requests_by_time", "backstop_requests", ["model", "role", "at"])


def _create() -> None:
    op.create_table(
        "backstop_requests",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("role", sa.String(20), primary_key=True),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("at", Ticks, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("features", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text),
        sa.Column("score", sa.Float),
    )
    op.create_table(
        "backstop_labels",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("label", sa.Text),
        sa.Column("at", Ticks, nullable=False),
        sa.Column("contradictions", sa.Integer, nullable=False),
        sa.Column("others", sa.Text, nullable=False),
    )
