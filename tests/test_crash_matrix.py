"""Processes killed at their boundaries and at random moments: one Production, nothing done twice or by half.

The long form, with every statement of every act and MLflow alone beside it, is ``python -m benchmarks.crash_matrix``.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from servers import Postgres

from benchmarks.acts import ADOPT, COMPLETE, PROMOTE, ROLL_BACK, STAGE
from benchmarks.crash_matrix import Nursery, Score, every_boundary, random_moments, raw
from benchmarks.crash_site import somewhere
from benchmarks.killed_flows import killed
from benchmarks.killing import LASTING

pytestmark = pytest.mark.timeout(900)  # the first test waits for all of the matrix

KILLS = 20
SABOTAGED = "reconcile that leaves intents alone"
FLOWS = {"rollback": (1, -13, -4), "promote": (1, -12, -6)}
"""Kills before the intent, while MLflow is changed, and while it is settled."""


def each_once(names: list[str]) -> list[int]:
    """Before each thing that lasts, and after the last one.

    Right after one of them is as before the next: nothing between the two outlives the process (LASTING). Of the two,
    the kill before it is the harder one, because it also leaves a transaction that is open.
    """
    return [number for number, name in enumerate(names) if name.startswith("before ")] + [-1]


def small_matrix() -> Iterator[Score]:
    """In the nursery: every boundary at which something lasting happens."""
    with somewhere() as place:
        for act in (PROMOTE, ROLL_BACK):
            yield every_boundary(place, act, LASTING, chosen=each_once)
        yield every_boundary(place, COMPLETE, LASTING, chosen=range(1, 14, 2))
        yield every_boundary(place, STAGE, LASTING, chosen=(-2, -1))
        yield every_boundary(place, ADOPT, LASTING, chosen=(-3, -2))
        yield random_moments(place, (PROMOTE, ROLL_BACK, COMPLETE), KILLS, seed=3)
        yield raw(place, LASTING)
        with patch("tasks.reconcile._finish", return_value=()):
            yield every_boundary(place, PROMOTE, LASTING, chosen=(0, 6, -2))


def on_postgres(ledgers: list[str]) -> Iterator[Score]:
    """In the nursery: some kills with the ledger on a server."""
    with somewhere(ledgers) as place:
        yield every_boundary(place, ROLL_BACK, LASTING, chosen=(8, -2))


@pytest.fixture(scope="module")
def killed_flows(prefect_api: None) -> Nursery:
    """Under way; the tests before it that use the other core go on meanwhile."""
    from prefect.settings import PREFECT_API_URL

    return Nursery(killed, str(PREFECT_API_URL.value()), FLOWS)


@pytest.fixture(scope="module")
def scores(killed_flows: Nursery) -> dict[str, Score]:
    """Of the small matrix, by act; the last act is done with a product that was broken on purpose."""
    found = list(Nursery(small_matrix))
    return {score.name: score for score in found[:-1]} | {SABOTAGED: found[-1]}


def survived(score: Score, kills: int) -> None:
    assert score.wrong == ()
    assert (score.bad, score.kills) == (0, kills)


@pytest.mark.slow
@pytest.mark.parametrize("act", [PROMOTE, ROLL_BACK], ids=lambda act: act.name)
def test_killed_at_any_boundary_the_next_run_leaves_it_as_before_or_as_after(
    scores: dict[str, Score], act: object
) -> None:
    score = scores[act.name]  # type: ignore[attr-defined]
    assert score.boundaries >= 20, "before and after each: verdict, intent, stage, aliases, tags, settlement"
    survived(score, score.boundaries // 2 + 1)
    assert score.begun >= score.kills - 2, "all but those before the verdict and before the intent"


def test_a_reconcile_killed_after_anything_it_wrote_is_gone_on_with(scores: dict[str, Score]) -> None:
    score = scores[COMPLETE.name]
    assert score.boundaries == 14, "the kills in the matrix are after each of its seven commits"
    survived(score, 7)


@pytest.mark.parametrize("act", [STAGE, ADOPT], ids=lambda act: act.name)
def test_what_belongs_to_a_transition_is_not_lost_by_a_kill_right_after_it(
    scores: dict[str, Score], act: object
) -> None:
    """The gate's tag of a candidate, and the digest of a version that was taken over."""
    survived(scores[act.name], 2)  # type: ignore[attr-defined]


def test_killed_at_a_random_moment_alone_or_with_another_one_at_work(scores: dict[str, Score]) -> None:
    survived(scores["random moments"], KILLS)


def test_a_script_with_mlflow_alone_is_left_half_done(scores: dict[str, Score]) -> None:
    assert scores["raw MLflow"].bad > 0


def test_the_matrix_finds_a_product_that_leaves_intents_alone(scores: dict[str, Score]) -> None:
    score = scores[SABOTAGED]
    assert score.kills == 3
    assert score.bad >= 2
    assert "pending" in " ".join(score.wrong)


@pytest.mark.slow
def test_flows_that_were_killed_are_taken_up_by_the_next_watch(killed_flows: Nursery) -> None:
    for score in killed_flows:
        survived(score, 3)
        assert 0 < score.begun < 3, "one was killed before its intent, the others after"


@pytest.mark.slow
def test_the_same_with_the_ledger_on_postgresql(postgres_server: Postgres) -> None:
    (score,) = Nursery(on_postgres, [postgres_server.database() for _ in range(4)])
    survived(score, 2)
