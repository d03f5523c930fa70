"""Contract: the columns that a version takes, and what is wrong with a row that does not keep to them.

The names and types are those of the signature that MLflow stores with the model. Which columns may be null, and which
categories there are, is what the version was trained on: the profile in the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from serving.inputs import BadInput, Fault, Question

Kind = Literal["number", "integer", "boolean", "text"]

_KINDS: dict[str, Kind] = {
    "double": "number",
    "float": "number",
    "long": "integer",
    "integer": "integer",
    "boolean": "boolean",
    "string": "text",
}
_DTYPES = {"double": "float64", "float": "float32", "long": "int64", "integer": "int32", "boolean": "bool"}
_LARGEST = float(np.finfo(np.float32).max)
"""Trees compute in single precision: a larger number would be an error of the model, and count against its version."""
_NAMED = 8
"""Categories that a message names at most."""


class NoContract(ValueError):
    """A version that does not say what it takes."""


@dataclass(frozen=True, slots=True)
class Column:
    """One input.

    Attributes:
        name: As in the signature.
        kind: What its values are.
        dtype: That the model is given; ``object`` for text.
        nullable: Whether null is an answer.
        levels: The categories, where all are known; None: any text.
    """

    name: str
    kind: Kind
    dtype: str = "float64"
    nullable: bool = False
    levels: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """All inputs of a version.

    Attributes:
        columns: In the order in which it takes them.
        dropped: Columns of the source that the policy drops, so that whoever sends one hears why it is refused.
    """

    columns: tuple[Column, ...]
    dropped: frozenset[str] = frozenset()

    def check(self, questions: Sequence[Question]) -> None:
        """See that every row can be given to the model.

        Raises:
            BadInput: Names each field that cannot.
        """
        faults: list[Fault] = []
        for question in questions:
            faults += self._faults(question)
        if faults:
            raise BadInput(422, "columns", faults)

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Checked rows as the model takes them.

        Args:
            rows: n of them, each with every column.

        Returns:
            n rows, columns in the order of the contract.
        """
        return pd.DataFrame(
            {column.name: pd.Series([row[column.name] for row in rows], dtype=column.dtype) for column in self.columns}
        )

    def plain(self) -> list[dict[str, Any]]:
        """For people and clients, as JSON values."""
        return [
            {
                "name": column.name,
                "type": column.kind,
                "nullable": column.nullable,
                "categories": None if column.levels is None else sorted(column.levels),
            }
            for column in self.columns
        ]

    def _faults(self, question: Question) -> list[Fault]:
        features = question.features
        faults = []
        for column in self.columns:
            if column.name not in features:
                faults.append(Fault(f"{question.place}.{column.name}", f"is missing; give {_wanted(column)}"))
            elif problem := _problem(column, features[column.name]):
                faults.append(Fault(f"{question.place}.{column.name}", problem))
        if len(features) != len(self.columns) or faults:
            known = {column.name for column in self.columns}
            faults += [Fault(f"{question.place}.{name[:60]}", self._no(name)) for name in features if name not in known]
        return faults

    def _no(self, name: str) -> str:
        why = " (the policy drops it)" if name in self.dropped else ""
        return f"is no column of this model{why}; take it out"


def _problem(column: Column, value: Any) -> str:
    """What is wrong with a value; empty when nothing is."""
    if value is None:
        return "" if column.nullable else f"is null, and the version was trained on none; give {_wanted(column)}"
    kind = type(value)
    if column.kind == "number":
        fits = kind is float or kind is int
        if fits and not abs(value) <= _LARGEST:  # nor does that hold for NaN
            return f"is {_quoted(value)}; give a number of at most {_LARGEST:.3g}"
    elif column.kind == "integer":
        fits = kind is int and _holds(column.dtype, value)
    elif column.kind == "boolean":
        fits = kind is bool
    else:
        fits = kind is str
        if fits and column.levels is not None and value not in column.levels:
            return f"is {_quoted(value)}, a category that the version was not trained on; give {_wanted(column)}"
    return "" if fits else f"is {_quoted(value)}; give {_wanted(column)}"


def _holds(dtype: str, value: int) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def _wanted(column: Column) -> str:
    words = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "text": "a text"}
    wanted = words[column.kind]
    if column.kind == "text" and column.levels is not None:
        named = ", ".join(repr(level) for level in sorted(column.levels)[:_NAMED])
        wanted = f"one of {named}{' and others' if len(column.levels) > _NAMED else ''}"
    return f"{wanted} or null" if column.nullable else wanted


def _quoted(value: Any) -> str:
    if isinstance(value, list | dict):  # as deep as a client likes, deeper than a writer of JSON may go
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def contract_of(
    folder: Path, profile: Mapping[str, Any] | None, *, accept_unseen: bool = False, dropped: Sequence[str] = ()
) -> Contract:
    """The contract of an artifact.

    Args:
        folder: As MLflow lays it out, with its ``MLmodel``.
        profile: Of the ledger, as plain values; None where it has none: then only the signature decides.
        accept_unseen: Take nulls and categories that the training did not have.
        dropped: Columns that the policy drops.

    Raises:
        NoContract: When the signature is missing, or has columns that JSON rows cannot hold.
    """
    seen = {column["name"]: column for column in (profile or {}).get("columns", ())}
    columns = []
    for spec in _signature(folder):
        name, kind = str(spec.get("name", "")), str(spec.get("type"))
        if not name or kind not in _KINDS:
            raise NoContract(
                f"the signature of {folder} has a column {name or '(without a name)'!r} of type {kind!r}; the gateway "
                f"serves tables of named columns of {', '.join(_KINDS)}. Train it with Backstop, or save it with one"
            )
        columns.append(_column(name, kind, spec, seen.get(name), accept_unseen=accept_unseen))
    return Contract(tuple(columns), frozenset(dropped))


def _column(
    name: str, kind: str, spec: Mapping[str, Any], seen: Mapping[str, Any] | None, *, accept_unseen: bool
) -> Column:
    dtype = _DTYPES.get(kind, "object")
    may_be_null = dtype in {"float64", "float32", "object"}  # the others have no null
    asked = spec.get("required", True) is False or accept_unseen or (seen is not None and int(seen["nulls"]) > 0)
    levels = None
    if seen is not None and seen["kind"] == "category" and not accept_unseen:
        counted = len(seen["counts"]) > len(seen["categories"]) and int(seen["counts"][-1]) > 0
        # Only where every level is listed can one be told to be new.
        levels = None if counted or not seen["categories"] else frozenset(map(str, seen["categories"]))
    return Column(name, _KINDS[kind], dtype, nullable=may_be_null and asked, levels=levels)


def _signature(folder: Path) -> list[dict[str, Any]]:
    try:
        description = yaml.safe_load((folder / "MLmodel").read_text("utf-8"))
        inputs = json.loads(description["signature"]["inputs"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise NoContract(
            f"{folder} has no signature that can be read ({type(error).__name__}: {error}), so nobody knows what it "
            "takes. Train it with Backstop, or save it with a signature"
        ) from error
    if not isinstance(inputs, list) or not inputs:
        raise NoContract(f"the signature of {folder} names no inputs; save it with those of a table")
    return inputs
