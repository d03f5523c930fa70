"""A disk that is full under the ledger or under MLflow: nothing moves by half, and the next run goes on from there.

The disk is a real one that has no room left where the machine lets us mount one; a SQLite file that may not grow is the
form that every machine knows. Flows on full and on read-only disks are in ``tests/flows/test_disk.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import Limited, Mounted, limited, mounted

from benchmarks.acts import MODEL, PASSED, Actor
from benchmarks.aftermath import Scenery
from tasks import promotion
from tasks.database import Full
from tasks.records import Transition
from tasks.registry import Registry, View
from tasks.stores import Stores

LONG = "it is better " * 400
"""A reason that no page of a table has room for: the file would have to grow."""


@pytest.fixture(params=["mounted", "limited"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted | Limited]:
    with mounted(tmp_path / "disk") if request.param == "mounted" else limited() as made:
        yield made


@pytest.fixture
def mlflow_on_disk(disk: Mounted | Limited, stores: Stores) -> None:
    """MLflow's database, before anybody has opened it."""
    disk.hold(stores.home / "mlflow.db")


@pytest.fixture
def actor(stores: Stores) -> Iterator[Actor]:
    """Version 1 serves and is known good, version 2 waits."""
    made = Actor.at(stores, "ada")
    made.register()
    made.stage("1")
    made.promote("1")
    made.praise("1")
    made.stage("2")
    with made.case.ledger:
        yield made


def move(actor: Actor, action: Any, version: str) -> Transition:
    case = actor.case
    return case.registry().move(
        case.ledger,
        case.standing(),
        action=action,
        version=version,
        actor="ada",
        reason=LONG,
        at=case.now,
        trail=case.trail,
        evidence={"verdicts": (PASSED,)},
    )


def view(actor: Actor) -> View:
    return actor.case.registry().view(MODEL)


def healed(actor: Actor, serves: str) -> None:
    """What has to be true once there is room again and the next run has begun."""
    actor.reconcile()
    scenery = Scenery(actor.case.stores, MODEL)
    assert scenery.faults() == []
    assert view(actor).production == (serves,)
    assert actor.reconcile() == 0


def test_a_ledger_without_room_for_the_intent_leaves_everything_as_it_is(actor: Actor, disk: Mounted | Limited) -> None:
    disk.hold(actor.case.stores.home / "ledger.db")
    before, said = Scenery(actor.case.stores, MODEL).everything(), str(actor.case.stores.home / "ledger.db")
    disk.full()
    with pytest.raises(Full, match=f"no room.*{said}.*nothing was written.*run again"):
        move(actor, "promote", "2")
    disk.room()
    assert Scenery(actor.case.stores, MODEL).everything() == before
    assert move(actor, "promote", "2").state == "applied"
    healed(actor, "2")


def test_a_ledger_without_room_to_settle_still_knows_what_was_begun(
    actor: Actor, disk: Mounted | Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(actor, "promote", "2")
    disk.hold(actor.case.stores.home / "ledger.db")
    read_back = Registry._read_back

    def read_and_fill(registry: Registry, transition: Transition) -> None:
        read_back(registry, transition)
        disk.full()

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "_read_back", read_and_fill)
        with pytest.raises(Full):
            move(actor, "rollback", "1")
    disk.room()
    standing = actor.case.standing()
    assert view(actor).production == ("1",), "MLflow was told already"
    assert (standing.production, standing.quarantined) == ("2", ())
    assert standing.pending is not None
    assert standing.pending.action == "rollback"
    healed(actor, "1")
    assert actor.case.standing().quarantined == ("2",)


def test_an_mlflow_without_room_leaves_the_intent_for_the_next_run(
    mlflow_on_disk: None, actor: Actor, disk: Mounted | Limited
) -> None:
    promotion.promote(actor.case, actor.case.standing(), "2", PASSED)
    disk.full()
    with pytest.raises(Full, match=r"no room.*mlflow\.db.*stays in the ledger.*next flow completes it"):
        move(actor, "rollback", "1")
    standing = actor.case.standing()
    assert standing.production == "2"
    assert standing.pending is not None
    disk.room()
    healed(actor, "1")
