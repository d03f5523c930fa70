"""Proof: what a simulation found beside what is promised, as a table, one JSON line and an exit code.

A share is proven with the 95 % bound that speaks against it: of wrong decisions the upper one, of found harm the lower
one. The fast form has too few runs for that; it fails when the promise is shown to be broken.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import track

from tasks.decide.intervals import clopper_pearson


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the table.

    Attributes:
        what: The case.
        value: What is held against the limit; of a share its bound.
        limit: What is promised; None: reported, nothing is promised.
        least: The limit is one from below.
        told: What else a reader wants to know.
    """

    what: str
    value: float
    limit: float | None = None
    least: bool = False
    told: str = ""

    @property
    def ok(self) -> bool:
        """Whether the promise is kept; what is no number keeps none."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def strain(self) -> float:
        """How much of the limit is used; above 1: more than all."""
        if self.limit is None:
            return -math.inf
        if not math.isfinite(self.value):
            return math.inf
        if self.least and self.limit >= 1:  # not a share
            return self.limit / self.value if self.value > 0 else math.inf
        # A share that is promised from below is used up by what is missing to 1.
        used, room = (1 - self.value, 1 - self.limit) if self.least else (self.value, self.limit)
        return used / room if room else math.inf if used else 0.0


def share(
    what: str, hits: int, runs: int, limit: float | None, *, least: bool = False, quick: bool = False, told: str = ""
) -> Line:
    """A line about how often something happened.

    Args:
        what: The case.
        hits: How often it did.
        runs: Of how many.
        limit: See :class:`Line`.
        least: See :class:`Line`.
        quick: Too few runs to prove anything: the bound that speaks for the promise is taken.
        told: See :class:`Line`.
    """
    low, high = clopper_pearson(hits, runs, 0.95)
    value = high if least == quick else low
    counted = f"{hits:,} of {runs:,}" + (f"; {told}" if told else "")
    return Line(what=what, value=hits / runs if limit is None else value, limit=limit, least=least, told=counted)


def conclude(name: str, lines: Sequence[Line], *, rows: bool = False) -> int:
    """Print the table and the JSON line, which has the line that strains its limit most.

    Args:
        name: Of the benchmark.
        lines: At least one.
        rows: Whether the JSON line has all of them, for :mod:`benchmarks.bench`.

    Returns:
        The exit code: 1 when a promise is not kept, or when there was none.
    """
    width = max(len(line.what) for line in lines)
    for line in lines:
        promise = "" if line.limit is None else f"{'>=' if line.least else '<='} {line.limit:<7.4g}"
        mark = "" if line.limit is None else "ok" if line.ok else "SHORT"
        print(f"{line.what:{width}}  {line.value:9.4g} {promise:10} {mark:5} {line.told}")
    hardest = max(lines, key=lambda line: line.strain)
    ok = all(line.ok for line in lines) and hardest.limit is not None
    found = {"name": name, "value": hardest.value, "limit": hardest.limit, "ok": ok, "case": hardest.what}
    every = {"lines": [asdict(line) | {"ok": line.ok} for line in lines]} if rows else {}
    print(json.dumps(found | {"short": [line.what for line in lines if not line.ok]} | every))
    return int(not ok)


def as_they_come(lines: Iterable[Line]) -> list[Line]:
    """All of them, each told on the error stream when it is there: what is printed is the table."""
    found = []
    for line in lines:
        print(f"{line.what}: {line.value:.4g}", file=sys.stderr, flush=True)
        found.append(line)
    return found


def last(printed: str) -> dict[str, Any] | None:
    """The JSON line at the end of what a benchmark printed; None where it did not come to its end."""
    try:
        found = json.loads(printed.strip().rpartition("\n")[2])
    except ValueError:
        return None
    return found if isinstance(found, dict) and "name" in found else None


def run(name: str, prove: Callable[..., list[Line]], *, rows: bool = False) -> int:
    """A benchmark as a command; ``--quick`` is the form that the tests use, ``rows`` is for :func:`conclude`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, and no proof")
    return conclude(name, prove(quick=parser.parse_args().quick), rows=rows)


def spread(job: Callable[..., Any], given: Iterable[tuple[Any, ...]], *, quick: bool = False) -> list[Any]:
    """What a function gives for each set of arguments, in order, on all processors; of the fast form on this one."""
    jobs = list(given)
    if quick or len(jobs) < 2:
        return [job(*one) for one in jobs]
    workers = min(len(jobs), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.map(job, *zip(*jobs, strict=True))
        shown = Console(stderr=True)  # what is printed is the table
        return list(track(found, f"{len(jobs)} cases", total=len(jobs), console=shown, transient=True))
