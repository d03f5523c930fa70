"""Inputs: the forms in which a client may ask, all read into the same questions.

Backstop's own form for one request and for several, and the four of MLflow's scoring protocol that hold tables.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Form = Literal["single", "batch", "mlflow"]

MLFLOW = ("dataframe_split", "dataframe_records", "inputs", "instances")
_FORMS = ("features", "rows", *MLFLOW)
_BESIDE = {
    "features": {"model", "request_id", "key"},
    "rows": {"model"},
    **{name: {"model", "request_ids", "keys", "params"} for name in MLFLOW},
}
_SHOWN = 20
"""Problems that an answer lists at most."""
_LONGEST = 128
"""Characters of a request id; the request log's column holds no more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request.

    Attributes:
        field: Where, as a path into the body.
        message: What, and what would be right.
    """

    field: str
    message: str


class BadInput(ValueError):
    """A request that is not answered.

    Attributes:
        status: Of HTTP, 400 to 499.
        kind: Of a few, for the metrics.
        faults: What is wrong, at most 20.
        found: How many there were.
    """

    def __init__(self, status: int, kind: str, faults: Iterable[Fault]) -> None:
        every = list(faults)
        self.status, self.kind, self.found = status, kind, len(every)
        self.faults = tuple(every[:_SHOWN])
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in self.faults))

    @classmethod
    def of(cls, status: int, kind: str, field: str, message: str) -> BadInput:
        """With one fault."""
        return cls(status, kind, [Fault(field, message)])


@dataclass(frozen=True, slots=True)
class Question:
    """One row that is asked for.

    Attributes:
        request_id: The client's, or a new one.
        key: By which it is routed; the request id where the client gave none.
        features: By column, as they came.
        place: Of the features in the body.
    """

    request_id: str
    key: str
    features: Mapping[str, Any]
    place: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that could be read.

    Attributes:
        form: In which it came; the answer has the same.
        model: That the body names, or None.
        questions: One per row.
    """

    form: Form
    model: str | None
    questions: tuple[Question, ...]


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        BadInput: When it is none. NaN and Infinity are no JSON.
    """
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = (
            "; NaN and Infinity are no JSON, a missing value is null" if b"NaN" in body or b"Infinity" in body else ""
        )
        raise BadInput.of(400, "json", "body", f"is no JSON: {str(error)[:200]}{hint}") from None
    if not isinstance(raw, dict):
        raise BadInput.of(422, "form", "body", f"is {_kind(raw)}; send a JSON object")
    return raw


def read(body: bytes, *, max_rows: int) -> Asked:
    """The questions of a body.

    Args:
        body: As it came.
        max_rows: More are refused.

    Raises:
        BadInput: Names the fields that are wrong.
    """
    raw = parse(body)
    forms = [name for name in _FORMS if name in raw]
    if len(forms) != 1:
        found = f"has {' and '.join(forms)}" if forms else "has none of these"
        raise BadInput.of(422, "form", "body", f"{found}; give exactly one of {', '.join(_FORMS)}")
    form = forms[0]
    extra = [name for name in raw if name != form and name not in _BESIDE[form]]
    faults = [Fault(_shown(name), f"is not known beside {form}; take it out") for name in extra]
    model = raw.get("model")
    if model is not None and not isinstance(model, str):
        faults.append(Fault("model", f"is {_kind(model)}; give the model's name as text"))
    if faults:
        raise BadInput(422, "form", faults)
    if form == "features":
        return Asked("single", model, (_single(raw),))
    if form == "rows":
        return Asked("batch", model, _batch(raw["rows"], max_rows))
    return Asked("mlflow", model, _mlflow(raw, form, max_rows))


def identifier(value: Any, field: str, faults: list[Fault]) -> str | None:
    """A request id or a key, or None when there is none or it is wrong."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST or not value.isprintable():
        what = f"is {_kind(value)}" if not isinstance(value, str) else "is empty, too long or not printable"
        faults.append(Fault(field, f"{what}; give a text of 1 to {_LONGEST} printable characters"))
        return None
    return value


def _single(raw: dict[str, Any]) -> Question:
    faults: list[Fault] = []
    question = _question(raw, "", faults)
    if faults:
        raise BadInput(422, "form", faults)
    return question


def _batch(rows: Any, max_rows: int) -> tuple[Question, ...]:
    _check_rows(rows, "rows", max_rows)
    faults: list[Fault] = []
    questions = []
    for number, row in enumerate(rows):
        place = f"rows[{number}]"
        if not isinstance(row, dict):
            faults.append(Fault(place, f"is {_kind(row)}; give an object with features"))
            continue
        extra = [name for name in row if name not in {"features", "request_id", "key"}]
        faults += [Fault(f"{place}.{_shown(name)}", "is not known; take it out") for name in extra]
        questions.append(_question(row, f"{place}.", faults))
    return _distinct(questions, [f"rows[{number}].request_id" for number in range(len(rows))], faults)


def _question(row: dict[str, Any], prefix: str, faults: list[Fault]) -> Question:
    features = row.get("features")
    if not isinstance(features, dict):
        faults.append(Fault(f"{prefix}features", f"is {_kind(features)}; give an object of columns"))
        features = {}
    given = identifier(row.get("request_id"), f"{prefix}request_id", faults)
    key = identifier(row.get("key"), f"{prefix}key", faults)
    name = given or uuid.uuid4().hex
    return Question(name, key or name, features, f"{prefix}features")


def _mlflow(raw: dict[str, Any], form: str, max_rows: int) -> tuple[Question, ...]:
    faults: list[Fault] = []
    if raw.get("params"):
        faults.append(Fault("params", "is not supported; leave it out"))
    reader = {"dataframe_split": _split, "dataframe_records": _records, "instances": _records, "inputs": _columns}[form]
    rows = reader(raw[form], form, max_rows, faults)
    if faults:
        raise BadInput(422, "form", faults)
    ids = _beside(raw.get("request_ids"), "request_ids", len(rows), faults)
    keys = _beside(raw.get("keys"), "keys", len(rows), faults)
    if faults:
        raise BadInput(422, "form", faults)
    questions = []
    for number, (features, place) in enumerate(rows):
        given = identifier(ids[number], f"request_ids[{number}]", faults)
        key = identifier(keys[number], f"keys[{number}]", faults)
        name = given or uuid.uuid4().hex
        questions.append(Question(name, key or name, features, place))
    return _distinct(questions, [f"request_ids[{number}]" for number in range(len(rows))], faults)


_Rows = list[tuple[dict[str, Any], str]]


def _split(table: Any, form: str, max_rows: int, faults: list[Fault]) -> _Rows:
    if not isinstance(table, dict):
        faults.append(Fault(form, f"is {_kind(table)}; give an object with columns and data"))
        return []
    faults += [
        Fault(f"{form}.{_shown(name)}", "is not known; take it out")
        for name in table
        if name not in {"columns", "data", "index"}
    ]
    columns = table.get("columns")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        faults.append(Fault(f"{form}.columns", "is no list of texts; name the columns"))
        return []
    faults += [Fault(f"{form}.columns", f"names {_shown(name)} twice") for name in _repeated(columns)]
    data = table.get("data")
    _check_rows(data, f"{form}.data", max_rows)
    rows: _Rows = []
    for number, values in enumerate(data if isinstance(data, list) else []):
        place = f"{form}.data[{number}]"
        if not isinstance(values, list) or len(values) != len(columns):
            found = f"{len(values)} values" if isinstance(values, list) else _kind(values)
            faults.append(Fault(place, f"is {found}; give a list of {len(columns)} values, one for each column"))
            continue
        rows.append((dict(zip(columns, values, strict=True)), place))
    return rows


def _records(table: Any, form: str, max_rows: int, faults: list[Fault]) -> _Rows:
    _check_rows(table, form, max_rows)
    rows: _Rows = []
    for number, row in enumerate(table):
        place = f"{form}[{number}]"
        if isinstance(row, dict):
            rows.append((row, place))
        else:
            faults.append(Fault(place, f"is {_kind(row)}; give an object of columns"))
    return rows


def _columns(table: Any, form: str, max_rows: int, faults: list[Fault]) -> _Rows:
    """A list of rows, or an object of columns: of lists, or of one value each."""
    if not isinstance(table, dict):
        return _records(table, form, max_rows, faults)
    listed = {name: values for name, values in table.items() if isinstance(values, list)}
    if not listed:
        return [(table, form)]
    if len(listed) < len(table):
        faults += [Fault(f"{form}.{_shown(name)}", "is no list, others are") for name in table if name not in listed]
        return []
    length = len(next(iter(listed.values())))
    uneven = [name for name, values in listed.items() if len(values) != length]
    if uneven:
        faults += [
            Fault(f"{form}.{_shown(name)}", f"has {len(listed[name])} values, the first column {length}")
            for name in uneven
        ]
        return []
    _check_rows(next(iter(listed.values())), form, max_rows)
    names = list(listed)
    return [
        (dict(zip(names, values, strict=True)), f"{form}[{number}]")
        for number, values in enumerate(zip(*listed.values(), strict=True))
    ]


def _check_rows(rows: Any, place: str, max_rows: int) -> None:
    if not isinstance(rows, list):
        raise BadInput.of(422, "form", place, f"is {_kind(rows)}; give a list of rows")
    if not rows:
        raise BadInput.of(422, "form", place, "has no rows; give at least one")
    if len(rows) > max_rows:
        raise BadInput.of(413, "rows", place, f"has {len(rows)} rows; send at most {max_rows} at once")


def _beside(values: Any, field: str, rows: int, faults: list[Fault]) -> list[Any]:
    if values is None:
        return [None] * rows
    if not isinstance(values, list) or len(values) != rows:
        faults.append(Fault(field, f"must be a list of {rows}, one for each row"))
        return [None] * rows
    return values


def _distinct(questions: list[Question], places: list[str], faults: list[Fault]) -> tuple[Question, ...]:
    names = [question.request_id for question in questions]
    if len(set(names)) < len(names):
        twice = _repeated(names)
        faults += [
            Fault(place, f"{_shown(name)} is there twice; give each row its own")
            for name, place in zip(names, places, strict=False)
            if name in twice
        ]
    if faults:
        raise BadInput(422, "form", faults)
    return tuple(questions)


def _repeated(names: list[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _shown(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."
