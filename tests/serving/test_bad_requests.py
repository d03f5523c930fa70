"""Whatever a client sends: the answer names what is wrong, and the process goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import GOOD, Server, Shop, serving


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize(
    ("features", "field", "word"),
    [
        (without("payment"), "features.payment", "missing"),
        ({**GOOD, "age": 3}, "features.age", "no column"),
        ({**GOOD, "tenure_months": "12"}, "features.tenure_months", "give a number"),
        ({**GOOD, "tenure_months": None}, "features.tenure_months", "null"),
        ({**GOOD, "tenure_months": True}, "features.tenure_months", "give a number"),
        ({**GOOD, "tenure_months": [1]}, "features.tenure_months", "give a number"),
        ({**GOOD, "contract": 3}, "features.contract", "one of"),
        ({**GOOD, "contract": "for ever"}, "features.contract", "not trained on"),
        ({**GOOD, "contract": None}, "features.contract", "null"),
        ({**GOOD, "contract": ""}, "features.contract", "not trained on"),
        ([], "features", "an object of columns"),
        (None, "features", "an object of columns"),
    ],
)
def test_the_field_that_is_wrong_is_named(gateway: Server, features: Any, field: str, word: str) -> None:
    answer = gateway.post("/predict", {"features": features})
    assert answer.status_code == 422
    (problem,) = answer.json()["problems"]
    assert problem["field"] == field
    assert word in problem["message"]


def test_everything_that_is_wrong_is_told_at_once(gateway: Server) -> None:
    rows = [{"features": GOOD}, {"features": {**without("payment"), "contract": 1}}, {"features": {**GOOD, "x": 1}}]
    answer = gateway.post("/predict", {"rows": rows})
    fields = [problem["field"] for problem in answer.json()["problems"]]
    assert fields == ["rows[1].features.contract", "rows[1].features.payment", "rows[2].features.x"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b"{", 400, "body"),
        (b'{"features": {"tenure_months": NaN}}', 400, "body"),
        (b'{"features": {"tenure_months": Infinity}}', 400, "body"),
        (b'{"features": {"tenure_months": 1e999}}', 400, "body"),
        (b'{"features": "\xff"}', 400, "body"),
        (b"[" * 5000 + b"]" * 5000, 400, "body"),
        (b"[]", 422, "body"),
        (b"{}", 422, "body"),
        ({"features": GOOD, "rows": []}, 422, "body"),
        ({"features": GOOD, "thread": 1}, 422, "thread"),
        ({"features": GOOD, "request_id": 7}, 422, "request_id"),
        ({"features": GOOD, "request_id": ""}, 422, "request_id"),
        ({"features": GOOD, "request_id": "x" * 129}, 422, "request_id"),
        ({"features": GOOD, "request_id": "a\x00b"}, 422, "request_id"),
        ({"features": GOOD, "key": []}, 422, "key"),
        ({"features": GOOD, "model": "fraud"}, 404, "model"),
        ({"features": GOOD, "model": 1}, 422, "model"),
        ({"rows": []}, 422, "rows"),
        ({"rows": {}}, 422, "rows"),
        ({"rows": [1]}, 422, "rows[0]"),
        ({"rows": [{"features": GOOD, "request_id": "a"}] * 2}, 422, "rows[0].request_id"),
        ({"rows": [{}] * 1001}, 413, "rows"),
        ({"dataframe_split": []}, 422, "dataframe_split"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, 422, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, 422, "dataframe_split.data[0]"),
        ({"dataframe_split": {"data": [[1, 2]]}}, 422, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["a"]}}, 422, "dataframe_split.data"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, 422, "inputs.b"),
        ({"inputs": {"a": [1], "b": 1}}, 422, "inputs.b"),
        ({"inputs": 3}, 422, "inputs"),
        ({"inputs": {"a": list(range(1001))}}, 413, "inputs"),
        ({"instances": [[1, 2, 3]]}, 422, "instances[0]"),
        ({"instances": [GOOD], "request_ids": ["a", "b"]}, 422, "request_ids"),
        ({"instances": [GOOD], "params": {"threshold": 1}}, 422, "params"),
    ],
)
def test_a_body_that_is_none_is_told_where(gateway: Server, body: Any, status: int, field: str) -> None:
    answer = gateway.post("/predict", body)
    assert answer.status_code == status, answer.text
    assert field in [problem["field"] for problem in answer.json()["problems"]]


def test_other_contents_than_json_are_refused(gateway: Server) -> None:
    for headers in ({"Content-Type": "text/csv"}, {"Content-Encoding": "gzip"}):
        assert gateway.post("/predict", b"a,b", headers=headers).status_code == 415


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FORMS = ("features", "rows", "dataframe_split", "dataframe_records", "inputs", "instances", "labels", "request_id")
LIKELY = st.dictionaries(st.sampled_from((*FORMS, "label", "at", "columns", "data", *GOOD)), JSON, max_size=4)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from((*FORMS, "model", "key", "params")), JSON | LIKELY | st.lists(LIKELY), max_size=4),
    st.dictionaries(st.sampled_from(tuple(GOOD)), JSON).map(lambda odd: {"features": {**GOOD, **odd, "odd": 1}}),
)


def _encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)


@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_hundreds_of_malformed_bodies_are_refused_and_nothing_dies(gateway: Server, path: str) -> None:
    process = gateway.process
    assert process is not None
    with httpx.Client(base_url=gateway.url, headers={"Content-Type": "application/json"}) as client:

        @settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(BODIES)
        def refused(body: Any) -> None:
            answer = client.post(path, content=_encoded(body))
            # By chance a label is one: the only form that can be met without knowing the model.
            lucky = path == "/feedback" and answer.status_code == 202
            assert lucky or 400 <= answer.status_code < 500, (body, answer.status_code, answer.text)
            assert lucky or answer.json()["problems"][0]["message"]

        refused()
    assert gateway.process is process
    assert gateway.alive
    assert gateway.post("/predict", {"features": GOOD}).status_code == 200


# A gateway with narrow limits.


@pytest.fixture(scope="module")
def narrow(shop_template: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("narrow") / "home"
    limits = ("--max-bytes", "20000", "--max-rows", "5", "--body-seconds", "2")
    with serving(shop_template.copy(home), *limits, **TOKEN) as server:
        yield server


TOKEN = {"BACKSTOP_SERVING_TOKEN": "secret"}
ALLOWED = {"Authorization": "Bearer secret"}


def test_who_has_no_token_learns_nothing(narrow: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "secret"}, {"Authorization": "Bearer ü"}):
        encoded = {name: value.encode() for name, value in headers.items()}
        answer = narrow.post("/predict", {"features": GOOD}, headers=encoded)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert narrow.post("/feedback", {"request_id": "x", "label": "yes"}).status_code == 401
    assert narrow.get("/models/churn").status_code == 401
    assert narrow.get("/readyz").status_code == 200
    assert narrow.post("/predict", {"features": GOOD}, headers=ALLOWED).status_code == 200
    assert "secret" not in narrow.said()


def test_a_body_of_a_hundred_megabytes_is_told_that_it_is_too_large(narrow: Server) -> None:
    before = narrow.metric("process_resident_memory_bytes")
    answer = narrow.post("/predict", b" " * 100_000_000, headers=ALLOWED)
    assert answer.status_code == 413
    assert "at most 20000" in answer.json()["problems"][0]["message"]
    assert narrow.metric("process_resident_memory_bytes") < before + 50e6


def test_a_body_without_a_length_is_cut_off_too(narrow: Server) -> None:
    answer = httpx.post(
        f"{narrow.url}/predict",
        content=(b" " * 1000 for _ in range(1000)),
        headers={"Content-Type": "application/json", **ALLOWED},
        timeout=10,
    )
    assert answer.status_code == 413


def test_more_rows_than_allowed_are_refused(narrow: Server) -> None:
    answer = narrow.post("/predict", {"rows": [{"features": {}}] * 6}, headers=ALLOWED)
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (413, "rows")


def test_clients_that_never_finish_a_head_are_hung_up_on(narrow: Server) -> None:
    for begun in (b"", b"POST /predict HT", b"POST /predict HTTP/1.1\r\nHost: x\r\n"):
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=20) as one:
            one.sendall(begun)
            assert one.recv(100) == b""


def test_slow_clients_are_told_and_keep_nobody_waiting(narrow: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", narrow.port)) for _ in range(20)]
    for one in slow:
        one.sendall(head)
    begun = time.monotonic()
    assert narrow.post("/predict", {"features": GOOD}, headers=ALLOWED).status_code == 200
    assert time.monotonic() - begun < 20, "twenty times the two seconds of those that do not send are forty"
    for one in slow:
        one.settimeout(10)
        assert b" 408 " in one.recv(65536).split(b"\r\n")[0]
        one.close()
    assert narrow.alive
