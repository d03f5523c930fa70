"""The SQL databases that last: how one is opened, how it is locked, how moments are stored.

SQLite by default, PostgreSQL for teams. The statements are the same for both; only what belongs to a connection
(how a transaction begins, what a lock is) knows which of the two it talks to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from tasks.policy import as_utc

_BUSY_MS = 30_000
"""How long SQLite waits for another writer before it gives up."""

_SCHEMA_LOCK = 7_236_017
"""Any number will do, as long as everybody who creates tables on PostgreSQL takes the same."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SchemaTooNew(RuntimeError):
    """The tables were made by a later version of Backstop than this one."""


class Moment(TypeDecorator[datetime]):
    """An aware moment: given in any zone, kept in UTC, and aware again when it comes back.

    SQLite has no zones and would return it naive.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC; without the zone where the database cannot keep one."""
        if value is None:
            return None
        return as_utc(value).replace(tzinfo=None) if dialect.name == "sqlite" else as_utc(value)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Ticks(TypeDecorator[datetime]):
    """An aware moment as whole microseconds since 1970: integers can be counted by intervals on any database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Microseconds since 1970."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, _dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        return None if value is None else _EPOCH + int(value) * _MICROSECOND


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970, exact.

    Raises:
        ValueError: For a naive datetime.
    """
    return (as_utc(moment) - _EPOCH) // _MICROSECOND


class Database:
    """One opened database.

    Attributes:
        url: Without the password, for messages.
        engine: Its transactions begin when they are told to, not when SQLite's driver thinks so.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.url = engine.url.render_as_string(hide_password=True)

    @classmethod
    def open(cls, url: str, metadata: MetaData, *, part: str, version: int) -> Database:
        """Connect, and create the tables if they are not there.

        Args:
            url: SQLAlchemy URL; the folder of a SQLite file is created.
            metadata: The tables.
            part: Name under which the version of these tables is kept; several parts may share a database.
            version: Of the tables, as this code knows them.

        Raises:
            SchemaTooNew: When the tables were made by a later version.
            ValueError: When the URL cannot be read.
            sqlalchemy.exc.OperationalError: When the database cannot be reached.
        """
        parsed = _parse(url)
        database = cls(_engine(parsed))
        try:
            _prepare(database, metadata, part, version)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reading; it blocks nobody."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that may write; committed at the end, undone by an exception.

        On SQLite it is the only writer from its first moment (``BEGIN IMMEDIATE``): a transaction that reads first and
        writes later could otherwise find that somebody else wrote in between, and fail.
        """
        with self.engine.connect().execution_options(immediate=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


def _prepare(database: Database, metadata: MetaData, part: str, version: int) -> None:
    versions = _versions_table()
    with database.reading() as connection:
        found = _version_of(connection, versions, part)
    if found is None:
        found = _create(database, versions, metadata, part, version)
    if found > version:
        raise SchemaTooNew(
            f"the {part} tables at {database.url} have version {found}, and this Backstop knows {version}; update "
            "Backstop, or point it to another database"
        )


def _create(database: Database, versions: Table, metadata: MetaData, part: str, version: int) -> int:
    """Create the tables unless somebody else did meanwhile; the version that is there now."""
    if database.engine.dialect.name == "sqlite":
        _write_ahead(database.engine)
    with database.writing() as connection:
        if database.engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        found = _version_of(connection, versions, part)
        if found is None:
            versions.metadata.create_all(connection)
            metadata.create_all(connection)
            connection.execute(insert(versions).values(part=part, version=version))
    return version if found is None else found


def _versions_table() -> Table:
    return Table(
        "backstop_schema",
        MetaData(),
        Column("part", String(40), primary_key=True),
        Column("version", Integer, nullable=False),
    )


def _version_of(connection: Connection, versions: Table, part: str) -> int | None:
    if not inspect(connection).has_table(versions.name):
        return None
    return connection.execute(select(versions.c.version).where(versions.c.part == part)).scalar_one_or_none()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(
            "a database URL could not be read; write it as sqlite:////path/file.db or postgresql://user@host/name"
        ) from error
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            raise ValueError(f"{url!r} is a database in memory, which forgets; write sqlite:////path/file.db")
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    # A connection to a file costs nothing to open, and one that is not pooled cannot keep a lock or outlive a fork.
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": _BUSY_MS / 1000})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own idea of when to begin hides BEGIN IMMEDIATE
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _write_ahead(engine: Engine) -> None:
    """Let readers go on while somebody writes; kept in the file, so that later openings find it done."""
    connection = engine.raw_connection()
    try:
        # Somebody else who switches the same new file at this moment has done it for both.
        with suppress(sqlite3.OperationalError):
            connection.cursor().execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _on_begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
