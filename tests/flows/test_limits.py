"""What is tried again, what is not, and how long a flow may take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from prefect import flow
from sqlalchemy.exc import OperationalError

from flows import limits
from flows.steps import Begun, step
from tasks.data import DataError
from tasks.database import Busy, Full, Lost
from tasks.ledger import StaleDecision
from tasks.patience import MlflowAway

STALE = StaleDecision("somebody else")


@pytest.mark.parametrize(
    "error",
    [
        Lost("postgresql://db", "gone"),
        Busy("held"),
        MlflowAway("gone"),
        MlflowException("API request to http://mlflow failed"),
        OperationalError("SELECT 1", {}, Exception("gone")),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_may_be_over_in_some_minutes_is_tried_again(error: Exception) -> None:
    assert limits.passing(error)


@pytest.mark.parametrize(
    "error",
    [
        STALE,
        ValueError("no"),
        DataError("wrong"),
        Full("disk"),
        MlflowException("RESOURCE"),
        KeyError("x"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_stays_wrong_is_not_tried_again(error: Exception) -> None:
    assert not limits.passing(error)


def test_nothing_is_tried_again_where_somebody_waits() -> None:
    assert limits.delays({}) == []


@pytest.mark.parametrize("said", ["5", "0s", "5m;5m", "soon"])
def test_delays_that_cannot_be_read_are_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "get_run_context", deployed)
    with pytest.raises(ValueError, match="BACKSTOP_RETRY_DELAYS"):
        limits.delays({"BACKSTOP_RETRY_DELAYS": said})


def test_a_deployed_run_waits_five_minutes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "get_run_context", deployed)
    assert limits.delays({}) == [300, 300]
    assert limits.delays({"BACKSTOP_RETRY_DELAYS": "1s, 2m"}) == [1, 120]
    assert limits.delays({"BACKSTOP_RETRY_DELAYS": "off"}) == []


def deployed() -> Any:
    """The context of a run of a deployment."""

    class Context:
        class flow_run:  # noqa: N801  the name of Prefect's attribute
            deployment_id = "some"

    return Context()


def test_a_flow_may_take_as_long_as_the_environment_says() -> None:
    assert limits.longest("watch", {}) == 300
    assert limits.longest("retrain", {"BACKSTOP_TIMEOUT_RETRAIN": "12h"}) == 43_200
    with pytest.raises(ValueError, match="BACKSTOP_TIMEOUT_WATCH"):
        limits.longest("watch", {"BACKSTOP_TIMEOUT_WATCH": "long"})


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, prefect_api: None) -> None:
    """As in a run of a deployment, with short waits."""
    monkeypatch.setattr(limits, "delays", lambda: [0.05, 0.05])


def tried(*errors: Exception, again: bool = True) -> tuple[int, BaseException | None]:
    """How often a step was tried that fails with these errors, one after the other, and what came of it."""
    left, count = list(errors), 0

    def fragile() -> None:
        nonlocal count
        count += 1
        if left:
            raise left.pop(0)

    @flow
    async def run() -> None:
        await step(fragile, again=again)()

    try:
        asyncio.run(run())
    except Exception as error:  # noqa: BLE001  it is what is asked for
        return count, error
    return count, None


@pytest.mark.usefixtures("patient")
def test_a_step_goes_on_after_an_outage_and_gives_up_after_the_second_further_try() -> None:
    assert tried(MlflowAway("gone"), Lost("db", "gone")) == (3, None)
    count, error = tried(*[MlflowAway("gone")] * 4)
    assert (count, type(error)) == (3, MlflowAway)


@pytest.mark.usefixtures("patient")
def test_a_step_that_may_not_be_repeated_and_an_error_that_stays_are_tried_once() -> None:
    assert tried(MlflowAway("gone"), again=False)[0] == 1
    assert tried(ValueError("wrong"))[0] == 1


@pytest.mark.usefixtures("patient")
def test_a_transition_that_an_earlier_try_has_begun_is_not_begun_twice_and_that_is_what_is_said() -> None:
    count, error = tried(MlflowAway("in the middle"), STALE)
    assert (count, type(error)) == (2, Begun)
    assert "next tick of the watch" in str(error)
    assert tried(STALE) == (1, STALE), "the first try: somebody else got in"
