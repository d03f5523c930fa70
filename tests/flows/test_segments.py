"""Slices through the real flow: the segments are those of the holdout's rows, and lead what is told of the gate."""

from __future__ import annotations

from scene import CHANGED, Scene
from test_retrain import FORCED, verdict

from flows.retrain import retrain


def test_every_segment_is_compared_and_told_of(first: Scene) -> None:
    slices = [{"by": "contract", "min_rows": 50}, {"by": "monthly_charges", "min_rows": 50, "metric": "accuracy"}]
    ran = first.run(retrain, CHANGED, policy=first.policy("sliced", gate={"slices": slices}), **FORCED)
    found = verdict(ran.report, "gate").findings
    segments = [one.name for one in found if one.name.startswith("slice ")]
    assert [one.name for one in found][: len(segments)] == segments
    assert len([name for name in segments if name.startswith("slice contract = ")]) >= 2
    assert len([name for name in segments if name.startswith("slice monthly_charges = ")]) == 4
    judged = [one for one in found if one.name.startswith("slice contract = ")]
    assert sum(one.n or 0 for one in judged) == next(one.n for one in found if one.name == "regression")


def test_a_column_that_nobody_has_leaves_the_gate_inconclusive(first: Scene) -> None:
    ran = first.run(retrain, CHANGED, policy=first.policy("lost", gate={"slices": [{"by": "shoe_size"}]}), **FORCED)
    assert ran.report.decision == "gate-inconclusive"
    assert "no feature column 'shoe_size'" in ran.report.line
