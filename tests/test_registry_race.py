"""Two processes at once, on real ledgers and real MLflow: exactly one wins, and MLflow has what the ledger says.

The long form, with MLflow alone beside it, is ``python -m benchmarks.registry_race``.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from servers import MlflowServer, Postgres

from benchmarks.registry_race import Score, compete, prepare
from tasks.stores import Stores


def clean(score: Score, rounds: int) -> None:
    assert (score.rounds, score.bad) == (rounds, 0), score.wrong
    assert sum(score.wins.values()) == rounds


@pytest.mark.slow
def test_two_promotes_at_once_leave_one_production_and_one_stale_decision(stores: Stores) -> None:
    prepare(stores)
    clean(compete("promote | promote", stores, 15), 15)


@pytest.mark.slow
def test_a_promote_and_a_rollback_at_once_leave_the_one_that_won(stores: Stores) -> None:
    prepare(stores)
    clean(compete("promote | rollback", stores, 10, mixed=True), 10)


@pytest.mark.slow
def test_the_same_with_mlflow_behind_http_and_the_ledger_in_postgresql(
    stores: Stores, mlflow_http: MlflowServer, postgres_server: Postgres
) -> None:
    team = replace(stores, tracking=mlflow_http.url, ledger=postgres_server.database(), artifacts=None)
    prepare(team)
    clean(compete("promote | promote, team", team, 8), 8)
    clean(compete("promote | rollback, team", team, 4, mixed=True), 4)


def test_the_race_is_one_that_mlflow_alone_loses(stores: Stores) -> None:
    prepare(stores)
    assert compete("raw MLflow", stores, 30, raw=True).bad > 0
