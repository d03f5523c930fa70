"""Example: a few real rows and the model's answers to them, kept beside the model.

Wherever the model is loaded later, these rows tell whether it still answers as it did when it was trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.columns import kind_of, text_of

FILE = "backstop_example.json"
"""In the folder of the artifact, so that the digest covers it."""

_ROWS = 5
_TOLERANCE = 1e-6
"""Relative; another machine may add in another order."""


def write(folder: Path, model: Any, features: pd.DataFrame) -> None:
    """Store the first rows and what the model says to them.

    Args:
        folder: Of the artifact.
        model: Fitted.
        features: n rows, tidy.
    """
    rows = features.head(_ROWS)
    plain = {
        "kinds": {str(name): kind_of(rows[name]) for name in rows.columns},
        "rows": [[_plain(value) for value in row] for row in rows.itertuples(index=False, name=None)],
        **answers(model, rows),
    }
    (folder / FILE).write_text(json.dumps(plain, indent=1), "utf-8")


def answers(model: Any, features: pd.DataFrame) -> dict[str, list[Any] | None]:
    """What a model says, as plain values: ``prediction`` and, where it has them, ``probability``."""
    prediction = [_plain(value) for value in np.asarray(model.predict(features)).ravel().tolist()]
    probability = None
    if hasattr(model, "predict_proba"):
        probability = np.asarray(model.predict_proba(features), dtype=np.float64).tolist()
    return {"prediction": prediction, "probability": probability}


def check(folder: Path, model: Any) -> str:
    """Hold the model's answers against the stored ones.

    Returns:
        What is different, or an empty string when nothing is.

    Raises:
        FileNotFoundError: When the artifact has no stored example.
        ValueError: When the stored example cannot be read.
    """
    stored = json.loads((folder / FILE).read_text("utf-8"))
    try:
        expected = {"prediction": stored["prediction"], "probability": stored["probability"]}
        features = _frame(stored["kinds"], stored["rows"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{FILE} lacks {error}; train the model again") from error
    found = answers(model, features)
    for what, values in expected.items():
        if not _agree(found[what], values):
            return f"the stored rows gave the {what} {_short(values)} in training and give {_short(found[what])} now"
    return ""


def _frame(kinds: dict[str, str], rows: list[list[Any]]) -> pd.DataFrame:
    columns = {
        name: pd.Series([row[place] for row in rows], dtype=np.float64 if kind == "number" else object)
        for place, (name, kind) in enumerate(kinds.items())
    }
    return pd.DataFrame(columns)


def _plain(value: Any) -> Any:
    """None for NaN; numpy's own numbers as Python's."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _agree(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(_agree(a, b) for a, b in zip(found, expected, strict=True))
        )
    if isinstance(expected, float) and isinstance(found, float | int):
        return abs(found - expected) <= _TOLERANCE * max(1.0, abs(expected))
    return text_of(found) == text_of(expected)


def _short(values: Any) -> str:
    text = str(values)
    return text if len(text) < 80 else f"{text[:77]}..."
