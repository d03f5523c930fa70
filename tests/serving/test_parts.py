"""The parts of the gateway, each alone: who answers, what a row must be, and rows on their way into the log."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from servers import until
from sqlalchemy.exc import OperationalError

from serving import inputs
from serving.__main__ import main
from serving.contract import Column, Contract, NoContract, contract_of
from serving.inputs import BadInput, Question
from serving.limits import Rate
from serving.lineup import Lineup
from serving.loaded import Loaded
from serving.metrics import Metrics
from serving.preparation import prepared
from serving.recorder import Kind, Recorder
from serving.routing import Arm, checked, route
from serving.settings import Settings, SettingsError
from serving.spool import Spool, SpoolFull
from tasks.estimators import build
from tasks.policy import Training

# Who answers.


@given(st.lists(st.text(), min_size=1, max_size=20), st.floats(0, 100))
def test_a_key_keeps_its_version_when_the_canary_grows(keys: list[str], share: float) -> None:
    def canary(weight: float) -> set[str]:
        arms = checked([Arm("1", 100 - weight), Arm("2", weight, "canary")])
        return {key for key in keys if route(key, arms, salt="churn").version == "2"}

    assert canary(0) == set()
    assert canary(share / 2) <= canary(share)
    assert canary(100) == set(keys)


def test_keys_are_shared_out_by_the_weights() -> None:
    arms = checked([Arm("1", 75), Arm("2", 25, "canary")])
    picked = [route(f"customer {number}", arms, salt="churn").version for number in range(20_000)]
    assert picked.count("2") / 20_000 == pytest.approx(0.25, abs=0.015)
    other = [route(f"customer {number}", arms, salt="fraud").version for number in range(20_000)]
    both = sum(one == two == "2" for one, two in zip(picked, other, strict=True)) / 20_000
    assert both == pytest.approx(0.0625, abs=0.01), "one model's canary has not the customers of another's"


@pytest.mark.parametrize(
    "arms",
    [
        [],
        [Arm("1", 99)],
        [Arm("1", 60), Arm("2", 60, "canary")],
        [Arm("1", 110), Arm("2", -10, "canary")],
        [Arm("1", 50), Arm("1", 50, "canary")],
        [Arm("1", float("nan"))],
    ],
)
def test_weights_that_are_no_shares_are_refused(arms: list[Arm]) -> None:
    with pytest.raises(ValueError, match="weight"):
        checked(arms)


def test_nobody_is_routed_to_a_version_that_is_not_loaded() -> None:
    one = Loaded("1", "d", None, Contract(()))
    with pytest.raises(ValueError, match="version 2 of churn is not loaded"):
        Lineup.of("churn", 1, (Arm("1", 95), Arm("2", 5, "canary")), {"1": one})
    assert Lineup.of("churn", 1, (Arm("1"),), {"1": one, "2": one}).loaded == {"1": one}


# What a row must be.

PROFILE = {
    "columns": [
        {"name": "size", "kind": "number", "categories": [], "counts": [5, 5], "nulls": 0},
        {"name": "age", "kind": "number", "categories": [], "counts": [5, 5], "nulls": 3},
        {"name": "plan", "kind": "category", "categories": ["a", "b"], "counts": [5, 5, 0], "nulls": 0},
        {"name": "city", "kind": "category", "categories": ["x", "y"], "counts": [5, 5, 1], "nulls": 1},
    ]
}
SIGNATURE = {"size": "double", "age": "double", "plan": "string", "city": "string"}
ROW = {"size": 1.5, "age": 30, "plan": "a", "city": "x"}


def described(folder: Path, signature: Any) -> Path:
    specs = [{"name": name, "type": kind} for name, kind in signature.items()]
    (folder / "MLmodel").write_text(yaml.safe_dump({"signature": {"inputs": json.dumps(specs)}}))
    return folder


def wrong(contract: Contract, **changes: Any) -> str:
    try:
        contract.check([Question("r", "r", {**ROW, **changes}, "features")])
    except BadInput as error:
        return str(error)
    return ""


def test_what_training_had_may_come_and_what_it_had_not_may_not(tmp_path: Path) -> None:
    contract = contract_of(described(tmp_path, SIGNATURE), PROFILE)
    assert wrong(contract) == ""
    assert wrong(contract, age=None) == "", "it was trained with nulls there"
    assert wrong(contract, city="z") == "", "not every city that training had is known by name"
    assert wrong(contract, city=None) == ""
    assert "features.size: is null" in wrong(contract, size=None)
    assert "features.plan: is \"c\", a category that the version was not trained on; give one of 'a', 'b'" in wrong(
        contract, plan="c"
    )
    assert "give a number" in wrong(contract, size="1.5")
    assert "give a number" in wrong(contract, size=float("nan"))


def test_what_may_be_null_and_what_the_policy_drops_is_told(tmp_path: Path) -> None:
    contract = contract_of(described(tmp_path, SIGNATURE), PROFILE, dropped=("customer",))
    assert "features.customer: is no column of this model (the policy drops it); take it out" in wrong(
        contract, customer="c1"
    )
    assert "features.other: is no column of this model; take it out" in wrong(contract, other=1)
    with pytest.raises(BadInput) as caught:
        contract.check([Question("r", "r", {"plan": "a"}, "features")])
    assert "features.size: is missing; give a number;" in f"{caught.value};"
    assert "features.age: is missing; give a number or null" in str(caught.value)


def test_new_categories_and_nulls_can_be_accepted_and_wrong_types_cannot(tmp_path: Path) -> None:
    contract = contract_of(described(tmp_path, SIGNATURE), PROFILE, accept_unseen=True)
    assert wrong(contract, size=None, plan="c") == ""
    assert wrong(contract, size="1.5")
    assert wrong(contract, plan=3)


def test_a_version_without_a_profile_is_held_to_its_signature(tmp_path: Path) -> None:
    signature = {"size": "float", "age": "integer", "plan": "boolean", "city": "string"}
    contract = contract_of(described(tmp_path, signature), None)
    assert wrong(contract, plan=True, city="anything") == ""
    assert wrong(contract, plan=1)
    assert "features.age" in wrong(contract, plan=True, age=2**40)
    assert "features.age" in wrong(contract, plan=True, age=1.5)
    frame = contract.frame([{**ROW, "plan": True}])
    assert [str(kind) for kind in frame.dtypes] == ["float32", "int32", "bool", "object"]


def test_nulls_reach_the_model_as_in_training(tmp_path: Path) -> None:
    frame = contract_of(described(tmp_path, SIGNATURE), PROFILE).frame([{**ROW, "age": None, "city": None}])
    assert np.isnan(frame["age"][0])
    assert frame["city"][0] is None
    assert list(frame.columns) == list(SIGNATURE)


@pytest.mark.parametrize("signature", [{"when": "datetime"}, {"": "double"}, {}])
def test_a_version_that_does_not_say_what_it_takes_is_refused(tmp_path: Path, signature: Any) -> None:
    with pytest.raises(NoContract):
        contract_of(described(tmp_path, signature), None)


def test_a_version_without_a_signature_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    with pytest.raises(NoContract, match="signature"):
        contract_of(tmp_path, None)


def test_many_problems_are_counted_and_the_first_are_shown() -> None:
    body = json.dumps({"rows": [{"features": 1}] * 50}).encode()
    with pytest.raises(BadInput) as caught:
        inputs.read(body, max_rows=100)
    assert (caught.value.found, len(caught.value.faults)) == (50, 20)


# Rows on their way into the log.


class Database:
    """Takes rows, unless it is away."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.away = False
        self.hangs = threading.Event()
        self.hangs.set()

    def write(self, rows: Sequence[str]) -> None:
        self.hangs.wait(20)
        if self.away:
            raise OperationalError("insert", {}, Exception("no connection"))
        if any("poison" in row for row in rows):
            raise ValueError("no database takes this")
        self.rows += rows


class Line:
    """A recorder of texts."""

    def __init__(self, folder: Path, *, queue_rows: int = 1000, limit: int = 1 << 20) -> None:
        self.database, self.metrics = Database(), Metrics()
        self.spool = Spool(folder / "spool", limit=limit)
        kind = Kind("texts", self.database.write, str.encode, self.decode)
        self.recorder = Recorder(kind, self.spool, self.metrics, queue_rows=queue_rows)

    @staticmethod
    def decode(line: bytes) -> str:
        text = line.decode()
        if not text.startswith("r"):
            raise ValueError("no row")
        return text

    def dropped(self, reason: str) -> float:
        return float(
            self.metrics.registry.get_sample_value("backstop_dropped_rows_total", {"kind": "texts", "reason": reason})
            or 0
        )


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def wait(what: Callable[[], object]) -> None:
    until(what, told="it did not come to that")


def test_rows_come_in_whole_and_once_around_an_outage(line: Line) -> None:
    line.recorder.start()
    line.recorder.put(["r1"])
    wait(lambda: line.database.rows == ["r1"])
    line.database.away = True
    for number in range(2, 30):
        line.recorder.put([f"r{number}"])
        time.sleep(0.01)
    wait(lambda: line.spool.rows() == 28)
    assert "no connection" in line.recorder.trouble
    line.database.away = False
    wait(lambda: len(line.database.rows) == 29)
    wait(lambda: line.recorder.trouble == "")
    line.recorder.stop()
    assert sorted(line.database.rows) == sorted(f"r{number}" for number in range(1, 30))
    assert not line.spool


def test_a_row_that_no_database_takes_does_not_keep_the_others(line: Line) -> None:
    line.recorder.put([f"r{number}" for number in range(5)] + ["r poison"] + [f"r{number}" for number in range(5, 9)])
    line.recorder.start()
    wait(lambda: len(line.database.rows) == 9)
    assert line.dropped("refused") == 1
    assert line.recorder.trouble == ""
    line.recorder.stop()


def test_a_full_queue_drops_and_counts_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    line = Line(tmp_path, queue_rows=10)
    begun = time.monotonic()
    taken = [line.recorder.put(["r"] * 4) for _ in range(5)]
    assert time.monotonic() - begun < 10, "a queue that waits for room waits for ever here"
    assert taken == [True, True, False, False, False]
    assert line.dropped("queue") == 12


def test_a_database_that_hangs_fills_the_disk_and_not_the_memory(line: Line) -> None:
    line.database.hangs.clear()
    line.recorder.start()
    for number in range(900):
        line.recorder.put([f"r{number}"])
        if number % 50 == 0:
            time.sleep(0.12)
    wait(lambda: line.spool.rows() > 0)
    line.database.hangs.set()
    wait(lambda: len(line.database.rows) == 900)
    line.recorder.stop()
    assert len(set(line.database.rows)) == 900


def test_ending_while_the_database_hangs_keeps_everything_on_the_disk(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.database.hangs.clear()
    line.recorder.start()
    line.recorder.put(["r1", "r2"])
    time.sleep(0.5)
    line.recorder.put(["r3"])
    line.recorder.stop(seconds=0.5)
    assert line.spool.rows() == 3
    line.database.away = True
    line.database.hangs.set()
    following = Line(tmp_path)
    following.recorder.start()
    wait(lambda: set(following.database.rows) == {"r1", "r2", "r3"})
    following.recorder.stop()


def test_a_spool_that_is_full_drops_and_counts(tmp_path: Path) -> None:
    line = Line(tmp_path, limit=30)
    line.database.away = True
    line.recorder.start()
    for _ in range(10):
        line.recorder.put(["r23456789"])
        time.sleep(0.25)
    wait(lambda: line.dropped("spool") == 7)
    line.recorder.stop()
    assert line.spool.rows() == 3


def test_a_line_that_was_cut_off_costs_that_line_only(tmp_path: Path) -> None:
    line = Line(tmp_path)
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "00000000000000000001-1-1.jsonl").write_bytes(b"r1\nr2\nx-torn")
    line.recorder.start()
    wait(lambda: line.database.rows == ["r1", "r2"])
    wait(lambda: not line.spool)
    line.recorder.stop()
    assert line.dropped("torn") == 1


def test_a_file_that_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    writer, reader = Spool(tmp_path, limit=1000), Spool(tmp_path, limit=1000)
    writer.append([b"a"])
    with reader.oldest() as lines:
        assert lines is None
    writer.close()
    with pytest.raises(ZeroDivisionError), reader.oldest() as lines:
        _fail(lines)
    with reader.oldest() as lines:
        assert lines == [b"a"], "a reader that failed leaves it"
    assert not reader


def _fail(lines: list[bytes] | None) -> None:
    assert lines == [b"a"]
    raise ZeroDivisionError


def test_a_spool_holds_no_more_than_it_may(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=10)
    spool.append([b"1234", b"1234"])
    with pytest.raises(SpoolFull):
        spool.append([b"1"])
    assert (spool.rows(), spool.size) == (2, 10)
    spool.close()


# Settings and limits.


def test_settings_come_from_the_environment_and_all_problems_at_once() -> None:
    assert Settings.read({"BACKSTOP_SERVING_MAX_ROWS": "7"}, port="9000") == replace(Settings(), max_rows=7, port=9000)
    with pytest.raises(SettingsError) as caught:
        Settings.read({"BACKSTOP_SERVING_MAX_ROWS": "many", "BACKSTOP_SERVING_ROWS": "1"}, rate="-1")
    for part in ("MAX_ROWS is 'many': give a whole number", "BACKSTOP_SERVING_ROWS is no setting", "--rate is '-1'"):
        assert part in str(caught.value)


def test_an_address_that_nobody_could_listen_on_is_told_with_the_policies_before_models_are_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))  # threads of a gateway are none of the tests'
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--policy", "gone.yaml", "--port", port]) == 2
    told = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use); end what does, or set another --port" in told
    assert "gone.yaml" in told
    assert main(["--policy", "gone.yaml", "--port", port]) == 2
    assert "cannot listen" not in capsys.readouterr().err
    assert main(["--policy", "gone.yaml", "--host", "no.such.host.invalid"]) == 2
    assert "cannot listen on no.such.host.invalid:8400 (" in capsys.readouterr().err


def test_who_asks_too_often_is_told_and_others_are_not() -> None:
    now = [0.0]
    rate = Rate(2, clock=lambda: now[0])
    rate.check("a")
    rate.check("a")
    with pytest.raises(BadInput, match="more than 2 times"):
        rate.check("a")
    rate.check("b")
    now[0] = 0.6
    rate.check("a")
    with pytest.raises(BadInput):
        rate.check("a")


# The quick way through Backstop's own pipelines.


@pytest.mark.parametrize("estimator", ["linear_model:LogisticRegression", "ensemble:HistGradientBoostingClassifier"])
def test_the_quick_preparation_gives_what_the_pipeline_gives_to_the_bit(estimator: str) -> None:
    draw = np.random.default_rng(1)
    rows = [
        {
            "size": None if draw.random() < 0.1 else float(draw.normal()),
            "age": float(draw.integers(20, 60)),
            "empty": None if "linear" in estimator else 1.0,
            "plan": None if draw.random() < 0.1 else str(draw.choice(["a", "b", "c"], p=[0.7, 0.28, 0.02])),
            "code": str(draw.integers(0, 300)),
        }
        for _ in range(500)
    ]
    kinds: dict[str, Any] = {"size": "number", "age": "number", "empty": "number", "plan": "text", "code": "text"}
    columns = [
        Column(name, kind, "object" if kind == "text" else "float64", nullable=True) for name, kind in kinds.items()
    ]
    contract = Contract(tuple(columns))
    features = contract.frame(rows)
    model = build(Training(estimator=f"sklearn.{estimator}"), features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of nothing but nulls has no spread
        model.fit(features, [row["age"] > 40 for row in rows])
    quick = prepared(model, contract)
    assert quick is not None
    odd = [*rows, {**rows[0], "plan": "new", "code": "", "size": 1e300}, {**rows[1], "age": None}]
    assert np.array_equal(quick(odd), model[:-1].transform(contract.frame(odd)), equal_nan=True)


def test_a_pipeline_that_does_something_else_goes_its_own_way() -> None:
    contract = Contract((Column("size", "number"), Column("age", "number")))
    features = contract.frame([{"size": float(n), "age": float(n % 7)} for n in range(50)])
    model = build(Training(estimator="sklearn.linear_model:LogisticRegression"), features)
    model.fit(features, [n > 25 for n in range(50)])
    assert prepared(model, contract) is not None
    model.named_steps["prepare"].transform = lambda frame: frame.to_numpy() + 1e-12
    assert prepared(model, contract) is None
    assert prepared(object(), contract) is None
