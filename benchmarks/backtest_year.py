"""A year in five worlds: how often each policy retrains, how well it serves, and whom it promotes.

``python -m benchmarks.backtest_year``. Generated customers (rehearsal/churn.py), so that the truth is known, one
evaluation a day, through the backtest (rehearsal/player.py). The product's policy is its defaults with the lines of
:data:`OWN`, which were found with the backtest on the years of seeds 0 and 1; the years of the proof are 1 to 3. Beside
it stand the bare defaults and the textbook's policy as it is published (benchmarks/textbook.py). All train the same
estimator on the same lookback and hold the same share out. What served on a day is scored on that day's rows, which
nobody had seen. A promotion is bad when, on 20,000 fresh customers of the day, the new version's true accuracy is more
than the gate's margin below that of the version that it replaced. Where seasons turn, a version that is better today
may be worse over the month that follows, which nothing that looks back can know: that is counted and not promised.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks import proof, textbook
from benchmarks.proof import Line
from rehearsal.backtest import history
from rehearsal.churn import PRICE_RISE, STEADY, World, customers
from rehearsal.memory import Memory, Model
from rehearsal.player import BACKSTOP, PROMOTED, Day, Player, Rules
from tasks.columns import tidy
from tasks.data import Dataset
from tasks.policy import Policy, Triggers
from tasks.policy_file import load, variable
from tasks.scoring import score

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
BEFORE, YEAR, MONTH, PER_DAY = 90, 365, 30, 300
"""Days, and customers on each of them: enough that the textbook's 50,000 new rows come within the year."""
SHORT_YEAR, FEW_PER_DAY = 185, 60
"""Of the fast form: what follows the abrupt change."""
DAY = timedelta(days=1)
SEEDS, FRESH = 3, 20_000
BAD, REGRETTED = 0.02, 0.01
"""Of true accuracy: the margin that the gate promises, and what a month's hindsight regrets."""
NOISE = 0.001
"""Accuracy that two policies can be apart in a world in which nothing changes, by which rows they happened to learn."""
OWN = {
    "training": {"windows": ["4d", "10d", "20d"]},
    "triggers": {
        "age": "180d",
        "growth": "200%",
        "cool_down": "3d",
        "concept": {"tolerate": "0.5pt"},
        "performance": {"drop": "1pt"},
        "drift": {"psi": 0.05},
    },
    "gate": {"performance": {"at_least": 0.8}},
}
"""Hardly ever retrain by the clock, soon when errors rise, not every day while a change goes on, and learn from the new
world alone where that is better. At the default floor of 0.85 no candidate gets through for a month after the abrupt
change, however much better than Production it is."""
POLICY = Path(__file__).resolve().parent.parent / "policies" / "churn.yaml"
HARMLESS = World(**{**{one.name: getattr(STEADY, one.name) for one in fields(World)}, "payments": (0.15, 0.35, 0.5)})
"""Everybody pays in another way, which says nothing about who leaves."""


def mixed(first: World, second: World, share: float) -> World:
    """So far on the way from one world to the other."""

    def between(one: object, other: object) -> object:
        if isinstance(one, tuple) and isinstance(other, tuple):
            return tuple(between(*pair) for pair in zip(one, other, strict=True))
        return one + share * (other - one) if isinstance(one, float) and isinstance(other, float) else one

    return World(**{one.name: between(getattr(first, one.name), getattr(second, one.name)) for one in fields(World)})  # type: ignore[arg-type]


WORLDS: Mapping[str, Callable[[float], World]] = {
    "none": lambda _day: STEADY,
    "harmless": lambda day: HARMLESS if day >= 120 else STEADY,
    "abrupt": lambda day: PRICE_RISE if day >= 150 else STEADY,
    "gradual": lambda day: mixed(STEADY, PRICE_RISE, min(1.0, max(0.0, (day - 90) / 180))),
    "seasonal": lambda day: mixed(STEADY, PRICE_RISE, 0.5 - 0.5 * math.cos(2 * math.pi * day / 180)),
}
"""The world on each day of the year; before it, it is as on day 0."""

TEXTBOOK, OURS = "textbook", "Backstop"
PLAYERS = (OURS, "Backstop, defaults", TEXTBOOK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy in one world.

    Attributes:
        retrains: After the first model.
        promotions: The same.
        bad: Promotions to a version that was truly worse by more than the gate's margin on that day.
        regretted: Promotions to one that was truly worse by a point over the month that followed.
        accuracy: Share of the year's rows that were answered rightly.
    """

    retrains: int
    promotions: int
    bad: int
    regretted: int
    accuracy: float


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    worlds = ("abrupt",) if quick else tuple(WORLDS)
    players = (OURS, TEXTBOOK) if quick else PLAYERS
    size = (SHORT_YEAR, FEW_PER_DAY) if quick else (YEAR, PER_DAY)
    jobs = [(world, seed, players, *size) for world in worlds for seed in range(1, 2 if quick else 1 + SEEDS)]
    found = proof.spread(year, jobs, quick=quick)
    by_world: dict[str, list[dict[str, Outcome]]] = {world: [] for world in worlds}
    for (world, *_), outcome in zip(jobs, found, strict=True):
        by_world[world].append(outcome)
    lines = [line for world, outcomes in by_world.items() for line in _lines(world, outcomes, players)]
    return [*lines, *_overall([one for outcomes in by_world.values() for one in outcomes])]


def _lines(world: str, outcomes: list[dict[str, Outcome]], players: tuple[str, ...]) -> list[Line]:
    lines = []
    for name in players:
        counted = ("retrains", "promotions", "bad", "regretted")
        retrains, promotions, bad, regretted = (sum(getattr(one[name], what) for one in outcomes) for what in counted)
        accuracy = float(np.mean([one[name].accuracy for one in outcomes]))
        told = f"{retrains} retrainings, {promotions} promotions, {bad} bad, {regretted} regretted"
        lines.append(Line(what=f"{world}, {name}: accuracy", value=accuracy, told=told))
    return [*lines, _fewer(world, outcomes, None), _better(world, outcomes, -NOISE)]


def _overall(outcomes: list[dict[str, Outcome]]) -> list[Line]:
    bad = sum(one[OURS].bad for one in outcomes)
    promotions = sum(one[OURS].promotions for one in outcomes)
    told = f"of {promotions} promotions; textbook {sum(one[TEXTBOOK].bad for one in outcomes)}"
    none = Line(what="all: bad promotions", value=float(bad), limit=0.0, told=told)
    return [_fewer("all", outcomes, 0.5), _better("all", outcomes, 0.0), none]


def _fewer(world: str, outcomes: list[dict[str, Outcome]], limit: float | None) -> Line:
    """Share of the textbook's retrainings that were not needed."""
    ours, theirs = (sum(one[name].retrains for one in outcomes) for name in (OURS, TEXTBOOK))
    told = f"{ours} against {theirs}"
    return Line(what=f"{world}: fewer retrainings", value=1 - ours / theirs, limit=limit, least=True, told=told)


def _better(world: str, outcomes: list[dict[str, Outcome]], limit: float) -> Line:
    """Mean accuracy against the textbook's, in the same years."""
    gaps = np.array([one[OURS].accuracy - one[TEXTBOOK].accuracy for one in outcomes])
    error = float(gaps.std(ddof=1) / math.sqrt(gaps.size)) if gaps.size > 1 else math.nan
    told = f"standard error {error:.2g}" if gaps.size > 1 else "one year"
    return Line(what=f"{world}: mean accuracy gained", value=float(gaps.mean()), limit=limit, least=True, told=told)


def year(
    world: str, seed: int, players: tuple[str, ...] = PLAYERS, days: int = YEAR, per_day: int = PER_DAY
) -> dict[str, Outcome]:
    """Every player in one world, on the same rows."""
    with tempfile.TemporaryDirectory(prefix="backstop-") as folder:
        path = Path(folder) / "churn.csv"
        arrivals(world, seed, days, per_day).to_csv(path, index=False)
        policy = load(POLICY, {**os.environ, variable("churn", "data.source"): str(path)})
        memory = Memory(history(policy))
    with threadpool_limits(limits=1):  # other years are played beside this one
        return {name: _outcome(_played(name, policy, memory, days), world, seed) for name in players}


def arrivals(world: str, seed: int, days: int = YEAR, per_day: int = PER_DAY) -> pd.DataFrame:
    """The customers of the year and of the quarter before it."""
    draw = np.random.default_rng([seed, sum(map(ord, world))]).integers(0, 2**31, BEFORE + days)
    return pd.concat(
        [
            customers(per_day, start=BEGIN + day * DAY, days=1, seed=int(draw[day + BEFORE]), world=WORLDS[world](day))
            for day in range(-BEFORE, days)
        ]
    )


def _played(name: str, policy: Policy, memory: Memory, days: int) -> Player:
    who: dict[str, tuple[Policy, Rules]] = {
        OURS: (_defaults(policy, **OWN), BACKSTOP),
        "Backstop, defaults": (_defaults(policy), BACKSTOP),
        TEXTBOOK: (_unguarded(policy), textbook.rules()),
    }
    chosen, rules = who[name]
    player = Player(chosen, memory, rules)
    for day in range(days):
        player.evaluate(BEGIN + day * DAY)
    return player


def _defaults(policy: Policy, **sections: Any) -> Policy:
    """The same rows and estimator, and these sections; everything else is as it is without a word in the policy."""
    raw = policy.model_dump(include={"model", "problem", "data", "training"})
    training = {**raw["training"], **sections.pop("training", {})}
    return Policy.model_validate({**raw, "training": training, **sections})


def _unguarded(policy: Policy) -> Policy:
    """The textbook has no shadow; of the triggers only the signals are read."""
    wanted = Triggers(retrain_when="any", concept=None, prediction=None)
    performance = policy.triggers.performance
    triggers = wanted.model_copy(update={"performance": performance})
    return policy.model_copy(update={"shadow": None, "triggers": triggers})


def _outcome(player: Player, world: str, seed: int) -> Outcome:
    promoted = [day for day in player.days if day.decision == "promoted"]
    return Outcome(
        retrains=sum(day.begun and day.before is not None for day in player.days),
        promotions=len(promoted),
        bad=sum(_loss(player, day, world, seed, 1) > BAD for day in promoted),
        regretted=sum(_loss(player, day, world, seed, MONTH) > REGRETTED for day in promoted),
        accuracy=_accuracy(player),
    )


def _accuracy(player: Player) -> float:
    """Of what was in Production on each day; a day without any counts as answered wrongly."""
    right = total = 0
    for day in player.days:
        rows = player.memory.window(day.at, day.at + DAY)
        total += len(rows)
        if day.production is not None and len(rows):
            scores = player.versions[day.production].answers(rows)
            right += int((scores.prediction == scores.truth).sum())
    return right / total


def _loss(player: Player, day: Day, world: str, seed: int, days: int) -> float:
    """True accuracy that the promotion of a day cost over so many days from then on; negative where it gained."""
    if day.decision not in PROMOTED or day.before is None or day.candidate is None:
        return 0.0
    number = round((day.at - BEGIN) / DAY)
    fresh = pd.concat(
        [
            customers(FRESH // days, start=BEGIN, days=1, seed=10**6 + 1000 * seed + ahead, world=WORLDS[world](ahead))
            for ahead in range(number, number + days)
        ]
    )
    rows = _rows(fresh, player.policy)
    new, old = (_share(player.versions[version], rows) for version in (day.candidate, day.before))
    return old - new


def _rows(frame: pd.DataFrame, policy: Policy) -> Dataset:
    made = tidy(frame)
    features = made.drop(columns=["customer_id", "observed_at", policy.data.target])
    time = pd.DatetimeIndex([pd.Timestamp(BEGIN)] * len(made))
    return Dataset(features=features, target=made[policy.data.target], time=time)


def _share(model: Model, rows: Dataset) -> float:
    scores = score(model.model, rows, classes=("no", "yes"))
    return float((scores.prediction == scores.truth).mean())


if __name__ == "__main__":
    raise SystemExit(proof.run("backtest_year", prove))
