"""What has to be told is told, at last: a sink that was dead, a process that was killed, two that try at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from lifetime import policy

from tasks import delivery, notify
from tasks.case import Case, open_case
from tasks.outbox import DEADLINE, FIRST, LEASE, LONGEST, Message, digest, pause
from tasks.stores import Stores

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

T0 = datetime(2026, 3, 1, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Person(ThreadingHTTPServer):
    """A real web hook, which may be out or asleep."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        self.read: list[str] = []
        self.status, self.sleeps = 200, 0.0

    @property
    def address(self) -> str:
        return f"json://127.0.0.1:{self.server_port}/hook-5f2e"


class Hook(BaseHTTPRequestHandler):
    """Takes what is posted."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Person)
        text = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.sleeps)
        if self.server.status == 200:
            self.server.read.append(json.loads(text)["title"])
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def person() -> Iterator[Person]:
    with Person() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nobody_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_hung", {})


def case(home: Path, *sinks: str, now: datetime = T0, dry_run: bool = False) -> Case:
    """A case of one moment; the ledger's clock stands still at it."""
    given = policy("churn", "repair").model_copy(update={"notify": sinks})
    return open_case(given, actor="a test", now=now, stores=Stores.at(home), dry_run=dry_run)


def later(home: Path, *sinks: str, minutes: float) -> tuple[Message, ...]:
    """A run some minutes later tries again; returns what is not delivered then."""
    run = case(home, *sinks, now=T0 + minutes * MINUTE)
    with run.ledger:
        delivery.again(run)
        return run.ledger.outbox.undelivered("churn")


def tried(home: Path) -> list[tuple[bool, str | None]]:
    """(taken, error) of every attempt, the oldest first."""
    with case(home).ledger as ledger:
        return [(one.ok, one.error) for one in reversed(ledger.notifications("churn"))]


def test_the_pauses_double_up_to_an_hour() -> None:
    assert [pause(attempts) // MINUTE for attempts in (1, 2, 3, 6, 7, 50)] == [1, 2, 4, 32, 60, 60]
    assert (MINUTE, timedelta(hours=1)) == (FIRST, LONGEST)


def test_what_is_taken_at_once_is_told_once(tmp_path: Path, person: Person) -> None:
    run = case(tmp_path, person.address)
    with run.ledger:
        run.tell("churn: promoted", "body")
    assert later(tmp_path, person.address, minutes=2000) == ()
    assert (person.read, tried(tmp_path)) == (["churn: promoted"], [(True, None)])


def test_a_dead_sink_is_told_when_it_lives_again_and_every_attempt_is_kept(tmp_path: Path, person: Person) -> None:
    person.status = 503
    run = case(tmp_path, person.address)
    with run.ledger:
        run.tell("churn: rolled back", "body")
    assert [one.attempts for one in later(tmp_path, person.address, minutes=0.5)] == [1], "not before its time"
    assert [one.attempts for one in later(tmp_path, person.address, minutes=1.5)] == [2]
    assert [one.attempts for one in later(tmp_path, person.address, minutes=2.5)] == [2], "the second pause is longer"
    person.status = 200
    assert later(tmp_path, person.address, minutes=4) == ()
    assert later(tmp_path, person.address, minutes=99) == ()
    assert person.read == ["churn: rolled back"]
    assert [taken for taken, _ in tried(tmp_path)] == [False, False, True]


def test_a_sink_that_stays_dead_is_given_up_after_a_day_and_that_is_shown(tmp_path: Path, person: Person) -> None:
    person.status = 500
    run = case(tmp_path, person.address)
    with run.ledger:
        run.tell("churn: rolled back", "body")
    (left,) = later(tmp_path, person.address, minutes=DEADLINE / MINUTE + 1)
    assert (left.state, left.title) == ("given up", "churn: rolled back")
    person.status = 200
    assert [one.state for one in later(tmp_path, person.address, minutes=5000)] == ["given up"]
    assert person.read == []
    assert "given up after 2 attempts" in str(tried(tmp_path)[-1][1])


def test_a_process_killed_before_it_could_tell_is_made_up_for(tmp_path: Path, person: Person) -> None:
    run = case(tmp_path, person.address)
    with run.ledger:
        run.ledger.outbox.put([delivery._message(run, person.address, "churn: promoted", "body", T0)])
    later(tmp_path, person.address, minutes=1)
    assert person.read == [], "it may be trying still"
    later(tmp_path, person.address, minutes=LEASE / MINUTE)
    assert person.read == ["churn: promoted"]


def test_of_two_runs_that_try_at_once_one_tells(tmp_path: Path) -> None:
    run = case(tmp_path, "json://127.0.0.1:9/x")
    with run.ledger as ledger:
        ledger.outbox.put([delivery._message(run, "json://127.0.0.1:9/x", "t", "b", T0)])
        (seen,) = ledger.outbox.due("churn", T0 + LEASE)
        claims = [ledger.outbox.claim(seen, T0 + LEASE) for _ in range(2)]
    assert [claim is not None for claim in claims] == [True, False]


def test_a_sink_that_the_policy_no_longer_names_gets_nothing(tmp_path: Path, person: Person) -> None:
    person.status = 500
    run = case(tmp_path, person.address)
    with run.ledger:
        run.tell("t", "b")
    person.status = 200
    (left,) = later(tmp_path, minutes=5)
    assert (left.state, person.read) == ("given up", [])
    assert "does not name this sink" in str(tried(tmp_path)[-1][1])


def test_a_sink_that_hangs_costs_its_patience_once_and_not_once_per_model(
    tmp_path: Path, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_PATIENCE", 1.0)
    person.sleeps = 3.0
    run = case(tmp_path, person.address)
    with run.ledger:
        run.tell("first", "b")
        since = time.monotonic()
        for number in range(20):
            run.tell(f"model {number}", "b")
        assert time.monotonic() - since < 15, "twenty times its patience are twenty seconds"
        waiting = run.ledger.outbox.due("churn", T0 + LEASE)
    assert len(waiting) == 21, "nothing is lost by it"


def test_a_ledger_that_cannot_be_written_keeps_nobody_from_being_told(
    tmp_path: Path, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = case(tmp_path, person.address)

    def broken(*_: object) -> None:
        raise ConnectionError("the ledger is away")

    monkeypatch.setattr("tasks.outbox.Outbox.put", broken)
    with run.ledger, pytest.raises(ConnectionError, match="the ledger is away"):
        run.tell("churn: watch failed", "b")
    assert person.read == ["churn: watch failed"]


def test_a_dry_run_tells_nobody_and_tries_nothing_again(tmp_path: Path, person: Person) -> None:
    run = case(tmp_path, person.address)
    with run.ledger:
        run.ledger.outbox.put([delivery._message(run, person.address, "t", "b", T0)])
    rehearsal = case(tmp_path, person.address, now=T0 + timedelta(hours=1), dry_run=True)
    with rehearsal.ledger:
        rehearsal.tell("t", "b")
        assert delivery.again(rehearsal) == ()
    assert person.read == []


def test_no_address_is_in_the_ledger(tmp_path: Path, person: Person) -> None:
    person.status = 500
    run = case(tmp_path, person.address)
    with run.ledger:
        run.tell("t", "b")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("ledger.db*"))
    assert b"hook-5f2e" not in written
    assert digest(person.address).encode() in written
