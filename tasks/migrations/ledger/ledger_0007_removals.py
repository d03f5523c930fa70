"""Removals: which evidence a policy's retention has taken out, so that it is not taken for lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database import Moment

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Nothing that is there changes; until now no evidence was ever removed."""
    op.create_table(
        "backstop_removals",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("before", Moment, nullable=False),
        sa.Column("digests", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
    )
    op.create_index("backstop_removals_by_model", "backstop_removals", ["model", "id"])
