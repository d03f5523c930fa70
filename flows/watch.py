"""One tick of the health watch: read the evidence, roll back or not.

Requires: a ledger and a request log (`BACKSTOP_HOME`, or `BACKSTOP_LEDGER` and `BACKSTOP_REQUESTS`), and MLflow. As
long as nothing has to move, MLflow is only glanced at, and the tick goes on without it when it is away.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from prefect import flow
from prefect.client.schemas import State
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import Field

from flows import blocks, events, pages
from flows.form import a_moment, a_policy, explained
from flows.limits import longest
from flows.steps import (
    DRY_RUN,
    STATES,
    answered_for,
    concluded,
    flow_run_id,
    not_begun,
    reconciled,
    see_clock,
)
from flows.suspended import Tidy
from tasks import approval
from tasks import watch as watching
from tasks.case import Case, LedgerError, open_case
from tasks.glance import Glance
from tasks.ledger import Ledger, StaleDecision
from tasks.policy import Policy
from tasks.policy_file import PolicyError, load_many
from tasks.progress import Course
from tasks.records import Report
from tasks.report import SERIOUS, brief, tick_name
from tasks.stores import Stores

_SERIOUS = (
    *("rolled-back", "held", "expired", "first-promoted", "promoted", "canary", "shadow-rejected", "aborted"),
    "approved",
    *("watching", "healthy", "waiting", "answered"),
)
"""What a tick can come to; its run is named after the first of these."""


class WatchFailed(RuntimeError):
    """The tick failed for some models; the others were looked at.

    Attributes:
        reports: Of all models whose policy could be read, the failed ones with their error.
    """

    def __init__(self, reports: list[Report], broken: str, unread: str) -> None:
        self.reports = reports
        failed = [f"{report.model}: {report.error}" for report in reports if report.error]
        told = "\n".join(part for part in ("; ".join(failed), broken.strip()) if part)
        looked = f"{len(failed)} of {len(reports)} models failed" if failed else ""
        if not reports:
            looked = "no model was watched"
        super().__init__(
            f"{', '.join(one for one in (unread, looked) if one) or 'not every model was watched'}: {told}"
        )


@flow(name="watch", timeout_seconds=longest("watch"))
@explained
async def watch(
    policy: Annotated[str, a_policy("A policy file, a model name, a folder, a glob, or several with commas.")],
    *,
    dry_run: Annotated[bool, Field(description="Show what would happen and change nothing.")] = False,
    as_of: Annotated[datetime | None, a_moment("Judge as of this moment, with its zone; empty: now.")] = None,
) -> list[Report]:
    """Look at the version that serves, and roll it back when the evidence says that it is unhealthy.

    One run looks at many models; what fails for one is reported at the end and does not stop the others.
    """
    await pages.label(f"watch {policy}")
    reports: list[Report] = []
    policies, broken, unread = _readable(policy, dry_run=dry_run)
    glance, tidy = Glance(Stores.from_environment().tracking), Tidy()
    course = Course(pages.progress("all-models"), f"models watched, of {len(policies):,}", len(policies))
    for number, loaded in enumerate(policies):
        try:
            case = open_case(
                loaded, actor="flows.watch", now=as_of, flow_run_id=flow_run_id(), dry_run=dry_run, block=blocks.tell
            )
        except LedgerError as error:  # all models have the same ledger, and would wait as long for the same answer
            broken += _unwatched(policies[number:], error, dry_run=dry_run)
            break
        with case.ledger:
            try:
                reports.append(await answered_for(case, "watch", partial(_tick, glance=glance)))
            except Exception as error:  # noqa: BLE001  one model's failure never stops the others
                reports.append(_failed(case, error))
            reports += await _asked(case)
            await tidy(case)
            await events.emit(case, ())
        course.past()
    course.end()
    if not (dry_run or as_of or broken):  # of a policy that cannot be read nobody knows what it needs
        for line in await asyncio.to_thread(_swept, policies):
            get_run_logger().info("retention: %s", line)
    serious = [report.trail for report in reports if report.decision in SERIOUS]
    if serious:  # otherwise the minute costs no call for a name
        await pages.label(tick_name(reports), serious)
    return _ended(reports, broken, unread)  # type: ignore[return-value]


def _readable(spec: str, *, dry_run: bool) -> tuple[tuple[Policy, ...], str, str]:
    """The policies that can be read, what is wrong with the others, and how many these are.

    One broken file stops no other model's watch.

    Raises:
        PolicyError: When none can be read.
    """
    try:
        return load_many(spec), "", ""
    except PolicyError as error:
        if not error.loaded:
            if not dry_run:
                not_begun("watch", spec, error)
            raise
        of = f"{error.unread} of {error.unread + len(error.loaded)} policies"
        unread = f"{of} cannot be read and {'is' if error.unread == 1 else 'are'} not watched"
        return tuple(error.loaded), f"{error}\n", unread


def _unwatched(policies: tuple[Policy, ...], error: Exception, *, dry_run: bool) -> str:
    """What is said of models that cannot be looked at; a person is told once for all of them."""
    models = ", ".join(policy.model for policy in policies)
    if not dry_run:
        not_begun("watch", models, error, tuple(sink for policy in policies for sink in policy.notify))
    return f"{models}: not watched, {type(error).__name__}: {error}"


def _swept(policies: tuple[Policy, ...]) -> tuple[str, ...]:
    """Once a day let go of what is older than the policies keep it; whatever goes wrong there, the watch goes on."""
    if not any(one.retention.requests or one.retention.evidence for one in policies):
        return ()
    from tasks import retention  # noqa: PLC0415  most minutes have nothing to do with it

    try:
        stores = Stores.from_environment()
        with Ledger.open(stores.ledger) as ledger:
            swept = retention.daily(policies, stores, ledger, datetime.now(UTC))
    except Exception as error:  # noqa: BLE001  as above
        return (f"not everything that may go went: {type(error).__name__}: {brief(str(error))}",)
    return swept.lines() if swept is not None else ()


async def _tick(case: Case, glance: Glance) -> Report:
    standing = case.standing()
    see_clock(case, standing)
    if standing.pending is not None or await asyncio.to_thread(glance.differs, standing):
        standing = await reconciled(case)  # only now is MLflow imported
    promoted = case.ledger.serving_at(case.model, case.now)
    case = case.on_trail(promoted.trail if promoted else None)
    try:
        # No task of Prefect's: a row in its database per model and minute would say nothing that the report does not.
        seen = await asyncio.to_thread(watching.tick, case, standing)
    except StaleDecision as moved:  # two ticks at once, or a person in between: what is right now, the next one sees
        return concluded(case, "watch", "watching", f"somebody else got in first, the next tick looks again: {moved}")
    line = seen.reason if glance.blind is None else f"{seen.reason} ({glance.blind})"
    report = concluded(case, "watch", seen.decision, line, verdicts=seen.verdicts, transition=seen.transition)
    if seen.news:
        await pages.leave(report, case)
        await events.emit(case, events.of(report, case))
    return report


async def _asked(case: Case) -> list[Report]:
    """What became of an approval: one that is overdue expires, one that was given and not carried out is."""
    try:
        if case.policy.approval is None or not await asyncio.to_thread(lambda: approval.due(case, case.standing())):
            return []
        return [await answered_for(case, "watch", _settled)]
    except StaleDecision:  # somebody answered in this moment; what is right now, the next tick sees
        return []
    except Exception as error:  # noqa: BLE001  as above, and a question must not keep the watch from watching
        return [_failed(case, error)]


async def _settled(case: Case) -> Report:
    from tasks import promotion  # noqa: PLC0415  the quiet path must not import MLflow

    standing = await reconciled(case)
    case = case.on_trail(standing.staged_trail)
    done = await asyncio.to_thread(promotion.answered, case, standing, standing.staged or "", None, "")
    report = concluded(
        *(case, "watch", done.decision, done.reason),
        verdicts=done.verdicts,
        candidate=standing.staged,
        transition=done.transition,
    )
    await pages.leave(report, case)
    await events.emit(case, events.of(report, case))
    return report


def _failed(case: Case, error: Exception) -> Report:
    try:
        report = concluded(case, "watch", "failed", str(error))
    except Exception:  # noqa: BLE001  the ledger itself is what failed: what is in Production is not known
        report = Report(
            model=case.model, flow="watch", decision="failed", line=str(error), at=case.now, trail=case.trail
        )
    return replace(report, error=f"{type(error).__name__}: {error}")


def _ended(reports: list[Report], broken: str, unread: str) -> State[list[Report]]:
    """The run's final state, named after the most serious thing that happened.

    Raises:
        WatchFailed: When any model's tick failed, or its policy could not be read.
    """
    if broken or any(report.error for report in reports):
        raise WatchFailed(reports, broken, unread)
    worst = min((report.decision for report in reports), key=_SERIOUS.index)
    message = "; ".join(f"{report.model}: {report.line}" for report in reports if report.decision == worst)
    name = DRY_RUN if any(report.dry_run for report in reports) else STATES[worst]
    return Completed(name=name, message=brief(message), data=reports)


if __name__ == "__main__":
    from flows.command import run

    run(watch)
