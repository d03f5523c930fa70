"""Scoring: each row once, in one coding, and never a pass where there is no answer."""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
import warnings
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from samples import END, START, Guess, policy
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tasks import alone, argmax, evidence, example, levels, scoring, tracking, training
from tasks.columns import text_of
from tasks.data import Dataset, Split, load, split
from tasks.decide.influence import Unmeasurable
from tasks.decide.metrics import measure
from tasks.fresh import attempt
from tasks.policy import LatencyCheck, Policy
from tasks.records import Finding, GateEvidence, Scores
from tasks.requests import Recorded
from tasks.scoring import classes_of, latencies, quietest, recorded_rows, score
from tasks.stores import Stores
from tasks.training import Fitted
from tasks.tryout import answers_in_fresh_process, begun


class Counting:
    """Wraps a model and counts what it is asked."""

    def __init__(self, model: Any) -> None:
        self.model, self.classes_ = model, model.classes_
        self.rows: dict[str, int] = {"predict": 0, "predict_proba": 0}

    def predict(self, features: pd.DataFrame) -> Any:
        self.rows["predict"] += len(features)
        return self.model.predict(features)

    def predict_proba(self, features: pd.DataFrame) -> Any:
        self.rows["predict_proba"] += len(features)
        return self.model.predict_proba(features)


class Meter(BaseEstimator):
    """The first step of a pipeline of scikit-learn's own class, which counts what it lets through."""

    def __init__(self) -> None:
        self.rows = 0

    def fit(self, _features: pd.DataFrame, _labels: Any = None) -> Meter:
        return self

    def transform(self, features: pd.DataFrame) -> pd.DataFrame:
        self.rows += len(features)
        return features


def metered(model: Any) -> tuple[Any, Meter]:
    """The model behind a meter."""
    meter = Meter()
    return Pipeline([("meter", meter), ("model", model)]), meter


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Fitted, Split]:
    of = policy()
    parts = split(load(of, Stores.at(tmp_path_factory.mktemp("x")), start=START, end=END), of, trained_until=None)
    return of, training.fit(of, parts.train), parts


def dataset(labels: list[Any], **features: Any) -> Dataset:
    frame = pd.DataFrame(features or {"x": [0.0] * len(labels)})
    time_ = pd.date_range("2024-01-01", periods=len(labels), freq="h", tz="UTC")
    return Dataset(features=frame, target=pd.Series(labels, dtype=object), time=time_)


# --- Classes -------------------------------------------------------------------------------------------------------


def test_the_positive_class_is_the_second() -> None:
    both = dataset(["no", "yes", None])
    assert classes_of(Guess(), both, policy()) == ("no", "yes")
    assert classes_of(Guess(), both, policy(data={"positive": "no"})) == ("yes", "no")
    assert classes_of(Guess(), dataset([1, 0, 1]), policy()) == ("0", "1")


def test_classes_are_those_of_the_model_and_of_the_rows() -> None:
    model = Guess()
    model.classes_ = np.array(["no", "yes"])
    assert classes_of(model, dataset([None, None]), policy()) == ("no", "yes")
    assert classes_of(model, dataset(["zebra"]), policy()) == ("no", "yes", "zebra")
    several = policy(problem="multiclass")
    assert classes_of(Guess(), dataset([10, 9, 2]), several) == ("2", "9", "10")
    assert classes_of(Guess(), dataset([1.5]), policy(problem="regression")) == ()


def test_unknown_classes_are_an_error_and_not_a_regression() -> None:
    with pytest.raises(ValueError, match="classes are unknown"):
        classes_of(Guess(), dataset([None]), policy())


def test_a_label_is_the_same_however_it_was_stored() -> None:
    assert {text_of(value) for value in (1, 1.0, np.int64(1), np.float32(1), "1")} == {"1"}
    assert [text_of(value) for value in (True, 0.5, None, np.nan, pd.NA, pd.NaT)] == ["True", "0.5", *[None] * 4]


# --- Scores --------------------------------------------------------------------------------------------------------


def test_a_model_scores_each_row_once(made: tuple[Policy, Fitted, Split]) -> None:
    of, fitted, parts = made
    everything = load(of, Stores.at(Path("unused")), start=START, end=END)
    model, meter = metered(fitted.model)
    scores = score(model, everything, classes=("no", "yes"))
    assert len(everything) <= meter.rows <= len(everything) + 5, "a tie or two are asked again"
    assert np.array_equal(np.array(["no", "yes"])[scores.prediction], fitted.model.predict(everything.features))
    assert scores.probability is not None
    assert np.allclose(scores.probability, fitted.model.predict_proba(everything.features))
    assert len(parts.holdout) < len(everything)


class Subclass(LogisticRegression):
    """It may answer what it likes."""


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (LogisticRegression(), True),
        (Pipeline([("scale", StandardScaler()), ("model", RandomForestClassifier(5))]), True),
        (GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2), True),
        (CalibratedClassifierCV(LinearSVC(), cv=2), True),
        (VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())], voting="soft"), True),
        (StackingClassifier([("a", GaussianNB())], cv=2), True),
        (StackingClassifier([("a", GaussianNB())], Subclass(), cv=2), False),
        (FixedThresholdClassifier(LogisticRegression(), threshold=0.7, pos_label="c"), False),
        (Pipeline([("model", FixedThresholdClassifier(LogisticRegression(), threshold=0.7, pos_label="c"))]), False),
        (SGDClassifier(loss="modified_huber", random_state=0), True),
        (Subclass(), False),
    ],
)
@pytest.mark.parametrize("classes", ["bc", "abcd"])
def test_the_answers_are_those_of_predict_whatever_the_model(model: Any, known: bool, classes: str) -> None:
    draw = np.random.default_rng(0)
    features = pd.DataFrame(draw.normal(size=(900, 3)).round(1), columns=["x", "y", "z"])
    shifted = features["x"].to_numpy() + draw.normal(size=900)
    labels = np.array(list(classes))[
        np.digitize(shifted, np.linspace(-1, 1, len(classes) - 1) if classes[0] == "a" else [0])
    ]
    if "FixedThreshold" in str(model) and len(classes) > 2:
        pytest.skip("thresholds are for two classes")
    fitted = clone(model).fit(features, labels)
    assert argmax.is_known(fitted) == known
    asked = dataset(labels.tolist(), **{name: 3 * features[name].to_numpy() for name in features})
    found = score(fitted, asked, classes=tuple(classes)).prediction
    assert np.array_equal(np.array(list(classes))[found], fitted.predict(asked.features))


def test_a_method_that_was_replaced_and_a_class_that_only_says_it_is_scikit_learns_are_not_known() -> None:
    model = DecisionTreeClassifier().fit([[0.0], [1.0]], ["no", "yes"])
    assert argmax.is_known(model)
    model.predict = lambda features: np.full(len(features), "no")
    assert not argmax.is_known(model)
    said = type("DecisionTreeClassifier", (), {"__module__": DecisionTreeClassifier.__module__})
    assert not argmax.is_known(said())


def test_what_predict_does_not_go_through_may_be_replaced_and_a_weight_may_be_negative() -> None:
    draw = np.random.default_rng(0)
    asked = dataset(draw.choice(["no", "yes"], 300, p=[0.8, 0.2]).tolist(), x=draw.normal(size=300))
    labels = np.array(asked.target.tolist())
    bayes = GaussianNB().fit(asked.features, labels)
    bayes.predict_log_proba = lambda rows: np.log(np.tile([0.1, 0.9], (len(rows), 1)))
    near = KNeighborsClassifier(5, weights=lambda apart: -np.ones_like(apart)).fit(asked.features, labels)
    for model in (bayes, near):
        assert (model.predict(asked.features) != model.classes_[model.predict_proba(asked.features).argmax(1)]).any()
        found = score(model, asked, classes=("no", "yes")).prediction
        assert np.array_equal(np.array(["no", "yes"])[found], model.predict(asked.features))


def test_a_threshold_that_shows_on_no_row_near_a_tie_is_respected() -> None:
    """A shallow tree has few different probabilities: those nearest to a tie may all be below the threshold too."""
    draw = np.random.default_rng(0)
    group = draw.choice(4, size=20_000, p=[0.9, 0.06, 0.03, 0.01])
    labels = np.where(draw.random(20_000) < np.array([0.001, 0.45, 0.05, 0.62])[group], "yes", "no")
    asked = dataset(labels.tolist(), x=group.astype(float))
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=100)
    tuned = FixedThresholdClassifier(tree, threshold=0.7, pos_label="yes").fit(asked.features, labels)
    assert set(tuned.predict(asked.features)) == {"no"}
    assert not score(tuned, asked, classes=("no", "yes")).prediction.any()


@pytest.mark.parametrize(
    ("answer", "told"),
    [(1 + 5j, "complex128"), (Decimal("0.5"), "Decimal"), (np.datetime64("2026-01-01"), "datetime64")],
)
def test_an_answer_that_is_neither_number_nor_text_is_refused(answer: Any, told: str) -> None:
    rows_ = dataset([1.0, 2.0])
    with pytest.raises(ValueError, match=f"gave values of the type {told}.*convert them in the model"):
        score(Guess(answer), rows_, classes=())
    with pytest.raises(training.TrainingError, match=told):
        training.check_answers(policy(problem="regression"), Guess(answer), rows_)


@pytest.mark.parametrize("threshold", [0.3, 0.49, 0.51, 0.9])
def test_a_tuned_threshold_is_respected(made: tuple[Policy, Fitted, Split], threshold: float) -> None:
    _, fitted, parts = made
    tuned = FixedThresholdClassifier(fitted.model, threshold=threshold, pos_label="yes").fit(
        parts.train.features, np.array(parts.train.target.tolist())
    )
    scores = score(tuned, parts.holdout, classes=("no", "yes"))
    assert np.array_equal(np.array(["no", "yes"])[scores.prediction], tuned.predict(parts.holdout.features))


def test_columns_follow_the_classes_and_not_the_model(made: tuple[Policy, Fitted, Split]) -> None:
    _, fitted, parts = made
    usual = score(fitted.model, parts.holdout, classes=("no", "yes"))
    turned = score(fitted.model, parts.holdout, classes=("yes", "no", "new"))
    assert usual.probability is not None
    assert turned.probability is not None
    assert np.allclose(turned.probability[:, :2], usual.probability[:, ::-1])
    assert (turned.probability[:, 2] == 0).all()
    assert np.array_equal(turned.prediction, 1 - usual.prediction)
    assert np.array_equal(turned.truth, 1 - usual.truth)


def test_rows_without_a_label_cannot_be_measured_as_if_they_had_one() -> None:
    scores = score(Guess("yes"), dataset(["yes", None, "no"]), classes=("no", "yes"))
    assert scores.truth.tolist() == [1, -1, 0]
    with pytest.raises(Unmeasurable):
        measure("accuracy", scores)
    values = score(Guess(1.0), dataset([1.0, None]), classes=())
    assert np.isnan(values.truth[1])
    with pytest.raises(Unmeasurable):
        measure("rmse", values)


def test_an_answer_that_is_nan_is_no_answer() -> None:
    class Half(Guess):
        classes_ = np.array(["no", "yes"])

        def predict(self, features: pd.DataFrame) -> Any:
            return np.array(["no"] * len(features))

        def predict_proba(self, features: pd.DataFrame) -> Any:
            return np.array([[np.nan, np.nan]] * len(features))

    labels = dataset(["yes", "no"])
    with pytest.raises(Unmeasurable):
        measure("log_loss", score(Half(), labels, classes=("no", "yes")))
    assert score(Guess(None), labels, classes=("no", "yes")).prediction.tolist() == [-1, -1]
    assert np.isnan(score(Guess(np.nan), dataset([1.0]), classes=()).prediction).all()


@pytest.mark.parametrize("classes", [("b", "a"), ("b", "a", "c")])
def test_the_answer_is_the_first_of_the_most_probable_classes_or_none(classes: tuple[str, ...]) -> None:
    some = [0.0, 0.5, 0.7, np.nan, np.inf, -np.inf]
    raw = np.array([*itertools.product(some, repeat=len(classes))])
    expected = [
        -1 if not all(map(math.isfinite, row)) else classes.index(sorted(classes)[row.index(max(row))])
        for row in raw.tolist()
    ]

    class Told(Guess):
        classes_ = np.array(sorted(classes))

        def predict(self, features: pd.DataFrame) -> Any:
            answers = np.array([None if code < 0 else classes[code] for code in expected], dtype=object)
            return answers[features["place"].to_numpy()]

        def predict_proba(self, features: pd.DataFrame) -> Any:
            return raw[features["place"].to_numpy()]

    rows = dataset(["a"] * len(raw), place=list(range(len(raw))))
    with np.errstate(invalid="ignore"):  # infinity less infinity, where the nearest to a tie are looked for
        assert score(Told(None), rows, classes=classes).prediction.tolist() == expected


def test_the_next_most_probable_class_is_looked_for_in_every_row() -> None:
    """Also in rows beyond a block, and where a probability is none."""
    raw = np.random.default_rng(0).dirichlet(np.ones(5), 2 * scoring._BLOCK + 3)
    raw[[0, 5, -1], 0] = raw[[0, 5, -1]].max(axis=1)
    raw[7, 3], raw[9, :2] = np.nan, np.inf
    top = np.sort(raw, axis=1)[:, -2:]
    with np.errstate(invalid="ignore"):
        expected = np.flatnonzero(top[:, 1] - top[:, 0] < scoring._TIE)
        assert scoring._tied(raw).tolist() == expected.tolist()


def test_the_labels_of_the_rows_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, looks = dataset(["no", "yes", None] * 50), []
    factorize = pd.factorize
    monkeypatch.setattr(
        pd, "factorize", lambda values, **given: looks.append(len(values)) or factorize(values, **given)
    )
    classes = classes_of(Guess(), rows, policy())
    first, second = (score(Guess("no"), rows, classes=classes) for _ in range(2))
    assert first.truth.tolist() == second.truth.tolist() == [0, 1, -1] * 50
    assert looks == [150, 150, 150], "the labels, and the answers of each"


@pytest.mark.parametrize("odd", [levels._ODD, np.uint64(0)])
@pytest.mark.parametrize(
    "texts",
    [
        ["yes", "no", "yes"],
        ["", "a", "aa", "", "ä", "\U0001f600", "yes\n", "yes"],
        [f"class {number % 300}" for number in range(5000)],
        ["ab", "bb", "cb"],
        [],
    ],
)
def test_answers_of_one_width_are_the_texts_that_they_are(
    odd: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the numbers made of them are the same, and every other one of a longer array."""
    monkeypatch.setattr(levels, "_ODD", odd)
    for values in (np.array(texts, dtype=str), np.array(texts, dtype=str)[::2], np.array(texts, dtype=">U9")):
        found, places = levels.levels_of(values)
        assert [found[place] for place in places] == values.tolist()
        assert (len(set(found)), set(map(type, found))) == (len(found), {str} if len(values) else set())
        assert found == list(dict.fromkeys(values.tolist()))


@pytest.mark.parametrize(
    ("labels", "guess", "classes"), [(["a", None, "b"], "a", ("a", "b")), ([1.5, None, "2", 3], 1.0, ())]
)
def test_beside_another_model_the_labels_are_not_read_again(
    labels: list[Any], guess: Any, classes: tuple[str, ...]
) -> None:
    rows = dataset(labels)
    alone = score(Guess(guess), rows, classes=classes)
    elsewhere = score(Guess(guess), dataset(["unread"] * len(labels)), classes=classes, beside=alone)
    for one in (alone, elsewhere):
        expected = [0, -1, 1] if classes else [1.5, np.nan, 2.0, 3.0]
        np.testing.assert_array_equal(one.truth, expected)
    np.testing.assert_array_equal(alone.prediction, elsewhere.prediction)
    with pytest.raises(ValueError, match="score both models on the same rows"):
        score(Guess(guess), dataset([*labels, labels[0]]), classes=classes, beside=alone)
    with pytest.raises(ValueError, match="score both models on the same rows"):
        score(Guess(guess), rows, classes=(*classes, "c"), beside=alone)


def test_a_class_that_nobody_knows_and_a_wrong_number_of_answers_are_errors() -> None:
    with pytest.raises(ValueError, match="'maybe', which is not among the classes no, yes"):
        score(Guess("maybe"), dataset(["yes"]), classes=("no", "yes"))
    with pytest.raises(ValueError, match="the labels hold 'zebra'"):
        score(Guess("yes"), dataset(["zebra"]), classes=("no", "yes"))

    class Short(Guess):
        def predict(self, features: pd.DataFrame) -> Any:
            return super().predict(features)[1:]

    with pytest.raises(ValueError, match="one answer each"):
        score(Short(1.0), dataset([1.0, 2.0]), classes=())


def test_no_rows_give_no_scores(made: tuple[Policy, Fitted, Split]) -> None:
    _, fitted, parts = made
    assert score(fitted.model, parts.holdout.take(slice(0, 0)), classes=("no", "yes")).truth.size == 0
    assert score(Guess(1.0), dataset([1.0]).take(slice(0, 0)), classes=()).prediction.size == 0


# --- Latency -------------------------------------------------------------------------------------------------------


class Careless:
    """Prepares its rows where they are."""

    def predict(self, features: pd.DataFrame) -> Any:
        features["x"] = features["x"] - 10.0
        features["more"] = 1.0
        return features["x"].to_numpy()


def test_what_a_model_does_to_its_rows_is_not_what_the_next_one_is_judged_on() -> None:
    rows = dataset([1.0, 2.0], x=[11.0, 12.0])
    first, second = (score(Careless(), rows, classes=()) for _ in range(2))
    np.testing.assert_array_equal(first.prediction, second.prediction)
    assert list(rows.features.columns) == ["x"]
    assert rows.features["x"].tolist() == [11.0, 12.0]


def test_latency_is_of_single_rows_after_a_warm_up() -> None:
    class Slow(Guess):
        calls = 0
        seen: set[int] = set()  # noqa: RUF012  a counter for one test

        def predict(self, features: pd.DataFrame) -> Any:
            self.seen.add(int(features["x"].iloc[0]))
            assert len(features) == 1
            type(self).calls += 1
            time.sleep(0.05 if self.calls <= 3 else 0.001)
            return super().predict(features)

    taken = latencies(Slow(), pd.DataFrame({"x": range(10)}), calls=50, warmup=5)
    assert taken.shape == (50,)
    assert np.median(taken) < 0.02
    assert taken.min() >= 0.001
    assert (Slow.calls, len(Slow.seen)) == (55, 10)


def test_rows_that_are_timed_are_of_the_whole_holdout_and_of_each_round_others() -> None:
    class Watched(Guess):
        def __init__(self) -> None:
            super().__init__()
            self.rounds: list[list[int]] = []

        def predict(self, features: pd.DataFrame) -> Any:
            self.rounds[-1].append(int(features["x"].iloc[0]))
            return super().predict(features)

    model, rows = Watched(), pd.DataFrame({"x": range(5000)})
    model.rounds.append([])
    latencies(model, rows, calls=300, warmup=0)
    assert (min(model.rounds[-1]), max(model.rounds[-1]), len(set(model.rounds[-1]))) == (0, 4999, 300)

    class Remembering(Guess):
        known: set[int] = set()  # noqa: RUF012  for one test

        def predict(self, features: pd.DataFrame) -> Any:
            place = int(features["x"].iloc[0])
            if place not in self.known:
                time.sleep(0.003)
            self.known.add(place)
            return super().predict(features)

    taken = quietest(Remembering(), rows, LatencyCheck(p99=timedelta(milliseconds=2), calls=300))
    assert np.median(taken) >= 0.003, "what it has answered before is not what is asked next"


def test_a_model_that_is_too_slow_is_measured_on_fewer_calls_and_never_on_none() -> None:
    class Slow(Guess):
        def predict(self, features: pd.DataFrame) -> Any:
            time.sleep(0.02)
            return super().predict(features)

    taken = latencies(Slow(), pd.DataFrame({"x": range(3)}), calls=1000, warmup=2, budget_seconds=0.3)
    assert 1 <= taken.size < 20
    assert latencies(Slow(), pd.DataFrame({"x": [1]}), calls=5, warmup=1, budget_seconds=0.0).size == 1
    with pytest.raises(ValueError, match="at least one row"):
        latencies(Slow(), pd.DataFrame({"x": []}), calls=5)


def test_calls_are_timed_with_the_filters_of_warnings_of_a_process_that_only_answers() -> None:
    from urllib3.exceptions import SecurityWarning

    class Watched(Guess):
        filters: list[Any] = []  # noqa: RUF012  for one test

        def predict(self, features: pd.DataFrame) -> Any:
            self.filters.append(list(warnings.filters))
            return super().predict(features)

    with warnings.catch_warnings():
        warnings.simplefilter("always", SecurityWarning)
        warnings.filterwarnings("error", message="the model's own")
        warnings.simplefilter("always", np.exceptions.RankWarning)
        before = list(warnings.filters)
        latencies(Watched(), pd.DataFrame({"x": [1]}), calls=1, warmup=0)
        assert list(warnings.filters) == before
    (during,) = Watched.filters
    assert SecurityWarning in {one[2] for one in before}
    assert during == [one for one in before if not one[2].__module__.startswith(("urllib3", "requests"))]
    assert during[0][2] is np.exceptions.RankWarning
    assert during[1][:2] == ("error", before[1][1])


@pytest.mark.parametrize(
    ("slow", "rounds", "kept"),
    [
        ([0], 1, 0),
        ([1, 0], 2, 0),  # one slow call of 300 leaves the limit open
        ([3, 1, 2], 3, 1),
        ([300, 300, 300], 3, 300),
    ],
)
def test_calls_that_the_machine_slowed_are_made_again_and_a_slow_model_stays_slow(
    monkeypatch: pytest.MonkeyPatch, slow: list[int], rounds: int, kept: int
) -> None:
    given = [np.r_[np.full(count, 0.3), np.full(300 - count, 0.001)] for count in slow]
    waiting = iter(given)
    monkeypatch.setattr(scoring, "latencies", lambda *_rows, calls: next(waiting)[:calls])
    taken = quietest(Guess(), pd.DataFrame({"x": [1]}), LatencyCheck(p99=timedelta(milliseconds=250), calls=300))
    assert np.count_nonzero(taken > 0.25) == kept
    assert len(list(waiting)) == len(slow) - rounds


# --- One row alone -------------------------------------------------------------------------------------------------


class ByTheOthers:
    """Answers a row by its place among the rows that came with it."""

    def __init__(self, model: Any = None) -> None:
        self.model = model

    def predict(self, features: pd.DataFrame) -> Any:
        ranks = features.rank(pct=True)
        return ranks["x"].to_numpy() if self.model is None else self.model.predict(ranks)


@pytest.fixture(scope="module")
def drawn() -> tuple[Dataset, Dataset]:
    """Rows of a problem of two classes, and of a regression."""
    draw = np.random.default_rng(0)
    numbers = draw.normal(5, 2, size=800)
    classes = np.where(numbers + draw.normal(size=800) > 5, "yes", "no").tolist()
    return dataset(classes, x=numbers), dataset((3 * numbers).tolist(), x=numbers)


def test_a_row_is_answered_alone_as_it_was_among_all_or_that_is_told(drawn: tuple[Dataset, Dataset]) -> None:
    scaling = FunctionTransformer(lambda rows: ((rows - rows.mean()) / rows.std()).fillna(0.0))
    asked, labels = drawn[0], np.array(drawn[0].target.tolist())
    for model, told in (
        (LogisticRegression(), ""),
        (RandomForestClassifier(10, random_state=0), ""),
        (make_pipeline(StandardScaler(), LinearSVC()), ""),
        (make_pipeline(scaling, LogisticRegression()), "such as the probabilities"),
        (make_pipeline(scaling, LinearSVC()), "such as 'no' and not 'yes'"),
    ):
        fitted = model.fit(asked.features, labels)
        found = alone.judge(fitted, asked, score(fitted, asked, classes=("no", "yes")))
        assert (found is None) == (not told), found
        if found is not None:
            assert found.outcome == "breach"
            assert f"of 16 rows get another answer alone than among all rows of the holdout, {told}" in found.reason
            assert "turn gate.alone off" in found.reason


def test_a_number_alone_may_be_off_by_rounding_and_no_more(drawn: tuple[Dataset, Dataset]) -> None:
    asked = drawn[1]
    for model, off in ((Careless(), False), (ByTheOthers(), True)):
        found = alone.judge(model, asked, score(model, asked, classes=()))
        assert (found is not None) == off

    class Rounding(Guess):
        def predict(self, features: pd.DataFrame) -> Any:
            return features["x"].to_numpy() * (1 + 1e-8 * len(features))

    assert alone.judge(Rounding(), asked, score(Rounding(), asked, classes=())) is None


def test_what_cannot_answer_a_single_row_is_told(drawn: tuple[Dataset, Dataset]) -> None:
    class Crowd(Guess):
        def predict(self, features: pd.DataFrame) -> Any:
            if len(features) < 2:
                raise ValueError("a table of one row")
            return features["x"].to_numpy()

    found = alone.judge(Crowd(), drawn[1], score(Crowd(), drawn[1], classes=()))
    assert found is not None
    assert "asked for one row alone it raised ValueError: a table of one row" in found.reason


def careless(evidence: GateEvidence) -> Finding:
    """A check of one's own that works where its numbers are."""
    evidence.candidate.prediction[:] = evidence.candidate.truth
    return Finding(name="careless", outcome="ok", reason="all is right now")


def test_what_an_own_check_does_to_its_numbers_is_not_what_is_judged() -> None:
    rows_ = dataset(["no", "yes"])
    wrong = Scores(truth=np.array([0, 1]), prediction=np.array([1, 0]), classes=("no", "yes"))
    given = GateEvidence(candidate=wrong, production=None, latencies=None, size=None, loads=None)
    found = evidence.with_rows(given, policy(gate={"checks": [f"{__name__}:careless"]}), rows_)
    assert [one.outcome for one in found.extra] == ["ok"]
    assert found.candidate.prediction.tolist() == [1, 0]


# --- Recorded requests ---------------------------------------------------------------------------------------------


def test_recorded_requests_become_rows_in_the_order_of_time(made: tuple[Policy, Fitted, Split]) -> None:
    of, fitted, _ = made
    recorded = Recorded(
        features=({"size": 1, "plan": "pro", "noise": 0.5, "id": "x"}, {"size": None, "plan": " "}),
        predictions=("yes", "no"),
        scores=(0.9, None),
        labels=("yes", None),
        times=(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
        versions=("1", "1"),
        request_ids=("a", "b"),
    )
    found = recorded_rows(recorded, of)
    assert found.time.is_monotonic_increasing
    assert found.target.tolist() == [None, "yes"]
    assert found.features["plan"].tolist() == [None, "pro"]
    assert found.features["size"].tolist()[1] == 1.0
    assert "id" not in found.features
    assert score(fitted.model, found, classes=("no", "yes")).prediction.size == 2


def test_no_recorded_requests_are_no_rows_and_amounts_come_back_as_numbers() -> None:
    assert len(recorded_rows(Recorded(), policy())) == 0
    recorded = Recorded(
        features=({"size": 1.0},), labels=("2.5",), times=(datetime(2024, 1, 1, tzinfo=UTC),), request_ids=("a",)
    )
    assert recorded_rows(recorded, policy(problem="regression")).target.tolist() == [2.5]


# --- A fresh process -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(made: tuple[Policy, Fitted, Split], tmp_path: Path) -> Path:
    return tracking.save(*made, tmp_path / "model")


def test_a_good_artifact_loads_and_answers_in_a_fresh_process(made: tuple[Policy, Fitted, Split], folder: Path) -> None:
    answered, reason = answers_in_fresh_process(folder, made[0])
    assert answered is True, reason
    assert "as it did when trained" in reason


def test_a_swapped_model_answers_differently(made: tuple[Policy, Fitted, Split], folder: Path) -> None:
    """In this process: how the fresh one judges; that there is one at all is shown above."""
    of, _, parts = made
    other = Dataset(
        features=parts.train.features,
        target=parts.train.target.map({"yes": "no", "no": "yes"}).astype(object),
        time=parts.train.time,
    )
    swapped = tracking.save(of, training.fit(of, other), parts, folder.parent / "other")
    (folder / "model.skops").write_bytes((swapped / "model.skops").read_bytes())
    answered, reason = attempt(folder, trusted_types=(), allow_pickle=False)
    assert answered is False
    assert "answers differently" in reason


def test_what_is_broken_missing_or_not_trusted_is_told_apart(made: tuple[Policy, Fitted, Split], folder: Path) -> None:

    def outcome() -> tuple[bool | None, str]:
        return attempt(folder, trusted_types=(), allow_pickle=False)

    assert outcome()[0] is True
    stored = (folder / example.FILE).read_text()
    (folder / example.FILE).write_text("{}")
    answered, reason = outcome()
    assert answered is False
    assert "does not answer" in reason
    (folder / example.FILE).unlink()
    answered, reason = outcome()
    assert answered is None
    assert "no backstop_example.json" in reason
    (folder / example.FILE).write_text(stored)
    (folder / "model.skops").write_bytes(b"")
    answered, reason = outcome()
    assert answered is False
    assert "does not load" in reason


class Crashing(Guess):
    """Kills the process that asks it, as a broken native library does; only where it is loaded again."""

    def predict(self, features: pd.DataFrame) -> Any:
        if os.environ.get("CRASH_NOW"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if os.environ.get("HANG_NOW"):
            time.sleep(60)
        return super().predict(features)


def test_a_crash_and_a_hang_are_no_answer(
    made: tuple[Policy, Fitted, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = ["test_scoring.Crashing"]
    of = policy(training={"estimator": None, "trainer": "samples:train_guess", "params": {}, "trusted_types": trusted})
    model = Crashing()
    model.classes_ = np.array(["no", "yes"])
    saved = tracking.save(of, Fitted(model=model, params={}), made[2], tmp_path / "model")
    with monkeypatch.context() as injected:
        injected.setenv("CRASH_NOW", "1")
        answered, reason = answers_in_fresh_process(saved, of)
    assert answered is False
    assert "died" in reason
    with monkeypatch.context() as injected:
        injected.setenv("HANG_NOW", "1")
        answered, reason = answers_in_fresh_process(saved, of, timeout=1.0)
    assert answered is False
    assert "did not answer within 1 s" in reason


def test_a_process_that_cannot_be_started_is_unknown(
    made: tuple[Policy, Fitted, Split], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    answered, reason = answers_in_fresh_process(folder, made[0])
    assert answered is None
    assert "could be started" in reason


def test_a_process_that_is_asked_nothing_is_gone_afterwards(made: tuple[Policy, Fitted, Split]) -> None:
    with begun(made[0]) as trial:
        process = trial._process
        assert process is not None
        assert process.poll() is None
    assert process.returncode is not None


@pytest.mark.parametrize("rows", [9, 30_000])
@pytest.mark.parametrize("answers", [("no", "yes"), ("", "a", "b" * 60, "ä\U0001f600", "a\x00b"), ("x" * 80, "y" * 80)])
def test_texts_of_one_width_are_told_apart_as_objects_are(rows: int, answers: tuple[str, ...]) -> None:
    """As scikit-learn gives its answers, and however wide, few or foreign their bytes are."""
    drawn = np.random.default_rng(rows).integers(0, len(answers), rows)
    words = np.array(answers)[drawn]
    expected = scoring._codes(words.astype(object), answers, "the predictions")
    assert expected.tolist() == drawn.tolist()
    assert expected.max() == len(answers) - 1
    for given in (words, words.astype(words.dtype.newbyteorder()), np.repeat(words, 2)[::2]):
        assert np.array_equal(scoring._codes(given, answers, "the predictions"), expected)
    with pytest.raises(ValueError, match="'maybe', which is not among the classes"):
        scoring._codes(np.append(words, "maybe"), answers, "the predictions")
