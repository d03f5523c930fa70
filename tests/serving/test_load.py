"""The clients of the benchmarks see what there is, and a switch is judged by what they saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shops import GOOD, Server

from benchmarks.load import Seen, request, steadily, together
from benchmarks.process import Process
from benchmarks.switch_traffic import judged


def message(number: int) -> bytes:
    return request("/predict", json.dumps({"features": GOOD, "request_id": f"load{number}"}).encode())


def test_everything_that_many_clients_ask_is_answered_and_recorded(gateway: Server) -> None:
    seen = together(gateway.port, message, clients=8, seconds=1)
    assert {one.status for one in seen} == {200}
    asked = {json.loads(one.body)["request_id"] for one in seen}
    assert len(asked) == len(seen)
    gateway.wait(lambda: asked <= set(gateway.shop.logged().request_ids), "some of them were not recorded")


def test_requests_at_even_steps_wait_for_nobody(gateway: Server) -> None:
    seen = steadily(gateway.port, message, rate=50, requests=25)
    assert [one.status for one in seen] == [200] * 25
    begun = [one.sent for one in seen]
    assert begun == sorted(begun)
    assert begun[-1] - begun[0] >= 24 / 50 - 0.05


def test_a_refusal_is_seen_as_one(gateway: Server) -> None:
    (seen,) = steadily(gateway.port, lambda _: request("/predict", b"{"), rate=1, requests=1)
    assert (seen.status, json.loads(seen.body)["problems"][0]["field"]) == (400, "body")


def test_what_a_process_and_its_children_cost_is_counted(gateway: Server) -> None:
    assert gateway.process is not None
    process = Process(gateway.process.pid, gateway.port, Path())
    before = process.cpu()
    together(gateway.port, message, clients=4, seconds=0.5)
    assert before < process.cpu() < before + 60
    assert process.metric("backstop_requests_total", version="1") > 0


BAD = b'{"error":"version 3 of loan failed to answer 1 row(s): features"}'


def test_a_bad_version_is_felt_until_the_first_good_answer_after_it_and_its_errors_are_its_own() -> None:
    seen = [Seen(0.0, 0.1, 200, b""), Seen(1.0, 0.5, 500, BAD), Seen(1.2, 0.1, 200, b""), Seen(7.0, 0.1, 500, BAD)]
    seen += [Seen(7.05, 0.2, 200, b""), Seen(8.0, 0.1, 200, b"")]
    found = judged(seen, "3")
    assert found.felt == pytest.approx(7.25 - 1.5)
    assert (found.lost, found.bad, found.asked) == (0, 2, 6)
    for status, text in ((500, b'{"error":"the gateway failed"}'), (503, b""), (0, b"reset")):
        assert judged([*seen, Seen(9.0, 0.1, status, text)], "3").lost == 1
