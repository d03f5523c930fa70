"""A cause that two versions share is no reason to go back to the older one; one that only the newer has, is.

``python -m benchmarks.shared_cause``: incidents while a canary answers beside Production, looked at every five minutes
by both judges that could move something: the watch over Production, which knows what the canary did meanwhile, and the
rollout of the canary. A database is down for both: at most 1 % of these may take either version out of service, and all
must ask for a person. The canary alone fails, or Production alone does: at least 99 % of each must take out the one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks import proof
from benchmarks.proof import Line
from benchmarks.sequential import looks_of
from tasks.decide import health, rollout
from tasks.policy import Health, Rollout
from tasks.records import Beside, HealthEvidence, RolloutEvidence, Verdict

Counts = NDArray[np.int64]
Arm = tuple[Counts, Counts]

INCIDENTS, QUICK, LOOKS, BEGINS, EVERY = 500, 20, 40, 10, 5
HEALTH, RULES = Health(latency_p95=None, accuracy=None), Rollout()
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KINDS = ("both", "canary", "production")


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    incidents = QUICK if quick else INCIDENTS
    jobs = [(kind, seed) for kind in KINDS for seed in range(incidents)]
    found = np.array(proof.spread(fate, jobs, quick=quick)).reshape(3, incidents, 3)
    both, canary, production = found.sum(axis=1).tolist()
    moved = int((found[0, :, 0] | found[0, :, 1]).sum())
    return [
        proof.share("shared cause, a version is taken out", moved, incidents, 0.01, quick=quick),
        proof.share("shared cause, a person is asked for", both[2], incidents, 0.99, least=True, quick=quick),
        proof.share("the canary alone, it is taken out", canary[0], incidents, 0.99, least=True, quick=quick),
        proof.share("the canary alone, Production is taken out", canary[1], incidents, 0.01, quick=quick),
        proof.share("Production alone, it is taken out", production[1], incidents, 0.99, least=True, quick=quick),
        proof.share("Production alone, the canary is taken out", production[0], incidents, 0.01, quick=quick),
    ]


def fate(kind: str, seed: int) -> tuple[bool, bool, bool]:
    """Of one incident: (the canary was taken out, Production was, a person was asked for)."""
    canary, production, weight = incident(kind, np.random.default_rng([seed, KINDS.index(kind)]))
    out = back = asked = False
    for looks in range(BEGINS + EVERY, LOOKS + 1, EVERY):
        ours, theirs = _first(canary, looks), _first(production, looks)
        step, watch = rolled_out(weight, ours, theirs), watched(ours, theirs)
        out = out or step.decision == "abort"
        back = back or watch.decision == "unhealthy"
        asked = asked or any(one.evidence.get("page") for one in (*step.findings, *watch.findings))
        if out or back:
            break  # one of the two serves alone now
    return out, back, asked


def incident(kind: str, draw: np.random.Generator) -> tuple[Arm, Arm, int]:
    """((failed, all) of the canary, the same of Production, percent of the canary); shape (looks,) each."""
    weight = int(draw.choice(RULES.weights[:-1]))
    total = draw.poisson(draw.uniform(300, 1500), LOOKS)
    canary = draw.binomial(total, np.clip(weight / 100 * draw.uniform(0.5, 1.5, LOOKS), 0, 1))
    calm, high = draw.uniform(0.002, 0.02), draw.uniform(0.2, 0.6)
    down = np.where(np.arange(LOOKS) >= BEGINS, np.clip(high * np.exp(draw.normal(0, 0.3, LOOKS)), 0, 0.95), calm)
    rates = [down if kind in {"both", arm} else np.full(LOOKS, calm) for arm in KINDS[1:]]
    rest = total - canary
    return (draw.binomial(canary, rates[0]), canary), (draw.binomial(rest, rates[1]), rest), weight


def _first(arm: Arm, looks: int) -> Arm:
    return arm[0][:looks], arm[1][:looks]


def rolled_out(weight: int, canary: Arm, production: Arm) -> Verdict:
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
    return rollout.judge(evidence, RULES, HEALTH, problem="binary")


def watched(canary: Arm, production: Arm) -> Verdict:
    """The watch's own verdict on Production at the same tick."""
    now = START + len(canary[0]) * MINUTE
    evidence = HealthEvidence(
        looks=looks_of(*production, "errors"),
        now=now,
        started=START,
        last_request=now,
        beside=Beside(version="2", role="canary", looks=looks_of(*canary, "errors")),
    )
    return health.judge(evidence, HEALTH, problem="binary", planned_looks=LOOKS)


if __name__ == "__main__":
    raise SystemExit(proof.run("shared_cause", prove))
