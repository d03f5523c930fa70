"""The proofs of benchmarks/, in their fast form: a promise that is clearly broken turns one of these red."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import (
    backtest_year,
    delayed_labels,
    drift_null,
    drift_power,
    gate_power,
    proof,
    proven_page,
    scenarios,
    sequential,
    shadow_power,
    shared_cause,
    textbook,
)
from benchmarks.proof import Line
from tasks.records import ColumnProfile

PROOFS = (sequential, gate_power, shadow_power, drift_null, drift_power, delayed_labels, shared_cause, scenarios)
LONG = (pytest.param(backtest_year.prove, id="benchmarks.backtest_year", marks=pytest.mark.slow),)


@pytest.mark.parametrize("prove", [*(pytest.param(one.prove, id=one.__name__) for one in PROOFS), *LONG])
def test_what_is_promised_is_not_shown_to_be_broken(prove: Callable[..., list[Line]]) -> None:
    lines = prove(quick=True)
    assert [line for line in lines if not line.ok] == []
    assert sum(line.limit is not None for line in lines) > 0


def test_the_arrays_are_held_against_the_judge() -> None:
    import numpy as np

    with pytest.raises(RuntimeError, match="do not say the same"):
        sequential.confirm(np.array([True, False]), lambda _: False)
    with pytest.raises(RuntimeError, match="the judge says wait"):
        shadow_power.confirm(shadow_power.RULES, [10, 10, 100], 1)


def test_a_share_is_proven_by_the_bound_that_speaks_against_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert not proof.share("a", 8, 1000, 0.01).ok
    assert proof.share("a", 8, 1000, 0.01, quick=True).ok
    assert proof.share("a", 4, 1000, 0.01).ok
    assert not proof.share("a", 30, 1000, 0.01, quick=True).ok
    assert not proof.share("a", 992, 1000, 0.99, least=True).ok
    assert proof.share("a", 998, 1000, 0.99, least=True).ok
    assert not Line(what="a", value=math.nan, limit=1.0).ok
    code = proof.conclude("a", [proof.share("a", 8, 1000, 0.01), proof.share("b", 1, 1000, 0.01)])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, last["ok"], last["case"], last["short"]) == (1, False, "a", ["a"])
    assert proof.conclude("a", [proof.share("a", 8, 1000, None)]) == 1


def test_the_textbooks_psi_is_the_published_one_and_a_share_of_zero_counts_as_little() -> None:
    reference = ColumnProfile(name="c", kind="category", categories=("a", "b"), counts=(50, 50, 0))
    same = replace(reference, counts=(500, 500, 0))
    moved = replace(reference, counts=(80, 20, 0))
    new = replace(reference, counts=(45, 45, 10))
    assert textbook.psi([reference], [same]) == 0
    assert textbook.psi([reference], [moved]) == pytest.approx(0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5))
    assert textbook.psi([reference], [new]) > textbook.PSI
    assert textbook.psi([reference], [same, replace(moved, name="another")]) == 0


def test_the_page_keeps_its_words_and_names_the_proofs_that_did_not_end(tmp_path: Path) -> None:
    (tmp_path / "sequential.txt").write_text('a table\n{"name": "sequential", "ok": true}\n', "utf-8")
    (tmp_path / "gate_power.txt").write_text("half a tab", "utf-8")
    once = proven_page.page(f"words\n\n{proven_page.MARK}\n\nold figures", tmp_path)
    assert once.startswith("words")
    assert "old figures" not in once
    assert "a table" in once
    assert "half a tab" not in once
    assert "Not run to the end here: gate_power, shadow_power" in once
    assert proven_page.page(once, tmp_path) == once
    assert proven_page.MARK in proven_page.PAGE.read_text("utf-8")
