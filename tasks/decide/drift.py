"""Drift: has a column moved by more than the policy allows, shown and not just seen?

A population stability index grows with noise: between two samples of one distribution it is about
``(B - 1)(1/N + 1/M)``. Divided by h = 1/N + 1/M it follows a chi-square with B - 1 degrees of freedom, non-central
with PSI/h when the true index is PSI (Yurdakul 2018, section 3; the local alternatives of Pearson's test). A column
fires when that rules out the policy's limit, Benjamini-Hochberg over the columns (1995).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tasks.decide import levels, phrase
from tasks.decide.influence import Unmeasurable
from tasks.decide.intervals import Floats, chi_square_tail, clopper_pearson, newcombe, normal_quantile, normal_tail
from tasks.records import ColumnProfile, Finding, Outcome

if TYPE_CHECKING:
    from tasks.policy import DriftTrigger, PredictionTrigger

LEVELS = 0.01
"""Share of rows by which new or vanished categories must be shown to have changed; one misspelt row is no drift."""
_TOGETHER = 0.5
"""Share of the rows in bins that are compared as one, above which an index tells nothing of most rows."""
_LARGE = 1e4  # above that chndtr sums too many terms, and the normal limit is exact to four digits


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """A population stability index with what is needed to judge it.

    Attributes:
        psi: The index, smoothed by half an observation per bin.
        noise: h = 1/N + 1/M.
        bins: That hold anything.
        n: Recent observations.
        together: Share of the observations in bins that were too thin, and are compared as one.
    """

    psi: float
    noise: float
    bins: int
    n: int
    together: float = 0.0

    @property
    def blind(self) -> str:
        """Why a small index is no proof that nothing moved; empty where it is one."""
        if self.together <= _TOGETHER:
            return ""
        return (
            f"{phrase.percent(self.together)} of the values lie in bins where less than one row is to be expected; "
            "wait for more rows"
        )

    def p_value(self, limit: float) -> float:
        """Probability of an index at least this large while the true one is ``limit``."""
        degrees, shift, value = self.bins - 1, limit / self.noise, self.psi / self.noise
        if degrees < 1:
            return 1.0
        if shift + degrees > _LARGE:
            return normal_tail((degrees + shift - value) / math.sqrt(2 * (degrees + 2 * shift)))
        return float(np.clip(1 - chi_square_tail(value, degrees, shift), 0.0, 1.0))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Bounds of the true index, by the mean and variance of the non-central chi-square."""
        degrees, z = max(self.bins - 1, 1), normal_quantile(confidence)
        # The shifts t from which the index lies z standard deviations away, where that one is sqrt(2 (degrees + 2 t)).
        # An index smaller than chance makes it is no proof that there is none.
        centre = max(self.psi / self.noise - degrees, -math.sqrt(2 * degrees))
        middle = centre + 2 * z * z
        width = math.sqrt(max(middle * middle - centre * centre + 2 * z * z * degrees, 0.0))
        return max(0.0, (middle - width) * self.noise), max(0.0, (middle + width) * self.noise)


def psi(reference: ColumnProfile, recent: ColumnProfile) -> Shift:
    """The index between two profiles with the same bins.

    Bins that hold nothing on either side are left out, and bins too thin to expect one observation in the smaller
    sample are taken together. Which they are depends on the sum of both counts only, so it favours neither.

    Raises:
        Unmeasurable: The bins differ, or one side is empty.
    """
    if (reference.kind, reference.edges, reference.categories) != (recent.kind, recent.edges, recent.categories):
        raise Unmeasurable("the two profiles have different bins; profile the recent data with the reference's bins")
    before, after = levels.paired(reference, recent)
    rows, new = before.sum(), after.sum()
    if not rows or not new:
        side = "recent" if rows else "reference"
        raise Unmeasurable(f"the {side} data hold no value that is not null")
    if reference.kind == "number" and not reference.edges:
        raise Unmeasurable("all values of the reference are infinite, and tell nothing about others")
    if reference.kind == "category" and (before.size < 2 or levels.expected(reference) > 1 - LEVELS):
        raise Unmeasurable(
            "hardly a value is there a second time, so there is nothing to compare; drop the column if it names rows"
        )
    before, after, together = _without_thin_bins(before, after)
    bins = before.size
    p, q = (before + 0.5) / (rows + 0.5 * bins), (after + 0.5) / (new + 0.5 * bins)
    index = float(((q - p) * np.log(q / p)).sum())
    return Shift(psi=index, noise=float(1 / rows + 1 / new), bins=bins, n=int(new), together=together)


def ks(reference: ColumnProfile, recent: ColumnProfile) -> float | None:
    """The Kolmogorov-Smirnov distance of two profiles: the largest gap between their distribution functions.

    Both are known at points between which less than 1/1024 of the reference lies, and just before each; where one has
    a step, so has the other. In between, the gap can be larger than at the nearer point by no more than that share.

    Returns:
        0..1, None where no steps were kept or one side is empty.
    """
    first, second = reference.steps, recent.steps
    if first is None or second is None or first.at != second.at or not reference.present or not recent.present:
        return None
    gaps = [
        np.abs(np.asarray(mine) / reference.present - np.asarray(other) / recent.present)
        for mine, other in ((first.below, second.below), (first.upto, second.upto))
    ]
    return float(max((gap.max() for gap in gaps if gap.size), default=0.0))


def _without_thin_bins(before: Floats, after: Floats) -> tuple[Floats, Floats, float]:
    """The bins, and the mean share of both sides' rows in those that became one."""
    both = before + after
    expected = both * min(before.sum(), after.sum()) / both.sum()
    thin = (expected < 1) & (both > 0)
    kept = (expected >= 1) & (both > 0)
    if not thin.any():
        return before[kept], after[kept], 0.0
    rest, new = before[thin].sum(), after[thin].sum()
    together = float(rest / before.sum() + new / after.sum()) / 2 if np.count_nonzero(thin) > 1 else 0.0
    return np.r_[before[kept], rest], np.r_[after[kept], new], together


@dataclass
class _Column:
    """What was found out about one column, before the columns are judged together."""

    reference: ColumnProfile
    recent: ColumnProfile | None
    shift: Shift | None = None
    p_value: float | None = None
    causes: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    unknown: str = ""

    def drifted(self, cause: str, sentence: str) -> None:
        self.causes.append(cause)
        self.sentences.append(sentence)

    @property
    def effect(self) -> float:
        """Size of the change, to order the columns by."""
        if {"missing", "type"} & set(self.causes):
            return math.inf
        return max(-1.0 if self.shift is None else self.shift.psi, self.null_effect)

    @property
    def weight(self) -> float:
        """Size of the change times how much the model leans on the column; the change alone where that is not known."""
        return self.effect if self.reference.score is None else self.effect * max(self.reference.score, 0.0)

    @property
    def null_effect(self) -> float:
        """The index of the two bins null and not null."""
        if self.recent is None or not self.recent.rows or not self.reference.rows:
            return -1.0
        before, after = ((one.nulls + 0.5) / (one.rows + 1) for one in (self.reference, self.recent))
        return _index_of_two(before, after)


def judge(reference: Sequence[ColumnProfile], recent: Sequence[ColumnProfile], rules: DriftTrigger) -> Finding:
    """The trigger ``drift``: more of the columns than ``rules.share_of_features`` are shown to have moved.

    Args:
        reference: At least one column.
        recent: Counted in its bins.
        rules: What counts as moved.
    """
    columns = judge_columns(reference, recent, rules)
    drifted = [column for column in columns if column.outcome == "breach"]
    unknown = [column for column in columns if column.outcome == "unknown"]
    total, limit = len(columns), rules.share_of_features
    share = len(drifted) / total
    outcome: Outcome = "ok"
    if share > limit:
        outcome = "breach"
    elif len(unknown) == total or (len(drifted) + len(unknown)) / total > limit:
        outcome = "unknown"
    return Finding(
        name="drift",
        outcome=outcome,
        reason=_sentence(drifted, unknown, total, rules),
        value=share,
        threshold=limit,
        n=max((column.n or 0 for column in columns), default=0),
        urgency=None if outcome != "breach" else "high" if share >= min(1.0, 2 * limit) else "medium",
        evidence={
            "features": [column.name for column in drifted],
            "unknown_features": [column.name for column in unknown],
            "columns": [
                {"name": c.name, "outcome": c.outcome, "psi": c.value, "reason": c.reason, **c.evidence}
                for c in columns
            ],
        },
    )


def _sentence(drifted: list[Finding], unknown: list[Finding], total: int, rules: DriftTrigger) -> str:
    share = phrase.number(len(drifted) / total)
    said = f"{len(drifted)} of {total} features drifted ({share}, limit {phrase.number(rules.share_of_features)})"
    if drifted:
        said += f": {phrase.listing([column.name for column in drifted])}"
    if unknown:
        said += f"; {len(unknown)} could not be judged, such as {unknown[0].reason}"
    return said


def judge_columns(
    reference: Sequence[ColumnProfile], recent: Sequence[ColumnProfile], rules: DriftTrigger
) -> tuple[Finding, ...]:
    """One finding per column of the reference, what matters most first.

    That is the size of the change times how much the model leans on the column, where it was measured at training: a
    column that the model does not look at may move as it likes. What is missing or changed its type leads in any case.

    ``breach`` is a column that is shown to have moved by more than ``rules.psi``, or in which a category alone has,
    whose share of nulls is shown to have changed by more than ``rules.null_share``, that has new or lost categories or
    infinite values in at least 1 % of the rows, that changed its type or is not there. ``ok`` is one that was looked at
    with enough rows and shows none of it; its interval says how much it may have moved at most. A column without enough
    rows, of itself or for most of its categories, is ``unknown``.
    """
    found = {profile.name: profile for profile in recent}
    columns = [_Column(profile, found.get(profile.name)) for profile in reference]
    confidence = 1 - rules.false_alarms / max(2 * len(columns), 1)
    for column in columns:
        _examine(column, rules, confidence)
    tested = {column.reference.name: column.p_value for column in columns if column.p_value is not None}
    fired = _benjamini_hochberg(tested, rules.false_alarms)
    for column in columns:
        if column.reference.name in fired and column.shift is not None:
            column.drifted("psi", _psi_sentence(column.shift, rules))
        elif not column.causes:
            _examine_rises(column, rules, confidence)
    weighed = all(column.reference.score is not None for column in columns)

    def place(column: _Column) -> tuple[float, float]:
        lost = math.isinf(column.effect)
        return (-math.inf if lost else -column.weight if weighed else -column.effect, -column.effect)

    return tuple(_finding(column, rules) for column in sorted(columns, key=place))


def _examine(column: _Column, rules: DriftTrigger, confidence: float) -> None:
    before, after = column.reference, column.recent
    if after is None:
        column.drifted("missing", "the column is not in the recent data")
    elif after.kind != before.kind and before.present:
        column.drifted("type", f"it was a {before.kind} and is a {after.kind} now")
    elif after.rows < rules.min_rows:
        column.unknown = f"{after.rows} recent rows, {rules.min_rows} are needed"
    else:
        _examine_nulls(column, before, after, rules, confidence)
        if after.present < rules.min_rows:
            column.unknown = f"{after.present} recent values that are not null, {rules.min_rows} are needed"
            return
        if not before.present:
            column.unknown = "the reference data hold no value that is not null"
            return
        _examine_infinite(column, before, after, confidence)
        _examine_levels(column, before, after, confidence)
        if before.present < rules.min_rows:
            column.unknown = f"{before.present} values of the reference are not null, {rules.min_rows} are needed"
            return
        try:
            column.shift = psi(before, after)
        except Unmeasurable as reason:
            column.unknown = str(reason)
            return
        column.p_value = column.shift.p_value(rules.psi)
        column.unknown = column.shift.blind


def _examine_nulls(
    column: _Column, before: ColumnProfile, after: ColumnProfile, rules: DriftTrigger, confidence: float
) -> None:
    if not before.rows:
        return
    low, high = newcombe(after.nulls, after.rows, before.nulls, before.rows, confidence)
    if low > rules.null_share or high < -rules.null_share:
        was, now = phrase.percent(before.nulls / before.rows), phrase.percent(after.nulls / after.rows)
        column.drifted("nulls", f"nulls went from {was} to {now} of {phrase.count(after.rows)} rows")


def _examine_infinite(column: _Column, before: ColumnProfile, after: ColumnProfile, confidence: float) -> None:
    """An infinite value lies in the last bin, where many a finite one lies: no index shows that it came."""
    if not after.infinite:
        return
    low, _ = newcombe(after.infinite, after.present, before.infinite, before.present, confidence)
    if low > LEVELS:
        share = phrase.percent(after.infinite / after.present)
        usual = phrase.percent(before.infinite / before.present)
        column.drifted("infinite", f"{share} of the values are infinite, {usual} were")


def _examine_levels(column: _Column, before: ColumnProfile, after: ColumnProfile, confidence: float) -> None:
    if before.kind != "category" or before.categories != after.categories or not before.present:
        return
    if levels.more(after.counts[-1], after.present, before, confidence) > LEVELS:
        share = phrase.percent(after.counts[-1] / after.present)
        said = f"{share} of the rows hold categories that the reference does not know"
        if before.counts[-1]:
            usual = phrase.percent(levels.expected(before))
            kept = len(before.categories)
            said = f"{share} of the rows hold none of the reference's {kept} most frequent categories, {usual} did"
        column.drifted("new categories", said)
    level_confidence = 1 - (1 - confidence) / max(len(before.categories), 1)
    lost = [
        name
        for name, was, now in zip(before.categories, before.counts, after.counts, strict=False)
        if was and not now and newcombe(0, after.present, was, before.present, level_confidence)[1] < -LEVELS
    ]
    if lost:
        column.drifted("lost categories", f"{phrase.listing(lost)} no longer occurs")


def _examine_rises(column: _Column, rules: DriftTrigger, confidence: float) -> None:
    """A category that is too rare for a bin of its own may become one that is not, and the index would not show it.

    Its own index, of the two bins of it and all others, is less than that of all of them, and is held against the same
    limit; bounds of both shares (Clopper and Pearson 1934) tell the least that it can be.
    """
    before, after = column.reference, column.recent
    if after is None or before.kind != "category" or before.categories != after.categories:
        return
    rows, new = before.present, after.present
    if min(rows, new) < rules.min_rows:
        return
    # Both shares of every category.
    bound = 1 - (1 - confidence) / (2 * max(len(before.categories), 1))
    for name, was, now in zip(before.categories, before.counts, after.counts, strict=False):
        seen = _index_of_two((was + 0.5) / (rows + 1), (now + 0.5) / (new + 1))
        if now * rows <= was * new or seen <= rules.psi:
            continue  # most are, and their bounds need not be known
        high, low = clopper_pearson(was, rows, bound)[1], clopper_pearson(now, new, bound)[0]
        if low > high and _index_of_two(high, low) > rules.psi:
            said = f"{name!r} went from {phrase.percent(was / rows)} to {phrase.percent(now / new)} of the values"
            column.drifted("risen category", said)
            return


def _index_of_two(before: float, after: float) -> float:
    """The index of a share and what it leaves."""
    p, q = before, after
    return (q - p) * math.log(q / p) + (p - q) * math.log((1 - q) / (1 - p))


def _psi_sentence(shift: Shift, rules: DriftTrigger | PredictionTrigger) -> str:
    seen = f"PSI {phrase.number(shift.psi)} on {phrase.count(shift.n)} rows"
    return f"{seen} is shown to be above {phrase.number(rules.psi)}"


def _benjamini_hochberg(p_values: Mapping[str, float], rate: float) -> frozenset[str]:
    """Names that are rejected with this false discovery rate (Benjamini and Hochberg 1995)."""
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    passing = [rank for rank, (_, p) in enumerate(ordered, start=1) if p <= rank * rate / len(ordered)]
    return frozenset(name for name, _ in ordered[: passing[-1]]) if passing else frozenset()


def _finding(column: _Column, rules: DriftTrigger) -> Finding:
    name, shift, recent = column.reference.name, column.shift, column.recent
    outcome: Outcome = "breach" if column.causes else "unknown" if column.unknown else "ok"
    if outcome == "unknown":
        shift = None
    interval = None if shift is None else shift.interval(1 - rules.false_alarms)
    if outcome == "breach":
        leaning = column.reference.score
        leans = "" if leaning is None else f" (the model leans on it by {phrase.percent(leaning)})"
        reason = f"{name}: {'; '.join(column.sentences)}{leans}"
    elif outcome == "unknown" or shift is None or interval is None:
        reason = f"{name}: {column.unknown}"
    else:
        reason = (
            f"{name}: PSI {phrase.number(shift.psi)} (at most {phrase.number(interval[1])}) on "
            f"{phrase.count(shift.n)} rows is not shown to be above {phrase.number(rules.psi)}"
        )
    return Finding(
        name=name,
        outcome=outcome,
        reason=reason,
        value=None if shift is None else shift.psi,
        threshold=rules.psi,
        interval=interval,
        n=0 if recent is None else recent.rows,
        evidence=_evidence(column, rules),
    )


def _evidence(column: _Column, rules: DriftTrigger) -> dict[str, object]:
    before, after, shift = column.reference, column.recent, column.shift
    evidence: dict[str, object] = {
        "causes": list(column.causes),
        "weight": column.weight if math.isfinite(column.weight) else None,
        "p_value": column.p_value,
        "null_share_reference": before.nulls / before.rows if before.rows else None,
        "null_share": after.nulls / after.rows if after is not None and after.rows else None,
        "importance": before.score,
    }
    if after is not None and (distance := ks(before, after)) is not None:
        evidence["ks"] = distance
    if shift is not None:
        # Above the limit once the expected noise is taken off, though not shown: worth a look, no reason to act.
        evidence["warn"] = bool(shift.psi - (shift.bins - 1) * shift.noise > rules.psi and "psi" not in column.causes)
    if after is not None and None not in (before.low, before.high, after.low, after.high):
        evidence["range_reference"] = [before.low, before.high]
        evidence["range"] = [after.low, after.high]
    return evidence


def judge_prediction(reference: ColumnProfile, recent: ColumnProfile, rules: PredictionTrigger) -> Finding:
    """The trigger ``prediction``: the answers are not distributed as they were.

    The PSI of the whole distribution, and the share beyond every cut of it (above each bin edge, or in each class):
    a rate of positives that goes from 1 % to 5 % hardly moves a PSI. A normal distribution that moves by d standard
    deviations has PSI d^2, and shifts every share by d on the probit scale; so a share that is shown to have moved
    by more than sqrt(``rules.psi``) on that scale is a breach of the same size. Each half spends half of
    ``rules.false_alarms``.
    """
    if recent.rows < rules.min_rows:
        reason = f"{recent.rows} recent answers, {rules.min_rows} are needed"
        return Finding(name="prediction", outcome="unknown", reason=reason, threshold=rules.psi, n=recent.rows)
    broken = _broken_answers(reference, recent, rules)
    try:
        shift = psi(reference, recent)
    except Unmeasurable as reason:
        outcome: Outcome = "breach" if broken else "unknown"
        return Finding(name="prediction", outcome=outcome, reason=broken or str(reason), n=recent.rows)
    p_value = shift.p_value(rules.psi)
    moved = [broken] if broken else []
    moved += [_psi_sentence(shift, rules)] if p_value <= rules.false_alarms / 2 else []
    moved += _moved_shares(reference, recent, rules)
    interval = shift.interval(1 - rules.false_alarms)
    calm = f"PSI {phrase.number(shift.psi)} (at most {phrase.number(interval[1])}) of {phrase.count(shift.n)} answers "
    if shift.blind and not moved:
        return Finding(name="prediction", outcome="unknown", reason=f"answers: {shift.blind}", n=recent.rows)
    return Finding(
        name="prediction",
        outcome="breach" if moved else "ok",
        reason="answers: " + ("; ".join(moved) or f"{calm}is not shown to be above {phrase.number(rules.psi)}"),
        value=shift.psi,
        threshold=rules.psi,
        interval=interval,
        n=recent.rows,
        urgency="high" if moved else None,
        evidence={"p_value": p_value},
    )


def _broken_answers(reference: ColumnProfile, recent: ColumnProfile, rules: PredictionTrigger) -> str:
    """Answers that are no answers: NaN or null, in at least 1 % of the rows more than before."""
    if not recent.nulls or not reference.rows:
        return ""
    low, _ = newcombe(recent.nulls, recent.rows, reference.nulls, reference.rows, 1 - rules.false_alarms / 4)
    return f"{phrase.percent(recent.nulls / recent.rows)} of the answers are null or NaN" if low > LEVELS else ""


def _moved_shares(reference: ColumnProfile, recent: ColumnProfile, rules: PredictionTrigger) -> list[str]:
    """The share that moved most, in one sentence, when any is shown to."""
    before, after = np.asarray(reference.counts), np.asarray(recent.counts)
    if reference.kind == "number":
        before, after = np.cumsum(before[::-1])[::-1][1:], np.cumsum(after[::-1])[::-1][1:]
        names = [f"above {phrase.number(edge)}" for edge in reference.edges]
    else:
        names = [*(repr(name) for name in reference.categories), "of no known class"]
    # Half of the false alarms, over both directions of every cut.
    confidence = 1 - rules.false_alarms / (4 * max(len(names), 1))
    rows, new = reference.present, recent.present
    moves = [
        (gap, f"{name} went from {phrase.percent(was / rows)} to {phrase.percent(now / new)}")
        for name, was, now in zip(names, before.tolist(), after.tolist(), strict=True)
        if (gap := _probit_gap(was, rows, now, new, confidence)) > math.sqrt(rules.psi)
    ]
    return [f"the share {max(moves)[1]} of {phrase.count(new)} answers"] if moves else []


def _probit_gap(was: int, rows: int, now: int, new: int, confidence: float) -> float:
    """The least distance of two shares on the probit scale that the counts allow, in either direction.

    Bounds of a difference from those of its parts (Zou and Donner 2008), these being exact.
    """
    before, after = (normal_quantile((hits + 0.5) / (n + 1)) for hits, n in ((was, rows), (now, new)))
    low, high = (normal_quantile(bound) for bound in clopper_pearson(was, rows, confidence))
    new_low, new_high = (normal_quantile(bound) for bound in clopper_pearson(now, new, confidence))
    rise = after - before - math.hypot(after - new_low, high - before)
    fall = before - after - math.hypot(before - low, new_high - after)
    return max(rise, fall, 0.0)
