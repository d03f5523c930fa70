"""The story that the demo tells: each scene moves the clock, plays what happens outside, and runs a real flow."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.markup import escape

from flows.promote import promote
from flows.retrain import retrain
from flows.watch import watch
from rehearsal.traffic import HEALTHY, Faults, serve, spread
from tasks import report as reports
from tasks.case import Case, open_case
from tasks.data import Dataset, load
from tasks.policy_file import load as load_policy
from tasks.records import Report

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
QUIET, CHANGED, BROKEN, LAST = 0.55, 0.74, 0.80, 0.95
"""Shares of the rows that have come in when the scenes of the story play; the first model is made at half of them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What every scene needs.

    Attributes:
        console: To tell on.
        policy: Path of the policy.
        rows: Everything that will ever have happened, oldest first.
    """

    console: Console
    policy: str
    rows: Dataset

    def moment(self, share: float) -> datetime:
        """When this share of the rows has come in."""
        position = min(len(self.rows) - 1, int(share * len(self.rows)))
        return self.rows.time[position].to_pydatetime()

    @property
    def end(self) -> datetime:
        """Just after the last row."""
        return self.rows.time[-1].to_pydatetime() + timedelta(microseconds=1)

    def case(self, now: datetime) -> Case:
        """To play the outside world with."""
        return open_case(load_policy(self.policy), actor="the demo", now=now)

    def title(self, number: int, text: str) -> None:
        """Begin a scene."""
        self.console.print(f"\n[bold cyan]{number}  {escape(text)}[/]")

    def say(self, report: Report) -> Report:
        """What was looked at, and one line for the decision, with its numbers."""
        self.checks(report)
        colour = {"promoted": "green", "first-promoted": "green", "healthy": "green", "rolled-back": "red"}
        colour |= {"gate-failed": "red", "shadow-rejected": "red"}
        self.console.print(
            f"   [dim]{report.at:%Y-%m-%d %H:%M}[/] [bold {colour.get(report.decision, 'yellow')}]{report.decision}[/] "
            f"{escape(report.line.partition('; ')[0] if report.decision == 'watching' else report.line)}",
            highlight=False,
        )
        return report

    async def run(self, what: str, flow: Callable[..., Awaitable[Any]], **options: Any) -> Any:
        """Run a flow while the terminal says what is going on."""
        with self.console.status(what):
            return await flow(policy=self.policy, **options)

    async def watched(self, since: datetime, *, faults: Faults = HEALTHY) -> list[Report]:
        """Half an hour of traffic after a promotion, and the ticks of the watch, until one of them settles it."""
        policy = load_policy(self.policy)
        length = policy.health.watch
        newest = max(400, 2 * policy.health.min_requests)
        sample = self.rows.between(EARLIEST, since).take(slice(-newest, None))
        case = self.case(since)
        with case.ledger:
            serve(case, spread(sample, since, length), faults=faults, labels=False)
        reports: list[Report] = []
        for share in (0.1, 0.5, 1.0):
            now = since + length * share + timedelta(seconds=1)
            reports = await self.run("watching ...", watch, as_of=now)
            self.say(reports[0])
            if reports[0].decision in {"rolled-back", "held"}:
                break
        return reports

    def checks(self, report: Report) -> None:
        """What the triggers, the gate and the shadow looked at, a line each."""
        marks = {"ok": "[green]ok     [/]", "breach": "[red]breach [/]", "unknown": "[yellow]unknown[/]"}
        for verdict in report.verdicts:
            if verdict.judge == "triggers" and report.decision != "kept":
                self.console.print(f"      [dim]{escape(verdict.reason)}[/]", highlight=False)
            for finding in verdict.findings if verdict.judge in {"gate", "shadow"} else ():
                mark = marks.get(finding.outcome, "[dim]exempt [/]")
                text = f"[dim]{escape(finding.name)}: {escape(finding.reason)}[/]"
                self.console.print(f"      {mark} {text}", highlight=False)


def everything(policy: str) -> Dataset:
    """All rows of the policy's source.

    Raises:
        ValueError: When they are too few to tell a story with.
    """
    loaded = load_policy(policy)
    case = open_case(loaded, actor="the demo")
    with case.ledger:
        rows = load(loaded, case.stores, start=EARLIEST, end=LATEST, remember=False)
    if len(rows) < 1000:
        raise ValueError(f"{len(rows)} rows in {loaded.data.source} are too few for the story; it takes 1,000 or more")
    return rows


async def first_model(stage: Stage) -> None:
    """Nothing is in Production yet: the absolute checks decide alone."""
    stage.title(1, "The first model")
    now = stage.moment(0.5)
    what = "starting the embedded Prefect server (half a minute, once), fitting and judging ..."
    report = stage.say(await stage.run(what, retrain, as_of=now))
    if report.decision == "first-promoted":
        await stage.watched(now)


async def quiet_day(stage: Stage) -> None:
    """A scheduled evaluation on a day on which nothing has changed."""
    stage.title(2, "A quiet day")
    stage.say(await stage.run("looking at the signals ...", retrain, as_of=stage.moment(QUIET)))


async def change(stage: Stage) -> None:
    """The world moves; users keep sending requests, and their labels come in."""
    stage.title(3, "The world changes")
    now = stage.moment(CHANGED)
    case = stage.case(now)
    window = case.policy.shadow.window if case.policy.shadow else timedelta(days=7)
    with case.ledger:
        sent = serve(case, stage.rows.between(now - window, now))
    stage.console.print(f"   [dim]{sent:,} requests were answered and logged in the last {window.days} days[/]")
    report = stage.say(await stage.run("looking, fitting, judging, comparing ...", retrain, as_of=now))
    if report.decision == "promoted":
        await stage.watched(now)


async def bad_candidate(stage: Stage) -> None:
    """An upstream job scrambles the label column; a retraining on it must not get through."""
    stage.title(4, "A bad candidate: four labels in ten are wrong")
    now = stage.moment(BROKEN)
    policy = scrambled(stage)
    with stage.console.status("fitting and judging ..."):
        report = await retrain(policy=policy, as_of=now, force=True, reason="an import finished and asked for it")
    stage.say(report)


async def bad_in_service(stage: Stage) -> None:
    """A version that passed everything turns bad where no test could see it; the watch takes it back."""
    stage.title(5, "A version that turns bad in service")
    now = stage.moment(LAST)
    case = stage.case(now)
    window = case.policy.shadow.window if case.policy.shadow else timedelta(days=7)
    with case.ledger:
        serve(case, stage.rows.between(now - window, now))
    report = stage.say(
        await stage.run(
            "fitting, judging, comparing ...", retrain, as_of=now, force=True, reason="a refresh before the season"
        )
    )
    if report.decision != "promoted" and report.candidate is not None:
        stage.console.print("   [dim]the demo needs a new version in service, so a person promotes it by hand[/]")
        stage.say(
            await stage.run(
                "promoting ...",
                promote,
                as_of=now,
                reason="the demo's next scene",
                override=True,
                version=report.candidate,
                actor="the demo",
                dry_run=False,
            )
        )
    stage.console.print("   [dim]... and now every third request fails, and the others take two seconds[/]")
    await stage.watched(now, faults=Faults(errors=0.35, latency=2.0))


def scrambled(stage: Stage) -> str:
    """A copy of the policy that reads a copy of the rows, in which four labels in ten were swapped at random."""
    policy = load_policy(stage.policy)
    draw = np.random.default_rng(7)
    frame = stage.rows.features.copy()
    labels = stage.rows.target.to_numpy(dtype=object).copy()
    chosen = draw.random(len(labels)) < 0.4
    labels[chosen] = _others(labels[chosen], draw)
    frame["at"], frame[policy.data.target] = stage.rows.time, labels
    folder = Path(os.environ["BACKSTOP_HOME"])
    frame.to_csv(folder / "data" / "scrambled.csv", index=False)
    return derive(
        Path(stage.policy),
        folder / "scrambled.variant",  # one model has one policy in a folder
        source=str(folder / "data" / "scrambled.csv"),
        timestamp="at",
        history=False,
        drop=[],
        key=[],
        table=None,
        query=None,
    )


def _others(labels: np.ndarray[Any, Any], draw: np.random.Generator) -> np.ndarray[Any, Any]:
    """For each label another one of those that occur; of numbers, any of them."""
    known = list(dict.fromkeys(labels.tolist()))
    if len(known) > 20:
        return draw.permutation(labels)
    return np.array([known[(known.index(label) + 1) % len(known)] for label in labels], dtype=object)


def derive(policy: Path, copy: Path, **data: Any) -> str:
    """A copy of a policy file with other settings in its data section; returns its path."""
    raw = yaml.safe_load(policy.read_text(encoding="utf-8"))
    raw["data"] |= data
    copy.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return str(copy)


def ending(stage: Stage) -> None:
    """The ledger, and where to look further."""
    case = stage.case(stage.moment(LAST))
    with case.ledger:
        stage.console.print()
        for line in reports.ledger_lines(case.ledger.history(case.model)):
            stage.console.print(line, soft_wrap=True)
    home = os.path.relpath(os.environ["BACKSTOP_HOME"])
    stage.console.print("\nLook at what was made:")
    stage.console.print(f"  [bold]BACKSTOP_HOME={home} make mlflow-ui[/]          runs, versions, profiles, reasons")
    stage.console.print(f"  [bold]PREFECT_HOME={home}/prefect make prefect-ui[/]   flow runs, states, decision reports")


async def tell(console: Console, policy: str) -> None:
    """All scenes in order.

    Raises:
        ValueError: When the rows are too few to tell a story with.
    """
    stage = Stage(console, policy, everything(policy))
    await first_model(stage)
    await quiet_day(stage)
    await change(stage)
    await bad_candidate(stage)
    await bad_in_service(stage)
    ending(stage)
