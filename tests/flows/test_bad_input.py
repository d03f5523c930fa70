"""Bad input: told whole, with the place and the remedy, before anything is changed, and to a person."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from scene import FIRST, QUIET, Ran, Scene, day, everybody
from scene import run as run_flow
from sklearn.base import BaseEstimator, ClassifierMixin

from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch
from tasks.policy_file import load

pytestmark = pytest.mark.usefixtures("prefect_api")

WHY = {"force": True, "reason": "a test asks for it"}
PASSWORD, TOKEN = "hunter2-of-the-database", "T0KEN-of-the-hook"


# What users bring along.


class Explodes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that cannot be fitted."""

    def fit(self, _features: Any, _labels: Any) -> Explodes:
        raise RuntimeError("the matrix is on fire")


class Blank(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that answers every row with NaN."""

    def fit(self, _features: Any, labels: Any) -> Blank:
        self.classes_ = np.unique(labels)
        return self

    def predict(self, features: Any) -> Any:
        return np.full(len(features), np.nan)


def nan_metric(truth: Any, prediction: Any, probability: Any) -> float:
    """A metric that has no value."""
    return float("nan")


def closed_warehouse(start: Any, end: Any) -> pd.DataFrame:
    """A loader that fails."""
    raise ConnectionError("the warehouse is closed")


def short_loader(start: Any) -> pd.DataFrame:
    """A loader that takes the wrong arguments."""
    return everybody()


# Rows that nothing should be learned from.


def known() -> pd.DataFrame:
    """What has come by the day of the evaluation."""
    frame = everybody()
    return frame[frame["observed_at"] < day(QUIET)].reset_index(drop=True)


def one_class(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(churned="no")


def empty_column(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(payment=None)


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.tail(3)])


def one_moment(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(observed_at=day(QUIET - 1))


def naive(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(observed_at=frame["observed_at"].dt.tz_localize(None))


def everything_wrong(frame: pd.DataFrame) -> pd.DataFrame:
    return naive(empty_column(one_class(frame)))


def unchanged(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


DATA = {
    "missing file": (unchanged, {"source": "nowhere.csv"}, ["data.source", "nowhere.csv", "correct the path"]),
    "unknown column": (
        unchanged,
        {"drop": ["customer_nr"]},
        ["data.drop", "'customer_nr'", "did you mean 'customer_id'?", "tenure_months"],
    ),
    "no target": (unchanged, {"target": "churn"}, ["data.target", "'churn'", "did you mean 'churned'?"]),
    "one class only": (one_class, {}, ["data.target 'churned'", "only one class", "no (", "look back further"]),
    "all-null column": (empty_column, {}, ["column 'payment'", "is empty in all", "add it to drop"]),
    "repeated rows": (repeated, {}, ["data.duplicates", "3 rows repeat", "set data.duplicates to drop or keep"]),
    "one moment": (one_moment, {}, ["data.timestamp", "have the same moment", "name the column"]),
    "naive datetimes": (naive, {}, ["data.timestamp", "'observed_at' has no time zone", "set data.timezone"]),
    "positive class": (unchanged, {"positive": "maybe"}, ["data.positive 'maybe'", "yes (", "as the source does"]),
    "unreachable database": (
        unchanged,
        {"source": f"postgresql://ada:{PASSWORD}@127.0.0.1:9/shop", "table": "customers"},
        ["data.source", "ada:***@127.0.0.1:9/shop", "Connection refused", "see that the server runs"],
    ),
    "no such table": (
        unchanged,
        {"source": "sqlite:///shop.db", "table": "customers"},
        ["data.source", "there is no file", "shop.db", "correct the path"],
    ),
    "loader that raises": (
        unchanged,
        {"source": "test_bad_input:closed_warehouse"},
        ["data.source", "ConnectionError: the warehouse is closed", "correct the loader"],
    ),
    "loader with another signature": (
        unchanged,
        {"source": "test_bad_input:short_loader"},
        ["data.source", "is called with start, end", "change the arguments"],
    ),
    "all at once": (
        everything_wrong,
        {"drop": ["customer_id", "rebate"], "categorical": ["contrakt"]},
        [
            *("data.drop: the source has no column 'rebate'", "data.categorical: the source has no column 'contrakt'"),
            *("'observed_at' has no time zone", "column 'payment' is empty", "only one class"),
        ],
    ),
}

USER_CODE = {
    "estimator that raises": (
        {"training": {"estimator": "test_bad_input:Explodes", "params": None}},
        ["training: test_bad_input:Explodes", "RuntimeError: the matrix is on fire", "correct training.params"],
    ),
    "parameter that cannot be": (
        {"training": {"params": {"C": -1.0}}},
        ["sklearn.linear_model:LogisticRegression with", "C=-1.0", "correct training.params"],
    ),
    "model that answers NaN": (
        {"training": {"estimator": "test_bad_input:Blank", "params": None}},
        ["training: the model of test_bad_input:Blank", "with NaN or nothing", "look at its parameters"],
    ),
    "names that are not there": (
        {
            "training": {"estimator": "sklearn.linear_model:LogisticRegresion"},
            "gate": {"checks": ["nowhere.to:be_found"], "performance": {"metric": "acuracy"}},
        },
        [
            *("training.estimator", "did you mean 'LogisticRegression'?", "gate.checks", "'nowhere.to:be_found'"),
            *("gate.performance.metric", "'acuracy' is unknown", "did you mean 'accuracy'?"),
        ],
    ),
    "parameters that it does not take": (
        {"training": {"params": {"max_itr": 10}}},
        ["training.estimator", "is called with max_iter, max_itr", "change the arguments in the policy"],
    ),
}


def lasting(scene: Scene) -> tuple[Any, ...]:
    """Everything but the tables that tell of the mistake."""
    ledger, mlflow, files = scene.mark()
    telling = {
        "backstop_decisions",
        "backstop_notifications",
        "backstop_messages",
        "backstop_evidence",
        "backstop_chain",
        "sqlite_sequence",
    }
    rows = {table: found for table, found in ledger.items() if table not in telling}
    return rows, mlflow, {path: at for path, at in files.items() if not path.endswith("told.jsonl")}


def assert_told(scene: Scene, ran: Ran, before: tuple[Any, ...], said: list[str]) -> None:
    """The run failed with these words, nothing has changed, and ledger, sink and Prefect tell why."""
    assert ran.error is not None
    assert ran.state.is_failed()
    assert ran.state.name == "Failed"
    title, body = scene.messages()[-1]
    with scene.case(QUIET).ledger as ledger:
        kept = ledger.decisions("churn", limit=1)[0]
        sent = ledger.notifications("churn", limit=1)[0]
    reasons = "\n".join(finding.reason for finding in kept.verdict.findings)
    for words in said:
        assert words in str(ran.error)
        assert words in str(ran.state.message)
        assert words in body
        assert words in reasons
    assert title == "churn: retrain failed, Production unchanged"
    assert kept.verdict.decision == "failed"
    assert {finding.outcome for finding in kept.verdict.findings} == {"breach"}
    assert (sent.title, sent.ok, sent.trail) == (title, True, kept.trail)
    assert kept.trail in body
    assert lasting(scene) == before


@pytest.mark.parametrize("kind", DATA)
def test_bad_data_is_told_whole_and_changes_nothing(first: Scene, kind: str) -> None:
    spoil, changes, said = DATA[kind]
    first.write(spoil(known()))
    path = first.policy(data={"history": False, "key": None, **changes})
    before = lasting(first)
    ran = first.run(retrain, QUIET, policy=path, **WHY)
    assert_told(first, ran, before, said)
    assert (first.view.production, first.standing.production) == (("1",), "1")
    assert PASSWORD not in f"{ran.error}{ran.state.message}{first.messages()}"


@pytest.mark.parametrize("kind", USER_CODE)
def test_user_code_that_fails_is_told_whole_and_changes_nothing(first: Scene, kind: str) -> None:
    changes, said = USER_CODE[kind]
    path = first.policy(data={"history": False}, **changes)
    before = lasting(first)
    ran = first.run(retrain, QUIET, policy=path, **WHY)
    assert_told(first, ran, before, said)
    assert (first.view.production, first.standing.production) == (("1",), "1")


def test_names_that_are_not_there_are_one_finding_each(first: Scene) -> None:
    changes, _ = USER_CODE["names that are not there"]
    first.run(retrain, QUIET, policy=first.policy(**changes), **WHY)
    with first.case(QUIET).ledger as ledger:
        findings = ledger.decisions("churn", limit=1)[0].verdict.findings
    assert all(re.match(rf"{re.escape(str(first.home))}/changed\.variant:\d+: ", one.reason) for one in findings)
    assert [finding.reason.split(": ")[1] for finding in findings] == [
        "training.estimator",
        "gate.checks",
        "gate.performance.metric",
    ]


def test_a_first_model_on_bad_data_leaves_no_run_and_no_version(empty: Scene) -> None:
    empty.write(one_class(known()))
    before = lasting(empty)[1]
    ran = empty.run(retrain, QUIET)
    assert ran.state.is_failed()
    assert empty.decisions()[-1] == ("failed", None)
    assert lasting(empty)[1] == before
    assert (empty.runs(), empty.view.versions, empty.standing.production) == ([], (), None)


def test_a_metric_that_has_no_value_is_no_pass(first: Scene) -> None:
    path = first.policy(gate={"regression": {"metric": "test_bad_input:nan_metric"}})
    ran = first.run(retrain, QUIET, policy=path, **WHY)
    assert ran.report.decision == "gate-inconclusive"
    assert ran.state.name == "GateInconclusive"
    gate = next(verdict for verdict in ran.report.verdicts if verdict.judge == "gate")
    finding = next(finding for finding in gate.findings if finding.name == "regression")
    assert finding.outcome == "unknown"
    assert "nan_metric" in finding.reason
    assert (first.view.production, first.view.staging) == (("1",), ())
    assert "gate inconclusive" in first.told()[-1]


def test_a_moment_without_a_zone_is_refused_before_anything(first: Scene) -> None:
    before = first.mark()[:2]
    ran = run_flow(retrain, policy=first.policy(), as_of=day(QUIET).replace(tzinfo=None))
    assert ran.state.is_failed()
    assert "has no time zone; write it as 2026-03-08T00:00:00+00:00" in str(ran.state.message)
    assert first.mark()[:2] == before


TEN_MISTAKES = """\
model: 1churn
problem: binray
data:
  source: customers.txt
  target: churned
  timestamp: observed_at
  lookback: 30
  holdout: 90%
training:
  estimator: LogisticRegression
triggers:
  retrain_when: age and drfit
  age: yesterday
gate:
  latncy: {p99: 50ms}
  regression: {metric: f1_weighted, margin: two}
health:
  error_rate: 150%
"""


@pytest.mark.parametrize("flow", [retrain, promote, rollback])
def test_a_policy_with_ten_mistakes_lists_all_ten_before_anything(
    flow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, sink, path = tmp_path / "home", tmp_path / "told.jsonl", tmp_path / "churn.yaml"
    monkeypatch.setenv("BACKSTOP_HOME", str(home))
    monkeypatch.setenv("BACKSTOP_NOTIFY", f"file:{sink}, json://127.0.0.1:9/{TOKEN}")
    path.write_text(TEN_MISTAKES, encoding="utf-8")
    options = {"reason": "a test asks for it"} if flow is not retrain else {}
    ran = run_flow(flow, policy=str(path), **options, **({"dry_run": False} if options else {}))
    assert ran.state.is_failed()
    assert "10 problems in the policy" in str(ran.state.message)
    lines = (1, 2, 4, 7, 8, 10, 12, 13, 15, 16, 18)
    named = [line for line in lines if f"churn.yaml:{line}: " in str(ran.error)]
    assert len(named) >= 10
    assert not home.exists()
    assert sink.read_text("utf-8").count("10 problems in the policy") == 1
    assert TOKEN not in str(ran.state.message)


def test_a_watch_over_nothing_but_broken_policies_fails_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_HOME", str(tmp_path / "home"))
    (tmp_path / "churn.yaml").write_text(TEN_MISTAKES, encoding="utf-8")
    ran = run_flow(watch, policy=str(tmp_path / "churn.yaml"))
    assert ran.state.is_failed()
    assert "10 problems in the policy" in str(ran.state.message)
    assert not (tmp_path / "home").exists()


def test_a_ledger_that_cannot_be_reached_is_named_without_its_password(
    empty: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_LEDGER", f"postgresql://ada:{PASSWORD}@127.0.0.1:9/ledger")
    ran = empty.run(retrain, FIRST)
    assert ran.state.is_failed()
    for words in ("ada:***@127.0.0.1:9/ledger", "Connection refused", "see that BACKSTOP_LEDGER"):
        assert words in str(ran.state.message)
    title, body = empty.messages()[-1]
    assert "retrain could not begin, Production unchanged" in title
    assert "Connection refused" in body
    assert PASSWORD not in f"{ran.error}{ran.state.message}{title}{body}"


def test_an_mlflow_server_that_cannot_be_reached_is_told_without_its_password(
    first: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:{PASSWORD}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    before = lasting(first)
    ran = first.run(retrain, QUIET, policy=first.policy(data={"history": False}), **WHY)
    assert_told(first, ran, before, ["127.0.0.1", "Connection refused"])
    assert PASSWORD not in f"{ran.error}{ran.state.message}{first.messages()}"
    assert PASSWORD not in str(first.mark())


def logged(ran: Ran) -> str:
    """What Prefect keeps of a run: parameters, states, and the log lines of the flow and its tasks."""

    async def read() -> str:
        async with get_client() as client:
            assert ran.state.state_details.flow_run_id is not None
            flow_run = await client.read_flow_run(ran.state.state_details.flow_run_id)
            of_the_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id]))
            for _ in range(50):  # the lines are sent every other second
                lines = await client.read_logs(of_the_run, limit=200, offset=0)
                if any("Finished in state" in line.message for line in lines):
                    break
                await asyncio.sleep(0.2)
            return f"{flow_run.model_dump_json()}{[line.message for line in lines]}"

    return asyncio.run(read())


@pytest.mark.parametrize("by_name", [True, False], ids=["in the environment", "written in the policy"])
def test_no_secret_is_left_anywhere(
    first: Scene, by_name: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database, hook = f"postgresql://ada:{PASSWORD}@127.0.0.1:9/shop", f"json://127.0.0.1:9/{TOKEN}"
    monkeypatch.setenv("SHOP_DB", database)
    monkeypatch.setenv("HOOK", hook)
    caplog.set_level(logging.DEBUG)
    sinks = ["file:told.jsonl", "${HOOK}" if by_name else hook]
    done = first.run(retrain, QUIET, policy=first.policy(notify=sinks), **WHY)
    broken = first.policy(
        "broken", notify=sinks, data={"source": "${SHOP_DB}" if by_name else database, "table": "customers"}
    )
    failed = first.run(retrain, QUIET + 1, policy=broken, **WHY)
    assert failed.state.is_failed()
    assert done.report.candidate == "2"
    with first.case(QUIET).ledger as ledger:
        assert {sent.ok for sent in ledger.notifications("churn")} == {True, False}  # the hook was tried
    kept = {
        path: path.read_bytes()
        for path in first.home.rglob("*")
        if path.is_file() and path.suffix not in {".yaml", ".variant"}
    }
    kept |= {path: path.read_bytes() for path in (first.home / "artifacts").rglob("*.yaml")}
    assert any(path.name == "policy.yaml" for path in kept)
    prefect = logged(done) + logged(failed)
    assert prefect.count("Finished in state") >= 2
    for secret in (PASSWORD, TOKEN):
        assert [path for path, text in kept.items() if secret.encode() in text] == []
        assert secret not in caplog.text
        assert secret not in f"{failed.error}{prefect}"
        assert secret not in load(broken).text


def test_a_password_beside_a_name_that_is_not_set_is_not_shown(first: Scene) -> None:
    source = f"postgresql://ada:{PASSWORD}@${{SHOP_HOST}}/shop"
    ran = first.run(retrain, QUIET, policy=first.policy(data={"source": source, "table": "customers"}), **WHY)
    assert ran.state.is_failed()
    assert "environment variable SHOP_HOST is not set" in str(ran.state.message)
    assert PASSWORD not in f"{ran.error}{ran.state.message}{first.messages()}{first.mark()}"


def test_a_neighbour_that_cannot_be_read_or_is_the_same_file_is_no_second_policy(first: Scene) -> None:
    path = Path(first.policy())
    (path.parent / "current.yaml").symlink_to(path)
    (path.parent / "gone.yaml").symlink_to(path.parent / "nowhere.yaml")
    (path.parent / "folder.yaml").mkdir()
    (path.parent / "latin.yaml").write_bytes("model: été".encode("latin-1"))
    for name in ("churn.yaml", "current.yaml"):
        assert load(path.parent / name).model == "churn"
    (path.parent / "other.yml").write_text('\ufeffmodel: "churn"  # a copy', encoding="utf-8")
    ran = first.run(retrain, QUIET)
    assert "one model has one policy" in str(ran.error)
    assert "other.yml" in str(ran.error)
    assert first.view.production == ("1",)
