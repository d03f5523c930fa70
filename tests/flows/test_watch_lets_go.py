"""Once a day the watch lets go of what the policies do not keep, and nothing that goes wrong there stops the watch."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from scene import Scene, run
from sqlalchemy import create_engine, text

from flows.watch import watch
from tasks.ledger import Ledger
from tasks.requests import RequestLog, Served


def requests(scene: Scene) -> int:
    engine = create_engine(scene.stores.requests)
    with engine.connect() as connection:
        count = connection.execute(text("SELECT COUNT(*) FROM backstop_requests")).scalar_one()
    engine.dispose()
    return int(count)


def test_the_watch_lets_go_of_old_requests_and_says_so_in_its_log(
    first: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    before = requests(first)
    assert before > 0
    assert run(watch, policy=first.policy("all")).error is None
    assert requests(first) == before, "no policy asks for it"
    keeping = first.policy("keeping", retention={"requests": "60d"})
    first.run(watch, 30, policy=keeping)
    assert run(watch, policy=keeping, dry_run=True).error is None
    assert requests(first) == before, "neither the past nor a dry run lets anything go"
    now = datetime.now(UTC)
    with RequestLog.open(first.stores.requests) as log:  # without one the log of a file does not know that it is old
        log.record(
            [Served(request_id="new", model="churn", version="1", at=now, seconds=0.01, features={}, prediction="no")]
        )
    with caplog.at_level(logging.INFO):
        assert run(watch, policy=keeping).error is None
    assert requests(first) == 1
    assert f"retention: requests: churn before {datetime.now(UTC):%Y}" in caplog.text.replace(
        f"before {datetime.now(UTC).year - 1}", f"before {datetime.now(UTC).year}"
    )
    assert len(first.history) == 2
    with Ledger.open(first.stores.ledger) as ledger:
        assert ledger.misfits("churn") == ()


def test_a_retention_that_fails_does_not_stop_the_watch(
    first: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import retention

    def breaks(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(retention, "sweep", breaks)
    with caplog.at_level(logging.INFO):
        ran = run(watch, policy=first.policy("keeping", retention={"requests": "60d"}))
    assert ran.error is None
    assert ran.reports
    assert "not everything that may go went: OSError: the disk is full" in caplog.text
