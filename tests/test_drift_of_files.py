"""Drift asked by hand: the judgement of the trigger, of files that need not fit into memory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from samples import policy
from typer.testing import CliRunner, Result

from tasks import profile as profiles
from tasks.case import LedgerError
from tasks.columns import tidy
from tasks.decide import drift as judgement
from tasks.drift import compare, main
from tasks.ledger import Ledger
from tasks.policy import DriftTrigger
from tasks.records import Candidate, Profile, Span
from tasks.sources import DataError
from tasks.stores import Stores

ROOT = Path(__file__).resolve().parents[1]
T0 = datetime(2026, 1, 5, tzinfo=UTC)


def rows(n: int, *, seed: int = 0, moved: float = 0.0, nulls: float = 0.0) -> pd.DataFrame:
    """Ten columns of which ``a`` and ``b`` can be moved and ``c`` can lose values."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({name: draw.normal(moved * (name in "ab"), 1, n) for name in "abcdefgh"})
    frame["c"] = frame["c"].mask(draw.random(n) < nulls)
    frame["plan"] = draw.choice(["basic", "plus"], n)
    frame["customer"] = [f"c{rank}" for rank in draw.permutation(n)]
    return frame


@pytest.fixture
def june(tmp_path: Path) -> Path:
    rows(4000).to_parquet(tmp_path / "june.parquet", row_group_size=1500)
    return tmp_path / "june.parquet"


@pytest.fixture
def july(tmp_path: Path) -> Path:
    frame = rows(3000, seed=1, moved=1.0, nulls=0.5)
    frame.assign(new=1, tags=[[1, 2]] * len(frame)).to_parquet(tmp_path / "july.parquet")
    return tmp_path / "july.parquet"


def run(*arguments: str | Path) -> Result:
    import typer

    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "160"})


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_it_is_the_judgement_of_the_trigger(suffix: str, tmp_path: Path) -> None:
    old, new = rows(4000), rows(3000, seed=1, moved=1.0, nulls=0.5)
    for name, frame in (("old", old), ("new", new)):
        path = tmp_path / f"{name}{suffix}"
        frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    found = compare(tmp_path / f"new{suffix}", tmp_path / f"old{suffix}", ks=True)
    reference = profiles.describe(tidy(old), ks=True)
    recent = profiles.count(tidy(new), reference)
    assert found.finding == judgement.judge(reference, recent, DriftTrigger())
    assert found.columns == judgement.judge_columns(reference, recent, DriftTrigger())
    assert [column.name for column in found.columns[:3]] == ["c", "a", "b"]
    assert found.columns[1].evidence["ks"] == pytest.approx(0.38, abs=0.03)


def test_who_asks_sees_what_moved_first_and_the_exit_code_says_it(june: Path, july: Path) -> None:
    shown = run(july, "--reference", june)
    assert shown.exit_code == 3  # three of ten may move, and nobody knows whether the customers are a fourth
    assert "unknown: july.parquet against june.parquet" in shown.stdout
    assert "3 of 10 features drifted (0.3, limit 0.3): c, a, b; 1 could not be judged, such as customer" in shown.stdout
    lines = [line for line in shown.stdout.splitlines() if "drifted" in line and line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == ["c", "a", "b"]
    assert re.search(r"0\.0% to \d\d\.\d%", shown.stdout)
    assert "july.parquet has columns that june.parquet does not have: new" in shown.stdout
    assert "not compared, since what they hold is no single value: tags" in shown.stdout
    assert run(july, "--reference", june, "--drop", "d,e").exit_code == 1
    within = pd.read_parquet(july).assign(customer="somebody")
    within.to_parquet(july)
    pd.read_parquet(june).assign(customer="somebody").to_parquet(june)
    shown = run(july, "--reference", june)
    assert shown.exit_code == 0
    assert "drift within the limit: july.parquet against june.parquet" in shown.stdout
    same = run(june, "--reference", june)
    assert same.exit_code == 0
    assert "no drift: june.parquet" in same.stdout


def test_too_few_rows_are_no_proof_that_nothing_moved(june: Path, tmp_path: Path) -> None:
    rows(20).to_parquet(tmp_path / "few.parquet")
    shown = run(tmp_path / "few.parquet", "--reference", june)
    assert shown.exit_code == 3
    assert "unknown: few.parquet against june.parquet" in shown.stdout
    assert "20 recent rows, 50 are needed" in shown.stdout


def test_programs_read_it_as_json(june: Path, july: Path) -> None:
    shown = run(july, "--reference", june, "--drop", "d,e", "--json")
    told = json.loads(shown.stdout)
    assert told["finding"]["outcome"] == "breach"
    assert told["finding"]["evidence"]["features"] == ["c", "a", "b"]
    assert {column["name"] for column in told["columns"]} == set("abcfgh") | {"plan", "customer"}


def test_of_many_columns_those_that_did_not_move_are_not_all_shown(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    wide = pd.DataFrame(draw.normal(size=(500, 40)), columns=[f"column{rank:02d}" for rank in range(40)])
    wide.to_parquet(tmp_path / "wide.parquet")
    wide.assign(column39=wide["column39"] + 3).to_parquet(tmp_path / "moved.parquet")
    shown = run(tmp_path / "moved.parquet", "--reference", tmp_path / "wide.parquet").stdout
    assert shown.count("as it was") == 29
    assert "column39" in shown
    assert "10 columns more; --all shows them" in shown
    whole = run(tmp_path / "moved.parquet", "--reference", tmp_path / "wide.parquet", "--all").stdout
    assert whole.count("as it was") == 39


def test_everything_that_is_wrong_with_the_files_is_told_at_once(tmp_path: Path, june: Path) -> None:
    (tmp_path / "no.parquet").write_text("this is no Parquet")
    with pytest.raises(DataError) as refused:
        compare(tmp_path / "gone.csv", tmp_path / "no.parquet")
    gone, no = refused.value.problems
    assert "there is no file" in gone
    assert "gone.csv" in gone
    assert "no.parquet" in no
    with pytest.raises(DataError, match=r"--drop: there is no column 'plans'; did you mean 'plan'"):
        compare(june, june, drop=["plans"])
    with pytest.raises(DataError) as both:
        compare(june, june, drop=["plans"])
    shown, _, more = both.value.problems[-1].removeprefix("there are: ").partition(" and ")
    assert len(shown.split(", ")) + int(more.split()[0] if more else 0) == rows(1).shape[1]  # those of both, once
    with pytest.raises(DataError, match=r"nothing to compare with; name an older file \(--reference\) or a policy"):
        compare(june)
    with pytest.raises(DataError, match=r"no column of june\.parquet is left to compare"):
        compare(june, june, drop=list(rows(1).columns))
    shown = run(june, "--reference", tmp_path / "gone.csv")
    assert shown.exit_code == 2
    assert "there is no file" in shown.output
    shown = run(tmp_path / "no.parquet", "--reference", tmp_path / "gone.csv", "--policy", tmp_path / "none.yaml")
    assert shown.exit_code == 2
    for name in ("no.parquet", "gone.csv", "none.yaml"):
        assert name in shown.output


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_words_of_which_few_rows_hold_only_those_that_look_like_numbers(suffix: str, tmp_path: Path) -> None:
    codes = pd.DataFrame({"code": ["01", "2", "NA", "7A"] * 500})
    some = pd.DataFrame({"code": ["01", "2", "NA"] * 200})
    numbers = pd.DataFrame({"code": np.arange(600.0)})
    for name, frame in (("june", codes), ("july", some), ("other", numbers)):
        path = tmp_path / f"{name}.{suffix}"
        frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
    (found,) = compare(tmp_path / f"july.{suffix}", tmp_path / f"june.{suffix}").columns
    assert found.evidence["causes"] == ["lost categories", "psi"]
    assert "7A no longer occurs" in found.reason
    (found,) = compare(tmp_path / f"other.{suffix}", tmp_path / f"june.{suffix}").columns
    assert found.outcome == "breach"


def test_a_column_that_names_rows_keeps_no_other_from_being_judged(
    june: Path, july: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = compare(july, june)
    monkeypatch.setattr("tasks.streamed.MOST", 1000)
    monkeypatch.setattr("tasks.streamed.HELD", 1000)
    found = compare(july, june)
    assert found == held
    assert "customer" in {column.name for column in found.columns}


def test_columns_and_limits_are_those_of_the_policy(tmp_path: Path, june: Path, july: Path) -> None:
    asked = policy(
        str(june),
        data={"target": "g", "timestamp": "h", "drop": ["customer"], "categorical": ["plan"]},
        triggers={"drift": {"psi": 3, "null_share": "60%", "share_of_features": "10%"}},
    )
    found = compare(july, june, policy=asked)
    assert {column.name for column in found.columns} == set("abcdef") | {"plan"}
    assert found.finding.outcome == "ok"
    assert found.finding.threshold == 0.1
    off = asked.model_copy(update={"triggers": asked.triggers.model_copy(update={"drift": None})})
    assert (
        "drift off, so the limits are those that it would have by default" in compare(july, june, policy=off).notes[0]
    )
    assert found.notes[0].startswith("not compared")


def test_without_an_older_file_rows_are_held_against_what_production_learned_from(
    stores: Stores, tmp_path: Path, july: Path
) -> None:
    asked = policy("x.csv", model="churn", data={"target": "g", "timestamp": "h", "drop": ["customer"]})
    with pytest.raises(DataError, match=r"churn: nothing is in Production.*name an older file"):
        compare(july, policy=asked, stores=stores)
    assert not stores.ledger.startswith("sqlite") or not Path(stores.ledger.removeprefix("sqlite:///")).exists()
    span = Span(start=T0, end=T0)
    columns = profiles.describe(tidy(rows(4000)[[*"abcdef", "plan"]]))
    profile = Profile(
        columns=columns,
        prediction=None,
        metrics=(),
        rows=4000,
        labelled=4000,
        trained_at=T0,
        trained=span,
        holdout=span,
        fingerprint="f",
    )
    with Ledger.open(stores.ledger) as ledger:
        ledger.describe(Candidate(model="churn", version="1", run_id="r", digest="d" * 64, size=10, profile=profile))
        said = {"actor": "ada", "reason": "it is better", "trail": "t", "at": T0}
        ledger.settle(ledger.intend(model="churn", based_on=0, action="promote", version="1", **said), "applied")
    found = compare(july, policy=asked, stores=stores)
    with pytest.raises(DataError, match=r"--drop: there is no column 'plam'; did you mean 'plan'"):
        compare(july, policy=asked, stores=stores, drop=["plam"])
    assert found.against == "what version 1 of churn was trained on"
    assert found.columns == compare(july, _written(tmp_path, rows(4000)), policy=asked).columns


def _written(folder: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(folder / "older.parquet")
    return folder / "older.parquet"


def test_the_command_reads_a_policy_by_its_path(june: Path, july: Path, tmp_path: Path) -> None:
    written = {
        "model": "churn",
        "data": {"source": "x.csv", "target": "g", "timestamp": "h", "drop": ["customer"]},
        "training": {"estimator": "sklearn.linear_model:LogisticRegression"},
    }
    (tmp_path / "churn.yaml").write_text(yaml.safe_dump(written), "utf-8")
    command = [sys.executable, "-m", "tasks.drift", str(july), "--reference", str(june)]
    ended = subprocess.run(
        [*command, "--policy", str(tmp_path / "churn.yaml")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "3 of 7 features drifted" in ended.stdout
    assert ended.stderr == ""


def test_a_reference_without_values_is_no_change_of_type(tmp_path: Path) -> None:
    pd.DataFrame({"a": np.arange(300.0), "t": pd.Series([None] * 300, dtype="str")}).to_parquet(
        tmp_path / "old.parquet"
    )
    pd.DataFrame({"a": np.arange(300.0), "t": ["x", "y"] * 150}).to_parquet(tmp_path / "new.parquet")
    found = compare(tmp_path / "new.parquet", tmp_path / "old.parquet")
    (text,) = (column for column in found.columns if column.name == "t")
    assert text.evidence["causes"] == ["nulls"]
    pd.DataFrame({"a": [1.0], "t": ["x"]}).head(0).to_parquet(tmp_path / "none.parquet")
    assert compare(tmp_path / "new.parquet", tmp_path / "none.parquet").finding.outcome == "unknown"


def test_bytes_are_judged_as_the_trigger_judges_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(300.0), "b": [b"x", b"y", b"z"] * 100})
    frame.to_parquet(tmp_path / "x.parquet")
    found = compare(tmp_path / "x.parquet", tmp_path / "x.parquet")
    assert (found.finding.outcome, found.notes) == ("ok", ())
    assert {column.name for column in found.columns} == {"a", "b"}


@pytest.mark.parametrize("arguments", [[""], [" ", "--reference", "june.parquet"]])
def test_no_file_at_all_is_not_the_present_folder(arguments: list[str]) -> None:
    shown = run(*arguments)
    assert shown.exit_code == 2
    assert "no file of recent rows is named" in shown.output


def test_files_that_are_none_of_these_are_refused(tmp_path: Path, june: Path) -> None:
    (tmp_path / "rows.json").write_text("{}")
    with pytest.raises(DataError, match=r"rows\.json: neither a folder nor one of \.csv, \.csv\.gz, \.parquet"):
        compare(tmp_path / "rows.json", june)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n")[:-9])
    with pytest.raises(DataError, match=r"cut\.csv\.gz cannot be read"):
        compare(tmp_path / "cut.csv.gz", june)
    (tmp_path / "twice.csv").write_text("a,b,,a,\n1,2,3,4,5\n")
    with pytest.raises(DataError, match=r"twice\.csv cannot be read: column 'a' is there twice, rename one of them"):
        compare(tmp_path / "twice.csv", june)
    with pytest.raises(DataError, match=r"File name too long"):
        compare(tmp_path / ("x" * 300 + ".parquet"), june)


def test_how_far_it_is_with_files_of_text_can_be_seen(june: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    rows(300).to_csv(tmp_path / "old.csv", index=False)
    rows(300, seed=1).to_csv(tmp_path / "new.csv", index=False)
    compare(tmp_path / "new.csv", tmp_path / "old.csv", progress=lambda *one: told.append(one))
    assert told == [
        *((done, 2, "files opened") for done in (0, 1, 2)),
        *((done, 1, "profile of old.csv") for done in (0, 1)),
        *((done, 1, "counts of new.csv") for done in (0, 1)),
    ]


def test_a_ledger_that_cannot_be_opened_is_told(june: Path, tmp_path: Path, stores: Stores) -> None:
    asked = policy(model="churn")
    with pytest.raises(LedgerError, match=r"BACKSTOP_LEDGER"):
        compare(june, policy=asked, stores=replace(stores, ledger="nonsense"))
