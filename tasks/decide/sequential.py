"""An e-process: evidence against "bad at most p0" that may be looked at after every batch.

The chance that it ever exceeds 1/alpha while the truth is p0 or less is at most alpha (Ville 1939), however often it
is looked at. It mixes four bets on higher odds (a Robbins mixture; Waudby-Smith and Ramdas 2024, arXiv 2010.09686)
and keeps 30 % of its capital to restart the bets at each later look, so that a change late in the watch is found too.
A replay of the same counts gives the same answer; nothing is kept between looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tasks.decide.intervals import Floats

ODDS = (1.3, 1.69, 2.86, 8.16)
"""By how much each bet says that the odds of a bad outcome rose."""
_AT_ONCE = 0.7


def replay(bad: ArrayLike, total: ArrayLike, p0: ArrayLike, planned: int) -> Floats:
    """Log of the e-process after each look.

    Args:
        bad: shape (..., looks), bad outcomes per look; fractions are allowed for forecasts.
        total: shape (..., looks), all outcomes per look. A look without any changes nothing.
        p0: Tolerated probability of a bad outcome, one number or one per look (a concurrent baseline's share).
        planned: Looks planned for the whole watch; later ones are judged too, without restarts.

    Returns:
        shape (..., looks). An alarm is a value of at least ``ln(1/alpha)`` at any look.

    Raises:
        ValueError: p0 is not inside (0, 1), planned is below 1, or counts are negative, not finite or contradictory.
    """
    s, n = np.asarray(bad, dtype=np.float64), np.asarray(total, dtype=np.float64)
    tolerated = np.broadcast_to(np.asarray(p0, dtype=np.float64), n.shape)
    _check(s, n, tolerated, planned)
    steps = _log_growth(s, n, tolerated)
    restart = 0.0 if planned < 2 else (1 - _AT_ONCE) / (len(ODDS) * (planned - 1))
    wealth = np.full((*n.shape[:-1], len(ODDS)), math.log(_AT_ONCE / len(ODDS)))
    out = np.empty(n.shape)
    for look in range(n.shape[-1]):
        if restart and 0 < look < planned:
            wealth = np.logaddexp(wealth, math.log(restart))
        wealth = wealth + steps[..., look, :]
        unspent = 1 - _AT_ONCE - len(ODDS) * restart * min(look, planned - 1)
        total_wealth = np.logaddexp.reduce(wealth, axis=-1)
        out[..., look] = np.logaddexp(total_wealth, math.log(unspent)) if unspent > 1e-12 else total_wealth
    return out


def at_once(bad: int, total: int, p0: float) -> float:
    """Log of the e-value of counts that come without an order in time; all capital is bet from the start."""
    grown = _log_growth(np.array([float(bad)]), np.array([float(total)]), np.array([p0]))[0]
    return float(np.logaddexp.reduce(grown) - math.log(len(ODDS)))


def mixed(processes: Sequence[Floats]) -> Floats:
    """Log of the mean of several e-processes, look by look; a mean of e-processes is one (Vovk and Wang 2021).

    Raises:
        ValueError: For none.
    """
    if not processes:
        raise ValueError("there is no e-process to combine; enable at least one metric")
    out: Floats = np.logaddexp.reduce(np.stack(processes), axis=0) - math.log(len(processes))
    return out


def smallest_visible(total: int, p0: float, log_threshold: float) -> float | None:
    """The smallest rate that would have raised the alarm by now, had it been there from the start.

    Computed for counts that follow the rate exactly and without the restarts, so it errs on the large side.

    Args:
        total: Outcomes so far.
        p0: The tolerated rate.
        log_threshold: Log of the e-value that is an alarm.

    Returns:
        A rate above p0, or None when not even failing every time would have been seen.
    """
    if total <= 0 or _forecast(total, 1.0, p0) < log_threshold:
        return None
    low, high = p0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _forecast(total, middle, p0) >= log_threshold else (middle, high)
    return high


def _forecast(total: int, rate: float, p0: float) -> float:
    logs = [total * (rate * up + (1 - rate) * down) for up, down in _bets(p0)]
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs)) + math.log(_AT_ONCE / len(ODDS))


def _bets(p0: float) -> list[tuple[float, float]]:
    """Per bet, the log of the factor for a bad and for a good outcome."""
    pairs = []
    for ratio in ODDS:
        odds = ratio * p0 / (1 - p0)
        p1 = odds / (1 + odds)
        pairs.append((math.log(p1 / p0), math.log((1 - p1) / (1 - p0))))
    return pairs


def _log_growth(bad: Floats, total: Floats, p0: Floats) -> Floats:
    """The log factor of every bet at every look, shape (..., looks, bets)."""
    odds = np.asarray(ODDS) * (p0 / (1 - p0))[..., None]
    p1 = odds / (1 + odds)
    up, down = np.log(p1 / p0[..., None]), np.log((1 - p1) / (1 - p0[..., None]))
    out: Floats = bad[..., None] * up + (total - bad)[..., None] * down
    return out


def _check(bad: Floats, total: Floats, p0: Floats, planned: int) -> None:
    if planned < 1:
        raise ValueError(f"{planned} looks are planned; a watch has at least one")
    if not np.all((p0 > 0) & (p0 < 1)):
        raise ValueError(f"the tolerated rate must be above 0 and below 1, not {p0.min():g} to {p0.max():g}")
    if not np.all(np.isfinite(bad) & np.isfinite(total) & (bad >= 0) & (bad <= total)):
        raise ValueError("counts must be finite, with 0 <= bad <= total in every look")
