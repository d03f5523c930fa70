"""Dossiers that several tests use: what every judge takes, with numbers from seeded generators."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from tasks.dossier import Dossier
from tasks.policy import (
    ConceptTrigger,
    Confirm,
    FalseRetrains,
    Gate,
    Health,
    Labels,
    Learn,
    PerformanceCheck,
    RegressionCheck,
    Rollout,
    Shadow,
    Triggers,
)
from tasks.records import (
    Beside,
    ColumnProfile,
    Evaluation,
    Finding,
    GateEvidence,
    HealthEvidence,
    LearningEvidence,
    Look,
    Measurement,
    Profile,
    RolloutEvidence,
    Scores,
    ShadowEvidence,
    Signals,
    Span,
    Standing,
)

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
SPAN = Span(start=NOW - timedelta(days=7), end=NOW)
ANSWERS = Finding(name="loads", outcome="ok", reason="version 1 loads and answers")
FAILS = Finding(name="loads", outcome="breach", reason="version 1 does not load")


def scores(n: int, classes: int, quality: float, seed: int) -> Scores:
    """Answers of a classifier with as many classes, laid out as scikit-learn's are: by column."""
    draw = np.random.default_rng(seed)
    truth = np.random.default_rng(n).integers(0, classes, n)
    logits = draw.normal(size=(n, classes)) + quality * np.eye(classes)[truth]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = tuple(f"class {number}" for number in range(classes))
    answers = probability.argmax(axis=1)
    return Scores(truth=truth, prediction=answers, probability=np.asfortranarray(probability), classes=names)


def amounts(n: int, seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    truth = np.random.default_rng(n).normal(size=n)
    return Scores(truth=truth, prediction=truth + 0.3 * draw.normal(size=n))


def gate(problem: str = "binary", metric: str = "accuracy", n: int = 60, seed: int = 1, **changes: Any) -> Dossier:
    if problem == "regression":
        ours, theirs = amounts(n, seed), amounts(n, seed + 1)
    else:
        classes = 2 if problem == "binary" else 3
        ours, theirs = scores(n, classes, 2.0, seed), scores(n, classes, 1.5, seed + 1)
    fields: dict[str, Any] = {
        "candidate": ours,
        "production": theirs,
        "latencies": np.repeat([0.001, 0.002], 150),
        "size": 1_000_000,
        "loads": True,
        "baseline": "1",
    }
    rules = Gate(performance=PerformanceCheck(metric=metric, at_least=0.7), regression=RegressionCheck(metric=metric))
    return Dossier("gate", {"evidence": GateEvidence(**fields | changes), "rules": rules, "problem": problem})


def shadow(wins: int = 90, losses: int = 5, ties: int = 300) -> Dossier:
    requests = wins + losses + ties + 7
    seen = ShadowEvidence(
        wins=wins, losses=losses, ties=ties, requests=requests, agreements=ties, failures=0, span=SPAN
    )
    return Dossier("shadow", {"evidence": seen, "rules": Shadow()})


def health(errors: int = 3, minutes: int = 30, labelled: int = 20) -> Dossier:
    moments = [SPAN.start + number * timedelta(minutes=1) for number in range(minutes)]
    looks = tuple(
        Look(start=moment, requests=100, errors=errors, slow=1, labelled=labelled, wrong=min(2, labelled))
        for moment in moments
    )
    seen = HealthEvidence(looks=looks, now=moments[-1], started=moments[0], last_request=moments[-1])
    return Dossier("health", {"evidence": seen, "rules": Health(), "problem": "binary", "planned_looks": 30})


def frozen() -> Dossier:
    """Bad together with a canary."""
    given = health(60).given
    evidence = given["evidence"]
    looks = tuple(replace(look, requests=20, errors=12, slow=0, labelled=0, wrong=0) for look in evidence.looks)
    return Dossier(
        "health", {**given, "evidence": replace(evidence, beside=Beside(version="2", role="canary", looks=looks))}
    )


def rollout(errors: int = 1, minutes: int = 20, requests: int = 60, weight: int = 5) -> Dossier:
    moments = [SPAN.start + number * timedelta(minutes=1) for number in range(minutes)]

    def looks(requests: int, errors: int) -> tuple[Look, ...]:
        shared = {"requests": requests, "errors": min(errors, requests), "slow": 0, "labelled": 0, "wrong": 0}
        return tuple(Look(start=moment, **shared) for moment in moments)

    seen = RolloutEvidence(
        version="2",
        baseline="1",
        weight=weight,
        started=SPAN.start,
        stepped=SPAN.start,
        now=SPAN.start + minutes * timedelta(minutes=1),
        canary=looks(requests, errors),
        production=looks(20 * requests, 20),
    )
    rules = {"rules": Rollout(), "health": Health(), "problem": "binary"}
    return Dossier("rollout", {"evidence": seen, **rules})


def triggers(moved: int = 3, accuracy: float = 0.7) -> Dossier:
    def column(name: str, *counts: int) -> ColumnProfile:
        return ColumnProfile(name=name, kind="category", categories=("a", "b"), counts=counts)

    def measured(value: float) -> Measurement:
        return Measurement(metric="accuracy", value=value, error=0.01, n=2000)

    profile = Profile(
        columns=tuple(column(f"f{number}", 500, 500, 0) for number in range(4)),
        prediction=column("(prediction)", 500, 500, 0),
        metrics=(measured(0.8),),
        rows=1000,
        labelled=1000,
        trained_at=SPAN.start,
        trained=SPAN,
        holdout=SPAN,
        fingerprint="x",
        errors=(200, 1000),
    )
    counts = {"requests": 50, "errors": 0, "slow": 0, "labelled": 40, "wrong": 8}
    days = tuple(Look(start=SPAN.end + day * timedelta(days=1), **counts) for day in range(6))
    signals = Signals(
        now=NOW,
        profile=profile,
        production="1",
        recent=tuple(column(f"f{n}", *((900, 100, 0) if n < moved else (510, 490, 0))) for n in range(4)),
        recent_prediction=column("(prediction)", 480, 520, 0),
        performance=measured(accuracy),
        errors=days,
        labelled_since=120,
        unavailable={"upstream": "the feature store did not answer"},
    )
    return Dossier("triggers", {"signals": signals, "rules": Triggers()})


def restrained() -> Dossier:
    """What holds, and does not count yet."""
    given = triggers(3, 0.81).given
    before = Evaluation(at=NOW - timedelta(days=1), held=("drift",), saw="row 6")
    signals = replace(
        given["signals"], saw="row 7", evaluations=(before,), evaluated_at=before.at, retrained_at=SPAN.end
    )
    rules = Triggers(
        confirm=Confirm(times=3, of=3),
        cool_down=timedelta(days=2),
        false_retrains=FalseRetrains(at_most=1),
        concept=ConceptTrigger(labels=Labels(delay=timedelta(days=2))),
    )
    return Dossier("triggers", {"signals": signals, "rules": rules})


def rollback(tried: tuple[Finding, ...] = (FAILS, ANSWERS), **changes: Any) -> Dossier:
    standing = Standing(model="m", seq=9, production="4", known_good=("4", "3", "2", "1"), quarantined=("2",))
    fields = {"standing": standing, "rollbacks_in_window": 0, "limit": 2, "to": None, "reason": "it fails"}
    return Dossier("rollback", {**fields, "tried": tried, **changes})


def learning(flipped: int = 0, newest: int = 500, **changes: Any) -> Dossier:
    seen = LearningEvidence(
        production="1",
        known_good=True,
        waiting=120,
        newest=newest,
        batches=((50, 5), (50, 5 + flipped)),
        holdout=(newest, 50 + 5 * flipped),
        expected=(1000, 100),
        unseen=(("maybe", 2),),
    )
    return Dossier("learning", {"evidence": replace(seen, **changes), "rules": Learn(), "problem": "binary"})


def person(tried: Finding = ANSWERS) -> Dossier:
    against = ("the gate said fail",)
    return Dossier("person", {"reason": "we need it", "actor": "ada", "against": against, "tried": tried})


def examples() -> dict[str, Dossier]:
    """At least one of every judge."""
    found = Finding(name="registry", outcome="breach", reason="put back", evidence={"repaired": "1"})
    nothing = {"evidence": None, "rules": None, "nothing": "this is the first model"}
    return {
        "triggers retrain": triggers(),
        "triggers keep": triggers(0, 0.81),
        "triggers keep, restrained": restrained(),
        "gate binary": gate(),
        "gate multiclass": gate("multiclass", "f1_macro"),
        "gate regression": gate("regression", "r2"),
        "gate first": gate(production=None, baseline=None),
        "gate without latencies": gate(latencies=np.array([math.nan])),
        "gate with a check of one's own": gate(extra=(replace(ANSWERS, value=math.inf, evidence={"a": (1, None)}),)),
        "shadow promote": shadow(),
        "shadow reject": shadow(5, 90),
        "shadow wait": shadow(1, 0, 3),
        "shadow nothing": Dossier("shadow", nothing),
        "health healthy": health(),
        "health unhealthy": health(60),
        "health unknown": health(0, 2),
        "health frozen": frozen(),
        "rollout step": rollout(),
        "rollout promote": rollout(weight=50),
        "rollout hold": rollout(0, 2),
        "rollout abort": rollout(20),
        "rollout end": Dossier("rollout", {"ended": "version 3 passed the gate"}),
        "learning learn": learning(),
        "learning wait": learning(newest=400),
        "learning hold": learning(40),
        "learning set-aside": learning(batches=((50, 45),)),
        "rollback back": rollback(),
        "rollback stay": rollback((FAILS, FAILS)),
        "rollback too many": rollback((), rollbacks_in_window=2),
        "person promote": person(),
        "person stay": person(FAILS),
        "mistake": Dossier("mistake", {"problems": ("no rows", "no target"), "name": "data"}),
        "reconciled": Dossier("reconciled", {"findings": (found, found)}),
    }
