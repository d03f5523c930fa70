"""Weights on an InferenceService: only what the ledger says, to versions that are there and ready, and read back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import TOKEN, Cluster, cluster

from tasks.kserve import KserveRouter
from tasks.policy import Kserve
from tasks.records import Arm
from tasks.routers import Routing

ONE, TWO = (Arm("1", 100),), (Arm("2", 100),)


def both(percent: int) -> tuple[Arm, ...]:
    return (Arm("1", 100 - percent), Arm("2", percent))


@pytest.fixture
def api() -> Iterator[Cluster]:
    """Version 2 is deployed beside version 1, and gets nothing."""
    with cluster() as one:
        one.deploy("2", beside="1")
        yield one


def router(api: Cluster | str, **rules: Any) -> KserveRouter:
    url = api if isinstance(api, str) else api.url
    given = {"service": "churn", "namespace": "models", "url": url, "token": "${KUBE_TOKEN}", "timeout": "6s"}
    return KserveRouter(Kserve(**given | rules), environment={"KUBE_TOKEN": TOKEN})


def route(api: Cluster | str, arms: tuple[Arm, ...], *, dry_run: bool = False, **rules: Any) -> Routing:
    return router(api, **rules).route(arms, dry_run=dry_run)


def refused(api: Cluster | str, arms: tuple[Arm, ...] = both(25), **rules: Any) -> str:
    found = route(api, arms, **rules)
    assert not found.settled
    return found.reason


def test_weights_follow_the_ledger_and_are_read_back(api: Cluster) -> None:
    for arms, percent in ((both(5), 5), (both(50), 50), (TWO, 100), (ONE, 0)):
        found = route(api, arms)
        assert (found.settled, api.percent) == (True, percent), found.reason
    assert found.reason == "the InferenceService models/churn has version 1: 100%"


def test_the_same_again_changes_nothing(api: Cluster) -> None:
    assert route(api, both(5)).settled
    assert route(api, both(5)).settled
    assert len(api.patches) == 1
    assert set(api.patches[0]["spec"]) == {"predictor"}, "nothing else of the service is touched"
    assert set(api.patches[0]["spec"]["predictor"]) == {"canaryTrafficPercent"}


def test_what_somebody_changed_is_put_back(api: Cluster) -> None:
    assert route(api, both(5)).settled
    api.change({"spec": {"predictor": {"canaryTrafficPercent": 80}}})
    assert route(api, both(5)).settled
    assert api.percent == 5


def test_a_dry_run_only_looks(api: Cluster) -> None:
    assert "asks for 0% where the ledger says 25%" in refused(api, dry_run=True)
    assert api.patches == []


def test_a_version_that_the_ledger_does_not_know_gets_nothing(api: Cluster) -> None:
    """Version 2 was deployed at 40 % on somebody's own account; the ledger has version 1 only."""
    api.change({"spec": {"predictor": {"canaryTrafficPercent": 40}}})
    assert route(api, ONE).settled
    assert api.percent == 0


def test_a_service_that_names_no_versions_is_left_alone(api: Cluster) -> None:
    del api.object["metadata"]["annotations"]
    assert "has no annotation backstop/version" in refused(api)
    assert api.patches == []


@pytest.mark.parametrize(
    ("version", "baseline"),
    [("3", "1"), ("2", "0"), ("2", "")],
    ids=["another canary", "another before", "none before"],
)
def test_other_versions_than_those_that_are_to_answer_get_nothing_new(
    api: Cluster, version: str, baseline: str
) -> None:
    api.annotate(version=version, baseline=baseline)
    told = refused(api)
    assert "the ledger's split cannot be made: version 1 75%, version 2 25%" in told
    assert api.patches == []


def test_a_revision_that_is_not_ready_gets_nothing_more_and_may_get_less(api: Cluster) -> None:
    assert route(api, both(25)).settled
    api.ready = False
    api.reconcile()
    assert "is not ready" in refused(api, both(50))
    assert api.percent == 25
    route(api, ONE)
    assert api.percent == 0


def test_a_controller_that_does_not_carry_it_out_is_not_believed(api: Cluster) -> None:
    api.reconciles = False
    told = refused(api)
    assert "is asked for 25% and has not carried it out: the newest revision has 0% now" in told
    assert api.percent == 25
    api.reconcile()
    assert route(api, both(25)).settled
    assert len(api.patches) == 1


def test_a_change_in_between_is_looked_at_again_and_not_overwritten(api: Cluster) -> None:
    """Somebody deploys version 3 between the look and the patch: the 25 % were meant for version 2."""
    api.intruder = [lambda: api.deploy("3", beside="1")]
    assert "the newest revision is version 3" in refused(api)
    assert (api.percent, api.patches) == (0, [])
    api.deploy("2", beside="1")
    api.intruder = [lambda: api.change({"spec": {"predictor": {"minReplicas": 2}}})]
    assert route(api, both(25)).settled
    assert (
        api.object["spec"]["predictor"] | {"minReplicas": 2, "canaryTrafficPercent": 25}
        == (api.object["spec"]["predictor"])
    )


def test_whoever_is_changed_again_and_again_waits_for_the_next_tick(api: Cluster) -> None:
    replicas = iter(range(1, 10))
    api.intruder = [lambda: api.change({"spec": {"predictor": {"minReplicas": next(replicas)}}})] * 9
    assert "was changed by somebody else 3 times" in refused(api)
    assert api.patches == []


@pytest.mark.parametrize(
    ("method", "status", "word"),
    [
        ("GET", 500, "answers 500: the server is currently unable"),
        ("GET", 503, "answers 503"),
        ("PATCH", 500, "answers 500"),
        ("PATCH", 403, "let the service account get and patch inferenceservices"),
        ("PATCH", 422, "answers 422"),
    ],
)
def test_an_error_of_the_api_is_told_and_changes_nothing(api: Cluster, method: str, status: int, word: str) -> None:
    api.failing[method] = status
    assert word in refused(api)
    assert api.percent == 0


def test_a_wrong_token_a_wrong_name_and_no_server_are_told_with_the_remedy(api: Cluster) -> None:
    wrong = KserveRouter(router(api).rules, environment={"KUBE_TOKEN": "guess"}).route(both(25))
    assert "answers 401: Unauthorized; see rollout.router.kserve.token" in wrong.reason
    assert "answers 404" in refused(api, service="other")
    assert "does not answer" in refused("http://127.0.0.1:1")
    told = KserveRouter(router(api).rules, environment={}).route(ONE)
    assert (told.settled, "KUBE_TOKEN is not set" in told.reason) == (False, True)


def test_a_slow_api_costs_the_deadline_and_no_more(api: Cluster) -> None:
    api.delay = 120
    begun = time.monotonic()
    assert "no whole answer within" in refused(api, timeout="0.5s")
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("content", [{}, {"spec": []}, {"spec": {"predictor": 3}}, {"items": []}])
def test_what_is_no_inference_service_is_told(api: Cluster, content: dict[str, Any]) -> None:
    api.object = content
    assert "which is no InferenceService" in refused(api)


def test_a_status_without_sense_is_no_confirmation(api: Cluster) -> None:
    for status in ({}, {"observedGeneration": "many"}, {"observedGeneration": 9, "components": {"predictor": []}}):
        api.object["status"] = status
        assert not route(api, ONE).settled


def test_the_token_of_the_pod_is_read_anew_every_time(api: Cluster, tmp_path: Path) -> None:
    rules = Kserve(service="churn", namespace="models", url=api.url)
    one = KserveRouter(rules, environment={}, account=tmp_path)
    (tmp_path / "token").write_text("of yesterday", "utf-8")
    assert "answers 401" in one.route(both(5)).reason
    (tmp_path / "token").write_text(f"{TOKEN}\n", "utf-8")
    assert one.route(both(5)).settled
