"""Training: models that survive what serving brings, runs that answer why and on what, errors that name the cause."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from samples import END, START, policy, rows
from sklearn.linear_model import LogisticRegression

from tasks import artifact, tracking, training
from tasks import profile as profiles
from tasks.columns import tidy
from tasks.data import Dataset, Split, fingerprint, load, split
from tasks.decide.metrics import measure
from tasks.plugins import PluginError
from tasks.policy import Policy
from tasks.policy_file import load as load_policy
from tasks.records import Candidate, Finding, Measurement, Profile, Verdict
from tasks.scoring import classes_of, score
from tasks.stores import Stores
from tasks.tracking import git_revision
from tasks.training import Fitted, TrainingError

LINEAR = {"estimator": "sklearn.linear_model:LogisticRegression", "params": {}}
WHY = Verdict(
    judge="triggers",
    decision="retrain",
    reason="Retrain model: true, age 31 days",
    findings=(
        Finding(name="age", outcome="breach", reason="31 days", value=31, threshold=30, urgency="low"),
        Finding(name="drift", outcome="ok", reason="none", value=0.1, threshold=0.3),
    ),
    urgency="low",
)


def divided(of: Policy, tmp_path: Path) -> Split:
    return split(load(of, Stores.at(tmp_path / "data"), start=START, end=END), of, trained_until=None)


def accuracy(of: Policy, fitted: Fitted, rows_: Dataset) -> float:
    return measure("accuracy", score(fitted.model, rows_, classes=classes_of(fitted.model, rows_, of))).value


# --- The model is the pipeline -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator", ["ensemble:HistGradientBoosting", "linear_model:Logistic", "ensemble:RandomForest"]
)
def test_a_model_answers_rows_that_training_never_saw(tmp_path: Path, estimator: str) -> None:
    name = f"sklearn.{estimator}{'Regression' if 'Logistic' in estimator else 'Classifier'}"
    of = policy(training={"estimator": name, "params": {}})
    parts = divided(of, tmp_path)
    model = training.fit(of, parts.train).model
    strange = pd.DataFrame(
        {
            "plan": pd.Series(["unheard of", None, np.nan, "basic"], dtype=object),
            "noise": [np.nan, 1e9, 0.0, 1.0],
            "size": [np.nan, np.nan, 1.0, -1.0],
            "surplus": 1.0,
        }
    )
    assert set(model.predict(strange)) <= {"yes", "no"}
    # A batch whose category is null in every row comes as a column of NaN.
    empty = tidy(strange.assign(plan=None, noise=None))
    assert len(model.predict(empty)) == 4
    assert np.isfinite(model.predict_proba(empty)).all()


def test_a_null_category_is_the_same_as_none_and_as_nan(tmp_path: Path) -> None:
    of = policy(training=LINEAR)
    parts = divided(of, tmp_path)
    parts.train.features.loc[::7, "plan"] = None
    model = training.fit(of, parts.train).model
    frames = [
        pd.DataFrame({"size": [0.1], "plan": pd.Series([null], dtype=object), "noise": [0.0]})
        for null in (None, np.nan)
    ] + [pd.DataFrame({"size": [0.1], "plan": [np.nan], "noise": [0.0]})]
    answers = [model.predict_proba(frame).tolist() for frame in frames]
    assert answers[0] == answers[1] == answers[2]


def test_a_model_learns_and_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    of = policy(training={"params": {"max_iter": 30}})
    parts = divided(of, tmp_path)
    first, second = training.fit(of, parts.train), training.fit(of, parts.train)
    assert accuracy(of, first, parts.holdout) > 0.75
    assert np.array_equal(
        first.model.predict_proba(parts.holdout.features), second.model.predict_proba(parts.holdout.features)
    )


def test_labels_that_are_numbers_stay_numbers_and_words_words(tmp_path: Path) -> None:
    for labels, kind in (([0, 1] * 300, "i"), (["no", "yes"] * 300, "U")):
        path = tmp_path / f"{kind}.csv"
        rows().assign(left=labels).to_csv(path, index=False)
        of = policy(path, model=f"m{kind}")
        assert training.fit(of, divided(of, tmp_path).train).model.classes_.dtype.kind == kind


def test_preprocess_none_gives_the_columns_to_the_estimator_as_they_are(tmp_path: Path) -> None:
    of = policy(data={"drop": ["id", "amount", "plan"]}, training={"preprocess": "none"})
    fitted = training.fit(of, divided(of, tmp_path).train)
    assert type(fitted.model).__name__ == "HistGradientBoostingClassifier"
    assert fitted.model.random_state == 0


# --- Errors --------------------------------------------------------------------------------------------------------


def test_an_estimator_that_raises_is_named_with_its_parameters_and_the_message(tmp_path: Path) -> None:
    of = policy(training={"params": {"learning_rate": -1}})
    with pytest.raises(
        TrainingError, match=r"(?s)HistGradientBoostingClassifier with learning_rate=-1 .*training.params"
    ):
        training.fit(of, divided(of, tmp_path).train)


def test_a_parameter_that_the_estimator_does_not_take_is_told_before_anything_is_fitted(tmp_path: Path) -> None:
    of = policy(training={"params": {"max_itre": 3}})
    with pytest.raises(PluginError, match="max_itre"):
        training.fit(of, divided(of, tmp_path).train)


def test_what_is_no_estimator_is_refused(tmp_path: Path) -> None:
    of = policy(training={"estimator": "builtins:dict", "params": {}})
    with pytest.raises(TrainingError, match="dict without fit"):
        training.fit(of, divided(of, tmp_path).train)


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_a_model_that_answers_with_nan_is_refused(tmp_path: Path, problem: str) -> None:
    of = policy(problem=problem, training={"estimator": None, "trainer": "samples:train_nothing", "params": {}})
    with pytest.raises(TrainingError, match="with NaN or nothing"):
        training.fit(of, divided(of, tmp_path).train)


def test_a_trainer_of_the_users_own_is_called_with_its_parameters(tmp_path: Path) -> None:
    of = policy(training={"estimator": None, "trainer": "samples:train_guess", "params": {"answer": "no"}})
    fitted = training.fit(of, divided(of, tmp_path).train)
    assert fitted.model.answer == "no"
    assert fitted.model.classes_.tolist() == ["no", "yes"]


def test_a_trainer_that_returns_no_model_is_refused(tmp_path: Path) -> None:
    of = policy(training={"estimator": None, "trainer": "builtins:max", "params": {}})
    with pytest.raises(TrainingError, match="builtins:max"):
        training.fit(of, divided(of, tmp_path).train)


# --- Search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["halving", "random"])
def test_a_search_finds_the_parameter_that_works(tmp_path: Path, method: str) -> None:
    search = {"method": method, "iterations": 6, "space": {"C": [1e-7, 1e-6, 1e-5, 10.0]}}
    of = policy(training={**LINEAR, "search": search})
    fitted = training.fit(of, divided(of, tmp_path).train, search=True)
    assert fitted.searched
    assert fitted.params == {"C": 10.0}
    assert not training.fit(of, divided(of, tmp_path).train, search=False).searched


@pytest.mark.parametrize("method", ["halving", "random"])
@pytest.mark.parametrize("sets", [2, 4, 10])
def test_a_search_tells_how_far_it_is_and_ends_at_all_of_it(tmp_path: Path, method: str, sets: int) -> None:
    space = {"C": [0.001 * 3**number for number in range(sets)]}
    of = policy(training={**LINEAR, "search": {"method": method, "iterations": sets, "folds": 2, "space": space}})
    told: list[tuple[int, int]] = []
    train = divided(of, tmp_path).train
    training.fit(of, train, search=True, progress=lambda done, total, _: told.append((done, total)))
    total = told[-1][1]
    assert told == [(number + 1, total) for number in range(total)]


def test_parameter_sets_that_cannot_be_fitted_are_not_chosen_and_all_of_them_are_an_error(tmp_path: Path) -> None:
    search: dict[str, Any] = {"method": "random", "iterations": 2, "space": {"C": [-1.0, 1.0]}}
    of = policy(training={**LINEAR, "search": search})
    train = divided(of, tmp_path).train
    assert training.fit(of, train, search=True).params == {"C": 1.0}
    search["space"] = {"C": [-1.0, -2.0]}
    with pytest.raises(TrainingError, match="LogisticRegression"):
        training.fit(policy(training={**LINEAR, "search": search}), train, search=True)


def test_a_search_is_scored_by_the_metric_of_the_gate(tmp_path: Path) -> None:
    """Recall of "yes" is best for the model that says "yes" to everything, which accuracy would not choose."""
    search = {"method": "random", "iterations": 2, "space": {"class_weight": [None, {"no": 1e-6, "yes": 1.0}]}}
    gate = {"regression": {"metric": "recall"}}
    of = policy(training={**LINEAR, "search": search}, gate=gate)
    assert training.fit(of, divided(of, tmp_path).train, search=True).params["class_weight"] is not None


def test_a_search_of_a_regression_takes_less_as_better_for_a_loss(tmp_path: Path) -> None:
    search = {"method": "random", "iterations": 2, "space": {"max_iter": [1, 60]}}
    of = policy(
        problem="regression", training={"params": {}, "search": search}, gate={"regression": {"metric": "rmse"}}
    )
    assert training.fit(of, divided(of, tmp_path).train, search=True).params == {"max_iter": 60}


# --- Profile -------------------------------------------------------------------------------------------------------


def profiled(of: Policy, fitted: Fitted, parts: Split) -> Profile:
    scores = score(fitted.model, parts.holdout, classes=classes_of(fitted.model, parts.holdout, of))
    metrics = tuple(measure(name, scores) for name in ("accuracy", "log_loss"))
    return training.profile_of(of, parts, scores, metrics, datetime(2024, 2, 1, tzinfo=UTC))


def test_the_profile_says_what_was_seen_and_nothing_of_the_holdout_was(tmp_path: Path) -> None:
    of = policy(data={"source_version": "v7"})
    parts = divided(of, tmp_path)
    profile = profiled(of, training.fit(of, parts.train), parts)
    assert parts.train.time[-1] < profile.trained.end <= profile.holdout.start
    assert profile.holdout.end > parts.holdout.time[-1]
    assert (profile.rows, profile.labelled, profile.source_version) == (480, 600, "v7")
    assert [column.name for column in profile.columns] == ["size", "plan", "noise"]
    assert profile.fingerprint == fingerprint(parts.train)
    assert profile.prediction is not None
    assert profile.prediction.rows == 120
    again = split(load(of, Stores.at(tmp_path), start=START, end=END), of, trained_until=profile.trained.end)
    assert again.holdout.time.equals(parts.holdout.time)


# --- Runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Fitted, Split, Profile]:
    of = policy()
    parts = divided(of, tmp_path_factory.mktemp("made"))
    fitted = training.fit(of, parts.train)
    return of, fitted, parts, profiled(of, fitted, parts)


def logged(made: tuple[Policy, Fitted, Split, Profile], stores: Stores, **changes: Any) -> Candidate:
    of, fitted, parts, profile = made
    train = training.train_metrics(of, fitted.model, parts, profile)
    usual = {"profile": profile, "train": train, "verdict": WHY, "trail": "t1", "stores": stores, "flow_run_id": "f1"}
    return tracking.log(of, fitted, parts, **{**usual, **changes})


def test_a_run_answers_why_and_on_what_a_model_was_trained(
    made: tuple[Policy, Fitted, Split, Profile], stores: Stores
) -> None:
    from mlflow import MlflowClient

    candidate = logged(made, stores)
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    run = client.get_run(candidate.run_id)
    tags, metrics = run.data.tags, run.data.metrics
    assert run.info.status == "FINISHED"
    assert (tags["backstop.triggers"], tags["backstop.urgency"], tags["backstop.trail"]) == ("age", "low", "t1")
    assert json.loads(tags["backstop.thresholds"]) == {"age": 30, "drift": 0.3}
    assert tags["backstop.fingerprint"] == made[3].fingerprint
    assert (tags["backstop.rows"], tags["backstop.flow_run_id"]) == ("480", "f1")
    assert tags["backstop.trained"].startswith("2024-01-01T00:00:00+00:00 to 2024-01-20")
    assert {"train_accuracy", "holdout_accuracy", "train_log_loss", "holdout_log_loss"} <= set(metrics)
    assert metrics["train_accuracy"] > metrics["holdout_accuracy"]
    assert run.data.params["max_iter"] == "20"
    folder = Path(client.download_artifacts(candidate.run_id, ""))
    assert profiles.from_json((folder / "profile.json").read_text()) == made[3]
    assert json.loads((folder / "triggers.json").read_text())["decision"] == "retrain"
    assert "HistGradientBoostingClassifier" in (folder / "policy.yaml").read_text()


def test_the_registered_version_is_the_artifact_that_was_judged_and_has_no_stage(
    made: tuple[Policy, Fitted, Split, Profile], stores: Stores
) -> None:
    import mlflow.artifacts
    from mlflow import MlflowClient

    first, second = logged(made, stores), logged(made, stores)
    assert (first.version, second.version) == ("1", "2")
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    version = client.get_model_version("sample", second.version)
    assert (version.current_stage, version.aliases, version.run_id) == ("None", [], second.run_id)
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source, tracking_uri=stores.tracking))
    assert stores.artifacts is not None
    assert folder.is_relative_to(stores.artifacts)
    assert (artifact.digest(folder), artifact.size(folder)) == (second.digest, second.size)
    assert len(artifact.load(folder).predict(made[2].holdout.features)) == 120


def on_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files cannot just be renamed into their place."""
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if Path(target).name == tracking.FOLDER:
            raise OSError(errno.EXDEV, "another disk", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)


def test_on_another_disk_the_artifact_is_copied_there(
    made: tuple[Policy, Fitted, Split, Profile], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    on_another_disk(monkeypatch)
    candidate = logged(made, stores)
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    folder = Path(client.get_model_version("sample", candidate.version).source.removeprefix("file://"))
    assert (artifact.digest(folder), artifact.size(folder)) == (candidate.digest, candidate.size)
    assert stores.artifacts is not None
    assert [path.name for path in stores.artifacts.iterdir()] == ["sample"], "and nothing else is left"


def test_what_a_killed_run_left_behind_is_cleared_and_what_another_one_writes_is_not(
    made: tuple[Policy, Fitted, Split, Profile], stores: Stores
) -> None:
    assert stores.artifacts is not None
    for name, days in ((".backstop-old", 2), (".backstop-new", 0), ("sample", 2)):
        (stores.artifacts / name).mkdir(parents=True)
        (stores.artifacts / name / "model").write_text("half of it")
        then = time.time() - days * 86400
        os.utime(stores.artifacts / name, (then, then))
    logged(made, stores)
    assert sorted(path.name for path in stores.artifacts.iterdir()) == [".backstop-new", "sample"]
    assert (stores.artifacts / "sample" / "model").exists()


def test_mlflow_itself_loads_the_model_and_knows_its_signature_and_example(
    made: tuple[Policy, Fitted, Split, Profile], stores: Stores, tmp_path: Path
) -> None:
    import mlflow.sklearn
    from mlflow.models import Model

    of, fitted, parts, _ = made
    folder = tracking.save(of, fitted, parts, tmp_path / "model")
    known = Model.load(str(folder))
    assert [(column.name, str(column.type)) for column in known.signature.inputs] == [
        ("size", "DataType.double"),
        ("plan", "DataType.string"),
        ("noise", "DataType.double"),
    ]
    assert known.load_input_example(str(folder)).shape == (5, 3)
    assert known.model_size_bytes == pytest.approx(artifact.size(folder), abs=10)  # the digits of it count too
    requirements = (folder / "requirements.txt").read_text()
    assert all(f"{name}==" in requirements for name in ("scikit-learn", "skops", "numpy", "pandas"))
    model = mlflow.sklearn.load_model(str(folder))
    assert np.array_equal(model.predict(parts.holdout.features), fitted.model.predict(parts.holdout.features))


def test_no_warning_escapes_from_logging(made: tuple[Policy, Fitted, Split, Profile], stores: Stores) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert logged(made, stores).version == "1"


def test_global_settings_of_mlflow_are_left_alone(made: tuple[Policy, Fitted, Split, Profile], stores: Stores) -> None:
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    logged(made, stores)
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before
    assert mlflow.active_run() is None


def test_a_failure_half_way_leaves_a_run_that_says_it_failed_and_no_version(
    made: tuple[Policy, Fitted, Split, Profile], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("the artifact store is down")

    on_another_disk(monkeypatch)
    monkeypatch.setattr(MlflowClient, "log_artifacts", broken)
    with pytest.raises(ConnectionError):
        logged(made, stores)
    assert stores.artifacts is not None
    assert not list(stores.artifacts.glob(".*")), "what was prepared is gone"
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    experiment = client.get_experiment_by_name("backstop/sample")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    assert client.search_model_versions("name = 'sample'") == []


def test_a_model_that_skops_may_not_hold_is_refused_at_training_and_not_at_loading(
    tmp_path: Path, stores: Stores
) -> None:
    of = policy(training={"estimator": None, "trainer": "samples:train_guess", "params": {}})
    parts = divided(of, tmp_path)
    fitted = training.fit(of, parts.train)
    with pytest.raises(TrainingError, match=r"samples\.Guess.*training\.trusted_types"):
        tracking.save(of, fitted, parts, tmp_path / "refused")
    trusting = policy(training={**of.training.model_dump(), "trusted_types": ["samples.Guess"]})
    folder = tracking.save(trusting, fitted, parts, tmp_path / "model")
    assert artifact.load(folder, trusted_types=("samples.Guess",)).answer == "yes"


def test_a_model_that_cannot_be_read_again_is_refused_at_training_where_no_gate_would_try(
    tmp_path: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_ = {"estimator": None, "trainer": "samples:train_guess", "params": {}, "trusted_types": ["samples.Guess"]}
    tried, untried = policy(training=training_), policy(training=training_, gate={"fresh_process": False})
    parts = divided(tried, tmp_path)
    fitted = training.fit(tried, parts.train)

    def broken(_self: object, _state: object) -> None:
        raise RuntimeError("half of the state is missing")

    monkeypatch.setattr(type(fitted.model), "__setstate__", broken, raising=False)
    tracking.save(tried, fitted, parts, tmp_path / "tried")  # in the gate, in a fresh process
    with pytest.raises(TrainingError, match=r"read it again: RuntimeError: half of the state"):
        tracking.save(untried, fitted, parts, tmp_path / "untried")


def test_pickle_is_written_only_when_the_policy_says_so(tmp_path: Path, stores: Stores) -> None:
    of = policy(training={"serialization": "pickle", "params": {"max_iter": 2}})
    parts = divided(of, tmp_path)
    folder = tracking.save(of, training.fit(of, parts.train), parts, tmp_path / "model")
    with pytest.raises(artifact.UntrustedModel, match="serialization: pickle"):
        artifact.load(folder)
    assert len(artifact.load(folder, allow_pickle=True).predict(parts.holdout.features)) == 120


def test_a_model_that_cannot_be_pickled_is_refused_in_one_clear_error(tmp_path: Path, stores: Stores) -> None:
    of = policy(training={"serialization": "pickle", "params": {"max_iter": 2}})
    parts = divided(of, tmp_path)
    fitted = training.fit(of, parts.train)
    fitted.model.lock = threading.Lock()
    with pytest.raises(TrainingError, match=r"this Pipeline cannot be pickled: .*'_thread.lock'.*__getstate__"):
        tracking.save(of, fitted, parts, tmp_path / "model")


def test_the_git_revision_is_read_around_the_policy(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs\n" + "a" * 40 + " refs/heads/main\n")
    (tmp_path / "policies").mkdir()
    assert git_revision(tmp_path / "policies") == "a" * 40
    (git / "refs" / "heads" / "main").write_text("b" * 40 + "\n")
    assert git_revision(tmp_path / "policies") == "b" * 40
    (git / "HEAD").write_text("c" * 40)
    assert git_revision(tmp_path) == "c" * 40


# --- Real data -----------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_a_frozen_bike_model_decays_and_a_retrained_one_does_not(
    public_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_TEST_DATA", str(public_data))
    of = load_policy(Path(__file__).parent.parent / "policies" / "bike.yaml")
    quick = of.training.model_copy(update={"params": {"max_iter": 60, "learning_rate": 0.15}})
    of = of.model_copy(update={"training": quick})
    begin, end = datetime(2011, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)
    dataset = load(of, Stores.at(tmp_path), start=begin, end=end)
    cut = int(0.15 * len(dataset))
    frozen = training.fit(of, dataset.take(slice(0, cut)))
    later = dataset.between(datetime(2012, 3, 1, tzinfo=UTC), datetime(2012, 5, 1, tzinfo=UTC))
    sliding = training.fit(of, dataset.between(later.time[0] - timedelta(days=180), later.time[0]))

    def r2(fitted: Fitted) -> Measurement:
        return measure("r2", score(fitted.model, later, classes=()))

    assert 0.3 < r2(frozen).value < 0.7
    assert r2(sliding).value > r2(frozen).value + 0.15


class Shouting(LogisticRegression):
    """Its probabilities are a thousand times too large."""

    def predict_proba(self, features: pd.DataFrame) -> Any:
        return 1000 * super().predict_proba(features)


def test_a_model_whose_probabilities_are_none_is_refused() -> None:
    features = pd.DataFrame({"x": np.linspace(-1, 1, 300)})
    labels = np.where(features["x"] + 0.3 * np.sin(np.arange(300)) > 0, "yes", "no")
    moments = pd.date_range("2026-01-01", periods=300, freq="h", tz="UTC")
    train = Dataset(features=features, target=pd.Series(labels, dtype=object), time=moments)
    training.check_answers(policy(), LogisticRegression().fit(features, labels), train)
    with pytest.raises(TrainingError, match="the probabilities of 300 of 300 rows are below 0 or above 1"):
        training.check_answers(policy(), Shouting().fit(features, labels), train)


def careless(features: pd.DataFrame, labels: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    features["size"] = 0.0
    features["more"] = 1.0
    return LogisticRegression().fit(features[["noise"]].assign(more=1.0), labels)


def test_what_a_trainer_does_to_its_rows_is_not_the_reference(tmp_path: Path) -> None:
    of = policy(training={"estimator": None, "trainer": "test_training:careless", "params": {}})
    train = divided(of, tmp_path).train
    before = train.features.copy(deep=True)
    with pytest.raises(TrainingError, match="more"):
        training.fit(of, train)
    pd.testing.assert_frame_equal(train.features, before)
