"""An INSERT in PostgreSQL becomes a notification, an event and a flow run."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pandas as pd
import psycopg
import pytest
from prefect_live import Live, Program
from psycopg.sql import SQL, Identifier
from scene import POLICY, merged
from servers import Postgres, until
from yaml import safe_dump

from flows.listen import Listener
from live.reactions import ids, reacting, since
from tasks.springs import NAME, ListenError, Spring, check_installed, install, springs, statements, uninstall

STRANGE = 'cust"omers %s; DROP TABLE x'


class Heard(list[tuple[str, str]]):
    """What would be told to Prefect's server; the first so many times the server is away."""

    away: int = 0

    async def emit(self, spring: Spring, reason: str) -> None:
        if self.away:
            self.away -= 1
            raise ConnectionError("the server is away")
        self.append((spring.model, reason))


def policy(folder: Path, source: str, table: str, model: str = "churn") -> str:
    path = folder / f"{model}.yaml"
    data = {"source": source.replace("postgresql:", "postgresql+psycopg:"), "table": table}
    path.write_text(safe_dump(merged(POLICY, {"model": model, "data": data, "notify": None})))
    return str(path)


@pytest.fixture
def database(postgres_server: Postgres) -> str:
    """A database with a table of an ordinary name and one of a strange name."""
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("customers", STRANGE):
            connection.execute(SQL("CREATE TABLE {} (customer_id int)").format(Identifier(name)))
    return url


def insert(url: str, *, table: str = "customers", rows: int = 1) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            SQL("INSERT INTO {} SELECT generate_series(1, {})").format(Identifier(table), rows)  # one statement
        )


def listening(listener: Listener, script: Callable[[], Awaitable[None]]) -> None:
    """Run a script beside a listener."""

    async def both() -> None:
        task = asyncio.create_task(listener.run())
        try:
            await asyncio.wait_for(script(), 60)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(both())


async def eventually(what: Callable[[], object]) -> None:
    while not what():  # noqa: ASYNC110  the other side is another program, which sets no event of ours
        await asyncio.sleep(0.02)


def triggers(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname = %s", [NAME]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("table", ["customers", STRANGE, f"public.{STRANGE}"])
def test_the_trigger_is_installed_once_and_removed_whatever_the_table_is_called(
    database: str, tmp_path: Path, table: str
) -> None:
    (spring,) = springs(policy(tmp_path, database, table), labels=False)
    with pytest.raises(ListenError, match="has no trigger; install it first"):
        check_installed([spring])
    assert install(spring).endswith("installed")
    assert install(spring).endswith("is there already")
    check_installed([spring])
    assert triggers(database) == 1
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in statements(spring):  # what --sql prints may be run again and again
            connection.execute(statement)  # type: ignore[arg-type]
    assert triggers(database) == 1
    assert uninstall(spring).endswith("removed")
    assert uninstall(spring).endswith("is not there")
    insert(database, table=table.removeprefix("public."))


def test_a_burst_is_one_event_and_what_comes_after_it_another(database: str, tmp_path: Path) -> None:
    (spring,) = springs(policy(tmp_path, database, STRANGE), labels=False)
    install(spring)
    heard = Heard()

    async def script() -> None:
        await eventually(lambda: len(heard) == 1)
        for _ in range(20):
            await asyncio.to_thread(insert, database, table=STRANGE, rows=1000)
        await asyncio.to_thread(insert, database)  # a table that nobody listens to
        await eventually(lambda: len(heard) == 2)
        await asyncio.to_thread(insert, database, table=STRANGE)
        await eventually(lambda: len(heard) == 3)
        await asyncio.sleep(2.5)

    listening(Listener([spring], heard.emit, every=2), script)
    assert len(heard) == 3
    assert heard[0][1].startswith("began to listen")
    assert heard[1] == ("churn", f"rows were inserted into public.{STRANGE}")


def test_after_a_lost_connection_it_listens_again_and_says_that_something_may_have_landed(
    database: str, tmp_path: Path
) -> None:
    (spring,) = springs(policy(tmp_path, database, "customers"), labels=False)
    install(spring)
    heard = Heard()

    async def script() -> None:
        await eventually(lambda: len(heard) == 1)
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await eventually(lambda: len(heard) == 2)
        await asyncio.to_thread(insert, database)
        await eventually(lambda: len(heard) == 3)

    listening(Listener([spring], heard.emit, every=0.1), script)
    assert [reason.split()[0] for _, reason in heard] == ["began", "began", "rows"]


def test_an_event_waits_for_a_server_that_is_away(database: str, tmp_path: Path) -> None:
    (spring,) = springs(policy(tmp_path, database, "customers"), labels=False)
    install(spring)
    heard = Heard()
    heard.away = 3
    listening(Listener([spring], heard.emit, every=0.1, longest=0.1), lambda: eventually(lambda: heard))
    assert len(heard) == 1


def test_everything_that_cannot_be_listened_to_is_told_at_once_and_no_password(database: str, tmp_path: Path) -> None:
    policy(tmp_path, database, "custmers", model="misspelt")
    policy(tmp_path, "postgresql://reader:hunter2@127.0.0.1:9/nowhere", "customers", model="away")
    with pytest.raises(ListenError) as refused:
        springs(str(tmp_path), labels=False)
    assert len(refused.value.problems) == 2
    assert "'custmers' is not there; did you mean 'customers'?" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.slow
def test_an_insert_starts_a_run(live: Live, postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.database()
    rows = pd.read_csv(live.scene.home / "churn.csv", parse_dates=["observed_at"])
    rows.to_sql("customers", url.replace("postgresql:", "postgresql+psycopg:"), index=False)
    given = policy(tmp_path, url, "customers")
    before = ids(live, "retrain/on-event")
    live.python("flows.listen", "--policy", given, "--install")
    command = [sys.executable, "-m", "flows.listen", "--policy", given, "--every", "1"]
    program = Program("listen", command, live.environment, tmp_path / "listen.log")
    with reacting(live):
        program.launch()
        try:
            until(lambda: since(live, "retrain/on-event", before), told=f"no run; {program.said()}", seconds=90)
            began = ids(live, "retrain/on-event")
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("INSERT INTO customers SELECT * FROM customers LIMIT 0")
            until(lambda: since(live, "retrain/on-event", began), told=f"no run; {program.said()}", seconds=60)
            (run,) = since(live, "retrain/on-event", began)
            assert run["parameters"] == {"policy": given, "reason": "rows were inserted into public.customers"}
            assert live.ended(run["id"], seconds=180)["state_type"] == "COMPLETED"
        finally:
            program.end()
