"""Played: a policy on the whole of a history, and what hindsight says of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import joblib
from threadpoolctl import threadpool_limits

from rehearsal.grid import Choice, GridError
from rehearsal.hindsight import Alarm, Stay, Stretch, Yardstick, alarms, stays, stretches
from rehearsal.memory import Memory
from rehearsal.player import BACKSTOP, PROMOTED, Day, Player, Rules
from tasks.data import Dataset
from tasks.policy import Policy
from tasks.records import to_plain

WINDOWS = 26
"""Windows in which metric and harm are measured, where none are asked for: of a year two weeks each."""
_MOST = 20_000
"""Evaluations of one policy at most."""

Told = Callable[[int], None]


def silent(_more: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """When the policy is evaluated, and in which windows it is looked at.

    Attributes:
        begin: When the first model is made.
        end: Just after the last row.
        every: Between two evaluations.
        windows: Edges of the windows, ascending.
        labels: A row's label is known so long after the row.
    """

    begin: datetime
    end: datetime
    every: timedelta
    windows: tuple[datetime, ...]
    labels: timedelta = timedelta(0)

    @property
    def moments(self) -> list[datetime]:
        """Of the evaluations."""
        return [self.begin + number * self.every for number in range(math.ceil((self.end - self.begin) / self.every))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """One policy on the history, with what hindsight says of it.

    Attributes:
        choice: The policy.
        days: Its evaluations.
        alarms: Its retrainings after the first model.
        windows: Of the history.
        stretches: In which what served was worse than it had to be.
        seconds: That it took.
    """

    choice: Choice
    days: tuple[Day, ...]
    alarms: tuple[Alarm, ...]
    windows: tuple[Stay, ...]
    stretches: tuple[Stretch, ...]
    seconds: float

    @property
    def promotions(self) -> int:
        """Versions that went to Production after the first."""
        return sum(day.decision == "promoted" for day in self.days)

    @property
    def failed(self) -> int:
        """Evaluations that a run of the flow would have failed in."""
        return sum(day.decision == "failed" for day in self.days)

    def count(self, worth: str) -> int:
        """Retrainings of one worth: ``right``, ``false`` or ``unknown``."""
        return sum(alarm.worth == worth for alarm in self.alarms)

    @property
    def harmful(self) -> int:
        """Promotions to a version that is shown to be worse by the margin."""
        return sum(alarm.harmful for alarm in self.alarms)

    @property
    def missed(self) -> int:
        """Stretches in which no retraining was begun."""
        return sum(one.found is None for one in self.stretches)

    @property
    def delay(self) -> float | None:
        """Mean days until the others were found; None where there are none."""
        found = [one.delay for one in self.stretches if one.delay is not None]
        return sum(found) / len(found) if found else None

    def mean(self, name: str) -> float | None:
        """Mean of ``frozen``, ``served`` or ``oracle`` over the windows that have all three; each counts the same."""
        known = [one for one in self.windows if None not in {one.frozen, one.served, one.oracle}]
        return sum(getattr(one, name) for one in known) / len(known) if known else None

    @property
    def trouble(self) -> str:
        """Why nothing ever served, or nothing."""
        if any(day.decision in PROMOTED for day in self.days):
            return ""
        return f"no first model: {self.days[-1].reason}" if self.days else "no evaluation"


def schedule(
    rows: Dataset,
    *,
    first: float = 0.15,
    every: timedelta = timedelta(days=1),
    window: timedelta | None = None,
    labels: timedelta = timedelta(0),
) -> Schedule:
    """When to evaluate.

    Args:
        rows: Of the history.
        first: Share of the rows that are there when the first model is made.
        every: Between two evaluations.
        window: Length of the windows, rounded to whole evaluations; None: a 26th of what is played.
        labels: A row's label is known so long after the row.

    Raises:
        GridError: When the rows give too few or too many evaluations.
    """
    begin = rows.time[min(len(rows) - 1, int(first * len(rows)))].to_pydatetime()
    end = rows.time[-1].to_pydatetime() + timedelta(microseconds=1)
    count = math.ceil((end - begin) / every)
    if not 2 <= count <= _MOST:
        raise GridError([f"--every {every} gives {count} evaluations of {end - begin}; 2 to {_MOST:,} can be played"])
    step = every * max(1, round((window or (end - begin) / WINDOWS) / every))
    edges = [begin + number * step for number in range(max(1, (end - begin) // step) + 1)]
    return Schedule(begin=begin, end=end, every=every, windows=tuple(edges), labels=labels)


def play(
    choice: Choice, memory: Memory, when: Schedule, base: Policy, *, rules: Rules = BACKSTOP, told: Told = silent
) -> Played:
    """One policy on the whole history.

    Args:
        choice: The policy.
        memory: The rows, and what other players have computed.
        when: To evaluate.
        base: Policy whose margins are the yardstick.
        rules: Who decides.
        told: Called with how many evaluations were played since it was called last.
    """
    started, player = time.perf_counter(), Player(choice.policy, memory, rules, when.labels)
    for moment in when.moments:
        player.evaluate(moment)
        told(1)
    yardstick = Yardstick.of(base)
    windows = stays(player, yardstick, base, when.windows)
    return Played(
        choice=choice,
        days=tuple(player.days),
        alarms=alarms(player, yardstick),
        windows=windows,
        stretches=stretches(windows, player.days),
        seconds=time.perf_counter() - started,
    )


def play_all(
    chosen: Sequence[Choice], rows: Dataset, when: Schedule, base: Policy, *, jobs: int = 1, told: Told = silent
) -> tuple[Played, ...]:
    """Every combination, in order; those of one process share what they compute.

    Other processes tell of their evaluations when they are through with all of theirs.
    """
    shares = [list(chosen[place::jobs]) for place in range(min(jobs, len(chosen)))]
    if len(shares) == 1:
        return tuple(_share(shares[0], rows, when, base, told))
    spread = joblib.Parallel(n_jobs=len(shares), return_as="generator_unordered")
    by_choice: dict[Any, Played] = {}
    for done in spread(joblib.delayed(_share)(share, rows, when, base) for share in shares):
        by_choice |= {one.choice.values: one for one in done}
        told(len(done) * len(when.moments))
    return tuple(by_choice[choice.values] for choice in chosen)


def _share(chosen: Sequence[Choice], rows: Dataset, when: Schedule, base: Policy, told: Told = silent) -> list[Played]:
    memory = Memory(rows)
    # One thread each: other processes play beside this one, and threads of small models mostly wait for each other.
    with threadpool_limits(limits=1):
        return [play(choice, memory, when, base, told=told) for choice in chosen]


def plain(base: Policy, when: Schedule, played: Sequence[Played]) -> dict[str, Any]:
    """What came out as plain JSON values."""
    return {
        "model": base.model,
        "begin": when.begin.isoformat(),
        "end": when.end.isoformat(),
        "every_days": when.every / timedelta(days=1),
        "labels_after_days": when.labels / timedelta(days=1),
        "yardstick": to_plain(_told(Yardstick.of(base))),
        "policies": [_plain(one) for one in played],
    }


def _told(yardstick: Yardstick) -> dict[str, Any]:
    values = {name: getattr(yardstick, name) for name in Yardstick.__dataclass_fields__}
    return {**values, "follow": yardstick.follow / timedelta(days=1)}


def _plain(one: Played) -> dict[str, Any]:
    counted = {f"{worth}_alarms": one.count(worth) for worth in ("right", "false", "unknown")}
    means = {f"mean_{name}": one.mean(name) for name in ("frozen", "served", "oracle")}
    return {
        "values": dict(one.choice.values),
        "trouble": one.trouble,
        "retrains": len(one.alarms),
        "promotions": one.promotions,
        "harmful_promotions": one.harmful,
        **counted,
        "missed_alarms": one.missed,
        "mean_delay_days": one.delay,
        "failed": one.failed,
        **means,
        "alarms": to_plain(one.alarms),
        "windows": to_plain(one.windows),
        "stretches": to_plain(one.stretches),
        "seconds": round(one.seconds, 2),
    }
