"""The same flows as a team runs them: ledger and request log in PostgreSQL, MLflow and its artifacts behind HTTP."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scene import CHANGED, FIRST, Scene, at_home, day, run
from servers import MlflowServer, Postgres, Proxy, proxy

from flows.promote import promote
from flows.retrain import retrain
from flows.watch import WatchFailed, watch
from rehearsal.traffic import Faults
from tasks import promotion
from tasks import watch as watching
from tasks.case import Case
from tasks.ledger import StaleDecision
from tasks.records import Report
from tasks.stores import Stores

MINUTE = 1 / 1440
FAILING = Faults(errors=0.4)


class Team(Scene):
    """A scene whose stores are where the environment says."""

    @property
    def stores(self) -> Stores:
        """Of the team."""
        return Stores.from_environment()


@pytest.fixture
def network(mlflow_http: MlflowServer) -> Iterator[Proxy]:
    """The way to MLflow's server."""
    with proxy(mlflow_http.port) as made:
        yield made


@pytest.fixture
def team(
    empty_scene: Scene, tmp_path: Path, network: Proxy, postgres_server: Postgres, prefect_api: None
) -> Iterator[Team]:
    """Customers and a policy; nothing was ever trained."""
    home = tmp_path / "home"
    shutil.copytree(empty_scene.home, home, ignore=shutil.ignore_patterns("*.db*"))
    with at_home(home), pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKSTOP_LEDGER", postgres_server.database())
        patch.setenv("MLFLOW_TRACKING_URI", network.url)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield Team(home)
        assert not list(home.glob("*.db")), "everything that lasts is with the servers"


def agreed(team: Team, version: str) -> None:
    """MLflow and the ledger both have exactly this version in Production."""
    view, standing = team.view, team.standing
    assert (view.production, view.champion) == ((version,), version)
    assert (standing.production, standing.pending) == (version, None)


@pytest.mark.fresh
@pytest.mark.slow  # two servers, three trainings, a rollback, and two people at once
def test_a_model_goes_there_and_back_and_two_people_cannot_both_decide(
    team: Team, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert team.run(retrain, FIRST).report.decision == "first-promoted"
    agreed(team, "1")
    assert str(team.client.get_model_version_download_uri("churn", "1")).startswith(("models:/", "mlflow-artifacts:/"))
    team.traffic(FIRST, FIRST + 1 / 48, requests=600)
    assert team.run(watch, FIRST + 1 / 48).report.decision == "healthy"
    assert team.stores.requests == team.stores.ledger, "one database holds both"

    # The world changes.
    team.traffic(CHANGED - 14, CHANGED)
    ran = team.run(retrain, CHANGED)
    assert (ran.report.decision, ran.state.name) == ("promoted", "Promoted")
    agreed(team, "2")
    assert team.version("1").current_stage == "Archived"

    # The new version fails in service, and MLflow goes away in the middle of the rollback.
    team.traffic(CHANGED, CHANGED + 10 * MINUTE, requests=600, faults=FAILING, labels=False)
    network.refuse(b"/registered-models/alias")
    ran = team.run(watch, CHANGED + 10 * MINUTE)
    assert "MlflowAway: MLflow at http://127.0.0.1" in str(ran.error)
    assert team.told()[-1] == "churn: watch failed, rollback of version 1 is begun and not finished"
    assert team.run(watch, CHANGED + 11 * MINUTE).error is not None, "it is away still"
    network.accept()
    ran = team.run(watch, CHANGED + 12 * MINUTE)
    assert (ran.report.decision, ran.report.production) == ("watching", "1")
    assert "it was completed now and read back" in team.messages()[-1][1]
    agreed(team, "1")
    assert (team.standing.quarantined, team.standing.known_good) == (("2",), ("1",))
    assert team.history[-1].reason in team.version("2").tags["backstop.quarantined"]
    assert [(row.action, row.version, row.state) for row in team.history] == [
        ("stage", "1", "applied"),
        ("promote", "1", "applied"),
        ("stage", "2", "applied"),
        ("promote", "2", "applied"),
        ("rollback", "1", "applied"),
    ]

    # A third version that the gate refuses; and then one person wants the second, another one the third.
    strict = team.policy("strict", gate={"performance": {"at_least": 0.999}})
    third = team.run(retrain, CHANGED + 4, policy=strict, force=True, reason="the season begins")
    assert (third.report.decision, team.version("3").current_stage) == ("gate-failed", "None")
    ends = together(team, monkeypatch, "2", "3")
    (won,) = [end for end in ends if isinstance(end, Report)]
    (stale,) = [end for end in ends if isinstance(end, StaleDecision)]
    assert won.decision == "promoted"
    agreed(team, str(won.candidate))
    assert f"person {won.candidate} got in first" in str(stale)
    assert [(row.action, row.version) for row in team.history[5:]] == [("promote", won.candidate)]
    assert any(title.startswith("churn: promote failed, ") for title in team.told())


def together(team: Team, monkeypatch: pytest.MonkeyPatch, *versions: str) -> list[Any]:
    """Two people promote a version each at the same moment; how their runs ended."""
    at_once = threading.Barrier(len(versions), timeout=60)
    tried = promotion.try_out

    def meet(case: Case, version: str) -> Any:
        found = tried(case, version)
        at_once.wait()  # both have read the ledger before either writes
        return found

    monkeypatch.setattr(promotion, "try_out", meet)

    async def both() -> list[Any]:
        options = {"reason": "I know better", "override": True, "dry_run": False, "return_state": True}
        runs = (
            promote(policy=team.policy(), version=version, actor=f"person {version}", as_of=day(CHANGED + 5), **options)
            for version in versions
        )
        return [await state.aresult(raise_on_failure=False) for state in await asyncio.gather(*runs)]

    return asyncio.run(both())


# The ledger is away.


def two_models(empty: Scene) -> str:
    """The policies of two models with one sink."""
    return f"{empty.policy()},{empty.policy('other', model='other')}"


def test_a_watch_without_a_ledger_fails_once_and_tells_a_person_once(
    empty: Scene, postgres_server: Postgres, prefect_api: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_LEDGER", "postgresql://backstop@/ledger?host=/nonexistent")
    ran = run(watch, policy=two_models(empty))
    assert isinstance(ran.error, WatchFailed)
    assert "no model was watched: churn, other: not watched, LedgerError: the ledger at postgresql" in str(ran.error)
    ((title, body),) = empty.messages()
    assert title == "churn, other: watch could not begin, Production unchanged"
    assert "see that BACKSTOP_LEDGER" in body

    assert isinstance(run(watch, policy=two_models(empty)).error, WatchFailed)
    assert len(empty.messages()) == 1, "a minute later it is no news"

    # Without sinks of their own, those of the environment; and a dry run tells nobody.
    silent = empty.policy("silent", notify=[])
    monkeypatch.setenv("BACKSTOP_NOTIFY", f"file:{empty.home}/told.jsonl")
    assert run(watch, policy=silent, dry_run=True).error is not None
    assert len(empty.told()) == 1
    assert run(watch, policy=silent).error is not None
    assert len(empty.told()) == 2


def test_a_ledger_that_dies_during_a_tick_ends_the_run_with_every_model_named(
    empty: Scene, postgres_server: Postgres, prefect_api: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_LEDGER", postgres_server.database())
    tick = watching.tick

    def dying(*rest: Any) -> Any:
        postgres_server.stop(hard=True)
        return tick(*rest)

    monkeypatch.setattr(watching, "tick", dying)
    try:
        ran = run(watch, policy=two_models(empty))
    finally:
        postgres_server.start()
    assert isinstance(ran.error, WatchFailed)
    assert "churn: Lost: postgresql" in str(ran.error)
    assert "other: not watched, LedgerError" in str(ran.error)
    assert empty.told() == [
        "churn: watch failed, and the ledger does not answer: see in MLflow what is in Production",
        "other: watch could not begin, Production unchanged",
    ]
    monkeypatch.setattr(watching, "tick", tick)
    assert [one.decision for one in run(watch, policy=two_models(empty)).reports] == ["watching", "watching"]
