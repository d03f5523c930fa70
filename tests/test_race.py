"""Processes that die, and two that find what one left: one version in Production, every intent carried out once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tasks.ledger import Ledger, StaleDecision
from tasks.reconcile import reconcile
from tasks.records import Transition
from tasks.registry import Registry, View
from tasks.stores import Stores

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
FATE = 77


@dataclass
class Player:
    """One process with doors of its own to ledger and MLflow."""

    stores: Stores

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.stores.ledger)
        self.registry = Registry(self.stores)

    def promote(self, version: str, seq: int) -> str:
        try:
            pending = self.intend(version, seq)
            self.registry.carry_out(self.ledger, pending)
        except StaleDecision as error:
            return f"stale: {error}"
        return "won"

    def intend(self, version: str, seq: int) -> Transition:
        return self.ledger.intend(
            model="churn",
            based_on=seq,
            action="promote",
            version=version,
            actor=f"player {version}",
            reason="it is better",
            at=T0,
            trail=f"t{version}",
        )

    def reconcile(self) -> int:
        return len(reconcile(self.registry, self.ledger, "churn", external="repair", at=T0, trail="r"))


def die_between_intend_and_apply(home: Path) -> None:
    player = Player(Stores.at(home))
    player.intend("2", player.ledger.standing("churn").seq)
    os._exit(FATE)


def die_in_the_middle_of_apply(home: Path) -> None:
    player = Player(Stores.at(home))
    player.registry._client.set_registered_model_alias = lambda *_: os._exit(FATE)  # type: ignore[method-assign]
    player.promote("2", player.ledger.standing("churn").seq)


def die_between_apply_and_settle(home: Path) -> None:
    player = Player(Stores.at(home))
    player.registry._read_back = lambda _: os._exit(FATE)  # type: ignore[method-assign]
    player.promote("2", player.ledger.standing("churn").seq)


def hang_between_apply_and_settle(home: Path, holding: Any) -> None:
    player = Player(Stores.at(home))

    def hang(_: Transition) -> None:
        holding.set()
        time.sleep(300)

    player.registry._read_back = hang  # type: ignore[method-assign]
    player.promote("2", player.ledger.standing("churn").seq)


def bring_together(home: Path, barrier: Any, answers: Any) -> None:
    player = Player(Stores.at(home))
    barrier.wait(60)
    answers.put(player.reconcile())


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Fresh processes that begin with MLflow imported: importing it takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.registry", "mlflow.store.model_registry.sqlalchemy_store"])
    return context


@pytest.fixture
def player(stores: Stores) -> Iterator[Player]:
    made = Player(stores)
    made.registry._client.create_registered_model("churn")
    for _ in range(2):
        made.registry._client.create_model_version("churn", source=str(stores.home))
    assert made.promote("1", 0) == "won"
    yield made
    made.ledger.close()


def finished(started: ForkServerProcess, code: int = 0) -> None:
    started.join(60)
    assert started.exitcode == code


def settled(player: Player) -> None:
    """What has to be true after a death and a reconcile."""
    view: View = player.registry.view("churn")
    assert (view.production, view.champion) == (("2",), "2")
    standing = player.ledger.standing("churn")
    assert (standing.production, standing.pending) == ("2", None)
    history = player.ledger.history("churn")
    assert [(row.version, row.state) for row in history] == [("1", "applied"), ("2", "applied")]


@pytest.mark.parametrize(
    "die", [die_between_intend_and_apply, die_in_the_middle_of_apply, die_between_apply_and_settle]
)
def test_what_a_process_left_when_it_died_is_completed_once(
    player: Player, processes: ForkServerContext, die: Callable[[Path], None]
) -> None:
    process = processes.Process(target=die, args=(player.stores.home,))
    process.start()
    finished(process, FATE)
    assert player.ledger.standing("churn").pending is not None
    assert player.ledger.standing("churn").production == "1"
    assert player.reconcile() == 1
    settled(player)
    assert player.reconcile() == 0


def test_a_lock_dies_with_the_process_that_was_killed(player: Player, processes: ForkServerContext) -> None:
    holding = processes.Event()
    process = processes.Process(target=hang_between_apply_and_settle, args=(player.stores.home, holding))
    process.start()
    assert holding.wait(60)
    os.kill(process.pid or 0, signal.SIGKILL)
    finished(process, -signal.SIGKILL)
    begun = time.monotonic()
    assert player.reconcile() == 1
    assert time.monotonic() - begun < 60, "no lease had to expire"
    settled(player)


def test_two_processes_that_reconcile_at_once_complete_an_intent_once(
    player: Player, processes: ForkServerContext
) -> None:
    player.intend("2", player.ledger.standing("churn").seq)
    barrier, answers = processes.Barrier(2), processes.Queue()
    both = [processes.Process(target=bring_together, args=(player.stores.home, barrier, answers)) for _ in range(2)]
    for process in both:
        process.start()
    assert sorted(answers.get(timeout=60) for _ in both) == [0, 1]
    for process in both:
        finished(process)
    settled(player)
