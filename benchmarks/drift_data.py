"""Rows of mixed types for the benchmarks of drift: ten kinds of columns, repeated until there are enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator
from numpy.typing import NDArray

LEVELS = tuple(f"level {number}" for number in range(20))
SHARES = np.array([1 / (number + 2) for number in range(20)]) / sum(1 / (number + 2) for number in range(20))
CHUNK = 1 << 18

Draw = Callable[[Generator, int, float], object]


def _with_nulls(draw: Generator, rows: int, shift: float) -> object:
    values = draw.normal(shift, 1, rows)
    values[draw.random(rows) < 0.05] = np.nan
    return values


def _codes(draw: Generator, rows: int, _shift: float) -> NDArray[np.int8]:
    return draw.choice(20, rows, p=SHARES).astype(np.int8)


KINDS: dict[str, Draw] = {
    "normal": lambda draw, rows, shift: draw.normal(shift, 1, rows),
    "half": lambda draw, rows, shift: draw.normal(shift, 1, rows).astype(np.float32),
    "heavy": lambda draw, rows, shift: shift + draw.standard_t(2, rows),
    "skewed": lambda draw, rows, shift: draw.lognormal(shift, 1, rows),
    "nulls": _with_nulls,
    "zeros": lambda draw, rows, shift: draw.exponential(1 + shift, rows) * (draw.random(rows) < 0.3),
    "count": lambda draw, rows, shift: draw.poisson(20 * (1 + shift), rows),
    "text": lambda draw, rows, shift: pd.array(np.array(LEVELS, dtype=object)[_codes(draw, rows, shift)], dtype="str"),
    "category": lambda draw, rows, shift: pd.Categorical.from_codes(_codes(draw, rows, shift), pd.Index(LEVELS)),
    "flag": lambda draw, rows, shift: draw.random(rows) < 0.3 + shift,
}
"""Name -> (random numbers, rows, shift) -> values. The texts do not shift."""
NUMBERS = tuple(kind for kind in KINDS if kind not in {"text", "category", "flag"})


def table(rows: int, columns: int, *, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """So many rows and columns, named by their kind and number.

    Args:
        rows: How many.
        columns: How many; the kinds in turn.
        seed: Of the random numbers.
        shift: In standard deviations, of those that shift.
    """
    draw, kinds = np.random.default_rng(seed), list(KINDS)
    made = {}
    for number in range(columns):
        kind = kinds[number % len(kinds)]
        made[f"{kind}_{number // len(kinds)}"] = KINDS[kind](draw, rows, shift)
    return pd.DataFrame(made)


def write(path: Path, rows: int, columns: int, *, seed: int, shift: float = 0.0) -> Path:
    """The same as a Parquet file, chunk by chunk, each of its own random numbers."""
    first = pa.Table.from_pandas(table(1, columns, seed=seed), preserve_index=False)
    with pq.ParquetWriter(path, first.schema) as writer:
        for start in range(0, rows, CHUNK):
            chunk = table(min(CHUNK, rows - start), columns, seed=seed + 1_000_003 * (start // CHUNK), shift=shift)
            writer.write_table(pa.Table.from_pandas(chunk, schema=first.schema, preserve_index=False))
    return path
