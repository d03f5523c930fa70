"""The request log in weeks on PostgreSQL; when a label was first put down, and what has expired, on every database.

In one transaction, under a lock that keeps everybody out: no row is copied, the tables that are there become the first
partition of the new ones. It takes as long as reading through them once, which is how PostgreSQL makes sure of their
bounds. A gateway meanwhile answers; its rows wait, and after a minute go to its disk, from where they come afterwards.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from tasks.database import Ticks, microseconds
from tasks.partitions import LABELS, REQUESTS, WEEK, Sliced, week_of

revision = "0003"
down_revision = "0002"

_INDEXES = {
    "backstop_requests_by_version": ["model", "version", "role", "at"],
    "backstop_requests_by_time": ["model", "role", "at"],
}


def upgrade() -> None:
    """Every row is kept, and so are the rights and the triggers of the tables."""
    _create_expired()
    bind, now = op.get_bind(), microseconds(datetime.now(UTC))
    divided = bind.dialect.name == "postgresql"
    if divided:
        op.execute("LOCK TABLE backstop_requests, backstop_labels IN ACCESS EXCLUSIVE MODE")
    newest = bind.execute(sa.text("SELECT MAX(at) FROM backstop_requests")).scalar_one_or_none() or now
    # No request that is there may be later than this says, or its label would not be looked for.
    made = max(now, min(int(newest), now + 8 * WEEK))
    op.execute(f"ALTER TABLE backstop_labels ADD COLUMN made BIGINT NOT NULL DEFAULT {made}")
    if not divided:
        return
    op.execute("ALTER TABLE backstop_labels ALTER COLUMN made DROP DEFAULT")
    for table, indexes, end in ((REQUESTS, _INDEXES, now), (LABELS, {}, made)):
        _divide(bind, table, indexes, week_of(end) + WEEK)


def _create_expired() -> None:
    op.create_table(
        "backstop_expired",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("at", Ticks, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
    )
    op.create_index("backstop_expired_by_name", "backstop_expired", ["kind", "name", "at"])


def _divide(bind: sa.Connection, table: Sliced, indexes: dict[str, list[str]], end: int) -> None:
    triggers, rights = _triggers(bind, table.name), _rights(bind, table.name)
    op.rename_table(table.name, table.before)
    for name in indexes:
        op.execute(f"ALTER INDEX {name} RENAME TO {name.replace(table.name, table.before)}")
    op.execute(f"CREATE TABLE {table.name} (LIKE {table.before} INCLUDING DEFAULTS) PARTITION BY RANGE ({table.key})")
    for name, columns in indexes.items():
        op.create_index(name, table.name, columns)
    unique = ", ".join(table.unique)
    op.execute(f"CREATE TABLE {table.rest} (LIKE {table.name} INCLUDING DEFAULTS, PRIMARY KEY ({unique}))")
    op.execute(f"ALTER TABLE {table.name} ATTACH PARTITION {table.rest} DEFAULT")
    _keep_before(bind, table, end)
    for name, definition in triggers:
        op.execute(f'DROP TRIGGER IF EXISTS "{name}" ON {table.before}')
        op.execute(definition.replace(":", "\\:"))
    for grantee, right in rights:
        op.execute(f"GRANT {right} ON {table.name} TO {grantee}")


def _keep_before(bind: sa.Connection, table: Sliced, end: int) -> None:
    """The old table as the partition of everything until the end of this week; what is later goes to the rest."""
    moved = f"DELETE FROM {table.before} WHERE {table.key} >= {end} RETURNING *"  # noqa: S608  constants
    op.execute(f"WITH moved AS ({moved}) INSERT INTO {table.rest} SELECT * FROM moved")  # noqa: S608  constants
    if bind.execute(sa.text(f"SELECT 1 FROM {table.before} LIMIT 1")).first() is None:  # noqa: S608  a constant
        # Somebody's view may rest on an empty table too; then it stays, as the partition that it would be with rows.
        with suppress(sa.exc.DBAPIError), bind.begin_nested():
            bind.execute(sa.text(f"DROP TABLE {table.before}"))
            return
    op.execute(f"ALTER TABLE {table.name} ATTACH PARTITION {table.before} FOR VALUES FROM (MINVALUE) TO ({end})")


def _triggers(bind: sa.Connection, table: str) -> list[tuple[str, str]]:
    """(name, definition) of the triggers that somebody put on a table; they follow it when it is renamed."""
    asked = (
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = to_regclass(:name) AND NOT tgisinternal"
    )
    return [(row[0], row[1]) for row in bind.execute(sa.text(asked), {"name": table})]


def _rights(bind: sa.Connection, table: str) -> list[tuple[str, str]]:
    """(who, what) somebody was granted on a table; who is quoted where that is needed."""
    asked = (
        "SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type "
        "FROM pg_class c CROSS JOIN aclexplode(c.relacl) a "
        "WHERE c.oid = to_regclass(:name) AND a.grantee <> c.relowner"
    )
    return [(row[0], row[1]) for row in bind.execute(sa.text(asked), {"name": table})]
