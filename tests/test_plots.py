"""Pictures of what verdicts rest on: they show what was judged, say where there is nothing, and never stop anything."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dossiers
import numpy as np
import pytest
from PIL import Image

from tasks import gate_plots, plots
from tasks.canvas import CANDIDATE, FAINT, LIMIT, Picture, Subject
from tasks.dossier import Dossier
from tasks.plots import pictures
from tasks.records import Scores, ShadowEvidence
from tasks.retrial import reach

pytestmark = pytest.mark.usefixtures("coarse_pictures")

SMALL, LARGE = 2_000, 60_000
"""Bytes of a picture: less is an empty canvas, more does not fit into a report five times."""


def drawn(dossier: Dossier, version: str | None = "7") -> dict[str, Picture]:
    subject = Subject(model="churn", version=version, at=dossiers.NOW)
    return {one.name: one for one in pictures(dossier, reach(dossier), subject)}


def share_of(picture: Picture, colour: str) -> float:
    """Of the pixels near a colour."""
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"), dtype=int)
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return float((np.abs(pixels - wanted).max(axis=2) < 20).mean())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("triggers retrain", ["drift", "inputs"]),
        ("gate binary", ["curves", "calibration", "agreement"]),
        ("gate multiclass", ["confusion", "calibration"]),
        ("gate regression", ["residuals", "calibration", "agreement"]),
        ("gate first", ["curves", "calibration"]),
        ("shadow wait", ["shadow"]),
        ("shadow nothing", []),
        ("health unhealthy", ["health"]),
        ("rollback back", []),
    ],
)
@pytest.mark.usefixtures("fine_pictures")
def test_every_judge_has_the_pictures_that_fit_its_evidence(name: str, expected: list[str]) -> None:
    found = drawn(dossiers.examples()[name])
    assert list(found) == expected
    for picture in found.values():
        assert Image.open(io.BytesIO(picture.png)).width > 900
        assert SMALL < len(picture.png) < LARGE
        assert picture.caption
        assert "\n" not in picture.caption


def test_every_picture_has_a_chapter_that_says_how_to_read_it() -> None:
    read = (Path(__file__).resolve().parent.parent / "docs" / "reading-a-run.md").read_text("utf-8")
    names = {picture for dossier in dossiers.examples().values() for picture, _, _ in plots._painters(dossier)}
    assert len(names) == 9
    assert {f"### {name}" for name in names} <= set(read.splitlines())


def test_the_same_evidence_gives_the_same_bytes() -> None:
    first, again = (drawn(dossiers.gate(n=5000)) for _ in range(2))
    assert [one.png for one in first.values()] == [one.png for one in again.values()]


def test_a_column_that_moved_is_drawn_in_the_colour_of_the_limit_and_named_in_the_caption() -> None:
    moved, calm = drawn(dossiers.triggers(3))["drift"], drawn(dossiers.triggers(0))["drift"]
    assert moved.caption.startswith("3 of 4 columns")
    assert calm.caption.startswith("0 of 4 columns")
    assert share_of(moved, LIMIT) > 10 * share_of(calm, LIMIT)


def test_a_column_that_could_not_be_judged_is_shown_as_unknown_and_not_as_calm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dossier = dossiers.triggers(0)
    signals = dossier.given["signals"]
    few = tuple(replace(one, counts=(3, 2, 0)) for one in signals.recent)
    notes: list[str] = []
    note = plots._drift_note
    monkeypatch.setattr(plots, "_drift_note", lambda one: notes.append(note(one)) or note(one))
    drawn(Dossier("triggers", {**dossier.given, "signals": replace(signals, recent=few)}))
    assert notes == ["unknown"] * 4


def test_the_curves_have_the_areas_that_counting_gives_ties_included() -> None:
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 2, 200).astype(float)
    score = np.round(0.3 * truth + draw.random(200), 1)
    false, true, precision = gate_plots._ranked(truth, score)
    yes, no = score[truth == 1], score[truth == 0]
    above = (yes[:, None] > no).mean() + 0.5 * (yes[:, None] == no).mean()
    assert np.trapezoid(true, false) == pytest.approx(above)
    exact = [truth[score >= limit].mean() for limit in np.unique(score)[::-1]]
    gained = np.diff([0.0, *((yes >= limit).mean() for limit in np.unique(score)[::-1])])
    assert np.sum(np.diff(true) * precision[1:]) == pytest.approx(np.sum(gained * exact))


def test_the_moment_of_the_alarm_is_drawn_only_where_there_was_one() -> None:
    alarm, calm = drawn(dossiers.health(60))["health"], drawn(dossiers.health(1))["health"]
    assert "unhealthy" in alarm.caption
    assert share_of(alarm, LIMIT) > 1.2 * share_of(calm, LIMIT)


def binary(truth: list[int], positive: list[float]) -> Scores:
    said = np.array(positive, dtype=float)
    return Scores(
        truth=np.array(truth, dtype=np.intp),
        prediction=np.where(np.isfinite(said), said > 0.5, -1).astype(np.intp),
        probability=np.column_stack((1 - said, said)),
        classes=("no", "yes"),
    )


def amounts(truth: list[float], said: list[float]) -> Scores:
    return Scores(truth=np.array(truth, dtype=float), prediction=np.array(said, dtype=float))


DEGENERATE: dict[str, Callable[[], tuple[str, Scores]]] = {
    "one class": lambda: ("binary", binary([1, 1, 1], [0.2, 0.9, 0.4])),
    "one row": lambda: ("binary", binary([1], [0.2])),
    "no rows": lambda: ("binary", binary([], [])),
    "only NaN": lambda: ("binary", binary([0, 1], [math.nan, math.nan])),
    "no labels": lambda: ("binary", binary([-1, -1], [0.5, 0.6])),
    "constant": lambda: ("binary", binary([0, 1, 1, 0], [0.5] * 4)),
    "amounts, one row": lambda: ("regression", amounts([1.0], [2.0])),
    "amounts, no rows": lambda: ("regression", amounts([], [])),
    "amounts, only NaN": lambda: ("regression", amounts([math.nan], [1.0])),
    "amounts, infinite": lambda: ("regression", amounts([1.0, 2.0], [math.inf, 2.0])),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_evidence_that_cannot_be_drawn_gives_a_picture_that_says_so(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    problem, scores = DEGENERATE[case]()
    given = {**dossiers.gate(problem).given}
    given["evidence"] = replace(given["evidence"], candidate=scores, production=scores)
    dossier = Dossier("gate", given)
    found = pictures(dossier, reach(dossiers.gate(problem)), Subject(model="churn", version="7", at=dossiers.NOW))
    assert [one.name for one in found] == [
        "residuals" if problem == "regression" else "curves",
        "calibration",
        "agreement",
    ]
    assert not caplog.records


@pytest.mark.usefixtures("fine_pictures")
def test_a_picture_of_many_rows_is_as_small_as_one_of_few() -> None:
    found = drawn(dossiers.gate(n=100_000))
    assert max(len(one.png) for one in found.values()) < LARGE


def test_a_picture_that_fails_is_a_line_in_the_log_and_the_others_are_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> str:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(gate_plots, "_calibration", broken)
    assert list(drawn(dossiers.gate())) == ["curves", "agreement"]
    assert "the picture calibration of churn could not be drawn" in caplog.text


def test_evidence_that_is_not_what_it_should_be_gives_no_picture_and_no_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject = Subject(model="churn", at=dossiers.NOW)
    assert pictures(Dossier("triggers", {}), reach(dossiers.triggers()), subject) == ()
    assert "cannot be drawn" in caplog.text


@pytest.mark.parametrize("name", ["$x_{y$ <b>", "カラム名", "x" * 300, "", "a\nb"])
def test_names_are_shown_as_they_are_and_never_read_as_formulas(name: str, caplog: pytest.LogCaptureFixture) -> None:
    dossier = dossiers.triggers(1)
    signals = dossier.given["signals"]
    profile = replace(signals.profile, columns=tuple(replace(one, name=name) for one in signals.profile.columns[:1]))
    changed = replace(signals, profile=profile, recent=(replace(signals.recent[0], name=name),))
    found = pictures(
        Dossier("triggers", {**dossier.given, "signals": changed}),
        reach(dossier),
        Subject(model=name, version=name, at=dossiers.NOW),
    )
    assert [one.name for one in found] == ["drift", "inputs"]
    assert not caplog.records


def test_the_shadow_is_drawn_from_its_first_comparison_on() -> None:
    early, late = dossiers.shadow(9, 5, 30), dossiers.shadow()
    alone = drawn(late)["shadow"]
    before = ((dossiers.SPAN.start, reach(early)),)
    subject = Subject(model="churn", version="7", at=dossiers.NOW, earlier=before)
    (together,) = pictures(late, reach(late), subject)
    assert share_of(together, CANDIDATE) > share_of(alone, CANDIDATE)
    assert share_of(alone, FAINT) > 0


def test_a_challenger_that_answered_nothing_is_drawn_too() -> None:
    silent = ShadowEvidence(wins=0, losses=0, ties=0, requests=0, agreements=0, failures=9, span=dossiers.SPAN)
    dossier = Dossier("shadow", {**dossiers.shadow().given, "evidence": silent})
    assert "no request was answered by both" in drawn(dossier)["shadow"].caption
