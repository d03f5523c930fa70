"""Retention: what nobody needs any more goes, nothing else does, and whoever asks later is told that it went.

The same promises on SQLite and on a real PostgreSQL; the clock is given.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dossiers import NOW as JUDGED
from dossiers import examples
from servers import Postgres
from sqlalchemy import create_engine, event
from typer.testing import CliRunner

from tasks import expiry, partitions, retention, schema
from tasks.audit import check
from tasks.database import Database, microseconds
from tasks.dossier import pack
from tasks.ledger import Ledger
from tasks.partitions import LABELS, REQUESTS, week_of
from tasks.policy import Policy
from tasks.records import Rollout
from tasks.removal import Order
from tasks.requests import Label, RequestLog, Served
from tasks.retention import Swept, daily, sweep
from tasks.retrial import reach
from tasks.stores import Stores

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
DAY = timedelta(days=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Ledger and log in one new database."""
    home = Stores.at(tmp_path)
    if request.param == "sqlite":
        return home
    url = request.getfixturevalue("postgres_server").database()
    return replace(home, ledger=url, requests=url)


@pytest.fixture
def shared(postgres_server: Postgres, tmp_path: Path) -> Stores:
    """On PostgreSQL only."""
    url = postgres_server.database()
    return replace(Stores.at(tmp_path), ledger=url, requests=url)


def policy(model: str = "churn", **keys: Any) -> Policy:
    plain = {
        "model": model,
        "data": {"source": "rows.csv", "target": "y", "timestamp": "at"},
        "training": {"estimator": "sklearn.linear_model:LogisticRegression"},
        **keys,
    }
    return Policy.model_validate(plain)


def keeping(requests: str | None = "60d", *, model: str = "churn", evidence: str = "off", **keys: Any) -> Policy:
    return policy(model, retention={"requests": requests or "off", "evidence": evidence}, **keys)


def filled(stores: Stores, days: int = 120, *, model: str = "churn", first: int = 0, labels: bool = True) -> None:
    """A request and its label on each of so many days, written week by week."""
    told: dict[int, list[datetime]] = {}
    for number in range(days - 1, first - 1, -1):
        at = NOW - number * DAY
        told.setdefault(week_of(microseconds(at)), []).append(at)
    clock = [NOW]
    with RequestLog.open(stores.requests, clock=lambda: clock[0]) as log:
        for moments in told.values():
            clock[0] = moments[-1]
            names = {f"{model} {(NOW - at) // DAY}": at for at in moments}
            log.record(served(name, at, model=model) for name, at in names.items())
            if labels:
                log.label(Label(request_id=name, model=model, label="no", at=at) for name, at in names.items())


def served(name: str, at: datetime, *, model: str = "churn") -> Served:
    return Served(request_id=name, model=model, version="1", at=at, seconds=0.1, features={}, prediction="yes")


@contextmanager
def database(stores: Stores) -> Iterator[Database]:
    opened = Database.open(stores.requests, part="requests", revision=schema.LOG_REVISION)
    try:
        yield opened
    finally:
        opened.close()


def swept(stores: Stores, *policies: Policy, now: datetime = NOW, dry_run: bool = False) -> Swept:
    with database(stores) as log, Ledger.open(stores.ledger) as ledger:
        return sweep(policies, log, ledger, now, actor="test", dry_run=dry_run)


def ages(stores: Stores, model: str = "churn") -> list[int]:
    """Days of the requests that are there; each has its label."""
    with RequestLog.open(stores.requests) as log:
        window = log.window(model, start=NOW - 900 * DAY, end=NOW + 9 * DAY, limit=9_999)
    assert set(window.labels) <= {"no"}, "a request that stays keeps its label"
    return sorted((NOW - at) // DAY for at in window.times)


def count(stores: Stores, table: str) -> int:
    with database(stores) as opened, opened.reading() as connection:
        return int(connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one())


# What goes and what stays.


def test_what_is_older_than_it_is_kept_goes_and_nothing_younger(stores: Stores) -> None:
    filled(stores)
    found = swept(stores, keeping())
    left = ages(stores)
    exact = stores.requests.startswith("sqlite")
    assert left == list(range(len(left)))
    assert left[-1] == 60 if exact else 60 <= left[-1] <= 67
    assert found.gone
    assert count(stores, "backstop_labels") <= len(left) + 14, "labels go with their requests, a week or two later"
    assert swept(stores, keeping()).gone == (), "once is enough"


def test_without_a_word_in_the_policy_nothing_ever_goes(stores: Stores) -> None:
    filled(stores, 100)
    assert swept(stores, policy(), now=NOW + 900 * DAY) == Swept(gone=(), stays=(), evidence={})
    assert len(ages(stores)) == 100


def test_a_dry_run_tells_what_would_go_and_takes_nothing(stores: Stores) -> None:
    filled(stores, 100)
    told = swept(stores, keeping(), dry_run=True)
    assert len(ages(stores)) == 100
    assert [one.name for one in told.gone] == [one.name for one in swept(stores, keeping()).gone]


def test_what_went_is_put_down_with_it(stores: Stores) -> None:
    filled(stores, 100)
    found = swept(stores, keeping())
    with database(stores) as log, log.reading() as connection:
        rows = connection.execute(schema.expired.select()).all()
    assert {row.at for row in rows} == {NOW}
    assert len(rows) >= len(found.gone)
    assert any("is gone" in line for line in found.lines())


def test_a_model_of_which_nobody_said_anything_keeps_its_rows(stores: Stores) -> None:
    filled(stores, 100)
    filled(stores, 95, model="fraud", first=90)
    found = swept(stores, keeping())
    assert ages(stores, "fraud") == [90, 91, 92, 93, 94]
    if not stores.requests.startswith("sqlite"):
        assert {"fraud has rows in it, and none of the policies given here says how long its requests stay"} == {
            one.reason for one in found.stays
        }
        assert max(ages(stores)) < 100, "only the weeks that have its rows stay"
    found = swept(stores, keeping(), keeping("30d", model="fraud", shadow="off"))
    assert all(one.expected for one in found.stays)
    assert not any("stays" in line for line in found.lines()), "what the policies say themselves is no news"
    assert ages(stores, "fraud") == []


@pytest.mark.parametrize("what", ["staged", "rollout"])
def test_what_a_comparison_under_way_reads_stays_whatever_the_policy_says(stores: Stores, what: str) -> None:
    filled(stores)
    began = NOW - 90 * DAY
    with Ledger.open(stores.ledger, clock=lambda: began) as ledger:
        for seq, (action, version) in enumerate((("promote", "1"), ("stage", "2"))):
            intent = ledger.intend(
                model="churn", based_on=seq, action=action, version=version, actor="a", reason="r", at=began, trail="t"
            )
            ledger.settle(intent, "applied")
        if what == "rollout":
            step = Rollout(
                id=0, model="churn", version="2", baseline="1", weight=5, state="running", started=began - 9 * DAY,
                at=began, reason="r", actor="a", trail="t",
            )  # fmt: skip
            ledger.weigh(step, after=None)
    swept(stores, keeping())
    assert max(ages(stores)) >= (99 if what == "rollout" else 90)


def test_a_clock_that_runs_ahead_takes_nothing_that_a_server_knows_to_be_young(shared: Stores) -> None:
    at = datetime.now(UTC)
    with RequestLog.open(shared.requests) as log:
        log.record([served("a", at - 61 * DAY), served("b", at)])
    swept(shared, keeping(), now=at + 365 * DAY)
    with RequestLog.open(shared.requests) as log:
        assert "b" in log.window("churn", start=at - 99 * DAY, end=at + DAY, limit=9).request_ids


def test_rows_that_have_no_week_go_too(shared: Stores) -> None:
    with RequestLog.open(shared.requests, clock=lambda: NOW) as log:
        log.record([served("old", NOW - 4000 * DAY), served("future", NOW + 300 * DAY), served("a", NOW)])
        swept(shared, keeping())
        window = log.window("churn", start=NOW - 9000 * DAY, end=NOW + 900 * DAY, limit=9)
    assert set(window.request_ids) == {"a", "future"}


# Beside everybody else.


def test_weeks_go_while_a_gateway_writes_and_the_watch_reads(shared: Stores) -> None:
    filled(shared)
    stop, errors, written = threading.Event(), [], []

    def working(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                with RequestLog.open(shared.requests, clock=lambda: NOW) as log:
                    while not stop.is_set():
                        work(log)
            except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def write(log: RequestLog) -> None:
        written.append(log.record([served(f"w{len(written)}", NOW)]))
        log.label([Label(request_id=f"w{len(written) - 1}", model="churn", label="no", at=NOW)])

    def read(log: RequestLog) -> None:
        log.looks("churn", "1", start=NOW - 9 * DAY, until=NOW, tick=DAY, slow_after=None, problem="binary")
        log.asked("churn", ["churn 3", "churn 99"])

    threads = [working(write), working(read)]
    try:
        before = len(written)
        gone = [one for _ in range(3) for one in swept(shared, keeping()).gone]
        while len(written) < before + 5:
            assert threads[0].is_alive(), errors
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert gone
    assert count(shared, "backstop_requests WHERE starts_with(request_id, 'w')") == sum(written) == len(written)
    assert count(shared, "backstop_labels WHERE starts_with(request_id, 'w')") == len(written)


def test_a_week_that_is_in_use_stays_until_the_next_time(shared: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_WAIT", "100ms")
    filled(shared, 100)
    engine = create_engine(shared.requests.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as reader:
        reader.exec_driver_sql("SELECT COUNT(*) FROM backstop_requests")
        found = swept(shared, keeping())
        assert found.gone == ()
        assert {one.reason for one in found.stays} == {
            "it was in use for longer than this waits; the next run tries again"
        }
    engine.dispose()
    assert len(ages(shared)) == 100
    assert swept(shared, keeping()).gone


def test_a_process_that_dies_in_the_middle_leaves_whole_weeks_and_batches(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_BATCH", 10)
    filled(stores)
    doomed = "DROP TABLE" if stores.requests.startswith("postgres") else "INSERT INTO backstop_expired"
    seen: list[str] = []

    def dies(*given: Any) -> None:
        if doomed in given[2]:
            seen.append(given[2])
            if len(seen) == 2:
                raise KeyboardInterrupt

    with database(stores) as log, Ledger.open(stores.ledger) as ledger:
        event.listen(log.engine, "after_cursor_execute", dies)
        with pytest.raises(KeyboardInterrupt):
            sweep((keeping(),), log, ledger, NOW, actor="test")
        event.remove(log.engine, "after_cursor_execute", dies)
    left = ages(stores)
    assert left == list(range(len(left)))
    assert 68 < len(left) < 120
    noted = count(stores, "backstop_expired")
    assert noted == 1, "what was undone is not noted"
    swept(stores, keeping())
    assert len(ages(stores)) <= 68


def test_it_is_done_once_a_day_and_by_whoever_knows_other_models_too(stores: Stores) -> None:
    filled(stores, 100)
    with Ledger.open(stores.ledger) as ledger:
        assert daily((policy(),), stores, ledger, NOW) is None, "nobody asked for it"
        first = daily((keeping(),), stores, ledger, NOW)
        assert first is not None
        assert first.gone
        assert daily((keeping(),), stores, ledger, NOW + DAY / 2) is None
        assert daily((keeping(), policy("fraud")), stores, ledger, NOW + DAY / 2) is not None
        assert daily((keeping(),), stores, ledger, NOW + DAY) is not None


# The policy.


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "health (the watch, and days that late labels count for) needs"),
        ({"health": {"labels": {"delay": "45d"}}}, "health (the watch, and days that late labels count for) needs"),
        ({"shadow": {"window": "90d"}}, "shadow.window needs 90d"),
        ({"approval": {"deadline": "30d"}}, "shadow.deadline needs 44d"),
        ({"rollout": {"deadline": "10d"}}, "rollout.deadline at each step needs 40d"),
        ({"learn": {"window": "40d"}}, "learn.window needs 40d"),
    ],
)
def test_a_policy_that_keeps_less_than_its_decisions_need_is_refused(keys: dict[str, Any], told: str) -> None:
    days = "10d" if not keys else "31d"
    with pytest.raises(ValueError, match=r"retention\.requests") as refused:
        keeping(days, **keys)
    assert told in str(refused.value)
    assert "or `off`" in str(refused.value)
    keeping("120d", **keys)


def test_one_that_trains_from_the_log_keeps_its_lookback() -> None:
    data = {
        "source": "postgresql://x@h/d",
        "query": "SELECT * FROM backstop_requests",
        "target": "y",
        "timestamp": "at",
    }
    with pytest.raises(ValueError, match=r"data.lookback \(it reads the request log\) needs 180d"):
        keeping("90d", data=data)
    keeping("180d", data=data)


# Evidence.


def judged(ledger: Ledger, at: datetime, *, version: str | None, seed: int, trail: str | None = None) -> str:
    """A verdict of the shadow with its evidence; the digest."""
    dossier = examples()["shadow promote"]
    evidence = replace(dossier.given["evidence"], ties=1_000 + seed)
    dossier = replace(dossier, given={**dossier.given, "evidence": evidence})
    ledger.record("churn", reach(dossier), trail=trail or f"t{seed}", at=at, version=version, dossier=pack(dossier))
    return str(ledger.decisions("churn", limit=1)[0].evidence)


@pytest.fixture
def ledger(stores: Stores) -> Iterator[Ledger]:
    with Ledger.open(stores.ledger, clock=lambda: NOW - 200 * DAY) as opened:
        yield opened


def test_old_evidence_goes_and_the_ledger_fits_and_says_when_it_went(stores: Stores, ledger: Ledger) -> None:
    old = [judged(ledger, NOW - (200 - n) * DAY, version=str(n), seed=n) for n in range(3)]
    young = judged(ledger, NOW - 9 * DAY, version="9", seed=9)
    assert swept(stores, keeping(None, evidence="90d"), dry_run=True).evidence == {"churn": 3}
    assert all(ledger.evidence(one) is not None for one in old)
    assert swept(stores, keeping(None, evidence="90d")).evidence == {"churn": 3}
    assert [ledger.evidence(one) for one in old] == [None] * 3
    assert ledger.evidence(young) is not None
    assert len(ledger.decisions("churn")) == 4, "what was decided stays"
    assert ledger.misfits("churn") == ()
    findings = check(ledger, "churn")
    assert [one.outcome for one in findings] == ["ok", "unknown", "unknown", "unknown", "ok"]
    assert "was removed by retention on 2026-03-04 (test: older than retention.evidence, 90d)" in findings[1].reason
    assert swept(stores, keeping(None, evidence="90d")).evidence == {}


def test_evidence_that_is_gone_without_a_word_is_a_breach_after_a_removal_too(stores: Stores, ledger: Ledger) -> None:
    for n in range(2):
        judged(ledger, NOW - 200 * DAY, version=str(n), seed=n)
    young = judged(ledger, NOW - 91 * DAY, version="8", seed=8)
    swept(stores, keeping(None, evidence="90d"))
    with ledger._database.writing() as connection:
        connection.execute(schema.evidence.delete().where(schema.evidence.c.digest == young))
    assert [one.outcome for one in check(ledger, "churn")] == ["ok", "unknown", "unknown", "breach"]


@pytest.mark.parametrize("change", ["UPDATE backstop_removals SET digests = '[]'", "DELETE FROM backstop_removals"])
def test_a_removal_that_was_changed_shows_in_the_chain(stores: Stores, ledger: Ledger, change: str) -> None:
    for n in range(2):
        judged(ledger, NOW - 200 * DAY, version=str(n), seed=n)
    swept(stores, keeping(None, evidence="90d"))
    assert ledger.misfits("churn") == ()
    with ledger._database.writing() as connection:
        connection.exec_driver_sql(change)
    assert any("removal of evidence 1" in one for one in ledger.misfits("churn"))
    assert any(one.outcome == "breach" for one in check(ledger, "churn"))


def test_evidence_of_what_serves_and_waits_stays_and_what_another_decision_rests_on(
    stores: Stores, ledger: Ledger
) -> None:
    for seq, (action, version) in enumerate((("promote", "1"), ("promote", "3"), ("stage", "2"))):
        intent = ledger.intend(
            model="churn", based_on=seq, action=action, version=version, actor="a", reason="r", at=JUDGED,
            trail=f"of {version}",
        )  # fmt: skip
        ledger.settle(intent, "applied")
    ledger.state_fact("churn", "1", "known-good", at=JUDGED, reason="r", actor="a", trail="its watch")
    kept = [judged(ledger, NOW - 200 * DAY, version=version, seed=int(version)) for version in ("1", "2", "3")]
    # Why they were made, decided before they had a number.
    kept += [judged(ledger, NOW - 200 * DAY, version=None, seed=10 + one, trail=f"of {one}") for one in (1, 2, 3)]
    twice = judged(ledger, NOW - 200 * DAY, version="7", seed=7)
    gone = judged(ledger, NOW - 200 * DAY, version="6", seed=6)
    assert judged(ledger, NOW - 5 * DAY, version="7", seed=7) == twice
    assert swept(stores, keeping(None, evidence="90d")).evidence == {"churn": 1}
    assert all(ledger.evidence(one) is not None for one in (*kept, twice))
    assert ledger.evidence(gone) is None


def test_evidence_that_was_forged_does_not_grow_old(stores: Stores, ledger: Ledger) -> None:
    old = [judged(ledger, NOW - 200 * DAY, version=str(n), seed=n) for n in range(3)]
    with ledger._database.writing() as connection:
        table = schema.evidence
        connection.execute(table.update().where(table.c.digest == old[0]).values(body=b"forged"))
    assert swept(stores, keeping(None, evidence="90d")).evidence == {"churn": 1}
    assert [one.outcome for one in check(ledger, "churn")] == ["ok", "breach", "unknown", "ok"]


def test_a_removal_excuses_nothing_that_it_could_not_have_taken(stores: Stores, ledger: Ledger) -> None:
    first = judged(ledger, NOW - 200 * DAY, version="1", seed=1)
    judged(ledger, NOW - 200 * DAY, version="2", seed=2)
    swept(stores, keeping(None, evidence="90d"))
    assert judged(ledger, NOW - 5 * DAY, version="1", seed=1) == first
    judged(ledger, NOW - 4 * DAY, version="3", seed=3)
    with ledger._database.writing() as connection:
        connection.execute(schema.evidence.delete().where(schema.evidence.c.digest == first))
    found = check(ledger, "churn")
    assert [one.outcome for one in found] == ["ok", "unknown", "ok", "breach", "ok"]
    assert "a removal of 2026-03-04 by test names it, which may not take it" in found[3].reason
    order = Order(model="churn", before=NOW + DAY, at=NOW, reason="r", actor="mallory")
    with pytest.raises(ValueError, match="give an earlier moment"):
        ledger.remove_evidence(order)


def test_without_a_server_a_clock_that_is_ahead_takes_little_and_keeps_no_later_turn(
    tmp_path: Path,
) -> None:
    stores = Stores.at(tmp_path)
    filled(stores, 50)
    before = ages(stores)
    with Ledger.open(stores.ledger) as ledger:
        assert daily((keeping("60d"),), stores, ledger, NOW + 365 * DAY) is not None
        assert ages(stores) == before, "a log in which nothing is new loses nothing"
        with RequestLog.open(stores.requests) as log:
            log.record([served("later", NOW + 3 * DAY)])
        assert daily((keeping("60d"),), stores, ledger, NOW + 3 * DAY) is not None


# The command.


def test_the_command_tells_and_takes(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    monkeypatch.setenv("BACKSTOP_HOME", str(tmp_path))
    monkeypatch.setenv("BACKSTOP_LEDGER", stores.ledger)
    monkeypatch.setenv("BACKSTOP_REQUESTS", stores.requests)
    file = tmp_path / "churn.yaml"
    text = (
        "model: churn\ndata: {source: rows.csv, target: y, timestamp: at}\n"
        "training: {estimator: sklearn.linear_model:LogisticRegression}\n"
    )
    app = typer.Typer()
    app.command()(retention.main)
    file.write_text(text)
    filled(stores, 100)
    said = CliRunner().invoke(app, [str(file)])
    assert "everything stays" in said.output
    file.write_text(f"{text}retention: {{requests: 60d}}\n")
    said = CliRunner().invoke(app, [str(file), "--dry-run"])
    assert "Nothing is changed; this would happen:" in said.output
    assert len(ages(stores)) == 100
    said = CliRunner().invoke(app, [str(file)])
    assert "is gone" in said.output
    # By a server's clock of today all of it is old; without one the newest request says what day it is.
    assert len(ages(stores)) == (0 if "postgresql" in stores.requests else 60)
    file.write_text(f"{text}retention: {{requests: 1d}}\n")
    assert CliRunner().invoke(app, [str(file)]).exit_code == 2


def test_the_weeks_of_labels_follow_those_of_their_requests(shared: Stores) -> None:
    filled(shared)
    filled(shared, 112, model="fraud", first=105, labels=False)
    swept(shared, keeping())
    assert max(ages(shared)) >= 111, "a request that stays because of another model keeps its label"
    swept(shared, keeping(), keeping(model="fraud"))
    with database(shared) as log, log.reading() as connection:
        first = [next(iter(partitions.partitions(connection, table))) for table in (REQUESTS, LABELS)]
    assert first[0].holds(microseconds(NOW - 60 * DAY))
    assert first[1].holds(microseconds(NOW - 67 * DAY))
