"""Curves: how long something takes and how much memory, at sizes that lie far apart, and how fast that grows."""

from __future__ import annotations

import io
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.exponent import exponent
from benchmarks.proof import Line

LINEAR, CONSTANT = 1.1, 0.1
"""The largest exponents of what may grow with something, and of what may not."""
LAST, TIMES = 1.25, 1.5
"""The largest exponent of the last step alone, and how many times as much the largest size of what may not grow may
take: a fit over all sizes would hide both, the first behind what does not grow, the second behind how far apart they
are."""
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Curve:
    """One thing against the size of another.

    Attributes:
        what: Is done.
        by: What grows.
        most: The largest exponent that is allowed.
        sizes: Of what grows.
        seconds: At each size.
        megabytes: At each size; empty: not measured.
    """

    what: str
    by: str
    most: float = LINEAR
    sizes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def lines(self) -> Iterator[Line]:
        """The exponents, for the table, and what an exponent would hide."""
        yield from self._lines("time", [1000 * one for one in self.seconds], "ms")
        if self.megabytes:
            yield from self._lines("memory", self.megabytes, "MB")

    def _lines(self, name: str, values: Sequence[float], unit: str) -> Iterator[Line]:
        what = f"{self.what}, {self.sizes[0]:,} to {self.sizes[-1]:,} {self.by}: {name}"
        told = f"{values[0]:,.1f} to {values[-1]:,.1f} {unit}"
        yield Line(what=what, value=exponent(self.sizes, values), limit=self.most, told=told)
        if self.most <= CONSTANT:
            yield Line(what=f"{what}, times as much", value=values[-1] / values[0], limit=TIMES)
        elif len(self.sizes) > 2:
            last = exponent(self.sizes[-2:], values[-2:])
            yield Line(what=f"{what}, last step", value=last, limit=LAST, told=f"from {self.sizes[-2]:,}")

    def over(self, jobs: Mapping[int, Callable[[], object]], *, times: int = 5, memory: bool = True) -> Self:
        """Measure all sizes, one after the other and round after round, so that a slow minute slows all of them.

        Args:
            jobs: Size -> what is done; once more before the rounds, which is not counted.
            times: Rounds.
            memory: Measured too, in a round of its own.
        """
        for job in jobs.values():
            job()
        took: dict[int, list[float]] = {size: [] for size in jobs}
        for _ in range(times):
            for size, job in jobs.items():
                start = time.process_time()
                job()
                took[size].append(time.process_time() - start)
        self.sizes.extend(jobs)
        self.seconds.extend(statistics.median(one) for one in took.values())
        if memory:
            self.megabytes.extend(_taken(job) / _MB for job in jobs.values())
        return self


def _taken(job: Callable[[], object]) -> int:
    """Bytes that Python's and numpy's objects took at most."""
    tracemalloc.start()
    try:
        job()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def plotted(curves: list[Curve], path: Path) -> None:
    """One small picture of all curves, time above memory, both on logarithms."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  only who plots pays for it
    from matplotlib.figure import Figure  # noqa: PLC0415  see above
    from PIL import Image  # noqa: PLC0415  see above

    figure = Figure(figsize=(8, 6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1)
    for axes, told, name in zip(panels, ("seconds", "megabytes"), ("seconds of a processor", "MB"), strict=True):
        axes.set(xscale="log", yscale="log", ylabel=name)
        axes.grid(visible=True, alpha=0.3)
        for curve in curves:
            if values := getattr(curve, told):
                slope = exponent(curve.sizes, values)
                axes.plot(curve.sizes, values, "o-", ms=3, label=f"{curve.what} by {curve.by} ({slope:.2f})")
        axes.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5), title="exponent in brackets")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)
