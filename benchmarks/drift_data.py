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


def _named(ranks: NDArray[np.int64]) -> object:
    return pd.array([f"name {rank}" for rank in ranks], dtype="str")


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
SHAPES: dict[str, Draw] = {
    "identifiers": lambda draw, rows, _shift: draw.integers(2**54, 2**60, rows),
    "texts, each another": lambda draw, rows, _shift: _named(draw.permutation(rows)),
    "texts, five thousand": lambda draw, rows, _shift: _named(draw.integers(0, 5_000, rows)),
    "texts, a long tail": lambda draw, rows, _shift: _named(draw.zipf(1.2, rows) % 1_000_000),
    "numbers as texts": lambda draw, rows, shift: pd.array(draw.normal(shift, 1, rows).astype(str), dtype="str"),
    "rounded": lambda draw, rows, shift: draw.normal(shift, 1, rows).round(1),
    "whole": lambda draw, rows, _shift: draw.integers(0, 10**9, rows),
    "nullable": lambda draw, rows, _shift: pd.array(draw.integers(0, 1_000, rows), "Int64"),
    "mostly null": lambda draw, rows, shift: np.where(draw.random(rows) < 0.9, np.nan, draw.normal(shift, 1, rows)),
    "mostly zero": lambda draw, rows, shift: draw.normal(shift, 1, rows) * (draw.random(rows) < 0.1),
    "two crowds": lambda draw, rows, shift: draw.normal(shift, 1, rows) + 1e9 * (draw.random(rows) < 0.5),
    "far ends": lambda draw, rows, shift: shift + draw.standard_cauchy(rows) ** 3,
    "constant": lambda _draw, rows, _shift: np.full(rows, 3.0),
    "long tail": lambda draw, rows, shift: draw.lognormal(shift, 3, rows),
}
"""The same for columns that are less usual, and that a way of counting may be slow at."""
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


def shaped(shape: str, rows: int, columns: int, *, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Columns of one of :data:`SHAPES`."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame({f"x{number}": SHAPES[shape](draw, rows, shift) for number in range(columns)})


def write(path: Path, rows: int, columns: int, *, seed: int, shift: float = 0.0) -> Path:
    """The same as a Parquet file, chunk by chunk, each of its own random numbers."""
    first = pa.Table.from_pandas(table(1, columns, seed=seed), preserve_index=False)
    with pq.ParquetWriter(path, first.schema) as writer:
        for start in range(0, rows, CHUNK):
            chunk = table(min(CHUNK, rows - start), columns, seed=seed + 1_000_003 * (start // CHUNK), shift=shift)
            writer.write_table(pa.Table.from_pandas(chunk, schema=first.schema, preserve_index=False))
    return path
