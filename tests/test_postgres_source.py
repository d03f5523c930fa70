"""Rows out of a real PostgreSQL whose own time zone is none of ours: the window is the same as from a file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from samples import END, START, policy, rows
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from test_postgres import url  # noqa: F401  a fixture is found by its name

from tasks.data import DataError, Dataset, fingerprint, load
from tasks.freshness import sample
from tasks.stores import Stores

FIRST, LAST = START + timedelta(hours=10), START + timedelta(hours=110)


@pytest.fixture
def filled(url: str) -> str:  # noqa: F811  the fixture
    """A database with the sample rows, their time kept in three ways."""
    frame = rows()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE customers (id text, at timestamptz, naive timestamp, written text, place bigint, "
                'size double precision, plan text, noise double precision, "left" text, amount numeric(20, 12))'
            )
        )
        statement = text(
            "INSERT INTO customers VALUES (:id, :at, :naive, :written, :place, :size, :plan, :noise, :left, :amount)"
        )
        moments = pd.to_datetime(frame["at"])
        values = frame.assign(
            naive=moments.dt.strftime("%Y-%m-%d %H:%M:%S"), written=frame["at"], place=range(len(frame))
        )
        connection.execute(statement, values.to_dict("records"))
    return url


def read(source: str, home: Path, **data: Any) -> Dataset:
    drop = [name for name in ("id", "amount", "at", "naive", "written", "place") if name != data.get("timestamp", "at")]
    return load(policy(source, data={**data, "drop": drop}), Stores.at(home), start=FIRST, end=LAST)


@pytest.mark.parametrize(
    "data",
    [
        {"table": "customers"},
        {"table": "public.customers"},
        {"query": "SELECT * FROM customers WHERE at >= :start AND at < :end"},
        {"table": "customers", "timestamp": "naive", "timezone": "UTC"},
        {"table": "customers", "timestamp": "written"},
    ],
)
def test_the_window_is_the_same_however_the_time_is_kept(filled: str, tmp_path: Path, data: dict[str, Any]) -> None:
    expected = load(policy(), Stores.at(tmp_path), start=FIRST, end=LAST)
    found = read(filled, tmp_path, **data)
    assert len(found) == 100
    assert fingerprint(found) == fingerprint(expected)


@pytest.mark.parametrize(
    "data",
    [
        {"table": "public.customers"},
        {"query": "SELECT * FROM customers WHERE at >= :start AND at < :end;"},
        {"table": "customers", "timestamp": "naive", "timezone": "UTC"},
        {"table": "customers", "timestamp": "written"},
        {"table": "customers", "timestamp": {"column": "place", "start": "2024-01-01", "step": "1h"}},
    ],
)
def test_a_change_is_told_without_reading_the_rows(filled: str, data: dict[str, Any]) -> None:
    def told() -> str:
        return sample(policy(filled, data=data), start=FIRST, end=LAST).digest

    def changed(statement: str) -> bool:
        engine = create_engine(filled.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
        with engine.begin() as connection:
            assert connection.execute(text(statement)).rowcount == 1
        return told() != before

    before = told()
    assert told() == before
    where = "WHERE place = 70"
    assert changed(f'UPDATE customers SET "left" = NULL {where}')
    assert changed(f"DELETE FROM customers {where}")


def test_an_ordinal_column_is_read_as_time(filled: str, tmp_path: Path) -> None:
    order = {"column": "place", "start": "2024-01-01", "step": "1h"}
    of = policy(
        filled, data={"table": "customers", "timestamp": order, "drop": ["id", "amount", "at", "naive", "written"]}
    )
    assert len(load(of, Stores.at(tmp_path), start=FIRST, end=LAST)) == 100


def test_decimals_are_numbers(filled: str, tmp_path: Path) -> None:
    of = policy(filled, problem="regression", data={"table": "customers", "drop": ["id", "left", "naive", "written"]})
    dataset = load(of, Stores.at(tmp_path), start=START, end=END)
    assert isinstance(dataset.target[0], float)


def test_a_naive_column_without_a_zone_is_refused(filled: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'naive' has no time zone"):
        read(filled, tmp_path, table="customers", timestamp="naive")


def test_a_wrong_query_is_told_with_the_databases_own_words(filled: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*does not exist"):
        read(filled, tmp_path, query="SELECT * FROM nowhere")
    with pytest.raises(DataError, match=":colour; only :start and :end"):
        read(filled, tmp_path, query="SELECT * FROM customers WHERE plan = :colour")
