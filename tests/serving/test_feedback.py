"""Feedback as a client sends it: whose it is, and what it may say."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from serving.feedback import Truths, read
from serving.inputs import BadInput
from serving.logbook import _label, _label_line
from tasks.requests import Label

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def one_of_several(model: str | None) -> Truths:
    if model is None:
        return Truths()
    return Truths(model, frozenset({"yes", "no"}))


def taken(body: dict[str, object]) -> list[Label]:
    return read(orjson.dumps(body), one_of_several, now=NOW, max_rows=10)


def test_where_several_models_are_served_a_label_names_its_own() -> None:
    with pytest.raises(BadInput) as refused:
        taken({"labels": [{"request_id": "7", "label": "yes", "model": "churn"}, {"request_id": "7", "label": "yes"}]})
    (fault,) = refused.value.faults
    assert (fault.field, refused.value.status) == ("labels[1].model", 422)
    (label,) = taken({"request_id": "7", "label": "yes", "model": "churn"})
    assert label == Label(request_id="7", model="churn", label="yes", at=NOW)


def test_a_label_on_the_disk_keeps_its_model() -> None:
    label = Label(request_id="7", model="churn", label=2.5, at=NOW)
    assert _label(_label_line(label)) == label
