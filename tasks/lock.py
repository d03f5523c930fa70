"""Lock: one model's, which lives and dies with a database connection."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from tasks import schema
from tasks.database import Busy


def lock(connection: Connection, model: str) -> None:
    """Lock the model's row until the transaction ends; the row is there afterwards.

    On SQLite the transaction has locked the whole file already.

    Raises:
        Busy: When somebody else has held the lock for longer than the database waits.
    """
    rows = schema.models
    query = select(rows.c.head).where(rows.c.model == model).with_for_update()
    try:
        if connection.execute(query).one_or_none() is not None:
            return
        with suppress(IntegrityError), connection.begin_nested():  # another process made it first: then it is there
            connection.execute(insert(rows).values(model=model, head=0))
        connection.execute(query).one()
    except OperationalError as error:
        raise Busy.meant_by(error, f"the lock of {model}") from error
