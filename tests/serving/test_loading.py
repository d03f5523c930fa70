"""A version gets traffic only when its files are those that were judged, hold nothing that runs, and answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import yaml
from candidates import CUT, Strict
from mlflow import MlflowClient
from shops import GOOD, Shop
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from serving.contract import Column, Contract
from serving.follower import Follower
from serving.gateway import Gateway, ModelFailed, NothingServes
from serving.lineup import Lineup
from serving.loaded import Loaded, Loader, Unfit, _warmed
from serving.metrics import Metrics
from serving.routing import Arm
from serving.sample import kept_rows, other_answers
from serving.settings import Settings
from tasks import artifact, example
from tasks.policy_file import load as load_policy


class Foundry:
    """Makes versions by hand, from the files of version 1."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.client = MlflowClient(tracking_uri=shop.stores.tracking, registry_uri=shop.stores.tracking)

    def version(self, change: Callable[[Path], None], *, described: bool = True) -> str:
        """Register a changed copy; the ledger knows its digest."""
        folder = self.shop.home / "made" / str(len(list(self.shop.home.glob("made/*"))))
        shutil.copytree(self.shop.artifact("1"), folder)
        change(folder)
        version = str(self.client.create_model_version("churn", folder.as_uri()).version)
        with self.shop.case().ledger as ledger:
            if described:
                ledger.describe_external("churn", version, digest=artifact.digest(folder), size=1)
        return version

    def load(self, version: str) -> Loaded:
        with self.shop.case().ledger as ledger:
            return Loader(load_policy(self.shop.policy), self.shop.stores).load(ledger, version)

    def refusal(self, version: str) -> Unfit:
        with pytest.raises(Unfit) as caught:
            self.load(version)
        return caught.value


@pytest.fixture
def foundry(shop: Shop) -> Foundry:
    return Foundry(shop)


def nothing(_: Path) -> None:
    """As it is."""


def edit(
    folder: Path, name: str, change: Callable[[Any], None], read: Any = json.loads, write: Any = json.dumps
) -> None:
    content = read((folder / name).read_text("utf-8"))
    change(content)
    (folder / name).write_text(write(content), "utf-8")


def edit_mlmodel(folder: Path, change: Callable[[Any], None]) -> None:
    edit(folder, "MLmodel", change, yaml.safe_load, yaml.safe_dump)


def test_an_honest_version_is_loaded_from_a_copy_of_its_own(foundry: Foundry) -> None:
    version = foundry.version(nothing)
    loaded = foundry.load(version)
    (answer,) = loaded.answers([GOOD])
    assert answer is not None
    assert (answer.prediction in {"yes", "no"}, loaded.classes, loaded.positive) == (True, ("no", "yes"), 1)
    shutil.rmtree(foundry.shop.artifact(version))
    assert foundry.load(version).digest == loaded.digest, "the copy is enough"


def test_a_copy_that_was_changed_is_not_believed(foundry: Foundry) -> None:
    version = foundry.version(nothing)
    foundry.load(version)
    copy = foundry.shop.stores.home / "serving" / "churn" / version
    (copy / "MLmodel").write_text("changed")
    assert foundry.load(version).answers([GOOD]), "it was fetched again"
    (copy / "MLmodel").write_text("changed")
    (foundry.shop.artifact(version) / "MLmodel").write_text("changed")
    assert foundry.refusal(version).kind == "swapped"


def test_what_the_ledger_does_not_know_is_not_served(foundry: Foundry) -> None:
    assert foundry.refusal(foundry.version(nothing, described=False)).kind == "unverified"


def test_a_pickle_is_not_opened(foundry: Foundry) -> None:
    def pickled(folder: Path) -> None:
        (folder / "model.pkl").write_bytes(b"cposix\nsystem\n(S'touch /tmp/opened'\ntR.")
        flavour = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
        edit_mlmodel(folder, lambda content: content["flavors"].update(sklearn=flavour))

    error = foundry.refusal(foundry.version(pickled))
    assert (error.kind, "runs code" in str(error)) == ("untrusted", True)


def test_a_version_without_a_signature_is_not_served(foundry: Foundry) -> None:
    version = foundry.version(lambda folder: edit_mlmodel(folder, lambda content: content.pop("signature")))
    assert foundry.refusal(version).kind == "contract"


def test_a_version_that_cannot_be_warmed_is_not_served(foundry: Foundry) -> None:
    def bare(folder: Path) -> None:
        for name in (example.FILE, "input_example.json"):
            (folder / name).unlink()

    error = foundry.refusal(foundry.version(bare))
    assert (error.kind, "no stored input example" in str(error)) == ("silent", True)


def test_a_version_that_answers_differently_than_when_it_was_judged_is_not_served(foundry: Foundry) -> None:
    def lie(stored: Any) -> None:
        stored["prediction"] = [{"yes": "no", "no": "yes"}[one] for one in stored["prediction"]]

    error = foundry.refusal(foundry.version(lambda folder: edit(folder, example.FILE, lie)))
    assert (error.kind, "answers differently" in str(error)) == ("silent", True)


def test_a_pipeline_of_somebodys_own_answers_as_it_does_and_not_as_its_steps_do(
    foundry: Foundry, caplog: pytest.LogCaptureFixture
) -> None:
    def strict(folder: Path) -> None:
        model = Strict(artifact.load(folder).steps)
        skops.io.dump(model, artifact.model_file(folder))
        stored = json.loads((folder / example.FILE).read_text("utf-8"))
        example.write(folder, model, pd.DataFrame(stored["rows"], columns=list(stored["kinds"])))

    version, policy = foundry.version(strict), load_policy(foundry.shop.policy)
    training = policy.training.model_copy(update={"trusted_types": ("candidates.Strict",)})
    loader = Loader(policy.model_copy(update={"training": training}), foundry.shop.stores)
    with foundry.shop.case().ledger as ledger:
        loaded = loader.load(ledger, version)
    assert (loaded, caplog.records) == (loaded.itself, []), "it is known, and not only found out by what is stored"
    rows = [{**GOOD, "tenure_months": months, "support_calls": months % 9} for months in range(60)]
    said = [one for one in [*(loaded.answers([row])[0] for row in rows), *loaded.answers(rows)] if one is not None]
    frame = loaded.contract.frame([*rows, *rows])
    assert [one.prediction for one in said] == loaded.model.predict(frame).tolist()
    assert [one.score for one in said] == pytest.approx(loaded.model.predict_proba(frame)[:, 1])
    assert any(0.5 < (one.score or 0) < CUT for one in said), "the larger one, and not what it says"


def test_short_ways_that_say_otherwise_than_was_stored_are_not_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Tied(0.3)
    example.write(tmp_path, model, NUMBER.frame([{"n": float(number)} for number in range(3)]))
    loaded = Loaded("1", "d", model, NUMBER, ("no", "yes"), 1, largest=True)
    warm = _warmed(tmp_path, loaded, "version 1 of churn")
    assert [one.prediction for one in warm.answers([{"n": 1}, {"n": 2}]) if one] == ["yes", "yes"]
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith("version 1 of churn is asked itself")
    assert told.endswith("a stored row gives 'no' and not 'yes'")
    model.chance = 0.9
    example.write(tmp_path, model, NUMBER.frame([{"n": 1.0}]))
    caplog.clear()
    assert (_warmed(tmp_path, loaded, "version 1 of churn"), caplog.records) == (loaded, [])


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (lambda row: [0.2, 0.8] if row["n"] > 5 else [0.8, 0.2], "a stored row gives the probabilities [0.8, 0.2] and"),
        (lambda _: [0.1, 0.9], "a stored row gives 'yes' and not 'no'"),
        (lambda row: [0.1, row["of another"]], "its stored rows raise KeyError: 'of another'"),
    ],
)
def test_a_short_way_is_held_against_what_was_stored(
    tmp_path: Path, said: Callable[[Mapping[str, Any]], list[float]], told: str
) -> None:
    frame = NUMBER.frame([{"n": float(number)} for number in range(12)])
    model = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
    model.fit(frame, np.where(frame["n"] > 5, "yes", "no"))
    example.write(tmp_path, model, frame[4:9])
    rows = kept_rows(tmp_path)
    loaded = Loaded("1", "d", model, NUMBER, ("no", "yes"), 1, largest=True, shortcut=said)
    assert other_answers(tmp_path, loaded, rows, many=17).startswith(told)
    assert other_answers(tmp_path, replace(loaded, shortcut=None, in_steps=True), rows, many=17) == ""
    assert other_answers(tmp_path, loaded.itself, rows, many=17) == ""


def test_files_that_are_not_there_are_told(foundry: Foundry) -> None:
    version = foundry.version(nothing)
    shutil.rmtree(foundry.shop.artifact(version))
    assert foundry.refusal(version).kind in {"missing", "away"}


NUMBER = Contract((Column("n", "number"),))


class Tied:
    """Says otherwise than the largest probability where two are equal."""

    classes_ = np.array(["no", "yes"])

    def __init__(self, chance: float) -> None:
        self.chance, self.asked = chance, 0

    def predict(self, frame: Any) -> list[str]:
        self.asked += 1
        return ["yes"] * len(frame)

    def predict_proba(self, frame: Any) -> list[list[float]]:
        return [[1 - self.chance, self.chance]] * len(frame)


@pytest.mark.parametrize(("chance", "answer", "asked"), [(0.9, "yes", 0), (0.1, "no", 0), (0.5, "yes", 1)])
def test_predict_is_asked_where_two_classes_are_as_likely(chance: float, answer: str, asked: int) -> None:
    model = Tied(chance)
    loaded = Loaded("1", "d", model, NUMBER, ("no", "yes"), 1, largest=True)
    (said,) = loaded.answers([{"n": 1}])
    assert said is not None
    assert (said.prediction, model.asked) == (answer, asked)


def test_predict_is_asked_always_of_a_model_with_a_threshold_of_its_own() -> None:
    model = Tied(0.1)
    (said,) = Loaded("1", "d", model, NUMBER, ("no", "yes"), 1).answers([{"n": 1}])
    assert said is not None
    assert said.prediction == "yes"


# Following.


def follower(shop: Shop, now: Callable[[], float] | None = None) -> Follower:
    options = {"clock": now} if now else {}
    settings = Settings(poll_seconds=10)  # a look waits so long for a load, at most
    return Follower(load_policy(shop.policy), shop.stores, settings, Metrics(), **options)


def test_a_model_that_was_never_promoted_is_not_ready(shop: Shop) -> None:
    (shop.home / "ledger.db").unlink()
    one = follower(shop)
    one.look()
    assert one.desk.lineup is None
    assert "promote one" in one.reasons["production"]


def test_a_version_that_was_refused_is_tried_again_ever_more_rarely(foundry: Foundry) -> None:
    version = foundry.version(lambda folder: edit_mlmodel(folder, lambda content: content.pop("signature")))
    foundry.shop.move("promote", version)
    now, tried = [0.0], []
    one = follower(foundry.shop, lambda: now[0])
    load = one._loader.load
    one._loader.load = lambda ledger, which: (tried.append(now[0]), load(ledger, which))[1]  # type: ignore[method-assign]
    while now[0] < 200:
        one.look()
        now[0] += 0.5
    assert tried[:7] == [0, 1, 3, 7, 15, 31, 63]
    assert tried[7:] == [123, 183]
    assert "nothing serves" in one.reasons["version"]


def test_the_version_before_is_back_without_any_store(shop: Shop) -> None:
    """A rollback must not wait for files."""
    one = follower(shop)
    one.look()
    shop.move("promote", "2")
    one.look()
    assert one.desk.lineup is not None
    assert one.desk.lineup.production.version == "2"
    shop.move("rollback", "1")
    one._loader.load = None  # type: ignore[assignment, method-assign]
    one.look()
    assert one.desk.lineup.production.version == "1"
    assert one.desk.lineup.seq == 3


# Answering.


class Moody:
    """A model that fails on some rows."""

    def predict(self, frame: Any) -> list[float]:
        if (frame["n"] == 13).any():
            raise RuntimeError("no answer to 13")
        return [float("nan") if value == 7 else value for value in frame["n"]]


@pytest.fixture
def moody(shop: Shop) -> Gateway:
    gateway = Gateway([load_policy(shop.policy)], shop.stores, Settings())
    one = gateway.followers["churn"]
    loaded = Loaded("1", "d", Moody(), Contract((Column("n", "number"),)))
    one._swap(Lineup.of("churn", 1, (Arm("1"),), {"1": loaded}))
    return gateway


def test_a_row_that_the_model_fails_is_one_error_and_not_the_batch(moody: Gateway) -> None:
    rows = [{"features": {"n": number}, "request_id": f"r{number}"} for number in range(20)]
    with pytest.raises(ModelFailed) as caught:
        moody.predict(json.dumps({"rows": rows}).encode(), 0.0)
    assert caught.value.places == ("rows[7].features", "rows[13].features")
    waiting = list(moody.logbook.answers._waiting)
    assert [(row.request_id, row.failed, row.prediction) for row in waiting] == [
        ("r7", True, None),
        ("r13", True, None),
    ]
    sample = moody.metrics.registry.get_sample_value
    labels = {"model": "churn", "version": "1", "role": "production"}
    assert sample("backstop_request_errors_total", labels) == 2


def test_what_a_row_of_a_batch_took_is_its_share(moody: Gateway) -> None:
    """A thousand rows in a second are not a thousand slow requests: the watch would roll back."""
    import time

    rows = [{"features": {"n": 1}}] * 100
    moody.predict(json.dumps({"rows": rows}).encode(), time.perf_counter() - 1)
    waiting = list(moody.logbook.answers._waiting)
    assert sum(row.seconds for row in waiting) == pytest.approx(1, abs=0.5)
    moody.predict(json.dumps({"features": {"n": 1}}).encode(), time.perf_counter() - 1)
    assert moody.logbook.answers._waiting[-1].seconds == pytest.approx(1, abs=0.5)


def test_a_batch_over_two_arms_is_answered_by_both(moody: Gateway) -> None:
    one = moody.followers["churn"]
    first = one.desk.lineup.loaded["1"]  # type: ignore[union-attr]
    second = Loaded("2", "d", first.model, first.contract)
    one._swap(Lineup.of("churn", 2, (Arm("1", 50), Arm("2", 50, "canary")), {"1": first, "2": second}))
    rows = [{"features": {"n": 100 + number}, "key": f"k{number}"} for number in range(40)]
    said = json.loads(moody.predict(json.dumps({"rows": rows}).encode(), 0.0))["answers"]
    assert [row["prediction"] for row in said] == [100 + number for number in range(40)]
    assert {row["version"] for row in said} == {"1", "2"}
    again = json.loads(moody.predict(json.dumps({"rows": rows}).encode(), 0.0))["answers"]
    assert [row["version"] for row in again] == [row["version"] for row in said]


def test_nobody_answers_where_nothing_serves(shop: Shop) -> None:
    gateway = Gateway([load_policy(shop.policy)], shop.stores, Settings())
    with pytest.raises(NothingServes, match="no version of churn can answer now"):
        gateway.predict(json.dumps({"features": GOOD}).encode(), 0.0)
    ready, told = gateway.readiness()
    assert (ready, told["status"]) == (False, "not ready")
