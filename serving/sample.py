"""Sample: the rows that are kept beside a model, and whether the gateway's short ways answer them as the model did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.copies import line
from tasks import example
from tasks.columns import text_of

if TYPE_CHECKING:
    from serving.loaded import Loaded

_TOLERANCE = 1e-6
"""Difference to a stored number that another order of adding may make; relative beyond 1, as in tasks.example."""


def kept_rows(folder: Path) -> list[dict[str, Any]]:
    """The stored rows: Backstop's own, or what MLflow keeps.

    Raises:
        FileNotFoundError: When there are none.
    """
    own = folder / example.FILE
    if own.is_file():
        stored = json.loads(own.read_text("utf-8"))
        names, data = list(stored["kinds"]), stored["rows"]
    else:
        stored = json.loads((folder / "input_example.json").read_text("utf-8"))
        names, data = stored["columns"], stored["data"]
    rows = [dict(zip(names, values, strict=True)) for values in data]
    if not rows:
        raise FileNotFoundError(f"{folder} keeps an example without rows")
    return rows


def other_answers(folder: Path, loaded: Loaded, rows: Sequence[Mapping[str, Any]], *, many: int) -> str:
    """What the short ways say to the stored rows that the model does not; empty where they say the same, or are none.

    Where only MLflow's example is there, what the model says now takes the place of what was stored.

    Args:
        folder: Of the verified copy.
        loaded: Holds the short ways.
        rows: The stored ones. Asked one by one, and together.
        many: Rows at once, at least, when they are asked together: a few go another way.

    Raises:
        Exception: Whatever the model itself raises.
    """
    if loaded == loaded.itself:
        return ""
    own = folder / example.FILE
    stored: Mapping[str, Any] = (
        json.loads(own.read_text("utf-8"))
        if own.is_file()
        else example.answers(loaded.model, loaded.contract.frame(rows))
    )
    chances = stored["probability"] if loaded.classes else None
    times = -(-many // len(rows))
    try:
        found = [loaded.answers([row])[0] for row in rows] + loaded.answers([*rows] * times)
        expected = list(zip(stored["prediction"], chances or [None] * len(rows), strict=True)) * (1 + times)
    except Exception as error:  # noqa: BLE001  the model itself may answer
        return f"its stored rows raise {line(error)}"
    for answer, (prediction, shares) in zip(found, expected, strict=True):
        said = None if answer is None else answer.prediction
        if not _agree(said, prediction):
            return f"a stored row gives {said!r} and not {prediction!r}"
        given = None if answer is None or answer.probabilities is None else list(answer.probabilities.values())
        if shares is not None and not (given and len(given) == len(shares) and all(map(_agree, given, shares))):
            return f"a stored row gives the probabilities {given} and not {shares}"
    return ""


def _agree(found: Any, expected: Any) -> bool:
    """Whether it is the stored value, as far as a stored number can be had again."""
    if isinstance(expected, float) and isinstance(found, float | int):
        return abs(found - expected) <= _TOLERANCE * max(1.0, abs(expected))
    return text_of(found) == text_of(expected)
