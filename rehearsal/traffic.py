"""Traffic: the requests that users would have sent, answered by what is in Production and put into the request log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from tasks.case import Case
from tasks.data import Dataset
from tasks.requests import Label, RequestLog, Served
from tasks.scoring import classes_of, score


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong in service.

    Attributes:
        errors: Share of the requests that fail.
        latency: Median seconds per request.
    """

    errors: float = 0.0
    latency: float = 0.02


HEALTHY = Faults()


def serve(case: Case, rows: Dataset, *, faults: Faults = HEALTHY, labels: bool = True, seed: int = 0) -> int:
    """Answer every row at its own time, as the version in Production would have, and log it.

    Args:
        case: Whose model.
        rows: One request each; their times are the times of the requests.
        faults: What goes wrong.
        labels: Whether the labels are known right away.
        seed: Of which requests fail and how long they take.

    Returns:
        How many requests were logged.
    """
    standing = case.standing()
    if standing.production is None or not len(rows):
        return 0
    model = case.registry().load(case.ledger, case.policy, standing.production)
    scores = score(model, rows, classes=classes_of(model, rows, case.policy))
    draw = np.random.default_rng(seed)
    failed = draw.random(len(rows)) < faults.errors
    seconds = faults.latency * np.exp(draw.normal(0.0, 0.4, len(rows)))
    answers = [scores.classes[int(code)] for code in scores.prediction] if scores.classes else scores.prediction
    features = rows.features.astype(object).where(rows.features.notna(), None).to_dict("records")
    served = [
        Served(
            request_id=f"{case.model}-{standing.production}-{moment:%Y%m%d%H%M%S%f}-{number}",
            model=case.model,
            version=standing.production,
            at=moment.to_pydatetime(),
            seconds=float(seconds[number]),
            failed=bool(failed[number]),
            features={str(name): value for name, value in features[number].items()},
            prediction=None if failed[number] else str(answers[number]),
        )
        for number, moment in enumerate(rows.time)
    ]
    with RequestLog.open(case.stores.requests) as log:
        log.record(served)
        if labels:
            log.label(
                Label(request_id=request.request_id, model=case.model, label=str(label), at=request.at)
                for request, label in zip(served, rows.target, strict=True)
                if pd.notna(label)
            )
    return len(served)


def spread(rows: Dataset, start: datetime, length: timedelta) -> Dataset:
    """The same rows as requests at even steps over a stretch of time, without their labels' times."""
    step = length / max(1, len(rows))
    return replace(rows, time=rows.time.__class__([start + step * number for number in range(len(rows))]))
