"""Feedback: labels as clients send them. Whether there is such a request is not asked: it may be on its way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from serving.inputs import BadInput, Fault, identifier, parse
from tasks.policy import as_utc
from tasks.requests import Label, as_text

_AHEAD = timedelta(minutes=5)
"""How far a client's clock may go ahead: a label from next year would win against every later one."""
_LONGEST = 256
_KNOWN = {"request_id", "label", "at", "model"}


@dataclass(frozen=True, slots=True)
class Truths:
    """What a label may be.

    Attributes:
        model: Registered name; empty: it is not known which, and the label has to name it.
        classes: As text; empty: any.
        number: It is a number.
    """

    model: str = ""
    classes: frozenset[str] = frozenset()
    number: bool = False


def read(body: bytes, truths: Callable[[str | None], Truths], *, now: datetime, max_rows: int) -> list[Label]:
    """The labels of a body: one, or a list under ``labels``.

    Args:
        body: As it came.
        truths: What the labels of a model may be; raises BadInput for one that is not served.
        now: Moment of a label that says none.
        max_rows: More are refused.

    Raises:
        BadInput: Names the fields that are wrong; nothing of the body is taken then.
    """
    raw = parse(body)
    faults: list[Fault] = []
    listed = "labels" in raw
    if listed:
        faults += [Fault(name[:60], "is not known beside labels; take it out") for name in raw if name != "labels"]
    rows = raw["labels"] if listed else [raw]
    if not isinstance(rows, list) or not rows:
        raise BadInput.of(422, "form", "labels", "is no list of labels, or an empty one")
    if len(rows) > max_rows:
        raise BadInput.of(413, "rows", "labels", f"has {len(rows)} rows; send at most {max_rows} at once")
    known: dict[str | None, Truths] = {}
    labels = []
    for number, row in enumerate(rows):
        place = f"labels[{number}]" if listed else ""
        if not isinstance(row, dict):
            faults.append(Fault(place, "is no object with request_id and label"))
            continue
        label = _label(row, f"{place}." if place else "", truths, known, now, faults)
        labels += [label] if label is not None else []
    if faults:
        raise BadInput(422, "label", faults)
    return labels


def _label(
    row: dict[str, Any],
    prefix: str,
    truths: Callable[[str | None], Truths],
    known: dict[str | None, Truths],
    now: datetime,
    faults: list[Fault],
) -> Label | None:
    before = len(faults)
    faults += [Fault(f"{prefix}{name[:60]}", "is not known; take it out") for name in row if name not in _KNOWN]
    if row.get("request_id") is None:
        faults.append(Fault(f"{prefix}request_id", "is missing; name the request that the label is for"))
    name = identifier(row.get("request_id"), f"{prefix}request_id", faults)
    model = row.get("model")
    if model is not None and not isinstance(model, str):
        faults.append(Fault(f"{prefix}model", "is no text; name the model, or leave it out"))
        return None
    if model not in known:
        known[model] = truths(model)
    if not known[model].model:
        faults.append(Fault(f"{prefix}model", "is missing; several models are served here, and each has its requests"))
        return None
    problem = _unlikely(row.get("label"), known[model])
    if problem:
        faults.append(Fault(f"{prefix}label", problem))
    at = _moment(row.get("at"), f"{prefix}at", now, faults)
    if len(faults) > before or name is None:
        return None
    return Label(request_id=name, model=known[model].model, label=row["label"], at=at)


def _unlikely(label: Any, truths: Truths) -> str:
    """Why a label cannot be the truth; empty: it can. What no version could ever say would make every answer wrong."""
    known = isinstance(label, str | int | float)
    if not known or (isinstance(label, bool) and not {"True", "False"} & truths.classes):
        return "is no text and no number; give what turned out to be right"
    try:
        text = as_text(label)
    except ValueError as error:
        return str(error)
    if len(text) > _LONGEST or not text.isprintable():
        return f"is longer than {_LONGEST} characters, or not printable"
    if truths.number:
        return "" if _is_number(text) else f"is {text[:60]!r}; {truths.model} predicts numbers, give one"
    if truths.classes and text not in truths.classes:
        listed = ", ".join(repr(one) for one in sorted(truths.classes)[:20])
        return f"is {text[:60]!r}; the classes of {truths.model} are {listed}"
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _moment(value: Any, field: str, now: datetime, faults: list[Fault]) -> datetime:
    if value is None:
        return now
    try:
        moment = as_utc(datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError) as error:
        faults.append(Fault(field, f"is no moment with a time zone, such as 2026-05-01T03:00:00Z ({error})"[:300]))
        return now
    if moment > now + _AHEAD:
        faults.append(Fault(field, f"is in the future ({moment.isoformat()}); give when the label became known"))
    return moment
