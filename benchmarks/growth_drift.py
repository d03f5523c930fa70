"""How the evaluation of drift grows with rows and with features: seconds and memory, and the exponent of each.

``python -m benchmarks.growth_drift``: recent rows of mixed types are counted in a stored profile and judged, 10,000 to
10 million rows of ten features, and 10,000 rows of 10 to 1,000 features; then the same rows, and 5,000 of 100 to 3,000
features, streamed from a Parquet file, described and counted. The exponent of a fit in logarithms over all sizes is at
most 1.1.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gc
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from benchmarks import exponent, proof
from benchmarks.drift_data import table, write
from benchmarks.drift_peers import extra, streamed
from benchmarks.drift_speed import judged
from benchmarks.proof import Line
from tasks.profile import describe

LIMIT = 1.1
ROWS, FEATURES = (10_000, 100_000, 1_000_000, 10_000_000), (10, 30, 100, 300, 1000)
WIDE, WIDE_ROWS = (100, 300, 1000, 3000), 5_000
FEW, FEW_ROWS = 10, 10_000
_LEAST = 1e6
"""Bytes below which the memory says more about the allocator than about the rows."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one size costs.

    Attributes:
        size: Rows or features.
        cpu: Seconds.
        memory: Bytes beyond the rows.
    """

    size: int
    cpu: float
    memory: int


def evaluated(rows: int, features: int, size: int, rounds: int) -> Cost:
    """The median of some evaluations of one table."""
    reference = describe(table(min(rows, FEW_ROWS), features, seed=1))
    recent = table(rows, features, seed=2, shift=0.02)
    judged(reference, recent.head(1000))
    found = [measured(lambda: judged(reference, recent)) for _ in range(rounds)]
    cost = Cost(size, statistics.median(cpu for _, cpu, _ in found), max(memory for _, _, memory in found))
    print(f"{rows:,} rows x {features:,}: {cost.cpu:.3f} s, {cost.memory / 1e6:.1f} MB", flush=True)
    return cost


def measured(work: Callable[[], object]) -> tuple[object, float, int]:
    """As :func:`benchmarks.drift_peers.extra`, with the memory of what was measured before given back.

    What an allocator keeps for later would be taken again without the process growing, and a larger size would seem to
    need less than a smaller one.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    if name := ctypes.util.find_library("c"):
        getattr(ctypes.CDLL(name), "malloc_trim", int)(0)  # glibc's; other systems give back by themselves
    return extra(work)


def of_file(folder: Path, rows: int, features: int, size: int) -> Cost:
    """The same out of a file, the reference described too."""
    path = write(folder / f"{rows}x{features}.parquet", rows, features, seed=3)
    _, cpu, memory = measured(lambda: streamed(path, path))
    path.unlink()
    print(f"{rows:,} rows x {features:,} streamed: {cpu:.3f} s, {memory / 1e6:.1f} MB", flush=True)
    return Cost(size, cpu, memory)


def lines(name: str, costs: Sequence[Cost]) -> list[Line]:
    """The exponents of time and memory."""
    sizes = [cost.size for cost in costs]
    told = ", ".join(f"{cost.size:,}: {cost.cpu:.3f} s, {cost.memory / 1e6:.0f} MB" for cost in costs)
    return [
        Line(what=f"time over {name}", value=exponent.exponent(sizes, [c.cpu for c in costs]), limit=LIMIT, told=told),
        Line(
            what=f"memory over {name}",
            value=exponent.exponent(sizes, [max(c.memory, _LEAST) for c in costs]),
            limit=LIMIT,
        ),
    ]


def main() -> None:
    """Run it, draw it, print the table and the JSON line.

    Raises:
        SystemExit: 1 when anything grows faster than the limit.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth_drift", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=ROWS[-1], help="rows at most")
    asked = parser.parse_args()
    rows = [size for size in ROWS if size <= asked.most]
    by_rows = [evaluated(size, FEW, size, asked.rounds) for size in rows]
    by_features = [evaluated(FEW_ROWS, size, size, asked.rounds) for size in FEATURES]
    with tempfile.TemporaryDirectory(prefix="growth-drift-") as scratch:
        files = [of_file(Path(scratch), size, FEW, size) for size in rows]
        wide = [of_file(Path(scratch), WIDE_ROWS, size, size) for size in WIDE]
    found = {"rows": by_rows, "features": by_features, "rows, streamed": files, "features, streamed": wide}
    draw(found)
    every = [line for name, costs in found.items() for line in lines(name, costs)]
    raise SystemExit(proof.conclude("growth_drift", every, rows=True))


def draw(found: dict[str, list[Cost]]) -> Path:
    """Seconds and megabytes over rows and over features."""

    def curve(name: str, what: str) -> exponent.Curve:
        costs = found[name]
        values = [cost.cpu if what == "cpu" else max(cost.memory, _LEAST) / 1e6 for cost in costs]
        return [cost.size for cost in costs], values

    return exponent.picture(
        "growth_drift",
        {
            "rows": ("seconds", {name: curve(name, "cpu") for name in ("rows", "rows, streamed")}),
            "rows ": ("MB beyond them", {name: curve(name, "memory") for name in ("rows", "rows, streamed")}),
            "features": ("seconds", {name: curve(name, "cpu") for name in ("features", "features, streamed")}),
        },
    )


if __name__ == "__main__":
    main()
