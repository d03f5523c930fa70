"""Progressive rollouts: which share of the requests a canary is given, step by step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database import Moment

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Nothing that is there changes; until now nothing was rolled out step by step."""
    op.create_table(
        "backstop_rollouts",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("baseline", sa.String(40), nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("started", Moment, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("trail", sa.String(64), nullable=False),
        sa.Column("flow_run_id", sa.String(64)),
    )
    op.create_index("backstop_rollouts_by_model", "backstop_rollouts", ["model", "id"])
