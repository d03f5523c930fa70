"""A home that has grown: a quiet one whose rows are multiplied, as months, traffic and many models would leave them.

Months of ticks cannot be waited for. What the product writes is written by the product once (see
:mod:`benchmarks.quiet_home`); then its rows are copied inside the databases, with other names, moments and numbers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, inspect, text

from benchmarks.quiet_home import Home
from tasks import chain
from tasks.case import Case, open_case
from tasks.database import microseconds
from tasks.policy_file import load

MODEL = "m0"
"""Of the quiet home; the copies have other names."""
_LEDGER = ("models", "transitions", "decisions", "facts", "versions", "chain")
_MLFLOW = ("registered_models", "model_versions", "registered_model_aliases")


def copied(home: Home, folder: Path) -> Home:
    """The same home once more; only the files of the models stay where they are."""
    shutil.copytree(home.folder, folder)
    found = Home(folder)
    policy = found.policy.read_text("utf-8").replace(str(home.folder), str(folder))
    found.policy.write_text(policy, "utf-8")
    return found


def case(home: Home, at: datetime | None = None) -> Case:
    """As a flow opens it."""
    return open_case(load(home.policy), actor="benchmarks.growth", now=at, stores=home.stores)


@contextmanager
def database(url: str) -> Iterator[Connection]:
    """A transaction that does not wait for the disk: nobody else reads this home."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            connection.commit()
        with connection.begin():
            yield connection
    engine.dispose()


def copy(connection: Connection, table: str, other: Mapping[str, str], source: str = "", **given: Any) -> None:
    """Add copies of rows, in one statement.

    Args:
        connection: In a transaction.
        table: Whose rows.
        other: SQL by column, for columns that get another value; an ``id`` gets the next one.
        source: What follows ``FROM table``; one copy is made of each row that this gives.
        given: Parameters of the SQL.
    """
    names = [one["name"] for one in inspect(connection).get_columns(table) if one["name"] != "id"]
    values = ", ".join(other.get(name, f't."{name}"') for name in names)
    columns = ", ".join(f'"{name}"' for name in names)
    connection.execute(text(f'INSERT INTO "{table}" ({columns}) SELECT {values} FROM "{table}" t {source}'), given)  # noqa: S608  our own names


def _numbers(first: int, last: int) -> str:
    """A table ``n`` with the whole numbers of a range, in a column ``k``; one copy for each."""
    several = f"WITH RECURSIVE c(k) AS (VALUES ({first}) UNION ALL SELECT k + 1 FROM c WHERE k < {last})"  # noqa: S608  numbers
    return f"CROSS JOIN ({several} SELECT k FROM c) n"  # noqa: S608  see above


def models(home: Home, count: int) -> Path:
    """So many copies of the one model, each with a policy, its history and its requests; the folder of the policies."""
    source = f"{_numbers(1, count)} WHERE t.{{key}} = '{MODEL}'"
    with database(home.stores.ledger) as connection:
        for name in _LEDGER:
            copy(connection, f"backstop_{name}", {"model": "'c' || n.k"}, source.format(key="model"))
    with database(home.stores.requests) as connection:
        copy(connection, "backstop_requests", {"model": "'c' || n.k"}, source.format(key="model"))
    with database(home.stores.tracking) as connection:
        for name in _MLFLOW:
            copy(connection, name, {"name": "'c' || n.k"}, source.format(key="name"))
    folder = home.folder / "copies"
    folder.mkdir(exist_ok=True)
    policy = home.policy.read_text("utf-8")
    for number in range(1, count + 1):
        (folder / f"c{number}.yaml").write_text(policy.replace(f"model: {MODEL}", f"model: c{number}"), "utf-8")
    return folder


def requests(home: Home, count: int, *, start: datetime, end: datetime, first: int = 0) -> None:
    """So many more requests that were answered well, at even steps of this stretch of time.

    Args:
        home: Whose.
        count: How many.
        start: Of the stretch.
        end: Of the stretch.
        first: Number of the first one; those of one stretch have different numbers.
    """
    step = max(1, (microseconds(end) - microseconds(start)) // max(1, count))
    moment = f"{microseconds(start)} + (n.k - {first}) * {step}"
    with database(home.stores.requests) as connection:
        one = connection.execute(
            text("SELECT request_id FROM backstop_requests WHERE model = :model AND NOT failed LIMIT 1"),
            {"model": MODEL},
        ).scalar_one()
        other = {"request_id": f"'{start:%y%m%d}-' || printf('%012d', n.k)", "at": moment}
        where = f"{_numbers(first, first + count - 1)} WHERE t.request_id = :one"
        copy(connection, "backstop_requests", other, where, one=one)


def decisions(home: Home, count: int, judge: str = "health") -> None:
    """So many more verdicts before those that there are, each the first one of the watch, and the chain anew.

    Args:
        home: Whose.
        count: How many.
        judge: Whom they are put down for.
    """
    with database(home.stores.ledger) as connection:
        oldest = "(SELECT MIN(id) FROM backstop_decisions WHERE model = :model AND judge = 'health')"
        where = f"{_numbers(1, count)} WHERE t.id = {oldest}"
        last = connection.execute(text("SELECT MAX(id) FROM backstop_decisions")).scalar_one()
        copy(connection, "backstop_decisions", {"judge": f"'{judge}'"}, where, model=MODEL)
        # Those that were there come last, as they did before.
        shift = "UPDATE backstop_decisions SET id = id + :by WHERE id <= :last"
        connection.execute(text(shift), {"by": 10 * (last + count), "last": last})
        connection.execute(text("DELETE FROM backstop_chain"))  # every row is linked anew, of every model
        chain.seal(connection)


def versions(home: Home, count: int) -> None:
    """So many more versions that were rejected, in MLflow and in the ledger, before the one that serves now.

    Each has its transitions and facts: it was staged, and taken out of Staging again.
    """
    with database(home.stores.tracking) as connection:
        where = f"{_numbers(2, count + 1)} WHERE t.name = :model AND t.version = 1"
        other = {"version": "n.k", "current_stage": "'Archived'"}
        copy(connection, "model_versions", other, where, model=MODEL)
        tags = f"{_numbers(2, count + 1)} WHERE t.name = :model AND t.version = 1"
        copy(connection, "model_version_tags", {"version": "n.k"}, tags, model=MODEL)
    with database(home.stores.ledger) as connection:
        connection.execute(text("PRAGMA foreign_keys=OFF"))
        copy(connection, "backstop_versions", {"version": "n.k"}, f"{_numbers(2, count + 1)} WHERE t.model = '{MODEL}'")
        copy(
            connection,
            "backstop_facts",
            {"version": "n.k", "fact": "'rejected'"},
            f"{_numbers(2, count + 1)} WHERE t.model = '{MODEL}' AND t.fact = 'known-good'",
        )
        head = connection.execute(
            text("SELECT head FROM backstop_models WHERE model = :model"), {"model": MODEL}
        ).scalar_one()
        for place, action in enumerate(("stage", "reject")):
            other = {
                "version": "n.k",
                "seq": f"{head} + (n.k - 2) * 2 + {place + 1}",
                "action": f"'{action}'",
                "previous": "'1'",
                "production": "'1'",
            }
            where = f"{_numbers(2, count + 1)} WHERE t.model = '{MODEL}' AND t.action = 'promote'"
            copy(connection, "backstop_transitions", other, where)
        grown = {"model": MODEL, "head": head + 2 * count}
        connection.execute(text("UPDATE backstop_models SET head = :head WHERE model = :model"), grown)
        connection.execute(text("DELETE FROM backstop_chain"))  # every row is linked anew, of every model
        chain.seal(connection)


def tick(home: Home, at: datetime | None = None) -> str:
    """One tick of the watch, with everything that a flow does for it on the quiet path; its decision."""
    from tasks import watch  # noqa: PLC0415  what is measured is imported by whoever measures it

    opened = case(home, at)
    with opened.ledger:
        return watch.tick(opened, opened.standing()).decision


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


DAY = timedelta(days=1)
