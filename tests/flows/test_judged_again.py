"""A model's whole story through the real flows: every verdict of it can be reached again from the ledger alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scene import CHANGED, END, Scene, everybody

from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch
from rehearsal.churn import corrupt_labels
from rehearsal.traffic import Faults
from tasks.ledger import Ledger
from tasks.records import Finding, GateEvidence, to_plain
from tasks.retrial import retry_all

MINUTE = 1 / 1440
ROOT = Path(__file__).resolve().parents[2]
FORCED = {"force": True, "reason": "the season begins"}
EVERY = {"triggers", "gate", "shadow", "health", "rollback", "person", "data"}


def measured(evidence: GateEvidence) -> Finding:
    """A user's check that puts down more than numbers."""
    rows = evidence.candidate.truth
    kept = {"share": rows.mean(), "counts": [int(one) for one in rows[:3]], "by": {"yes": (1, None)}, "first": rows[:2]}
    return Finding(name="measured", outcome="ok", reason="looked at the rows", value=rows.mean(), evidence=kept)


def priced(evidence: GateEvidence) -> Finding:
    """A user's check that puts down what cannot be kept."""
    return Finding(name="priced", outcome="ok", reason="cheap", evidence={"price": Decimal("9.99")})


def rated(evidence: GateEvidence) -> Finding:
    """A user's check with an outcome of its own invention."""
    return Finding(name="rated", outcome="fine", reason="cheap")  # type: ignore[arg-type]


def a_story(scene: Scene) -> None:
    """What happens to a model in its life, on top of: a first one, watched until known good, and a second one."""
    day = CHANGED
    scene.traffic(day, day + 10 * MINUTE, requests=600, faults=Faults(errors=0.4), labels=False)
    assert scene.run(watch, day + 10 * MINUTE).report.decision == "rolled-back"
    scene.click("2", "Production")
    assert scene.run(watch, day + 11 * MINUTE).error is None
    assert scene.view.production == ("1",)
    stay = scene.run(rollback, day + 12 * MINUTE, reason="customers complain", dry_run=False)
    assert stay.report.decision == "held"
    word = {"reason": "it was the network", "actor": "Ada", "version": "2", "dry_run": False, "override": True}
    assert scene.run(promote, day + 1, **word).report.decision == "promoted"

    scene.write(corrupt_labels(everybody(), 0.4, seed=5), "scrambled.csv")
    checks = [f"test_judged_again:{one}" for one in ("measured", "priced", "rated")]
    data = {"source": "scrambled.csv", "history": False}
    refusing = scene.policy("scrambled", data=data, gate={"checks": checks})
    assert scene.run(retrain, END - 1, policy=refusing, **FORCED).report.decision == "gate-failed"
    broken = scene.policy("broken", data={"target": "chruned"})
    assert scene.run(retrain, END - 1, policy=broken, **FORCED).error is not None


def inline(evidence: Any) -> Iterator[Mapping[str, Any]]:
    """Verdicts that lie within a transition's evidence."""
    if isinstance(evidence, Mapping) and {"judge", "decision", "findings"} <= evidence.keys():
        yield evidence
    elif isinstance(evidence, Mapping | list | tuple):
        for one in evidence.values() if isinstance(evidence, Mapping) else evidence:
            yield from inline(one)


@pytest.mark.slow  # a life in six flow runs
def test_every_verdict_of_a_models_life_follows_from_what_the_ledger_keeps(second: Scene) -> None:
    a_story(second)
    with Ledger.open(second.stores.ledger) as ledger:
        decisions, history = ledger.decisions("churn"), ledger.history("churn")
        found = retry_all(ledger, "churn")
        misfits = ledger.misfits("churn")
    assert [one.reason for one in found if one.outcome != "ok"] == []
    assert len(found) == len(decisions)
    assert all(one.evidence for one in decisions)
    said = Counter(f"{one.verdict.judge} {one.verdict.decision}" for one in decisions)
    assert {one.verdict.judge for one in decisions} == EVERY
    assert {"gate fail", "rollback back", "rollback stay", "data failed", "data reconciled"} <= set(said)
    assert misfits == ()

    # What a transition says it rests on was put down as a decision too, and so was judged again above.
    noted = [to_plain(one.verdict) for one in decisions]
    within = [verdict for one in history for verdict in inline(to_plain(one.evidence))]
    assert len(within) >= len([one for one in history if one.action in {"promote", "rollback"}])
    assert [one for one in within if one not in noted] == []

    # What a user's check puts down is kept as it was judged, or told.
    refused = next(one.verdict for one in decisions if one.verdict.decision == "fail")
    own = {one.name: one for one in refused.findings[-3:]}
    assert (own["measured"].outcome, own["measured"].evidence["by"]) == ("ok", {"yes": [1, None]})
    assert (own["priced"].outcome, "Decimal cannot be kept" in own["priced"].reason) == ("unknown", True)
    assert (own["rated"].outcome, "'fine' as Finding.outcome" in own["rated"].reason) == ("unknown", True)

    # Nothing hangs on the process that judged, nor on the customers, the policies and MLflow.
    (second.home / "ledger.db").rename(second.home.parent / "ledger.db")
    assert outcomes_elsewhere(second.home.parent / "ledger.db") == {"ok": len(decisions)}


def outcomes_elsewhere(ledger: Path) -> dict[str, int]:
    code = (
        "import collections, json, sys; from tasks.ledger import Ledger; from tasks.retrial import retry_all; "
        "ledger = Ledger.open('sqlite:///' + sys.argv[1]); found = retry_all(ledger, 'churn'); ledger.close(); "
        "print(json.dumps(collections.Counter(one.outcome for one in found)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BACKSTOP_HOME": str(ledger.parent / "nothing")}
    ran = subprocess.run(
        [sys.executable, "-c", code, str(ledger)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ledger.parent,
        env=environment,
    )
    told: dict[str, int] = json.loads(ran.stdout)
    return told
