"""Two arms that serve at the same time: sequential evidence that one is worse, and that it is not.

Both are made from the counts of each look as they were, never from the split that was asked for, and both may be looked
at after every batch (Ville 1939). Looks in which one of the arms served nothing compare nothing and are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.decide.intervals import Floats
from tasks.decide.sequential import replay

_PRIOR_SHARE, _PRIOR_WEIGHT = 0.01, 50.0
"""What is supposed of the share of bad answers before anything was seen, and how many answers that is worth."""
_ANY = np.array([0.002, 0.01, 0.04, 0.12, 0.3, 0.6])
"""Shares that are bet on beside: all at first, and with 1 % for ever, as what fails in both arms may jump."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Bad answers of two arms, look by look; every array has shape (..., looks).

    Attributes:
        bad: Of the arm that is judged.
        total: All of its answers.
        base_bad: Of the arm that it is held against.
        base_total: All of its answers.
    """

    bad: Floats
    total: Floats
    base_bad: Floats
    base_total: Floats

    @classmethod
    def of(cls, bad: ArrayLike, total: ArrayLike, base_bad: ArrayLike, base_total: ArrayLike) -> Counts:
        """From anything that numpy takes; looks without answers in both arms count as empty.

        Raises:
            ValueError: When counts are negative, not finite, or more are bad than there are.
        """
        parts = [np.asarray(one, dtype=np.float64) for one in (bad, total, base_bad, base_total)]
        for hits, served in (parts[:2], parts[2:]):
            if not np.all(np.isfinite(hits) & np.isfinite(served) & (hits >= 0) & (hits <= served)):
                raise ValueError("counts must be finite, with 0 <= bad <= total in every look")
        both = (parts[1] > 0) & (parts[3] > 0)
        return cls(*(np.where(both, one, 0.0) for one in parts))


def worse(counts: Counts, *, ratio: float, planned: int) -> Floats:
    """Log of the evidence that the arm's share of bad answers is above ``ratio`` times the other one's.

    Of all bad answers of a look the arm has a share of at most ``q = ratio n / (ratio n + n_base)``, where n are the
    answers it gave in that look; the core of :mod:`tasks.decide.sequential` runs on bad answers only. A bet with
    factors A > 1 and C < 1, q A + (1 - q) C = 1, is one on two binomial counts too, however common bad answers are:
    ``(1 + ratio p (A - 1))^n (1 + p (C - 1))^n_base <= exp(p (ratio n (A - 1) + n_base (C - 1))) = 1``.

    Args:
        counts: shape (..., looks).
        ratio: At least 1; what is not above it is healthy.
        planned: Looks planned; see :func:`tasks.decide.sequential.replay`.

    Returns:
        shape (..., looks). An alarm is a value of at least ``ln(1/alpha)`` at any look.
    """
    together = counts.total + counts.base_total
    share = ratio * counts.total / np.where(together > 0, ratio * counts.total + counts.base_total, 1.0)
    share = np.where(together > 0, share, 0.5)
    return replay(counts.bad, counts.bad + counts.base_bad, share, planned)


def not_worse(counts: Counts, *, margin: float) -> Floats:
    """Log of the evidence that the arm's share of bad answers is less than ``margin`` above the other one's.

    The e-variable of Turner, Ly and Grünwald (arXiv 2106.02693) for two streams: per look the likelihood ratio of "both
    have the share u" against the pair (p, p + margin) that is nearest to it in the sense of Kullback and Leibler, given
    the answers of the look. That pair is where ``n log E[factor at p + margin] + n_base log E[factor at p]``, which is
    concave in p, has its maximum 0, so no pair with this margin or a larger one gives more than 1 on average. The share
    u is that of all looks before, mixed with a few fixed ones, so every bet is made before its outcome is seen.

    Args:
        counts: shape (..., looks).
        margin: Inside (0, 1).

    Returns:
        shape (..., looks). At least ``ln(1/alpha)``: shown; the chance that an arm that is worse by the margin, or by
        more, ever gets there is at most alpha.

    Raises:
        ValueError: For a margin that is not inside (0, 1).
    """
    if not 0 < margin < 1:
        raise ValueError(f"the tolerated difference must be above 0 and below 1, not {margin:g}")
    share, seen = _share_before(counts)
    fitted = _log_ratio(counts, share, margin)
    wide = Counts(*(one[..., None] for one in (counts.bad, counts.total, counts.base_bad, counts.base_total)))
    any_of_them = np.logaddexp.reduce(_log_ratio(wide, _ANY, margin), axis=-1) - math.log(len(_ANY))
    beside = np.maximum(_PRIOR_WEIGHT / (_PRIOR_WEIGHT + seen), 0.01)
    with np.errstate(divide="ignore"):  # before anything was seen nothing is fitted: the logarithm of 0
        steps = np.logaddexp(np.log1p(-beside) + fitted, np.log(beside) + any_of_them)
    out: Floats = np.cumsum(steps, axis=-1)
    return out


def _log_ratio(counts: Counts, share: Floats, margin: float) -> Floats:
    """Log of the e-variable of each look for one share in both arms."""
    low = _nearest(share, counts.total, counts.base_total, margin)
    high = low + margin
    good, base_good = counts.total - counts.bad, counts.base_total - counts.base_bad
    ours = counts.bad * np.log(share / high) + good * np.log((1 - share) / (1 - high))
    out: Floats = ours + counts.base_bad * np.log(share / low) + base_good * np.log((1 - share) / (1 - low))
    return out


def still_needed(counts: Counts, *, margin: float, log_threshold: float) -> float:
    """How many more answers of the arm would show that it is not worse, if both arms go on as they did.

    Args:
        counts: shape (looks,).
        margin: As in :func:`not_worse`.
        log_threshold: Log of the evidence that is needed.

    Returns:
        0 where it is shown; infinite where the counts lead nowhere.
    """
    have = float(not_worse(counts, margin=margin)[-1]) if counts.total.size else 0.0
    if have >= log_threshold:
        return 0.0
    total, base = float(counts.total.sum()), float(counts.base_total.sum())
    if not total or not base:
        return math.inf
    pooled = _PRIOR_SHARE * _PRIOR_WEIGHT + float((counts.bad + counts.base_bad).sum())
    both = np.array([pooled / (_PRIOR_WEIGHT + total + base)])
    one, beside = np.array([1.0]), np.array([base / total])
    low = _nearest(both, one, beside, margin)
    rate, base_rate = float(counts.bad.sum()) / total, float(counts.base_bad.sum()) / base
    growth = _growth(rate, both, low + margin) + beside * _growth(base_rate, both, low)
    return (log_threshold - have) / float(growth[0]) if growth[0] > 1e-9 else math.inf


def _growth(rate: float, share: Floats, null: Floats) -> Floats:
    """Expected log factor of one answer, of which this share is bad."""
    out: Floats = rate * np.log(share / null) + (1 - rate) * np.log((1 - share) / (1 - null))
    return out


def _share_before(counts: Counts) -> tuple[Floats, Floats]:
    """Share of bad answers in both arms together before each look, and how many answers it rests on."""
    bad, total = counts.bad + counts.base_bad, counts.total + counts.base_total
    seen_bad, seen = np.cumsum(bad, axis=-1) - bad, np.cumsum(total, axis=-1) - total
    return (_PRIOR_SHARE * _PRIOR_WEIGHT + seen_bad) / (_PRIOR_WEIGHT + seen), seen


def _nearest(share: Floats, total: Floats, base: Floats, margin: float) -> Floats:
    """The p for which (p, p + margin) is nearest to (share, share), by bisection of the slope, which falls with p."""
    empty = (total <= 0) | (base <= 0)
    n, m = np.where(empty, 1.0, total), np.where(empty, 1.0, base)
    left, right = np.maximum(share - margin, 0.0), np.minimum(share, 1 - margin)
    for _ in range(30):
        p = (left + right) / 2
        q = p + margin
        slope = n * (share / q - (1 - share) / (1 - q)) + m * (share / p - (1 - share) / (1 - p))
        left, right = np.where(slope > 0, p, left), np.where(slope > 0, right, p)
    out: Floats = (left + right) / 2
    return out
