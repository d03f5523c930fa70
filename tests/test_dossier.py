"""A dossier: what a verdict rested on comes back to the last bit, and nothing else is ever built from it."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import pickle
import struct
import subprocess
import sys
import types
import typing
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tasks import dossier, policy
from tasks.dossier import Dossier, TooNew, Unreadable, pack, unpack
from tasks.records import Finding, Look, Scores, ShadowEvidence, Span

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
KINDS = ("?", "<i1", "<i4", "<i8", "<u2", "<f4", "<f8")


def there_and_back(value: Any) -> Any:
    return unpack(pack(Dossier("gate", {"it": value}))).given["it"]


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Values that a field of a record may have."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in {typing.Union, types.UnionType}:
        return st.one_of(*map(anything, inner))
    if kind is typing.Literal:
        return st.sampled_from(inner)
    if kind is tuple:
        return (
            st.lists(anything(inner[0]), max_size=3).map(tuple)
            if inner[-1] is ...
            else st.tuples(*map(anything, inner))
        )
    if dataclasses.is_dataclass(kind):
        return of(kind)
    return PLAIN[kind]


def of(record: Any) -> st.SearchStrategy[Any]:
    fields = {name: st.deferred(lambda hint=hint: anything(hint)) for name, hint in dossier._hints(record).items()}
    return st.builds(record, **fields)


MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | MOMENTS
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    int: st.integers(),
    float: st.floats(),
    bool: st.booleans(),
    type(None): st.none(),
    datetime: MOMENTS,
    np.ndarray: st.sampled_from(KINDS).flatmap(
        lambda kind: arrays.arrays(np.dtype(kind), arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=4))
    ),
    Any: st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.tuples(inner), max_leaves=3),
    Mapping: st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
}


def exactly(value: Any) -> Any:
    """In a form in which equal means the same to the last bit; every NaN is the same."""
    if isinstance(value, float):
        return (type(value), "nan" if math.isnan(value) else struct.pack("<d", value))
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if dataclasses.is_dataclass(value):
        return (type(value), [exactly(getattr(value, one.name)) for one in dataclasses.fields(value)])
    if isinstance(value, list | tuple):
        return (type(value), [exactly(one) for one in value])
    if isinstance(value, dict):
        return {key: exactly(one) for key, one in value.items()}
    if isinstance(value, datetime):
        return (value.isoformat(), value.utcoffset())
    return (type(value), value)


# There and back.


@pytest.mark.parametrize("record", sorted(dossier._RECORDS.values(), key=lambda one: one.__name__))
def test_a_record_comes_back_to_the_last_bit(record: type[Any]) -> None:
    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(given_one=of(record))
    def holds(given_one: Any) -> None:
        back = there_and_back(given_one)
        assert exactly(back) == exactly(given_one)
        assert pack(Dossier("gate", {"it": back})) == pack(Dossier("gate", {"it": given_one}))

    holds()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(value=st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner)))
def test_whatever_plain_values_an_own_check_puts_down_come_back(value: Any) -> None:
    assert exactly(there_and_back(value)) == exactly(value)


def test_a_key_that_looks_like_a_mark_of_the_format_is_only_a_key() -> None:
    value = {"~record": "Span", "~array": "<f8", "fields": {}}
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "section",
    [
        policy.Triggers(),
        policy.Triggers(
            retrain_when="age or (drift and performance)",
            age=timedelta(days=1, microseconds=1),
            drift=policy.DriftTrigger(psi=0.1 + 0.2),
            performance=policy.PerformanceTrigger(metric="samples:loader", relative_drop=1 / 3, floor=0.75),
            prediction=None,
            volume=None,
            upstream=False,
        ),
        policy.Gate(),
        policy.Gate(performance=None, regression=None, stability=None, latency=None, size=None, fresh_process=False),
        policy.Gate(size=1, checks=("checks:content",), performance=policy.PerformanceCheck(at_least=1 / 3)),
        policy.Shadow(tolerate=1 / 3),
        policy.Health(),
        policy.Health(error_rate=None, latency_p95=None, accuracy=None, silence=timedelta(seconds=1.5)),
        policy.Health(prometheus=policy.Prometheus(url="${PROMETHEUS_URL}")),
        policy.Rollout(router=policy.Router(kserve=policy.Kserve(service="churn", timeout=timedelta(seconds=1)))),
    ],
)
def test_a_section_of_the_policy_comes_back_as_it_was(section: Any) -> None:
    back = there_and_back(section)
    assert type(back) is type(section)
    assert back == section


def test_numbers_of_numpy_come_back_as_numbers() -> None:
    given_ones = {"a": np.float64(0.1), "b": np.float32(0.1), "c": np.int64(2**53 + 1), "d": np.bool_(1)}
    back = there_and_back(given_ones)
    assert back == {"a": 0.1, "b": float(np.float32(0.1)), "c": 2**53 + 1, "d": True}
    assert [type(one) for one in back.values()] == [float, float, int, bool]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_same_evidence_has_the_same_bytes_however_it_lies_in_memory(order: Any) -> None:
    rows = np.random.default_rng(0).random((50, 3))
    turned = rows[::-1].copy()[::-1]
    both = (rows.astype(rows.dtype, order=order), rows.astype(">f8"), turned)
    assert len({pack(Dossier("gate", {"b": 1, "a": one})) for one in (rows, *both)}) == 1
    assert pack(Dossier("gate", {"a": rows, "b": 1})) == pack(Dossier("gate", {"b": 1, "a": rows}))


def test_half_of_a_binary_probability_is_kept_only_where_it_says_everything() -> None:
    second = np.random.default_rng(0).random(1000)
    mirrored = np.column_stack((1.0 - second, second))
    nearly = mirrored.copy()
    nearly[7, 0] = np.nextafter(nearly[7, 0], 2)
    zero = np.array([[-0.0, 1.0], [0.5, 0.5]])
    missing = np.array([[math.nan, math.nan], [0.5, 0.5]])
    for one in (mirrored, nearly, zero, missing):
        assert exactly(there_and_back(one)) == exactly(one)
    size = {name: len(pack(Dossier("gate", {"it": one}))) for name, one in (("half", mirrored), ("all", nearly))}
    assert size["half"] < 0.6 * size["all"]


@pytest.mark.parametrize("most", [0, 127, 128, -129, 2**15, 2**31 - 1, 2**31, -(2**63)])
def test_whole_numbers_take_as_few_bytes_as_they_need_and_come_back_as_they_were(most: int) -> None:
    given_ones = np.array([most, 0, 1, 1], dtype=np.int64)
    back = there_and_back(given_ones)
    assert (back.dtype, back.tolist()) == (given_ones.dtype, given_ones.tolist())
    assert pack(Dossier("gate", {"it": given_ones})) == pack(Dossier("gate", {"it": given_ones.astype(">i8")}))
    codes = np.random.default_rng(0).integers(0, 2, 10_000)
    assert len(pack(Dossier("gate", {"it": codes}))) < 3_000


def test_evidence_of_the_first_format_can_still_be_read() -> None:
    plain = {"~array": "<i8", "shape": [2], "data": base64.b64encode(np.array([1, 2]).tobytes()).decode("ascii")}
    assert unpack(body(plain, format=1)).given["it"].tolist() == [1, 2]


# Nothing else.


@pytest.mark.parametrize(
    "value",
    [np.array([object()]), np.array(["a"]), np.array([1j]), {1, 2}, object(), print, policy.Approval(), Span, b"x"],
    ids=["objects", "text", "complex", "set", "object", "function", "section", "class", "bytes"],
)
def test_what_no_judge_takes_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be kept as evidence"):
        pack(Dossier("gate", {"it": value}))


def test_a_class_that_only_has_the_name_of_a_record_is_refused() -> None:
    impostor = dataclasses.make_dataclass("Span", ["start", "end"])
    with pytest.raises(TypeError, match="Span cannot be kept"):
        pack(Dossier("gate", {"it": impostor(NOW, NOW)}))


def body(given_ones: Any, **changes: Any) -> bytes:
    plain = {"format": dossier.FORMAT, "rules": 1, "judge": "gate", "given": {"~map": {"it": given_ones}}} | changes
    return zlib.compress(json.dumps(plain).encode())


def record(name: str, /, **fields: Any) -> dict[str, Any]:
    return {"~record": name, "fields": fields}


LOOK = {"start": {"~moment": NOW.isoformat()}, "requests": 1, "errors": 0, "slow": 0, "labelled": 0, "wrong": 0}
FINDING = {"name": "a", "outcome": "ok", "reason": "r"}


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"rubbish",
        pickle.dumps({"format": 1}),
        zlib.compress(b"[]"),
        zlib.compress(b"{}"),
        zlib.compress(b"[" * 100_000),
        body(1)[:-3],
        body(1) + b"more",
        body({"~pickle": "gASV"}),
        body({"~unknown": 1}),
        body({}),
        body(record("Path", path="/etc/passwd")),
        body(record("Span", start=1, end=2)),
        body(record("Look", **LOOK, more=1)),
        body(record("Look", start=LOOK["start"])),
        body(record("Look", **LOOK | {"requests": "many"})),
        body(record("Look", **LOOK | {"requests": True})),
        body(record("Finding", **FINDING | {"outcome": "fine"})),
        body(record("Finding", **FINDING, interval={"~tuple": [1.0]})),
        body(record("Finding", **FINDING, evidence=[1])),
        body(record("Scores", truth=[1], prediction=[1])),
        body({"~section": "Approval", "fields": {}}),
        body({"~section": "Shadow", "fields": {"tolerate": 7}}),
        body({"~section": "Shadow", "fields": {"tolerated": 0.1}}),
        body({"~array": "|O", "shape": [1], "data": "AAAAAAAAAAA="}),
        body({"~array": "<f8", "shape": [2], "data": "AAAAAAAAAAA="}),
        body({"~array": "<c8", "shape": [1], "data": "AAAAAAAAAAA="}),
        body({"~array": "<i8", "kept": "|O", "shape": [1], "data": "AAAAAAAAAAA="}),
        body({"~array": "<i8", "kept": "<f8", "shape": [1], "data": "AAAAAAAAAAA="}),
        body({"~moment": "yesterday"}),
        body({"~float": [1]}),
    ],
    ids=zlib.adler32,
)
def test_bytes_that_are_no_dossier_are_told_and_build_nothing(bad: bytes) -> None:
    with pytest.raises(Unreadable, match="the evidence"):
        unpack(bad)


def test_the_frame_of_the_bad_examples_is_right_but_for_what_is_bad() -> None:
    assert unpack(body(record("Look", **LOOK))).given["it"] == Look(**LOOK | {"start": NOW})  # type: ignore[arg-type]
    assert unpack(body(record("Finding", **FINDING))).given["it"] == Finding(**FINDING)  # type: ignore[arg-type]


def test_a_later_format_is_told_as_such() -> None:
    with pytest.raises(TooNew, match=f"has format 7, and this Backstop reads {dossier.FORMAT}; update it"):
        unpack(body(1, format=7))


# What it costs.


def test_a_gate_on_20_000_rows_takes_less_than_half_a_megabyte() -> None:
    draw = np.random.default_rng(0)
    truth, second = draw.integers(0, 2, 20_000), draw.random((2, 20_000))
    both = [
        Scores(truth=truth, prediction=(one > 0.5).astype(int), probability=np.column_stack((1 - one, one)))
        for one in second
    ]
    assert len(pack(Dossier("gate", {"candidate": both[0], "production": both[1]}))) < 500_000


def test_noting_what_the_watch_saw_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys; from tasks import dossier, retrial, records, policy; from datetime import *; "
        "now = datetime.now(UTC); look = records.Look(start=now, requests=1, errors=0, slow=0, labelled=0, wrong=0); "
        "seen = records.HealthEvidence(looks=(look,), now=now, started=now, last_request=now); "
        "given = {'evidence': seen, 'rules': policy.Health(), 'problem': 'binary', 'planned_looks': 30}; "
        "one = dossier.Dossier('health', given); retrial.reach(one); dossier.pack(one); "
        "print({'pandas', 'sklearn', 'mlflow', 'prefect', 'joblib'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "set()"


def test_counts_need_no_numpy_to_be_packed() -> None:
    span = Span(start=NOW, end=NOW)
    seen = ShadowEvidence(wins=3, losses=1, ties=9, requests=20, agreements=9, failures=0, span=span)
    before = sys.modules.pop("numpy")
    try:
        sys.modules["numpy"] = None  # type: ignore[assignment]  an import would fail
        assert pack(Dossier("shadow", {"evidence": seen, "rules": policy.Shadow()}))
    finally:
        sys.modules["numpy"] = before
