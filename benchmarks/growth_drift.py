"""How the evaluation of drift grows with rows and with features: seconds and memory, and the exponent of each.

``python -m benchmarks.growth_drift``: recent rows of mixed types are counted in a stored profile and judged, 10,000 to
10 million rows of ten features, and 10,000 rows of 10 to 1,000 features; then the same rows, and 5,000 of 100 to 3,000
features, streamed from a Parquet file, described and counted; all sizes in turn, round after round. The exponent of a
fit in logarithms over all sizes is at most 1.1, and that of the step to the largest size alone at most 1.25.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gc
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from benchmarks import exponent, proof
from benchmarks.curve import LAST
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


def evaluated(shapes: Mapping[int, tuple[int, int]], rounds: int) -> list[Cost]:
    """What evaluations of some tables cost, all of them in turn and round after round.

    Args:
        shapes: Size -> rows and features.
        rounds: How many.
    """
    works: dict[int, Callable[[], object]] = {}
    for size, (rows, features) in shapes.items():
        reference = describe(table(min(rows, FEW_ROWS), features, seed=1))
        recent = table(rows, features, seed=2, shift=0.02)
        judged(reference, recent.head(1000))
        works[size] = partial(judged, reference, recent)
    return _costs(works, rounds)


def _costs(works: Mapping[int, Callable[[], object]], rounds: int) -> list[Cost]:
    found = [{size: measured(work) for size, work in works.items()} for _ in range(rounds)]
    costs = []
    for size in works:
        cpu = statistics.median(one[size][1] for one in found)
        costs.append(Cost(size, cpu, max(one[size][2] for one in found)))
        print(f"{size:,}: {cpu:.3f} s, {costs[-1].memory / 1e6:.1f} MB", flush=True)
    return costs


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


def of_files(folder: Path, shapes: Mapping[int, tuple[int, int]], rounds: int) -> list[Cost]:
    """The same out of files, the reference described too."""
    works: dict[int, Callable[[], object]] = {}
    for size, (rows, features) in shapes.items():
        path = write(folder / f"{rows}x{features}.parquet", rows, features, seed=3)
        works[size] = partial(streamed, path, path)
    return _costs(works, rounds)


def lines(name: str, costs: Sequence[Cost]) -> list[Line]:
    """The exponents of time and memory, over all sizes and from the last but one."""
    sizes = [cost.size for cost in costs]
    told = ", ".join(f"{cost.size:,}: {cost.cpu:.3f} s, {cost.memory / 1e6:.0f} MB" for cost in costs)
    made = []
    for what, values, said in (
        ("time", [cost.cpu for cost in costs], told),
        ("memory", [max(float(cost.memory), _LEAST) for cost in costs], ""),
    ):
        made.append(Line(what=f"{what} over {name}", value=exponent.exponent(sizes, values), limit=LIMIT, told=said))
        last = exponent.exponent(sizes[-2:], values[-2:])
        made.append(Line(what=f"{what} over {name}, last step", value=last, limit=LAST, told=f"from {sizes[-2]:,}"))
    return made


def main() -> None:
    """Run it, draw it, print the table and the JSON line.

    Raises:
        SystemExit: 1 when anything grows faster than the limit.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth_drift", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=ROWS[-1], help="rows at most")
    asked = parser.parse_args()
    by_rows = {size: (size, FEW) for size in ROWS if size <= asked.most}
    by_features = {size: (FEW_ROWS, size) for size in FEATURES}
    found = {"rows": evaluated(by_rows, asked.rounds), "features": evaluated(by_features, asked.rounds)}
    with tempfile.TemporaryDirectory(prefix="growth-drift-") as scratch:
        found["rows, streamed"] = of_files(Path(scratch), by_rows, asked.rounds)
        found["features, streamed"] = of_files(Path(scratch), {size: (WIDE_ROWS, size) for size in WIDE}, asked.rounds)
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
