"""Health from Prometheus: counts where there are counts, and otherwise "unknown" with the reason, never a zero."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scraping import Answer, Oracle, matrix, oracle, vector

from tasks.decide.health import judge
from tasks.health_sources import RequestLogSource
from tasks.policy import Health, Prometheus
from tasks.records import HealthEvidence
from tasks.requests import Label, RequestLog, Served
from tasks.scraped import ScrapedSource

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GATEWAY = {"job": "gateway", "instance": "a:1"}
OTHER = {"job": "gateway", "instance": "b:1"}
Samples = list[tuple[float, object]]


@pytest.fixture
def server() -> Iterator[Oracle]:
    with oracle() as one:
        yield one


def every(seconds: float, counts: list[Any], *, start: float = 0.0) -> Samples:
    """Samples at even steps from so many seconds after T0 on."""
    return [(T0.timestamp() + start + number * seconds, count) for number, count in enumerate(counts)]


def counted(per_scrape: float, *, seconds: float = 15, minutes: float = 10) -> Samples:
    """A counter that rises evenly, from 60 seconds before T0 on."""
    steps = int((minutes + 1) * 60 / seconds) + 1
    return every(seconds, [int(per_scrape * number) for number in range(steps)], start=-60)


def up(samples: Samples, value: int = 1) -> Samples:
    return [(at, value) for at, _ in samples]


def healthy(server: Oracle, *targets: dict[str, str], minutes: float = 10) -> None:
    """Ten requests every scrape, none bad."""
    requests = counted(10, minutes=minutes)
    named = targets or (GATEWAY,)
    server.answers = {
        "backstop_requests_total": matrix(*((one, requests) for one in named)),
        "backstop_request_errors_total": matrix(*((one, counted(0, minutes=minutes)) for one in named)),
        "backstop_request_seconds_bucket": matrix(
            *(({**one, "le": edge}, requests) for one in named for edge in ("1.0", "+Inf"))
        ),
        "up": matrix(*((one, up(requests)) for one in named)),
    }


def asked(server: Oracle | str, minutes: float = 10, *, log: Path | None = None, **rules: Any) -> HealthEvidence:
    """The evidence as of so many minutes after T0."""
    section = {"settle": "0.001s", "timeout": "30s", **rules.pop("prometheus", {})}
    url = server if isinstance(server, str) else server.url
    health = Health(**{"accuracy": None, "prometheus": Prometheus(url=url, **section), **rules})
    assert health.prometheus is not None
    labels = RequestLogSource(f"sqlite:///{log or '/dev/null/nowhere'}")
    now = T0 + minutes * MINUTE
    source = ScrapedSource(health.prometheus, labels)
    return source.evidence("churn", "2", started=T0, now=now, health=health, problem="binary")


def unavailable(*given: Any, **rules: Any) -> str:
    found = asked(*given, **rules)
    assert found.unavailable is not None
    assert found.looks == ()
    verdict = judge(found, Health(), problem="binary", planned_looks=10)
    assert verdict.decision == "unknown"
    assert "could not be read" in verdict.reason
    return found.unavailable


# Counts.


def test_requests_errors_and_slow_answers_are_whole_numbers_by_look(server: Oracle) -> None:
    healthy(server)
    errors = every(15, [0] * 10 + [3] + [7] * 33, start=-60)
    quick = every(15, [10 * number - min(number, 5) for number in range(45)], start=-60)
    server.answers["backstop_request_errors_total"] = matrix((GATEWAY, errors))
    server.answers["backstop_request_seconds_bucket"] = matrix(
        ({**GATEWAY, "le": "1"}, quick), ({**GATEWAY, "le": "+Inf"}, counted(10))
    )
    found = asked(server)
    assert (found.unavailable, found.partial) == (None, None)
    assert [look.requests for look in found.looks] == [40] * 10
    assert [look.errors for look in found.looks] == [0, 7, *[0] * 8]
    assert [look.slow for look in found.looks] == [2, *[0] * 9]
    assert found.looks[3].start == T0 + 3 * MINUTE
    assert found.last_request == T0 + 10 * MINUTE


def test_the_queries_select_one_version_in_one_role_and_the_edge_of_the_limit(server: Oracle) -> None:
    healthy(server)
    asked(server)
    queries = [query for query, _ in server.queries]
    labels = 'model="churn",version="2",role="production"'
    assert queries[0] == f"backstop_requests_total{{{labels}}}[1500s]"
    assert queries[1] == 'up{job="gateway",instance=~"a:1"}[1500s]'
    assert queries[2] == f"backstop_request_errors_total{{{labels}}}[1500s]"
    assert queries[3].startswith(f'backstop_request_seconds_bucket{{{labels},le=~"')
    assert len(queries) == 4


def test_a_canary_is_asked_for_in_its_role(server: Oracle) -> None:
    rules = Prometheus(url=server.url)
    shared = {"started": T0, "now": T0 + MINUTE, "health": Health(accuracy=None), "problem": "binary"}
    ScrapedSource(rules, RequestLogSource("sqlite://")).evidence("churn", "3", role="canary", **shared)  # type: ignore[arg-type]
    assert server.queries[0][0].startswith('backstop_requests_total{model="churn",version="3",role="canary"}[')


def test_processes_are_added_up_and_one_that_restarted_counts_from_zero(server: Oracle) -> None:
    healthy(server, GATEWAY, OTHER)
    restarted = every(15, [*(1000 + 10 * number for number in range(8)), *(10 * n for n in range(1, 38))], start=-60)
    server.answers["backstop_requests_total"] = matrix((GATEWAY, counted(10)), (OTHER, restarted))
    assert [look.requests for look in asked(server).looks] == [80] * 10


def test_the_same_moment_is_counted_the_same_whoever_asks_when(server: Oracle) -> None:
    healthy(server)
    late = asked(server).looks

    def until(minutes: float) -> tuple[Any, ...]:
        edge = (T0 + minutes * MINUTE).timestamp()
        for name, answer in server.answers.items():
            assert isinstance(answer, dict)
            for one in answer["data"]["result"]:
                one["values"] = [pair for pair in one["values"] if pair[0] <= edge]
            server.answers[name] = answer
        return asked(server, minutes).looks

    for minutes in (8.5, 5, 1.01):
        early = until(minutes)
        assert early == late[: len(early)]


def test_a_request_that_is_in_one_counter_before_it_is_in_the_other_is_no_contradiction(server: Oracle) -> None:
    healthy(server)
    requests = every(15, [5] * 9 + [6] * 36, start=-60)  # the request is seen a scrape after its error
    errors = every(15, [0] * 7 + [1] * 38, start=-60)
    server.answers["backstop_requests_total"] = matrix((GATEWAY, requests))
    server.answers["backstop_request_errors_total"] = matrix((GATEWAY, errors))
    server.answers["backstop_request_seconds_bucket"] = matrix(
        *(({**GATEWAY, "le": edge}, requests) for edge in ("1.0", "+Inf"))
    )
    found = asked(server)
    assert [(look.requests, look.errors) for look in found.looks[:3]] == [(0, 0), (1, 1), (0, 0)]


def test_more_errors_than_requests_are_two_selectors_that_do_not_fit(server: Oracle) -> None:
    healthy(server)
    server.answers["backstop_request_errors_total"] = matrix((GATEWAY, counted(30)))
    assert "do not select the same answers" in unavailable(server)


def test_labels_come_from_the_request_log(server: Oracle, tmp_path: Path) -> None:
    healthy(server)
    log = tmp_path / "requests.db"
    with RequestLog.open(f"sqlite:///{log}") as one:
        at = [T0 + timedelta(seconds=1.5 * number) for number in range(400)]
        served = {"model": "churn", "version": "2", "seconds": 0.1, "features": {}, "prediction": "yes"}
        one.record(Served(request_id=str(number), at=moment, **served) for number, moment in enumerate(at))  # type: ignore[arg-type]
        labels = (("no" if n % 4 else "yes", n) for n in range(200))
        one.label(Label(request_id=str(n), model="churn", label=said, at=at[n]) for said, n in labels)
    found = asked(server, log=log, accuracy=0.8)
    assert found.partial is None
    assert sum(look.labelled for look in found.looks) == 200
    assert sum(look.wrong for look in found.looks) == 150
    assert judge(found, Health(), problem="binary", planned_looks=10).decision == "unhealthy"


def test_without_the_request_log_errors_count_and_nothing_is_healthy(server: Oracle) -> None:
    healthy(server)
    found = asked(server, accuracy=0.8)
    assert found.partial is not None
    assert "labels: the request log could not be read" in found.partial
    verdict = judge(found, Health(), problem="binary", planned_looks=10)
    assert (verdict.decision, "not all is seen" in verdict.reason) == ("unknown", True)
    server.answers["backstop_request_errors_total"] = matrix((GATEWAY, counted(5)))
    assert judge(asked(server, accuracy=0.8), Health(), problem="binary", planned_looks=10).decision == "unhealthy"


# No evidence.


def test_a_server_that_is_away_is_unknown() -> None:
    assert "does not answer" in unavailable("http://127.0.0.1:1")


@pytest.mark.parametrize("delay", [0.2, 90.0])
def test_a_server_that_is_slow_costs_its_deadline_and_is_unknown(server: Oracle, delay: float) -> None:
    healthy(server)
    server.delay = delay
    begun = time.monotonic()
    assert "no whole answer within" in unavailable(server, prometheus={"timeout": "0.5s"})
    assert time.monotonic() - begun < 45


def test_nothing_found_is_no_zero(server: Oracle) -> None:
    server.answers = {}
    assert "has no series backstop_requests_total{" in unavailable(server)


def test_a_version_that_has_just_come_may_not_have_been_scraped(server: Oracle) -> None:
    server.answers = {}
    found = asked(server, 2)
    assert (found.unavailable, [look.requests for look in found.looks]) == (None, [0, 0])
    assert judge(found, Health(), problem="binary", planned_looks=10).decision == "unknown"


@pytest.mark.parametrize("name", ["errors", "seconds"])
def test_requests_without_a_counter_of_the_bad_ones_are_unknown(server: Oracle, name: str) -> None:
    healthy(server)
    del server.answers[{"errors": "backstop_request_errors_total", "seconds": "backstop_request_seconds_bucket"}[name]]
    assert f"no series for health.prometheus.{name}" in unavailable(server)


def test_one_process_without_that_counter_keeps_it_from_being_healthy(server: Oracle) -> None:
    healthy(server, GATEWAY, OTHER)
    server.answers["backstop_request_errors_total"] = matrix((GATEWAY, counted(0)))
    found = asked(server)
    assert found.partial == "b:1 has no series for health.prometheus.errors"
    assert judge(found, Health(), problem="binary", planned_looks=10).decision == "unknown"


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-3", "2.5", "", "many", None])
def test_a_sample_that_is_no_count_is_unknown(server: Oracle, value: object) -> None:
    healthy(server)
    bad = counted(10)
    bad[20] = (bad[20][0], value)
    server.answers["backstop_requests_total"] = matrix((GATEWAY, bad))
    unavailable(server)


GARBAGE: list[Answer] = [
    b"",
    b"<html>",
    b"[]",
    b"null",
    b'{"status": "success"}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": null}}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": [1]}}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}}]}}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [1]}]}}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": 3}]}}',
    b'{"status": "success", "data": {"resultType": "vector", "result": []}}',
    b"[" * 100_000,
    {"status": "error", "errorType": "bad_data", "error": "parse error"},
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
def test_an_answer_that_is_none_is_unknown(server: Oracle, answer: Answer) -> None:
    server.answers = {"": answer}
    unavailable(server)


def test_a_part_of_an_answer_is_no_answer(server: Oracle) -> None:
    """As a proxy of several stores gives it when one of them is away: the counts look right, and are too small."""
    healthy(server)
    some = server.answers["backstop_requests_total"]
    assert isinstance(some, dict)
    server.answers["backstop_requests_total"] = {**some, "warnings": ["a store is away"]}
    assert "answers with a part only: a store is away" in unavailable(server)


def test_an_error_of_http_is_told(server: Oracle) -> None:
    healthy(server)
    server.status = 503
    unavailable(server)
    server.status = 401
    assert "see the name, password or token" in unavailable(server)


def test_a_variable_that_is_not_set_is_told_by_its_name() -> None:
    assert "NO_SUCH_PROMETHEUS is not set" in unavailable("${NO_SUCH_PROMETHEUS}")


def test_no_secret_is_in_what_is_told(server: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_PASSWORD", "hunter2")
    url = server.url.replace("http://", "http://ada:${PROMETHEUS_PASSWORD}@")
    server.status = 500
    told = unavailable(url)
    assert "hunter2" not in told
    assert server.queries[0][1]["Authorization"].startswith("Basic ")
    monkeypatch.setenv("PROMETHEUS_TOKEN", "hunter3")
    assert "hunter3" not in unavailable(server, prometheus={"token": "${PROMETHEUS_TOKEN}"})
    assert server.queries[-1][1]["Authorization"] == "Bearer hunter3"


# Scrapes that stopped.


def test_a_scrape_that_stopped_is_unknown_and_says_since_when(server: Oracle) -> None:
    healthy(server, minutes=5)
    found = asked(server, 10)
    assert found.unavailable is not None
    assert "has seen nothing since 2026-03-01 12:05:00 UTC" in found.unavailable
    assert found.last_request == T0 + 5 * MINUTE


def test_a_process_that_cannot_be_scraped_is_unknown(server: Oracle) -> None:
    healthy(server, minutes=9)
    alive = counted(10, minutes=9)
    server.answers["up"] = matrix((GATEWAY, [*up(alive), *every(15, [0] * 4, start=9.25 * 60)]))
    found = asked(server, 10)
    assert found.unavailable is not None
    assert "a:1 cannot be scraped since 12:09:00 UTC" in found.unavailable


def test_one_of_two_that_cannot_be_scraped_hides_no_alarm_and_lets_nothing_be_healthy(server: Oracle) -> None:
    healthy(server, GATEWAY, OTHER)
    alive, short = counted(10), counted(10, minutes=9)
    down = [*up(short), *every(15, [0] * 4, start=9.25 * 60)]
    server.answers["backstop_requests_total"] = matrix((GATEWAY, alive), (OTHER, short))
    server.answers["up"] = matrix((GATEWAY, up(alive)), (OTHER, down))
    found = asked(server)
    assert found.partial == "b:1 cannot be scraped since 12:09:00 UTC"
    assert judge(found, Health(), problem="binary", planned_looks=10).decision == "unknown"
    server.answers["backstop_request_errors_total"] = matrix((GATEWAY, counted(5)), (OTHER, counted(0, minutes=9)))
    assert judge(asked(server), Health(), problem="binary", planned_looks=10).decision == "unhealthy"


def test_a_process_that_is_not_there_any_more_is_no_gap(server: Oracle) -> None:
    healthy(server, GATEWAY, OTHER)
    short = counted(10, minutes=4)
    server.answers["backstop_requests_total"] = matrix((GATEWAY, counted(10)), (OTHER, short))
    server.answers["up"] = matrix((GATEWAY, up(counted(10))), (OTHER, up(short)))
    found = asked(server)
    assert (found.unavailable, found.partial) == (None, None)
    assert [look.requests for look in found.looks] == [80] * 4 + [50] + [40] * 5, "its last sample is one"


# Counted twice, and buckets.


@pytest.mark.parametrize("label", ["job", "prometheus_replica"])
def test_one_process_under_two_names_would_count_twice_and_is_refused(server: Oracle, label: str) -> None:
    healthy(server, {**GATEWAY, label: "one"}, {**GATEWAY, label: "two"})
    assert f"two values of {label}, 'one' and 'two'" in unavailable(server)


def test_several_series_of_one_process_are_added_up(server: Oracle) -> None:
    healthy(server)
    codes = [({**GATEWAY, "code": code}, counted(5)) for code in ("200", "500")]
    server.answers["backstop_requests_total"] = matrix(*codes)
    assert [look.requests for look in asked(server).looks] == [40] * 10


def test_a_limit_between_two_edges_is_refused_with_the_edges(server: Oracle) -> None:
    healthy(server)
    server.answers["backstop_request_seconds_bucket"] = matrix(({**GATEWAY, "le": "+Inf"}, counted(10)))
    server.answers["group by"] = vector({"le": "0.5"}, {"le": "1.0"}, {"le": "+Inf"}, {"le": "0.25"})
    told = unavailable(server, latency_p95="300ms")
    assert "health.latency_p95 of 0.3 s is no edge of the buckets, which are at 0.25, 0.5, 1" in told


def test_without_a_latency_limit_no_buckets_are_needed(server: Oracle) -> None:
    healthy(server)
    del server.answers["backstop_request_seconds_bucket"]
    assert asked(server, latency_p95=None).unavailable is None
