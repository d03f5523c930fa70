"""The gateway answers for what the ledger has in Production, in the form in which it was asked."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from shops import GOOD, ROOT, Server
from sqlalchemy import text

from tasks.database import Database
from tasks.requests import RequestLog
from tasks.schema import LOG_REVISION

NAMES = list(GOOD)
VALUES = list(GOOD.values())


def test_one_row_is_answered(gateway: Server) -> None:
    answer = gateway.post("/predict", {"features": GOOD, "request_id": "one"})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["request_id"], said["model"], said["version"]) == ("one", "churn", "1")
    assert said["prediction"] in {"yes", "no"}
    assert said["score"] == pytest.approx(said["probabilities"]["yes"])


def test_the_answer_is_the_models_own(gateway: Server) -> None:
    from tasks import artifact

    model = artifact.load(gateway.shop.artifact("1"))
    import pandas as pd

    expected = model.predict_proba(pd.DataFrame([GOOD]))[0]
    said = gateway.post("/predict", {"features": GOOD}).json()
    assert said["probabilities"] == pytest.approx(dict(zip(model.classes_, expected, strict=True)))


def test_several_rows_are_answered_in_their_order(gateway: Server) -> None:
    rows = [{"features": {**GOOD, "support_calls": calls}, "request_id": f"batch-{calls}"} for calls in range(5)]
    said = gateway.post("/predict", {"rows": rows}).json()
    assert [one["request_id"] for one in said["answers"]] == [row["request_id"] for row in rows]
    scores = [one["score"] for one in said["answers"]]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1], "more calls for support, more likely to leave"


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": NAMES, "index": [0, 1], "data": [VALUES, VALUES]}},
        {"dataframe_split": {"columns": NAMES[::-1], "data": [VALUES[::-1], VALUES[::-1]]}},
        {"dataframe_records": [GOOD, GOOD]},
        {"instances": [GOOD, GOOD]},
        {"inputs": [GOOD, GOOD]},
        {"inputs": {name: [value, value] for name, value in GOOD.items()}, "params": {}},
        {"inputs": GOOD},
    ],
)
@pytest.mark.parametrize("path", ["/invocations", "/predict", "/models/churn/predict"])
def test_mlflows_forms_are_answered_as_mlflow_does(gateway: Server, body: dict[str, Any], path: str) -> None:
    answer = gateway.post(path, body)
    assert answer.status_code == 200, answer.text
    alone = gateway.post("/predict", {"features": GOOD}).json()["prediction"]
    assert answer.json()["predictions"] == [alone] * (1 if body == {"inputs": GOOD} else 2)


def test_what_was_answered_is_in_the_log_once_however_often_it_is_asked(gateway: Server) -> None:
    for _ in range(3):
        assert gateway.post("/predict", {"features": GOOD, "request_id": "again"}).status_code == 200
    gateway.wait(lambda: "again" in gateway.shop.logged().request_ids, "the request was not logged")
    logged = gateway.shop.logged()
    assert logged.request_ids.count("again") == 1
    place = logged.request_ids.index("again")
    said = gateway.post("/predict", {"features": GOOD}).json()
    assert logged.features[place] == GOOD
    assert (logged.predictions[place], logged.versions[place]) == (said["prediction"], "1")
    assert logged.scores[place] == pytest.approx(said["score"])


def test_labels_come_to_their_requests(gateway: Server) -> None:
    """Early, late, repeated and contradicting ones: the latest counts; one for nobody is counted."""
    before = gateway.metric("backstop_unmatched_labels_total")
    assert gateway.post("/feedback", {"request_id": "early", "label": "no"}).status_code == 202
    assert gateway.post("/predict", {"features": GOOD, "request_id": "early"}).status_code == 200
    late, later = datetime(2026, 5, 1, tzinfo=UTC).isoformat(), datetime(2026, 5, 2, tzinfo=UTC).isoformat()
    assert gateway.post("/predict", {"features": GOOD, "request_id": "late"}).status_code == 200
    body = {
        "labels": [{"request_id": "late", "label": label, "at": at} for label, at in (("yes", later), ("no", late))]
    }
    assert gateway.post("/feedback", body).json() == {"accepted": 2}
    assert gateway.post("/feedback", {"request_id": "nobody", "label": "yes"}).status_code == 202

    def labels() -> dict[str, str | None]:
        logged = gateway.shop.logged()
        return dict(zip(logged.request_ids, logged.labels, strict=True))

    gateway.wait(lambda: labels().get("late") and labels().get("early"), "the labels were not logged")
    assert (labels()["early"], labels()["late"]) == ("no", "yes")
    gateway.wait(lambda: gateway.metric("backstop_unmatched_labels_total") > before, "nobody's label was not counted")
    with RequestLog.open(gateway.shop.stores.requests) as log:
        assert log.contradictions("churn") == 1


def test_a_label_that_no_version_could_say_is_refused(gateway: Server) -> None:
    """It would make every answer wrong, and roll a good version back."""
    for label in ("Yes", "1", "", None, 1.0, [], {}, True):
        answer = gateway.post("/feedback", {"request_id": "x", "label": label})
        assert answer.status_code == 422, answer.text
        assert answer.json()["problems"][0]["field"] == "label"


def test_a_label_from_the_future_is_refused(gateway: Server) -> None:
    """It would win against every later one."""
    answer = gateway.post("/feedback", {"request_id": "x", "label": "yes", "at": "2099-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "at")


def test_metrics_count_rows_by_version(gateway: Server) -> None:
    labels = {"model": "churn", "version": "1", "role": "production"}
    before = gateway.metric("backstop_requests_total", **labels)
    gateway.post("/predict", {"rows": [{"features": GOOD}] * 7})
    assert gateway.metric("backstop_requests_total", **labels) == before + 7
    assert gateway.metric("backstop_request_seconds_count", **labels) == before + 7
    assert gateway.metric("backstop_request_errors_total", **labels) == 0
    assert gateway.metric("backstop_serving_info", **labels) == 1
    assert gateway.metric("backstop_arm_weight", **labels) == 100


def test_what_a_client_does_wrong_is_no_error_of_the_model(gateway: Server) -> None:
    """A client could otherwise roll a version back."""
    errors, refused = (gateway.metric(f"backstop_{name}_total") for name in ("request_errors", "refused_requests"))
    gateway.post("/predict", {"features": {}})
    assert gateway.metric("backstop_request_errors_total") == errors
    assert gateway.metric("backstop_refused_requests_total") == refused + 1


def test_it_tells_what_it_is_and_what_it_takes(gateway: Server) -> None:
    ready = gateway.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready"), ready.text
    said = gateway.get("/models/churn").json()
    assert said["arms"] == [{"version": "1", "role": "production", "weight": 100}]
    assert [column["name"] for column in said["columns"]] == NAMES
    assert said["classes"] == ["no", "yes"]
    assert gateway.get("/models/fraud").status_code == 404


def test_the_openapi_document_names_every_address(gateway: Server) -> None:
    document = gateway.get("/openapi.json").json()
    wanted = {"/predict", "/invocations", "/models/{model}/predict", "/feedback", "/healthz", "/readyz", "/metrics"}
    assert wanted <= set(document["paths"])
    assert "dataframe_split" in str(document["paths"]["/predict"]["post"]["requestBody"])
    assert gateway.get("/docs").status_code == 200


def test_a_copy_of_the_log_is_not_needed_to_answer(gateway: Server) -> None:
    """Scoring and recording are apart: the log locked by somebody else keeps no client waiting."""
    database = Database.open(gateway.shop.stores.requests, part="requests", revision=LOG_REVISION)
    with database.writing() as connection:
        connection.execute(text("DELETE FROM backstop_requests WHERE request_id = 'none'"))
        answers = [gateway.post("/predict", {"features": GOOD, "request_id": f"locked-{n}"}) for n in range(20)]
    database.close()
    assert {answer.status_code for answer in answers} == {200}
    wanted = {f"locked-{n}" for n in range(20)}
    gateway.wait(lambda: wanted <= set(gateway.shop.logged().request_ids), "what waited was not logged")


def test_the_gateway_moves_nothing() -> None:
    """It reads the registry and the ledger; only flows and people move versions."""
    moving = {"move", "carry_out", "apply", "serve", "wait", "tag", "intend", "settle", "state_fact", "answer"}
    called = {
        f"{path.name}: {node.func.attr}"
        for path in sorted(Path(ROOT, "serving").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in moving
    }
    assert called <= {"app.py: answer", "follower.py: wait", "recorder.py: wait", "shadow.py: wait"}
