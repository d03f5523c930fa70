"""Acts: what is done to a model while somebody may die, what had happened before, and who comes after.

Versions have a file each and no model: only the step of a rollback in which the target is tried out in a fresh process
would load one, and that is taken as done (:mod:`benchmarks.killed_flows` does it with real ones).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from unittest.mock import patch

from mlflow import MlflowClient

from tasks import promotion
from tasks.case import Case, open_case
from tasks.policy import Policy
from tasks.policy_file import load
from tasks.reconcile import reconcile
from tasks.records import Finding, Verdict
from tasks.rollback import roll_back
from tasks.stores import Stores

MODEL = "churn"
VERSIONS = ("1", "2", "3")
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PASSED = Verdict(judge="gate", decision="pass", reason="it is better", findings=())
_POLICY = {
    "model": MODEL,
    "data": {"source": "churn.csv", "target": "churned", "timestamp": "at"},
    "training": {"estimator": "sklearn.linear_model:LogisticRegression"},
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who acts on the model, with doors of their own to ledger and MLflow.

    Attributes:
        case: Of the model; its trail is the actor's name.
    """

    case: Case

    @classmethod
    def at(cls, stores: Stores, name: str) -> Actor:
        """Enter; the process ends with the act, so nobody leaves. A home without a policy gets one for no data."""
        written = stores.home / f"{MODEL}.yaml"
        policy = load(str(written)) if written.is_file() else Policy.model_validate(_POLICY)
        case = open_case(policy, actor=name, now=NOW, stores=stores)
        return cls(replace(case, trail=name))

    @property
    def client(self) -> MlflowClient:
        """To change MLflow beside Backstop."""
        return MlflowClient(tracking_uri=self.case.stores.tracking, registry_uri=self.case.stores.tracking)

    def register(self) -> None:
        """Make the versions, unless the home has some."""
        if self.case.registry().view(MODEL).versions:
            return
        self.client.create_registered_model(MODEL)
        for number in VERSIONS:
            folder = self.case.stores.home / "files" / number
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "MLmodel").write_text(number, "utf-8")
            self.client.create_model_version(MODEL, source=str(folder))

    def stage(self, version: str) -> None:
        """A candidate passed the gate."""
        promotion.stage(self.case, self.case.standing(), version, PASSED)

    def promote(self, version: str) -> None:
        """A candidate becomes Production."""
        promotion.promote(self.case, self.case.standing(), version, PASSED)

    def praise(self, version: str) -> None:
        """A version finished its watch healthy."""
        self.case.state(version, "known-good", "it served well")

    def reject(self, version: str) -> None:
        """A candidate leaves Staging."""
        promotion.reject(self.case, self.case.standing(), version, "the shadow was better")

    def roll_back(self) -> None:
        """Production goes back to the newest version known good."""
        tried = Finding(name="answers", outcome="ok", reason="it answers")
        with patch("tasks.rollback.try_out", return_value=tried):
            done = roll_back(self.case, self.case.standing(), reason="too many errors")
        if done.transition is None:
            raise RuntimeError(f"nothing to go back to: {done.reason}")

    def begin(self, action: Literal["promote", "rollback", "reject"], version: str) -> None:
        """Put down an intent, and go away."""
        self.case.ledger.intend(
            model=MODEL,
            based_on=self.case.standing().seq,
            action=action,
            version=version,
            actor=self.case.actor,
            reason="it is better",
            at=NOW,
            trail=self.case.trail,
        )

    def click(self, version: str, stage: str, *, archive: bool = False) -> None:
        """Change a stage in MLflow by hand."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated
            self.client.transition_model_version_stage(MODEL, version, stage, archive_existing_versions=archive)

    def delete(self, version: str) -> None:
        """Take a version out of MLflow by hand."""
        self.client.delete_model_version(MODEL, version)

    def reconcile(self, external: Literal["repair", "adopt"] = "repair") -> int:
        """What every flow begins with; how much was found."""
        found = reconcile(
            self.case.registry(), self.case.ledger, MODEL, external=external, at=NOW, trail=self.case.trail
        )
        return len(found)


def _reconciled(actor: Actor, act: Act) -> None:
    actor.reconcile(act.external)


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that is done.

    Attributes:
        name: In the table.
        before: What has happened when it begins.
        action: During which somebody dies.
        external: What the policy says of changes by hand.
        next: What the run after it does.
    """

    name: str
    before: Callable[[Actor], Any]
    action: Callable[[Actor], Any]
    external: Literal["repair", "adopt"] = "repair"
    next: Callable[[Actor, Act], None] = _reconciled


def _first(actor: Actor) -> None:
    actor.stage("1")
    actor.promote("1")


def _challenged(actor: Actor) -> None:
    """Version 1 serves and is known good, version 2 waits."""
    _first(actor)
    actor.praise("1")
    actor.stage("2")


def _replaced(actor: Actor) -> None:
    """Version 2 replaced version 1, which is known good."""
    _challenged(actor)
    actor.promote("2")


def _contested(actor: Actor) -> None:
    """Version 3 waits besides."""
    _replaced(actor)
    actor.stage("3")


def _begun(
    action: Literal["promote", "rollback", "reject"], version: str, before: Callable[[Actor], Any]
) -> Callable[[Actor], None]:
    """An intent that was left."""

    def prepare(actor: Actor) -> None:
        before(actor)
        actor.begin(action, version)

    return prepare


def _deleted(actor: Actor) -> None:
    """The version of an intent that was left is gone."""
    _begun("promote", "2", _challenged)(actor)
    actor.delete("2")


def _clicked(actor: Actor) -> None:
    """Somebody promoted version 3 in MLflow, beside version 2."""
    _replaced(actor)
    actor.click("3", "Production")


def _found(actor: Actor) -> None:
    """Two versions in Production, and a ledger that has never heard of either."""
    actor.click("1", "Production")
    actor.click("2", "Production")


def _unstaged(actor: Actor) -> None:
    """The candidate that waits was taken out of Staging by hand."""
    _challenged(actor)
    actor.click("2", "None")


def _vanished(actor: Actor) -> None:
    """The candidate that waits was deleted."""
    _challenged(actor)
    actor.delete("2")


STAGE = Act("stage", _first, lambda actor: actor.stage("2"))
PROMOTE = Act("promote", _challenged, lambda actor: actor.promote("2"))
ROLL_BACK = Act("roll back", _replaced, Actor.roll_back)
ADOPT = Act("reconcile: adopt", _clicked, lambda actor: actor.reconcile("adopt"), "adopt")
COMPLETE = Act("reconcile: complete", _begun("rollback", "1", _replaced), Actor.reconcile)
RACE = Act("promote | roll back", _contested, lambda actor: actor.promote("3"))

ACTS = (
    STAGE,
    Act("stage, another waits", _contested, lambda actor: actor.stage("1")),
    Act("promote the first", lambda actor: actor.stage("1"), lambda actor: actor.promote("1")),
    PROMOTE,
    Act("promote, unstaged", _replaced, lambda actor: actor.promote("3")),
    ROLL_BACK,
    Act("roll back, one waits", _contested, Actor.roll_back),
    Act("reject", _challenged, lambda actor: actor.reject("2")),
    COMPLETE,
    Act("reconcile: complete a promote", _begun("promote", "2", _challenged), Actor.reconcile),
    Act("reconcile: complete a reject", _begun("reject", "2", _challenged), Actor.reconcile),
    Act("reconcile: give up", _deleted, Actor.reconcile),
    Act("reconcile: repair", _clicked, Actor.reconcile),
    ADOPT,
    Act("reconcile: take over", _found, Actor.reconcile),
    Act("reconcile: put back to Staging", _unstaged, Actor.reconcile),
    Act("reconcile: candidate deleted", _vanished, Actor.reconcile),
)
