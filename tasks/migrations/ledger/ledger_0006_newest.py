"""The newest decisions of a model, and the facts that decide what may come back, found without reading the others."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """No row changes."""
    op.create_index("backstop_decisions_by_model", "backstop_decisions", ["model", "id"])
    op.create_index("backstop_facts_by_fact", "backstop_facts", ["model", "fact", "id"])
