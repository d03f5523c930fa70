"""What was judged is what runs: files that changed after the gate, and models that would run code, go nowhere."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from scene import CHANGED, Scene

from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch
from rehearsal.traffic import Faults
from tasks import registry
from tasks.registry import Registry

pytestmark = pytest.mark.fresh

MINUTE = 1 / 1440


class Hostile:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def swap(scene: Scene, version: str, other: str) -> None:
    """Put the files of another version in the place of this one's."""
    target = scene.artifact(version)
    source = scene.artifact(other)
    shutil.copy(source / "model.skops", target / "model.skops")


def stranger(scene: Scene) -> str:
    """Register a version by hand, with the files of version 1; its number."""
    folder = scene.home / "from-a-friend"
    shutil.copytree(scene.artifact("1"), folder)
    return str(scene.client.create_model_version("churn", source=str(folder)).version)


def hostile(scene: Scene, trace: Path) -> str:
    """Register a version by hand whose model is a pickle that leaves a trace; its number."""
    folder = scene.home / "from-a-stranger"
    shutil.copytree(scene.artifact("1"), folder)
    described = yaml.safe_load((folder / "MLmodel").read_text("utf-8"))
    described["flavors"]["sklearn"] |= {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    (folder / "MLmodel").write_text(yaml.safe_dump(described), encoding="utf-8")
    (folder / "model.pkl").write_bytes(pickle.dumps(Hostile(trace)))
    return str(scene.client.create_model_version("churn", source=str(folder)).version)


@pytest.mark.parametrize("shadow", ["compared", "off"])
def test_a_candidate_whose_files_changed_after_the_gate_is_not_promoted(waiting: Scene, shadow: str) -> None:
    policy = waiting.policy(shadow="off") if shadow == "off" else waiting.policy()
    waiting.traffic(CHANGED, CHANGED + 13)
    swap(waiting, "2", "1")
    ran = waiting.run(retrain, CHANGED + 13, policy=policy)
    assert ran.error is not None
    assert "were judged with" in str(ran.error)
    assert "nothing is loaded from them" in str(ran.error)
    assert (waiting.view.production, waiting.standing.production, waiting.standing.pending) == (("1",), "1", None)
    assert waiting.told()[-1] == "churn: retrain failed, Production unchanged"


def test_files_that_changed_in_a_bucket_are_found_although_a_copy_from_before_is_right(
    waiting: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as bucket, waiting.case(CHANGED).ledger as ledger:
        bucket.setattr(registry, "_local", lambda _: None)  # as if MLflow kept its files in a bucket
        copy = Registry(waiting.stores).fetch(ledger, "churn", "2")
    assert copy.is_relative_to(waiting.home / "downloads")
    swap(waiting, "2", "1")
    monkeypatch.setattr(registry, "_local", lambda _: None)
    ran = waiting.run(promote, CHANGED + 1, reason="it is better", version="2", dry_run=False, actor="ada")
    assert "were judged with" in str(ran.error)
    assert (waiting.view.production, waiting.standing.production) == (("1",), "1")


def test_a_person_cannot_promote_files_that_changed_either(waiting: Scene) -> None:
    swap(waiting, "2", "1")
    ran = waiting.run(
        promote, CHANGED + 1, reason="I know better", version="2", dry_run=False, override=True, actor="ada"
    )
    assert "were judged with" in str(ran.error)
    assert (waiting.view.production, waiting.standing.production) == (("1",), "1")


def test_a_rollback_does_not_go_to_files_that_changed(second: Scene) -> None:
    swap(second, "1", "2")
    second.traffic(CHANGED, CHANGED + 10 * MINUTE, requests=600, faults=Faults(errors=0.4))
    ran = second.run(watch, CHANGED + 10 * MINUTE)
    assert (ran.report.decision, ran.report.production) == ("held", "2")
    assert second.view.production == ("2",)
    assert "no version known good loads and answers" in ran.report.line
    (tried,) = [one for one in ran.report.verdicts[-1].findings if one.name == "version 1 answers"]
    assert "were judged with" in tried.reason
    assert second.told()[-1] == "churn: version 2 is unhealthy, and nothing is eligible to go back to"


@pytest.mark.slow  # a fresh process, twice
def test_what_was_made_elsewhere_and_promoted_by_hand_cannot_be_swapped_from_then_on(first: Scene) -> None:
    version = stranger(first)
    word = {"reason": "a friend made it", "version": version, "override": True, "dry_run": False}
    assert first.run(promote, CHANGED, **word).report.production == version
    (first.home / "from-a-friend" / "MLmodel").write_text("flavors: none", encoding="utf-8")
    again = first.run(promote, CHANGED + 1, **word)
    assert "were judged with" in str(again.error)
    back = first.run(rollback, CHANGED + 1, reason="who changed this", dry_run=False)
    assert (back.report.decision, first.view.production) == ("rolled-back", ("1",))


@pytest.mark.slow  # a training, and two fresh processes
def test_a_pickle_is_judged_and_served_where_the_policy_trusts_it_and_nowhere_else(first: Scene) -> None:
    off = {"shadow": "off", "gate": {"regression": "off", "stability": "off"}}
    trusting = first.policy("trusting", training={"serialization": "pickle"}, **off)
    made = first.run(retrain, CHANGED, policy=trusting, force=True, reason="an estimator that skops cannot hold")
    assert (made.report.decision, first.view.production) == ("promoted", ("2",))
    assert list(first.artifact("2").glob("*.pkl"))
    first.run(rollback, CHANGED + 1, policy=trusting, reason="a test", dry_run=False)
    word = {"reason": "it was the network", "version": "2", "override": True, "dry_run": False}
    refused = first.run(promote, CHANGED + 2, **word)
    assert "set `serialization: pickle` in the policy if you trust it" in str(refused.error)
    assert first.view.production == ("1",)
    assert first.run(promote, CHANGED + 2, policy=trusting, **word).report.production == "2"
    assert first.view.production == ("2",)


def test_a_hostile_pickle_is_never_run_whichever_way_it_came(first: Scene, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    version = hostile(first, trace)
    refused = first.run(
        promote, CHANGED, reason="it is new", version=version, dry_run=False, override=True, actor="ada"
    )
    assert "pickle" in str(refused.error)
    assert "`serialization: skops`" in str(refused.error)
    assert first.view.production == ("1",)

    # Somebody clicks it into Production, and the policy takes that as the truth: it serves, and is not loaded here.
    adopting = first.policy(external="adopt", triggers={"retrain_when": "age"})
    first.click(version, "Production")
    adopted = first.run(watch, CHANGED + MINUTE, policy=adopting)
    assert (adopted.report.production, first.standing.production) == (version, version)
    first.run(retrain, CHANGED + 2 * MINUTE, policy=adopting, force=True, reason="to see what it says")
    back = first.run(rollback, CHANGED + 3 * MINUTE, reason="who made this", dry_run=False, policy=adopting)
    assert (back.report.decision, first.view.production) == ("rolled-back", ("1",))
    assert not trace.exists()
    pickle.loads((first.home / "from-a-stranger" / "model.pkl").read_bytes())  # noqa: S301  it is the test's own
    assert trace.exists(), "the pickle was a working one"
