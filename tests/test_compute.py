"""Compute: a cluster of real processes finds what one process finds, to the last bit, and says so when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from samples import policy, rows
from servers import free_port

from tasks import candidate, compute
from tasks import profile as profiles
from tasks.columns import tidy
from tasks.data import Dataset, Split
from tasks.policy import Policy
from tasks.scoring import classes_of, score
from tasks.training import fit

ROOT = Path(__file__).resolve().parents[1]
NOW = datetime(2025, 1, 1, tzinfo=UTC)
SPACE = {"C": [0.01, 0.1, 1.0, 10.0]}
LINEAR: dict[str, Any] = {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 200}}
SEARCHED = {**LINEAR, "search": {"when": "always", "method": "random", "iterations": 4, "folds": 2, "space": SPACE}}


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A Dask scheduler and two workers, each a process of its own."""
    address = f"tcp://127.0.0.1:{free_port()}"
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "PYTHONWARNINGS": "ignore"}
    quiet = ["--no-dashboard"]
    begun = [_begun(["scheduler", "--host", address, *quiet], env)]
    one = ["worker", address, "--nthreads", "1", "--host", "127.0.0.1", "--no-nanny", *quiet]
    begun += [_begun(one, env) for _ in range(2)]
    try:
        yield address
    finally:
        for process in reversed(begun):
            process.terminate()
            try:
                process.wait(20)  # a worker says goodbye to its scheduler, which is to be there until it has
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _begun(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(program, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def of(given: dict[str, Any] | None, training: dict[str, Any] = LINEAR) -> Policy:
    made = policy(training=training).model_dump(exclude={"compute"})
    return Policy.model_validate({**made, "compute": given} if given else made)


@pytest.fixture(scope="module")
def table() -> Dataset:
    frame = rows(3000, seed=5)
    frame.loc[::7, "size"] = np.nan
    features = tidy(frame.drop(columns=["id", "at", "left", "amount"]))
    time_ = pd.DatetimeIndex(pd.to_datetime(frame["at"]))
    return Dataset(features=features, target=frame["left"].astype(object), time=time_)


@pytest.fixture(params=["dask", "processes"])
def spread(request: pytest.FixtureRequest, scheduler: str) -> dict[str, Any]:
    where = {"dask": scheduler} if request.param == "dask" else {"processes": 2}
    return {**where, "piece": 700}


def everywhere(of_: Policy) -> set[int]:
    """Processes that answered."""
    with compute.on(of_):
        return set(compute.each(_pid, [(number,) for number in range(12)]))


def _pid(number: int) -> int:
    time.sleep(0.05 + 0 * number)
    return os.getpid()


def test_the_work_is_done_by_other_processes_and_by_more_than_one(spread: dict[str, Any]) -> None:
    found = everywhere(of(spread))
    assert os.getpid() not in found
    assert len(found) == 2
    assert everywhere(of(None)) == {os.getpid()}


def test_a_candidate_of_a_cluster_is_that_of_one_process(spread: dict[str, Any], table: Dataset) -> None:
    parts = Split(train=table.take(slice(0, 2000)), holdout=table.take(slice(2000, None)))
    here = candidate.attempt(of(None, SEARCHED), parts, NOW, search=True)
    there = candidate.attempt(of(spread, SEARCHED), parts, NOW, search=True)
    assert there.fitted.params == here.fitted.params
    assert there.fitted.searched
    assert there.profile == here.profile
    for name in (field.name for field in fields(here.scores)):
        np.testing.assert_array_equal(getattr(there.scores, name), getattr(here.scores, name))


def test_counts_by_pieces_are_those_of_the_whole(spread: dict[str, Any], table: Dataset) -> None:
    reference = profiles.describe(table.features.iloc[:1500], ks=True)
    whole = profiles.count(table.features, reference)
    with compute.on(of(spread)):
        assert len(compute.pieces(len(table))) == 5
        assert profiles.count(table.features, reference) == whole
        assert profiles.describe(table.features.iloc[:1500], ks=True) == reference


def test_a_column_whose_pieces_are_of_several_kinds_is_counted_as_the_whole(
    spread: dict[str, Any], table: Dataset
) -> None:
    reference = profiles.describe(table.features)
    changed = table.features.copy()
    changed["size"] = pd.Series([None] * 700 + ["tall"] * 700 + [1.5] * 1600, dtype=object)
    whole = profiles.count(changed, reference)
    with compute.on(of(spread)):
        assert profiles.count(changed, reference) == whole


def test_scores_by_pieces_are_those_of_the_whole_also_with_a_threshold_of_its_own(
    spread: dict[str, Any], table: Dataset
) -> None:
    model = Tuned(fit(of(None), table).model)
    classes = classes_of(model, table, of(None))
    whole = score(model, table, classes=classes)
    with compute.on(of(spread)):
        pieced = score(model, table, classes=classes)
    np.testing.assert_array_equal(pieced.prediction, whole.prediction)
    np.testing.assert_array_equal(pieced.probability, whole.probability)
    assert (whole.prediction != whole.probability.argmax(axis=1)).any()  # type: ignore[union-attr]


class Tuned:
    """Says yes from three in ten on."""

    def __init__(self, model: Any) -> None:
        self.model, self.classes_ = model, model.classes_

    def predict_proba(self, features: pd.DataFrame) -> Any:
        return self.model.predict_proba(features)

    def predict(self, features: pd.DataFrame) -> Any:
        return np.where(self.predict_proba(features)[:, 1] > 0.3, *self.classes_[::-1])


def test_without_the_section_and_for_few_rows_nothing_is_divided() -> None:
    assert compute.pieces(10**7) == (slice(0, 10**7),)
    with compute.on(of({"processes": 2, "piece": 100})):
        assert compute.pieces(100) == (slice(0, 100),)
        assert compute.pieces(250) == (slice(0, 100), slice(100, 200), slice(200, 250))
    assert compute.pieces(250) == (slice(0, 250),)


def test_a_scheduler_that_is_not_there_and_one_without_workers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_PATIENCE", 1.0)
    nowhere = "tcp://127.0.0.1:9"
    with pytest.raises(compute.ComputeError, match=f"no scheduler answers at {nowhere}"), nothing_in(nowhere):
        pass
    address = f"tcp://127.0.0.1:{free_port()}"
    lonely = _begun(["scheduler", "--host", address, "--no-dashboard"], dict(os.environ))
    monkeypatch.setattr(compute, "_PATIENCE", 8.0)
    try:
        with pytest.raises(compute.ComputeError, match="has no worker"), nothing_in(address):
            pass
    finally:
        lonely.terminate()
        lonely.wait(20)


def test_a_cluster_without_the_package_for_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(compute.ComputeError, match=r"install backstop\[dask\]"), nothing_in("tcp://127.0.0.1:9"):
        pass


def nothing_in(address: str) -> Any:
    return compute.on(of({"dask": address}))


def test_a_cluster_of_other_versions_is_refused(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = compute.versions()
    monkeypatch.setattr(compute, "version", lambda name: "0.1" if name == "scikit-learn" else here[name])
    with (
        pytest.raises(compute.ComputeError, match=r"scikit-learn \S+ at tcp\S+, 0\.1 here"),
        nothing_in(scheduler),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dask": "dask:8786"}, "no address"),
        ({"processes": 0}, "0 processes"),
        ({"piece": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_no_place_to_compute_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        of(given)
