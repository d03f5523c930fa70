"""What the product adds to what has to be done anyway: imports, registering, moving a version, a whole retraining.

``python -m benchmarks.overheads [--only imports,moves,registering,retraining] [--rounds 5]``. In turn, round after
round; the value is the median of the rounds' ratios.

``imports``
    All modules of ``tasks.decide`` against numpy and scipy, in fresh processes, the interpreter's own start taken off
    both. scipy loads its parts when they are asked for: compared are both sides with the part that judgement uses.
``moves``
    The transition itself (the intent, MLflow's bare ``transition_model_version_stage`` and the outcome) against the
    bare call, on SQLite; and a whole promotion by the registry, which also asks whether the version exists, sets the
    alias and five tags, and reads everything back: against MLflow's calls for it, and against the transition alone.
``registering``
    A training logged and its model registered, with signature, example, digest and profile, against ``joblib.dump`` of
    the model. Beside it ``skops.io.dump`` alone, the price of a file that can be loaded without running what it holds,
    and MLflow's own ``log_model`` into such a file, told all that it would otherwise find out by itself.
``retraining``
    A forced run of ``retrain`` against a server, against the same scikit-learn work in a plain script and a flow that
    does nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.proof import Line, as_they_come, conclude

ROOT = Path(__file__).resolve().parents[1]


def ratio(rounds: Sequence[tuple[float, ...]], one: int, other: int) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(took[one] / took[other] for took in rounds)


def middle(rounds: Sequence[tuple[float, ...]], one: int) -> float:
    """Median milliseconds."""
    return 1000 * statistics.median(took[one] for took in rounds)


def walled(*jobs: Callable[[], object]) -> tuple[float, ...]:
    """Seconds of wall clock of each, one after the other."""
    took = []
    for job in jobs:
        start = time.perf_counter()
        job()
        took.append(time.perf_counter() - start)
    return tuple(took)


def process(code: str) -> float:
    """Processor seconds of a fresh interpreter that runs this."""
    # Compiling the modules anew each time is nothing that users do: `make setup` compiles them, as pip does others.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=kept, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imports(rounds: int) -> list[Line]:
    """Importing judgement."""
    names = sorted(path.stem for path in (ROOT / "tasks" / "decide").glob("*.py") if path.stem != "__init__")
    judge = f"from tasks.decide import {', '.join(names)}"
    codes = ("pass", "import numpy, scipy", judge, "import numpy, scipy.special", f"import scipy.special; {judge}")
    for code in codes:
        process(code)  # compiled once
    found = []
    for _ in range(4 * rounds):
        bare, *took = map(process, codes)
        found.append(tuple(one - bare for one in took))

    def line(what: str, peer: int) -> Line:
        told = f"{middle(found, peer + 1):.0f} ms against {middle(found, peer):.0f} ms"
        return Line(what=what, value=ratio(found, peer + 1, peer), limit=1.2, told=told)

    return [
        line("all of tasks.decide, ready to judge, against numpy and the part of scipy it judges with", 2),
        line("all of tasks.decide, before it judges, against numpy and scipy with nothing of it loaded", 0),
    ]


def moves(rounds: int) -> list[Line]:
    """Moving a version to Production and back."""
    from mlflow import MlflowClient  # noqa: PLC0415  what is measured is imported by whoever measures it

    from tasks.ledger import Ledger  # noqa: PLC0415  see above
    from tasks.registry import Registry  # noqa: PLC0415  see above
    from tasks.stores import Stores  # noqa: PLC0415  see above

    with tempfile.TemporaryDirectory(prefix="overheads-") as scratch:
        stores = Stores.at(Path(scratch))
        client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
        for model in ("bare", "ours"):
            client.create_registered_model(model)
            for _ in range(2):
                client.create_model_version(model, f"file://{scratch}", run_id=None)
        found = []
        with Ledger.open(stores.ledger) as ledger:
            registry = Registry(stores)

            def bare(version: str) -> None:
                client.transition_model_version_stage("bare", version, "Production", archive_existing_versions=True)

            def same_calls(version: str) -> None:
                bare(version)
                client.set_registered_model_alias("bare", "champion", version)
                for tag in ("trail", "actor", "reason", "transition", "link"):
                    client.set_model_version_tag("bare", version, tag, "to measure")
                client.get_registered_model("bare")
                client.search_model_versions("name='bare'")

            for number in range(4 * rounds + 2):
                version = str(1 + number % 2)
                promote, move = partial(_promote, registry, ledger, version), partial(bare, version)
                again = partial(same_calls, version)
                took = walled(move, promote, partial(_transition, ledger, number, move), again)
                if number > 1:
                    found.append(took)
    told = "{:.0f} ms against {:.0f} ms"
    return [
        Line(
            what="intent, MLflow's transition and outcome against the transition alone",
            value=ratio(found, 2, 0),
            limit=3.0,
            told=told.format(middle(found, 2), middle(found, 0)),
        ),
        Line(
            what="a whole promotion, with alias, tags and reading back, against MLflow's calls for it alone",
            value=ratio(found, 1, 3),
            limit=3.0,
            told=told.format(middle(found, 1), middle(found, 3)),
        ),
        Line(
            what="a whole promotion, with alias, tags and reading back, against the transition alone",
            value=ratio(found, 1, 0),
            limit=3.0,
            told=told.format(middle(found, 1), middle(found, 0)),
        ),
    ]


def _told() -> dict[str, Any]:
    from datetime import UTC, datetime  # noqa: PLC0415  see moves()

    return {"actor": "benchmarks.overheads", "reason": "to measure", "at": datetime.now(UTC), "trail": "t"}


def _promote(registry: Any, ledger: Any, version: str) -> None:
    registry.move(ledger, ledger.standing("ours"), action="promote", version=version, **_told())


def _transition(ledger: Any, number: int, move: Callable[[], object]) -> None:
    intent = ledger.intend(
        model="alone", based_on=ledger.standing("alone").seq, action="stage", version=str(number), **_told()
    )
    move()
    ledger.settle(intent, "applied")


def registering(rounds: int) -> list[Line]:
    """A training logged and its version registered, by the size of the model."""
    import joblib  # noqa: PLC0415  see moves()
    import skops.io  # noqa: PLC0415  see moves()

    from benchmarks.gate_speed import dataset  # noqa: PLC0415  see moves()

    lines = []
    with tempfile.TemporaryDirectory(prefix="overheads-") as scratch:
        for trees, rows in ((20, 2_000), (100, 6_000), (400, 14_000)):
            folder = Path(scratch) / str(trees)
            folder.mkdir()
            log, model = _training(folder, trees, dataset(rows, seed=0))
            place = folder / "model.joblib"
            log()
            dumps = partial(joblib.dump, model, place), partial(skops.io.dump, model, folder / "model.skops")
            found = [walled(*dumps, log, partial(_log_model, model, folder)) for _ in range(rounds)]
            size = place.stat().st_size / 1e6
            named = ("registering", 2, 5.0), ("skops.io.dump of", 1, None), ("MLflow's own log_model of", 3, None)
            for name, place_of, most in named:
                told = f"{middle(found, place_of):,.0f} ms against {middle(found, 0):,.0f} ms"
                what = f"{name} a forest of {size:,.0f} MB against joblib.dump"
                lines.append(Line(what=what, value=ratio(found, place_of, 0), limit=most, told=told))
            shutil.rmtree(folder)
    return lines


def _training(folder: Path, trees: int, rows: Any) -> tuple[Callable[[], object], Any]:
    """(what logs and registers a fitted forest, the forest)."""
    from tasks import tracking, training  # noqa: PLC0415  see moves()
    from tasks.data import Split  # noqa: PLC0415  see moves()
    from tasks.policy import Policy  # noqa: PLC0415  see moves()
    from tasks.records import Verdict  # noqa: PLC0415  see moves()
    from tasks.scoring import classes_of, score  # noqa: PLC0415  see moves()
    from tasks.stores import Stores  # noqa: PLC0415  see moves()

    policy = Policy.model_validate(
        {
            "model": "forest",
            "data": {"source": "not-read.csv", "target": "left", "timestamp": "at"},
            "training": {
                "estimator": "sklearn.ensemble:RandomForestClassifier",
                "params": {"n_estimators": trees},
                "preprocess": "none",
            },
            "gate": {"performance": "off"},
        }
    )
    parts = Split(train=rows.take(slice(0, -500)), holdout=rows.take(slice(-500, None)))
    fitted = training.fit(policy, parts.train)
    scores = score(fitted.model, parts.holdout, classes=classes_of(fitted.model, parts.holdout, policy))
    profile = training.profile_of(policy, parts, scores, (), rows.time[-1].to_pydatetime() + timedelta(seconds=1))
    why = Verdict(judge="triggers", decision="retrain", reason="to measure", findings=())
    stores = Stores.at(folder / "home")
    known: dict[str, Any] = {"profile": profile, "train": {"accuracy": 0.9}, "verdict": why, "trail": "t"}
    return partial(tracking.log, policy, fitted, parts, stores=stores, **known), fitted.model


def _log_model(model: Any, folder: Path) -> None:
    """As little of it as MLflow can do: neither the requirements nor the signature are left to it."""
    import mlflow  # noqa: PLC0415  see moves()
    import mlflow.sklearn  # noqa: PLC0415  see moves()
    from mlflow.models import ModelSignature  # noqa: PLC0415  see moves()
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415  see moves()

    known = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/beside.db")
    try:
        if mlflow.get_experiment_by_name("beside") is None:
            mlflow.create_experiment("beside", artifact_location=(folder / "beside").as_uri())
        mlflow.set_experiment("beside")
        inputs = Schema([ColSpec("double", f"x{number}") for number in range(model.n_features_in_)])
        with mlflow.start_run():
            mlflow.sklearn.log_model(
                model,
                name="model",
                serialization_format="skops",
                skops_trusted_types=["sklearn.tree._tree.Tree"],
                pip_requirements=["scikit-learn", "skops"],
                signature=ModelSignature(inputs=inputs, outputs=Schema([ColSpec("string")])),
                registered_model_name="beside",
            )
    finally:  # MLflow puts it into the environment, where what follows would find it
        mlflow.set_tracking_uri(known or "")
        if known is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)


def retraining(rounds: int) -> list[Line]:
    """A whole retraining, as its worker starts it, of two sizes: some of what comes on top grows with the forest."""
    few = rounds // 2 + 1  # each of them takes one minute and a half, or three
    return [*_retraining(60_000, few), *_retraining(240_000, few)]


def _retraining(rows: int, rounds: int) -> list[Line]:
    from benchmarks.quiet_home import Home  # noqa: PLC0415  see moves()
    from benchmarks.tick_weight import Server, timed  # noqa: PLC0415  see moves()

    lines = []
    with tempfile.TemporaryDirectory(prefix="overheads-") as scratch:
        folder = Path(scratch)
        server, home = Server(folder), Home(folder / "home")
        server.environment["BACKSTOP_HOME"] = str(home.folder)
        prepare = ["-m", "benchmarks.plain_training", "prepare", str(home.folder), "--rows", str(rows)]
        timed(prepare, server.environment)
        with server.running():
            asked = {"policy": str(home.policy), "force": True, "reason": "to measure"}
            retrain = server.deploy("retrain", "flows/retrain.py:retrain", asked)
            nothing = server.deploy("noop-async", "benchmarks/noop_flow.py:noop", {})
            server.run(retrain)  # from now on Production is a forest too
            found = []
            for _ in range(rounds):
                plain, _ = timed(["-m", "benchmarks.plain_training", "train", str(home.folder)], server.environment)
                idle, ours = server.run(nothing), server.run(retrain)
                found.append((plain.cpu + idle.cpu, ours.cpu, plain.wall + idle.wall, ours.wall, plain.wall))
    for what, one in (("processor seconds", 0), ("wall clock", 2)):
        seconds = [middle(found, place) / 1000 for place in (one + 1, one, 4)]
        told = f"{seconds[0]:.1f} s against {seconds[1]:.1f} s; the script alone {seconds[2]:.1f} s"
        value = ratio(found, one + 1, one)
        lines.append(Line(what=f"a whole retraining of {rows:,} rows, {what}", value=value, limit=1.2, told=told))
    return lines


PARTS: dict[str, Callable[[int], list[Line]]] = {
    "imports": imports,
    "moves": moves,
    "registering": registering,
    "retraining": retraining,
}


def main() -> None:
    """Run it, print the table and the JSON line.

    Raises:
        SystemExit: 1 when a limit is not kept.
    """
    asked = argparse.ArgumentParser(prog="python -m benchmarks.overheads")
    asked.add_argument("--only", default="", help=f"with commas between: {', '.join(PARTS)}")
    asked.add_argument("--rounds", type=int, default=5)
    given = asked.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # MLflow's stages are deprecated
    chosen = [part for name, part in PARTS.items() if not given.only or name in given.only.split(",")]
    found = as_they_come(line for part in chosen for line in part(given.rounds))
    raise SystemExit(conclude("overheads", found, rows=True))


if __name__ == "__main__":
    main()
