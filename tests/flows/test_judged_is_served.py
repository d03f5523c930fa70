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
