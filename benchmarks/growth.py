"""How time and memory grow with rows, requests, versions, decisions, models and the age of a deployment.

``python -m benchmarks.growth [--only models] [--quick] [--plot growth.png]``: each thing is measured at
sizes that lie far apart, on databases of this size, and a line is fitted to the logarithms. Its slope is the exponent:
1 is as much longer as there is more of it, and at most 1.1 is wanted everywhere. What must not grow at all, the tick of
a watch with the age of the deployment and with the requests in the log, is held against 0.1. Times are processor
seconds of the process; memory is what was taken at most beyond what was there before.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import create_engine

from benchmarks import aged_home, quiet_home
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

    curve = Curve("gate", "rows")
    rules = Gate.model_validate(
        {"performance": {"metric": "roc_auc", "at_least": 0.6}, "regression": {"metric": "roc_auc"}, "latency": "off"}
    )
    for rows in sizes:
        mine, theirs = answers(rows, seed=0)
        seen = GateEvidence(candidate=mine, production=theirs, latencies=None, size=1, loads=True, baseline="1")
        curve.at(rows, lambda seen=seen: gate.judge(seen, rules, problem="binary"), times=3)  # type: ignore[misc]
    return curve


def triggers_by_rows(sizes: list[int], home: Home) -> Curve:
    """A whole evaluation of the triggers: rows read from SQL, scored, counted and judged."""
    from tasks.dossier import Dossier  # noqa: PLC0415  see gate_by_rows()
    from tasks.retrial import reach  # noqa: PLC0415  see gate_by_rows()
    from tasks.signals import observe  # noqa: PLC0415  see gate_by_rows()

    curve, there, end = Curve("evaluation of the triggers", "new rows"), 0, aged_home.now()
    for rows in sizes:
        frame = customers(rows - there, start=end - timedelta(hours=30), days=1, seed=rows)
        frame["observed_at"] = frame["observed_at"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
        engine = create_engine(f"sqlite:///{home.folder / 'customers.db'}")
        frame.to_sql("customers", engine, index=False, if_exists="append")
        engine.dispose()
        there = rows

        def evaluate() -> None:
            case = aged_home.case(home)
            with case.ledger:
                seen = observe(case, case.standing())
                reach(Dossier("triggers", {"signals": seen.signals, "rules": case.policy.triggers}))

        curve.at(rows, evaluate, times=3)
    return curve


def tick_by_requests(sizes: list[int], home: Home) -> Curve:
    """A quiet tick, however many requests of before are in the log."""
    curve, there = Curve("quiet tick", "requests in the log", CONSTANT), 0
    end = aged_home.now() - 2 * aged_home.DAY
    for size in sizes:
        start = end - 30 * aged_home.DAY  # busier than now, and over: what a tick reads is the present day
        aged_home.requests(home, size - there, start=start, end=end, first=there)
        there = size
        curve.at(size, lambda: aged_home.tick(home), times=15)
    return curve


def tick_by_age(sizes: list[int], _home: Home) -> Curve:
    """A quiet tick of a version that has served for so many days, with a request a minute and a verdict a day."""
    curve, end = Curve("quiet tick", "days in Production", CONSTANT), aged_home.now()
    for days in sizes:
        with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
            aged = quiet_home.make(Path(scratch) / "home", models=0, rows=2_000, now=end, ago=days * aged_home.DAY)
            begun = end - days * aged_home.DAY + quiet_home.AGO
            # On beyond the present: ticks go on while this is measured.
            until = end + timedelta(hours=2)
            aged_home.requests(aged, (until - begun) // timedelta(minutes=1), start=begun, end=until)
            aged_home.decisions(aged, days)
            first = aged_home.tick(aged)
            curve.at(days, lambda aged=aged: aged_home.tick(aged), times=15)  # type: ignore[misc]
            if {first, aged_home.tick(aged)} - {"healthy", "watching"}:
                raise RuntimeError(f"a quiet home of {days} days is not quiet: {first}")
    return curve


def tick_by_versions(sizes: list[int], home: Home) -> Curve:
    """A quiet tick of a model with so many versions, MLflow glanced at as the flow does."""
    from tasks.glance import Glance  # noqa: PLC0415  see gate_by_rows()

    curve = Curve("quiet tick", "versions of the model")
    for size in sizes:
        with _fresh(home) as grown:
            aged_home.versions(grown, size)

            def look(grown: Home = grown) -> None:
                with aged_home.case(grown).ledger as ledger:
                    if Glance(grown.stores.tracking).differs(ledger.standing(aged_home.MODEL)):
                        raise RuntimeError("the grown home is not as its ledger says")
                aged_home.tick(grown)

            curve.at(size, look, times=15)
    return curve


def move_by_versions(sizes: list[int], home: Home) -> Curve:
    """A version moved to Staging and taken out again, of a model with so many versions."""
    from tasks.registry import Registry  # noqa: PLC0415  see gate_by_rows()

    curve = Curve("two transitions", "versions of the model")
    for size in sizes:
        with _fresh(home) as grown:
            aged_home.versions(grown, size)
            registry = Registry(grown.stores)

            def move(grown: Home = grown, registry: Registry = registry) -> None:
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

            curve.at(size, move, times=3)
    return curve


def ledger_by_decisions(sizes: list[int], home: Home) -> Curve:
    """What flows ask the ledger when they begin."""
    from tasks.past import earlier  # noqa: PLC0415  see gate_by_rows()
    from tasks.records import Span  # noqa: PLC0415  see gate_by_rows()

    curve = Curve("questions to the ledger", "decisions")
    for size in sizes:
        with _fresh(home) as grown:
            for judge in ("health", "triggers"):
                aged_home.decisions(grown, size // 2, judge)

            def ask(grown: Home = grown) -> None:
                case = aged_home.case(grown)
                with case.ledger as ledger:
                    standing = ledger.standing(aged_home.MODEL)
                    earlier(case, standing)
                    ledger.serving(aged_home.MODEL)
                    ledger.serving_at(aged_home.MODEL, case.now)
                    ledger.gate_on(aged_home.MODEL, "1")
                    ledger.attempts_on(aged_home.MODEL, Span(start=case.now - aged_home.DAY, end=case.now))

            curve.at(size, ask, times=15)
    return curve


def chain_by_decisions(sizes: list[int], home: Home) -> Curve:
    """The whole history of a model checked, link by link."""
    curve = Curve("check of the chain", "decisions")
    for size in sizes:
        with _fresh(home) as grown:
            aged_home.decisions(grown, size)

            def check(grown: Home = grown) -> None:
                with aged_home.case(grown).ledger as ledger:
                    if ledger.misfits(aged_home.MODEL):
                        raise RuntimeError("the grown ledger does not hold together")

            curve.at(size, check, times=3)
    return curve


def watch_by_models(sizes: list[int], home: Home) -> Curve:
    """One run of the watch over so many models, in a process of its own."""
    curve = Curve("one run of the watch", "models")
    for size in sizes:
        with _fresh(home) as grown:
            folder = aged_home.models(grown, size)
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.watch_many", str(folder)],
                env={**os.environ, "BACKSTOP_HOME": str(grown.folder)},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            told = json.loads(done.stdout.strip().rpartition("\n")[2])
            if told["models"] != size or not set(told["decisions"]) <= {"healthy", "watching"}:
                raise RuntimeError(f"the watch over {size} models came to {told}")
            curve.sizes.append(size)
            curve.seconds.append(told["cpu"])
            curve.megabytes.append(told["megabytes"])
    return curve


class _fresh:  # noqa: N801  read as a function: with _fresh(home) as grown
    """A copy of a home, for as long as it is measured."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._scratch = tempfile.TemporaryDirectory(prefix="growth-")

    def __enter__(self) -> Home:
        return aged_home.copied(self._home, Path(self._scratch.__enter__()) / "home")

    def __exit__(self, *problem: object) -> None:
        self._scratch.cleanup()


CURVES: dict[str, tuple[Callable[[list[int], Home], Curve], list[int], list[int]]] = {
    "gate": (gate_by_rows, [10_000, 30_000, 100_000, 300_000, 1_000_000], [1_000, 10_000]),
    "triggers": (triggers_by_rows, [5_000, 20_000, 80_000, 320_000], [2_000, 4_000]),
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
            with _fresh(base) as home:
                curves.append(measure(few if given.quick else sizes, home))
    if place := given.plot or (None if given.only or given.quick else IMAGES / "bench-growth.png"):
        plotted(curves, place)
    raise SystemExit(conclude("growth", [line for curve in curves for line in curve.lines()], rows=True))


if __name__ == "__main__":
    main()
