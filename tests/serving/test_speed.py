"""What makes the gateway quick changes no answer: the shortcut, the way past the framework, answering together."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from candidates import Moody
from shops import GOOD, Server, Shop
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.tree import DecisionTreeClassifier

from serving.contract import Column, Contract
from serving.draft import Ask
from serving.gateway import Gateway, ModelFailed
from serving.inputs import BadInput
from serving.lineup import Lineup
from serving.loaded import Loaded
from serving.routing import Arm
from serving.settings import Settings
from serving.shortcut import shortcut
from tasks.policy_file import load as load_policy

DRAW = np.random.default_rng(5)
ROWS = DRAW.normal(size=(400, 6))
SUM = ROWS @ np.arange(6)


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (LogisticRegression(), np.where(SUM > 0, "yes", "no")),
        (LogisticRegression(C=100, fit_intercept=False), np.where(SUM > 0, 1, 0)),
        (LogisticRegression(), np.digitize(SUM, [-3, 3])),
        (LinearRegression(), SUM),
        (Ridge(), SUM),
    ],
)
def test_the_shortcut_says_what_the_model_says(model: Any, target: Any) -> None:
    model.fit(ROWS, target)
    made = shortcut(model, 6)
    assert made is not None
    fresh = DRAW.normal(size=(1000, 6)) * 10.0 ** DRAW.integers(-4, 5, size=(1000, 1))
    expected = model.predict_proba(fresh) if hasattr(model, "predict_proba") else model.predict(fresh)
    assert np.allclose(made(fresh), expected, rtol=1e-12, atol=1e-12)


def test_there_is_no_shortcut_where_the_two_could_differ() -> None:
    labels = np.where(SUM > 0, "yes", "no")
    assert shortcut(DecisionTreeClassifier().fit(ROWS, labels), 6) is None
    assert shortcut(SGDClassifier(loss="log_loss").fit(ROWS, labels), 6) is None
    assert shortcut(Moody().fit(ROWS, labels), 6) is None, "another class may do anything"
    changed = LogisticRegression().fit(ROWS, labels)
    changed.predict_proba = lambda rows: np.full((len(rows), 2), 0.5)
    assert shortcut(changed, 6) is None
    assert shortcut(LinearRegression().fit(ROWS, np.column_stack([SUM, SUM])), 6) is None
    assert shortcut(object(), 6) is None


ELSEWISE = {"Content-Type": "application/json; charset=utf-8"}
"""As good, and not what goes past the framework."""


@pytest.mark.parametrize(
    "body",
    [
        {"features": GOOD, "request_id": "both ways"},
        {"rows": [{"features": GOOD, "request_id": f"both {number}"} for number in range(3)]},
        {"dataframe_records": [GOOD], "request_ids": ["both"]},
        {"features": {**GOOD, "age": 1}},
        {"features": GOOD, "model": "fraud"},
        {"features": GOOD, "rows": []},
        b"{",
        b"",
        b"[1]",
        b'{"features": {"tenure_months": NaN}}',
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/invocations"])
def test_the_way_past_the_framework_answers_as_the_framework_does(gateway: Server, path: str, body: Any) -> None:
    plain, usual = gateway.post(path, body), gateway.post(path, body, headers=ELSEWISE)
    assert plain.status_code == usual.status_code
    assert plain.json() == usual.json()
    assert {name: plain.headers[name] for name in ("content-type", "content-length")} == {
        name: usual.headers[name] for name in ("content-type", "content-length")
    }


class Counting:
    """Raises on 13; remembers how many rows it was asked for at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked: list[int] = []
        self._seconds = seconds

    def predict(self, frame: Any) -> list[float]:
        self.asked.append(len(frame))
        time.sleep(self._seconds)
        if (frame["n"] == 13).any():
            raise RuntimeError("no answer to 13")
        return [2 * value for value in frame["n"]]


def gateway_of(shop: Shop, model: Any, **changes: Any) -> Gateway:
    made = Gateway([load_policy(shop.policy)], shop.stores, Settings(**changes))
    loaded = Loaded("1", "d", model, Contract((Column("n", "number"),)))
    made.followers["churn"]._swap(Lineup.of("churn", 1, (Arm("1"),), {"1": loaded}))
    return made


def body(*numbers: Any) -> bytes:
    return json.dumps({"rows": [{"features": {"n": number}} for number in numbers]}).encode()


def test_requests_are_answered_together_and_what_is_wrong_with_one_is_nothing_to_the_others(shop: Shop) -> None:
    model = Counting()
    made = gateway_of(shop, model)
    begun = time.perf_counter()
    asks = [body(1, 2), b"no JSON", body(3), body("text"), body(4, 5, 6)]
    said = made.predict_all([Ask(one, begun) for one in asks])
    answers = [[row["prediction"] for row in json.loads(one)["answers"]] for one in said if isinstance(one, bytes)]
    assert answers == [[2, 4], [6], [8, 10, 12]]
    assert model.asked == [6], "one call for all"
    assert [type(said[1]), type(said[3])] == [BadInput, BadInput]

    said = made.predict_all([Ask(one, begun) for one in (body(1), body(7, 13), body(2))])
    assert [isinstance(one, bytes) for one in said] == [True, False, True]
    assert isinstance(said[1], ModelFailed)
    assert said[1].places == ("rows[1].features",)
    recorded = list(made.logbook.answers._waiting)[6:]
    assert [row.failed for row in recorded] == [False, True, False], "the row beside the bad one was given to nobody"


def test_those_who_wait_for_a_slow_model_are_answered_by_one_call_and_too_many_are_sent_away(shop: Shop) -> None:
    """Ten that come at once take three calls on one thread: the first, and all that came meanwhile."""
    import asyncio

    from serving.app import Crowded, Desktop

    model = Counting(0.3)
    desk = Desktop(gateway_of(shop, model, workers=1, waiting=9))

    async def all_at_once() -> list[Any]:
        asked = [desk.predict(body(number)) for number in range(12)]
        return await asyncio.gather(*asked, return_exceptions=True)

    said = asyncio.run(all_at_once())
    desk.close()
    assert [isinstance(one, Crowded) for one in said] == [False] * 10 + [True] * 2
    assert [json.loads(one)["answers"][0]["prediction"] for one in said[:10]] == [2 * number for number in range(10)]
    assert model.asked == [1, 9]


def test_a_model_that_takes_its_time_keeps_no_other_address_waiting(shop: Shop) -> None:
    import asyncio

    from serving.app import Desktop

    desk = Desktop(gateway_of(shop, Counting(1.0)))

    async def meanwhile() -> float:
        asked = asyncio.create_task(desk.predict(body(1)))
        await asyncio.sleep(0.05)
        turn = asyncio.get_running_loop().time()
        await asyncio.sleep(0)
        passed = asyncio.get_running_loop().time() - turn
        assert not asked.done()
        await asked
        return passed

    assert asyncio.run(meanwhile()) < 0.5
    desk.close()
