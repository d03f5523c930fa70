"""History through a policy: ``make replay POLICY=...``.

The rows of the policy's source are played in time order, window by window, through the real flows: what serves answers
the window's rows, their labels become known, the watch ticks, and the retrain flow decides. Beside it stand the two
simplest things one could do: keep the first model for ever, and retrain in every window.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rehearsal.demo import prepare, settle
from rehearsal.window import Window

FOLDER = Path(".replay")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, play, print the table, and write it down when asked to.

    Raises:
        SystemExit: With one sentence, when the policy or the data cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m rehearsal.replay", description=__doc__)
    parser.add_argument("--policy", required=True, help="a policy file")
    parser.add_argument("--data", help="another source with the same columns")
    parser.add_argument("--windows", type=int, default=8, help="windows after the first model (8)")
    parser.add_argument("--first", type=float, default=0.15, help="share of the rows before the first model (0.15)")
    parser.add_argument("--write", help="a Markdown file to keep the table in")
    options = parser.parse_args(arguments)
    prepare(FOLDER)
    settle(FOLDER)
    from rehearsal.story import derive  # noqa: PLC0415  reads the environment that was just set

    policy = options.policy
    console = Console(width=150) if not Console().is_terminal else Console()
    try:
        if options.data:
            policy = derive(Path(policy), FOLDER / "policy.yaml", source=str(Path(options.data).resolve()))
        windows = asyncio.run(play(console, policy, windows=options.windows, first=options.first))
    except (ValueError, OSError) as error:
        console.print(f"[red]{type(error).__name__}[/]", escape(str(error)))
        raise SystemExit(1) from error
    console.print(_table(windows))
    console.print(summary(windows))
    if options.write:
        Path(options.write).write_text(markdown(options.policy, windows), encoding="utf-8")


async def play(console: Console, policy: str, *, windows: int, first: float) -> list[Window]:
    """Play the history.

    Args:
        console: For the progress.
        policy: Path of the policy.
        windows: So many of equal numbers of rows, after the first model.
        first: Share of the rows that are there when the first model is made.

    Raises:
        ValueError: When the rows are too few, or no first model gets through the gate.
    """
    from flows.retrain import retrain  # noqa: PLC0415
    from flows.watch import watch  # noqa: PLC0415
    from rehearsal.players import Players  # noqa: PLC0415
    from rehearsal.story import Stage, everything  # noqa: PLC0415

    stage = Stage(console, policy, everything(policy))
    begin = stage.moment(first)
    report = await stage.run("the first model ...", retrain, as_of=begin)
    if report.decision != "first-promoted":
        raise ValueError(f"no first model: {report.line}")
    players = Players(stage, begin)
    played: list[Window] = []
    edges = [stage.moment(first + (1 - first) * number / windows) for number in range(windows)]
    for number, (start, end) in enumerate(zip(edges, [*edges[1:], stage.end], strict=True), start=1):
        window = players.serve(number, start, end)
        await stage.run(f"window {number} of {windows}: the watch ...", watch, as_of=end)
        report = await stage.run(f"window {number} of {windows}: retrain ...", retrain, as_of=end)
        played.append(_with(window, report))
        console.print(f"[dim]{end:%Y-%m-%d}[/] {report.decision}: {report.line}", highlight=False)
    return played


def _with(window: Window, report: Any) -> Window:
    by_judge = {verdict.judge: verdict for verdict in report.verdicts}
    fired = (
        ", ".join(finding.name for finding in by_judge["triggers"].having("breach")) if "triggers" in by_judge else ""
    )
    gate = by_judge["gate"].decision if "gate" in by_judge else ""
    return replace(window, fired=fired or "-", decision=report.decision, gate=gate or "-")


HEADERS = (
    "#", "from", "to", "rows", "version", "frozen", "Backstop", "every window", "fired at its end", "gate", "decision",
)  # fmt: skip


def _cells(window: Window) -> tuple[str, ...]:
    metrics = (f"{value:.3f}" for value in (window.frozen, window.served, window.every))
    days = (f"{moment:%Y-%m-%d}" for moment in (window.start, window.end))
    tail = (window.fired, window.gate, window.decision)
    return (str(window.number), *days, str(window.rows), window.version, *metrics, *tail)


def _table(windows: Sequence[Window]) -> Table:
    table = Table(*HEADERS, title="What served, how well, and what was decided")
    for window in windows:
        table.add_row(*_cells(window))
    return table


def means(windows: Sequence[Window]) -> tuple[float, float, float]:
    """Mean metric of the frozen model, of Backstop and of retraining every window; every window counts the same."""
    return tuple(
        sum(getattr(window, name) for window in windows) / len(windows) for name in ("frozen", "served", "every")
    )


def retrains(windows: Sequence[Window]) -> int:
    """Windows after which a model was trained."""
    return sum(window.gate != "-" for window in windows)


def summary(windows: Sequence[Window]) -> str:
    """Two sentences."""
    frozen, served, every = means(windows)
    promoted = sum(window.decision == "promoted" for window in windows)
    return (
        f"Mean metric: frozen {frozen:.3f}, Backstop {served:.3f}, retrained every window {every:.3f}. "
        f"Backstop trained {retrains(windows)} times in {len(windows)} windows and promoted {promoted}."
    )


def markdown(policy: str, windows: Sequence[Window]) -> str:
    """The table as a page of the documentation."""
    rows = "\n".join(f"| {' | '.join(_cells(window))} |" for window in windows)
    return (
        f"# Replay of `{policy}`\n\nWritten by `make replay POLICY={policy}`.\n\n{summary(windows)}\n\n"
        f"| {' | '.join(HEADERS)} |\n|{'---|' * len(HEADERS)}\n{rows}\n"
    )


if __name__ == "__main__":
    main()
