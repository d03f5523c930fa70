"""Lessons: which feedback went into which version that was learned online."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database import Moment

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing that is there changes; until now nothing was learned online."""
    op.create_table(
        "backstop_lessons",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.String(40)),
        sa.Column("base", sa.String(40), nullable=False),
        sa.Column("requests", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("trail", sa.String(64), nullable=False),
    )
    op.create_index("backstop_lessons_by_model", "backstop_lessons", ["model", "id"])
