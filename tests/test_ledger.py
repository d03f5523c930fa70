"""The ledger: what it promises about order, about who served when, and about what it does not forget."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.sql.compiler import SQLCompiler

from tasks.database import SchemaTooNew
from tasks.ledger import FACTS, Ledger, Refused, StaleDecision
from tasks.records import Action, Candidate, Finding, Profile, Span, Standing, Transition, Verdict, to_plain
from tasks.stores import Stores

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'deep' / 'ledger.db'}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(url: str, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(url, clock=clock) as opened:
        yield opened


def intend(ledger: Ledger, action: Action, version: str, *, based_on: int | None = None, **given: object) -> Transition:
    standing = ledger.standing("churn")
    values = {"actor": "ada", "reason": f"{action} it", "at": T0, "trail": "t1", **given}
    seq = standing.seq if based_on is None else based_on
    return ledger.intend(model="churn", based_on=seq, action=action, version=version, **values)  # type: ignore[arg-type]


def apply(ledger: Ledger, action: Action, version: str, **given: object) -> Transition:
    return ledger.settle(intend(ledger, action, version, **given), "applied")


def gate(decision: str = "pass") -> Verdict:
    finding = Finding(
        name="performance", outcome="ok", reason="0.9", value=0.9, interval=(0.88, 0.92), n=2000, evidence={"a": [1]}
    )
    return Verdict(judge="gate", decision=decision, reason="it is good", findings=(finding,))


def profile() -> Profile:
    span = Span(start=T0 - 9 * HOUR, end=T0)
    return Profile(
        columns=(),
        prediction=None,
        metrics=(),
        rows=10,
        labelled=12,
        trained_at=T0,
        trained=span,
        holdout=span,
        fingerprint="f",
    )


def candidate(**changes: object) -> Candidate:
    known = Candidate(model="churn", version="1", run_id="r", digest="d" * 64, size=10, profile=profile())
    return replace(known, **changes)  # type: ignore[arg-type]


# Transitions.


def test_an_empty_ledger_stands_at_nothing(ledger: Ledger) -> None:
    assert ledger.standing("churn") == Standing(model="churn")
    assert ledger.history("churn") == ()
    assert ledger.models() == ()


def test_only_an_applied_transition_defines_what_serves(ledger: Ledger) -> None:
    pending = intend(ledger, "promote", "1")
    assert ledger.standing("churn").production is None
    assert ledger.standing("churn").pending == pending
    ledger.settle(pending, "applied")
    standing = ledger.standing("churn")
    assert (standing.production, standing.seq, standing.pending) == ("1", 1, None)


def test_an_abandoned_transition_changes_nothing_but_the_head(ledger: Ledger) -> None:
    apply(ledger, "promote", "1")
    ledger.settle(intend(ledger, "promote", "2"), "abandoned")
    standing = ledger.standing("churn")
    assert (standing.production, standing.seq) == ("1", 2)
    assert apply(ledger, "promote", "3").previous == "1"


def test_a_decision_on_an_old_head_is_refused_and_told_who_got_in_first(ledger: Ledger) -> None:
    seen = ledger.standing("churn").seq
    apply(ledger, "promote", "7", actor="grace", reason="it is better", trail="abc")
    with pytest.raises(StaleDecision, match=r"grace got in first and did promote version 7 at 2026-01-05 12:00:00 UTC"):
        intend(ledger, "promote", "8", based_on=seen)
    assert [row.version for row in ledger.history("churn")] == ["7"]


def test_nothing_is_intended_while_an_intent_is_not_settled(ledger: Ledger) -> None:
    intend(ledger, "promote", "1", actor="grace")
    for based_on in (0, 1):
        with pytest.raises(StaleDecision, match="grace got in first and has begun to promote version 1"):
            intend(ledger, "promote", "2", based_on=based_on)


def test_a_standing_that_was_read_before_an_intent_was_applied_is_stale_afterwards(ledger: Ledger) -> None:
    pending = intend(ledger, "promote", "1")
    seen = ledger.standing("churn").seq
    ledger.settle(pending, "applied")
    with pytest.raises(StaleDecision):
        intend(ledger, "promote", "2", based_on=seen)


def test_settling_twice_is_settling_once_and_settling_otherwise_is_refused(ledger: Ledger, clock: Clock) -> None:
    pending = intend(ledger, "promote", "1")
    first = ledger.settle(pending, "applied")
    clock.now = T0 + HOUR
    assert ledger.settle(pending, "applied") == first
    with pytest.raises(StaleDecision, match="has it as applied"):
        ledger.settle(pending, "abandoned")
    with pytest.raises(StaleDecision, match="missing"):
        ledger.settle(replace(pending, seq=9), "applied")
    with pytest.raises(ValueError, match="not as intended"):
        ledger.settle(pending, "intended")


def test_a_transition_comes_back_as_it_was_put_down(ledger: Ledger) -> None:
    given = intend(ledger, "promote", "1", evidence={"verdicts": (gate(),), "nan": float("nan")}, flow_run_id="run")
    assert ledger.history("churn") == (given,)
    assert given.evidence == {"verdicts": [to_plain(gate())], "nan": None}
    assert given.at.tzinfo == UTC


@pytest.mark.parametrize("action", ["stage", "reject"])
def test_the_production_version_cannot_be_staged_or_rejected(ledger: Ledger, action: Action) -> None:
    apply(ledger, "promote", "1")
    with pytest.raises(Refused, match=r"version 1 of churn is in Production; .* Roll back"):
        intend(ledger, action, "1")


def test_a_quarantined_version_returns_only_after_a_person_released_it(ledger: Ledger) -> None:
    apply(ledger, "promote", "1")
    apply(ledger, "promote", "2")
    apply(ledger, "rollback", "1")
    assert ledger.standing("churn").quarantined == ("2",)
    for action in ("promote", "rollback"):
        with pytest.raises(Refused, match="version 2 of churn was rolled back from"):
            intend(ledger, action, "2")  # type: ignore[arg-type]
    state(ledger, "2", "released")
    assert apply(ledger, "promote", "2").state == "applied"


def test_a_rollback_to_the_version_that_serves_is_refused(ledger: Ledger) -> None:
    apply(ledger, "promote", "1")
    with pytest.raises(Refused, match="already"):
        intend(ledger, "rollback", "1")


@pytest.mark.parametrize("missing", [{"reason": " "}, {"trail": ""}, {"at": datetime(2026, 1, 1)}])  # noqa: DTZ001  naive on purpose
def test_a_transition_that_could_not_be_explained_later_is_refused(ledger: Ledger, missing: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cannot be explained|no time zone"):
        intend(ledger, "promote", "1", **missing)
    assert ledger.history("churn") == ()


def test_an_exception_while_the_lock_is_held_undoes_what_was_written(ledger: Ledger) -> None:
    pending = intend(ledger, "promote", "1")

    def settle_and_fail() -> None:
        with ledger.holding("churn") as held:
            held.settle(pending, "applied")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        settle_and_fail()
    assert ledger.standing("churn").pending == pending


def test_models_do_not_share_a_history(ledger: Ledger) -> None:
    apply(ledger, "promote", "1")
    other = ledger.intend(
        model="fraud", based_on=0, action="promote", version="4", actor="a", reason="r", at=T0, trail="t"
    )
    assert other.seq == 1
    assert ledger.models() == ("churn", "fraud")
    assert ledger.standing("churn").production == "1"


# Who served when.


def test_who_served_at_a_moment_is_told_by_when_it_took_effect(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, "promote", "1")
    clock.now = T0 + 2 * HOUR  # decided at T0, and the training took two hours
    apply(ledger, "promote", "2")
    clock.now = T0 + 3 * HOUR
    apply(ledger, "rollback", "1", at=T0 + 3 * HOUR)
    served = [ledger.serving_at("churn", T0 + hours * HOUR) for hours in (-1, 0, 1.9, 2, 2.9, 3, 99)]
    assert [found and found.version for found in served] == [None, "1", "1", "2", "2", "1", "1"]
    assert ledger.standing("churn").since == T0 + 3 * HOUR


def test_the_moment_may_be_asked_in_any_zone_but_not_without_one(ledger: Ledger) -> None:
    apply(ledger, "promote", "1")
    tokyo = timezone(9 * HOUR)
    found = ledger.serving_at("churn", T0.astimezone(tokyo))
    assert found is not None
    assert found.applied_at == T0
    with pytest.raises(ValueError, match="no time zone"):
        ledger.serving_at("churn", T0.replace(tzinfo=None))


def test_nothing_takes_effect_before_it_was_decided_or_before_its_predecessor(ledger: Ledger, clock: Clock) -> None:
    clock.now = T0 - HOUR
    first = apply(ledger, "promote", "1")
    second = apply(ledger, "promote", "2", at=T0 - HOUR)
    assert first.applied_at == T0
    assert second.applied_at == T0


def test_staged_is_what_waits_and_was_neither_promoted_nor_rejected(ledger: Ledger, clock: Clock) -> None:
    apply(ledger, "promote", "1")
    clock.now = T0 + HOUR
    apply(ledger, "stage", "2", trail="t2")
    standing = ledger.standing("churn")
    assert (standing.staged, standing.staged_since, standing.staged_trail) == ("2", T0 + HOUR, "t2")
    assert standing.production == "1"
    apply(ledger, "reject", "2")
    assert ledger.standing("churn").staged is None
    assert ledger.has_fact("churn", "2", "rejected")
    apply(ledger, "stage", "3")
    apply(ledger, "promote", "3")
    assert ledger.standing("churn").staged is None


def test_rollbacks_are_counted_within_the_window_when_they_took_effect(ledger: Ledger) -> None:
    for version in ("1", "2", "3"):
        apply(ledger, "promote", version)
    apply(ledger, "rollback", "2", at=T0 + HOUR)
    ledger.settle(intend(ledger, "rollback", "1", at=T0 + 2 * HOUR), "abandoned")
    assert ledger.rollbacks_since("churn", T0) == 1
    assert ledger.rollbacks_since("churn", T0 + HOUR) == 1
    assert ledger.rollbacks_since("churn", T0 + 2 * HOUR) == 0


# Facts.


def state(ledger: Ledger, version: str, fact: str, at: datetime = T0) -> None:
    ledger.state_fact("churn", version, fact, at=at, reason="because", actor="ada", trail="t")


def test_known_good_is_newest_first_and_ends_with_a_quarantine(ledger: Ledger) -> None:
    for version in ("1", "2", "3", "1"):
        state(ledger, version, "known-good")
    assert ledger.standing("churn").known_good == ("1", "3", "2")
    state(ledger, "3", "quarantined")
    assert ledger.standing("churn").known_good == ("1", "2")
    state(ledger, "3", "released")
    standing = ledger.standing("churn")
    assert standing.known_good == ("1", "2"), "released is not yet good"
    assert standing.quarantined == ()


def test_a_healthy_watch_does_not_lift_a_quarantine(ledger: Ledger) -> None:
    state(ledger, "1", "quarantined")
    state(ledger, "1", "known-good")
    assert ledger.standing("churn").quarantined == ("1",)


def test_an_approval_is_taken_back_by_a_rejection(ledger: Ledger) -> None:
    state(ledger, "1", "awaiting")
    assert ledger.fact_at("churn", "1", "awaiting") == T0
    state(ledger, "1", "approved", T0 + HOUR)
    assert ledger.has_fact("churn", "1", "approved")
    assert not ledger.has_fact("churn", "1", "awaiting"), "it was answered"
    state(ledger, "1", "rejected")
    assert not ledger.has_fact("churn", "1", "approved")
    assert not ledger.has_fact("churn", "2", "approved")


def test_an_unknown_fact_is_refused_with_those_that_are_known(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match=r"'good' is nothing .* known-good, quarantined"):
        state(ledger, "1", "good")


# Decisions.


def test_a_verdict_comes_back_as_it_was_put_down(ledger: Ledger) -> None:
    span = Span(start=T0 - HOUR, end=T0)
    ledger.record("churn", gate(), trail="t", at=T0, flow_run_id="run", version="3", span=span)
    (decision,) = ledger.decisions("churn")
    assert decision.verdict == gate()
    assert (decision.at, decision.flow_run_id, decision.version, decision.span) == (T0, "run", "3", span)


def test_decisions_are_found_by_judge_and_by_trail_newest_first(ledger: Ledger) -> None:
    shadow = Verdict(judge="shadow", decision="wait", reason="w", findings=())
    for verdict, trail in ((gate("fail"), "a"), (shadow, "b"), (gate(), "b")):
        ledger.record("churn", verdict, trail=trail, at=T0, version="3")
    assert [found.verdict.decision for found in ledger.decisions("churn")] == ["pass", "wait", "fail"]
    assert [found.trail for found in ledger.decisions("churn", "gate", limit=1)] == ["b"]
    assert len(ledger.decisions("churn", trail="b")) == 2
    assert ledger.gate_decision("churn", "3") == "pass"
    assert ledger.gate_decision("churn", "4") is None


def test_attempts_count_gate_verdicts_on_overlapping_rows_since_the_last_promotion(ledger: Ledger) -> None:
    rows = Span(start=T0, end=T0 + 10 * HOUR)

    def judge(start: float, end: float) -> None:
        ledger.record("churn", gate(), trail="t", at=T0, span=Span(start=T0 + start * HOUR, end=T0 + end * HOUR))

    assert ledger.attempts_on("churn", rows) == 0
    judge(0, 10)
    assert ledger.attempts_on("churn", rows) == 1
    apply(ledger, "promote", "1")
    assert ledger.attempts_on("churn", rows) == 0, "the verdict that led to the promotion is no attempt to replace it"
    judge(5, 15)
    judge(-3, 0)  # ends where the rows begin
    judge(10, 12)
    assert ledger.attempts_on("churn", rows) == 1
    apply(ledger, "stage", "2")
    ledger.record("churn", replace(gate(), judge="shadow"), trail="t", at=T0, span=rows)
    assert ledger.attempts_on("churn", rows) == 1


# Versions and notifications.


def test_what_a_version_is_comes_back_and_never_changes(ledger: Ledger) -> None:
    ledger.describe(candidate())
    ledger.describe(candidate())
    assert ledger.digest("churn", "1") == "d" * 64
    assert ledger.profile("churn", "1") == to_plain(profile())
    with pytest.raises(ValueError, match="never changes"):
        ledger.describe(candidate(digest="e" * 64))
    with pytest.raises(ValueError, match="never changes"):
        ledger.describe_external("churn", "1", digest="e" * 64, size=3)
    assert ledger.digest("churn", "2") is None
    assert ledger.profile("churn", "2") is None


def test_a_failed_notification_is_kept_with_its_error(ledger: Ledger) -> None:
    ledger.note_notification("churn", trail="t", at=T0, sink="slack://***", title="hi", ok=False, error="refused")
    (kept,) = ledger.notifications("churn")
    assert (kept.sink, kept.ok, kept.error, kept.at) == ("slack://***", False, "refused", T0)


# The file.


def test_a_ledger_survives_being_closed(url: str) -> None:
    with Ledger.open(url) as first:
        apply(first, "promote", "1")
    with Ledger.open(url) as second:
        assert second.standing("churn").production == "1"


def test_a_ledger_of_a_later_version_is_refused(url: str) -> None:
    Ledger.open(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE backstop_ledger_version SET version_num = '0099'"))
    engine.dispose()
    with pytest.raises(SchemaTooNew, match=r"ledger tables .* version 0099, and this Backstop knows 0007"):
        Ledger.open(url)


@pytest.mark.parametrize("bad", ["sqlite://", "sqlite:///:memory:", "no url"])
def test_a_ledger_that_would_forget_or_cannot_be_read_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"forgets|could not be read"):
        Ledger.open(bad)


def test_the_ledger_waits_for_another_writer_and_readers_wait_for_nobody(url: str, ledger: Ledger) -> None:
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with Ledger.open(url) as other, other.holding("churn") as held:
            inside.set()
            leave.wait(20)
            held.adopt(action="external", version="1", production="1", reason="r", at=T0, trail="t")
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    assert ledger.standing("churn").production is None, "a reader sees what was committed, at once"
    leave.set()
    with ledger.holding("churn") as held:
        order.append("second")
        assert held.standing().production == "1"
    thread.join()
    assert order == ["first", "second"]


def test_many_may_open_a_new_ledger_at_once(url: str) -> None:
    errors: list[Exception] = []
    gate_ = threading.Barrier(8)

    def open_it() -> None:
        gate_.wait()
        try:
            Ledger.open(url).close()
        except Exception as error:  # noqa: BLE001  whatever it is, the test names it
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_the_quiet_path_imports_nothing_heavy() -> None:
    code = (
        "import sys, tasks.ledger, tasks.requests, tasks.health_sources, tasks.decide.rollback\n"
        "print(*sorted({'mlflow', 'pandas', 'sklearn', 'prefect'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


# Properties.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["stage", "promote", "rollback", "reject"]),
        st.sampled_from(["1", "2", "3"]),
        st.sampled_from(["applied", "abandoned"]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_the_standing_follows_from_the_applied_rows(
    steps: list[tuple[Action, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", clock=lambda: T0) as ledger:
        expected: str | None = None
        for action, version, end in steps:
            try:
                pending = intend(ledger, action, version)
            except Refused:
                assert version == expected or version in ledger.standing("churn").quarantined
                continue
            ledger.settle(pending, end)  # type: ignore[arg-type]
            if end == "applied" and action in {"promote", "rollback"}:
                expected = version
            standing = ledger.standing("churn")
            assert standing.production == expected
            assert standing.pending is None
            assert standing.production not in standing.quarantined
        history = ledger.history("churn")
        assert [row.seq for row in history] == list(range(1, len(history) + 1))
        served = ledger.serving_at("churn", T0)
        assert (served.version if served else None) == expected


def test_every_fact_can_be_stated(ledger: Ledger) -> None:
    for fact in FACTS:
        state(ledger, "1", fact)
        assert ledger.has_fact("churn", "1", fact)


# Who else has it open.


def test_whoever_opens_a_ledger_once_more_words_no_question_anew(stores: Stores) -> None:
    """A tick of the watch opens it for each of its models; wording the questions would be half of what it costs."""
    worded: list[str] = []
    plain = SQLCompiler.__init__

    def counted(self: SQLCompiler, dialect: Any, statement: Any, **given: Any) -> None:
        worded.append(type(statement).__name__)
        plain(self, dialect, statement, **given)

    Ledger.open(stores.ledger).close()  # makes the tables
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLCompiler, "__init__", counted)
        with Ledger.open(stores.ledger) as ledger:
            ledger.standing("churn")
        assert worded
        worded.clear()
        with Ledger.open(stores.ledger) as ledger:
            ledger.standing("fraud")
    assert worded == []
