"""A cause that both versions share is no reason to go back to the older one; one that only the canary has, is.

``python -m benchmarks.shared_cause``: incidents while a canary answers beside Production. In half of them a database is
down for both; in the other half the canary alone fails. The rollout's own judge is asked after every five looks. At
most 1 % of the shared ones may end the canary, all must ask for a person; at least 99 % of the others must end it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks import proof
from benchmarks.proof import Line
from benchmarks.sequential import looks_of
from tasks.decide.rollout import judge
from tasks.policy import Health, Rollout
from tasks.records import RolloutEvidence, Verdict

Counts = NDArray[np.int64]

INCIDENTS, QUICK, LOOKS, BEGINS, EVERY = 500, 20, 40, 10, 5
HEALTH, RULES = Health(latency_p95=None, accuracy=None), Rollout()
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    incidents = QUICK if quick else INCIDENTS
    jobs = [(shared, seed) for shared in (True, False) for seed in range(incidents)]
    both, alone = np.array(proof.spread(fate, jobs, quick=quick)).reshape(2, incidents, 2).sum(axis=1)
    return [
        proof.share("shared cause, the canary is taken out", int(both[0]), incidents, 0.01, quick=quick),
        proof.share("shared cause, a person is asked for", int(both[1]), incidents, 0.99, least=True, quick=quick),
        proof.share("the canary alone, it is taken out", int(alone[0]), incidents, 0.99, least=True, quick=quick),
    ]


def fate(shared: bool, seed: int) -> tuple[bool, bool]:
    """Of one incident: (the canary was taken out, a person was asked for)."""
    draw = np.random.default_rng([seed, shared])
    weight = int(draw.choice(RULES.weights[:-1]))
    total = draw.poisson(draw.uniform(300, 1500), LOOKS)
    canary = draw.binomial(total, np.clip(weight / 100 * draw.uniform(0.5, 1.5, LOOKS), 0, 1))
    calm, high = draw.uniform(0.002, 0.02), draw.uniform(0.2, 0.6)
    incident = np.clip(high * np.exp(draw.normal(0, 0.3, LOOKS)), 0, 0.95)
    down = np.where(np.arange(LOOKS) >= BEGINS, incident, calm)
    bad = draw.binomial(canary, down)
    base = draw.binomial(total - canary, down if shared else np.full(LOOKS, calm))
    out = asked = False
    for looks in range(BEGINS + EVERY, LOOKS + 1, EVERY):
        verdict = judged(weight, (bad[:looks], canary[:looks]), (base[:looks], (total - canary)[:looks]))
        out = out or verdict.decision == "abort"
        asked = asked or out or any(finding.evidence.get("page") for finding in verdict.findings)
    return out, asked


def judged(weight: int, canary: tuple[Counts, Counts], production: tuple[Counts, Counts]) -> Verdict:
    """The rollout's own verdict at one tick."""
    evidence = RolloutEvidence(
        version="2",
        baseline="1",
        weight=weight,
        started=START,
        stepped=START,
        now=START + len(canary[0]) * MINUTE,
        canary=looks_of(*canary, "errors"),
        production=looks_of(*production, "errors"),
    )
    return judge(evidence, RULES, HEALTH, problem="binary")


if __name__ == "__main__":
    raise SystemExit(proof.run("shared_cause", prove))
