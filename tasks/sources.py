"""Sources: rows out of SQL, Parquet, CSV or the user's loader, as they are."""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import (
    Date,
    DateTime,
    Engine,
    MetaData,
    String,
    Table,
    column,
    create_engine,
    func,
    inspect,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import ColumnElement, Select
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.types import Integer, Numeric

from tasks.masking import mask
from tasks.plugins import PluginError, expand, resolve
from tasks.policy import Data, Order
from tasks.policy_problem import near

if TYPE_CHECKING:
    import pandas as pd

_FILES = (".csv", ".csv.gz", ".parquet")
_UNREADABLE = (OSError, ValueError, TypeError, NotImplementedError, EOFError, zlib.error)
"""What the parsers, Arrow and gzip raise."""
_MARGIN = timedelta(days=2)
"""SQL is asked for so much more at both ends, and the rows are cut exactly afterwards: text and naive timestamps cannot
be compared exactly in SQL."""


class DataError(ValueError):
    """Rows that cannot be used.

    Attributes:
        place: Where in a flow it went wrong, for the ledger.
        problems: Everything that is wrong, one sentence each.
    """

    place: ClassVar = "data"

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Tally:
    """What a database says of the rows in a window without giving them.

    Attributes:
        rows: How many.
        marks: Its columns; then per label how many rows, and their oldest and newest moment.
    """

    rows: int
    marks: tuple[str, ...]


def is_file(source: str) -> bool:
    """Whether a source is a file that can be overwritten."""
    return "://" not in source and source.endswith(_FILES)


def read(data: Data, *, start: datetime, end: datetime, environment: Mapping[str, str] = os.environ) -> pd.DataFrame:
    """The rows of a source with all their columns.

    A SQL source is asked for the window and two days around it; files are read whole, a loader decides itself.

    Args:
        data: Where from.
        start: Of the window, aware.
        end: Of the window, aware, not included.
        environment: For ``${NAME}`` in the source.

    Raises:
        DataError: When it cannot be read. No message holds a password.
    """
    try:
        source = expand(data.source, environment)
    except PluginError as error:
        raise DataError(f"data.source {mask(str(error))}") from None
    if "://" in source:
        try:
            return _from_sql(data, source, start, end)
        except DataError as error:
            # Values of the environment may be secrets wherever they stand in the address.
            raise DataError(*(_unexpanded(said, data.source, environment) for said in error.problems)) from None
    if is_file(source):
        return _from_file(data, Path(source))
    return _from_loader(source, start, end)


def _from_file(data: Data, path: Path) -> pd.DataFrame:
    return read_file(path, text={*data.categorical, *(set(data.key) & set(data.drop))})


def read_file(path: Path, *, text: Collection[str] = (), place: str = "data.source") -> pd.DataFrame:
    """The rows of a Parquet or CSV file.

    Args:
        path: Of the file.
        text: Columns of a CSV that stay text although they look like numbers.
        place: Who named the file, for the error.

    Raises:
        DataError: When it is not there or cannot be read.
    """
    try:
        there = path.is_file()
    except OSError as error:
        raise DataError(
            f"{place}: {path} cannot be looked at: {error.strerror}; correct the path, or its rights"
        ) from error
    if not there:
        raise DataError(f"{place}: there is no file {path.resolve()}; correct the path, or put the file there")
    import pandas as pd  # noqa: PLC0415  a tally of the rows needs none

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # pandas would call the second one by a name of its own.
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
        twice = sorted(set(header[header.duplicated() & header.ne("")]))
        if twice:
            raise ValueError(f"column {', '.join(map(repr, twice))} is there twice, rename one of them")
        with warnings.catch_warnings():
            # Rows that are longer than the header would be moved to the left of it, or cut.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Only an empty field is a null here: "NA" may be a word, and tidy() knows which columns hold numbers.
            return pd.read_csv(
                path,
                keep_default_na=False,
                na_values=[""],
                low_memory=False,
                index_col=False,
                dtype=dict.fromkeys(text, str),
            )
    except (*_UNREADABLE, pd.errors.ParserWarning) as error:
        kind = "Parquet" if path.suffix == ".parquet" else "CSV with a header line, in UTF-8"
        raise DataError(f"{place}: {path} cannot be read: {error}; it must be {kind}") from error


def _from_loader(path: str, start: datetime, end: datetime) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  a tally of the rows needs none

    try:
        loader = resolve(path, place="data.source", accepts=("start", "end"))
        frame = loader(start=start, end=end)
    except PluginError as error:
        raise DataError(str(error)) from error
    except Exception as error:
        # The user's code may raise anything.
        raise DataError(f"data.source: {path} raised {type(error).__name__}: {error}; correct the loader") from error
    if not isinstance(frame, pd.DataFrame):
        problem = f"data.source: {path} returned {type(frame).__name__}; it must return a pandas DataFrame"
        raise DataError(problem)
    return frame.rename(columns=str)


def _from_sql(data: Data, source: str, start: datetime, end: datetime) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  a tally of the rows needs none

    with _reading(source) as connection:
        statement, values = _statement(data, connection, start, end)
        rows = connection.execute(statement, values)
        # pandas asks each of SQLAlchemy's rows what it is, which takes twice as long as reading them.
        return pd.DataFrame(list(map(tuple, rows)), columns=list(rows.keys()))


@contextmanager
def _reading(source: str) -> Iterator[Connection]:
    """A connection to a SQL source; what goes wrong there is a DataError without its secrets."""
    url, engine = _engine(source)
    shown = masked(url)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error)
        said = _without(cause, url.password).strip().splitlines()[0]
        remedy = "see that the server runs, that the address is right and that the user may read the table"
        raise DataError(f"data.source: {shown} cannot be read: {said}; {remedy}") from None
    finally:
        engine.dispose()


def _engine(source: str) -> tuple[URL, Engine]:
    try:
        url = make_url(source)
        if url.drivername in {"postgresql", "postgres"}:
            url = url.set(drivername="postgresql+psycopg")  # as for the ledger: it is the driver that is installed
        shown = masked(url)
        memory = url.database in {None, "", ":memory:"} or str(url.database).startswith("file:")
        # SQLite would create an empty database where the file is missing.
        if url.get_backend_name() == "sqlite" and not memory and not Path(str(url.database)).is_file():
            raise DataError(f"data.source: there is no file {url.database} ({shown}); correct the path")
        return url, create_engine(url, poolclass=NullPool, hide_parameters=True)
    except ArgumentError:
        scheme = source.partition("://")[0]
        problem = f"data.source: the address {scheme}://... is no SQLAlchemy URL; write dialect://user@host/database"
        raise DataError(problem) from None
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        remedy = "install the driver (backstop[postgres] has the one for PostgreSQL) or correct the scheme"
        raise DataError(f"data.source: {shown} needs a driver that is not there: {error}; {remedy}") from None


def place(source: str) -> str:
    """The address of a SQL source without its secrets.

    Raises:
        DataError: When it is none.
    """
    try:
        return masked(make_url(source))
    except ArgumentError:
        raise DataError("data.source is no SQLAlchemy URL; write dialect://user@host/database") from None


def masked(url: URL) -> str:
    """The address without its secrets."""
    return mask(url.render_as_string(hide_password=True))


def _without(message: str, password: Any) -> str:
    cleaned = message.replace(str(password), "***") if password else message
    return mask(cleaned)


def _unexpanded(message: str, source: str, environment: Mapping[str, str]) -> str:
    for name in re.findall(r"\$\{(\w+)\}", source):
        for form in (environment[name], *environment[name].split("@")):
            message = message.replace(form, f"${{{name}}}") if len(form) > 2 else message
    return message


def _statement(
    data: Data, connection: Connection, start: datetime, end: datetime
) -> tuple[Select[Any] | TextClause, dict[str, Any]]:
    """What to ask the database, and the values of its bound parameters."""
    if isinstance(data.timestamp, Order) and data.timestamp.column is None:
        raise DataError("data.timestamp: a SQL source has no order of its own; name the `column` that orders the rows")
    sqlite = connection.dialect.name == "sqlite"
    bounds = _bounds(data, start, end, as_text=sqlite)
    if data.query is not None:
        asked = set(text(data.query).compile().params)
        if unknown := sorted(asked - set(bounds)):
            raise DataError(f"data.query has the parameter :{unknown[0]}; only :start and :end are given")
        return text(data.query), {name: value for name, value in bounds.items() if name in asked}
    table = _table(str(data.table), connection)
    # SQLAlchemy reads SQLite's dates in one format only; as text they are read like any other.
    raw = [
        type_coerce(column, String).label(column.name)
        if sqlite and isinstance(column.type, Date | DateTime)
        else column
        for column in table.columns
    ]
    statement = select(*raw)
    if str(data.time_column) not in table.columns:
        return statement.limit(1), {}  # the columns are checked on what comes back
    return _within(statement, data, table, start, end, sqlite=sqlite), {}


def tally(
    data: Data, *, start: datetime, end: datetime, by_label: bool, environment: Mapping[str, str] = os.environ
) -> Tally:
    """Count the rows of a SQL source in a window, in one query and without reading one.

    Args:
        data: Where they are.
        start: Of the window, aware; two days more are counted at both ends.
        end: Of the window, aware.
        by_label: Count every label apart; False: only the rows with and without one.
        environment: For ``${NAME}`` in the source.

    Raises:
        DataError: When it cannot be read, or its moments cannot be compared in SQL.
    """
    source = expand(data.source, environment)
    with _reading(source) as connection:
        asked, values, columns = _countable(data, connection, start, end)
        time, label = (asked.selected_columns[name] for name in (str(data.time_column), data.target))
        apart = label if by_label else label.is_(None)
        counts = asked.with_only_columns(apart, func.count(), func.min(time), func.max(time)).group_by(apart)
        found = connection.execute(counts, values).all()
    return Tally(rows=sum(row[1] for row in found), marks=(columns, *sorted(str(tuple(row)) for row in found)))


def _countable(
    data: Data, connection: Connection, start: datetime, end: datetime
) -> tuple[Select[Any], dict[str, Any], str]:
    """What holds the rows of the window, the values of its bound parameters, and its columns in words."""
    statement, values = _statement(data, connection, start, end)
    if isinstance(statement, Select):
        if statement.whereclause is None:
            raise DataError("data.timestamp: these moments cannot be compared in SQL")
        return statement, values, str([(one.name, str(one.type)) for one in statement.selected_columns])
    rows = text(str(data.query).strip().rstrip(";")).columns(*map(column, (str(data.time_column), data.target)))
    inside = rows.subquery("rows")
    every: Select[Any] = select(literal_column("*")).select_from(inside).limit(0)
    return select(*inside.c), values, str(list(connection.execute(every, values).keys()))


def _table(name: str, connection: Connection) -> Table:
    schema, _, bare = name.rpartition(".")
    there = inspect(connection)
    known = [*there.get_table_names(schema=schema or None), *there.get_view_names(schema=schema or None)]
    if bare not in known:
        listed = ", ".join(sorted(known)[:20]) or "none"
        raise DataError(f"data.table: there is no table {name!r}{near(bare, known)}; there are: {listed}")
    return Table(bare, MetaData(), schema=schema or None, autoload_with=connection)


def _within(
    statement: Select[Any], data: Data, table: Table, start: datetime, end: datetime, *, sqlite: bool
) -> Select[Any]:
    column = table.columns[str(data.time_column)]
    if isinstance(data.timestamp, Order) and isinstance(column.type, String):
        return statement  # numbers stored as text cannot be compared in SQL; the rows are cut afterwards
    if isinstance(data.timestamp, str) and isinstance(column.type, Integer | Numeric):
        return statement.limit(1)  # numbers are no moments; moments() says so
    textual = isinstance(column.type, String) or (sqlite and isinstance(data.timestamp, str))
    compared: ColumnElement[Any] = type_coerce(column, String) if textual else column
    bounds = _bounds(data, start, end, as_text=textual)
    zoned = getattr(column.type, "timezone", False)
    if not textual and isinstance(data.timestamp, str) and not zoned:
        bounds = {name: value.replace(tzinfo=None) for name, value in bounds.items()}
    # A row without a time is a problem to report, not one to overlook.
    inside = (compared >= bounds["start"]) & (compared < bounds["end"])
    return statement.where(inside | column.is_(None))


def _bounds(data: Data, start: datetime, end: datetime, *, as_text: bool) -> dict[str, Any]:
    """The window with its margin: ordinals where an order is read as time, else dates as text, else moments."""
    first, last = _earlier(start), _later(end)
    if isinstance(data.timestamp, Order):
        return {"start": ordinal(data.timestamp, start), "end": ordinal(data.timestamp, end) + 1}
    if as_text:
        return {"start": first.date().isoformat(), "end": last.date().isoformat()}
    return {"start": first, "end": last}


def _earlier(moment: datetime) -> datetime:
    return moment - _MARGIN if moment - datetime.min.replace(tzinfo=UTC) > _MARGIN else moment


def _later(moment: datetime) -> datetime:
    return moment + _MARGIN if datetime.max.replace(tzinfo=UTC) - moment > _MARGIN else moment


def ordinal(order: Order, moment: datetime) -> int:
    """The last ordinal that is not after a moment."""
    return (moment - datetime.combine(order.start, time(), UTC)) // order.step
