"""How long it takes to tell who served at a moment, since when, decided by what, on which evidence.

``python -m benchmarks.history``: one model with 10,000 transitions, each with its gate and shadow verdicts and their
evidence, asked for 1,000 random moments. The peer, in the same run, is MLflow's registry alone: it keeps the present
stage of each version and when that version was last changed, so most of its answers about the past are wrong.

``--ledger`` takes the URL of an empty PostgreSQL database; empty: a SQLite file.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from benchmarks.proof import Line, conclude
from tasks.audit import account
from tasks.ledger import Ledger
from tasks.records import Finding, Verdict

MODEL = "churn"
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
EVERY = timedelta(hours=6)
LIMIT_MS = 50.0


@dataclass
class Clock:
    """Tells the ledger when a transition takes effect."""

    now: datetime = BEGIN

    def __call__(self) -> datetime:
        """The moment that was set."""
        return self.now


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        milliseconds: Of each question.
        wrong: Answers that name another version than the one that served, or no evidence.
        verify: Seconds to check the whole chain.
        misfits: What the check found.
    """

    milliseconds: tuple[float, ...] = field(repr=False)
    wrong: int
    verify: float
    misfits: int

    @property
    def p99(self) -> float:
        """In milliseconds."""
        return float(np.quantile(self.milliseconds, 0.99))


def fill(ledger: Ledger, clock: Clock, transitions: int) -> None:
    """One promotion after the other, each with its verdicts, through the ledger's own doors."""
    for number in range(1, transitions + 1):
        clock.now = BEGIN + number * EVERY
        for judge, decision in (("gate", "pass"), ("shadow", "promote")):
            finding = Finding(name="performance", outcome="ok", reason="accuracy 0.912", value=0.912, n=5000)
            verdict = Verdict(judge=judge, decision=decision, reason="it is better", findings=(finding,))  # type: ignore[arg-type]
            evidence = f"{judge} of version {number}".encode()
            ledger.record(MODEL, verdict, trail=f"t{number}", at=clock.now, version=str(number), dossier=evidence)
        with ledger.holding(MODEL) as held:
            pending = held.intend(
                based_on=number - 1,
                action="promote",
                version=str(number),
                actor="flows.retrain",
                reason=f"version {number} is better",
                at=clock.now,
                trail=f"t{number}",
                evidence={"verdicts": [verdict]},
            )
            held.settle(pending, "applied")


def ask(ledger: Ledger, transitions: int, questions: int) -> Measured:
    """Ask for random moments; the version that served is known from when each took effect."""
    draw = random.Random(1)
    times: list[float] = []
    wrong = 0
    for _ in range(questions):
        moment = BEGIN + draw.random() * (transitions + 1) * EVERY
        begun = time.perf_counter()
        found = account(ledger, MODEL, moment)
        times.append(1000 * (time.perf_counter() - begun))
        served = int((moment - BEGIN) / EVERY)
        if found is None:
            wrong += served != 0
        else:
            right = found.transition.version == str(served) and len(found.decisions) == 2
            wrong += not (right and all(one.evidence for one in found.decisions))
    begun = time.perf_counter()
    misfits = len(ledger.misfits(MODEL))
    return Measured(tuple(times), wrong, time.perf_counter() - begun, misfits)


def peer(folder: Path, transitions: int, questions: int) -> float:
    """Share of wrong answers of MLflow's registry alone: five versions that take turns in Production.

    The best guess that it allows: the version that is in Production was so since it was last changed; before that, the
    version that was changed last before the moment.
    """
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model(MODEL)
    for _ in range(5):
        client.create_model_version(MODEL, source=str(folder))
    draw = random.Random(2)
    served: list[tuple[int, str]] = []
    for _ in range(transitions):
        version = str(draw.randint(1, 5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated
            moved = client.transition_model_version_stage(MODEL, version, "Production", archive_existing_versions=True)
        served.append((moved.last_updated_timestamp, version))
    versions = client.search_model_versions(f"name='{MODEL}'")
    wrong = 0
    for _ in range(questions):
        moment = draw.randint(served[0][0], served[-1][0])
        right = [version for at, version in served if at <= moment][-1]
        before = [one for one in versions if one.last_updated_timestamp <= moment]
        guess = max(before, key=lambda one: one.last_updated_timestamp, default=None)
        wrong += guess is None or str(guess.version) != right
    return wrong / questions


def measure(url: str, transitions: int, questions: int) -> tuple[Measured, float]:
    """(what was measured, seconds that one transition took to write)."""
    clock = Clock()
    with Ledger.open(url, clock=clock) as ledger:
        writing = _timed(lambda: fill(ledger, clock, transitions))
        return ask(ledger, transitions, questions), writing / transitions


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Run it and print a table and the JSON line.

    Raises:
        SystemExit: 1 when an answer is wrong or the limit is not kept.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transitions", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--ledger", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstop-") as scratch:
        folder = Path(scratch)
        url = given.ledger or f"sqlite:///{folder / 'ledger.db'}"
        found, writing = measure(url, given.transitions, given.questions)
        wrong = peer(folder, 200, 200)
    print(f"{given.transitions} transitions, {given.questions} questions")
    print(f"{'Backstop':24} p50 {np.median(found.milliseconds):6.2f} ms  p99 {found.p99:6.2f} ms  wrong {found.wrong}")
    print(f"{'MLflow registry alone':24} wrong or no answer {wrong:6.1%}, and no reason, actor or evidence")
    print(
        f"whole chain checked in {found.verify:.2f} s; a transition with two verdicts written in {writing * 1e3:.1f} ms"
    )
    asked = f"of {given.questions:,}, over {given.transitions:,} transitions"
    lines = [
        Line(what="milliseconds of a question, p99", value=found.p99, limit=LIMIT_MS, told=asked),
        Line(what="wrong answers", value=found.wrong, limit=0, told=asked),
        Line(what="misfits in the whole chain", value=found.misfits, limit=0, told=f"checked in {found.verify:.2f} s"),
        Line(
            what="MLflow's registry alone: share of wrong answers or none",
            value=wrong,
            told="and no reason, actor or evidence",
        ),
    ]
    raise SystemExit(conclude("history", lines, rows=True))


if __name__ == "__main__":
    main()
