"""The backtest: history through a policy in memory, over a grid, with what hindsight says of every retraining."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rehearsal import backtest_page as pages
from rehearsal.backtest import backtest, history, main
from rehearsal.churn import PRICE_RISE, STEADY, corrupt_labels, customers
from rehearsal.grid import Choice, GridError, parsed
from rehearsal.hindsight import Stay, Yardstick, stretches, worth
from rehearsal.memory import Memory
from rehearsal.played import Played, play, play_all, schedule
from rehearsal.player import Player, left_out
from tasks.data import DataError
from tasks.decide.metrics import Difference
from tasks.policy_file import load
from tasks.records import Finding, GateEvidence

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PER_DAY, CHANGE, END = 40, 60, 110
START = 40 / END
"""Share of the rows before the first model."""
DAY = timedelta(days=1)
OFF: dict[str, Any] = {
    **dict.fromkeys(("age", "volume", "drift", "performance", "prediction", "concept"), "off"),
    "upstream": False,
}
POLICIES = Path(__file__).parent.parent / "policies"


def frame(*, change: int | None = CHANGE, end: int = END, seed: int = 1) -> pd.DataFrame:
    steady = change if change is not None else end
    parts = [customers(PER_DAY * steady, start=BEGIN, days=steady, seed=seed, world=STEADY)]
    if steady < end:
        days = end - steady
        start = BEGIN + steady * DAY
        parts.append(customers(PER_DAY * days, start=start, days=days, seed=seed + 1, world=PRICE_RISE))
    return pd.concat(parts)


def written(folder: Path, rows: pd.DataFrame, **changes: Any) -> str:
    """A policy file, with its rows beside it."""
    folder.mkdir(exist_ok=True)
    rows.to_csv(folder / "churn.csv", index=False)
    policy: dict[str, Any] = {
        "model": "churn",
        "data": {
            "source": "churn.csv",
            "target": "churned",
            "positive": "yes",
            "timestamp": "observed_at",
            "drop": ["customer_id"],
            "lookback": "40d",
            "holdout": "25%",
            "history": False,
        },
        "training": {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 1000}},
        "triggers": {
            "retrain_when": "age or concept",
            "age": "90d",
            "cool_down": "6d",  # without it a candidate that is refused is made again the next day
            "performance": {"min_labels": 200},
        },
        "gate": {"performance": {"metric": "accuracy", "at_least": 0.8}},
        "shadow": "off",
    }
    for key, value in changes.items():
        base = policy.get(key)
        policy[key] = {**base, **value} if isinstance(base, dict) and isinstance(value, dict) else value
    path = folder / "churn.yaml"
    path.write_text(yaml.safe_dump(policy), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backtest")


@pytest.fixture(autouse=True)
def elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSTOP_HOME", str(home / "home"))
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def changed(home: Path) -> Callable[..., Played]:
    """One policy on customers whose world changes on day CHANGE, first model on day 45; the memory is shared."""
    path = written(home / "changed", frame())
    memory = Memory(history(load(path)))
    base = load(path)

    def played(**triggers: Any) -> Played:
        policy = load(written(home / "changed", frame(), triggers={**triggers})) if triggers else base
        when = schedule(memory.rows, first=START, every=2 * DAY, window=8 * DAY)
        return play(Choice((), policy), memory, when, base)

    return played


def test_a_world_that_changed_is_found_and_what_serves_is_better_than_the_first_version(
    changed: Callable[..., Played],
) -> None:
    one = changed()
    assert one.days[0].decision == "first-promoted"
    assert one.promotions >= 1
    assert one.count("right") >= 1
    assert one.harmful == 0
    served, frozen, oracle = (one.mean(name) for name in ("served", "frozen", "oracle"))
    assert served is not None
    assert frozen is not None
    assert oracle is not None
    assert served > frozen + 0.02
    assert served > oracle - 0.05
    assert one.stretches
    first = one.stretches[0]
    assert first.found is not None, "a retraining was begun while what served was worse"
    assert abs((first.start - BEGIN) / DAY - CHANGE) < 24


def test_where_no_trigger_is_on_the_change_is_a_missed_alarm(changed: Callable[..., Played]) -> None:
    one = changed(**{**OFF, "age": "3650d", "retrain_when": "any"})
    assert (len(one.alarms), one.promotions) == (0, 0)
    assert one.missed >= 1
    assert one.delay is None
    assert one.mean("served") == one.mean("frozen")


@pytest.fixture(scope="module")
def clockwork(home: Path) -> Played:
    """A world that stays as it is, and a policy that retrains every six days."""
    path = written(home / "steady", frame(change=None), triggers={**OFF, "age": "6d", "retrain_when": "any"})
    return backtest(path, first=START, every="2d", window="8d")[2][0]


def test_in_a_world_that_stays_a_clock_gives_false_alarms_and_none_that_is_right(clockwork: Played) -> None:
    assert len(clockwork.alarms) >= 8
    assert clockwork.count("right") == 0
    assert clockwork.count("false") > clockwork.count("unknown")
    assert clockwork.stretches == ()
    assert clockwork.harmful == 0


def test_a_retraining_that_few_rows_followed_is_unknown_and_never_right(clockwork: Played) -> None:
    few = [alarm for alarm in clockwork.alarms if alarm.rows < 200]
    assert few
    assert {alarm.worth for alarm in few} == {"unknown"}


def difference(value: float, low: float, high: float) -> Difference:
    return Difference(
        metric="accuracy", value=value, low=low, high=high, n=500, confidence=0.95, candidate=0.9, production=0.9
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.03, 0.01, 0.05, "right"),
        (0.02, 0.001, 0.04, "right"),
        (0.03, -0.01, 0.07, "unknown"),
        (0.01, 0.005, 0.015, "false"),
        (0.01, -0.01, 0.03, "unknown"),
        (-0.05, -0.08, -0.02, "false"),
    ],
)
def test_an_alarm_is_right_only_when_the_gain_reaches_the_margin_and_chance_is_ruled_out(
    value: float, low: float, high: float, expected: str
) -> None:
    assert worth(difference(value, low, high), 0.02) == expected


def stay(number: int, harm: Any) -> Stay:
    start = BEGIN + 7 * number * DAY
    return Stay(start=start, end=start + 7 * DAY, rows=400, version="1", frozen=0.9, served=0.9, oracle=0.9, harm=harm)


def test_windows_that_follow_each_other_are_one_stretch_and_a_gap_makes_two(changed: Callable[..., Played]) -> None:
    windows = [stay(number, harm) for number, harm in enumerate(["calm", "worse", "worse", "unknown", "worse"])]
    day = replace(changed().days[1], begun=True, at=BEGIN + 15 * DAY)
    first, second = stretches(windows, [day])
    assert (first.start, first.end) == (BEGIN + 7 * DAY, BEGIN + 21 * DAY)
    assert (first.delay, second.found) == (8.0, None)
    assert stretches(windows[:1], [day]) == ()


def test_a_candidate_that_learned_scrambled_labels_is_refused_and_never_served(home: Path) -> None:
    good = frame(change=None)
    day = (pd.to_datetime(good["observed_at"]) - pd.Timestamp(BEGIN)) / pd.Timedelta(DAY)
    rows = pd.concat([good[day < 50], corrupt_labels(good[day >= 50], 0.45, seed=3)])
    path = written(home / "scrambled", rows, triggers={**OFF, "age": "6d", "retrain_when": "any"})
    _, _, (one,) = backtest(path, first=START, every="2d", window="8d")
    bad = [day for day in one.days if day.begun and day.at > BEGIN + 62 * DAY]
    assert len(bad) > 5
    assert {day.decision for day in bad} <= {"gate-failed", "gate-inconclusive"}


def test_a_policy_that_is_played_after_another_decides_as_when_it_is_played_alone(home: Path) -> None:
    path = written(home / "alone", frame(), shadow={"window": "14d"})
    base, when, (first, second) = backtest(path, grid="triggers.age=10d,20d", first=START, every="2d", window="8d")
    alone = play_all([second.choice], history(base), when, base)[0]
    assert alone.days == second.days
    assert alone.alarms == second.alarms
    assert len(first.alarms) > len(second.alarms) > 0
    assert [one.choice.label for one in (first, second)] == ["age 10d", "age 20d"]


@pytest.fixture(scope="module")
def gridded(home: Path) -> tuple[Any, Any, tuple[Played, ...]]:
    path = written(home / "grid", frame(), triggers={**OFF, "age": "12d", "retrain_when": "any"})
    return backtest(path, grid="gate.regression.margin=0.1pt,30pt", first=START, every="2d", window="8d")


def test_what_two_policies_would_both_train_is_trained_once(gridded: tuple[Any, Any, tuple[Played, ...]]) -> None:
    base, when, played = gridded
    memory = Memory(history(base))
    fits = []
    for one in played:
        play(one.choice, memory, when, base)
        fits.append(memory.fits)
    assert fits[1] < 1.5 * fits[0]


@pytest.mark.slow
def test_several_processes_find_what_one_finds(home: Path) -> None:
    path = written(home / "processes", frame())
    one, two = (
        backtest(path, grid="triggers.age=15d,40d", first=START, every="4d", window="8d", jobs=jobs)[2]
        for jobs in (1, 2)
    )
    assert [(played.days, played.alarms) for played in one] == [(played.days, played.alarms) for played in two]


def test_the_margins_of_all_combinations_are_those_of_the_policy_as_it_is(
    gridded: tuple[Any, Any, tuple[Played, ...]],
) -> None:
    worths = [{alarm.at: alarm.gain for alarm in one.alarms if alarm.old == "1"} for one in gridded[2]]
    judged = [{alarm.at: alarm.worth for alarm in one.alarms if alarm.old == "1"} for one in gridded[2]]
    both = worths[0].keys() & worths[1].keys()
    assert both
    assert {at: judged[0][at] for at in both} == {at: judged[1][at] for at in both}


def test_labels_that_come_late_are_not_known_before_and_the_change_is_found_later(home: Path) -> None:
    rows, found = frame(end=130), []
    for delay in (None, "10d"):
        concept = {"tolerate": "1pt"} if delay is None else {"tolerate": "1pt", "labels": {"delay": delay}}
        path = written(home / "late", rows, triggers={**OFF, "concept": concept, "retrain_when": "any"})
        _, _, (one,) = backtest(path, first=40 / 130, every="2d", window="10d", labels_after=delay)
        first = next(alarm for alarm in one.alarms if alarm.at > BEGIN + CHANGE * DAY)
        found.append(first.at)
        if delay is not None:
            asked = next(day for day in one.days if day.at == first.at)
            (finding,) = [one for one in asked.verdict.findings if one.name == "concept"]
            assert finding.n is not None
            assert finding.n <= PER_DAY * ((first.at - BEGIN) / DAY - 40)
    assert timedelta(days=8) <= found[1] - found[0] <= timedelta(days=35), (
        "a first holdout of fewer labels says less, too"
    )


# What is wrong is told at once, before anything is played.


def test_every_problem_of_options_grid_and_policy_is_in_one_error(home: Path) -> None:
    path = written(home / "bad", frame(end=20, change=None), gate={"checks": ["nowhere.at_all:check"]})
    grid = "triggers.drift.psii=0.1 triggers.drift.psi=0.1,-1 data.source=other.csv triggers.age="
    with pytest.raises(GridError) as error:
        backtest(path, grid=grid, every="banana", first=7, jobs=0)
    told = "\n".join(error.value.problems)
    for part in ("--every", "--first 7", "--jobs 0", "data.source cannot vary", "'triggers.age=' names no values"):
        assert part in told
    with pytest.raises(GridError) as error:
        backtest(path, grid="triggers.drift.psii=0.1 triggers.drift.psi=0.1,-1 gate.checks=[nowhere.at_all:other]")
    told = "\n".join(error.value.problems)
    assert "grid triggers.drift.psii=0.1: triggers.drift.psii" in told
    assert "grid triggers.drift.psi=-1: triggers.drift.psi" in told
    assert "environment variable" not in told


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ("", "grid is empty"),
        ("   ", "grid is empty"),
        ("triggers.age", "names no values"),
        ("triggers.age=30d,30d", "a value twice"),
        ("triggers.age=30d triggers.age=60d", "is there twice"),
        ("model=other", "cannot vary"),
        ("triggers.age='30d", "close the quotes"),
        ("a=1,2,3,4 b=1,2,3,4 c=1,2,3,4 d=1,2,3,4,5", "320 combinations"),
    ],
)
def test_a_grid_that_cannot_be_read_is_an_error_that_says_why(grid: str, told: str) -> None:
    with pytest.raises(GridError, match=told):
        parsed(grid)


def test_values_may_hold_spaces_in_quotes_and_commas_in_brackets() -> None:
    text = "triggers.retrain_when='age or drift',any 'triggers.drift={psi: 0.1, min_rows: 60},off'"
    assert parsed(text) == {
        "triggers.retrain_when": ("age or drift", "any"),
        "triggers.drift": ("{psi: 0.1, min_rows: 60}", "off"),
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.iloc[:0], "no rows"),
        (lambda rows: rows.assign(churned="no"), "only one class"),
        (lambda rows: rows.drop(columns="observed_at"), "no column 'observed_at'"),
        (lambda rows: rows.assign(churned=None), "empty in all"),
    ],
    ids=["no rows", "one class", "no timestamp", "no labels"],
)
def test_rows_that_nothing_can_be_learned_from_are_told_before_anything_is_played(
    home: Path, change: Callable[[pd.DataFrame], pd.DataFrame], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        backtest(written(home / "rows", change(frame(end=30, change=None))))


def test_too_few_evaluations_are_an_error(home: Path) -> None:
    with pytest.raises(GridError, match="evaluations of"):
        backtest(written(home / "rows", frame(end=30, change=None)), every="90d")


# What is not played.


def suspicious(evidence: GateEvidence) -> Finding:
    """A check of one's own: it wants a size, and there is no artifact."""
    return Finding(name="suspicious", outcome="ok" if evidence.size else "unknown", reason=f"size {evidence.size}")


def content(evidence: GateEvidence) -> Finding:
    """A check of one's own that the rows can answer."""
    return Finding(name="content", outcome="ok", reason=f"{len(evidence.candidate.truth)} rows")


def test_own_checks_are_asked_and_one_that_cannot_tell_lets_nothing_through(home: Path) -> None:
    rows = frame(end=60, change=None)
    own = {"checks": [f"{__name__}:content"]}
    _, _, (one,) = backtest(written(home / "own", rows, gate=own), first=40 / 60, every="10d")
    gate = one.days[0].judged("gate")
    assert gate is not None
    assert "content" in [finding.name for finding in gate.findings]
    assert one.trouble == ""
    base, when, (one,) = backtest(
        written(home / "own", rows, gate={"checks": [f"{__name__}:suspicious"]}), first=40 / 60, every="10d"
    )
    assert one.trouble.startswith("no first model: suspicious: size None")
    assert one.mean("served") is None
    assert any(one.trouble in sentence for sentence in pages.foot(base, when, [one]))


def test_what_is_not_played_is_said(home: Path) -> None:
    path = written(home / "own", frame(end=60, change=None), approval={"deadline": "1d"}, shadow={"live": "on"})
    base, when, (one,) = backtest(path, first=40 / 60, every="10d")
    assert one.days[0].decision == "first-promoted", "what waits for a person is approved at once"
    told = " ".join(pages.foot(base, when, [one]))
    for part in ("latency, size, fresh_process, alone", "approval", "shadow.live", "the watch and its rollbacks"):
        assert part in told
    assert all(part in told for part in left_out(base))


def test_a_run_that_fails_is_counted_and_the_next_one_goes_on(home: Path) -> None:
    rows = frame(end=60, change=None)
    times = pd.to_datetime(rows["observed_at"])
    gone = (times >= pd.Timestamp(BEGIN + 20 * DAY)) & (times < pd.Timestamp(BEGIN + 35 * DAY))
    rows.loc[gone, "churned"] = "no"
    low = {"performance": {"metric": "accuracy", "at_least": 0.6}}
    often = {**OFF, "age": "2d", "retrain_when": "any"}
    path = written(
        home / "gone", rows, data={"lookback": "8d", "min_rows": 100, "min_holdout": 50}, triggers=often, gate=low
    )
    _, _, (one,) = backtest(path, first=0.2, every="2d", window="8d")
    failed = [day for day in one.days if day.decision == "failed"]
    assert failed
    assert "only one class" in failed[0].reason
    assert failed[0].production is not None
    assert one.days[-1].decision != "failed"


# What is shown.


@pytest.mark.usefixtures("fine_pictures")
def test_pictures_are_made_and_show_something(home: Path, gridded: tuple[Any, Any, tuple[Played, ...]]) -> None:
    base, _, played = gridded
    made = pages.pictures(base, played, home / "pictures")
    assert [one.name for one in made] == ["churn-history.png", "churn-grid.png"]
    for one in made:
        pixels = np.asarray(Image.open(one).convert("RGB"), dtype=int)
        blue = np.abs(pixels - np.array([0, 0x72, 0xB2])).max(axis=2) < 20
        assert blue.mean() > 0.001
        assert 5_000 < one.stat().st_size < 60_000
    (alone,) = pages.pictures(base, played[:1], home / "alone")
    assert alone.name == "churn-history.png"


def test_the_command_prints_tables_or_one_json_line_and_writes_a_page(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(home / "command", frame(end=70, change=None))
    grid = ("--grid", "triggers.age=10d,20d")
    main(["--policy", path, "--every", "5d", "--json", "--jobs", "1", "--write", "page.md", *grid])
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert [one["values"] for one in found["policies"]] == [{"triggers.age": "10d"}, {"triggers.age": "20d"}]
    assert found["policies"][0]["retrains"] > found["policies"][1]["retrains"]
    assert "An alarm is right when" in out.err
    assert "| # | policy | retrains |" in (home / "page.md").read_text("utf-8")
    main(["--policy", path, "--every", "5d", "--jobs", "1"])
    out = capsys.readouterr()
    assert "Retrainings" in out.out
    assert "Windows" in out.out
    with pytest.raises(SystemExit):
        main(["--policy", path, "--grid", "triggers.agee=10d"])
    assert "triggers.agee" in capsys.readouterr().out


def test_the_yardstick_is_the_policys_own(home: Path) -> None:
    path = written(home / "yard", frame(end=30, change=None), triggers={"performance": {"relative_drop": "5%"}})
    yardstick = Yardstick.of(load(path))
    assert (yardstick.gain_metric, yardstick.margin) == ("f1_weighted", 0.02)
    assert (yardstick.loss_metric, yardstick.relative, yardstick.drop) == ("accuracy", True, 0.05)


# Real data.


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("model", ["bike", "weather"])
def test_on_real_data_what_served_is_no_worse_than_the_first_version(
    model: str, public_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_TEST_DATA", str(public_data))
    every, window = {"bike": ("28d", "56d"), "weather": ("360d", "720d")}[model]
    _, _, (one,) = backtest(str(POLICIES / f"{model}.yaml"), every=every, window=window)
    served, frozen = one.mean("served"), one.mean("frozen")
    assert served is not None
    assert frozen is not None
    assert served >= frozen + {"bike": 0.2, "weather": -0.01}[model]
    assert one.failed == 0
    assert one.harmful < one.promotions / 2, "a season may turn right after a model that was better on the one before"
    player = Player(one.choice.policy, Memory(history(one.choice.policy)))
    assert player.evaluate(one.days[0].at).verdicts == one.days[0].verdicts
