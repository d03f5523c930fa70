"""Records are as dataclasses are: equal by their values, hashed by them, and readable."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import typing
from datetime import UTC, datetime

import numpy as np
import pytest

from tasks import records
from tasks.records import Finding, Record, Span, Verdict

KINDS = [one for one in vars(records).values() if dataclasses.is_dataclass(one) and isinstance(one, type)]
SPAN = Span(start=datetime(2026, 1, 5, tzinfo=UTC), end=datetime(2026, 1, 6, tzinfo=UTC))
FINDING = Finding(name="size", outcome="ok", reason="small", value=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_is_frozen_has_only_its_fields_and_is_compared_by_them(kind: type) -> None:
    assert issubclass(kind, Record)
    assert list(typing.get_type_hints(kind, localns={"np": np})) == [field.name for field in dataclasses.fields(kind)]
    assert kind.__slots__ == tuple(field.name for field in dataclasses.fields(kind))  # type: ignore[attr-defined]
    assert (kind.__eq__, kind.__hash__, kind.__repr__) == (Record.__eq__, Record.__hash__, Record.__repr__)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert not hasattr(object.__new__(kind), "__dict__")


def test_records_are_equal_by_their_values_and_their_kind() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Other:
        start: datetime
        end: datetime

    assert Span(start=SPAN.start, end=SPAN.end) == SPAN
    assert hash(Span(start=SPAN.start, end=SPAN.end)) == hash(SPAN)
    assert dataclasses.replace(SPAN, end=SPAN.start) != SPAN
    assert Other(start=SPAN.start, end=SPAN.end) != SPAN
    assert (SPAN.start, SPAN.end) != SPAN
    assert {SPAN: 1}[copy.copy(SPAN)] == 1
    assert pickle.loads(pickle.dumps(FINDING)) == FINDING  # noqa: S301 - it wrote them itself


def test_a_record_is_written_as_one_would_write_it_down() -> None:
    verdict = Verdict(judge="gate", decision="pass", reason="it is good", findings=(FINDING,))
    assert repr(verdict) == (
        "Verdict(judge='gate', decision='pass', reason='it is good', findings=(Finding(name='size', outcome='ok', "
        "reason='small', value=1.0, threshold=None, margin=None, interval=None, n=None, urgency=None, "
        "evidence={}),), urgency=None)"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        FINDING.name = "other"  # type: ignore[misc]
