"""What drift costs on a million rows of fifty mixed columns, beside a pure read, a bare sort and the peers.

``python -m benchmarks.drift_speed [--rows 1000000 --rounds 5]``. In one process, in turn: reading every value once (a
sum of each column), counting the recent rows in a stored profile and judging them, sorting every number, and counting
with the Kolmogorov-Smirnov distance asked for. Then, in turn and each in a process of its own, on the same columns:
Backstop with the profiling of the reference counted in, Evidently's PSI, NannyML, and on the numbers alibi-detect and
scipy; and less usual columns by themselves, beside Evidently. Beside time: counts that are equal to naive ones,
distances beside the exact ones, the memory beyond the rows, and that of ten million rows which are streamed from a
Parquet file.

``DRIFT_PEERS`` names the Pythons of environments that have evidently, nannyml or alibi-detect, with ``:`` between them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from benchmarks import proof
from benchmarks.drift_data import SHAPES, shaped, table, write
from benchmarks.proof import Line
from tasks import upstream
from tasks.decide import drift
from tasks.policy import DriftTrigger
from tasks.profile import count, describe
from tasks.records import ColumnProfile

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, STREAMED_COLUMNS, SHIFT = 50, 10, 0.02
STREAMED = 10_000_000
RULES = DriftTrigger()
PEERS = {
    "evidently": ("Evidently's PSI", "backstop", 1 / 100),
    "nannyml": ("NannyML, Kolmogorov-Smirnov and Jensen-Shannon", "backstop_ks", 1 / 40),
    "nannyml_js": ("NannyML, Jensen-Shannon only", "backstop", 1 / 40),
    "alibi": ("alibi-detect's Kolmogorov-Smirnov", "backstop_ks", 1 / 10),
    "scipy": ("scipy's ks_2samp", "backstop_ks", 1 / 10),
}
"""Contender -> what it is called, which form of Backstop is held against it, and the share of its time."""
NUMBERS_ONLY = {"alibi", "scipy"}


def pure_read(frame: pd.DataFrame) -> float:
    """One pass that touches every value: the sum of each column, of texts that of their bytes."""
    return float(sum(_sum(frame[name]) for name in frame.columns))


def _sum(column: pd.Series[Any]) -> float:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return float(column.cat.codes.to_numpy().sum())
    if pd.api.types.is_string_dtype(column.dtype):
        return float(sum(_bytes(chunk).sum() for chunk in pa.chunked_array(pa.array(column)).chunks))
    return float(column.to_numpy().sum())


def _bytes(array: pa.Array) -> NDArray[np.uint8]:
    return np.frombuffer(array.buffers()[2], dtype=np.uint8)


def bare_sort(frame: pd.DataFrame) -> float:
    """Every number put in its order, and a pure read of what is no number."""
    total = 0.0
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fi":
            total += float(np.sort(column.to_numpy())[0])
        else:
            total += _sum(column)
    return total


def judged(reference: tuple[ColumnProfile, ...], recent: pd.DataFrame) -> object:
    """What an evaluation does with a stored profile: drift, and what changed in the source's columns."""
    counted = count(recent, reference)
    return drift.judge_columns(reference, counted, RULES), upstream.changes(recent, reference, counted)


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each, round after round; the first round warms up."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            begun = time.process_time()
            work()
            if number:
                took[name].append(time.process_time() - begun)
    return took


def ratio(took: dict[str, list[float]], one: str, other: str) -> float:
    """The median of the rounds."""
    return statistics.median(mine / theirs for mine, theirs in zip(took[one], took[other], strict=True))


def limits(rows: int, rounds: int) -> list[Line]:
    """Counting beside reading, and beside sorting."""
    before, after = table(rows, COLUMNS, seed=1), table(rows, COLUMNS, seed=2, shift=SHIFT)
    plain, stepped = describe(before), describe(before, ks=True)
    took = in_turn(
        {
            "read": lambda: pure_read(after),
            "count": lambda: judged(plain, after),
            "sort": lambda: bare_sort(after),
            "count, KS": lambda: judged(stepped, after),
            "describe": lambda: describe(before),
        },
        rounds,
    )
    told = {name: f"{statistics.median(seconds):.3f} s" for name, seconds in took.items()}
    size = f"{rows / 1e6:g}M x {COLUMNS}"
    return [
        Line(
            what=f"{size}, stored profile, of a pure read",
            value=ratio(took, "count", "read"),
            limit=4.0,
            told=f"{told['count']} of {told['read']}; describing the reference {told['describe']}",
        ),
        Line(
            what=f"{size}, stored profile, KS asked for, of a bare sort",
            value=ratio(took, "count, KS", "sort"),
            limit=1.25,
            told=f"{told['count, KS']} of {told['sort']}",
        ),
    ]


def exact(rows: int, columns: int = COLUMNS) -> list[Line]:
    """Counts beside naive ones, distances beside exact ones, batches beside the whole."""
    before, after = table(rows, columns, seed=3), table(rows, columns, seed=4, shift=SHIFT)
    reference = describe(before, ks=True)
    recent = {column.name: column for column in count(after, reference)}
    plain = {column.name: column for column in count(after, describe(before))}
    wrong = sum(
        found[column.name].counts != naive(after[column.name], column)
        for column in reference
        for found in (recent, plain)
    )
    errors = []
    for column in reference:
        if column.kind == "number":
            pair = [one[column.name].dropna().to_numpy(np.float64) for one in (before, after)]
            found = drift.ks(column, recent[column.name])
            errors.append(math.nan if found is None else abs(found - float(ks_2samp(*pair).statistic)))
    return [
        Line(what="columns whose counts differ from naive ones", value=wrong, limit=0, told=f"of {2 * columns}"),
        Line(
            what="error of the KS distance", value=max(errors), limit=1e-3, told=f"{len(errors)} columns, {rows:,} rows"
        ),
    ]


def naive(column: pd.Series[Any], reference: ColumnProfile) -> tuple[int, ...]:
    """Counts as one would write them down first."""
    present = column.dropna()
    if reference.kind == "category":
        texts = np.array([str(value) for value in present], dtype=object)
        named = [int((texts == level).sum()) for level in reference.categories]
        return (*named, len(present) - sum(named))
    values = present.to_numpy(dtype=np.float64)
    bins = np.searchsorted(np.array(reference.edges), values, side="left")
    return tuple(np.bincount(bins, minlength=len(reference.edges) + 1).tolist())


def beside_peers(folder: Path, rows: int, rounds: int) -> Iterator[Line]:
    """Backstop and each peer on the same two files, in turn; one that is there and fails keeps no limit."""
    files = [write(folder / f"{name}.parquet", rows, COLUMNS, seed=seed, shift=shift) for name, seed, shift in _FILES]
    for name, (called, own, limit) in PEERS.items():
        home, told = _home(name), f"{called}, {rows / 1e6:g}M rows: share of its time"
        if home is None:
            yield Line(what=told, value=math.nan, told="not installed: DRIFT_PEERS names Pythons that have it")
            continue
        flags = [*map(str, files), *(["--numbers"] if name in NUMBERS_ONLY else [])]
        pairs = []
        try:
            for _ in range(rounds):
                mine = measured(sys.executable, own, *flags)
                with _theirs():
                    pairs.append((mine, measured(home, name, *flags)))
        except PeerFailed as error:
            print(f"{called}: {error}", file=sys.stderr, flush=True)
            yield Line(what=told, value=math.nan, limit=limit, told=f"not measured: {str(error).splitlines()[-1][:80]}")
            continue
        seconds, grown = (
            [statistics.median(one[what] for one in both) for both in zip(*pairs, strict=True)] for what in _COSTS
        )
        value = statistics.median(mine["cpu"] / theirs["cpu"] for mine, theirs in pairs)
        yield Line(
            what=f"{called}, {rows / 1e6:g}M x {pairs[0][0]['columns']}: share of its time",
            value=value,
            limit=limit,
            told=f"{seconds[0]:.3f} of {seconds[1]:.2f} s (1/{1 / value:.0f}); "
            f"{grown[0] / 1e6:.0f} and {grown[1] / 1e6:.0f} MB extra",
        )


def other_shapes(folder: Path, rows: int, rounds: int, columns: int = 4) -> Iterator[Line]:
    """Columns of less usual shapes, each by itself, beside Evidently."""
    home = _home("evidently")
    for shape in SHAPES:
        files = []
        for name, seed, shift in _FILES:
            files.append(str(folder / f"{name} {shape}.parquet"))
            shaped(shape, rows, columns, seed=seed, shift=shift).to_parquet(files[-1])
        mine = [measured(sys.executable, "backstop", *files)["cpu"] for _ in range(rounds)]
        each = f"{statistics.median(mine) / (2 * rows * columns) * 1e9:.0f} ns a value"
        try:
            theirs = [] if home is None else _asked(home, files, rounds)
        except RuntimeError as error:
            theirs, each = [], f"{each}; Evidently: {str(error).strip().splitlines()[-1][:80]}"
        what = f"{shape}, {rows:,} x {columns}"
        if not theirs:
            yield Line(what=f"{what}: seconds", value=statistics.median(mine), told=each)
            continue
        value = statistics.median(one / other for one, other in zip(mine, theirs, strict=True))
        told = f"{statistics.median(mine):.3f} of {statistics.median(theirs):.2f} s (1/{1 / value:.0f}); {each}"
        yield Line(what=f"{what}: share of Evidently's time", value=value, told=told)


def _asked(home: str, files: list[str], rounds: int) -> list[float]:
    return [measured(home, "evidently", *files, patience=_PATIENCE)["cpu"] for _ in range(rounds)]


_PATIENCE = 90.0
"""Seconds that a peer has for less than a million values of one shape."""
_FILES = (("reference", 5, 0.0), ("recent", 6, SHIFT))
_COSTS = ("cpu", "extra")


class PeerFailed(RuntimeError):
    """A peer did not come to its end."""


@contextmanager
def _theirs() -> Iterator[None]:
    """What goes wrong here is the peer's, and no fault of ours."""
    try:
        yield
    except RuntimeError as error:
        raise PeerFailed(str(error)) from error


def _home(contender: str) -> str | None:
    """The first Python that has it."""
    if contender == "scipy":
        return sys.executable
    module = {"alibi": "alibi_detect", "nannyml_js": "nannyml"}.get(contender, contender)
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    homes = [home for home in os.environ.get("DRIFT_PEERS", "").split(":") if home]
    return next((home for home in homes if subprocess.run([home, "-c", look], check=False).returncode == 0), None)


def measured(python: str, *arguments: str, patience: float | None = None) -> dict[str, Any]:
    """One contender in a process of its own.

    Raises:
        RuntimeError: When it failed, with what it said, or did not come to its end in so many seconds.
    """
    command = [python, "-m", "benchmarks.drift_peers", *arguments]
    quiet = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}  # some of the peers send home what they do
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, check=False, timeout=patience
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer in {patience:g} s") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory(folder: Path, rows: int) -> Iterator[Line]:
    """Beyond the rows, of the whole table and of one that is streamed."""
    files = [write(folder / f"{name}50.parquet", rows, COLUMNS, seed=seed, shift=shift) for name, seed, shift in _FILES]
    for form, limit in (("backstop", 50.0), ("backstop_ks", 50.0)):
        found = measured(sys.executable, form, *map(str, files))
        what = f"{rows / 1e6:g}M x {COLUMNS}, MB beyond the rows{', KS asked for' if form == 'backstop_ks' else ''}"
        yield Line(what=what, value=found["extra"] / 1e6, limit=limit, told=f"{found['cpu']:.2f} s, reference profiled")


def streaming(folder: Path, rows: int, columns: int = STREAMED_COLUMNS) -> Iterator[Line]:
    """A file of so many rows and one of a tenth of them."""
    seconds, grown = [], []
    for many in (rows // 10, rows):
        path = write(folder / f"{many}.parquet", many, columns, seed=7)
        found = measured(sys.executable, "streamed", str(path), str(path))
        seconds.append(found["cpu"])
        grown.append(found["extra"] / 1e6)
        path.unlink()
    size = f"{rows / 1e6:g}M x {columns} streamed"
    yield Line(what=f"{size}, MB beyond the process", value=grown[1], limit=300.0, told=f"{grown[0]:.0f} at a tenth")
    power = math.log10(seconds[1] / seconds[0])
    told = f"{seconds[1]:.1f} s, {seconds[0]:.2f} s for a tenth; described and counted"
    yield Line(what=f"{size}, exponent of time in rows", value=power, limit=1.1, told=told)


def prove(rows: int, rounds: int, streamed_rows: int, peer_rounds: int) -> list[Line]:
    """All of it."""
    with tempfile.TemporaryDirectory(prefix="drift-speed-") as scratch:
        return proof.as_they_come(_parts(Path(scratch), rows, rounds, streamed_rows, peer_rounds))


def _parts(folder: Path, rows: int, rounds: int, streamed_rows: int, peer_rounds: int) -> Iterator[Line]:
    yield from exact(min(rows, 200_000))
    yield from limits(rows, rounds)
    yield from memory(folder, rows)
    yield from beside_peers(folder, rows, peer_rounds)
    yield from other_shapes(folder, rows // 5, peer_rounds)
    yield from streaming(folder, streamed_rows)


def main() -> None:
    """Run it, print the table and the JSON line.

    Raises:
        SystemExit: 1 when a limit is not kept.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift_speed", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rounds", type=int, default=2)
    parser.add_argument("--streamed", type=int, default=STREAMED)
    asked = parser.parse_args()
    found = prove(asked.rows, asked.rounds, asked.streamed, asked.peer_rounds)
    raise SystemExit(proof.conclude("drift_speed", found, rows=True))


if __name__ == "__main__":
    main()
