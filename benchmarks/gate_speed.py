"""What the gate costs beyond its limit: each model scores the holdout once, and single rows are timed.

``python -m benchmarks.gate_speed [--rows 200000,1000000] [--rounds 5]``: in turn, round after round, on the same
holdout: the limit, and the product's own steps from scoring the candidate to the verdict; afterwards, once, the
textbook's class, whose checks each ask the models anew. Compared are processor seconds of the process, which other
processes do not change; BLAS and OpenMP have one thread. Both models are in memory; what a whole step of the flow
costs, with Production loaded from its files, the candidate tried out in a fresh process and the evidence packed for the
ledger, is shown in seconds.

Beside it, on a million rows: comparing two AUCs against two calls of scikit-learn's ``roc_auc_score``, and the interval
of a difference of F1 against a single replicate of a bootstrap that draws rows, which an interval would need a thousand
of.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.proof import Line, as_they_come, conclude
from tasks import artifact, candidate, evidence, promotion
from tasks.candidate import Made
from tasks.case import Case, open_case
from tasks.data import Dataset, Split
from tasks.decide import gate
from tasks.decide.metrics import measure, paired
from tasks.dossier import Dossier, pack
from tasks.policy import Policy
from tasks.records import GateEvidence, Scores, Standing, Verdict
from tasks.registry import Registry
from tasks.scoring import latencies, score
from tasks.stores import Stores

COLUMNS, TRAINED = 20, 20_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ESTIMATORS = {
    "random forest": ("sklearn.ensemble:RandomForestClassifier", {"n_estimators": 100}),
    "gradient boosting": ("sklearn.ensemble:HistGradientBoostingClassifier", {"max_iter": 100}),
}


def dataset(rows: int, *, seed: int, before: datetime = NOW) -> Dataset:
    """Numbers, and a label that some of them tell; one row a second."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(rows, COLUMNS))
    told = values[:, :5] @ np.array([1.0, -0.8, 0.6, 0.4, 0.2]) + draw.normal(size=rows) > 0
    return Dataset(
        features=pd.DataFrame(values, columns=[f"x{number}" for number in range(COLUMNS)]),
        target=pd.Series(np.where(told, "yes", "no"), dtype=object),
        time=pd.date_range(end=before, periods=rows, freq="s", unit="us"),
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """A candidate that is to be judged.

    Attributes:
        case: Of the model.
        standing: With a version in Production.
        made: The candidate.
        production: The model in Production, loaded.
    """

    case: Case
    standing: Standing
    made: Made
    production: Any


def stage(folder: Path, name: str, rows: int, *, trained: int = TRAINED, calls: int = 1000) -> Stage:
    """Two versions, trained, logged and registered by the product; the first one is promoted.

    Args:
        folder: For the stores.
        name: Of the estimator.
        rows: Of the holdout.
        trained: Rows that are fitted.
        calls: Single rows that are timed.
    """
    estimator, params = ESTIMATORS[name]
    policy = Policy.model_validate(
        {
            "model": name.replace(" ", "-"),
            "data": {"source": "not-read.csv", "target": "left", "timestamp": "at"},
            "training": {"estimator": estimator, "params": params, "preprocess": "none"},
            "gate": {
                "performance": {"metric": "accuracy", "at_least": 0.6},
                "latency": {"p99": "10s", "calls": calls},  # so slow that no second round is measured
                "fresh_process": False,
            },
            "shadow": "off",
        }
    )
    case = open_case(policy, actor="benchmarks.gate_speed", now=NOW, stores=Stores.at(folder))
    why = Verdict(judge="triggers", decision="retrain", reason="a benchmark", findings=())
    holdout = dataset(rows, seed=0)
    made: list[Made] = []
    for seed in (1, 2):
        parts = Split(train=dataset(trained, seed=seed, before=holdout.time[0].to_pydatetime()), holdout=holdout)
        made.append(candidate.make(case, parts, why, folder))
        if not case.standing().production:
            promotion.advance(case, promotion.stage(case, case.standing(), "1", why))
    standing = case.standing()
    return Stage(case, standing, made[-1], case.registry().load(case.ledger, policy, str(standing.production)))


def limit(on: Stage) -> None:
    """What nobody can do without: each model scores the holdout once, and single rows are timed."""
    holdout = on.made.split.holdout
    on.production.predict_proba(holdout.features)
    on.made.fitted.model.predict_proba(holdout.features)
    latencies(on.made.fitted.model, holdout.features, calls=_calls(on))


def ours(on: Stage) -> Verdict:
    """From the fitted candidate to the verdict, by the product's own steps."""
    return gate.judge(gathered(on), on.case.policy.gate, problem="binary")


def gathered(on: Stage) -> GateEvidence:
    """The evidence, with the candidate's own pass over the holdout in it; Production is in memory already."""
    made = on.made
    answers = score(made.fitted.model, made.split.holdout, classes=made.scores.classes)
    with patch.object(Registry, "load", lambda *_: on.production):
        return evidence.for_gate(on.case, on.standing, replace(made, scores=answers))


def step(on: Stage) -> None:
    """The step of the flow, with all that is asked of files, of a fresh process and of the ledger."""
    gates = on.case.policy.gate.model_copy(update={"fresh_process": True})
    case = replace(on.case, policy=on.case.policy.model_copy(update={"gate": gates}))
    found = evidence.for_gate(case, on.standing, on.made)
    gate.judge(found, gates, problem="binary")
    pack(Dossier("gate", {"evidence": found, "rules": gates, "problem": "binary"}))


def textbook(on: Stage) -> bool:
    """The class that one finds in books: five checks, and each asks the models for what it needs."""
    from sklearn.metrics import accuracy_score, f1_score  # noqa: PLC0415  only this peer needs it

    model, before, holdout = on.made.fitted.model, on.production, on.made.split.holdout
    rows, truth = holdout.features, holdout.target.to_numpy()
    accurate = accuracy_score(truth, model.predict(rows)) >= 0.6
    mine, theirs = (f1_score(truth, one.predict(rows), average="weighted") for one in (model, before))
    both = np.corrcoef(model.predict_proba(rows)[:, 1], before.predict_proba(rows)[:, 1])
    fast = np.quantile(latencies(model, rows, calls=_calls(on)), 0.99) <= 10
    small = artifact.size(on.made.folder) < 500e6
    return bool(accurate and mine >= theirs - 0.02 and both[0, 1] >= 0.8 and fast and small)


def _calls(on: Stage) -> int:
    check = on.case.policy.gate.latency
    return check.calls if check else 0


def timed(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each, in turn, round after round."""
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            took[name].append(time.process_time() - start)
    return took


def ratio(took: dict[str, list[float]], one: str, other: str) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(took[one], took[other], strict=True))


def gates(name: str, rows: int, rounds: int, calls: int) -> list[Line]:
    """The gate on so many rows."""
    with tempfile.TemporaryDirectory(prefix="gate-speed-") as scratch:
        on = stage(Path(scratch), name, rows, calls=calls)
        with on.case.ledger:
            verdict = ours(on)
            if verdict.decision != "pass":
                print(f"{name}: the gate says {verdict.decision}: {verdict.reason}", file=sys.stderr)
            took = timed({"limit": lambda: limit(on), "ours": lambda: ours(on)}, rounds)
            (told_by_books,) = timed({"textbook": lambda: textbook(on)}, 1)["textbook"]
            start = time.monotonic()
            step(on)
            whole = time.monotonic() - start
    seconds = statistics.median(took["limit"])
    what = f"{name}, {rows:,} rows"
    more = statistics.median(a - b for a, b in zip(took["ours"], took["limit"], strict=True))
    told = f"limit {seconds:.2f} s, {1000 * more:+.0f} ms; a whole step {whole:.1f} s of wall clock"
    return [
        Line(what=f"{what}: gate against its limit", value=ratio(took, "ours", "limit"), limit=1.05, told=told),
        Line(what=f"{what}: the textbook's class", value=told_by_books / seconds, told="for comparison"),
    ]


def answers(rows: int, *, seed: int) -> tuple[Scores, Scores]:
    """Two models' answers to the same rows; the scores of one have ties, those of the other nearly none."""
    draw = np.random.default_rng(seed)
    truth = (draw.random(rows) < 0.3).astype(np.intp)
    found = []
    for digits in (3, 15):
        said = np.round(1 / (1 + np.exp(-(2.0 * truth - 1 + draw.normal(size=rows)))), digits)
        both = np.column_stack([1 - said, said])
        found.append(Scores(truth=truth, prediction=(said > 0.5).astype(np.intp), probability=both, classes=("0", "1")))
    return found[0], found[1]


def metrics(rows: int, rounds: int) -> list[Line]:
    """Comparing two models that have answered already."""
    from sklearn.metrics import f1_score, roc_auc_score  # noqa: PLC0415  only these peers need it

    mine, theirs = answers(rows, seed=0)
    draw = np.random.default_rng(1)

    def replicate(*models: Scores) -> None:
        drawn = draw.integers(0, rows, rows)
        for one in models:
            f1_score(one.truth[drawn], one.prediction[drawn])

    def aucs() -> None:
        for one in (mine, theirs):
            roc_auc_score(one.truth, one.probability[:, 1])  # type: ignore[index]

    took = timed(
        {
            "auc": lambda: paired("roc_auc", mine, theirs).at(0.95),
            "aucs": aucs,
            "f1": lambda: paired("f1", mine, theirs).at(0.95),
            "f1s": lambda: replicate(mine, theirs),
            "f1 of one": lambda: measure("f1", mine),
            "f1s of one": lambda: replicate(mine),
        },
        2 * rounds + 1,
    )
    middle = {name: 1000 * statistics.median(values) for name, values in took.items()}

    def line(what: str, one: str, other: str, most: float) -> Line:
        told = f"{middle[one]:.1f} ms against {middle[other]:.0f} ms"
        return Line(what=f"{rows:,} rows: {what}", value=ratio(took, one, other), limit=most, told=told)

    return [
        line("two AUCs compared, with an interval, against two roc_auc_score", "auc", "aucs", 1 / 3),
        line("interval of an F1 difference against one replicate that draws rows", "f1", "f1s", 1 / 30),
        line("interval of one F1 against one replicate that draws rows", "f1 of one", "f1s of one", 1 / 30),
    ]


def main() -> None:
    """Run it, print the table and the JSON line.

    Raises:
        SystemExit: 1 when a limit is not kept.
    """
    asked = argparse.ArgumentParser(prog="python -m benchmarks.gate_speed")
    asked.add_argument("--rows", default="200000,1000000", help="of the holdout, with commas between")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--calls", type=int, default=1000, help="single rows that are timed; fewer are a stricter limit")
    asked.add_argument("--only", choices=[*ESTIMATORS, "metrics"], help="one of the parts")
    given = asked.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # MLflow's stages are deprecated
    sizes = [int(one) for one in given.rows.split(",")]
    found = [] if given.only in ESTIMATORS else as_they_come(metrics(max(sizes), given.rounds))
    for rows in sizes:
        rounds = given.rounds if rows <= 200_000 else -(-given.rounds // 2)  # a million rows take minutes
        names = [name for name in ESTIMATORS if given.only in {None, name}]
        found += as_they_come(line for name in names for line in gates(name, rows, rounds, given.calls))
    raise SystemExit(conclude("gate_speed", found, rows=True))


if __name__ == "__main__":
    main()
