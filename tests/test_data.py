"""Reading, checking and dividing rows; every problem is told at once, with the column and the remedy."""

from __future__ import annotations

import math
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import END, START, policy, rows

from tasks import data, upstream
from tasks import profile as profiles
from tasks.columns import tidy
from tasks.data import DataError, Dataset, NothingNew, fingerprint, load, split, validate
from tasks.policy import Policy
from tasks.policy_file import load as load_policy
from tasks.records import Profile, Span
from tasks.stores import Stores


@pytest.fixture
def place(tmp_path: Path) -> Stores:
    return Stores.at(tmp_path / "home")


def read(of: Policy, place: Stores, start: datetime = START, end: datetime = END) -> Dataset:
    return load(of, place, start=start, end=end)


def csv(tmp_path: Path, frame: pd.DataFrame) -> Path:
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)
    return path


def problems_of(of: Policy, place: Stores) -> str:
    """Everything that loading and validating complain about."""
    with pytest.raises(DataError) as told:
        validate(read(of, place), of)
    assert str(told.value) == "\n".join(told.value.problems)
    return str(told.value)


# --- Sources -------------------------------------------------------------------------------------------------------


def sqlite(tmp_path: Path, frame: pd.DataFrame, column_type: str = "TEXT") -> str:
    path = tmp_path / f"{column_type}.db"
    with sqlite3.connect(path) as connection:
        names = ", ".join(f"{name} {column_type if name == 'at' else ''}" for name in frame.columns)
        connection.execute(f"CREATE TABLE customers ({names})")
        marks = ", ".join("?" * len(frame.columns))
        connection.executemany(f"INSERT INTO customers VALUES ({marks})", frame.astype(object).to_numpy().tolist())
    connection.close()
    return f"sqlite:///{path}"


def test_every_kind_of_source_gives_the_same_rows(tmp_path: Path, place: Stores) -> None:
    frame = rows()
    parquet = tmp_path / "rows.parquet"
    frame.assign(at=pd.to_datetime(frame["at"])).to_parquet(parquet)
    sql = sqlite(tmp_path, frame)
    start, end = START + timedelta(hours=10), START + timedelta(hours=110)
    query = "SELECT * FROM customers WHERE at >= :start AND at < :end"
    found = {
        "loader": read(policy(), place, start, end),
        "csv": read(policy(csv(tmp_path, frame), model="csv"), place, start, end),
        "parquet": read(policy(parquet, model="parquet"), place, start, end),
        "table": read(policy(sql, data={"table": "customers"}), place, start, end),
        "query": read(policy(sql, data={"query": query}), place, start, end),
    }
    assert {name: len(dataset) for name, dataset in found.items()} == dict.fromkeys(found, 100)
    assert len({fingerprint(dataset) for dataset in found.values()}) == 1
    assert list(found["csv"].features.columns) == ["size", "plan", "noise"]


def test_only_rows_of_the_window_come_back_start_included_end_not(place: Stores) -> None:
    dataset = read(policy(), place, START + timedelta(hours=1), START + timedelta(hours=3))
    assert dataset.time.tolist() == [pd.Timestamp(START + timedelta(hours=hour)) for hour in (1, 2)]


@pytest.mark.parametrize("column_type", ["TEXT", "DATETIME", "TIMESTAMP"])
@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f"])
def test_sqlite_timestamps_are_read_in_whatever_form_they_were_stored(
    tmp_path: Path, place: Stores, column_type: str, form: str
) -> None:
    frame = rows(100)
    frame["at"] = pd.to_datetime(frame["at"]).dt.strftime(form)
    url = sqlite(tmp_path, frame, column_type)
    of = policy(url, data={"table": "customers", "timezone": "UTC"})
    assert len(read(of, place, START + timedelta(hours=20), START + timedelta(hours=50))) == 30


def test_a_timezone_of_the_policy_is_applied_to_naive_moments_only(tmp_path: Path, place: Stores) -> None:
    frame = rows(3).assign(at=["2024-06-01 12:00", "2024-06-01 12:00+00:00", "2024-06-01T12:00:00Z"])
    dataset = read(policy(csv(tmp_path, frame), data={"timezone": "Europe/Berlin"}), place)
    assert [moment.hour for moment in dataset.time] == [10, 12, 12]


def test_a_naive_timestamp_is_refused_with_its_column_value_and_remedy(tmp_path: Path, place: Stores) -> None:
    frame = rows(5).assign(at=["2024-01-02 03:04:05"] * 5)
    said = problems_of(policy(csv(tmp_path, frame)), place)
    assert "'at'" in said
    assert "2024-01-02T03:04:05" in said
    assert "data.timezone" in said


@pytest.mark.parametrize(
    ("value", "said"),
    [("", "is empty in 1 rows"), ("yesterday", "'yesterday' in row 3"), ("31/12/2024", "'31/12/2024' in row 3")],
)
def test_a_timestamp_that_is_none_is_named_with_its_row(tmp_path: Path, place: Stores, value: str, said: str) -> None:
    frame = rows(5)
    frame.loc[2, "at"] = value
    assert said in problems_of(policy(csv(tmp_path, frame)), place)


def test_numbers_are_not_taken_for_moments(tmp_path: Path, place: Stores) -> None:
    frame = rows(5).assign(at=range(5))
    assert "holds numbers" in problems_of(policy(csv(tmp_path, frame)), place)


def test_an_order_is_read_as_time_by_column_or_by_row(tmp_path: Path, place: Stores) -> None:
    frame = rows(50).assign(at=range(50))
    path = csv(tmp_path, frame.iloc[::-1])
    order: dict[str, Any] = {"start": "2024-01-01", "step": "1d"}
    by_column = read(policy(path, data={"timestamp": {**order, "column": "at"}, "history": False}), place)
    by_row = read(policy(path, data={"timestamp": order, "history": False}), place)
    assert by_column.time[1] == pd.Timestamp("2024-01-02", tz="UTC")
    assert by_column.features["size"].tolist() == frame["size"].tolist()
    assert by_row.features["size"].tolist() == frame["size"].tolist()[::-1]
    late = datetime(2024, 2, 10, tzinfo=UTC)
    for column_type in ("INTEGER", "TEXT"):  # as text "9" would come after "40"
        url = sqlite(tmp_path, frame, column_type)
        sql = policy(url, data={"table": "customers", "timestamp": {**order, "column": "at"}})
        assert len(read(sql, place, start=late)) == 10


def test_equal_moments_keep_the_order_of_the_source(tmp_path: Path, place: Stores) -> None:
    frame = rows(40).assign(at=[START.isoformat()] * 20 + [(START - timedelta(days=1)).isoformat()] * 20)
    dataset = read(policy(csv(tmp_path, frame)), place, START - timedelta(days=9))
    assert dataset.features["size"].tolist() == [*frame["size"][20:], *frame["size"][:20]]


# --- What can go wrong with a source -------------------------------------------------------------------------------


def test_a_missing_file_or_database_is_named_and_not_created(tmp_path: Path, place: Stores) -> None:
    assert "no file" in problems_of(policy(tmp_path / "no.csv"), place)
    missing = tmp_path / "no.db"
    assert str(missing) in problems_of(policy(f"sqlite:///{missing}", data={"table": "t"}), place)
    assert not missing.exists()


def test_an_unknown_table_is_answered_with_those_that_are_there(tmp_path: Path, place: Stores) -> None:
    said = problems_of(policy(sqlite(tmp_path, rows(3)), data={"table": "custommers"}), place)
    assert "did you mean 'customers'" in said


def test_a_query_that_fails_is_told_in_the_databases_own_words(tmp_path: Path, place: Stores) -> None:
    url = sqlite(tmp_path, rows(3))
    assert "no such table: nowhere" in problems_of(policy(url, data={"query": "SELECT * FROM nowhere"}), place)


def test_a_window_without_rows_is_empty_and_no_crash(tmp_path: Path, place: Stores) -> None:
    url = sqlite(tmp_path, rows(3))
    assert len(read(policy(url, data={"table": "customers"}), place, END, END + timedelta(days=1))) == 0


def test_an_unreachable_database_is_a_problem_that_shows_no_password(place: Stores) -> None:
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:9/db?sslpassword=hunter3&connect_timeout=2"
    said = problems_of(policy(url, data={"table": "t"}), place)
    assert "127.0.0.1" in said
    assert "hunter" not in said


def test_a_secret_from_the_environment_is_not_repeated(place: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_SOURCE", "hunter2@127.0.0.1")
    said = problems_of(policy("postgresql+psycopg://${SECRET_SOURCE}:9/db", data={"table": "t"}), place)
    assert "hunter2" not in said
    assert "${SECRET_SOURCE}" in said
    monkeypatch.delenv("SECRET_SOURCE")
    assert "SECRET_SOURCE is not set" in problems_of(policy("${SECRET_SOURCE}.csv"), place)


def test_a_loader_that_fails_or_returns_something_else_is_named(place: Stores) -> None:
    assert "the warehouse is closed" in problems_of(policy("samples:broken_loader"), place)
    assert "returned list" in problems_of(policy("samples:list_loader"), place)


def test_every_unknown_column_is_told_at_once_with_near_matches(place: Stores) -> None:
    data = {"target": "lefd", "drop": ["idd"], "categorical": ["plann"], "key": ["nokey"], "trusted": ["tru"]}
    said = problems_of(policy(data=data), place)
    for name, hint in (("lefd", "'left'"), ("idd", "'id'"), ("plann", "'plan'"), ("nokey", ""), ("tru", "")):
        assert f"{name!r}" in said
        assert hint in said


# --- Columns -------------------------------------------------------------------------------------------------------


def test_blank_strings_are_nulls_and_the_rest_of_the_column_numbers() -> None:
    frame = tidy(pd.DataFrame({"total": ["29.85", " ", "", "1889.5"], "word": ["a", " ", "NA", "b"]}))
    assert frame["total"].tolist()[0] == 29.85
    assert frame["total"].isna().tolist() == [False, True, True, False]
    assert frame["word"].tolist() == ["a", None, "NA", "b"]  # NA is a word among words ...
    assert tidy(pd.DataFrame({"x": ["1", "NA", "n/a"]}))["x"].isna().tolist() == [False, True, True]  # not here


def test_codes_are_the_same_text_whether_they_came_as_whole_numbers_or_with_nulls() -> None:
    frame = pd.DataFrame({"a": [1, 2, 1], "b": [1.0, np.nan, 2.0], "c": ["1.0", None, "2.0"], "d": ["01", "2", "x"]})
    made = tidy(frame, text={"a", "b", "c", "d"})
    assert [made[name].tolist() for name in "abcd"] == [
        ["1", "2", "1"],
        ["1", None, "2"],
        ["1", None, "2"],
        ["01", "2", "x"],
    ]


def test_booleans_and_moments_become_numbers_and_long_identifiers_stay_exact() -> None:
    frame = pd.DataFrame({"b": [True, False], "t": pd.to_datetime(["1970-01-02", None]), "i": [2**60, 2**60 + 1]})
    made = tidy(frame)
    assert made["b"].tolist() == [1.0, 0.0]
    assert made["t"].tolist()[0] == 1.0
    assert made["i"].tolist() == [str(2**60), str(2**60 + 1)]


def test_a_column_is_of_one_kind_whatever_it_mixes() -> None:
    made = tidy(pd.DataFrame({"x": pd.Series([1, "two", None, 3.0], dtype=object)}))
    assert made["x"].tolist() == ["1", "two", None, "3"]


def test_leading_zeros_of_a_code_survive_a_csv_file(tmp_path: Path, place: Stores) -> None:
    frame = rows(30).assign(zip=["01234"] * 30)
    dataset = read(policy(csv(tmp_path, frame), data={"categorical": ["zip"]}), place)
    assert set(dataset.features["zip"]) == {"01234"}


# --- Validation ----------------------------------------------------------------------------------------------------


def test_good_rows_are_valid(place: Stores) -> None:
    validate(read(policy(), place), policy())


def test_all_problems_are_told_at_once(tmp_path: Path, place: Stores) -> None:
    frame = rows(150).assign(empty=None, far=[np.inf] + [1.0] * 149)
    frame["left"] = "maybe"
    frame = pd.concat([frame, frame.head(3)])
    said = problems_of(policy(csv(tmp_path, frame), data={"key": ["id"]}), place)
    for part in ("'empty' is empty", "'far' is infinite", "only one class: maybe", "min_rows", "3 rows repeat"):
        assert part in said, part


def test_a_column_of_lists_is_named_with_the_remedy_and_may_be_dropped(tmp_path: Path, place: Stores) -> None:
    path = tmp_path / "rows.parquet"
    rows().assign(tags=[[1, 2]] * 300 + [None] * 300, parts=[{"a": 1}] * 600).to_parquet(path)
    said = problems_of(policy(path, data={"drop": ["id", "amount", "size_"]}), place)
    assert "column 'tags' holds values of type ndarray, which are no single values" in said
    assert "column 'parts' holds values of type" in said
    assert "did you mean 'size'" in said  # everything at once
    of = policy(path, data={"drop": ["id", "amount", "tags", "parts"]})
    dataset = read(of, place)
    validate(dataset, of)
    assert list(dataset.features) == ["size", "plan", "noise"]
    assert "column 'tags' holds values" in problems_of(policy(path, data={"key": ["tags"]}), place)


def test_rows_that_are_longer_than_the_header_are_refused_and_not_moved(tmp_path: Path, place: Stores) -> None:
    (tmp_path / "rows.csv").write_text("at,left,size\n2024-01-01,yes,1,9\n2024-01-02,no,2,9\n")
    with pytest.raises(DataError, match=r"rows\.csv cannot be read: .*it must be CSV with a header line"):
        read(policy(tmp_path / "rows.csv", data={"drop": []}), place)


def test_a_type_that_pandas_cannot_read_back_is_told_of_the_file(tmp_path: Path, place: Stores) -> None:
    structs = pd.Series([{"a": 1}] * 600, dtype=pd.ArrowDtype(pa.struct({"a": pa.int64()})))
    rows().assign(parts=structs).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read: .*struct.*; it must be Parquet"):
        read(policy(tmp_path / "rows.parquet"), place)


def test_exact_repeats_are_refused_dropped_or_kept_as_the_policy_says(tmp_path: Path, place: Stores) -> None:
    frame = rows()
    path = csv(tmp_path, pd.concat([frame, frame.tail(5)]))
    assert "5 rows repeat another one exactly" in problems_of(policy(path), place)
    for choice, n in (("drop", 600), ("keep", 605)):
        of = policy(path, data={"duplicates": choice})
        dataset = read(of, place)
        validate(dataset, of)
        assert len(dataset) == n


def test_rows_that_differ_in_a_dropped_column_only_are_no_repeats(tmp_path: Path, place: Stores) -> None:
    frame = rows()
    again = frame.tail(5).assign(id=[f"other{number}" for number in range(5)])
    of = policy(csv(tmp_path, pd.concat([frame, again])))
    validate(read(of, place), of)


VALUES = {
    "number": st.sampled_from([0.0, -0.0, 1.5, math.nan, math.inf, 2.0, 3.0]),
    "text": st.sampled_from(["a", "b", None, "", "c", "d"]),
    "other": st.floats(allow_nan=True),
}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.fixed_dictionaries(VALUES), max_size=40), st.integers(0, 3))
def test_repeats_are_those_that_pandas_finds_in_all_columns(made: list[dict[str, Any]], again: int) -> None:
    frame = pd.DataFrame([*made, *made[:again]], columns=list(VALUES)).astype({"text": object})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_SEEN", 4)
        np.testing.assert_array_equal(data.repeated(frame), frame.duplicated().to_numpy())
        np.testing.assert_array_equal(data.repeated(frame[["text"]]), frame.duplicated(subset=["text"]).to_numpy())


def test_a_repeated_key_is_told_with_the_key(tmp_path: Path, place: Stores) -> None:
    frame = rows()
    frame.loc[7, "id"] = "c00003"
    said = problems_of(policy(csv(tmp_path, frame), data={"key": ["id"]}), place)
    assert "1 rows repeat the key id" in said
    assert "c00003" in said


@pytest.mark.parametrize(
    ("change", "data", "said"),
    [
        ({"left": None}, {}, "is empty in all"),
        ({"left": ["a", "b", "c"] * 200}, {}, "has 3 classes"),
        ({}, {"positive": "Yes"}, "did you mean 'yes'"),
        ({"at": START.isoformat()}, {"duplicates": "keep"}, "have the same moment"),
        ({}, {"drop": ["id", "amount", "size", "plan", "noise"]}, "no column is left"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, place: Stores, change: dict[str, Any], data: dict[str, Any], said: str
) -> None:
    assert said in problems_of(policy(csv(tmp_path, rows().assign(**change)), data=data), place)


@pytest.mark.parametrize(
    ("amount", "said"), [("much", "no number"), (np.inf, "infinite in 1 rows"), (None, "is 2 in every labelled row")]
)
def test_a_regression_target_must_be_numbers_that_differ(tmp_path: Path, place: Stores, amount: Any, said: str) -> None:
    frame = rows()
    frame["amount"] = frame["amount"].astype(object) if amount is not None else 2.0
    frame.loc[4, "amount"] = amount
    assert said in problems_of(policy(csv(tmp_path, frame), problem="regression"), place)


def test_an_empty_window_is_refused(place: Stores) -> None:
    with pytest.raises(DataError, match="no rows"):
        validate(read(policy(), place, END, END + timedelta(days=1)), policy())


def test_labels_keep_their_type_and_rows_without_one_are_not_labelled(tmp_path: Path, place: Stores) -> None:
    frame = rows(400).assign(left=([1, 0] * 200))
    frame["left"] = frame["left"].astype(float)
    frame.loc[399, "left"] = np.nan
    dataset = read(policy(csv(tmp_path, frame)), place)
    assert dataset.target.tolist()[:2] == [1, 0]
    assert isinstance(dataset.target[0], int)
    assert dataset.target[399] is None
    assert (len(dataset), len(dataset.labelled)) == (400, 399)


# --- Leaks ---------------------------------------------------------------------------------------------------------


def leaking(kind: str) -> pd.DataFrame:
    frame, draw = rows(), np.random.default_rng(3)
    yes = (frame["left"] == "yes").to_numpy()
    columns: dict[str, Any] = {
        "copy": np.where(yes, 1.0, 0.0),
        "word": np.where(yes, "gone", "here"),
        "nulls": np.where(yes, np.nan, draw.normal(size=len(frame))),
        "far": np.where(yes, 1, -1) * (1 + draw.random(len(frame))),
        "two sided": np.where(yes, draw.normal(size=len(frame)) * 0.1, 5 * np.sign(draw.normal(size=len(frame)))),
    }
    return frame.assign(leak=columns[kind])


@pytest.mark.parametrize("kind", ["copy", "word", "nulls", "far", "two sided"])
def test_a_column_that_alone_knows_the_label_is_refused_in_whatever_form(
    tmp_path: Path, place: Stores, kind: str
) -> None:
    path = csv(tmp_path, leaking(kind))
    said = problems_of(policy(path), place)
    assert "column 'leak' alone tells the target" in said
    trusting = policy(path, data={"trusted": ["leak"]})
    validate(read(trusting, place), trusting)


def test_the_parts_of_a_sum_are_leaks_of_a_regression(tmp_path: Path, place: Stores) -> None:
    frame = rows()
    frame = frame.assign(cents=frame["amount"] * 100 + 7)
    assert "'cents' alone" in problems_of(policy(csv(tmp_path, frame), problem="regression"), place)


def test_an_identifier_and_a_good_but_honest_column_are_no_leaks(tmp_path: Path, place: Stores) -> None:
    of = policy(csv(tmp_path, rows()), data={"drop": ["amount"]})
    validate(read(of, place), of)


def test_two_positives_are_too_few_to_call_a_column_a_leak(tmp_path: Path, place: Stores) -> None:
    frame = rows().assign(left="no", luck=0.0)
    frame.loc[[100, 200, 500], "left"] = "yes"
    frame.loc[[100, 200, 500], "luck"] = 1.0
    of = policy(csv(tmp_path, frame))
    validate(read(of, place), of)


# --- Splitting -----------------------------------------------------------------------------------------------------


def test_the_newest_share_is_the_holdout(place: Stores) -> None:
    parts = split(read(policy(), place), policy(), trained_until=None)
    assert (len(parts.train), len(parts.holdout)) == (480, 120)
    assert parts.train.time.max() < parts.holdout.time.min()


def test_rows_of_one_moment_never_lie_on_both_sides(tmp_path: Path, place: Stores) -> None:
    days = [(START + timedelta(days=number // 50)).isoformat() for number in range(600)]
    dataset = read(policy(csv(tmp_path, rows().assign(at=days))), place)
    parts = split(dataset, policy(), trained_until=None)
    assert len(parts.holdout) in {100, 150}
    assert not set(parts.train.time) & set(parts.holdout.time)


def test_the_holdout_has_no_row_that_production_has_seen(place: Stores) -> None:
    dataset = read(policy(), place)
    until = START + timedelta(hours=495)
    parts = split(dataset, policy(data={"min_holdout": 50}), trained_until=until)
    assert parts.holdout.time.min() == pd.Timestamp(until)
    assert (len(parts.train), len(parts.holdout)) == (495, 105)
    early = split(dataset, policy(), trained_until=START + timedelta(hours=100))
    assert len(early.holdout) == 120


def test_nothing_new_says_how_many_rows_are_missing(place: Stores) -> None:
    with pytest.raises(NothingNew, match=r"only 37 labelled rows are newer .* 100 are needed"):
        split(read(policy(), place), policy(), trained_until=START + timedelta(hours=563))
    with pytest.raises(NothingNew, match="only 0 labelled rows"):
        split(read(policy(), place), policy(), trained_until=END)


def test_unlabelled_rows_are_in_neither_part(tmp_path: Path, place: Stores) -> None:
    frame = rows()
    frame.loc[frame.index % 3 == 0, "left"] = None
    parts = split(
        read(policy(csv(tmp_path, frame), data={"min_holdout": 50}), place),
        policy(data={"min_holdout": 50}),
        trained_until=None,
    )
    assert len(parts.train) + len(parts.holdout) == 400
    assert parts.train.target.notna().all()
    assert parts.holdout.target.notna().all()


# --- Fingerprint, windows, schema ----------------------------------------------------------------------------------


def test_the_fingerprint_depends_on_every_value_and_on_no_accidental_order(tmp_path: Path, place: Stores) -> None:
    same_time = rows(60).assign(at=START.isoformat())
    of = policy(csv(tmp_path, same_time), data={"history": False})
    known = fingerprint(read(of, place))
    csv(tmp_path, same_time.sample(frac=1, random_state=1)[list(reversed(same_time.columns))])
    assert fingerprint(read(of, place)) == known
    for column, value in (("size", 0.123), ("plan", "other"), ("plan", None), ("left", None)):
        changed = same_time.copy()
        changed.loc[30, column] = value
        csv(tmp_path, changed)
        assert fingerprint(read(of, place)) != known, column


def test_the_fingerprint_is_the_same_on_every_machine(place: Stores) -> None:
    dataset = Dataset(
        features=pd.DataFrame({"x": [1.0, np.nan], "w": pd.Series(["a", None], dtype=object)}),
        target=pd.Series([1, None], dtype=object),
        time=pd.DatetimeIndex(["2024-01-01", "2024-01-02"], tz="UTC"),
    )
    assert fingerprint(dataset) == "580c1ac59f6d8631c8991450ed8ab35c9a887ef733a6def36df8de63ce353cb1"


def test_between_refuses_naive_moments(place: Stores) -> None:
    dataset = read(policy(), place)
    assert len(dataset.between(START, START + timedelta(hours=5))) == 5
    assert len(dataset.between(END, START)) == 0
    with pytest.raises(ValueError, match="no time zone"):
        dataset.between(datetime(2024, 1, 1), END)  # noqa: DTZ001  naive on purpose


def profile(dataset: Dataset) -> Profile:
    span = Span(start=START, end=END)
    return Profile(
        columns=profiles.describe(dataset.features),
        prediction=None,
        metrics=(),
        rows=len(dataset),
        labelled=len(dataset),
        trained_at=END,
        trained=span,
        holdout=span,
        fingerprint="",
    )


def upstream_changes(recent: Dataset, profile: Profile) -> tuple[str, ...]:
    return upstream.changes(recent.features, profile.columns, profiles.count(recent.features, profile.columns))


def changed(dataset: Dataset, **columns: Any) -> Dataset:
    features = tidy(dataset.features.assign(**columns))
    return Dataset(features=features, target=dataset.target, time=dataset.time)


def test_unchanged_columns_and_no_rows_give_no_schema_change(place: Stores) -> None:
    dataset = read(policy(), place)
    assert upstream_changes(dataset, profile(dataset)) == ()
    assert upstream_changes(dataset.take(slice(0, 0)), profile(dataset)) == ()
    assert upstream_changes(dataset.take(slice(0, 3)), profile(dataset)) == ()


def test_schema_changes_are_named_one_sentence_each(place: Stores) -> None:
    dataset = read(policy(), place)
    words = ["basic"] * 540 + ["ultra"] * 60
    recent = changed(dataset, plan=words, size=["big"] * 600, fresh=1.0)
    recent = Dataset(features=recent.features.drop(columns="noise"), target=recent.target, time=recent.time)
    found = upstream_changes(recent, profile(dataset))
    assert len(found) == 4
    for part in ("'noise' is gone", "'fresh' is new", "'size' was a number and is a category now", "'ultra' in 10%"):
        assert any(part in sentence for sentence in found), part


def test_a_column_of_nulls_has_not_changed_its_kind(place: Stores) -> None:
    dataset = read(policy(), place)
    assert upstream_changes(changed(dataset, plan=None), profile(dataset)) == ()


def test_many_categories_that_did_not_change_are_no_change_however_many_columns_there_are(place: Stores) -> None:
    several, rng, noticed = read(policy(), place).take(slice(0, 100)), np.random.default_rng(0), 0

    def words(like: Dataset) -> Dataset:
        drawn = rng.integers(0, 30, (20, len(like)))
        features = pd.DataFrame({f"x{number}": [f"v{kind}" for kind in one] for number, one in enumerate(drawn)})
        return Dataset(features=tidy(features), target=like.target, time=like.time)

    for _ in range(30):
        noticed += bool(upstream_changes(words(several), profile(words(several))))
    assert noticed <= 1


def test_of_a_table_with_new_names_each_column_is_told_and_the_first_ones_are_told_apart(place: Stores) -> None:
    """Whoever compared each lost column with each new one would take a minute for three thousand of them."""
    several = read(policy(), place).take(slice(0, 50))
    wide = pd.DataFrame({f"customer_feature_{number}": np.arange(50.0) for number in range(300)})
    before = Dataset(features=wide, target=several.target, time=several.time)
    renamed = wide.rename(columns=lambda name: name.replace("feature", "input"))
    after = Dataset(features=renamed, target=several.target, time=several.time)
    found = upstream_changes(after, profile(before))
    for what in (" is gone", " is new"):
        assert len([one for one in found if what in one]) == 20
    assert [one for one in found if "column '" not in one] == ["280 more columns are gone", "280 more columns are new"]
    assert found[0] == "column 'customer_feature_0' is gone; did you mean 'customer_input_0'?"
    assert len([one for one in found if "did you mean" in one]) == 5


def test_what_became_infinite_is_told_with_its_share(place: Stores) -> None:
    dataset = read(policy(), place)
    noise = dataset.features["noise"].to_numpy(copy=True)
    noise[: len(noise) // 4] = np.inf
    assert upstream_changes(changed(dataset, noise=noise), profile(dataset)) == (
        "column 'noise' is infinite in 25% of rows, where it was in 0%",
    )


def test_a_rare_new_category_is_no_change(place: Stores) -> None:
    dataset = read(policy(), place)
    words = [*dataset.features["plan"][:598], "ultra", "ultra"]
    assert upstream_changes(changed(dataset, plan=words), profile(dataset)) == ()


# --- Real data -----------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "n", "begin"), [("bike", 17_379, 2010), ("telco", 7_043, 2023), ("weather", 18_159, 1948)]
)
def test_the_public_data_sets_are_read_and_valid(
    public_data: Path, place: Stores, name: str, n: int, begin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_TEST_DATA", str(public_data))
    of = load_policy(Path(__file__).parent.parent / "policies" / f"{name}.yaml")
    dataset = read(of, place, datetime(begin, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
    validate(dataset, of)
    assert len(dataset) == n
    if name == "telco":
        assert int(dataset.features["TotalCharges"].isna().sum()) == 11  # blanks in the file


@pytest.mark.data
def test_a_copy_of_the_bike_counts_is_found_to_be_a_leak(
    public_data: Path, place: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_TEST_DATA", str(public_data))
    of = load_policy(Path(__file__).parent.parent / "policies" / "bike.yaml")
    frame = pd.read_csv(public_data / "bike_sharing.csv").assign(twice=lambda rows: rows["cnt"] * 2)
    path = place.home.parent / "bike.csv"
    frame.to_csv(path, index=False)
    of = of.model_copy(update={"data": of.data.model_copy(update={"source": str(path)})})
    dataset = read(of, place, datetime(2011, 1, 1, tzinfo=UTC), datetime(2012, 1, 1, tzinfo=UTC))
    with pytest.raises(DataError, match="'twice' alone"):
        validate(dataset, of)
