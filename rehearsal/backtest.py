"""A policy on its own history, in memory: ``make backtest POLICY=... [DATA=...] [GRID=...]``.

The rows of the policy's source are played day by day through the product's own functions, without MLflow, Prefect or a
server, and hindsight tells which retrainings were worth it, and which never came. With a grid every combination is
played on the same rows; what does not depend on it is computed once. `make replay` plays the real flows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rehearsal import grid as grids
from rehearsal.churn import write_customers
from rehearsal.grid import Choice, GridError
from rehearsal.played import Played, Schedule, plain, play_all, schedule
from tasks.data import DataError, Dataset, load, validate
from tasks.masking import mask
from tasks.plugins import PluginError
from tasks.policy import Policy
from tasks.stores import Stores
from tasks.units import parse_duration

FOLDER = Path(".backtest")
GENERATED = Path("policies/churn.yaml")
"""The policy whose data the backtest makes itself, as the demo does."""
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def history(policy: Policy) -> Dataset:
    """All rows of the policy's source, checked as the flow checks those of a training.

    Raises:
        DataError: Lists every problem.
    """
    rows = load(policy, Stores.from_environment(), start=EARLIEST, end=LATEST, remember=False)
    if not len(rows):
        raise DataError(f"data.source: {mask(policy.data.source)} has no rows; nothing can be played")
    validate(rows, policy)
    return rows


def backtest(
    policy: str,
    *,
    data: str | None = None,
    grid: str | None = None,
    every: str = "1d",
    first: float = 0.15,
    window: str | None = None,
    labels_after: str | None = None,
    jobs: int = 1,
    environment: Mapping[str, str] = os.environ,
    console: Console | None = None,
) -> tuple[Policy, Schedule, tuple[Played, ...]]:
    """Everything that ``make backtest`` does but the printing.

    Args:
        policy: A path, or the name of a model.
        data: Another source with the same columns.
        grid: As :func:`rehearsal.grid.parsed` reads it; None: the policy as it is.
        every: Between two evaluations.
        first: Share of the rows that are there when the first model is made.
        window: Length of the windows of the table; None: a 26th of what is played.
        labels_after: A row's label is known so long after the row; None: at once.
        jobs: Processes.
        environment: As for :func:`tasks.policy_file.load`.
        console: Where to show how far it is; None: nowhere.

    Returns:
        The policy as it is, the schedule, and what was played, in the order of the grid.

    Raises:
        GridError: Lists every problem of the policy, of the grid and of the options, before anything is read.
        DataError: Lists every problem of the rows.
    """
    problems: list[str] = []
    step = _length("--every", every, problems) or timedelta(days=1)
    length = None if window is None else _length("--window", window, problems)
    late = None if labels_after is None else _length("--labels-after", labels_after, problems)
    if not 0 < first < 1:
        problems.append(f"--first {first} is no share; give one between 0 and 1, such as 0.15")
    if jobs < 1:
        problems.append(f"--jobs {jobs}: give 1 or more")
    base, chosen = _policies(policy, grid, data, environment, problems)
    rows = history(base)
    when = schedule(rows, every=step, first=first, window=length, labels=late or timedelta(0))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=console is None) as progress:
        bar = progress.add_task(f"evaluations of {base.model}", total=len(chosen) * len(when.moments))
        return base, when, play_all(chosen, rows, when, base, jobs=jobs, told=lambda more: progress.advance(bar, more))


def _length(option: str, text: str, problems: list[str]) -> timedelta | None:
    try:
        found = parse_duration(text)
    except ValueError as error:
        problems.append(f"{option}: {error}")
        return None
    if found <= timedelta(0):
        problems.append(f"{option} {text} is no time at all; write 1d or longer")
        return None
    return found


def _policies(
    policy: str, grid: str | None, data: str | None, environment: Mapping[str, str], problems: list[str]
) -> tuple[Policy, tuple[Choice, ...]]:
    """The policy as it is, and the combinations; with what was wrong before, every problem in one error."""
    parsed: dict[str, tuple[str, ...]] = {}
    try:
        parsed = {} if grid is None else grids.parsed(grid)
    except GridError as error:
        problems += error.problems
    try:
        base, chosen = grids.choices(policy, parsed, source=data, environment=environment)
    except GridError as error:
        raise GridError([*problems, *error.problems]) from None
    if problems:
        raise GridError(problems)
    return base, chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, play, and show the tables and the pictures.

    Raises:
        SystemExit: With every problem of policy, grid and data, when they cannot be played.
    """
    options = _options(arguments)
    console = Console(width=160, stderr=options.json) if not Console().is_terminal else Console(stderr=options.json)
    from rehearsal import backtest_page as pages  # noqa: PLC0415  a second of matplotlib, after the options are read

    try:
        base, when, played = backtest(
            options.policy,
            data=options.data or _generated(options.policy),
            grid=options.grid,
            every=options.every,
            first=options.first,
            window=options.window,
            labels_after=options.labels_after,
            jobs=options.jobs,
            console=console,
        )
    except (GridError, DataError, PluginError, OSError) as error:
        console.print(f"[red]{type(error).__name__}[/]", escape(str(error)))
        raise SystemExit(1) from error
    pages.show(console, base, when, played)
    for path in pages.pictures(base, played, FOLDER):
        console.print(f"picture: {path}", highlight=False)
    if options.write:
        Path(options.write).write_text(pages.markdown(options.policy, base, when, played), encoding="utf-8")
    if options.json:
        print(json.dumps(plain(base, when, played)))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rehearsal.backtest", description=__doc__)
    parser.add_argument("--policy", required=True, help="a policy file")
    parser.add_argument("--data", help="another source with the same columns")
    parser.add_argument("--grid", help="values to combine: triggers.age=30d,90d triggers.drift.psi=0.1,0.2")
    parser.add_argument("--every", default="1d", help="between two evaluations (1d)")
    parser.add_argument("--first", type=float, default=0.15, help="share of the rows before the first model (0.15)")
    parser.add_argument("--window", help="length of the windows of the table; empty: a 26th of what is played")
    parser.add_argument("--labels-after", help="a row's label is known so long after it, such as 7d; empty: at once")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one per processor)")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON line; the table on stderr")
    parser.add_argument("--write", help="a Markdown file to keep the tables in")
    return parser.parse_args(arguments)


def _generated(policy: str) -> str | None:
    """The demo's customers, where the policy is the demo's and its data are not there."""
    if Path(policy) != GENERATED or os.environ.get("BACKSTOP_DEMO_DATA"):
        return None
    FOLDER.mkdir(exist_ok=True)
    write_customers(FOLDER / "churn.csv")
    return str(FOLDER / "churn.csv")


if __name__ == "__main__":
    main()
