"""One renderer for every judgement: the decision first, numbers as people write them, user text never as marks."""

from __future__ import annotations

import ast
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from tasks.canvas import Picture
from tasks.places import Places
from tasks.records import Finding, Judge, Report, Transition, Verdict
from tasks.report import (
    NEXT,
    amount,
    brief,
    finding_rows,
    glance_table,
    ledger_lines,
    line,
    markdown,
    run_name,
    table,
    table_rows,
    tick_name,
)

ROOT = Path(__file__).resolve().parent.parent
NOW = datetime(2024, 4, 15, 2, 0, tzinfo=UTC)
GATE = Verdict(
    judge="gate",
    decision="fail",
    reason="f1_weighted lost 0.04",
    findings=(
        Finding(
            name="latency",
            outcome="ok",
            reason="p99 is 12.3 ms, under 50 ms",
            value=0.0123,
            threshold=0.05,
            interval=(0.011, 0.014),
            n=1000,
        ),
        Finding(name="size", outcome="ok", reason="small", value=9_800_000.0, threshold=500e6),
        Finding(
            name="regression", outcome="breach", reason="lost", value=-0.04, threshold=-0.02, margin=0.02, n=12_000
        ),
        Finding(name="stability", outcome="unknown", reason="constant answers", value=float("nan")),
    ),
)


def report(**changes: object) -> Report:
    fields: dict[str, object] = {
        "model": "churn",
        "flow": "retrain",
        "decision": "gate-failed",
        "line": "f1_weighted lost 0.04",
        "at": NOW,
        "trail": "abc123",
        "production": "3",
        "candidate": "4",
        "verdicts": (GATE,),
    }
    return Report(**{**fields, **changes})  # type: ignore[arg-type]


def shown(renderable: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


# Lines


def test_the_decision_line_of_the_textbook_case_reads_true_and_names_age_and_drift() -> None:
    fired = tuple(Finding(name=name, outcome="breach", reason=name, urgency="low") for name in ("age", "drift"))
    quiet = Finding(name="performance", outcome="ok", reason="0.8 is not under 0.75")
    reason = "14 days old, limit 14 days; drift 0.35 over 0.3"
    verdict = Verdict(judge="triggers", decision="retrain", reason=reason, findings=(*fired, quiet), urgency="medium")
    assert line(verdict) == f"Retrain model: true (medium; age, drift): {reason}"


def test_a_reason_that_is_a_decision_line_already_is_not_said_twice() -> None:
    verdict = Verdict(judge="triggers", decision="keep", reason="Retrain model: false — all quiet", findings=())
    assert line(verdict) == "Retrain model: false — all quiet"


def test_a_kept_model_reads_false() -> None:
    assert (
        line(Verdict(judge="triggers", decision="keep", reason="quiet", findings=())) == "Retrain model: false: quiet"
    )


@pytest.mark.parametrize("judge", ["gate", "shadow", "health", "data"])
def test_a_line_is_one_line_whatever_the_reason_holds(judge: Judge) -> None:
    verdict = Verdict(judge=judge, decision="fail", reason="a\nb\r\n  c", findings=())
    assert line(verdict) == f"{judge.capitalize()}: fail: a b c"


# Numbers


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.0123, "seconds", "12.3 ms"),
        (1.5, "seconds", "1.5 s"),
        (0.1, "share", "10%"),
        (0.0351, "share", "3.51%"),
        (9_800_000.0, "bytes", "9.8MB"),
        (14.0, "days", "14 days"),
        (50_000.0, "count", "50,000"),
        (0.87311, "", "0.8731"),
        (123_456.0, "", "123,456"),
        (-0.04, "", "-0.04"),
        (None, "share", "-"),
        (float("nan"), "share", "-"),
        (float("inf"), "bytes", "-"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, unit: str, expected: str) -> None:
    assert amount(value, unit) == expected


def test_rows_have_units_interval_margin_and_put_what_decided_first() -> None:
    rows = finding_rows(GATE)
    assert [row[0] for row in rows] == ["regression", "stability", "latency", "size"]
    assert rows[0] == ("regression", "fail", "-0.04", "-0.02, margin 0.02", "12,000", "lost")
    assert rows[1][1:3] == ("inconclusive", "-")
    assert rows[2][2:5] == ("12.3 ms (11 ms to 14 ms)", "50 ms", "1,000")
    assert rows[3][2:4] == ("9.8MB", "500MB")


def test_a_finding_may_name_its_own_unit() -> None:
    finding = Finding(name="age", outcome="breach", reason="old", value=14.0, threshold=14.0, evidence={"unit": "days"})
    verdict = Verdict(judge="triggers", decision="retrain", reason="old", findings=(finding,))
    assert finding_rows(verdict)[0][1:4] == ("fired", "14 days", "14 days")


def test_unknown_never_reads_as_a_pass() -> None:
    judges: tuple[Judge, ...] = ("triggers", "gate", "shadow", "health", "data")
    for judge in judges:
        words = {
            outcome: finding_rows(
                Verdict(
                    judge=judge, decision="x", reason="x", findings=(Finding(name="a", outcome=outcome, reason="x"),)
                )
            )[0][1]
            for outcome in ("ok", "breach", "unknown", "exempt")
        }
        assert len(set(words.values())) == 4, (judge, words)


def test_what_was_measured_and_cannot_decide_is_told_apart_from_what_does_not_apply() -> None:
    measured = Finding(name="slice a", outcome="exempt", reason="small", value=0.01, n=40)
    nothing = Finding(name="regression", outcome="exempt", reason="no baseline")
    verdict = Verdict(judge="gate", decision="pass", reason="x", findings=(measured, nothing))
    assert [row[1] for row in finding_rows(verdict)] == ["reported", "does not apply"]
    assert "slice a" not in glance_table(verdict)
    assert len(table(verdict).rows) == 2


# Markdown


def test_a_report_begins_with_the_decision_and_what_to_do_and_ends_with_the_trail() -> None:
    text = markdown(report())
    places = [
        text.index(part)
        for part in (
            "# churn: gate failed",
            "**f1_weighted lost 0.04**",
            "## What to do next",
            NEXT["gate-failed"],
            "## Why",
            "## What was looked at",
            "| regression | fail |",
            "| latency | pass |",
            "- trail: abc123",
            "- in Production now: 3",
        )
    ]
    assert places == sorted(places)


def test_a_dry_run_and_an_error_say_so() -> None:
    text = markdown(report(dry_run=True, error="OSError: gone", decision="failed"))
    assert "Dry run: nothing was changed." in text
    assert "**Error:** OSError: gone" in text


def test_which_rows_were_learned_from_is_told_where_there_was_a_choice() -> None:
    assert "Learned from" not in markdown(report())
    assert "Learned from newest 14d: log_loss on" in markdown(report(learned="newest 14d: log_loss on the newest 50"))


def test_a_report_without_verdicts_and_without_production_still_reads() -> None:
    text = markdown(report(verdicts=(), production=None, candidate=None, decision="something-new"))
    assert "- in Production now: nothing" in text
    assert "Read docs/decisions.md." in text


def test_user_text_cannot_break_the_table_or_become_markup() -> None:
    nasty = "a|b\n| x | <img src=y> **bold** [link](http://z) `code` \\|"
    finding = Finding(name="my|check", outcome="breach", reason=nasty)
    verdict = Verdict(judge="gate", decision="fail", reason=nasty, findings=(finding,))
    text = markdown(report(model="chu|rn", line=nasty, verdicts=(verdict,)))
    row = next(part for part in text.splitlines() if part.startswith("| my"))
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 7
    assert "<img" not in text
    assert "[link]" not in text
    assert "**bold**" not in text


def test_a_report_has_its_pictures_in_itself_and_says_which_have_no_room() -> None:
    small, large = (Picture(name=name, caption="1 <b> [x]", png=bytes(size)) for name, size in SIZES.items())
    text = markdown(report(), [small, large])
    assert text.count("](data:image/png;base64,") == 1
    assert "![drift](data:image/png;base64,AAAA" in text
    assert "1 &lt;b&gt; \\[x\\]" in text
    assert "no room here for curves" in text
    assert len(text) < 400_000
    assert "In pictures" not in markdown(report())


SIZES = {"drift": 30_000, "curves": 300_000}


def test_a_report_leads_to_the_run_the_version_and_the_story() -> None:
    there = markdown(report(), (), Places(mlflow="http://mlflow:5000"), "e1f2")
    assert "(http://mlflow:5000/#/runs/e1f2)" in there
    assert "(http://mlflow:5000/#/models/churn/versions/4)" in there
    assert "python -m flows.trail abc123" in there
    embedded = markdown(report(), (), Places(), "e1f2")
    assert "`e1f2`; `make mlflow-ui` shows it" in embedded
    assert "](" not in embedded


# Names and messages


TRIGGERS = Verdict(
    judge="triggers",
    decision="retrain",
    reason="it drifted",
    findings=(
        Finding(name="drift", outcome="breach", reason="3 of 6"),
        Finding(name="performance", outcome="breach", reason="lost 5 points"),
        Finding(name="age", outcome="ok", reason="2 days"),
    ),
)


@pytest.mark.parametrize(
    ("changes", "actor", "expected"),
    [
        ({"verdicts": (TRIGGERS, GATE)}, "", "retrain churn: drift + performance"),
        ({"verdicts": (TRIGGERS, GATE), "dry_run": True}, "", "retrain churn: drift + performance (dry run)"),
        ({"verdicts": (TRIGGERS,), "decision": "kept", "candidate": None}, "", "retrain churn: kept"),
        ({"verdicts": (), "decision": "waiting"}, "", "retrain churn: version 4 waiting"),
        ({"flow": "promote", "decision": "promoted"}, "ada", "promote churn 4 by ada"),
        ({"flow": "promote", "decision": "rejected"}, "ada", "reject churn 4 by ada"),
        ({"flow": "rollback", "decision": "rolled-back"}, "ada", "roll back churn to 4 by ada"),
        ({"flow": "rollback", "decision": "held", "candidate": None}, "", "rollback churn: held"),
        (
            {"flow": "promote", "decision": "promoted"},
            "x" * 60,
            f"promote churn 4 by {'x' * 38} …",
        ),
    ],
)
def test_a_run_is_called_after_what_it_did_and_why(changes: dict[str, object], actor: str, expected: str) -> None:
    assert run_name(report(**changes), actor) == expected


def test_a_tick_is_called_after_the_most_serious_thing_that_it_saw() -> None:
    calm = [report(flow="watch", model=f"m{number}", decision="watching") for number in range(11)]
    back = report(flow="watch", decision="rolled-back")
    failed = report(flow="watch", model="price", decision="failed")
    assert tick_name([*calm, back]) == "watch 12 models: rolled back churn"
    assert tick_name([*calm, back, failed]) == "watch 13 models: failed price; rolled back churn"
    assert tick_name([back]) == "watch churn: rolled back"
    assert tick_name(calm) == "watch 11 models: nothing to do"
    assert len(tick_name([report(flow="watch", model="x" * 63, decision="failed")] * 50)) <= 100


def test_a_long_message_is_cut_where_a_part_of_it_ends() -> None:
    assert brief("short;\n and  one line") == "short; and one line"
    cut = brief("; ".join(f"check {number} failed on some rows" for number in range(50)))
    assert cut.endswith("failed on some rows …")
    assert 150 < len(cut) <= 300
    assert brief("x" * 400) == f"{'x' * 298} …"


# Tables


def test_the_terminal_shows_user_text_as_it_is() -> None:
    nasty = "[red]not red[/red] [/] :warning: [bold"
    verdict = Verdict(
        judge="health", decision="unknown", reason=nasty, findings=(Finding(name="x", outcome="unknown", reason=nasty),)
    )
    text = shown(table(verdict))
    assert text.count(nasty) == 2
    assert "unknown" in text


def test_the_table_of_the_gate_has_what_decided_first() -> None:
    rows = table_rows(GATE)
    assert rows[0] == {
        "check": "regression",
        "outcome": "fail",
        "value": "-0.04",
        "limit": "-0.02, margin 0.02",
        "n": "12,000",
    }
    assert [row["outcome"] for row in rows] == ["fail", "inconclusive", "pass", "pass"]


def test_the_ledger_shows_every_transition_with_who_and_why() -> None:
    steps = [
        Transition(
            model="churn",
            seq=number,
            action="promote",
            version=str(number),
            previous=None if number == 1 else str(number - 1),
            state="applied",
            actor="ana [ops]",
            reason=f"reason {number}\nmore",
            at=NOW,
            trail="t",
        )
        for number in (1, 2)
    ]
    text = "\n".join(line.plain for line in ledger_lines([*steps, replace(steps[1], state="abandoned")]))
    for part in ("2024-04-15 02:00", "promote", "ana [ops]", "reason 1 more", "reason 2 more"):
        assert part in text
    assert "version 2, before: 1, by ana [ops]\n" in text
    assert text.count("[abandoned]") == 1


# The documents keep up


def decisions_of_the_flows() -> set[str]:
    tree = ast.parse((ROOT / "flows" / "steps.py").read_text("utf-8"))
    values = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "STATES"
    )
    return set(ast.literal_eval(next(values)))


def test_every_decision_a_flow_can_end_in_has_a_next_step_and_a_chapter() -> None:
    chapters = {part.removeprefix("## ") for part in (ROOT / "docs/decisions.md").read_text("utf-8").splitlines()}
    assert decisions_of_the_flows() <= set(NEXT)
    assert set(NEXT) <= chapters


@pytest.mark.parametrize("page", ["decisions.md", "runbook.md", "reading-a-run.md"])
def test_links_between_the_documents_lead_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text)
    assert links
    for file, anchor in links:
        target = (ROOT / "docs" / (file or page)).read_text("utf-8")
        headings = {
            re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", target, re.MULTILINE)
        }
        assert not anchor or anchor in headings, (page, file, anchor)
