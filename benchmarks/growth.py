"""How time and memory grow with rows, features, requests, versions, decisions, models and the age of a deployment.

``python -m benchmarks.growth [--only models] [--quick] [--plot growth.png]``: each thing is measured at
sizes that lie far apart, on databases of this size, all sizes in turn and round after round, and a line is fitted to
the logarithms. Its slope is the exponent: 1 is as much longer as there is more of it, and at most 1.1 is wanted
everywhere, at most 1.25 of the step to the largest size alone. What must not grow at all, the tick of a watch with the
age of the deployment and with the requests in the log, is held against 0.1 and against half as much again at the
largest size. Times are processor seconds of the process; memory is what was taken at most beyond what was there before.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from benchmarks import aged_home, quiet_home, wide_home
from benchmarks.curve import CONSTANT, Curve, plotted
from benchmarks.exponent import IMAGES
from benchmarks.gate_speed import answers
from benchmarks.proof import conclude
from benchmarks.quiet_home import Home
from rehearsal.churn import customers

ROOT = Path(__file__).resolve().parents[1]


def gate_by_rows(sizes: list[int], _home: Home) -> Curve:
    """The gate's verdict on scores that are there, by a metric of ranks."""
    from tasks.decide import gate  # noqa: PLC0415  what is measured is imported by whoever measures it
    from tasks.policy import Gate  # noqa: PLC0415  see above
    from tasks.records import GateEvidence  # noqa: PLC0415  see above

    rules = Gate.model_validate(
        {"performance": {"metric": "roc_auc", "at_least": 0.6}, "regression": {"metric": "roc_auc"}, "latency": "off"}
    )

    def of(rows: int) -> Callable[[], object]:
        mine, theirs = answers(rows, seed=0)
        seen = GateEvidence(candidate=mine, production=theirs, latencies=None, size=1, loads=True, baseline="1")
        return lambda: gate.judge(seen, rules, problem="binary")

    return Curve("gate", "rows").over({rows: of(rows) for rows in sizes}, times=3)


def triggers_by_rows(sizes: list[int], home: Home) -> Curve:
    """A whole evaluation of the triggers: rows read from SQL, scored, counted and judged."""
    with _grown(home, sizes) as homes:
        for rows, grown in homes.items():
            frame = customers(rows, start=aged_home.now() - timedelta(hours=30), days=1, seed=rows)
            frame["observed_at"] = frame["observed_at"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
            engine = create_engine(f"sqlite:///{grown.folder / 'customers.db'}")
            frame.to_sql("customers", engine, index=False, if_exists="append")
            engine.dispose()
        jobs = {rows: partial(evaluate, grown) for rows, grown in homes.items()}
        return Curve("evaluation of the triggers", "new rows").over(jobs, times=3)


def triggers_by_features(sizes: list[int], _home: Home) -> Curve:
    """The same out of a file, of so many columns that are as they were."""
    return _wide("evaluation of the triggers", sizes, renamed=False)


def triggers_by_renamed(sizes: list[int], _home: Home) -> Curve:
    """The same where every column has another name now: each of them is missing, and each of them is new."""
    return _wide("evaluation of renamed columns", sizes, renamed=True)


def _wide(what: str, sizes: list[int], *, renamed: bool) -> Curve:
    with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
        homes = {size: wide_home.make(Path(scratch) / str(size), size, renamed=renamed) for size in sizes}
        jobs = {size: partial(evaluate, home) for size, home in homes.items()}
        return Curve(what, "features").over(jobs, times=3)


def tick_by_requests(sizes: list[int], home: Home) -> Curve:
    """A quiet tick, however many requests of before are in the log."""
    end = aged_home.now() - 2 * aged_home.DAY  # busier than now, and over: what a tick reads is the present day
    with _grown(home, sizes) as homes:
        for size, grown in homes.items():
            aged_home.requests(grown, size, start=end - 30 * aged_home.DAY, end=end)
        jobs = {size: partial(aged_home.tick, grown) for size, grown in homes.items()}
        return Curve("quiet tick", "requests in the log", CONSTANT).over(jobs, times=15)


def tick_by_age(sizes: list[int], _home: Home) -> Curve:
    """A quiet tick of a version that has served for so many days, with a request a minute and a verdict a day."""
    end = aged_home.now()
    with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
        jobs: dict[int, Callable[[], object]] = {}
        for days in sizes:
            folder = Path(scratch) / str(days)
            aged = quiet_home.make(folder, models=0, rows=2_000, now=end, ago=days * aged_home.DAY)
            begun = end - days * aged_home.DAY + quiet_home.AGO
            # On beyond the present: ticks go on while this is measured.
            until = end + timedelta(hours=2)
            aged_home.requests(aged, (until - begun) // timedelta(minutes=1), start=begun, end=until)
            aged_home.decisions(aged, days)
            jobs[days] = partial(_quiet, aged)
        return Curve("quiet tick", "days in Production", CONSTANT).over(jobs, times=15)


def _quiet(home: Home) -> None:
    """A tick, of which nothing else is expected."""
    if (decision := aged_home.tick(home)) not in {"healthy", "watching"}:
        raise RuntimeError(f"the home in {home.folder} is not quiet: {decision}")


def tick_by_versions(sizes: list[int], home: Home) -> Curve:
    """A quiet tick of a model with so many versions, MLflow glanced at as the flow does."""
    from tasks.glance import Glance  # noqa: PLC0415  see gate_by_rows()

    def look(grown: Home) -> None:
        with aged_home.case(grown).ledger as ledger:
            if Glance(grown.stores.tracking).differs(ledger.standing(aged_home.MODEL)):
                raise RuntimeError("the grown home is not as its ledger says")
        aged_home.tick(grown)

    with _grown(home, sizes, aged_home.versions) as homes:
        jobs = {size: partial(look, grown) for size, grown in homes.items()}
        return Curve("quiet tick", "versions of the model").over(jobs, times=15)


def move_by_versions(sizes: list[int], home: Home) -> Curve:
    """A version moved to Staging and taken out again, of a model with so many versions."""
    from tasks.registry import Registry  # noqa: PLC0415  see gate_by_rows()

    def move(grown: Home, registry: Registry) -> None:
        with aged_home.case(grown).ledger as ledger:
            for action in ("stage", "reject"):
                registry.move(
                    ledger,
                    ledger.standing(aged_home.MODEL),
                    action=action,
                    version="2",
                    actor="benchmarks.growth",
                    reason="to measure",
                    at=aged_home.now(),
                    trail="t",
                )

    with _grown(home, sizes, aged_home.versions) as homes:
        jobs = {size: partial(move, grown, Registry(grown.stores)) for size, grown in homes.items()}
        return Curve("two transitions", "versions of the model").over(jobs, times=3)


def ledger_by_decisions(sizes: list[int], home: Home) -> Curve:
    """What flows ask the ledger when they begin."""
    from tasks.past import earlier  # noqa: PLC0415  see gate_by_rows()
    from tasks.records import Span  # noqa: PLC0415  see gate_by_rows()

    def ask(grown: Home) -> None:
        case = aged_home.case(grown)
        with case.ledger as ledger:
            standing = ledger.standing(aged_home.MODEL)
            earlier(case, standing)
            ledger.serving(aged_home.MODEL)
            ledger.serving_at(aged_home.MODEL, case.now)
            ledger.gate_on(aged_home.MODEL, "1")
            ledger.attempts_on(aged_home.MODEL, Span(start=case.now - aged_home.DAY, end=case.now))

    with _grown(home, sizes) as homes:
        for size, grown in homes.items():
            for judge in ("health", "triggers"):
                aged_home.decisions(grown, size // 2, judge)
        jobs = {size: partial(ask, grown) for size, grown in homes.items()}
        return Curve("questions to the ledger", "decisions").over(jobs, times=15)


def chain_by_decisions(sizes: list[int], home: Home) -> Curve:
    """The whole history of a model checked, link by link."""

    def check(grown: Home) -> None:
        with aged_home.case(grown).ledger as ledger:
            if ledger.misfits(aged_home.MODEL):
                raise RuntimeError("the grown ledger does not hold together")

    with _grown(home, sizes, aged_home.decisions) as homes:
        jobs = {size: partial(check, grown) for size, grown in homes.items()}
        return Curve("check of the chain", "decisions").over(jobs, times=3)


def watch_by_models(sizes: list[int], home: Home) -> Curve:
    """One run of the watch over so many models, in a process of its own."""
    curve = Curve("one run of the watch", "models")
    with _grown(home, sizes) as homes:
        folders = {size: aged_home.models(grown, size) for size, grown in homes.items()}
        told = [{size: _watched(homes[size], folders[size], size) for size in sizes} for _ in range(2)]
    curve.sizes.extend(sizes)
    curve.seconds.extend(statistics.mean(one[size]["cpu"] for one in told) for size in sizes)
    curve.megabytes.extend(statistics.mean(one[size]["megabytes"] for one in told) for size in sizes)
    return curve


def _watched(home: Home, folder: Path, models: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.watch_many", str(folder)],
        env={**os.environ, "BACKSTOP_HOME": str(home.folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    if told["models"] != models or not set(told["decisions"]) <= {"healthy", "watching"}:
        raise RuntimeError(f"the watch over {models} models came to {told}")
    return told


def evaluate(home: Home) -> None:
    """What ``drift_detect`` does but for what it writes down."""
    from tasks.dossier import Dossier  # noqa: PLC0415  see gate_by_rows()
    from tasks.retrial import reach  # noqa: PLC0415  see gate_by_rows()
    from tasks.signals import observe  # noqa: PLC0415  see gate_by_rows()

    case = aged_home.case(home)
    with case.ledger:
        seen = observe(case, case.standing())
        reach(Dossier("triggers", {"signals": seen.signals, "rules": case.policy.triggers}))


@contextmanager
def _grown(
    home: Home, sizes: Sequence[int], grow: Callable[[Home, int], object] | None = None
) -> Iterator[dict[int, Home]]:
    """A copy of a home for every size, for as long as they are measured."""
    with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
        homes = {size: aged_home.copied(home, Path(scratch) / str(size)) for size in sizes}
        if grow is not None:
            for size, copy in homes.items():
                grow(copy, size)
        yield homes


CURVES: dict[str, tuple[Callable[[list[int], Home], Curve], list[int], list[int]]] = {
    "gate": (gate_by_rows, [10_000, 30_000, 100_000, 300_000, 1_000_000], [1_000, 10_000]),
    "triggers": (triggers_by_rows, [5_000, 20_000, 80_000, 320_000], [2_000, 4_000]),
    "features": (triggers_by_features, [10, 100, 1_000, 3_000], [3, 5]),
    "renamed": (triggers_by_renamed, [10, 100, 1_000, 3_000], [3, 5]),
    "requests": (tick_by_requests, [10_000, 100_000, 1_000_000, 3_000_000], [1_000, 10_000]),
    "age": (tick_by_age, [2, 20, 100, 365], [2, 4]),
    "versions": (tick_by_versions, [1, 10, 100, 1_000], [1, 10]),
    "moves": (move_by_versions, [1, 10, 100, 1_000], [1, 10]),
    "decisions": (ledger_by_decisions, [100, 1_000, 10_000, 100_000], [100, 1_000]),
    "chain": (chain_by_decisions, [100, 1_000, 10_000, 100_000], [100, 1_000]),
    "models": (watch_by_models, [1, 10, 100, 1_000], [1, 10]),
}


def main() -> None:
    """Run it, print the table and the JSON line.

    Raises:
        SystemExit: 1 when something grows faster than it may.
    """
    asked = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    asked.add_argument("--only", default="", help=f"with commas between: {', '.join(CURVES)}")
    asked.add_argument("--quick", action="store_true", help="small sizes, which say nothing about growth")
    asked.add_argument("--plot", type=Path, help="where the picture is written; that of all curves goes to the page")
    given = asked.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # MLflow's stages are deprecated
    curves = []
    with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
        base = quiet_home.make(Path(scratch) / "base", models=0, rows=2_000)
        for name, (measure, sizes, few) in CURVES.items():
            if given.only and name not in given.only.split(","):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            curves.append(measure(few if given.quick else sizes, base))
    if place := given.plot or (None if given.only or given.quick else IMAGES / "bench-growth.png"):
        plotted(curves, place)
    raise SystemExit(conclude("growth", [line for curve in curves for line in curve.lines()], rows=True))


if __name__ == "__main__":
    main()
