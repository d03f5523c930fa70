"""The three databases on a PostgreSQL server, made when they are missing."""

from __future__ import annotations

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from stack.settings import DATABASES, StackError


def prepare(server: URL) -> tuple[str, ...]:
    """See that all three are there, and that Prefect's has the extension that its tables need.

    Args:
        server: Without a database name; a password that it lacks is PGPASSWORD or in ``~/.pgpass``.

    Returns:
        Names of those that were made.

    Raises:
        StackError: When the server does not answer, or the user may not make what is missing; says what a person who
            may has to type.
    """
    shown = server.render_as_string(hide_password=True)
    try:
        there = set(_ask(server.set(database="postgres"), "SELECT datname FROM pg_database"))
        missing = tuple(name for name in DATABASES if name not in there)
        for name in missing:
            _ask(server.set(database="postgres"), f'CREATE DATABASE "{name}"')
    except ImportError as error:
        raise StackError(f"PostgreSQL needs the extra `postgres` ({error}); `make` installs it") from None
    except SQLAlchemyError as error:
        made = "; ".join(f"CREATE DATABASE {name}" for name in DATABASES)
        raise StackError(
            f"the databases at {shown} cannot be had: {_said(error)}. See that the server runs and that DATABASE is "
            f"right, or let somebody who may do so type: {made}"
        ) from None
    try:
        _ask(server.set(database=DATABASES[0]), "CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except SQLAlchemyError as error:
        raise StackError(
            f"Prefect's server needs the extension pg_trgm in the database {DATABASES[0]} at {shown}: {_said(error)}. "
            "Install PostgreSQL's contrib package, and let a superuser type there: CREATE EXTENSION pg_trgm"
        ) from None
    return missing


def _ask(url: URL, statement: str) -> list[str]:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args={"connect_timeout": 10},
    )
    with engine.connect() as connection:
        answer = connection.execute(text(statement))
        return [str(row[0]) for row in answer] if answer.returns_rows else []


def _said(error: SQLAlchemyError) -> str:
    told = error.orig if isinstance(error, DBAPIError) else error
    return (str(told).strip() or type(told).__name__).splitlines()[0]
