"""A hash chain over the rows, and the evidence that verdicts rest on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks import chain

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """The rows that are there already become the first links of their model's chain."""
    op.create_table(
        "backstop_chain",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("row", sa.String(40), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_table(
        "backstop_evidence",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.add_column("backstop_decisions", sa.Column("evidence", sa.String(64)))
    chain.seal(op.get_bind())
    # Code from before there was a chain must not write beside it.
    connection = op.get_bind()
    if sa.inspect(connection).has_table("backstop_schema"):
        connection.execute(sa.text("UPDATE backstop_schema SET version = 2 WHERE part = 'ledger'"))
