"""The schema's migrations: they make the tables that the code knows, and older files keep everything they hold."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, create_engine, event, inspect, text

from tasks import database, schema
from tasks.database import Database
from tasks.ledger import Ledger
from tasks.requests import RequestLog

PARTS = [("ledger", schema.ledger, schema.LEDGER_REVISION), ("requests", schema.log, schema.LOG_REVISION)]

FIRST_VERSION = """
INSERT INTO backstop_models VALUES ('churn', 2);
INSERT INTO backstop_transitions (model, seq, action, version, previous, production, state, actor, reason, trail,
    evidence, intended_at, applied_at)
VALUES ('churn', 1, 'promote', '1', NULL, '1', 'applied', 'ada', 'first', 't1',
    '{}', '2026-01-05 12:00:00', '2026-01-05 12:00:01');
INSERT INTO backstop_transitions (model, seq, action, version, previous, production, state, actor, reason, trail,
    evidence, intended_at)
VALUES ('churn', 2, 'promote', '2', '1', '2', 'intended', 'ada', 'better', 't2', '{}', '2026-01-06 12:00:00');
INSERT INTO backstop_decisions (model, trail, judge, decision, reason, verdict, at, seq)
VALUES ('churn', 't1', 'gate', 'pass', 'r', '{"judge": "gate", "decision": "pass", "reason": "r", "findings": []}',
    '2026-01-05 11:00:00', 0);
INSERT INTO backstop_facts (model, version, fact, at, reason, actor, trail)
VALUES ('churn', '1', 'known-good', '2026-01-05 13:00:00', 'r', 'a', 't1');
INSERT INTO backstop_versions (model, version, digest, size) VALUES ('churn', '1', 'd1', 3);
INSERT INTO backstop_notifications (model, trail, at, sink, title, ok)
VALUES ('churn', 't1', '2026-01-05 12:00:02', 's', 'promoted', 1)
"""
"""Rows as the first version wrote them; the second transition was begun and its process died."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'backstop.db'}"


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def first_version(url: str) -> None:
    """A database as the first version made it: no migrations, a number instead."""
    engine: Engine = create_engine(url)
    with engine.begin() as connection:
        database._migrate(connection, "ledger", None, to="0001")
        database._migrate(connection, "requests", None, to="0001")
    engine.dispose()
    execute(
        url,
        "DROP TABLE backstop_ledger_version",
        "DROP TABLE backstop_requests_version",
        "CREATE TABLE backstop_schema (part VARCHAR(40) PRIMARY KEY, version INTEGER NOT NULL)",
        "INSERT INTO backstop_schema VALUES ('ledger', 1), ('requests', 1)",
        *FIRST_VERSION.split(";\n"),
    )


@pytest.mark.parametrize(("part", "tables", "revision"), PARTS)
def test_the_migrations_make_the_tables_that_the_code_knows(
    url: str, part: str, tables: MetaData, revision: str
) -> None:
    Database.open(url, part=part, revision=revision).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        names = set(tables.tables)
        options = {"include_name": lambda name, kind, _: kind != "table" or name in names, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables) == []
        assert names < set(inspect(connection).get_table_names())
    engine.dispose()


@pytest.mark.parametrize(("part", "tables", "revision"), PARTS)
def test_the_newest_migration_is_the_one_that_the_code_names(part: str, tables: MetaData, revision: str) -> None:
    folder = database._MIGRATIONS
    script = ScriptDirectory(str(folder), version_locations=[str(folder / part)])
    assert script.get_heads() == [revision]
    chain = [step.revision for step in script.walk_revisions()]
    assert chain == sorted(chain, reverse=True), "the numbers are compared as text"


def test_a_ledger_of_the_first_version_is_upgraded_and_keeps_everything(url: str) -> None:
    first_version(url)
    with Ledger.open(url) as ledger:
        standing = ledger.standing("churn")
        assert (standing.production, standing.known_good) == ("1", ("1",))
        assert standing.pending is not None
        assert standing.pending.version == "2"
        (decision,) = ledger.decisions("churn")
        assert (decision.verdict.decision, decision.evidence) == ("pass", None)
        assert ledger.digest("churn", "1") == "d1"
        assert ledger.misfits("churn") == ()
        ledger.settle(standing.pending, "applied")
        assert ledger.standing("churn").production == "2"
        assert ledger.misfits("churn") == ()
    execute(url, "UPDATE backstop_transitions SET reason = 'worse' WHERE seq = 1")
    with Ledger.open(url) as ledger:
        assert ledger.misfits("churn") != (), "rows from before the chain are guarded too"


def test_code_of_the_first_version_refuses_an_upgraded_ledger(url: str) -> None:
    first_version(url)
    Ledger.open(url).close()
    RequestLog.open(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT part, version FROM backstop_schema ORDER BY part")).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("ledger", 2), ("requests", 1)]


def test_many_that_open_an_old_ledger_at_once_upgrade_it_once(url: str) -> None:
    first_version(url)
    errors: list[Exception] = []
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        try:
            Ledger.open(url).close()
        except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Ledger.open(url) as ledger:
        assert ledger.misfits("churn") == ()


def test_an_upgrade_that_dies_leaves_the_old_ledger_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first_version(url)

    def dies(*given: Any) -> None:
        if "INSERT INTO backstop_chain" in given[2]:
            raise KeyboardInterrupt

    plain, engines = Database.writing, set()

    def writing(self: Database) -> object:
        engines.add(self.engine)
        event.listen(self.engine, "before_cursor_execute", dies)
        return plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "writing", writing)
        with pytest.raises(KeyboardInterrupt):
            Ledger.open(url)
    for used in engines:  # this process keeps it for the next that opens the database
        event.remove(used, "before_cursor_execute", dies)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert "backstop_chain" not in inspect(connection).get_table_names()
        assert connection.execute(text("SELECT version FROM backstop_schema WHERE part = 'ledger'")).scalar_one() == 1
    engine.dispose()
    with Ledger.open(url) as ledger:
        assert ledger.misfits("churn") == ()


def test_an_open_that_finds_everything_in_place_writes_nothing(url: str) -> None:
    Ledger.open(url).close()
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes()
    Ledger.open(url).close()
    assert path.read_bytes() == before
