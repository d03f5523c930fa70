"""The hash chain: what is done to the ledger's rows behind its back shows, and what it does itself does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from tasks import chain
from tasks.ledger import Ledger
from tasks.records import Finding, Verdict

T0 = datetime(2026, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)

TAMPERING = {
    "a reason": "UPDATE backstop_transitions SET reason = 'it was fine' WHERE seq = 1",
    "who did it": "UPDATE backstop_transitions SET actor = 'nobody' WHERE seq = 2",
    "what served": "UPDATE backstop_transitions SET production = '9' WHERE seq = 1",
    "when it took effect": "UPDATE backstop_transitions SET applied_at = '2026-01-06 00:00:00' WHERE seq = 1",
    "an outcome": "UPDATE backstop_transitions SET state = 'abandoned' WHERE seq = 2",
    "a verdict": "UPDATE backstop_decisions SET verdict = replace(verdict, '0.9', '0.8')",
    "which evidence": "UPDATE backstop_decisions SET evidence = 'abc'",
    "a digest of an artifact": "UPDATE backstop_versions SET digest = 'f00'",
    "a quarantine taken out": "DELETE FROM backstop_facts WHERE fact = 'quarantined'",
    "a fact put in": "INSERT INTO backstop_facts (model, version, fact, at, reason, actor, trail) "
    "VALUES ('churn', '2', 'known-good', '2026-01-06 00:00:00', 'r', 'a', 't')",
    "a transition taken out": "DELETE FROM backstop_transitions WHERE seq = 2",
    "a notification that was not sent": "UPDATE backstop_notifications SET ok = 1",
    "a link taken out": "DELETE FROM backstop_chain WHERE position = 3",
    "a link rewritten": "UPDATE backstop_chain SET digest = 'abc' WHERE position = 4",
    "a link of another row": "UPDATE backstop_chain SET \"row\" = '77' WHERE position = 1",
}


def verdict() -> Verdict:
    finding = Finding(name="performance", outcome="ok", reason="0.9", value=0.9, evidence={"n": [1, 2]})
    return Verdict(judge="gate", decision="pass", reason="it is good", findings=(finding,))


def move(ledger: Ledger, action: str, version: str) -> None:
    pending = ledger.intend(
        model="churn",
        based_on=ledger.standing("churn").seq,
        action=action,  # type: ignore[arg-type]
        version=version,
        actor="ada",
        reason=f"{action} it",
        at=T0,
        trail="t",
    )
    ledger.settle(pending, "applied")


def story(ledger: Ledger) -> None:
    """One of everything that can be written."""
    ledger.describe_external("churn", "1", digest="d1", size=3)
    ledger.record("churn", verdict(), trail="t", at=T0, version="1", dossier=b"what it rested on")
    move(ledger, "promote", "1")
    move(ledger, "promote", "2")
    ledger.state_fact("churn", "1", "known-good", at=T0, reason="r", actor="a", trail="t")
    move(ledger, "rollback", "1")
    ledger.note_notification("churn", trail="t", at=T0, sink="s", title="x", ok=False, error="e")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url, clock=lambda: T0) as opened:
        story(opened)
        yield opened


def tamper(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount > 0
    engine.dispose()


def test_a_ledger_that_nobody_touched_fits(ledger: Ledger) -> None:
    assert ledger.misfits("churn") == ()
    assert ledger.misfits("never heard of") == ()


@pytest.mark.parametrize("what", TAMPERING)
def test_whatever_is_done_behind_its_back_shows(ledger: Ledger, url: str, what: str) -> None:
    tamper(url, TAMPERING[what])
    assert ledger.misfits("churn") != ()


def test_what_was_changed_is_named(ledger: Ledger, url: str) -> None:
    tamper(url, TAMPERING["a reason"])
    (told,) = ledger.misfits("churn")
    assert told.startswith("transition 1 (link 3)")
    assert "was changed after it was written" in told


def test_an_intent_that_is_not_settled_fits(ledger: Ledger) -> None:
    head = ledger.standing("churn").seq
    ledger.intend(model="churn", based_on=head, action="promote", version="3", actor="a", reason="r", at=T0, trail="t")
    assert ledger.misfits("churn") == ()


def test_evidence_that_was_changed_is_refused(ledger: Ledger, url: str) -> None:
    digest = ledger.decisions("churn")[0].evidence
    assert digest is not None
    assert ledger.evidence(digest) == b"what it rested on"
    assert ledger.evidence("0" * 64) is None
    tamper(url, "UPDATE backstop_evidence SET body = x'00'")
    with pytest.raises(ValueError, match="was changed in the ledger"):
        ledger.evidence(digest)


def test_the_same_evidence_is_kept_once(ledger: Ledger, url: str) -> None:
    ledger.record("fraud", verdict(), trail="t", at=T0, dossier=b"what it rested on")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM backstop_evidence")).scalar_one() == 1
    engine.dispose()


def test_how_far_a_check_is_can_be_seen(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_AT_A_TIME", 2)
    told: list[tuple[int, int]] = []
    assert ledger.misfits("churn", lambda done, total, _what: told.append((done, total))) == ()
    assert told == sorted(told)
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert len(told) >= 8


def test_each_model_has_a_chain_of_its_own(ledger: Ledger, url: str) -> None:
    ledger.record("fraud", verdict(), trail="t", at=T0)
    tamper(url, TAMPERING["a reason"])
    assert ledger.misfits("fraud") == ()
    assert ledger.link("fraud", 1) is not None
    assert ledger.link("fraud", 2) is None


def test_a_chain_written_anew_differs_from_the_link_that_was_told_elsewhere(ledger: Ledger, url: str) -> None:
    """Who recomputes every digest fits again; the digest in MLflow's tag is what finds him out."""
    with ledger.holding("churn") as held:
        position, told = held.link().split()
    assert ledger.link("churn", int(position)) == told
    tamper(url, TAMPERING["a reason"])
    tamper(url, "DELETE FROM backstop_chain")
    from tasks import chain

    with ledger.holding("churn") as held:
        chain.seal(held._connection)
    assert ledger.misfits("churn") == ()
    assert ledger.link("churn", int(position)) != told


def test_writers_at_the_same_time_make_one_chain(url: str, ledger: Ledger) -> None:
    def write(number: int) -> None:
        with Ledger.open(url) as own:
            for _ in range(5):
                own.state_fact("churn", "1", "paged", at=T0, reason=f"r{number}", actor="a", trail="t")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.misfits("churn") == ()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reason=st.text(min_size=1, max_size=40).filter(lambda text: text.strip() != "" and "\x00" not in text))
def test_any_text_fits_when_it_is_read_again(ledger: Ledger, reason: str) -> None:
    try:
        reason.encode()
    except UnicodeEncodeError:
        return  # no database keeps half a surrogate pair
    ledger.state_fact("churn", "1", "paged", at=T0, reason=reason, actor="a", trail="t")
    assert ledger.misfits("churn") == ()
