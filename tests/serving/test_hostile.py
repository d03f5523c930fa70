"""Clients that mean harm: each is told what is wrong, the others are answered; the process neither dies nor grows."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from shops import GOOD, Server, Shop, serving

WRONG: dict[str, Any] = {name: [] for name in GOOD}
HEAD = b"Host: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def patient(shop_template: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The usual limits, but two seconds of patience."""
    home = tmp_path_factory.mktemp("hostile") / "home"
    with serving(shop_template.copy(home), "--body-seconds", "2") as server:
        yield server


def problems(answer: httpx.Response) -> list[str]:
    return [one["field"] for one in answer.json()["problems"]]


def fine(server: Server) -> None:
    """Whoever asks as one should is answered, by the process that was started."""
    assert server.alive
    assert server.post("/predict", {"features": GOOD}).status_code == 200


def raw(server: Server, sent: bytes, seconds: float = 10) -> bytes:
    """What comes back, until the server hangs up or has nothing more to say."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as one:
        one.sendall(sent)
        said = b""
        while b"\r\n\r\n" not in said and (more := one.recv(65536)):
            said += more
        return said


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


# What is in a body.


@pytest.mark.parametrize("number", ["3.5e38", "-1e300", "1e308", "1" + "0" * 40])
def test_a_number_too_large_for_some_models_is_the_clients_and_no_error_of_the_version(
    patient: Server, number: str
) -> None:
    """Otherwise a client could have a healthy version rolled back: trees fail on what single precision cannot hold."""
    before = patient.metric("backstop_request_errors_total")
    body = json.dumps({"features": GOOD}).replace("70.5", number).encode()
    answer = patient.post("/predict", body)
    assert (answer.status_code, problems(answer)) == (422, ["features.monthly_charges"])
    assert "at most 3.4e+38" in answer.text
    assert patient.metric("backstop_request_errors_total") == before


@pytest.mark.parametrize("levels", [10, 900, 1000, 1020, 5000, 100_000])
@pytest.mark.parametrize("place", ["monthly_charges", "contract"])
def test_nesting_in_a_value_is_named_however_deep(patient: Server, place: str, levels: int) -> None:
    body = json.dumps({"features": {**GOOD, place: "here"}}).replace('"here"', deep(levels)).encode()
    answer = patient.post("/predict", body)
    assert (answer.status_code, problems(answer)) in [(422, [f"features.{place}"]), (400, ["body"])]


@pytest.mark.parametrize("levels", [10, 1000, 5000])
@pytest.mark.parametrize("field", ["request_id", "label", "at", "model", "labels"])
def test_nesting_in_feedback_is_named_however_deep(patient: Server, field: str, levels: int) -> None:
    body = json.dumps({"request_id": "a", "label": "yes", field: "here"}).replace('"here"', deep(levels)).encode()
    answer = patient.post("/feedback", body)
    assert answer.status_code in {400, 422}
    assert problems(answer)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1", "utf-8-sig", "shift-jis", "utf-7"])
def test_another_encoding_than_utf_8_is_told(patient: Server, encoding: str) -> None:
    body = '{"features": {"contract": "one yeär", "x": "日本"}}'.encode(encoding, "replace")
    answer = patient.post("/predict", body)
    assert answer.status_code in {400, 422}
    assert problems(answer)


def test_surrogates_and_control_characters_do_no_harm(patient: Server) -> None:
    for text in (r"\ud800", r"\udfff\ud800", r"\u0000", r"\u202e", "\x7f", "\U0010ffff"):
        for body in ('{"features": {"contract": "here"}}', '{"here": 1}', '{"features": {"here": 1}, "key": "here"}'):
            answer = patient.post("/predict", body.replace("here", text).encode("utf-8", "surrogatepass"))
            assert answer.status_code in {400, 422}, (text, body, answer.text)
            assert problems(answer)


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [' + b"{}," * 999_999 + b"{}]}",
        b'{"inputs": {"tenure_months": [' + b"0," * 999_999 + b"0]}}",
        b'{"dataframe_split": {"columns": ["a"], "data": [' + b"0," * 999_999 + b"0]}}",
        b'{"labels": [' + b"0," * 999_999 + b"0]}",
    ],
    ids=["rows", "inputs", "split", "labels"],
)
def test_a_million_rows_are_too_many(patient: Server, body: bytes) -> None:
    answer = patient.post("/feedback" if body.startswith(b'{"labels') else "/predict", body)
    assert answer.status_code == 413
    assert problems(answer)


def test_the_widest_and_the_wrongest_body_gets_a_short_answer(patient: Server) -> None:
    wide = {"features": {**GOOD, **{f"column {number}": 1 for number in range(100_000)}}}
    wrong = {"rows": [{"features": WRONG}] * 1000}
    long = {"features": {**GOOD, "contract": "x" * 1_000_000, "y" * 1_000_000: 1}}
    for body in (wide, wrong, long):
        answer = patient.post("/predict", body)
        assert answer.status_code == 422
        assert len(answer.content) < 20_000
        assert 0 < len(problems(answer)) <= 20


def test_feedback_for_nobody_is_taken_counted_and_harms_nobody(patient: Server) -> None:
    before = patient.metric("backstop_unmatched_labels_total")
    labels = [{"request_id": f"nobody {number}", "label": "yes"} for number in range(1000)]
    assert patient.post("/feedback", {"labels": labels}).status_code == 202
    patient.wait(lambda: patient.metric("backstop_unmatched_labels_total") == before + 1000, "they were not counted")


# How it comes.


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\n" + HEAD + b"Content-Length: many\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /predict HTTP/9.9\r\n" + HEAD + b"\r\n",
        b"POST /predict HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"\r\n\r\n\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    ],
    ids=["below zero", "no number", "two lengths", "no chunk", "version", "long header", "TLS", "nothing", "long path"],
)
def test_what_is_no_request_of_http_is_refused_or_hung_up_on(patient: Server, head: bytes) -> None:
    said = raw(patient, head)
    assert said == b"" or said.startswith(b"HTTP/1.1 4"), said[:200]
    fine(patient)


def whole(connection: socket.socket) -> bytes:
    """An answer with its body, which may come in pieces."""
    said = b""
    while not said.endswith(b"}"):
        said += connection.recv(65536)
    return said


def test_the_head_of_a_second_request_has_to_come_in_time_too(patient: Server) -> None:
    """One honest request, and then a byte now and then: some hundred of these would keep everybody else out."""
    body = json.dumps({"features": GOOD}).encode()
    first = b"POST /predict HTTP/1.1\r\n" + HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", patient.port), timeout=30) as one:
        for _ in range(2):
            one.sendall(first)
            assert whole(one).startswith(b"HTTP/1.1 200")
        one.settimeout(1)
        begun = time.monotonic()
        end = b"?"
        while end and time.monotonic() - begun < 20:
            try:
                one.sendall(b"P")
                end = one.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                end = b""
        assert end == b"", "it is hung up on"
        assert time.monotonic() - begun > 1
    fine(patient)


def test_a_connection_that_waits_between_two_requests_is_kept(patient: Server) -> None:
    with httpx.Client(base_url=patient.url) as client:
        for _ in range(2):
            assert client.post("/predict", json={"features": GOOD}).status_code == 200
            time.sleep(2.5)


def test_a_body_that_drips_is_told_and_hung_up_on(patient: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", patient.port), timeout=10) as one:
        one.sendall(head)
        begun, said = time.monotonic(), b""
        one.settimeout(0.3)
        while not said and time.monotonic() - begun < 20:
            try:
                one.sendall(b" ")
                said = one.recv(65536)
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408")
    fine(patient)


def test_hundreds_of_connections_that_say_nothing_keep_nobody_out(patient: Server) -> None:
    silent = [socket.create_connection(("127.0.0.1", patient.port)) for _ in range(400)]
    try:
        fine(patient)
        time.sleep(2.5)
        for one in silent:
            one.settimeout(5)
            assert one.recv(10) == b""
    finally:
        for one in silent:
            one.close()


def test_clients_that_hang_up_in_the_middle_do_no_harm(patient: Server) -> None:
    body = json.dumps({"rows": [{"features": GOOD}] * 500}).encode()
    head = b"POST /predict HTTP/1.1\r\n" + HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode()
    for sent in (head + body[:1000], head + body):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", patient.port)) as one:
                one.sendall(sent)
    fine(patient)


# Memory.


@pytest.mark.slow
def test_harm_leaves_no_memory_behind(patient: Server) -> None:
    """Hundreds of megabytes and thousands of bad bodies; what the second half costs would go on for ever."""
    bad: list[Any] = [b"[" * 100_000, {"rows": [{"features": WRONG}] * 1000}, b'{"features": "\xff"}']
    bad += [{"features": {f"c{number}": number for number in range(2000)}}, {"instances": [GOOD] * 1001}]

    def harm(times: int) -> float:
        with httpx.Client(base_url=patient.url, headers={"Content-Type": "application/json"}, timeout=30) as client:
            assert client.post("/predict", content=b" " * 50_000_000).status_code == 413
            for number in range(times):
                body = bad[number % len(bad)]
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                assert 400 <= client.post("/predict", content=content).status_code < 500
        return patient.metric("process_resident_memory_bytes")

    harm(50)
    before = harm(50)
    assert harm(100) < before + 15e6
    fine(patient)
