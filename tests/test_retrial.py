"""A verdict can be reached again from what the ledger keeps, and what was changed in between is noticed.

``python tests/test_retrial.py`` writes the verdicts of old anew; do so only together with a new number of the rules.
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dossiers import NOW, examples, gate, health, person, scores, shadow, triggers
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks import retrial
from tasks.decide import agreement
from tasks.decide.influence import FAMILIES
from tasks.dossier import RULES, Dossier, pack, unpack
from tasks.ledger import Ledger
from tasks.progress import Course
from tasks.records import Finding, Verdict, to_plain
from tasks.retrial import _noted, reach, retry, retry_all

OF_OLD = Path(__file__).with_name("verdicts.json")
ROOT = Path(__file__).resolve().parents[1]
few = settings(max_examples=25, deadline=None, derandomize=True)


def same_again(dossier: Dossier) -> Verdict:
    first = reach(dossier)
    assert to_plain(reach(unpack(pack(dossier)))) == to_plain(first)
    return first


# Judged, kept, judged again.


@pytest.mark.parametrize("name", examples())
def test_every_judge_says_the_same_from_what_was_kept(name: str) -> None:
    verdict = same_again(examples()[name])
    said = name.partition(" ")[2]
    assert verdict.decision == said or said not in {"retrain", "keep", "promote", "reject", "wait", "back", "stay"}


def test_every_judge_is_among_the_examples() -> None:
    assert {one.judge for one in examples().values()} == set(retrial._JUDGES)


@few
@given(metric=st.sampled_from(sorted(FAMILIES)), n=st.integers(20, 500), seed=st.integers(0, 10**6))
def test_the_gate_says_the_same_of_any_scores_and_any_metric(metric: str, n: int, seed: int) -> None:
    problem = "regression" if metric in {"r2", "rmse", "mae"} else "multiclass" if "macro" in metric else "binary"
    same_again(gate(problem, metric, n, seed, attempt=1 + seed % 5))


def test_the_gate_says_the_same_by_a_scorer_of_scikit_learn_which_draws_rows_to_know_its_error() -> None:
    dossier = gate("regression", "explained_variance")
    rules = dossier.given["rules"].model_copy(update={"regression": None})
    assert same_again(replace(dossier, given={**dossier.given, "rules": rules})).findings[0].n == 60


@few
@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 20_000))
def test_the_shadow_says_the_same_of_any_counts(wins: int, losses: int, ties: int) -> None:
    same_again(shadow(wins, losses, ties))


@few
@given(errors=st.integers(0, 100), minutes=st.integers(1, 60), labelled=st.integers(0, 100))
def test_the_watch_says_the_same_of_any_counts(errors: int, minutes: int, labelled: int) -> None:
    same_again(health(errors, minutes, labelled))


@few
@given(moved=st.integers(0, 4), accuracy=st.floats(0, 1) | st.just(math.nan))
def test_the_triggers_say_the_same_of_any_signals(moved: int, accuracy: float) -> None:
    same_again(triggers(moved, accuracy))


def digits() -> list[Any]:
    """What a gate says, and what it makes of so many ranks that their products are no whole numbers any more."""
    draw = np.random.default_rng(4)
    ranks = agreement.spearman(*draw.random((2, 1_200_000))).hex()
    return [to_plain(reach(unpack(pack(gate(n=20_000))))), ranks]


def digits_elsewhere(threads: str) -> list[Any]:
    code = (
        "import sys, json; sys.path.insert(0, 'tests'); import test_retrial; print(json.dumps(test_retrial.digits()))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    told: list[Any] = json.loads(ran.stdout)
    return told


def test_no_digit_hangs_on_the_process_or_on_how_many_threads_it_has() -> None:
    assert digits_elsewhere("1") == digits_elsewhere("2")


def by_column(truth: Any, prediction: Any, probability: Any) -> float:
    """A user's metric whose last digits hang on how the probabilities lie in memory."""
    return float(probability.mean(axis=0)[0])


def test_how_the_scores_lie_in_memory_changes_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_metric", Own(by_column))  # type: ignore[arg-type]
    dossier = gate(metric="own_metric:right", n=700)
    flat = dossier.given["evidence"].candidate.probability
    assert by_column(0, 0, flat) != by_column(0, 0, np.ascontiguousarray(flat)), "the metric does not do what it should"
    same_again(dossier)


# Verdicts of old.


def test_the_judges_say_what_they_said_when_their_rules_got_their_number() -> None:
    """Where they do not any more, and that is meant: raise RULES in tasks/dossier.py, and run this file."""
    kept = json.loads(OF_OLD.read_text("utf-8"))
    assert kept["rules"] == RULES, "run this file, so that the verdicts of old are those of the new rules"
    assert set(kept["verdicts"]) == set(examples())
    for name, (body, verdict) in kept["verdicts"].items():
        again = to_plain(reach(unpack(base64.b64decode(body))))
        differing = [one for one in retrial._differences(verdict, again) if not retrial._rounded(*one[1:])]
        assert differing == [], name


# Against the ledger.


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def put_down(ledger: Ledger, dossier: Dossier, verdict: Verdict | None = None) -> None:
    told = verdict or reach(dossier)
    ledger.record("m", told, trail="t", at=NOW, dossier=pack(dossier))


def changed(ledger: Ledger, statement: str, **values: Any) -> None:
    """Somebody with a SQL prompt."""
    with ledger._database.writing() as connection:
        assert connection.execute(text(statement), values).rowcount == 1


def judged_again(ledger: Ledger) -> Finding:
    (found,) = retry_all(ledger, "m")
    return found


def test_everything_is_judged_again_in_the_order_in_which_it_was_decided(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrial, "_PAGE", 4)
    for dossier in examples().values():
        put_down(ledger, dossier)
    ledger.record("other", reach(person()), trail="t", at=NOW)
    found = retry_all(ledger, "m")
    assert {one.outcome for one in found} == {"ok"}
    said = [f"{reach(one).judge} {reach(one).decision}" for one in examples().values()]
    assert [" ".join(one.reason.split()[:2]) for one in found] == said


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("decision", "pass"),
        ("reason", "all was well"),
        ("urgency", "low"),
        ("findings[1].outcome", "ok"),
        ("findings[1].value", 0.5),
        ("findings[1].interval[0]", None),
        ("findings[1].evidence.attempt", 7),
        ("findings[4].n", True),
    ],
)
def test_a_verdict_that_was_changed_does_not_follow(ledger: Ledger, place: str, value: Any) -> None:
    put_down(ledger, gate(n=300, size=10**12, production=scores(300, 2, 9.0, 8)))
    path = "$." + place
    changed(
        ledger,
        "UPDATE backstop_decisions SET verdict = json_set(verdict, :path, json(:value))",
        path=path,
        value=json.dumps(value),
    )
    found = judged_again(ledger)
    assert found.outcome == "breach"
    assert "gate" in found.reason
    assert f"does not follow from its evidence: {place} was {value!r} and is " in found.reason


def test_a_finding_that_was_taken_out_is_missed(ledger: Ledger) -> None:
    put_down(ledger, gate())
    changed(ledger, "UPDATE backstop_decisions SET verdict = json_remove(verdict, '$.findings[5]')")
    found = judged_again(ledger)
    assert (found.outcome, "findings was" in found.reason) == ("breach", True)


def test_evidence_that_was_changed_taken_away_or_exchanged_is_noticed(ledger: Ledger) -> None:
    put_down(ledger, gate())
    put_down(ledger, shadow())
    (first, second) = (str(one.evidence) for one in reversed(ledger.decisions("m")))
    changed(ledger, "UPDATE backstop_decisions SET evidence = :other WHERE judge = 'gate'", other=second)
    found = retry_all(ledger, "m")
    assert [one.outcome for one in found] == ["breach", "ok"]
    assert "judge was 'gate' and is 'shadow'" in found[0].reason
    changed(ledger, "UPDATE backstop_decisions SET evidence = :own WHERE judge = 'gate'", own=first)
    assert [one.outcome for one in retry_all(ledger, "m")] == ["ok", "ok"]

    better = pack(gate(seed=77))
    changed(ledger, "UPDATE backstop_evidence SET body = :body WHERE digest = :digest", body=better, digest=first)
    found = retry_all(ledger, "m")
    assert found[0].outcome == "breach"
    assert f"evidence {first[:12]} was changed in the ledger after it was put down" in found[0].reason
    changed(ledger, "DELETE FROM backstop_evidence WHERE digest = :digest", digest=first)
    found = retry_all(ledger, "m")
    assert (found[0].outcome, found[1].outcome) == ("breach", "ok")
    assert "is gone from the ledger" in found[0].reason


def test_evidence_that_leads_to_another_verdict_is_noticed_although_its_digest_fits(ledger: Ledger) -> None:
    put_down(ledger, gate(), verdict=reach(gate(size=10**12)))
    assert judged_again(ledger).outcome == "breach"


@pytest.mark.parametrize(
    ("dossier", "told"),
    [
        (Dossier("oracle", {}), "cannot be judged from its evidence: KeyError: 'oracle'"),
        (Dossier("health", {"more": 1}), "cannot be judged from its evidence: TypeError"),
    ],
)
def test_evidence_of_something_else_is_no_evidence(ledger: Ledger, dossier: Dossier, told: str) -> None:
    put_down(ledger, dossier, verdict=reach(health()))
    found = judged_again(ledger)
    assert (found.outcome, told in found.reason) == ("breach", True)


def test_bytes_that_are_no_dossier_are_no_evidence(ledger: Ledger) -> None:
    ledger.record("m", reach(health()), trail="t", at=NOW, dossier=b"rubbish")
    found = judged_again(ledger)
    assert (found.outcome, "is not what was put down" in found.reason) == ("breach", True)


# What cannot be told is neither good nor bad.


def test_a_decision_from_before_evidence_was_kept_is_unknown(ledger: Ledger) -> None:
    ledger.record("m", reach(health()), trail="t", at=NOW)
    found = judged_again(ledger)
    assert (found.outcome, "is from before evidence was kept" in found.reason) == ("unknown", True)


def test_evidence_of_a_later_backstop_is_unknown(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("tasks.dossier.FORMAT", 3)
        put_down(ledger, health())
    found = judged_again(ledger)
    assert (found.outcome, "update it" in found.reason) == ("unknown", True)


def test_a_verdict_of_other_rules_is_unknown_where_it_differs_and_fine_where_not(ledger: Ledger) -> None:
    older = replace(health(), rules=0)
    put_down(ledger, older)
    assert judged_again(ledger).outcome == "ok"
    put_down(ledger, older, verdict=replace(reach(older), reason="in the words of old"))
    found = retry_all(ledger, "m")[-1]
    assert found.outcome == "unknown"
    assert f"was judged by rules 0, and this Backstop has {RULES}" in found.reason


def test_the_last_digit_of_another_machine_is_unknown_and_a_digit_that_counts_a_breach(ledger: Ledger) -> None:
    verdict = reach(gate())
    for factor in (1 + 1e-15, 1 + 1e-6):
        first = verdict.findings[0]
        other = replace(first, value=(first.value or 0) * factor)
        put_down(ledger, gate(), verdict=replace(verdict, findings=(other, *verdict.findings[1:])))
    found = retry_all(ledger, "m")
    assert [one.outcome for one in found] == ["unknown", "breach"]
    assert "but for rounding, as on another machine: findings[0].value was" in found[0].reason


def right(truth: Any, prediction: Any, probability: Any) -> float:
    """A user's metric."""
    return float((truth == prediction).mean())


def rather_right(truth: Any, prediction: Any, probability: Any) -> float:
    """The same after somebody changed it."""
    return 0.99 * right(truth, prediction, probability)


def wrong(truth: Any, prediction: Any, probability: Any) -> float:
    """The same after somebody broke it."""
    raise ZeroDivisionError


class Own:
    """A module with a user's metric in it, under another name."""

    def __init__(self, metric: Any) -> None:
        self.right = metric


def test_a_metric_of_ones_own_is_resolved_again_by_its_name(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_metric", mine := Own(right))  # type: ignore[arg-type]
    put_down(ledger, gate(metric="own_metric:right"))
    assert judged_again(ledger).outcome == "ok"

    mine.right = rather_right
    assert judged_again(ledger).outcome == "breach"
    monkeypatch.delitem(sys.modules, "own_metric")
    found = judged_again(ledger)
    assert found.outcome == "unknown"
    assert "cannot be judged again here" in found.reason
    assert "'own_metric:right' cannot be imported" in found.reason


def test_a_metric_of_ones_own_that_raises_now_stops_no_other(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_metric", mine := Own(right))  # type: ignore[arg-type]
    put_down(ledger, gate(metric="own_metric:right"))
    put_down(ledger, health())
    mine.right = wrong
    assert [one.outcome for one in retry_all(ledger, "m")] == ["breach", "ok"]


def test_how_far_a_gate_is_that_asks_a_metric_of_ones_own_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_metric", Own(right))  # type: ignore[arg-type]
    told: list[tuple[int, int]] = []
    dossier = gate(metric="own_metric:right", n=300)
    assert reach(dossier, lambda done, total, _what: told.append((done, total))) == reach(dossier)
    assert told == sorted(told)
    assert told[0][0] == 0
    assert [one for one in told if one[0] == one[1]] == told[-1:], "it is over when the gate is, and not before"
    assert len(told) > 1000
    told.clear()
    reach(gate(), lambda done, total, _what: told.append((done, total)))
    assert told == []


def test_a_metric_that_is_asked_more_often_than_expected_is_not_over_before_the_gate() -> None:
    told: list[tuple[int, int]] = []
    course = Course(lambda done, total, _what: told.append((done, total)), "metrics", 3)
    asked = _noted(lambda: 1.0, course)
    assert [asked() for _ in range(9)] == [1.0] * 9
    assert max(told) == (2, 3)
    course.end()
    assert told[-1] == (3, 3)


def test_progress_that_cannot_be_shown_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_metric", Own(right))  # type: ignore[arg-type]

    def gone(done: int, _total: int, _what: str) -> None:
        if done:
            raise OSError("the terminal has gone")

    dossier = gate(metric="own_metric:right", n=300)
    assert reach(dossier, gone) == reach(dossier)


def test_one_decision_can_be_judged_again_alone(ledger: Ledger) -> None:
    put_down(ledger, health())
    put_down(ledger, shadow())
    newest, _ = ledger.decisions("m")
    assert retry(ledger, newest).reason.startswith("shadow promote (decision 2, trail t) follows from its evidence")


if __name__ == "__main__":
    lines = []
    for name, one in examples().items():
        body = base64.b64encode(pack(one)).decode("ascii")
        lines.append(f"{json.dumps(name)}: {json.dumps([body, to_plain(reach(one))])}")
    told = ",\n".join(lines)
    OF_OLD.write_text(f'{{"rules": {RULES}, "verdicts": {{\n{told}\n}}}}\n', encoding="utf-8")
