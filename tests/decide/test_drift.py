"""Drift: what moved is named, and what did not move raises no alarm at any sample size."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ncx2, norm

from tasks import profile as profiles
from tasks.decide.drift import Shift, judge_columns, judge_prediction, psi
from tasks.decide.influence import Unmeasurable
from tasks.policy import DriftTrigger, PredictionTrigger
from tasks.records import ColumnProfile, Finding
from tasks.upstream import _change

RULES = DriftTrigger()
SURE = 0.99


def changed(now: pd.DataFrame, before: ColumnProfile) -> str:
    (counted,) = profiles.count(now, (before,))
    return _change(now, counted, before, SURE)


def number(name: str, values: np.ndarray, edges: np.ndarray) -> ColumnProfile:
    present = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=edges.size + 1)
    return ColumnProfile(
        name=name,
        kind="number",
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        nulls=int(np.isnan(values).sum()),
        low=float(present.min()) if present.size else None,
        high=float(present.max()) if present.size else None,
    )


def deciles(values: np.ndarray) -> np.ndarray:
    return np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9)))


def category(name: str, levels: str, counts: list[int], nulls: int = 0) -> ColumnProfile:
    return ColumnProfile(name=name, kind="category", categories=tuple(levels), counts=tuple(counts), nulls=nulls)


def one(reference: ColumnProfile, recent: ColumnProfile | None, rules: DriftTrigger = RULES) -> Finding:
    (finding,) = judge_columns((reference,), () if recent is None else (recent,), rules)
    return finding


def normal(rng: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    return rng.normal(shift, 1, n)


def test_without_drift_the_index_over_its_noise_is_a_chi_square() -> None:
    rng = np.random.default_rng(0)
    reference = normal(rng, 5000)
    edges = deciles(reference)
    before = number("x", reference, edges)
    shares = np.diff(np.r_[0, np.searchsorted(np.sort(reference), edges, side="right"), 5000]) / 5000
    values = []
    for _ in range(800):
        again = rng.multinomial(5000, shares)
        fresh = rng.multinomial(400, shares)
        profiles = [
            ColumnProfile(name="x", kind="number", edges=before.edges, counts=tuple(map(int, counts)))
            for counts in (again, fresh)
        ]
        shift = psi(*profiles)
        values.append(shift.psi / shift.noise)
    assert np.mean(values) == pytest.approx(9, rel=0.06)
    assert np.var(values) == pytest.approx(18, rel=0.2)
    assert np.mean(np.array(values) > 16.919) == pytest.approx(0.05, abs=0.025)


def test_a_true_index_at_the_limit_fires_as_rarely_as_promised() -> None:
    rng = np.random.default_rng(0)
    before = np.full(10, 0.1)
    tilt = np.linspace(-1, 1, 10)
    after = before * np.exp(0.497 * tilt)
    after /= after.sum()
    assert ((after - before) * np.log(after / before)).sum() == pytest.approx(0.1, rel=0.05)
    fired = 0
    for _ in range(1000):
        pair = [
            ColumnProfile(
                name="x", kind="number", edges=tuple(range(9)), counts=tuple(map(int, rng.multinomial(rows, shares)))
            )
            for rows, shares in ((3000, before), (1000, after))
        ]
        fired += psi(*pair).p_value(0.1) <= 0.05
    assert fired / 1000 <= 0.075


@pytest.mark.parametrize(
    ("value", "bins", "noise"), [(0.2, 10, 0.01), (0.15, 5, 0.001), (0.102, 10, 2e-5), (0.05, 3, 0.1)]
)
def test_the_probability_is_that_of_the_noncentral_chi_square(value: float, bins: int, noise: float) -> None:
    shift = Shift(psi=value, noise=noise, bins=bins, n=100)
    assert shift.p_value(0.1) == pytest.approx(float(ncx2.sf(value / noise, bins - 1, 0.1 / noise)), abs=1e-3)


@pytest.mark.parametrize("rows", [50, 1000, 100_000])
def test_fifty_columns_that_did_not_move_raise_no_alarm_at_any_size(rows: int) -> None:
    rng = np.random.default_rng(rows)
    alarms = 0
    for _ in range(4):
        reference, recent = [], []
        for column in range(50):
            values = normal(rng, 5000)
            edges = deciles(values)
            reference.append(number(str(column), values, edges))
            recent.append(number(str(column), normal(rng, rows, 0.02), edges))
        alarms += sum(finding.outcome == "breach" for finding in judge_columns(reference, recent, RULES))
    assert alarms == 0


def test_the_verdict_does_not_flip_with_the_sample_size() -> None:
    outcomes = []
    for rows in (2_000, 20_000, 200_000):
        rng = np.random.default_rng(1)
        values = normal(rng, rows)
        edges = deciles(values)
        moved = number("x", normal(rng, rows, 0.6), edges)
        small = number("x", normal(rng, rows, 0.1), edges)
        before = number("x", values, edges)
        outcomes.append((one(before, moved).outcome, one(before, small).outcome))
    assert outcomes == [("breach", "ok")] * 3


@pytest.mark.parametrize("levels", [30, 400])
def test_many_rare_categories_raise_no_alarm(levels: int) -> None:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, levels + 1)
    shares /= shares.sum()
    alarms = 0
    for _ in range(30):
        pair = [
            ColumnProfile(
                name="x",
                kind="category",
                categories=tuple(map(str, range(levels))),
                counts=(*map(int, rng.multinomial(rows, shares)), 0),
            )
            for rows in (2000, 300)
        ]
        alarms += one(*pair).outcome == "breach"
    assert alarms <= 1


def test_a_column_that_turns_ninety_percent_null_is_named() -> None:
    rng = np.random.default_rng(0)
    values = normal(rng, 2000)
    edges = deciles(values)
    recent = normal(rng, 2000)
    recent[:1800] = np.nan
    finding = one(number("income", values, edges), number("income", recent, edges))
    assert finding.outcome == "breach"
    assert finding.evidence["causes"] == ["nulls"]
    assert "income: nulls went from 0% to 90%" in finding.reason


def test_a_change_of_nulls_that_could_be_chance_is_no_drift() -> None:
    rng = np.random.default_rng(0)
    values = normal(rng, 1000)
    edges = deciles(values)
    recent = normal(rng, 60)
    recent[:8] = np.nan  # 13 % at the point, over the limit of 10 %
    finding = one(number("x", values, edges), number("x", recent, edges))
    assert finding.outcome == "ok"


def test_a_column_that_is_all_null_is_a_finding_and_no_crash() -> None:
    values = normal(np.random.default_rng(0), 1000)
    edges = deciles(values)
    finding = one(number("x", values, edges), number("x", np.full(500, np.nan), edges))
    assert finding.outcome == "breach"
    still = one(number("x", np.full(500, np.nan), edges), number("x", np.full(500, np.nan), edges))
    assert still.outcome == "unknown"


def test_a_column_without_rows_is_unknown() -> None:
    values = normal(np.random.default_rng(0), 1000)
    edges = deciles(values)
    finding = one(number("x", values, edges), number("x", np.array([]), edges))
    assert finding.outcome == "unknown"
    assert "0 recent rows" in finding.reason


def test_too_few_rows_are_unknown() -> None:
    values = normal(np.random.default_rng(0), 1000)
    edges = deciles(values)
    assert one(number("x", values, edges), number("x", values[:49] + 9, edges)).outcome == "unknown"
    assert one(number("x", values, edges), number("x", values[:50] + 9, edges)).outcome == "breach"


def test_a_column_that_vanished_or_changed_its_type_is_named_first() -> None:
    a, b = category("a", "xy", [500, 500, 0]), category("b", "xy", [500, 500, 0])
    number_now = ColumnProfile(name="b", kind="number", edges=(0.0,), counts=(500, 500))
    findings = judge_columns(
        (category("c", "xy", [500, 500, 0]), a, b), (category("c", "xy", [900, 100, 0]), number_now), RULES
    )
    assert {f.name: f.evidence["causes"] for f in findings} == {"a": ["missing"], "b": ["type"], "c": ["psi"]}
    assert findings[-1].name == "c"
    assert all(finding.outcome == "breach" for finding in findings)


def test_new_and_lost_categories_are_findings_of_their_own() -> None:
    before = category("plan", "abc", [500, 450, 50, 0])
    new = one(before, category("plan", "abc", [500, 450, 50, 60]))
    assert "new categories" in new.evidence["causes"]
    few = one(before, category("plan", "abc", [500, 450, 50, 25]))
    assert few.evidence["causes"] == ["new categories"]
    lost = one(before, category("plan", "abc", [520, 480, 0, 0]))
    assert "lost categories" in lost.evidence["causes"]
    assert "c no longer occurs" in lost.reason
    typo = one(before, category("plan", "abc", [500, 450, 49, 1]))
    assert typo.outcome == "ok"


def test_a_constant_column_that_starts_to_vary_is_detected_in_both_directions() -> None:
    edges = np.array([np.nextafter(7.0, -np.inf), 7.0])
    before = number("x", np.full(1000, 7.0), edges)
    assert one(before, number("x", np.full(500, 7.0), edges)).outcome == "ok"
    for direction in (-1, 1):
        recent = np.r_[np.full(250, 7.0), np.full(250, 7.0 + direction)]
        assert one(before, number("x", recent, edges)).outcome == "breach"


def test_profiles_with_different_bins_are_unknown_and_say_what_to_do() -> None:
    finding = one(category("x", "ab", [500, 500, 0]), category("x", "abc", [500, 250, 250, 0]))
    assert finding.outcome == "unknown"
    assert "reference's bins" in finding.reason
    with pytest.raises(Unmeasurable):
        psi(category("x", "ab", [500, 500, 0]), category("x", "ab", [0, 0, 0]))


def test_columns_come_in_the_order_of_their_change_and_as_plain_json() -> None:
    rng = np.random.default_rng(0)
    reference, recent = [], []
    for name, shift in (("still", 0.0), ("far", 2.0), ("near", 0.7)):
        values = normal(rng, 2000)
        edges = deciles(values)
        reference.append(number(name, values, edges))
        recent.append(number(name, normal(rng, 2000, shift), edges))
    findings = judge_columns(reference, recent, RULES)
    assert [finding.name for finding in findings] == ["far", "near", "still"]
    for finding in findings:
        json.dumps([finding.value, finding.interval, finding.n, dict(finding.evidence)], allow_nan=False)


# answers


def rates(before: float, after: float, rows: int = 3000) -> Finding:
    pair = [
        category("(prediction)", "01", [round(rows * (1 - rate)), round(rows * rate), 0]) for rate in (before, after)
    ]
    return judge_prediction(*pair, PredictionTrigger())


@pytest.mark.parametrize(("before", "after"), [(0.01, 0.05), (0.03, 0.15), (0.1, 0.5), (0.15, 0.03)])
def test_a_fivefold_jump_of_the_positive_rate_fires(before: float, after: float) -> None:
    finding = rates(before, after)
    assert finding.outcome == "breach"
    assert finding.urgency == "high"


@pytest.mark.parametrize(("before", "after"), [(0.01, 0.012), (0.3, 0.32), (0.5, 0.55)])
def test_a_small_change_of_the_positive_rate_does_not_fire(before: float, after: float) -> None:
    assert rates(before, after).outcome == "ok"


def test_the_unit_of_the_answers_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e6):
        values = np.exp(normal(rng, 5000)) * scale  # prices
        edges = deciles(values)
        before = number("(prediction)", values, edges)
        same = number("(prediction)", np.exp(normal(rng, 2000)) * scale, edges)
        moved = number("(prediction)", np.exp(normal(rng, 2000, 0.8)) * scale, edges)
        assert judge_prediction(before, same, PredictionTrigger()).outcome == "ok"
        assert judge_prediction(before, moved, PredictionTrigger()).outcome == "breach"


def test_answers_alike_raise_no_false_alarm_beyond_what_is_promised() -> None:
    rng = np.random.default_rng(0)
    fired = 0
    for _ in range(300):
        values = normal(rng, 1000)
        edges = deciles(values)
        pair = [number("(prediction)", part, edges) for part in (values, normal(rng, 80))]
        fired += judge_prediction(*pair, PredictionTrigger()).outcome == "breach"
    assert fired / 300 <= 0.05


def test_answers_that_are_nan_and_too_few_answers() -> None:
    before = category("(prediction)", "01", [500, 500, 0])
    assert (
        judge_prediction(before, category("(prediction)", "01", [400, 400, 0], 200), PredictionTrigger()).outcome
        == "breach"
    )
    assert (
        judge_prediction(before, category("(prediction)", "01", [0, 0, 0], 200), PredictionTrigger()).outcome
        == "breach"
    )
    assert (
        judge_prediction(before, category("(prediction)", "01", [0, 49, 0]), PredictionTrigger()).outcome == "unknown"
    )


# What matters most leads.


def moved_and_weighed(scores: dict[str, float | None]) -> list[str]:
    reference = tuple(
        ColumnProfile(name=name, kind="category", categories=("a", "b"), counts=(500, 500, 0), score=score)
        for name, score in scores.items()
    )
    shares = {"large": (950, 50, 0), "small": (750, 250, 0), "still": (505, 495, 0)}
    recent = tuple(category(name, "ab", list(shares[name])) for name in scores if name in shares)
    return [finding.name for finding in judge_columns(reference, recent, RULES)]


def test_a_column_that_the_model_leans_on_leads_before_one_that_moved_more() -> None:
    assert moved_and_weighed({"still": 0.1, "large": 0.01, "small": 0.9}) == ["small", "large", "still"]
    assert moved_and_weighed({"still": None, "large": None, "small": None}) == ["large", "small", "still"]
    assert moved_and_weighed({"still": None, "large": 0.01, "small": 0.9}) == ["large", "small", "still"], (
        "not all known"
    )


def test_a_column_that_is_gone_leads_whatever_the_model_leans_on() -> None:
    assert moved_and_weighed({"small": 0.9, "large": 0.5, "gone": 0.0})[0] == "gone"


def test_how_much_the_model_leans_on_a_moved_column_is_told() -> None:
    before = ColumnProfile(name="x", kind="category", categories=("a", "b"), counts=(500, 500, 0), score=0.42)
    assert one(before, category("x", "ab", [950, 50, 0])).reason.endswith("(the model leans on it by 42%)")


# What is no evidence, and what only looks like some.


def texts(levels: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.array(np.char.add("k", levels.astype(str)), dtype="str")})


def drawn(rng: np.random.Generator, shape: str, n: int) -> np.ndarray:
    if shape.startswith("zipf"):
        return np.minimum(rng.zipf(float(shape[4:]), n), 10**6)
    return rng.integers(0, int(shape), n)


@pytest.mark.parametrize("rows", [1000, 5000])
@pytest.mark.parametrize("shape", ["105", "120", "200", "1000", "zipf1.1", "zipf1.5", "zipf2"])
def test_many_categories_that_did_not_move_raise_no_alarm(shape: str, rows: int) -> None:
    """The named levels are the most frequent of the reference's own rows, and rarer in any others."""
    rng, fired, noticed = np.random.default_rng(0), 0, 0
    for _ in range(20):
        reference = profiles.describe(texts(drawn(rng, shape, rows)))
        now = texts(drawn(rng, shape, rows))
        (finding,) = judge_columns(reference, profiles.count(now, reference), RULES)
        fired += finding.outcome == "breach"
        noticed += bool(changed(now, reference[0]))
    assert fired <= 2
    assert noticed <= 2


@pytest.mark.parametrize("shape", ["120", "zipf1.5"])
def test_new_categories_among_many_are_seen_and_told_as_what_is_known_of_them(shape: str) -> None:
    rng = np.random.default_rng(0)
    reference = profiles.describe(texts(drawn(rng, shape, 5000)))
    moved = np.where(rng.random(5000) < 0.2, 10**7, drawn(rng, shape, 5000))
    (finding,) = judge_columns(reference, profiles.count(texts(moved), reference), RULES)
    assert "new categories" in finding.evidence["causes"]
    assert "hold none of the reference's 100 most frequent categories" in finding.reason
    assert "'k10000000'" in changed(texts(moved), reference[0])


@pytest.mark.parametrize("values", [10**12, 1000])
def test_values_that_hardly_repeat_tell_nothing(values: int) -> None:
    rng = np.random.default_rng(0)
    reference = profiles.describe(texts(rng.integers(0, values, 500)))
    (finding,) = judge_columns(reference, profiles.count(texts(rng.integers(0, values, 500)), reference), RULES)
    assert finding.outcome == "unknown"
    assert "drop the column if it names rows" in finding.reason


@pytest.mark.parametrize(
    "before",
    [
        np.zeros(1),
        np.zeros(30),
        np.full(500, np.inf),
        np.repeat([np.inf, -np.inf], 250),
        np.r_[1.0, np.full(199, np.nan)],
    ],
    ids=["one row", "few rows", "infinite", "infinite both ways", "nearly all null"],
)
def test_a_reference_that_shows_nothing_lets_nothing_pass(before: np.ndarray) -> None:
    reference = profiles.describe(pd.DataFrame({"x": before}))
    for after in (np.random.default_rng(0).normal(5, 1, 5000), np.full(5000, -np.inf)):
        kept = np.where(np.random.default_rng(1).random(5000) < np.isnan(before).mean(), np.nan, after)
        (finding,) = judge_columns(reference, profiles.count(pd.DataFrame({"x": kept}), reference), RULES)
        assert finding.outcome == ("breach" if np.isinf(after).all() and np.isfinite(before).all() else "unknown")


def test_the_largest_values_that_became_infinite_are_seen_although_their_bin_holds_as_many() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    reference = profiles.describe(pd.DataFrame({"x": values}))
    values[values > np.quantile(values, 0.95)] = np.inf
    (recent,) = profiles.count(pd.DataFrame({"x": values}), reference)
    (finding,) = judge_columns(reference, (recent,), RULES)
    assert finding.evidence["causes"] == ["infinite"]
    assert "5% of the values are infinite, 0% were" in finding.reason
    assert "infinite in 5% of rows" in changed(pd.DataFrame({"x": values}), reference[0])
    few = np.r_[values[np.isfinite(values)], np.inf]
    assert one(reference[0], profiles.count(pd.DataFrame({"x": few}), reference)[0]).outcome == "ok"
    assert changed(pd.DataFrame({"x": few}), reference[0]) == ""


@pytest.mark.parametrize(
    ("shift", "before", "after"), [(0.1, 2000, 2000), (0.2, 300, 300), (0.3, 5000, 60), (0, 500, 500)]
)
def test_what_is_said_to_be_the_most_is_seldom_less_than_the_truth(shift: float, before: int, after: int) -> None:
    rng, short = np.random.default_rng(0), 0
    for _ in range(200):
        reference = normal(rng, before)
        edges = deciles(reference)
        cuts = np.r_[-np.inf, edges, np.inf]
        p, q = np.diff(norm.cdf(cuts)), np.diff(norm.cdf(cuts - shift))
        finding = one(number("x", reference, edges), number("x", normal(rng, after, shift), edges))
        assert finding.interval is not None
        short += finding.interval[1] < float(((q - p) * np.log(q / p)).sum())
    assert short <= 10


@pytest.mark.parametrize(("kinds", "rows"), [(100, 300), (100, 200), (150, 600), (400, 2000)])
def test_how_far_off_the_rows_of_other_categories_may_be_is_known(kinds: int, rows: int) -> None:
    rng, off, promised = np.random.default_rng(0), [], []
    for _ in range(300):
        held = rng.multinomial(rows, np.full(kinds, 1 / kinds))
        first = sorted(((f"v{kind:03d}", count) for kind, count in enumerate(held) if count), key=lambda one: -one[1])
        profile = profiles.most_frequent("x", first[:101], present=rows, nulls=0)
        assert profile.outside is not None
        off.append(profile.outside[0] - rows * (1 - len(profile.categories) / kinds))
        promised.append(sum(profile.outside))
    assert 0.3 < np.mean(np.square(off)) / np.mean(promised) < 1.2


def test_many_categories_in_few_rows_are_not_said_to_be_as_they_were() -> None:
    words = [f"v{number:03d}" for number in range(100)]
    (reference,) = profiles.describe(pd.DataFrame({"x": words * 100}))
    (recent,) = profiles.count(pd.DataFrame({"x": words[:20] * 3}), [reference])
    finding = one(reference, recent)
    assert (finding.outcome, finding.value, finding.interval) == ("unknown", None, None)
    assert "100% of the values lie in bins where less than one row is to be expected" in finding.reason
    (more,) = profiles.count(pd.DataFrame({"x": words[:20] * 30}), [reference])
    assert one(reference, more).outcome == "breach"
    answers = judge_prediction(reference, recent, PredictionTrigger())
    assert answers.outcome == "unknown"


@pytest.mark.parametrize("rows", [50, 7360])
def test_a_rare_category_that_becomes_frequent_is_seen_among_others_that_do_not(rows: int) -> None:
    if rows == 50:  # every one of the hundred is too rare to be compared by itself
        before = [f"v{number:03d}" for number in range(100)] * 100
        after = ["v007"] * 50
    else:  # so many rows hold rare ones that one of these may have all of them
        before = ["often"] * 5000 + [f"v{number % 90:03d}" for number in range(360)] + [f"w{n}" for n in range(2000)]
        after = ["often"] * 5000 + ["v007"] * 2360
    (reference,) = profiles.describe(pd.DataFrame({"x": before}))
    (recent,) = profiles.count(pd.DataFrame({"x": after}), [reference])
    finding = one(reference, recent)
    assert finding.evidence["causes"] == ["risen category"]
    assert "'v007' went from" in finding.reason
    (same,) = profiles.count(pd.DataFrame({"x": before}), [reference])
    assert one(reference, same).outcome == "ok"
