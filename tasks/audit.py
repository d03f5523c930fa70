"""Audit: who served at a moment, since when, decided by what and on which evidence; and whether the ledger is intact.

``python -m tasks.audit churn`` prints the history of a model and checks it, ``--at 2026-05-01T03:00Z`` answers for one
moment. Nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from tasks import retrial
from tasks.glance import Glance
from tasks.ledger import Decision, Ledger
from tasks.outbox import Message
from tasks.policy import as_utc
from tasks.progress import Progress, on_terminal, silent
from tasks.records import Finding, Outcome, Transition, to_plain
from tasks.report import ledger_lines
from tasks.stores import Stores

if TYPE_CHECKING:
    from tasks.registry import Registry

_MARKS: dict[Outcome, str] = {"ok": "[green]ok[/]", "breach": "[red]broken[/]", "unknown": "[yellow]unknown[/]"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Who served at a moment, and why.

    Attributes:
        transition: That put it into Production; its version is the one that served, its ``applied_at`` since when.
        until: When another one took its place, or nothing did; None: it serves to this day.
        decisions: Everything that was decided on the transition's trail before it took effect, the oldest first. Each
            names the digest of the evidence that it rests on.
    """

    transition: Transition
    until: datetime | None
    decisions: tuple[Decision, ...]


def account(ledger: Ledger, model: str, moment: datetime) -> Account | None:
    """Who served at a moment, and why; None when nothing did.

    Raises:
        ValueError: For a naive datetime.
    """
    found = ledger.serving_at(model, moment)
    if found is None:
        return None
    decided = [one for one in ledger.decisions(model, trail=found.trail) if one.seq < found.seq]
    return Account(transition=found, until=ledger.until(found), decisions=tuple(reversed(decided)))


def check(ledger: Ledger, model: str, progress: Progress = silent) -> tuple[Finding, ...]:
    """Whether the ledger's rows are as they were written, and its verdicts follow from their evidence."""
    misfits = ledger.misfits(model, progress)
    chain = [Finding(name="chain", outcome="breach", reason=misfit) for misfit in misfits] or [
        Finding(name="chain", outcome="ok", reason="every row is as it was written, none is missing, none was put in")
    ]
    return (*chain, *retrial.retry_all(ledger, model, progress))


def compare(ledger: Ledger, registry: Registry, model: str) -> tuple[Finding, ...]:
    """Whether the digests that were put into MLflow's tags are still those of the ledger's links.

    Who writes the whole chain anew after a change fits in the ledger, and differs here.
    """
    return tuple(_compared(ledger, registry, model))


def _compared(ledger: Ledger, registry: Registry, model: str) -> Iterator[Finding]:
    for version, (position, told) in registry.links(model).items():
        where = f"the tag of version {version} in MLflow"
        found = ledger.link(model, position)
        if found == told:
            yield Finding(name="anchor", outcome="ok", reason=f"{where} fits link {position} of the ledger")
        else:
            has = "is missing" if found is None else f"is {found[:12]}"
            reason = f"{where} says that link {position} was {told[:12]}, and it {has}: the ledger was written anew"
            yield Finding(name="anchor", outcome="breach", reason=reason)


def main(
    model: Annotated[str, typer.Argument(help="Registered name.")],
    at: Annotated[str, typer.Option(help="Who served at this moment, such as 2026-05-01T03:00Z; empty: all.")] = "",
    *,
    mlflow: Annotated[bool, typer.Option(help="Compare with MLflow too; its import takes seconds.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell who served, since when, decided by what; and whether the ledger is intact.

    Raises:
        typer.BadParameter: For a moment that cannot be read or has no zone, or a model without a history.
        typer.Exit: 1 when something was changed behind the ledger's back, or a verdict no longer follows.
    """
    stores = Stores.from_environment()
    with Ledger.open(stores.ledger) as ledger:
        if model not in ledger.models():
            if decided := ledger.decisions(model, limit=1):
                _never_served(model, decided[0], as_json=as_json)
                return
            known = ", ".join(ledger.models()) or "none at all"
            raise typer.BadParameter(f"{model!r} has no history in this ledger; it knows {known}")
        if at:
            _answer(ledger, model, _moment(at), as_json=as_json)
            return
        with on_terminal() as progress:
            findings = (*check(ledger, model, progress), *_with_mlflow(ledger, stores, model, asked=mlflow))
        _show(ledger, model, findings, as_json=as_json)
    if any(finding.outcome == "breach" for finding in findings):
        raise typer.Exit(1)


def _never_served(model: str, last: Decision, *, as_json: bool) -> None:
    """A model whose candidates were all refused has decisions, and no history."""
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(to_plain({"history": [], "findings": [], "undelivered": []})))
        return
    Console(soft_wrap=True, highlight=False).print(
        f"{model}: nothing was ever in Production or Staging. The last decision, {_told(last.at)}: "
        f"{last.verdict.judge} {last.verdict.decision}: {last.verdict.reason}\n"
        f"`make trail ID={model}` tells the story of the last candidate.",
        markup=False,
    )


def _with_mlflow(ledger: Ledger, stores: Stores, model: str, *, asked: bool) -> Iterator[Finding]:
    if not asked:
        return
    glance = Glance(stores.tracking)
    if glance.differs(ledger.standing(model)):
        reason = "MLflow has other stages or aliases than the ledger; the next flow puts that right, as the policy says"
        yield Finding(name="registry", outcome="breach", reason=reason)
    elif glance.blind:
        yield Finding(name="registry", outcome="unknown", reason=glance.blind)
        return
    else:
        yield Finding(name="registry", outcome="ok", reason="MLflow's stages and aliases are those of the ledger")
    from tasks.registry import Registry  # noqa: PLC0415  importing MLflow takes seconds

    yield from compare(ledger, Registry(stores), model)


def _moment(text: str) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise typer.BadParameter(f"--at {text!r}: {error}; write it as 2026-05-01T03:00Z") from error


def _answer(ledger: Ledger, model: str, moment: datetime, *, as_json: bool) -> None:
    found = account(ledger, model, moment)
    console = Console(soft_wrap=True)
    if as_json:
        console.print_json(json.dumps(to_plain(found)))
        return
    if found is None:
        console.print(f"Nothing of {model} was in Production at {_told(moment)}.")
        return
    moved = found.transition
    until = "to this day" if found.until is None else f"until {_told(found.until)}"
    # A reason may hold brackets, which rich would take for a colour.
    console.print(f"Version {moved.version} of {model} served at {_told(moment)}", style="bold", markup=False)
    lines = [
        f"since {_told(moved.applied_at)} {until}",
        f"{moved.action} by {moved.actor} (transition {moved.seq}, trail {moved.trail}): {moved.reason}",
    ]
    for one in found.decisions:
        on = "no evidence kept" if one.evidence is None else f"evidence {one.evidence[:12]}"
        lines.append(f"  {one.verdict.judge} {one.verdict.decision} ({on}): {one.verdict.reason}")
    console.print("\n".join(lines), markup=False, highlight=False)


def _show(ledger: Ledger, model: str, findings: tuple[Finding, ...], *, as_json: bool) -> None:
    console = Console(soft_wrap=as_json)
    history = ledger.history(model)
    if as_json:
        left = [_left(message) for message in ledger.outbox.undelivered(model)]
        console.print_json(json.dumps(to_plain({"history": history, "findings": findings, "undelivered": left})))
        return
    for line in ledger_lines(history):
        console.print(line, soft_wrap=True)
    fine = sum(finding.outcome == "ok" for finding in findings)
    for finding in findings:
        if finding.outcome != "ok":
            console.print(f"{_MARKS.get(finding.outcome, finding.outcome)} {finding.name}: {escape(finding.reason)}")
    console.print(f"{fine} of {len(findings)} checks of rows, evidence and MLflow are in order.")
    for message in ledger.outbox.undelivered(model):
        console.print(_left(message), style="yellow", markup=False, highlight=False)


def _left(message: Message) -> str:
    """What a sink has not taken."""
    becomes = "given up" if message.state == "given up" else f"tried again after {_told(message.due)}"
    of = f"of {_told(message.at)}, trail {message.trail}"
    return f"not delivered to {message.sink}, {becomes}: {message.title} ({of})"


def _told(moment: datetime | None) -> str:
    return "not" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


if __name__ == "__main__":
    typer.run(main)
