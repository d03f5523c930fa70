"""What has to be told: written down before it is tried, so that no dead sink and no killed process loses it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database import Moment

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Nothing that is there changes; what was tried stays in the table of notifications."""
    op.create_table(
        "backstop_messages",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("trail", sa.String(64), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("due", Moment, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
    )
    op.create_index("backstop_messages_due", "backstop_messages", ["model", "state", "due"])
