"""Curves: how long something takes and how much memory, at sizes that lie far apart, and how fast that grows."""

from __future__ import annotations

import io
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.exponent import exponent
from benchmarks.proof import Line

LINEAR, CONSTANT = 1.1, 0.1
"""The largest exponents of what may grow with something, and of what may not."""
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
        """The exponents, for the table."""
        span = f"{self.sizes[0]:,} to {self.sizes[-1]:,} {self.by}"
        told = f"{1000 * self.seconds[0]:,.1f} to {1000 * self.seconds[-1]:,.1f} ms"
        value = exponent(self.sizes, self.seconds)
        yield Line(what=f"{self.what}, {span}: time", value=value, limit=self.most, told=told)
        if self.megabytes:
            told = f"{self.megabytes[0]:,.1f} to {self.megabytes[-1]:,.1f} MB"
            value = exponent(self.sizes, self.megabytes)
            yield Line(what=f"{self.what}, {span}: memory", value=value, limit=self.most, told=told)

    def at(self, size: int, job: Callable[[], object], *, times: int = 5, memory: bool = True) -> None:
        """Measure at one size; once more before that, which is not counted."""
        job()
        took = []
        for _ in range(times):
            start = time.process_time()
            job()
            took.append(time.process_time() - start)
        self.sizes.append(size)
        self.seconds.append(statistics.median(took))
        if memory:
            tracemalloc.start()
            job()
            self.megabytes.append(tracemalloc.get_traced_memory()[1] / _MB)
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
