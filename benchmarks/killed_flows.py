"""Killed flows: the real ``promote``, ``rollback``, ``retrain`` and ``watch``, killed at their boundaries.

Two real models are trained once. Each flow then runs in a process that was forked for it and talks to one Prefect API;
whoever comes after is a real tick of ``watch``, as it would be a minute later. One step is shortened: the version that
comes back or is promoted by hand is loaded and asked in the process itself and not in a fresh one, which costs five
seconds and changes nothing that lasts.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import flows  # noqa: F401  what it sets has to be set before Prefect is imported
from benchmarks.acts import MODEL, NOW, PASSED, Act, Actor
from benchmarks.crash_matrix import Nursery, Score, every_boundary
from benchmarks.crash_site import Place
from benchmarks.killing import LASTING
from rehearsal.churn import customers
from tasks import candidate as candidates
from tasks.data import load
from tasks.policy import Policy
from tasks.records import Verdict
from tasks.requests import RequestLog, Served

LATER = NOW + timedelta(minutes=20)
ROWS = 600

_POLICY: dict[str, Any] = {
    "model": MODEL,
    "data": {
        "source": "churn.csv",
        "target": "churned",
        "positive": "yes",
        "timestamp": "observed_at",
        "drop": ["customer_id"],
        "lookback": "40d",
    },
    "training": {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 1000}},
    "shadow": "off",  # the candidate that waits is promoted by the next run, with no requests to compare
}


def _train(actor: Actor) -> None:
    """Two versions, by the product's own steps; the gate passed both."""
    case, policy = actor.case, actor.case.policy
    why = Verdict(judge="triggers", decision="retrain", reason="to have something to move", findings=())
    rows = load(policy, case.stores, start=NOW - timedelta(days=30), end=NOW, remember=False)
    for _ in range(2):
        with tempfile.TemporaryDirectory() as scratch:
            made = candidates.make(case, candidates.divide(case, rows, None), why, Path(scratch))
        if made.candidate is None:
            raise RuntimeError("a training outside of a dry run registers its version")
        case.ledger.record(case.model, PASSED, trail=case.trail, at=case.now, version=made.candidate.version)


def _write(place: Place) -> None:
    home = place.stores.home
    customers(ROWS, start=NOW - timedelta(days=30), days=30, seed=1).to_csv(home / "churn.csv", index=False)
    (home / f"{MODEL}.yaml").write_text(json.dumps(_POLICY), "utf-8")  # JSON is YAML


def _challenged(actor: Actor) -> None:
    actor.stage("1")
    actor.promote("1")
    actor.praise("1")
    actor.stage("2")


def _replaced(actor: Actor) -> None:
    _challenged(actor)
    actor.promote("2")


def _failing(actor: Actor) -> None:
    """Version 2 serves, and most of its answers are errors."""
    _replaced(actor)
    with RequestLog.open(actor.case.stores.requests) as log:
        log.record(
            Served(
                request_id=f"r{number}",
                model=MODEL,
                version="2",
                at=NOW + number * timedelta(seconds=3),
                seconds=0.01,
                features={},
                prediction="yes",
                failed=number % 3 > 0,
            )
            for number in range(390)
        )


def _run(name: str, actor: Actor, **options: Any) -> None:
    """Run a flow to its end in this process."""
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    os.environ["BACKSTOP_HOME"] = str(actor.case.stores.home)
    asyncio.run(flow(policy=str(actor.case.stores.home / f"{MODEL}.yaml"), **options))


def _tick(actor: Actor, _act: Act) -> None:
    _answer_here()
    _run("watch", actor, as_of=LATER)


def _flow(name: str, **options: Any) -> Callable[[Actor], None]:
    def action(actor: Actor) -> None:
        _answer_here()
        _run(name, actor, **options)

    return action


def _answer_here() -> None:
    """Load and ask the version in this process; see above."""
    from tasks import fresh, tryout  # noqa: PLC0415  see above

    class Here(tryout.Tryout):
        def __init__(self, policy: Policy) -> None:
            self._training = policy.training

        def of(self, folder: Path, *, timeout: float = 0.0) -> tryout.Answer:  # noqa: ARG002  nothing is waited for
            return fresh.attempt(folder, trusted_types=self._training.trusted_types, allow_pickle=False)

        def close(self) -> None:
            """There is nothing to end."""

    tryout.Tryout = Here  # type: ignore[misc]


_ASKED: dict[str, Any] = {"reason": "it has to be so", "dry_run": False, "as_of": NOW + timedelta(minutes=1)}

FLOWS = {
    "promote": Act("flow promote", _challenged, _flow("promote", **_ASKED), next=_tick),
    "rollback": Act("flow rollback", _replaced, _flow("rollback", **_ASKED), next=_tick),
    "retrain": Act("flow retrain", _challenged, _flow("retrain", as_of=_ASKED["as_of"]), next=_tick),
    "watch": Act("flow watch", _failing, _flow("watch", as_of=LATER), next=_tick),
}


def killed(api: str, chosen: Mapping[str, Sequence[int] | None]) -> Iterator[Score]:
    """Kill flows at their boundaries.

    Args:
        api: Of a running Prefect server.
        chosen: Of :data:`FLOWS`, each with the boundaries to be killed at (negative: from the end); None: all.

    Raises:
        RuntimeError: When Prefect was imported before, and therefore does not see the server.
    """
    # A server that a flow starts for itself would outlive it when it is killed.
    own = {"PREFECT_API_URL": api, "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}
    os.environ.update(own, PREFECT_LOGGING_LEVEL="CRITICAL", PREFECT_LOGGING_TO_API_ENABLED="false")
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415  with the settings from above

    if PREFECT_API_URL.value() != api:
        raise RuntimeError(f"Prefect talks to {PREFECT_API_URL.value()}; start from a module that does not import it")
    place = Place.in_memory()
    try:
        _write(place)
        for name in place.do(partial(_trained, place)):
            with suppress(Exception):  # some of what was imported there cannot be imported by itself
                importlib.import_module(name)
        place.keep("empty")
        for name, numbers in chosen.items():
            yield every_boundary(place, FLOWS[name], LASTING, chosen=numbers)
    finally:
        place.close()


def _trained(place: Place) -> list[str]:
    """Train, and run each flow once on a copy; what they imported, so that nobody after them has to."""
    actor = Actor.at(place.stores, "before")
    _train(actor)
    place.keep("trained")
    actor.stage("2")
    for act in FLOWS.values():
        with suppress(Exception):  # most of them have nothing to do here, and say so
            act.action(actor)
    place.back_to("trained")
    return [name for name in sys.modules if name.partition(".")[0] not in {"__main__", "__mp_main__"}]


def under_api() -> Iterator[Score]:
    """All four flows, every boundary, under a Prefect API of their own."""
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415  costs seconds
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415  see above

    with prefect_test_harness(server_startup_timeout=180):
        yield from Nursery(killed, str(PREFECT_API_URL.value()), dict.fromkeys(FLOWS))
