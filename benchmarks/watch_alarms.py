"""How often a healthy version raises the watch's alarm, beside the rules that people write by hand.

``python -m benchmarks.watch_alarms``: whole watches of 30 looks of a version whose error rate is exactly what the
policy tolerates, the worst case that still counts as healthy, judged by the watch's own function. The peers look at the
same requests: a threshold on each look's rate, and a z-test per look at five per cent.
"""

from __future__ import annotations

import argparse
import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np

from tasks.decide.health import judge
from tasks.decide.intervals import clopper_pearson
from tasks.policy import Health
from tasks.records import HealthEvidence, Look

WATCHES, LOOKS, REQUESTS = 2000, 30, 100
START = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Run it and print a table and the JSON line.

    Raises:
        SystemExit: 1 when the promised rate is not kept.
    """
    argparse.ArgumentParser("python -m benchmarks.watch_alarms", description=__doc__).parse_args()
    rules = Health(latency_p95=None, accuracy=None)
    tolerated = rules.error_rate or 0.1
    errors = np.random.default_rng(1).binomial(REQUESTS, tolerated, size=(WATCHES, LOOKS))
    alarms = sum(unhealthy(row, rules) for row in errors)
    rates = errors / REQUESTS
    z = (rates - tolerated) / math.sqrt(tolerated * (1 - tolerated) / REQUESTS)
    peers = {
        "Backstop": alarms / WATCHES,
        "threshold per look (twice the rate)": float((rates > 2 * tolerated).any(axis=1).mean()),
        "z-test per look at 5 %": float((z > 1.645).any(axis=1).mean()),
    }
    for name, share in peers.items():
        print(f"{name:40} {share:7.2%} of {WATCHES} healthy watches rolled back")
    upper = clopper_pearson(alarms, WATCHES, 0.95)[1]
    ok = alarms / WATCHES <= rules.false_rollback
    line = {
        "name": "watch_alarms",
        "value": alarms / WATCHES,
        "upper_95": upper,
        "limit": rules.false_rollback,
        "ok": ok,
    }
    print(json.dumps(line))
    raise SystemExit(not ok)


def unhealthy(errors: np.ndarray[tuple[int, ...], np.dtype[np.int64]], rules: Health) -> bool:
    """The watch's own verdict on one simulated watch, shape (looks,)."""
    looks = tuple(
        Look(start=START + number * rules.tick, requests=REQUESTS, errors=int(bad), slow=0, labelled=0, wrong=0)
        for number, bad in enumerate(errors)
    )
    now = START + LOOKS * rules.tick
    evidence = HealthEvidence(looks=looks, now=now, started=START, last_request=now - timedelta(seconds=1))
    return judge(evidence, rules, problem="binary", planned_looks=LOOKS).decision == "unhealthy"


if __name__ == "__main__":
    main()
