"""What makes the gateway quick changes no answer: the shortcut, the way past the framework, answering together."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from candidates import Strict
from shops import GOOD, Server, Shop
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from serving.contract import Column, Contract
from serving.draft import Ask
from serving.forest import forest_of
from serving.gateway import Gateway, ModelFailed
from serving.inputs import BadInput
from serving.lineup import Lineup
from serving.loaded import Loaded, Loader
from serving.pedigree import is_backstops, is_pipeline
from serving.preparation import prepared
from serving.routing import Arm
from serving.settings import Settings
from serving.shortcut import shortcut
from tasks.estimators import build
from tasks.policy import Training
from tasks.policy_file import load as load_policy

DRAW = np.random.default_rng(5)
COLUMNS = ("a", "b", "c")
WORDS = ("red", "green", "blue")
CONTRACT = Contract((*(Column(name, "number", nullable=True) for name in COLUMNS), Column("colour", "text", "object")))


def table(rows: int, *, nulls: float = 0.1) -> list[dict[str, Any]]:
    return [
        {
            **{name: None if DRAW.random() < nulls else float(DRAW.normal(10, 3)) for name in COLUMNS},
            "colour": WORDS[int(DRAW.integers(0, 3))],
        }
        for _ in range(rows)
    ]


def fitted(estimator: str, target: Any, *, nulls: float = 0.1, **params: Any) -> Any:
    frame = CONTRACT.frame(table(len(target), nulls=nulls))
    return build(Training(estimator=estimator, params=params), frame).fit(frame, target)


SIDES = np.where(DRAW.random(300) > 0.5, "yes", "no")
LOGISTIC = "sklearn.linear_model:LogisticRegression"


@pytest.mark.parametrize("nulls", [0.0, 0.1])
@pytest.mark.parametrize(
    ("estimator", "target", "params"),
    [
        (LOGISTIC, SIDES, {"C": 100.0}),
        (LOGISTIC, np.where(SIDES == "yes", 1, 0), {"fit_intercept": False}),
        ("sklearn.linear_model:LinearRegression", DRAW.normal(size=300), {}),
        ("sklearn.linear_model:Ridge", DRAW.normal(size=300), {}),
    ],
)
def test_the_shortcut_says_what_the_model_says(
    estimator: str, target: Any, params: dict[str, Any], nulls: float
) -> None:
    model = fitted(estimator, target, nulls=nulls, **params)
    made = shortcut(model, prepared(model, CONTRACT), CONTRACT)
    assert made is not None
    fresh = table(300)
    frame = CONTRACT.frame(fresh)
    expected = model.predict_proba(frame) if hasattr(model, "predict_proba") else model.predict(frame)
    found = np.array([made(row) for row in fresh])
    assert np.allclose(found, np.asarray(expected).reshape(300, -1), rtol=1e-9, atol=1e-12)


def test_there_is_no_shortcut_where_the_two_could_differ() -> None:
    def made(model: Any) -> Any:
        return shortcut(model, prepared(model, CONTRACT), CONTRACT)

    assert made(fitted("sklearn.tree:DecisionTreeClassifier", SIDES)) is None
    assert made(fitted("sklearn.linear_model:SGDClassifier", SIDES, loss="log_loss")) is None
    assert made(fitted("candidates:Moody", SIDES)) is None, "a class of somebody's own may do anything"
    assert made(fitted(LOGISTIC, np.array(["a", "b", "c"] * 100))) is None, "three classes"
    changed = fitted(LOGISTIC, SIDES)
    assert made(changed) is not None
    changed[-1].predict_proba = lambda rows: np.full((len(rows), 2), 0.5)
    assert made(changed) is None
    assert shortcut(object(), None, CONTRACT) is None


TABLE = "prepare"


def changed_step(part: str, step: str | None, **parameters: Any) -> Callable[[Any], None]:
    """What sets parameters of a fitted part, so that nothing that was tried shows it."""

    def change(model: Any) -> None:
        found = model[TABLE] if part == TABLE else model[TABLE].named_transformers_[part]
        (found if step is None else found[step]).set_params(**parameters)

    return change


def lowered(words: Any) -> Any:
    return np.vectorize(str.lower, otypes=[object])(words)


def with_lower_case(model: Any) -> None:
    steps = model[TABLE].named_transformers_["words"].steps
    steps.insert(2, ("lower", FunctionTransformer(lowered)))


def with_renamed_steps(model: Any) -> None:
    model[TABLE].named_transformers_["numbers"].steps[0] = ("filled", model[TABLE].named_transformers_["numbers"][0])


def with_a_limit(model: Any) -> None:
    model[TABLE].transformers_[0] = ("numbers", FunctionTransformer(np.clip, kw_args={"a_min": -3e6, "a_max": 3e6}), [])


def with_letters(model: Any) -> None:
    name, part, columns = model[TABLE].transformers_[0]
    model[TABLE].transformers_[0] = (name, part, "".join(columns))


def with_tables(model: Any) -> None:
    model[TABLE].set_output(transform="pandas")


def with_a_method(model: Any) -> None:
    model[TABLE].transform = type(model[TABLE]).transform.__get__(model[TABLE])


@pytest.mark.parametrize(
    "change",
    [
        changed_step("numbers", "fill", missing_values=-1.0),
        changed_step("numbers", "fill", add_indicator=False),
        changed_step("numbers", "scale", with_mean=False),
        changed_step("words", "nan", missing_values="?"),
        changed_step("words", "none", missing_values="?"),
        changed_step("words", "codes", handle_unknown="ignore"),
        changed_step("words", "codes", drop="first"),
        changed_step(TABLE, None, transformer_weights={"numbers": 1.0}),
        changed_step(TABLE, None, remainder="passthrough"),
        with_lower_case,
        with_renamed_steps,
        with_a_limit,
        with_letters,
        with_tables,
        with_a_method,
    ],
)
def test_only_what_is_backstops_in_every_part_goes_a_short_way(change: Callable[[Any], None]) -> None:
    model = fitted(LOGISTIC, SIDES)
    assert is_backstops(model)
    assert prepared(model, CONTRACT) is not None
    change(model)
    assert not is_backstops(model)
    assert prepared(model, CONTRACT) is None


def test_an_heir_of_a_class_goes_no_short_way() -> None:
    model = fitted(LOGISTIC, SIDES)
    assert is_pipeline(model)
    assert is_backstops(Pipeline(model.steps))
    assert not is_pipeline(Strict(model.steps))
    assert not is_backstops(Strict(model.steps))
    assert not is_backstops(Pipeline([*model.steps[:1], ("again", StandardScaler()), *model.steps[1:]]))
    assert not is_backstops(Pipeline([("other", model[0]), model.steps[1]]))


def test_a_limit_that_no_row_that_was_tried_reaches_is_kept() -> None:
    frame = CONTRACT.frame(table(300, nulls=0))
    limit = FunctionTransformer(np.clip, kw_args={"a_min": -1e6, "a_max": 1e6})
    model = Pipeline([(TABLE, ColumnTransformer([("numbers", limit, list(COLUMNS))])), ("model", LinearRegression())])
    model.fit(frame, frame["a"] + frame["b"])
    assert prepared(model, CONTRACT) is None


def test_a_prediction_by_the_shortcut_is_the_models(shop: Shop) -> None:
    """Up to sixteen rows go the short way, more through the pipeline."""
    with shop.case().ledger as ledger:
        loaded = Loader(load_policy(shop.policy), shop.stores).load(ledger, "1")
    assert loaded.quick
    rows = [{**GOOD, "tenure_months": months, "support_calls": months % 9} for months in range(60)]
    long = loaded.answers(rows)
    short = [loaded.answers([row])[0] for row in rows]
    assert [one.prediction for one in long if one] == [one.prediction for one in short if one]
    assert [one.score for one in short if one] == pytest.approx([one.score for one in long if one], rel=1e-9)
    assert len({one.prediction for one in short if one}) == 2


FOREST, TREES = "sklearn.ensemble:RandomForest", "sklearn.ensemble:ExtraTrees"


@pytest.mark.parametrize("jobs", [None, 2])
@pytest.mark.parametrize(
    ("estimator", "target"),
    [
        (f"{FOREST}Classifier", SIDES),
        (f"{FOREST}Classifier", np.array(["a", "b", "c"] * 100)),
        (f"{TREES}Classifier", np.where(SIDES == "yes", 1, 0)),
        (f"{FOREST}Regressor", DRAW.normal(size=300)),
        (f"{TREES}Regressor", DRAW.normal(size=300)),
    ],
)
def test_a_forest_whose_trees_are_asked_says_what_it_says(estimator: str, target: Any, jobs: int | None) -> None:
    model = fitted(estimator, target, n_estimators=30, n_jobs=jobs)
    made = forest_of(model, prepared(model, CONTRACT), CONTRACT)
    assert made is not None
    loaded = loaded_of(model)
    assert loaded.forest is not None
    fresh = table(200)
    frame = CONTRACT.frame(fresh)
    said = [one for row in fresh if (one := loaded.answers([row])[0]) is not None]
    assert said == [one for one in loaded.answers(fresh) if one is not None]
    if not loaded.classes:
        assert [one.prediction for one in said] == pytest.approx(model.predict(frame), rel=1e-9)
        return
    assert [one.prediction for one in said] == model.predict(frame).tolist()
    chances = [list((one.probabilities or {}).values()) for one in said]
    assert np.allclose(chances, model.predict_proba(frame), rtol=1e-9, atol=1e-12)


def loaded_of(model: Any) -> Loaded:
    quick = prepared(model, CONTRACT)
    classes = tuple(str(one) for one in getattr(model, "classes_", ()))
    forest = forest_of(model, quick, CONTRACT)
    return Loaded("1", "d", model, CONTRACT, classes, None, quick, bool(classes), forest=forest)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # scikit-learn's own check of what is too large
def test_a_forest_refuses_what_it_cannot_take_as_it_does_without_the_way_round() -> None:
    loaded = loaded_of(fitted(f"{FOREST}Classifier", SIDES, n_estimators=5))
    assert loaded.forest is not None
    with pytest.raises(ValueError, match="too large for dtype"):
        loaded.answers([{**row, "a": 1e300} for row in table(3)])
    with pytest.raises(ValueError, match="infinity"):
        loaded.answers([{**row, "a": float("-inf")} for row in table(3)])


@pytest.mark.parametrize("estimator", [f"{FOREST}Classifier", LOGISTIC])
def test_a_classifier_in_a_problem_of_regression_is_asked_for_its_prediction(estimator: str) -> None:
    model = fitted(estimator, np.where(SIDES == "yes", 1, 0))
    quick, fresh = prepared(model, CONTRACT), table(40)
    short, forest = shortcut(model, quick, CONTRACT), forest_of(model, quick, CONTRACT)
    assert (short is None) != (forest is None)
    loaded = Loaded("1", "d", model, CONTRACT, (), None, quick, shortcut=short, forest=forest)
    said = [one.prediction for row in fresh for one in loaded.answers([row]) if one]
    assert said == model.predict(CONTRACT.frame(fresh)).tolist()


def test_no_trees_are_asked_where_the_two_could_differ() -> None:
    def made(model: Any) -> Any:
        return forest_of(model, prepared(model, CONTRACT), CONTRACT)

    assert made(fitted("sklearn.tree:DecisionTreeClassifier", SIDES)) is None
    assert made(fitted("candidates:Moody", SIDES)) is None, "a class of somebody's own may do anything"
    assert made(fitted(f"{FOREST}Classifier", np.full(300, 7))) is None, "one class: in a regression it would say 1.0"
    changed = fitted(f"{FOREST}Classifier", SIDES, n_estimators=5)
    assert made(changed) is not None
    changed[-1].predict_proba = lambda rows: np.full((len(rows), 2), 0.5)
    assert made(changed) is None
    assert forest_of(object(), None, CONTRACT) is None


class Limited(DecisionTreeClassifier):
    """A tree that is sure of what lies far off, where no row that is tried does."""

    def predict_proba(self, X: Any, check_input: bool = True) -> Any:
        chances = super().predict_proba(X, check_input)
        chances[np.abs(np.asarray(X)[:, 0]) > 1e9] = [0.0, 1.0]
        return chances


def test_a_forest_with_a_tree_of_somebodys_own_is_asked_itself() -> None:
    model = fitted(f"{FOREST}Classifier", SIDES, n_estimators=5)
    trees = model[-1].estimators_
    trees[0] = Limited(random_state=0).fit(model[:-1].transform(CONTRACT.frame(table(300))), np.arange(300) % 2)
    assert forest_of(model, prepared(model, CONTRACT), CONTRACT) is None


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

    turned = threading.Event()

    class Waiting(Counting):
        def predict(self, frame: Any) -> list[float]:
            assert turned.wait(20), "nothing else had its turn while this one was asked"
            return super().predict(frame)

    desk = Desktop(gateway_of(shop, Waiting()))

    async def meanwhile() -> None:
        asked = asyncio.create_task(desk.predict(body(1)))
        await asyncio.sleep(0.05)
        turned.set()
        await asked

    asyncio.run(meanwhile())
    desk.close()
