"""The watch over what serves, and the way back, through the real flows, registry, ledger and request log."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL
from scene import CHANGED, QUIET, Scene, day, run

from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import WatchFailed, watch
from rehearsal.traffic import HEALTHY, Faults
from tasks import watch as watching
from tasks.case import Case
from tasks.records import Report

MINUTE = 1 / 1440
WATCH = 30 * MINUTE
FAILING, SLOW = Faults(errors=0.4), Faults(latency=3.0)


def watched(scene: Scene, minutes: float, **options: Any) -> Report:
    """One tick of the watch, so many minutes after version 2 came into Production."""
    ran = scene.run(watch, CHANGED + minutes * MINUTE, **options)
    assert ran.error is None, ran.error
    return ran.reports[0]


def serving(
    scene: Scene, minutes: float, *, faults: Faults = HEALTHY, requests: int = 600, labels: bool = False
) -> None:
    """Requests at even steps, from version 2's promotion on."""
    scene.traffic(CHANGED, CHANGED + minutes * MINUTE, requests=requests, faults=faults, labels=labels)


# Healthy.


def test_a_version_that_ends_its_watch_healthy_is_known_good(second: Scene) -> None:
    serving(second, 30)
    begun = watched(second, 0.5)
    assert begun.line.endswith("(the first are counted at 00:01:00 UTC)")
    early = watched(second, 10.5)
    assert (early.decision, second.standing.known_good) == ("watching", ("1",))
    assert early.line.endswith("(counted until 00:10:00 UTC)")  # the look that began then is not over
    ran = second.run(watch, CHANGED + WATCH)
    assert (ran.report.decision, ran.state.name) == ("healthy", "Healthy")
    assert second.standing.known_good == ("2", "1")
    assert ran.report.trail == second.history[-1].trail
    assert len(second.history) == 4


def test_too_few_requests_never_make_a_version_known_good(second: Scene) -> None:
    serving(second, 30, requests=99)
    assert watched(second, 31).decision == "watching"
    assert second.standing.known_good == ("1",)


def test_a_dry_run_of_the_watch_writes_nothing(second: Scene) -> None:
    serving(second, 30)
    before = second.mark()
    assert watched(second, 30, dry_run=True).decision == "healthy"
    assert second.mark() == before


# Unhealthy.


@pytest.mark.slow  # a fresh process per rollback
@pytest.mark.fresh
def test_a_version_that_fails_is_rolled_back_quarantined_and_told(second: Scene) -> None:
    serving(second, 10, faults=FAILING)
    ran = second.run(watch, CHANGED + 10 * MINUTE)
    assert (ran.report.decision, ran.state.name, ran.report.production) == ("rolled-back", "RolledBack", "1")
    assert "requests failed, shown to be more than the 10% tolerated" in ran.report.line
    view = second.view
    assert (view.production, view.champion) == (("1",), "1")
    assert second.version("2").current_stage == "Archived"
    assert ran.report.line in second.version("2").tags["backstop.quarantined"]
    standing, last = second.standing, second.history[-1]
    assert (standing.production, standing.quarantined, standing.known_good) == ("1", ("2",), ("1",))
    assert (last.action, last.version, last.previous, last.actor) == ("rollback", "1", "2", "flows.watch")
    assert last.trail == second.history[-2].trail  # that of the promotion it takes back
    title, body = second.messages()[-1]
    assert title == "churn: version 2 is unhealthy, rolled back to 1"
    assert f"trail {last.trail}" in body

    # No ping-pong: what comes back is watched like any other, and the bad one stays away.
    later = watched(second, 11)
    assert (later.decision, later.production, len(second.history)) == ("watching", "1", 5)
    second.traffic(CHANGED + 10 * MINUTE, CHANGED + 20 * MINUTE, requests=600, faults=FAILING)
    both = second.run(watch, CHANGED + 20 * MINUTE)
    assert (both.report.decision, both.state.name, both.report.production) == ("held", "Held", "1")
    assert "no version can be rolled back to" in both.report.line
    assert "version 2 was rolled back from" in both.report.line
    assert second.told()[-1] == "churn: version 1 is unhealthy, and nothing is eligible to go back to"
    assert second.view.production == ("1",)

    # Neither a retraining nor a person who does not insist brings the quarantined version back.
    by_hand = {"reason": "it was the network", "version": "2", "dry_run": False}
    refused = second.run(promote, CHANGED + 1, **by_hand)
    assert "it was rolled back from and is quarantined" in str(refused.error)
    second.click("2", "Production")
    second.run(retrain, CHANGED + 1, policy=second.policy(triggers={"retrain_when": "age"}))
    assert second.view.production == ("1",)
    insisted = second.run(promote, CHANGED + 2, **by_hand, override=True)
    assert (insisted.report.decision, second.view.production) == ("promoted", ("2",))
    assert second.standing.quarantined == ()
    assert "2" not in second.standing.known_good
    assert "although it was rolled back from and is quarantined" in second.history[-1].reason

    # One rollback in seven days is all that this policy allows without a person.
    once = second.policy(health={"max_rollbacks": 1})
    second.traffic(CHANGED + 2, CHANGED + 2 + 10 * MINUTE, requests=600, faults=FAILING, policy=once)
    held = second.run(watch, CHANGED + 2 + 10 * MINUTE, policy=once)
    assert (held.report.decision, second.view.production) == ("held", ("2",))
    assert "1 rollbacks happened within the policy's window and 1 are allowed" in held.report.line


def test_a_version_that_is_slow_would_be_rolled_back_says_a_dry_run_and_moves_nothing(second: Scene) -> None:
    serving(second, 10, faults=SLOW)
    before = second.mark()
    report = watched(second, 10, dry_run=True)
    assert (report.decision, report.production, report.transition) == ("rolled-back", "2", None)
    assert "took more than 1 second" in report.line
    assert second.mark() == before


@pytest.mark.slow  # a fresh process
def test_a_version_that_is_wrong_is_rolled_back_once_the_labels_arrive(second: Scene) -> None:
    serving(second, 25)
    assert watched(second, 26).decision == "watching"
    second.label_all(CHANGED, CHANGED + 1, wrong=0.5)
    report = watched(second, 28)
    assert (report.decision, second.view.production) == ("rolled-back", ("1",))
    assert "were answered wrongly" in report.line


def test_labels_that_come_days_after_the_watch_still_count(second: Scene) -> None:
    serving(second, 30)
    assert watched(second, 31).decision == "healthy"
    second.traffic(CHANGED + 1, CHANGED + 1.5, requests=600, labels=False)
    second.label_all(CHANGED + 1, CHANGED + 1.5, wrong=0.5)
    next(second.artifact("1").glob("*.skops")).write_bytes(b"rubbish")  # it would be taken back, and cannot
    report = watched(second, 1440 * 1.6)
    assert report.decision == "held"
    assert "were answered wrongly, shown to be more than the 20% tolerated" in report.verdicts[-2].reason


@pytest.mark.slow  # a third version, and two fresh processes
def test_a_target_that_does_not_load_is_skipped(second: Scene) -> None:
    serving(second, 30)
    assert watched(second, 30).decision == "healthy"
    off = second.policy(shadow="off", gate={"regression": "off", "stability": "off"})
    third = second.run(retrain, CHANGED + 4, policy=off, force=True, reason="the season begins")
    assert (third.report.decision, second.view.production) == ("promoted", ("3",))
    next(second.artifact("2").glob("*.skops")).write_bytes(b"rubbish")
    at = CHANGED + 4
    second.traffic(at, at + 10 * MINUTE, requests=600, faults=FAILING)
    ran = second.run(watch, at + 10 * MINUTE)
    assert (ran.report.decision, second.view.production) == ("rolled-back", ("1",))
    tried = {one.name: one.outcome for verdict in ran.report.verdicts for one in verdict.findings}
    assert (tried["version 2 answers"], tried["version 1 answers"]) == ("breach", "ok")


def test_where_no_target_loads_production_stays_and_a_person_is_paged(second: Scene) -> None:
    next(second.artifact("1").glob("*.skops")).write_bytes(b"rubbish")
    serving(second, 10, faults=FAILING)
    report = watched(second, 10)
    assert (report.decision, second.view.production) == ("held", ("2",))
    assert "no version known good loads and answers" in report.line
    assert second.told()[-1] == "churn: version 2 is unhealthy, and nothing is eligible to go back to"
    told, decided = len(second.told()), len(second.decisions())
    assert watched(second, 11).decision == "held"
    assert (len(second.told()), len(second.decisions())) == (told, decided)  # once is enough
    assert second.decisions("rollback")[-1] == ("stay", None)


# No evidence.


def test_silence_is_held_and_paged_once_and_never_rolled_back(second: Scene) -> None:
    assert watched(second, 10).decision == "watching"
    told = len(second.told())
    ran = second.run(watch, CHANGED + 16 * MINUTE)
    assert (ran.report.decision, ran.state.name) == ("held", "Held")
    assert "no evidence since" in ran.report.line
    assert second.told()[told:] == ["churn: no evidence about version 2"]
    assert watched(second, 17).decision == "held"
    assert watched(second, 40).decision == "held"
    assert len(second.told()) == told + 1
    assert watched(second, 60).decision == "held"
    assert len(second.told()) == told + 2  # it is silent still
    assert (second.view.production, second.standing.known_good) == (("2",), ("1",))


def test_a_page_about_silence_does_not_silence_the_page_about_errors(second: Scene) -> None:
    next(second.artifact("1").glob("*.skops")).write_bytes(b"rubbish")
    assert watched(second, 16).decision == "held"
    second.traffic(CHANGED + 16 * MINUTE, CHANGED + 20 * MINUTE, requests=600, faults=FAILING)
    assert watched(second, 20).decision == "held"
    assert second.told()[-1] == "churn: version 2 is unhealthy, and nothing is eligible to go back to"


def test_a_request_log_that_cannot_be_read_is_held(second: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(second, 10, faults=FAILING)
    monkeypatch.setenv("BACKSTOP_REQUESTS", f"sqlite:///{second.home}/churn.csv/requests.db")
    early = watched(second, 10)
    assert (early.decision, early.production) == ("watching", "2")
    assert "health could not be read" in early.line
    late = watched(second, 16)
    assert (late.decision, late.production) == ("held", "2")
    assert second.told()[-1] == "churn: no evidence about version 2"
    assert len(second.history) == 4


def test_before_the_first_promotion_there_is_nothing_to_watch_and_nobody_is_alarmed(empty: Scene) -> None:
    ran = empty.run(watch, CHANGED)
    assert (ran.report.decision, ran.report.production) == ("watching", None)
    assert "nothing was ever in Production" in ran.report.line
    assert empty.told() == []


# A person's word.


@pytest.mark.slow  # a fresh process
def test_a_person_rolls_back_with_a_reason_that_is_kept(second: Scene) -> None:
    word = {"reason": "customers complain", "actor": "Ada", "dry_run": False}
    ran = second.run(rollback, CHANGED + 1, **word)
    assert (ran.report.decision, ran.report.production) == ("rolled-back", "1")
    assert (second.history[-1].actor, second.standing.quarantined) == ("Ada", ("2",))
    assert "customers complain" in second.history[-1].reason
    assert second.told()[-1] == "churn: rolled back"


def test_a_rollback_without_a_version_known_good_stays_and_says_why(first: Scene) -> None:
    before = first.mark()
    shown = first.run(rollback, CHANGED, reason="customers complain")  # a dry run, unless told otherwise
    assert (shown.report.dry_run, first.mark() == before) == (True, True)
    ran = first.run(rollback, CHANGED, reason="customers complain", dry_run=False)
    assert (ran.report.decision, ran.state.name, ran.report.production) == ("held", "Held", "1")
    assert "no version can be rolled back to" in ran.report.line
    assert first.told()[-1] == "churn: held"
    assert first.decisions("rollback") == [("stay", None)]


def test_a_version_that_never_was_known_good_cannot_be_rolled_back_to(waiting: Scene) -> None:
    ran = waiting.run(rollback, CHANGED, reason="customers complain", to="2", dry_run=False)
    assert ran.report.decision == "held"
    assert "version 2 cannot be rolled back to: it never finished a watch healthy" in ran.report.line
    assert waiting.view.production == ("1",)


def test_a_version_that_is_not_there_cannot_be_rolled_back_to(first: Scene) -> None:
    ran = first.run(rollback, QUIET, reason="customers complain", to="99")
    assert ran.state.is_failed()
    assert "there is no version 99 of churn" in str(ran.error)


def test_where_nothing_is_in_production_nothing_is_rolled_back(empty: Scene) -> None:
    ran = empty.run(rollback, QUIET, reason="customers complain", dry_run=False)
    assert ran.report.decision == "held"
    assert ran.report.line.startswith("nothing is in Production of churn, so there is nothing to roll back; ")
    assert ran.report.verdicts[0].reason == ran.report.line
    assert empty.decisions("rollback") == []


# Several models, several ticks, and what an earlier one left.


def test_one_models_failure_stops_no_other_and_is_named(second: Scene) -> None:
    serving(second, 30)
    other = second.policy("other", model="other", data={"source": "churn.csv"})
    broken = second.home / "broken.yaml"
    broken.write_text("model: broken\nproblem: binaer\n", encoding="utf-8")
    ran = run(watch, policy=f"{broken},{other},{second.policy()}", as_of=day(CHANGED + WATCH))
    assert ran.state.is_failed()
    assert isinstance(ran.error, WatchFailed)
    assert "broken.yaml:2" in str(ran.error)
    assert str(ran.error).startswith("1 of 3 policies cannot be read and is not watched: ")
    assert [(one.model, one.decision) for one in ran.error.reports] == [("other", "watching"), ("churn", "healthy")]
    assert second.standing.known_good == ("2", "1")


def test_a_tick_that_fails_names_its_model_and_the_others_are_done(
    second: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving(second, 30)
    other = second.policy("other", model="other", data={"source": "churn.csv"})
    tick = watching.tick

    def failing(case: Case, *rest: Any) -> Any:
        if case.model == "other":
            raise ConnectionError("the database has gone away")
        return tick(case, *rest)

    monkeypatch.setattr(watching, "tick", failing)
    ran = run(watch, policy=f"{other},{second.policy()}", as_of=day(CHANGED + WATCH))
    assert isinstance(ran.error, WatchFailed)
    assert "1 of 2 models failed" in str(ran.error)
    assert "other: ConnectionError: the database has gone away" in str(ran.error)
    assert [one.decision for one in ran.error.reports] == ["failed", "healthy"]
    assert "other: watch failed, Production unchanged" in second.told()


@pytest.mark.slow  # two fresh processes
def test_two_ticks_at_the_same_moment_roll_back_once(second: Scene) -> None:
    serving(second, 10, faults=FAILING)
    at_once = threading.Barrier(2, timeout=60)
    met: list[Any] = []

    async def both() -> list[Any]:
        policy, moment = second.policy(), day(CHANGED + 10 * MINUTE)
        ticks = (watch(policy=policy, as_of=moment, return_state=True) for _ in range(2))
        return [await state.aresult(raise_on_failure=False) for state in await asyncio.gather(*ticks)]

    from tasks import rollback as reversal

    tried = reversal.try_out

    def together(case: Case, version: str) -> Any:
        met.append(version)
        at_once.wait()  # both have read the ledger before either writes
        return tried(case, version)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reversal, "try_out", together)
        ends = asyncio.run(both())
    assert met == ["1", "1"]
    assert [one.action for one in second.history].count("rollback") == 1
    assert (second.view.production, second.view.champion) == (("1",), "1")
    assert sorted(reports[0].decision for reports in ends) == ["rolled-back", "watching"]
    assert "churn: watch failed, Production unchanged" not in second.told()


def test_a_rollback_that_was_begun_and_not_finished_is_completed_by_the_next_tick(second: Scene) -> None:
    case = second.case(CHANGED + 5 * MINUTE)
    with case.ledger as ledger:  # a process that is killed between intent and registry leaves exactly this
        ledger.intend(
            model="churn",
            based_on=second.standing.seq,
            action="rollback",
            version="1",
            actor="flows.watch",
            reason="errors",
            at=case.now,
            trail="killed",
        )
    report = watched(second, 6)
    assert report.production == "1"
    assert (second.view.production, second.view.champion) == (("1",), "1")
    assert second.standing.quarantined == ("2",)
    assert second.history[-1].state == "applied"
    assert "it was completed now and read back" in second.messages()[-1][1]


# The quiet path.

QUIET_TICK = """
import asyncio, sys
from datetime import datetime
from flows.watch import watch
reports = asyncio.run(watch(policy=sys.argv[1], as_of=datetime.fromisoformat(sys.argv[2])))
print("decision", reports[0].decision)
print("loaded", sorted({"mlflow", "sklearn", "pandas", "matplotlib", "pyarrow", "joblib", "skops"} & set(sys.modules)))
"""


def test_the_quiet_path_of_the_watch_imports_nothing_that_is_slow(second: Scene) -> None:
    serving(second, 10)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", QUIET_TICK, second.policy(), (day(CHANGED) + timedelta(minutes=10)).isoformat()],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(root)},
        cwd=second.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "decision watching" in done.stdout
    assert "loaded []" in done.stdout


# What somebody does in MLflow beside Backstop.


def test_a_click_in_mlflow_is_put_back_by_the_next_tick(second: Scene) -> None:
    second.click("1", "Production")
    ran = second.run(watch, CHANGED + MINUTE)
    assert (ran.report.decision, ran.report.production) == ("watching", "2")
    assert (second.view.production, second.view.champion) == (("2",), "2")
    title, body = second.messages()[-1]
    assert (title, "version 2 was put back" in body) == ("churn: registry", True)


def test_a_dry_tick_leaves_a_click_as_it_is(second: Scene) -> None:
    second.click("1", "Production")
    before = second.mark()
    assert second.run(watch, CHANGED + MINUTE, dry_run=True).report.decision == "watching"
    assert second.mark() == before


def test_production_deleted_in_mlflow_is_told_once_and_not_every_minute(second: Scene) -> None:
    second.client.delete_registered_model_alias("churn", "champion")
    second.click("2", "Archived")
    second.client.delete_model_version("churn", "2")
    told = len(second.told())
    for minute in (1, 2, 3):
        assert second.run(watch, CHANGED + minute * MINUTE).report.production == "2"
    assert second.told()[told:] == ["churn: registry"]
    assert "was deleted from MLflow" in second.messages()[-1][1]
    assert second.view.production == ()


def test_the_watch_goes_on_when_mlflow_is_away_and_says_so(second: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    ran = second.run(watch, CHANGED + MINUTE)
    assert (ran.report.decision, ran.report.production) == ("watching", "2")
    assert "MLflow could not be looked at: ConnectionRefusedError" in ran.report.line


def test_a_tick_that_fails_the_same_way_every_minute_tells_once(second: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    case = second.case(CHANGED + 1)
    with case.ledger as ledger:
        ledger.intend(
            model="churn",
            based_on=second.standing.seq,
            action="promote",
            version="1",
            actor="a run that died",
            reason="r",
            at=day(CHANGED),
            trail="t",
        )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = len(second.told())
    for minute in (1, 2):
        assert second.run(watch, CHANGED + minute * MINUTE).error is not None
    assert len(second.told()) == told + 1
    later = CHANGED + 3 * MINUTE + 1
    assert second.run(watch, later).error is not None
    assert len(second.told()) == told + 2, "after the silence deadline it is told again"
