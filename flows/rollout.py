"""One tick of progressive delivery: read what canary and Production did, take at most one step.

Requires: a ledger and a request log (`BACKSTOP_HOME`, or `BACKSTOP_LEDGER` and `BACKSTOP_REQUESTS`) that a gateway
writes to; MLflow only when a version moves.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from prefect import flow
from prefect.client.schemas import State
from prefect.states import Completed
from pydantic import Field

from flows import blocks, events, pages
from flows.form import a_moment, a_policy, explained
from flows.limits import longest
from flows.steps import DRY_RUN, STATES, answered_for, concluded, flow_run_id, not_begun, reconciled, see_clock
from tasks import rollout as rolling
from tasks.case import Case, LedgerError, open_case
from tasks.ledger import StaleDecision
from tasks.policy import Policy
from tasks.policy_file import PolicyError, load_many
from tasks.records import Report, Standing
from tasks.report import SERIOUS, brief, tick_name

_ORDER = (
    *("aborted", "ended", "shadow-rejected", "awaiting", "first-promoted", "promoted", "canary"),
    *("stepped", "holding", "idle"),
)
"""What a tick can come to; its run is named after the first of these."""


class RolloutFailed(RuntimeError):
    """The tick failed for some models; the others were looked at.

    Attributes:
        reports: Of all models that were looked at, the failed ones with their error.
    """

    def __init__(self, reports: list[Report], broken: str) -> None:
        self.reports = reports
        failed = "; ".join(f"{report.model}: {report.error}" for report in reports if report.error)
        told = "\n".join(part for part in (failed, broken.strip()) if part)
        super().__init__(f"not every rollout could be looked at, and what could not keeps its weights: {told}")


@flow(name="rollout", timeout_seconds=longest("rollout"))
@explained
async def rollout(
    policy: Annotated[str, a_policy("A policy file, a model name, a folder, a glob, or several with commas.")],
    *,
    dry_run: Annotated[bool, Field(description="Show what would happen and change nothing.")] = False,
    as_of: Annotated[datetime | None, a_moment("Judge as of this moment, with its zone; empty: now.")] = None,
) -> list[Report]:
    """Give a canary more of the requests, all of them, or none any more, when the evidence says so.

    One run looks at many models; what fails for one is reported at the end and does not stop the others.
    """
    await pages.label(f"rollout {policy}")
    reports: list[Report] = []
    policies, broken = _readable(policy, dry_run=dry_run)
    for number, loaded in enumerate(policies):
        try:
            case = open_case(
                loaded, actor="flows.rollout", now=as_of, flow_run_id=flow_run_id(), dry_run=dry_run, block=blocks.tell
            )
        except LedgerError as error:  # all models have the same ledger, and would wait as long for the same answer
            broken += _unseen(policies[number:], error, dry_run=dry_run)
            break
        with case.ledger:
            try:
                reports.append(await answered_for(case, "rollout", _tick))
            except Exception as error:  # noqa: BLE001  one model's failure never stops the others
                reports.append(_failed(case, error))
            await events.emit(case, ())
    if serious := [report.trail for report in reports if report.decision in SERIOUS]:
        await pages.label(tick_name(reports), serious)  # otherwise the minute costs no call for a name
    return _ended(reports, broken)  # type: ignore[return-value]


def _readable(spec: str, *, dry_run: bool) -> tuple[tuple[Policy, ...], str]:
    """The policies that can be read, and what is wrong with the others.

    Raises:
        PolicyError: When none can be read.
    """
    try:
        return load_many(spec), ""
    except PolicyError as error:
        if not error.loaded:
            if not dry_run:
                not_begun("rollout", spec, error)
            raise
        return tuple(error.loaded), f"{error}\n"


def _unseen(policies: tuple[Policy, ...], error: Exception, *, dry_run: bool) -> str:
    """What is said of models that cannot be looked at; a person is told once for all of them."""
    models = ", ".join(policy.model for policy in policies)
    if not dry_run:
        not_begun("rollout", models, error, tuple(sink for policy in policies for sink in policy.notify))
    return f"{models}: not looked at, {type(error).__name__}: {error}"


async def _tick(case: Case) -> Report:
    standing = case.standing()
    see_clock(case, standing)
    if standing.pending is not None and _concerned(case, standing):
        standing = await reconciled(case)  # only now is MLflow imported
    try:
        # No task of Prefect's: a row in its database per model and minute would say nothing that the report does not.
        seen = await asyncio.to_thread(rolling.tick, case, standing)
    except StaleDecision as moved:  # two ticks at once, or a person in between: what is right now, the next one sees
        line = f"somebody else got in first, the next tick looks again: {moved}"
        return concluded(case, "rollout", "holding", line)
    newest = case.ledger.rollout(case.model)
    if seen.version is not None:  # what it was before this tick: a candidate without a share has no row of its own yet
        theirs = newest is not None and newest.version == seen.version
        case = case.on_trail(newest.trail if newest is not None and theirs else standing.staged_trail)
    report = concluded(
        *(case, "rollout", seen.decision, seen.reason),
        verdicts=seen.verdicts,
        candidate=seen.version,
        transition=seen.transition,
    )
    report = replace(report, phase=seen.phase)
    if seen.news:
        await pages.leave(report, case)
        await events.emit(case, events.of(report, case))
    return report


def _concerned(case: Case, standing: Standing) -> bool:
    """Whether there is a rollout that what was begun may belong to; of all others the watch takes care."""
    unseen = standing.staged is not None and case.policy.shadow is not None and case.policy.shadow.live is not None
    return unseen or case.ledger.rollout(case.model) is not None


def _failed(case: Case, error: Exception) -> Report:
    try:
        report = concluded(case, "rollout", "failed", str(error))
    except Exception:  # noqa: BLE001  the ledger itself is what failed: what is in Production is not known
        report = Report(
            model=case.model, flow="rollout", decision="failed", line=str(error), at=case.now, trail=case.trail
        )
    return replace(report, error=f"{type(error).__name__}: {error}")


def _ended(reports: list[Report], broken: str) -> State[list[Report]]:
    """The run's final state, named after the most serious thing that happened.

    Raises:
        RolloutFailed: When any model's tick failed, or its policy could not be read.
    """
    if broken or any(report.error for report in reports):
        raise RolloutFailed(reports, broken)
    worst = min((report.decision for report in reports), key=_ORDER.index)
    message = "; ".join(f"{report.model}: {report.line}" for report in reports if report.decision == worst)
    name = DRY_RUN if any(report.dry_run for report in reports) else STATES[worst]
    return Completed(name=name, message=brief(message), data=reports)


if __name__ == "__main__":
    from flows.command import run

    run(rollout)
