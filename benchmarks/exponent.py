"""Growth: how cost follows size, as the exponent of a fit in logarithms, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
"""A picture ``bench-<benchmark>.png`` in it is shown in the benchmark's block of docs/benchmarks.md."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Sizes, and what each costs."""


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The k of cost = a * size**k, fitted by least squares of the logarithms; 1 is linear.

    A share that does not grow makes it smaller, so the sizes should reach to where it does not matter any more.

    Raises:
        ValueError: For a size or a cost that is not positive, or a single size.
    """
    if len(set(sizes)) < 2 or not all(math.isfinite(one) and one > 0 for one in (*sizes, *costs)):
        raise ValueError(f"no exponent of sizes {list(sizes)} and costs {list(costs)}: two sizes, all positive")
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def picture(name: str, panels: Mapping[str, tuple[str, Mapping[str, Curve]]], folder: Path = IMAGES) -> Path:
    """Curves on logarithmic axes, one panel beside the other.

    Args:
        name: Of the benchmark.
        panels: What grows -> (what it costs, curves by name).
        folder: Where it is kept.
    """
    import matplotlib as mpl  # noqa: PLC0415  only where something is drawn

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  see above

    figure, places = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.2), squeeze=False)
    for axes, (grows, (costs, curves)) in zip(places[0], panels.items(), strict=True):
        for label, (sizes, values) in curves.items():
            axes.loglog(sizes, values, marker="o", label=f"{label}: exponent {exponent(sizes, values):.2f}")
        axes.set_xlabel(grows)
        axes.set_ylabel(costs)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    path = folder / f"bench-{name}.png"
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
    return path
