"""The gateway gives a canary the share that the ledger says, and no other version gets any of it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shops import GOOD, Shop, serving

from serving.follower import Follower
from serving.metrics import Metrics
from serving.settings import Settings
from tasks.policy_file import load as load_policy
from tasks.records import Rollout


def weigh(shop: Shop, weight: int, state: str = "running") -> None:
    """The next row about the rollout of version 2 beside version 1."""
    with shop.case().ledger as ledger:
        last, now = ledger.rollout("churn"), datetime.now(UTC)
        began = last.started if last else now
        told = {"reason": "a test", "actor": "a test", "trail": "t", "started": began, "at": now, "state": state}
        row = Rollout(id=0, model="churn", version="2", baseline="1", weight=weight, **told)  # type: ignore[arg-type]
        ledger.weigh(row, after=last)


@pytest.fixture
def staged(shop: Shop) -> Shop:
    """Version 1 serves, version 2 is in Staging with a quarter of the requests."""
    shop.move("stage", "2")
    weigh(shop, 25)
    return shop


def follower(shop: Shop) -> Follower:
    return Follower(load_policy(shop.policy), shop.stores, Settings(poll_seconds=10), Metrics())


def shares(one: Follower) -> dict[str, float]:
    lineup = one.desk.lineup
    return {arm.version: arm.weight for arm in lineup.arms} if lineup else {}


def test_who_was_on_the_canary_stays_on_it_when_it_gets_more(staged: Shop) -> None:
    one = follower(staged)
    one.look()
    assert shares(one) == {"1": 75, "2": 25}
    assert one.reasons == {}
    keys = [f"customer {number}" for number in range(2000)]
    assert one.desk.lineup is not None
    few = {key for key in keys if one.desk.lineup.pick(key).version == "2"}
    assert 400 < len(few) < 600
    weigh(staged, 50)
    one.look()
    more = {key for key in keys if one.desk.lineup.pick(key).version == "2"}
    assert few < more
    assert 900 < len(more) < 1100


@pytest.mark.parametrize("end", ["aborted", "ended"])
def test_an_end_takes_all_of_its_share_with_the_next_look(staged: Shop, end: str) -> None:
    one = follower(staged)
    one.look()
    weigh(staged, 0, end)
    one._loader.load = None  # type: ignore[assignment, method-assign]
    one.look()
    assert shares(one) == {"1": 100}


def test_a_canary_that_is_promoted_goes_on_without_any_store(staged: Shop) -> None:
    one = follower(staged)
    one.look()
    staged.move("promote", "2")
    one._loader.load = None  # type: ignore[assignment, method-assign]
    one.look()
    assert shares(one) == {"2": 100}
    staged.move("rollback", "1")
    one.look()
    assert shares(one) == {"1": 100}, "and so does the way back"


def test_a_canary_that_cannot_be_verified_gets_nothing_and_production_everything(staged: Shop) -> None:
    shutil.rmtree(staged.stores.home / "serving" / "churn" / "2")
    spoil(staged.artifact("2"))
    one = follower(staged)
    one.look()
    assert shares(one) == {"1": 100}
    assert "version 2 is refused (swapped)" in one.reasons["canary"]
    assert "version 1 (production, 100%) goes on" in one.reasons["canary"]
    weigh(staged, 0, "aborted")
    one.look()
    assert one.reasons == {}


def spoil(folder: Path) -> None:
    """Other bytes in the place of the model."""
    model = next(folder.rglob("*.skops"))
    model.write_bytes(model.read_bytes() + b"x")


def test_answers_of_both_arms_are_recorded_under_their_roles(staged: Shop) -> None:
    with serving(staged) as server:
        server.wait(lambda: server.ready()["models"]["churn"]["arms"] == {"1": 75, "2": 25}, "the canary got no share")
        rows = [{"features": GOOD, "request_id": f"r{number}", "key": f"k{number}"} for number in range(200)]
        answers = server.post("/predict", {"rows": rows}).json()["answers"]
        given = {one["request_id"]: one["version"] for one in answers}
        assert 20 < sum(version == "2" for version in given.values()) < 80
        again = server.post("/predict", {"rows": rows}).json()["answers"]
        assert {one["request_id"]: one["version"] for one in again} == given, "the same key, the same version"
        assert server.metric("backstop_arm_weight", version="2", role="canary") == 25
        weigh(staged, 0, "aborted")
        taken = server.wait(lambda: server.ready()["models"]["churn"]["arms"] == {"1": 100}, "the canary stayed")
        assert taken < 10
        assert server.metric("backstop_arm_weight", version="2", role="canary") == 0
    query = "SELECT request_id, version, role FROM backstop_requests"
    with closing(sqlite3.connect(staged.home / "requests.db")) as log:
        recorded = {name: (version, role) for name, version, role in log.execute(query)}
    roles = {"1": "production", "2": "canary"}
    assert recorded == {name: (version, roles[version]) for name, version in given.items()}
