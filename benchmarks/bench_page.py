"""The blocks of docs/benchmarks.md, one per benchmark, that ``make bench`` writes between its marks."""

from __future__ import annotations

import ast
import math
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.exponent import IMAGES

if TYPE_CHECKING:
    from benchmarks.bench import Run
    from benchmarks.proof import Line

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
_PARTS = ("numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "mlflow", "prefect")


def machine() -> str:
    """What this is measured on: day, processor, cores, versions, and how busy it is with something else."""
    return ", ".join(
        (
            f"{datetime.now(UTC):%Y-%m-%d}",
            _processor(),
            f"{len(os.sched_getaffinity(0))} cores",
            f"Python {platform.python_version()}",
            *(f"{part} {found}" for part in _PARTS if (found := _version(part))),
            f"load {os.getloadavg()[0]:.1f} before it began",
        )
    )


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    names = told.read_text("utf-8").splitlines() if told.is_file() else []
    found = (line.partition(":")[2].strip() for line in names if line.startswith("model name"))
    return next(found, platform.machine())


def _version(part: str) -> str:
    try:
        return version(part)
    except PackageNotFoundError:
        return ""


def block(name: str, run: Run, *, rounds: int, machine: str) -> str:
    """What the page says about a benchmark.

    Args:
        name: Of the benchmark.
        run: What came out of its rounds together.
        rounds: How many there were.
        machine: From :func:`machine`.
    """
    cost = f"{run.wall:.0f} s, {run.cpu:.0f} s of processors, {run.peak / 1e6:,.0f} MB at most"
    times = f"median of {rounds} runs, each " if rounds > 1 else ""
    head = f"### `{name}`\n\n{about(name)}\n\n{machine}; {times}{cost}.\n\n"
    if not run.lines:
        return f"{head}**Did not come to its end** (exit code {run.code}): {_cell(run.said) or 'it said nothing'}\n"
    rows = "\n".join(_row(line) for line in run.lines)
    seen = f"\n![{name}](images/bench-{name}.png)\n" if (IMAGES / f"bench-{name}.png").is_file() else ""
    return f"{head}| what | value | limit | | |\n|---|---:|---:|---|---|\n{rows}\n{seen}"


def about(name: str) -> str:
    """The first sentence of a benchmark's docstring."""
    path = ROOT / "benchmarks" / f"{name}.py"
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.is_file() else None
    return (said or "").partition("\n\n")[0].replace("\n", " ")


def _row(line: Line) -> str:
    limit = "" if line.limit is None else f"{'≥' if line.least else '≤'} {line.limit:.4g}"
    mark = "" if line.limit is None and line.ok else "ok" if line.ok else "**SHORT**"
    value = f"{line.value:.4g}" if math.isfinite(line.value) else "none"
    return f"| {_cell(line.what)} | {value} | {limit} | {mark} | {_cell(line.told)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write(text: str, name: str, page: Path = PAGE) -> None:
    """Put the block of one benchmark into the page, in the place of its old one; the others stay."""
    old = page.read_text("utf-8")
    begin, end = f"<!-- {name}: written by `make bench` -->", f"<!-- end of {name} -->"
    made = f"{begin}\n{text.strip()}\n{end}"
    before, found, rest = old.partition(begin)
    new = before + made + rest.partition(end)[2] if found else f"{old.rstrip()}\n\n{made}\n"
    page.write_text(new, "utf-8")
