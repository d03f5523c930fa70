"""What a backtest found, as tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rehearsal.hindsight import Alarm, Stay, Yardstick
from rehearsal.played import Played, Schedule
from rehearsal.player import left_out
from tasks.canvas import CANDIDATE, FAINT, LIMIT, PRODUCTION, rendered
from tasks.decide import phrase
from tasks.decide.metrics import is_loss
from tasks.policy import Policy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADERS = (
    *("#", "policy", "retrains", "right", "false", "unknown", "promoted", "harmful", "missed", "days until found"),
    *("served", "frozen", "retrained every window"),
)
WINDOW_HEADERS = ("from", "to", "rows", "version", "frozen", "served", "retrained then", "served was")
ALARM_HEADERS = ("at", "fired", "decision", "gain on the rows that followed", "rows", "alarm")
_WORTH = {"right": CANDIDATE, "false": LIMIT, "unknown": FAINT}
_NAMED = 40
"""Combinations that are named in the picture of a grid."""


def show(console: Console, base: Policy, when: Schedule, played: Sequence[Played]) -> None:
    """Print everything; the windows and alarms of a single policy only."""
    title = f"{base.model}: {when.begin:%Y-%m-%d} to {when.end:%Y-%m-%d}, {len(when.moments)} evaluations"
    console.print(_table(HEADERS, [_cells(number, one) for number, one in enumerate(played, 1)], title))
    if len(played) == 1:
        console.print(_table(ALARM_HEADERS, [_alarm(one) for one in played[0].alarms], "Retrainings"))
        console.print(_table(WINDOW_HEADERS, [_stay(one) for one in played[0].windows], "Windows"))
    for sentence in foot(base, when, played):
        console.print(f"[dim]{sentence}[/]", highlight=False)


def _table(headers: Sequence[str], rows: Sequence[tuple[str, ...]], title: str) -> Table:
    table = Table(*headers, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def _cells(number: int, one: Played) -> tuple[str, ...]:
    counts = (len(one.alarms), *(one.count(worth) for worth in ("right", "false", "unknown")))
    found = "-" if one.delay is None else f"{one.delay:.0f}"
    missed = f"{one.missed} of {len(one.stretches)}"
    told = (*map(str, counts), str(one.promotions), str(one.harmful), missed, found)
    return (str(number), one.choice.label, *told, *(_number(one.mean(name)) for name in ("served", "frozen", "oracle")))


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _alarm(one: Alarm) -> tuple[str, ...]:
    gain = "unknown"
    if one.gain is not None and one.low is not None and one.high is not None:
        gain = f"{one.gain:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
    worth = f"{one.worth}, harmful" if one.harmful else one.worth
    return (f"{one.at:%Y-%m-%d}", ", ".join(one.fired) or "-", one.decision, gain, f"{one.rows:,}", worth)


def _stay(one: Stay) -> tuple[str, ...]:
    days = (f"{moment:%Y-%m-%d}" for moment in (one.start, one.end))
    metrics = (_number(value) for value in (one.frozen, one.served, one.oracle))
    return (*days, f"{one.rows:,}", one.version or "-", *metrics, one.harm)


def foot(base: Policy, when: Schedule, played: Sequence[Played]) -> Iterator[str]:
    """What a reader has to know to read the table, one sentence each."""
    yardstick = Yardstick.of(base)
    follow = phrase.period(yardstick.follow)
    drop = f"{100 * yardstick.drop:g}%" if yardstick.relative else phrase.number(yardstick.drop)
    yield (
        f"An alarm is right when {yardstick.gain_metric} of the new model was better by {yardstick.margin:g} or more "
        f"on the rows of the next {follow}, and shown to be better; false when it is shown to have been better by less."
    )
    yield (
        f"Missed: windows in which what served lost {drop} of {yardstick.loss_metric} or more against a model "
        "retrained at their start, chance ruled out, and no retraining was begun. Each window counts the same in the "
        f"means of {yardstick.loss_metric}{' (less is better)' if is_loss(yardstick.loss_metric) else ''}."
    )
    known = f"{phrase.period(when.labels)} after their row" if when.labels else "at once"
    yield f"Not played: {'; '.join(left_out(base))}. Labels are known {known}."
    if when.every > timedelta(days=1):
        yield f"Evaluated every {phrase.period(when.every)} only."
    for number, one in enumerate(played, 1):
        if one.trouble:
            yield f"{number}: {one.trouble}"
        if one.failed:
            last = next(day for day in reversed(one.days) if day.decision == "failed")
            yield f"{number}: {one.failed} runs would have failed, the last: {last.reason}"


def markdown(policy: str, base: Policy, when: Schedule, played: Sequence[Played]) -> str:
    """The tables as a page of the documentation."""
    parts = [
        f"# Backtest of `{policy}`",
        f"{when.begin:%Y-%m-%d} to {when.end:%Y-%m-%d}, {len(when.moments)} evaluations.",
        _lines(HEADERS, [_cells(number, one) for number, one in enumerate(played, 1)]),
    ]
    if len(played) == 1:
        parts += [_lines(ALARM_HEADERS, [_alarm(one) for one in played[0].alarms])]
        parts += [_lines(WINDOW_HEADERS, [_stay(one) for one in played[0].windows])]
    return "\n\n".join([*parts, *foot(base, when, played)]) + "\n"


def _lines(headers: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}\n{body}"


def pictures(base: Policy, played: Sequence[Played], folder: Path) -> tuple[Path, ...]:
    """The history of the first policy, and of a grid a second picture that compares them all.

    Args:
        base: The policy as it is.
        played: At least one.
        folder: Is made.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metric = Yardstick.of(base).loss_metric
    made = {f"{base.model}-history.png": rendered(lambda figure: _history(figure, base.model, metric, played[0]), 3.6)}
    if len(played) > 1:
        made[f"{base.model}-grid.png"] = rendered(lambda figure: _compared(figure, base.model, metric, played), 3.4)
    for name, (_, png) in made.items():
        (folder / name).write_bytes(png)
    return tuple(folder / name for name in made)


def _history(figure: Figure, model: str, metric: str, one: Played) -> str:
    """The metric window by window, and the retrainings in the colour of what they were worth."""
    axes = figure.add_subplot()
    figure.suptitle(f"{model}, {one.choice.label}: what served", fontsize=10.5, fontweight="bold", parse_math=False)
    for name, colour, style, told in (
        ("oracle", PRODUCTION, ":", "retrained at each window's start"),
        ("frozen", FAINT, "--", "first version for ever"),
        ("served", CANDIDATE, "-", "served"),
    ):
        middles = [window.start + (window.end - window.start) / 2 for window in one.windows]
        values = [getattr(window, name) for window in one.windows]
        axes.plot(middles, [float("nan") if v is None else v for v in values], style, color=colour, label=told)  # type: ignore[arg-type]
    for window in one.windows:
        if window.harm == "worse":
            axes.axvspan(window.start, window.end, color=LIMIT, alpha=0.12, linewidth=0)  # type: ignore[arg-type]
    _marks(axes, one)
    axes.set_ylabel(f"{metric}{' (less is better)' if is_loss(metric) else ''}")
    axes.tick_params(axis="x", labelrotation=20)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
    return f"{metric} of what served, and {len(one.alarms)} retrainings."


def _marks(axes: Axes, one: Played) -> None:
    """A tick for each retraining; full height where it was promoted."""
    for worth, colour in _WORTH.items():
        found = [alarm for alarm in one.alarms if alarm.worth == worth]
        for alarm in found:
            height = 0.12 if alarm.decision == "promoted" else 0.06
            axes.axvline(alarm.at, ymax=height, color=colour, linewidth=1.6)  # type: ignore[arg-type]
        if found:
            axes.plot([], [], color=colour, linewidth=1.6, label=f"retraining, {worth}: {len(found)}")


def _compared(figure: Figure, model: str, metric: str, played: Sequence[Played]) -> str:
    """Retrainings against the metric, and false and missed alarms, of every combination by its number."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    figure.suptitle(f"{model}: {len(played)} policies", fontsize=10.5, fontweight="bold", parse_math=False)
    known: list[tuple[int, Any]] = [(number, one) for number, one in enumerate(played, 1) if one.mean("served")]
    for number, one in known:
        left.plot(len(one.alarms), one.mean("served"), "o", color=LIMIT if one.harmful else CANDIDATE)
        if len(played) <= _NAMED:
            left.annotate(str(number), (len(one.alarms), one.mean("served")), xytext=(4, 3), textcoords="offset points")
    left.set_xlabel("retrainings")
    left.set_ylabel(f"mean {metric}")
    left.margins(0.15)
    places = range(1, len(played) + 1)
    bottom = [0] * len(played)
    for told, colour, counts in (
        ("false alarms", LIMIT, [one.count("false") for one in played]),
        ("missed alarms", PRODUCTION, [one.missed for one in played]),
        ("unknown", FAINT, [one.count("unknown") for one in played]),
        ("right", CANDIDATE, [one.count("right") for one in played]),
    ):
        right.bar(places, counts, bottom=bottom, color=colour, label=told)
        bottom = [under + count for under, count in zip(bottom, counts, strict=True)]
    right.set_xlabel("policy, by its number in the table")
    right.set_ylabel("alarms")
    right.legend(loc="best")
    return f"{len(played)} policies by retrainings and {metric}."
