"""The e-process of one count in plain numbers, as the watch reads it every minute; see :mod:`tasks.decide.sequential`.

The same formulas as there, of one process and without numpy, whose import would be a tenth of a tick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ODDS = (1.3, 1.69, 2.86, 8.16)
"""By how much each bet says that the odds of a bad outcome rose."""
AT_ONCE = 0.7
"""Share of the capital that is bet from the first look on; the rest restarts the bets at each later look."""


def trace(bad: Sequence[int], total: Sequence[int], p0: float, planned: int) -> tuple[float, ...]:
    """Log of the e-process after each look.

    Args:
        bad: Bad outcomes per look.
        total: All outcomes per look.
        p0: Tolerated probability of a bad outcome.
        planned: Looks planned for the whole watch; later ones are judged too, without restarts.

    Raises:
        ValueError: p0 is not inside (0, 1), planned is below 1, or counts are negative, not finite or contradictory.
    """
    check(bad, total, p0, planned)
    restart = 0.0 if planned < 2 else (1 - AT_ONCE) / (len(ODDS) * (planned - 1))
    unspent = [1 - AT_ONCE - len(ODDS) * restart * min(look, planned - 1) for look in range(len(bad))]
    parts = [_wealth(bad, total, bet, restart, planned) for bet in bets(p0)]
    # In the order of a sum over all: whoever judges again has to get the same number to the last bit.
    return tuple(
        [
            _log_sum((*wealth, math.log(rest)) if rest > 1e-12 else wealth)
            for rest, wealth in zip(unspent, zip(*parts, strict=True), strict=True)
        ]
    )


def _wealth(
    bad: Sequence[int], total: Sequence[int], bet: tuple[float, float], restart: float, planned: int
) -> list[float]:
    """Log of what one bet has become after each look; restarted with ``restart`` at each later one that was planned.

    This loop is most of what a quiet tick computes, of every look of a day: it does nothing twice.
    """
    exp, log = math.exp, math.log
    up, down = bet
    added = log(restart) if restart else 0.0
    wealth, out = log(AT_ONCE / len(ODDS)), []
    for look, (hits, count) in enumerate(zip(bad, total, strict=True)):
        if restart and 0 < look < planned:
            ahead = wealth - added
            wealth = wealth + log(1.0 + exp(-ahead)) if ahead >= 0 else added + log(1.0 + exp(ahead))
        wealth = wealth + hits * up + (count - hits) * down
        out.append(wealth)
    return out


def check(bad: Sequence[int], total: Sequence[int], p0: float, planned: int) -> None:
    """See that these counts can be judged.

    Raises:
        ValueError: When they cannot.
    """
    if planned < 1:
        raise ValueError(f"{planned} looks are planned; a watch has at least one")
    if not 0 < p0 < 1:
        raise ValueError(f"the tolerated rate must be above 0 and below 1, not {p0:g}")
    if not all(0 <= hits <= count < math.inf for hits, count in zip(bad, total, strict=True)):
        raise ValueError("counts must be finite, with 0 <= bad <= total in every look")


def mixed(processes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Log of the mean of several e-processes, look by look; a mean of e-processes is one (Vovk and Wang 2021)."""
    return tuple(_log_sum(logs) - math.log(len(processes)) for logs in zip(*processes, strict=True))


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


def bets(p0: float) -> list[tuple[float, float]]:
    """Per bet, the log of the factor for a bad and for a good outcome."""
    pairs = []
    for ratio in ODDS:
        odds = ratio * p0 / (1 - p0)
        p1 = odds / (1 + odds)
        pairs.append((math.log(p1 / p0), math.log((1 - p1) / (1 - p0))))
    return pairs


def _forecast(total: int, rate: float, p0: float) -> float:
    logs = [total * (rate * up + (1 - rate) * down) for up, down in bets(p0)]
    return _log_sum(logs) + math.log(AT_ONCE / len(ODDS))


def _log_sum(logs: Sequence[float]) -> float:
    """Log of the sum of the numbers with these logs."""
    top, exp = max(logs), math.exp
    return top + math.log(sum([exp(one - top) for one in logs]))
