"""On the same days the backtest decides what the real flow decides, finding by finding."""

from __future__ import annotations

from typing import Any

import pytest
from scene import CHANGED, FIRST, QUIET, Scene, day

from flows.retrain import retrain
from rehearsal.backtest import history
from rehearsal.memory import Memory
from rehearsal.player import Player
from tasks.policy_file import load
from tasks.records import Verdict, to_plain

pytestmark = pytest.mark.slow

DAYS = (FIRST, QUIET, 90, 98, 104, CHANGED, CHANGED + 1, CHANGED + 3)
TRIGGERS = {
    "retrain_when": "(drift and performance) or concept or age",
    "age": "44d",
    "confirm": {"times": 2, "of": 3},
    "cool_down": "2d",
    "false_retrains": "1 per 30d",
}
ARTIFACT = {"latency", "size", "fresh_process"}
"""Checks of a real artifact, which the backtest has none of."""


def findings(verdict: Verdict) -> list[Any]:
    """What was found, but for what only an artifact can tell, and for which columns the model leans on."""
    return [_rounded(_drift(to_plain(one))) for one in verdict.findings if one.name not in ARTIFACT]


def _rounded(value: Any) -> Any:
    """A model that answers many rows at once may round the last digit otherwise than for few."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _drift(finding: Any) -> Any:
    """Of the columns what was measured: their order in the report is by how much the model leans on them."""
    if finding["name"] != "drift":
        return finding
    columns = sorted((one["name"], one["outcome"], one["psi"]) for one in finding["evidence"]["columns"])
    return {**finding, "reason": "", "evidence": columns}


def test_the_backtest_decides_what_the_flow_decides(empty: Scene, prefect_api: None) -> None:
    path = empty.policy(triggers=TRIGGERS, gate={"slices": [{"by": "contract"}]}, shadow="off")
    policy = load(path)
    player = Player(policy, Memory(history(policy)))
    decided = []
    for at in DAYS:
        played = player.evaluate(day(at))
        real = empty.run(retrain, at, policy=path).report
        assert (played.decision, played.candidate, played.production) == (
            real.decision,
            real.candidate,
            real.production,
        ), real.line
        assert [one.judge for one in played.verdicts] == [one.judge for one in real.verdicts]
        assert [one.decision for one in played.verdicts] == [one.decision for one in real.verdicts]
        for ours, theirs in zip(played.verdicts, real.verdicts, strict=True):
            assert findings(ours) == findings(theirs), at
        decided.append(played.decision)
    assert {"first-promoted", "kept", "promoted"} <= set(decided), "the days are chosen so that all happen"


def test_a_candidate_waits_for_its_shadow_as_long_as_in_the_flow(empty: Scene, prefect_api: None) -> None:
    path = empty.policy(shadow={"window": "3d", "tolerate": "2pt", "false_promotion": 0.0001})
    policy = load(path)
    player = Player(policy, Memory(history(policy)))
    assert player.evaluate(day(FIRST)).decision == "first-promoted"
    assert empty.run(retrain, FIRST, policy=path).report.decision == "first-promoted"
    decided = []
    sent = CHANGED - 18.0
    for at in (CHANGED - 3, CHANGED, CHANGED + 2, CHANGED + 5):
        empty.traffic(sent, at, policy=path)
        sent = at
        played = player.evaluate(day(at))
        real = empty.run(retrain, at, policy=path).report
        assert (played.decision, played.production) == (real.decision, real.production), real.line
        decided.append(played.decision)
    assert "waiting" in decided
