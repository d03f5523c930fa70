"""The SQL databases that last: how one is opened, how it is locked, how moments are stored.

SQLite by default, PostgreSQL for teams. The statements are the same for both; only what belongs to a connection
(how a transaction begins, what a lock is) knows which of the two it talks to.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    Select,
    TypeDecorator,
    column,
    create_engine,
    event,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool

from tasks.policy import as_utc

_BUSY_MS = 60_000
"""How long a writer waits for another one before it gives up. A transition holds the lock for a few calls to MLflow."""

_ON_POSTGRESQL = (
    f"SET lock_timeout = {_BUSY_MS}",
    # The server lets go of the lock of a client whose machine vanished within two minutes, not two hours.
    "SET tcp_keepalives_idle = 60",
    "SET tcp_keepalives_interval = 20",
    "SET tcp_keepalives_count = 3",
)

_TO_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 60,
    "keepalives_interval": 20,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""What libpq is told unless the URL says otherwise: a machine that does not answer is noticed soon."""

_MIGRATIONS = Path(__file__).with_name("migrations")

_SCHEMA_LOCK = 7_236_017
"""Any number will do, as long as everybody who creates tables on PostgreSQL takes the same."""

_COUNTING = Lock()
_USERS: Counter[Engine] = Counter()
"""How many have each database open; a pool that one of them emptied would lose what the others hold."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SchemaTooNew(RuntimeError):
    """The tables were made by a later version of Backstop than this one."""


class Busy(RuntimeError):
    """Somebody else has held a lock for longer than anybody should."""

    @classmethod
    def meant_by(cls, error: OperationalError, what: str) -> Exception:
        """What the database's error means: that a lock could not be had, or something else, which stays as it is.

        Args:
            error: Of the database.
            what: Could not be had.
        """
        said = str(error.orig).lower()
        if "database is locked" not in said and "lock timeout" not in said:
            return error
        return cls(
            f"{what} could not be had for {_BUSY_MS // 1000} seconds: another run holds it, perhaps because MLflow "
            "does not answer it. Nothing was changed; see what that run does, and run this one again"
        )


class Full(OSError):
    """A disk has no room left."""

    @staticmethod
    def told_by(error: Exception) -> bool:
        """Whether this is what a database says then: SQLite in its words, PostgreSQL in the system's.

        SQLite cannot even read without room for its index of the log, and then speaks of the disk only.
        """
        said = str(error).lower()
        return any(sign in said for sign in ("disk is full", "no space left on device", "disk i/o error"))


class Lost(ConnectionError):
    """A database server cannot be reached, or went away in the middle.

    Attributes:
        orig: What its driver said.
    """

    def __init__(self, url: str, orig: object) -> None:
        self.orig = orig
        said = (str(orig).strip() or type(orig).__name__).splitlines()[0]
        super().__init__(
            f"{url} does not answer ({said}); what was not committed did not happen, and what was begun is completed "
            "or given up by the next run. See that the server runs, and run again"
        )

    @staticmethod
    def told_by(error: OperationalError) -> bool:
        """Whether this is what PostgreSQL's driver says then: there is no server left to give it a code."""
        code = getattr(error.orig, "sqlstate", "")
        return error.connection_invalidated or code is None or str(code).startswith(("08", "57P"))


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
        return None if value is None else moment(value)


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970, exact.

    Raises:
        ValueError: For a naive datetime.
    """
    return (as_utc(moment) - _EPOCH) // _MICROSECOND


def moment(ticks: int) -> datetime:
    """The moment so many microseconds after the beginning of 1970; aware, in UTC."""
    return _EPOCH + int(ticks) * _MICROSECOND


class Database:
    """One opened database.

    Attributes:
        url: Without the password, for messages.
        engine: Its transactions begin when they are told to, not when SQLite's driver thinks so.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.url = engine.url.render_as_string(hide_password=True)
        self._closed = False
        with _COUNTING:
            _USERS[engine] += 1

    @classmethod
    def open(cls, url: str, *, part: str, revision: str) -> Database:
        """Connect, and make the tables, or bring older ones up to date.

        Args:
            url: SQLAlchemy URL; the folder of a SQLite file is created.
            part: ``ledger`` or ``requests``, the folder of its migrations; both may share a database.
            revision: The newest migration that this code knows.

        Raises:
            SchemaTooNew: When the tables were made by a later version.
            ValueError: When the URL cannot be read.
            sqlalchemy.exc.OperationalError: When the database cannot be reached.
        """
        parsed = _parse(url)
        database = cls(_engine(parsed))
        try:
            _prepare(database, part, revision)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reading; it blocks nobody."""
        with self._with_room(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that may write; committed at the end, undone by an exception.

        On SQLite it is the only writer from its first moment (``BEGIN IMMEDIATE``): a transaction that reads first and
        writes later could otherwise find that somebody else wrote in between, and fail.
        """
        with self._with_room(), self.engine.connect().execution_options(immediate=True) as connection:
            try:
                transaction = connection.begin()
            except OperationalError as error:
                raise Busy.meant_by(error, f"the lock of {self.url}") from error
            with transaction:
                yield connection

    def close(self) -> None:
        """Let go of every connection, unless somebody else in this process has the database open."""
        with _COUNTING:
            _USERS[self.engine] -= not self._closed
            self._closed, last = True, _USERS[self.engine] <= 0
            if last:
                del _USERS[self.engine]
        if last:
            self.engine.dispose()

    @contextmanager
    def _with_room(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            if Full.told_by(error):
                raise Full(
                    f"there is no room left for {self.url}, or its disk is broken ({error.orig}); nothing was written "
                    "there. Make room on its disk, and run again"
                ) from error
            if Lost.told_by(error):
                raise Lost(self.url, error.orig) from error
            raise


def _prepare(database: Database, part: str, revision: str) -> None:
    """See that the tables are those that this code knows; make or upgrade them where they are older.

    Raises:
        SchemaTooNew: When they are newer.
    """
    with database.reading() as connection:
        found = _revision_of(connection, part)
    if found is None or found < revision:
        found = _upgrade(database, part, revision)
    if found > revision:
        raise SchemaTooNew(
            f"the {part} tables at {database.url} have version {found}, and this Backstop knows {revision}; update "
            "Backstop, or point it to another database"
        )


def _upgrade(database: Database, part: str, revision: str) -> str:
    """Run the migrations unless somebody else did meanwhile; the revision that is there now."""
    if database.engine.dialect.name == "sqlite":
        _write_ahead(database.engine)
    with database.writing() as connection:
        if database.engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        found = _revision_of(connection, part)
        if found is None or found < revision:
            _migrate(connection, part, found)
            found = revision
    return found


def _migrate(connection: Connection, part: str, found: str | None, *, to: str = "head") -> None:
    from alembic import command  # noqa: PLC0415  an open that finds everything in place must not pay for it
    from alembic.config import Config  # noqa: PLC0415  see above

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("version_locations", str(_MIGRATIONS / part))
    config.set_main_option("path_separator", "newline")  # the default splits the path at spaces and colons
    config.attributes.update(connection=connection, version_table=_version_table(part))
    if found is not None and not inspect(connection).has_table(_version_table(part)):
        command.stamp(config, found)
    command.upgrade(config, to)


def _version_table(part: str) -> str:
    return f"backstop_{part}_version"


def _revision_of(connection: Connection, part: str) -> str | None:
    """The newest migration that was run, or None where there are no tables yet."""
    there, name = inspect(connection), _version_table(part)
    if there.has_table(name):
        return connection.execute(_question(part)).scalar_one_or_none()
    if there.has_table("backstop_schema"):  # before there were migrations the version was a number in this table
        known = table("backstop_schema", column("part"), column("version"))
        number = connection.execute(select(known.c.version).where(known.c.part == part)).scalar_one_or_none()
        return None if number is None else f"{number:04d}"
    return None


@cache
def _question(part: str) -> Select[Any]:
    """For the newest migration; a table that is described anew would be another one to SQLAlchemy's memory."""
    return select(column("version_num")).select_from(table(_version_table(part)))


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


@lru_cache(maxsize=8)
def _engine(url: URL) -> Engine:
    """One for all who open this database: it remembers the statements that it has put into words.

    A tick of the watch opens ledger and log for each of its models, and would word the same questions anew each time.
    """
    if url.get_backend_name() != "sqlite":
        if url.get_backend_name() != "postgresql":
            return create_engine(url, pool_pre_ping=True)
        given = {name: value for name, value in _TO_POSTGRESQL.items() if name not in url.query}
        engine = create_engine(url, pool_pre_ping=True, connect_args=given)
        event.listen(engine, "connect", _on_connect_to_server)
        return engine
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


def _on_connect_to_server(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        for statement in _ON_POSTGRESQL:
            cursor.execute(statement)
    connection.commit()


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
