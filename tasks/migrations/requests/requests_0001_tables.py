"""The request log's first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database import Ticks

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Requests and labels."""
    op.create_table(
        "backstop_requests",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("role", sa.String(20), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("at", Ticks, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("features", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text),
        sa.Column("score", sa.Float),
    )
    op.create_index("backstop_requests_by_version", "backstop_requests", ["model", "version", "role", "at"])
    op.create_index("backstop_requests_by_time", "backstop_requests", ["model", "role", "at"])
    op.create_table(
        "backstop_labels",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("at", Ticks, nullable=False),
        sa.Column("contradictions", sa.Integer, nullable=False),
    )
