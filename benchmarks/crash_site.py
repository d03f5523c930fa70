"""Crash site: a home folder, put back to how it was before every kill; who acts there, and who comes after."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from benchmarks.acts import MODEL, ROLL_BACK, Act, Actor
from benchmarks.aftermath import Scenery
from benchmarks.killing import Doom, fork
from tasks.ledger import StaleDecision
from tasks.stores import Stores


@dataclass
class Place:
    """A home folder that is put back to how it was before every kill.

    Attributes:
        folder: With everything; in memory where the machine has such a place.
        stores: Of the home in it.
        spare: Empty ledgers, for databases that cannot be copied back; empty: a SQLite file, which can.
    """

    folder: Path
    stores: Stores
    spare: list[str] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    @classmethod
    def in_memory(cls, spare: Sequence[str] = ()) -> Place:
        """A new place, with MLflow's tables made and its store opened; forked processes begin with it open.

        Args:
            spare: See :class:`Place`.
        """
        # A pooled connection must not be taken along into a forked process.
        os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        memory = Path("/dev/shm")  # noqa: S108  only because it is quick; the folder in it is ours alone
        folder = Path(tempfile.mkdtemp(prefix="crash-", dir=memory if os.access(memory, os.W_OK) else None))
        stores = Stores.at(folder / "home")
        stores.home.mkdir()
        place = cls(folder, stores, list(spare))
        MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking).search_registered_models(max_results=1)
        place.keep("empty")
        return place

    def warm(self) -> None:
        """Do everything once in this process: what SQLAlchemy and MLflow learn from it, forked processes know."""
        prepare(self.stores, ROLL_BACK)
        perform(self.stores, ROLL_BACK, None)
        come_after(self.stores, ROLL_BACK)
        self.back_to("empty")

    def keep(self, name: str) -> None:
        """Remember the home as it is."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.stores.home, self.folder / name)

    def back_to(self, name: str) -> None:
        """The home as it was remembered."""
        shutil.rmtree(self.stores.home)
        shutil.copytree(self.folder / name, self.stores.home)

    def do(self, work: Callable[[], Any]) -> Any:
        """Do this in another process, which has to live.

        Raises:
            RuntimeError: When it does not.
        """
        fate = fork(work, self.folder).end()
        if fate.signal or fate.error:
            raise RuntimeError(f"signal {fate.signal} {fate.error}")
        return fate.answer

    def close(self) -> None:
        """Take it away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def before(self, act: Act) -> int:
        """The home as the act finds it, made once where it can be copied, or else every time; transitions so far."""
        if self.spare:
            self.back_to("empty")
            self.stores = replace(self.stores, ledger=self.spare.pop())
            return int(self.do(partial(prepare, self.stores, act)))
        if act.name not in self._known:
            self.back_to("empty")
            self._known[act.name] = self.do(partial(prepare, self.stores, act))
            self.keep(_folder(act))
        self.back_to(_folder(act))
        return self._known[act.name]


def _folder(act: Act) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in f"before {act.name}")


# What the forked processes do.


def prepare(stores: Stores, act: Act) -> int:
    """What has happened before the act; how many transitions it took."""
    actor = Actor.at(stores, "before")
    actor.register()
    act.before(actor)
    return len(actor.case.ledger.history(MODEL))


def perform(stores: Stores, act: Act, doom: Doom | None) -> list[str]:
    """The act itself; the boundaries that it went over."""
    actor = Actor.at(stores, "actor")
    if doom is not None:
        doom.put_on()
    act.action(actor)
    return doom.seen if doom is not None else []


def contest(stores: Stores, name: str, action: Callable[[Actor], Any]) -> str:
    """One of two that act at once; ``won`` or ``stale``."""
    try:
        action(Actor.at(stores, name))
    except StaleDecision:
        return "stale"
    return "won"


def come_after(stores: Stores, act: Act) -> dict[str, Any]:
    """What the next run finds, and what it leaves."""
    actor, scenery = Actor.at(stores, "next"), Scenery(stores, MODEL)
    found = len(actor.case.ledger.history(MODEL))
    act.next(actor, act)
    faults, left = scenery.faults(), scenery.everything()
    if again := replace(actor, case=actor.case.on_trail("third")).reconcile(act.external):
        faults.append(f"whoever came third still found {again} things to do")
    if scenery.everything() != left:
        faults.append("whoever came third changed something")
    return {"found": found, "faults": faults, "picture": scenery.picture()}


@contextmanager
def somewhere(spare: Sequence[str] = ()) -> Iterator[Place]:
    """A place, taken away at the end."""
    place = Place.in_memory(spare)
    try:
        place.warm()
        yield place
    finally:
        place.close()
