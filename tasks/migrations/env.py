"""What alembic runs to upgrade one part, on the connection and in the transaction that it is given."""

from __future__ import annotations

from alembic import context

given = context.config.attributes
# The caller's transaction holds the lock: an upgrade is done as a whole, by one process, or not at all.
context.configure(connection=given["connection"], version_table=given["version_table"], transactional_ddl=True)
context.run_migrations()
