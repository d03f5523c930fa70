"""Bounds for what a sample can tell. Every bound is one-sided at ``confidence``: each side errs that rarely.

scipy is imported where it is called: that takes longer than all of judgement, and a quiet tick of the watch, every
minute, needs no bound.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def normal_quantile(confidence: float) -> float:
    """The z such that a standard normal is below it with this probability."""
    from scipy.special import ndtri  # noqa: PLC0415  see the module

    return float(ndtri(confidence))


def t_quantile(confidence: float, degrees: float) -> float:
    """The same of Student's t."""
    from scipy.special import stdtrit  # noqa: PLC0415  see the module

    return float(stdtrit(degrees, confidence))


def t_factors(confidence: float, degrees: float, skew: float, *, heavy: bool = False) -> tuple[float, float]:
    """How many standard errors below and above the mean of skewed rows its one-sided bounds are.

    Hall (1992, JRSS B 54, p. 221) moves both: away from the mean on the side of the long tail, towards it on the other.

    Args:
        confidence: Of each bound.
        degrees: Of freedom of the standard error.
        skew: Of the mean: the rows' skewness over sqrt(n).
        heavy: A third moment need not exist. Then the skewness is that of the largest rows and says which side they
            are on, not how far the other can be trusted: a bound is moved away from the mean only.
    """
    quantile = t_quantile(confidence, degrees)
    below, above = _unskewed(quantile, skew), -_unskewed(-quantile, skew)
    return (max(quantile, below), max(quantile, above)) if heavy else (below, above)


def t_factor_tail(t: float, degrees: float, skew: float, *, heavy: bool = False) -> float:
    """The probability of a mean so low, or lower, that is ``t`` errors from the true one; below ``1 - confidence`` just
    where the upper bound of :func:`t_factors` at that confidence is below the true one.
    """
    tail = t_tail(_skewed(t, skew), degrees)
    return max(tail, t_tail(t, degrees)) if heavy else tail


def _skewed(t: float, skew: float) -> float:
    """What a studentized mean of skewed rows has to be read as to be normal."""
    a = skew / 3
    return t + a * t**2 + a**2 * t**3 / 3 + a / 2


def _unskewed(quantile: float, skew: float) -> float:
    """The other way round; the cubic rises everywhere."""
    a = skew / 3
    if abs(a) < 1e-9:
        return quantile
    return float((np.cbrt(1 + 3 * a * (quantile - a / 2)) - 1) / a)


def normal_tail(z: float) -> float:
    """The probability that a standard normal is below z."""
    from scipy.special import ndtr  # noqa: PLC0415  see the module

    return float(ndtr(z))


def t_tail(t: float, degrees: float) -> float:
    """The same of Student's t."""
    from scipy.special import stdtr  # noqa: PLC0415  see the module

    return float(stdtr(degrees, t))


def chi_square_tail(value: float, degrees: float, shift: float) -> float:
    """The probability that a non-central chi-square, of this shift, is below a value."""
    from scipy.special import chndtr  # noqa: PLC0415  see the module

    return float(chndtr(value, degrees, shift))


def clopper_pearson(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Exact bounds of a share (Clopper and Pearson 1934); they never claim more than the sample shows.

    Raises:
        ValueError: For no observations.
    """
    if n <= 0 or not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no share; count at least one observation")
    from scipy.special import betaincinv  # noqa: PLC0415  see the module

    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, 1 - confidence))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, confidence))
    return low, high


def logit_bounds(value: float, width: float) -> tuple[float, float]:
    """Bounds of a value between 0 and 1, ``width`` away from it on the scale of its odds' logarithm.

    Args:
        value: Not 0 and not 1.
        width: In units of ``value``.
    """
    centre, spread = math.log(value / (1 - value)), width / (value * (1 - value))

    def back(logit: float) -> float:
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0

    return back(centre - spread), back(centre + spread)


def bonett_price(gains: int, losses: int, n: int, confidence: float) -> tuple[float, float]:
    """Bounds of the difference of two paired shares (Bonett and Price 2012, adjusted Wald).

    Args:
        gains: Pairs in which only the first is true.
        losses: Pairs in which only the second is.
        n: All pairs.
        confidence: One-sided.
    """
    centre, error = adjusted_difference(gains, losses, n)
    width = normal_quantile(confidence) * error
    return max(-1.0, centre - width), min(1.0, centre + width)


def adjusted_difference(gains: int, losses: int, n: int) -> tuple[float, float]:
    """Centre and standard error of :func:`bonett_price`."""
    first, second = (gains + 1) / (n + 2), (losses + 1) / (n + 2)
    return first - second, math.sqrt((first + second - (first - second) ** 2) / (n + 2))


def tango_score(gains: int, losses: int, n: int, apart: float) -> float:
    """How many standard errors two paired shares are from being ``apart`` (Tango 1998); less is farther below.

    The error is that of the difference which is asked about. Where nearly all pairs that differ are losses
    :func:`bonett_price` promises more than it keeps, and the more so the surer it is to be.

    Args:
        gains: Pairs in which only the first is true.
        losses: Pairs in which only the second is.
        n: All pairs.
        apart: The first share less the second, which is asked about; -1 to 1, ends excluded.
    """
    b = -gains - losses + (2 * n - gains + losses) * apart
    c = -losses * apart * (1 - apart)
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # of losses, were this the difference
    error, off = math.sqrt(max(0.0, n * (2 * share + apart * (1 - apart)))), gains - losses - n * apart
    return off / error if error else math.copysign(math.inf, off) if off else 0.0


def tango(gains: int, losses: int, n: int, confidence: float) -> tuple[float, float]:
    """Bounds of the difference of two paired shares: what its score test leaves; see :func:`tango_score`."""
    return _tango_low(gains, losses, n, confidence), -_tango_low(losses, gains, n, confidence)


def _tango_low(gains: int, losses: int, n: int, confidence: float) -> float:
    z, low, high = normal_quantile(confidence), -1.0, (gains - losses) / n
    for _ in range(60):  # halves
        middle = (low + high) / 2
        low, high = (middle, high) if tango_score(gains, losses, n, middle) > z else (low, middle)
    return low


def newcombe(hits: int, n: int, base_hits: int, base_n: int, confidence: float) -> tuple[float, float]:
    """Bounds of the difference of two independent shares, ``hits/n - base_hits/base_n`` (Newcombe 1998, method 10)."""
    share, base = hits / n, base_hits / base_n
    low, high = _wilson(hits, n, confidence)
    base_low, base_high = _wilson(base_hits, base_n, confidence)
    below = math.hypot(share - low, base_high - base)
    above = math.hypot(high - share, base - base_low)
    return share - base - below, share - base + above


def quantile_bounds(sample: Floats, level: float, confidence: float) -> tuple[float | None, float | None]:
    """Distribution-free bounds of a quantile by order statistics (Conover 1999, section 3.2).

    Args:
        sample: shape (n,), in any order.
        level: Of the quantile, 0.99 for a p99.
        confidence: One-sided.

    Returns:
        Lower and upper bound; None on a side where the sample is too small to have one.
    """
    from scipy.special import bdtr  # noqa: PLC0415  see the module

    ordered = np.sort(sample)
    n = ordered.size
    # at_most[k] is P(at most k of the n values lie below the quantile).
    at_most = bdtr(np.arange(n + 1), n, level)
    upper = np.flatnonzero(at_most[:n] >= confidence)
    lower = np.flatnonzero(1 - at_most[:n] >= confidence)
    low = float(ordered[int(lower[-1])]) if lower.size else None
    high = float(ordered[int(upper[0])]) if upper.size else None
    return low, high


def least_sample(level: float, confidence: float) -> int:
    """Observations below which no upper bound of this quantile exists."""
    return math.ceil(math.log(1 - confidence) / math.log(level))


def _wilson(hits: int, n: int, confidence: float) -> tuple[float, float]:
    z = normal_quantile(confidence)
    share = hits / n
    centre = share + z * z / (2 * n)
    width = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - width) / (1 + z * z / n)), min(1.0, (centre + width) / (1 + z * z / n))
