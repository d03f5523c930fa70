"""How flows call the steps, as tasks beside the event loop, and how they end, in a state that says what happened."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.context import get_run_context
from prefect.exceptions import MissingContextError
from prefect.states import Completed

from flows import blocks, events, limits, pages
from tasks import notify, reminder
from tasks import report as reports
from tasks.case import Case, open_case
from tasks.dossier import Dossier
from tasks.ledger import StaleDecision
from tasks.policy import Policy
from tasks.policy_file import load
from tasks.records import Finding, Report, Standing, Transition, Verdict
from tasks.retrial import reach
from tasks.stores import Stores

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)

STATES = {
    "kept": "Kept",
    "first-promoted": "Promoted",
    "promoted": "Promoted",
    "gate-failed": "GateFailed",
    "gate-inconclusive": "GateInconclusive",
    "shadow-rejected": "ShadowRejected",
    "rejected": "Rejected",
    "waiting": "Waiting",
    "awaiting": "AwaitingApproval",
    "approved": "Approved",
    "expired": "Expired",
    "answered": "Answered",
    "rolled-back": "RolledBack",
    "canary": "Canary",
    "stepped": "Stepped",
    "holding": "Holding",
    "aborted": "Aborted",
    "ended": "RolloutEnded",
    "idle": "Idle",
    "set-aside": "SetAside",
    "healthy": "Healthy",
    "watching": "Watching",
    "held": "Held",
    "failed": "Failed",
}
"""Names of the final states, by decision."""

TICKS = frozenset({"watch", "rollout", "learn"})
"""Flows that come every few minutes: what is wrong is told once and not with each of them."""

_SKEW = timedelta(minutes=5)
"""By which the clocks of two machines may differ."""

DRY_RUN = "DryRun"
"""Name of the final state of a dry run: an automation that waits for ``Promoted`` must not hear of one."""


class ClockBackwards(RuntimeError):
    """The run's moment lies before something that the ledger has seen already.

    Attributes:
        problems: The same every minute, so that a person is told once.
    """

    def __init__(self, model: str, now: datetime, moved_at: datetime) -> None:
        happened = f"{model}'s newest transition took effect at {moved_at:%Y-%m-%d %H:%M:%S} UTC"
        remedy = "correct this machine's clock (or as_of). Nothing was changed"
        self.problems = (f"the moment of this run lies before {happened}: {remedy}",)
        super().__init__(f"this run is for {now:%Y-%m-%d %H:%M:%S} UTC, and {happened}, which is later: {remedy}")


class Begun(RuntimeError):
    """An earlier try of a step got as far as the ledger, and what it began there was not finished when it failed."""

    def __init__(self, called: str) -> None:
        super().__init__(
            f"an earlier try of {called!r} has begun a transition and failed in the middle; it is not begun twice. The "
            "next tick of the watch, or the next run, completes it or gives it up"
        )


def step(function: Callable[P, R], *, name: str | None = None, again: bool = False) -> Callable[P, Awaitable[R]]:
    """A plain function as a Prefect task that runs in a thread.

    In a thread, so that hours of fitting do not silence the flow's heartbeat. Without caching: Prefect would hash the
    inputs, and those are data and models. In a list it is called after the step and the model.

    Args:
        function: The step.
        name: Of the task; empty: the function's.
        again: It may be repeated when it failed for a reason that passes (see :func:`flows.limits.passing`): doing it
            twice is doing it once.
    """
    called = name or function.__name__.strip("_").replace("_", " ")

    async def start(*args: P.args, **kwargs: P.kwargs) -> R:
        about = next((f" {one.model}" for one in args if isinstance(one, Case | Policy)), "")

        waits, tries = limits.delays() if again else [], 0

        @task(
            name=called,
            task_run_name=f"{called}{about}",
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(waits),
            retry_delay_seconds=waits,
            retry_condition_fn=limits.worth_another_try,
        )
        async def run(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal tries
            tries += 1
            try:
                return await asyncio.to_thread(function, *args, **kwargs)
            except StaleDecision as moved:
                if tries == 1:
                    raise
                raise Begun(called) from moved

        return await run(*args, **kwargs)

    return start


def flow_run_id() -> str | None:
    """Of the flow run that this is called in, or None outside of one."""
    try:
        return str(get_run_context().flow_run.id)  # type: ignore[union-attr]
    except (MissingContextError, AttributeError):
        return None


async def reconciled(case: Case) -> Standing:
    """What the ledger says, after whatever an earlier run left undone is completed or given up.

    A registry that was changed by hand is put right, or taken as the new truth, as the policy says. A dry run only
    looks.
    """
    see_clock(case, case.standing())
    if not case.dry_run:
        # A tick does not try again: the next one does, within a minute.
        for finding in await step(reconcile, again=case.actor.removeprefix("flows.") not in TICKS)(case):
            case.tell(f"{case.model}: registry", finding.reason)
    return case.standing()


def see_clock(case: Case, standing: Standing) -> None:
    """See that the moment of the run is not before what the ledger says has happened.

    Raises:
        ClockBackwards: When it is, by more than machines differ; every window of time would be judged wrongly.
    """
    if standing.moved_at is not None and standing.moved_at - case.now > _SKEW:
        raise ClockBackwards(case.model, case.now, standing.moved_at)


def reconcile(case: Case) -> tuple[Finding, ...]:
    """Bring ledger and registry together; what was found is kept in the ledger.

    What no flow can put right, such as a version that was deleted, is told once per silence deadline: the watch finds
    it every minute.
    """
    from tasks.reconcile import reconcile as bring_together  # noqa: PLC0415  the quiet path must not import MLflow

    found = bring_together(
        case.registry(), case.ledger, case.model, external=case.policy.external, at=case.now, trail=case.trail
    )
    dossier = Dossier("reconciled", {"findings": found})
    verdict = reach(dossier)
    if not found or case.told_lately("reconciled", verdict.reason):
        return ()
    case.note(verdict, dossier)
    return found


def concluded(
    case: Case,
    flow: str,
    decision: str,
    line: str,
    *,
    verdicts: tuple[Verdict, ...] = (),
    candidate: str | None = None,
    transition: Transition | None = None,
) -> Report:
    """The report of one case, with what is in Production now."""
    return Report(
        model=case.model,
        flow=flow,
        decision=decision,
        line=("dry run, nothing changed: " if case.dry_run else "") + line,
        at=case.now,
        trail=case.trail,
        production=case.standing().production,
        candidate=candidate,
        verdicts=verdicts,
        transition=transition,
        dry_run=case.dry_run,
    )


leave_report = pages.leave


async def published(report: Report, case: Case | None = None, *, told: bool = True) -> State[Report]:
    """Leave the report where people look, and end in a state that is named after the decision.

    Args:
        report: Of the run.
        case: Whose ledger has what the report shows in pictures.
        told: False: an earlier run has told this very thing.
    """
    actor = "" if case is None or case.actor.startswith("flows.") else case.actor
    await asyncio.gather(pages.label(reports.run_name(report, actor), (report.trail,)), pages.leave(report, case))
    if case is not None:
        await events.emit(case, events.of(report, case, told=told))
    name = DRY_RUN if report.dry_run else STATES[report.decision]
    return Completed(name=name, message=reports.brief(report.line), data=report)


def begin(flow: str, policy: str, *, actor: str, as_of: datetime | None, dry_run: bool) -> Case:
    """Read the policy and open its case. What goes wrong is told to a person, as there is no ledger yet to tell it.

    The policy's own sinks are told; where it cannot be read or has none, those of BACKSTOP_NOTIFY (addresses with
    commas between).

    Raises:
        PolicyError: Lists every problem of the policy.
        LedgerError: When the ledger cannot be opened.
        ValueError: When ``as_of`` has no time zone.
    """
    sinks: tuple[str, ...] = ()
    try:
        loaded = load(policy)
        sinks = loaded.notify
        return open_case(loaded, actor=actor, now=as_of, flow_run_id=flow_run_id(), dry_run=dry_run, block=blocks.tell)
    except Exception as error:
        if not dry_run:
            not_begun(flow, policy, error, sinks)
        raise


def not_begun(flow: str, policy: str, error: Exception, sinks: tuple[str, ...] = ()) -> None:
    """Tell a person that a flow could not begin; there is no ledger to tell it. Of a watch, not every minute.

    Args:
        flow: Its name.
        policy: What it was asked to do it for.
        error: Why it could not.
        sinks: Of the policies; empty: those of BACKSTOP_NOTIFY.
    """
    everybody = os.environ.get("BACKSTOP_NOTIFY", "").split(",")
    sinks = tuple(dict.fromkeys(sinks)) or tuple(sink.strip() for sink in everybody if sink.strip())
    title = f"{policy}: {flow} could not begin, Production unchanged"
    # The watch comes every minute, and an outage of the ledger is one piece of news.
    home, now = Stores.from_environment().home, datetime.now(UTC)
    if not sinks or (flow in TICKS and not reminder.due(home, f"{title}: {type(error).__name__}", now)):
        return
    for delivery in notify.send(sinks, title=title, body=f"{type(error).__name__}: {error}", block=blocks.tell):
        if not delivery.ok:
            _log.error("%s was not told that %s could not begin: %s", delivery.sink, flow, delivery.error)


async def answered_for(case: Case, flow: str, run: Callable[[Case], Awaitable[Report]]) -> Report:
    """Run one case; what goes wrong is put into the ledger and told to a person before it is raised again.

    Raises:
        Exception: Whatever ``run`` raised.
    """
    try:
        return await run(case)
    except Exception as error:
        told = _answer_for(case, flow, error)
        await events.emit(case, events.of(_broken(case, flow, error), case, told=told))
        if flow == "learn" or flow not in TICKS:  # which name their run after all of their models
            await pages.label(f"{flow} {case.model}: failed", (case.trail,))
        raise
    except asyncio.CancelledError:
        limit = f"it took longer than BACKSTOP_TIMEOUT_{flow.upper()} allows, or somebody interrupted it"
        _answer_for(case, flow, TimeoutError(f"{flow} was ended in the middle: {limit}"))
        raise


def _broken(case: Case, flow: str, error: Exception) -> Report:
    """The report of a run that failed; of what is in Production it says only what is known without the ledger."""
    line = f"{type(error).__name__}: {error}"
    at, trail = case.now, case.trail
    return Report(model=case.model, flow=flow, decision="failed", line=line, at=at, trail=trail, dry_run=case.dry_run)


def _answer_for(case: Case, flow: str, error: Exception) -> bool:
    """Put a failure down and tell it; False when it was told lately."""
    # DataError, told by what it carries: importing its module would put pandas on the quiet path of the watch.
    listed: tuple[str, ...] = getattr(error, "problems", ())
    problems = tuple(map(str, listed)) or (f"{type(error).__name__}: {error}",)
    dossier = Dossier("mistake", {"problems": problems, "name": getattr(error, "place", flow)})
    kept = reach(dossier)
    try:
        if flow in TICKS and case.told_lately("failed", kept.reason):
            return False  # it fails every minute until somebody mends it; the run's own state says so every time
        case.note(kept, dossier)
    except Exception as broken:  # noqa: BLE001  a ledger that cannot be written must not hide the error itself
        problems = (*problems, f"and the ledger could not be told: {type(broken).__name__}: {broken}")
    try:
        case.tell(
            f"{case.model}: {flow} failed, {_left(case)}",
            "\n".join((*problems, f"trail {case.trail}, {case.now:%Y-%m-%d %H:%M} UTC")),
        )
    except Exception:  # noqa: BLE001  see above
        _log.exception("the notification that %s of %s failed could not be put into the ledger", flow, case.model)
    return True


def _left(case: Case) -> str:
    """What a run that failed leaves in Production."""
    try:
        pending = case.standing().pending
    except Exception:  # noqa: BLE001  the ledger may be what failed; MLflow may have been told by then
        return "and the ledger does not answer: see in MLflow what is in Production"
    if pending is None:
        return "Production unchanged"
    return f"{pending.action} of version {pending.version} is begun and not finished"
