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

from tasks.decide.eprocess import AT_ONCE, ODDS, smallest_visible
from tasks.decide.intervals import Floats

__all__ = ["ODDS", "at_once", "mixed", "replay", "smallest_visible"]


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
    restart = 0.0 if planned < 2 else (1 - AT_ONCE) / (len(ODDS) * (planned - 1))
    wealth = np.full((*n.shape[:-1], len(ODDS)), math.log(AT_ONCE / len(ODDS)))
    out = np.empty(n.shape)
    for look in range(n.shape[-1]):
        if restart and 0 < look < planned:
            wealth = np.logaddexp(wealth, math.log(restart))
        wealth = wealth + steps[..., look, :]
        unspent = 1 - AT_ONCE - len(ODDS) * restart * min(look, planned - 1)
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
