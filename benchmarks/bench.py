"""Bench: every benchmark in a process of its own, in turn, and the page with what came out.

``python -m benchmarks.bench [--only drift,serving] [--rounds 3]``, or ``make bench``. All of them once, then all of
them again, as often as each asks for: what disturbs the machine for a while disturbs one round of many and not all
rounds of one, and the median of the rounds counts. What each printed is kept in ``.bench/``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import bench_page
from benchmarks.process import resident
from benchmarks.proof import Line, last

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".bench"
BENCHMARKS: dict[str, int] = {
    "drift_speed": 1,
    "growth_drift": 1,
    "gate_speed": 1,
    "overheads": 1,
    "growth": 1,
    "log_scale": 1,
    "tick_weight": 1,
    "serving": 1,
    "shadow_traffic": 1,
    "switch_traffic": 1,
    "history": 1,
    "registry_race": 1,
    "crash_matrix": 1,
    "traffic": 1,
}
"""How often each is run; once where it takes minutes and has its own rounds. In this order."""
_LOOK = 0.2
"""Seconds between two looks at the memory."""
_WIDE = 60
"""Characters of it that are shown beside the bar."""
_TAIL = 4096
"""Bytes at the end of what was printed, among which the last line is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One process from its start to its end.

    Attributes:
        lines: What it found; none where it did not come to its end.
        code: Its exit code.
        wall: Seconds.
        cpu: Seconds, user and system, its children with it.
        peak: Bytes that it and its children held at most at one moment.
        said: The last that it had to say, where it did not come to its end.
    """

    lines: tuple[Line, ...]
    code: int
    wall: float
    cpu: float
    peak: int
    said: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything was found that is wanted."""
        return not self.code and bool(self.lines) and all(line.ok for line in self.lines)


def chosen(only: str) -> tuple[str, ...]:
    """Names of benchmarks.

    Args:
        only: Names or their beginnings, with commas between them; empty: all.

    Raises:
        ValueError: Names what there is not, and what there is.
    """
    asked = [part.strip() for part in only.split(",") if part.strip()]
    lost = [part for part in asked if not any(name.startswith(part) for name in BENCHMARKS)]
    if lost:
        raise ValueError(f"there is no benchmark {', '.join(map(repr, lost))}; there are: {', '.join(BENCHMARKS)}")
    meant = [part if part in BENCHMARKS else f"{part}*" for part in asked]  # a whole name is no beginning of another
    return tuple(name for name in BENCHMARKS if not asked or any(fnmatchcase(name, part) for part in meant))


def order(names: Sequence[str], rounds: int | None = None) -> list[str]:
    """Names in the order in which they are run: round after round."""
    wanted = {name: BENCHMARKS[name] if rounds is None else rounds for name in names}
    return [name for turn in range(max(wanted.values(), default=0)) for name in names if turn < wanted[name]]


def run(command: Sequence[str], printed: Path, told: Callable[[str], None] = lambda _line: None) -> Run:
    """One benchmark; what it prints goes into a file, its errors into one beside it.

    Args:
        command: That starts it.
        printed: The file.
        told: What it prints, the last line of it, a few times a second.
    """
    began = time.monotonic()
    with printed.open("wb") as out, printed.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
        with _watched(process.pid, lambda: told(_newest(printed))) as seen:
            _, status, used = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    text = printed.read_text("utf-8", errors="replace")
    found = last(text)
    said = "" if found else (printed.with_suffix(".err").read_text("utf-8", errors="replace").strip() or text.strip())
    said = said.rpartition("\n")[2]
    if code < 0 and found is None:
        said = f"ended by signal {-code}, after: {said}"
    return Run(
        lines=() if found is None else lines(found),
        code=code or int(found is not None and found.get("ok") is not True),
        wall=time.monotonic() - began,
        cpu=used.ru_utime + used.ru_stime,
        # The kernel knows the peak of one process exactly, and what several held together only when one looks.
        peak=max(used.ru_maxrss * 1024, *seen),
        said=said[:300],
    )


def _newest(printed: Path) -> str:
    """The last line of what was printed, or of the errors beside it, whichever came later."""
    files = sorted((printed, printed.with_suffix(".err")), key=lambda path: path.stat().st_mtime_ns)
    for path in reversed(files):
        with path.open("rb") as read:
            read.seek(max(0, path.stat().st_size - _TAIL))
            text = read.read().decode("utf-8", errors="replace").replace("\r", "\n").strip()  # a bar rewrites its line
        if text:
            return text.rpartition("\n")[2].strip()
    return ""


@contextmanager
def _watched(number: int, every: Callable[[], None]) -> Iterator[list[int]]:
    seen, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(_LOOK):
            seen.append(resident(number))
            every()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def lines(found: Mapping[str, Any]) -> tuple[Line, ...]:
    """The rows of the table in a JSON line; none where it has none."""
    given = found.get("lines")
    names = ("what", "value", "limit", "least", "told")
    every = given if isinstance(given, list) else []
    return tuple(Line(**{name: one[name] for name in names if name in one}) for one in every)


def together(runs: Sequence[Run]) -> Run:
    """The median of the rounds of one benchmark; all of them have to have come to their end."""
    broken = next((one for one in runs if not one.lines), None)
    if broken is not None:
        return broken
    every: dict[str, list[Line]] = {}
    for line in (line for one in runs for line in one.lines):
        every.setdefault(line.what, []).append(line)
    found = tuple(_middle(rounds) for rounds in every.values())
    return replace(
        runs[0],
        lines=found,
        # A limit that is kept in the median is kept; whatever else went wrong once went wrong.
        code=max((one.code for one in runs if all(line.ok for line in one.lines)), default=0),
        wall=statistics.median(one.wall for one in runs),
        cpu=statistics.median(one.cpu for one in runs),
        peak=max(one.peak for one in runs),
    )


def _middle(rounds: Sequence[Line]) -> Line:
    """The round in the middle; of two, the worse one. What must never happen must not in any of them."""
    ranked = sorted(rounds, key=lambda line: (line.strain, -line.value if line.least else line.value))
    return ranked[-1 if rounds[0].limit == 0 else len(ranked) // 2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them and write the page.

    Raises:
        SystemExit: 1 when a limit is not kept or a benchmark did not come to its end; 2 for a name that is none.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--only", default="", help="names or their beginnings, with commas between them")
    parser.add_argument("--rounds", type=int, help="as often as this, each of them")
    asked = parser.parse_args(arguments)
    try:
        names = chosen(asked.only)
    except ValueError as error:
        parser.error(str(error))
    FOLDER.mkdir(exist_ok=True)
    machine, runs = bench_page.machine(), dict[str, list[Run]]()
    for name, one in _progress(order(names, asked.rounds)):
        runs.setdefault(name, []).append(one)
    found = {name: together(rounds) for name, rounds in runs.items()}
    for name, one in found.items():
        bench_page.write(bench_page.block(name, one, rounds=len(runs[name]), machine=machine), name)
    raise SystemExit(int(not all(one.ok for one in found.values())))


def _progress(names: Sequence[str]) -> Iterator[tuple[str, Run]]:
    """Run one after the other, and show how far it is."""
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(names))
        for number, name in enumerate(names):
            which, printed = f"{name} ({number + 1} of {len(names)})", FOLDER / f"{name}.txt"
            progress.update(task, description=which)

            def told(line: str, which: str = which) -> None:
                progress.update(task, description=escape(f"{which}: {line[:_WIDE]}" if line else which))

            one = run([sys.executable, "-u", "-m", f"benchmarks.{name}"], printed, told)
            console.rule(f"{name}, {one.wall:.0f} s")
            console.print(
                printed.read_text("utf-8", errors="replace").rstrip(), markup=False, highlight=False, soft_wrap=True
            )
            if not one.lines:
                console.print(f"did not come to its end: {one.said}", style="red", markup=False)
            progress.advance(task)
            yield name, one


if __name__ == "__main__":
    main()
