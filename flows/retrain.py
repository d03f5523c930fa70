"""Observe, decide, train, gate, shadow, and move to Production what has earned it.

Requires: the policy's data source, a ledger and MLflow (`BACKSTOP_HOME`, or `BACKSTOP_LEDGER`, `BACKSTOP_REQUESTS` and
`MLFLOW_TRACKING_URI`).

Where nothing has changed since the last evaluation, that one stands, and what follows is not even imported.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from prefect.logging import get_run_logger
from pydantic import Field

from flows import pages
from flows.follow import follow, gate, judge_again
from flows.form import a_moment, a_policy, explained
from flows.limits import longest
from flows.steps import answered_for, begin, concluded, published, reconciled, see_clock, step
from tasks import freshness
from tasks.case import Case, check_plugins
from tasks.dossier import Dossier
from tasks.records import Report
from tasks.report import training_name
from tasks.retrial import reach


@flow(name="retrain", timeout_seconds=longest("retrain"))
@explained
async def retrain(
    policy: Annotated[str, a_policy()],
    *,
    force: Annotated[bool, Field(description="Retrain whatever the triggers say; needs a reason.")] = False,
    reason: Annotated[str, Field(max_length=500, description="Why, when it is forced. It is kept.")] = "",
    urgency: Annotated[
        Literal["low", "medium", "high", "critical"], Field(description="Of a forced retraining.")
    ] = "high",
    dry_run: Annotated[bool, Field(description="Show what would happen: no run, no version, no row.")] = False,
    as_of: Annotated[datetime | None, a_moment("Judge as of this moment, with its zone; empty: now.")] = None,
) -> Report:
    """Retrain when the policy's triggers say so, and promote only what passes the gate and the shadow.

    A candidate that still waits for its shadow is judged again before anything new is trained.
    """
    await pages.label(f"retrain {policy}")
    if wrong := reasonless(force=force, reason=reason):
        raise ValueError(wrong)
    case = begin("retrain", policy, actor="flows.retrain", as_of=as_of, dry_run=dry_run)
    with case.ledger:

        async def run(case: Case) -> Report:
            return await _retrain(case, reason.strip() if force else None, urgency, replayed=as_of is not None)

        return await published(await answered_for(case, "retrain", run), case)  # type: ignore[return-value]


def reasonless(*, force: bool, reason: str, **_: object) -> str:
    """What is wrong with forcing a training for a reason; empty: nothing."""
    if not force or len(reason.strip()) >= 3:
        return ""
    return f"force needs a reason that is kept, of three characters or more; got {reason!r}. Say who wants it and why"


async def _retrain(case: Case, event: str | None, urgency: str, *, replayed: bool) -> Report:
    asked = replayed or case.dry_run or event is not None  # whoever asks for a moment of their own, gets it looked at
    if not asked and (quiet := await _unchanged(case)) is not None:
        return quiet
    # Before everything else: skops looks for its functions in all modules, in the order in which they came.
    import scipy.special  # noqa: F401, PLC0415  the quiet path has none of it

    from tasks import candidate as candidates  # noqa: PLC0415  seconds of imports, which the quiet path does without
    from tasks.data import NothingNew  # noqa: PLC0415  see above
    from tasks.signals import observe  # noqa: PLC0415  see above

    await step(check_plugins)(case.policy)
    standing = await reconciled(case)
    if standing.staged is not None and event is None:
        return await judge_again(case, "retrain", standing)
    told = pages.progress(case.model)
    observed = await step(observe, again=True)(case, standing, event=event, urgency=urgency, progress=told)  # type: ignore[arg-type]
    basis = None if replayed else observed.basis
    dossier = Dossier("triggers", {"signals": observed.signals, "rules": case.policy.triggers}, basis=basis)
    why = reach(dossier)
    case.note(why, dossier)
    if why.decision == "keep":
        return concluded(case, "retrain", "kept", why.reason, verdicts=(why,))
    try:
        parts = await step(candidates.divide, name="split rows")(
            case, observed.dataset, observed.signals.profile, asked=event is not None
        )
    except NothingNew as nothing:
        return concluded(case, "retrain", "kept", f"{why.reason} Not retrained: {nothing}", verdicts=(why,))
    # Hours may pass from here on, in which one wants to see what is being done, and why.
    await pages.label(training_name(case.model, (why,), dry_run=case.dry_run), (case.trail,))
    with tempfile.TemporaryDirectory(prefix="backstop-") as scratch:
        made = await step(candidates.make, name="train")(case, parts, why, Path(scratch), progress=told)
        if made.fitted.window:
            get_run_logger().info("Learned from %s", made.fitted.window)
        judged = await step(gate, again=True)(case, standing, made, progress=told)
        report = await follow(case, "retrain", standing, made, (why, judged))
        return replace(report, learned=made.fitted.window or None)


async def _unchanged(case: Case) -> Report | None:
    """The report of the last evaluation, where it still stands; it is not put into the ledger a second time."""
    standing = case.standing()
    see_clock(case, standing)
    try:
        still = await asyncio.to_thread(freshness.still, case, standing)
    except freshness.Unsure as why:
        get_run_logger().info("Evaluated in full: %s", why)
        return None
    return concluded(case.on_trail(still.trail), "retrain", "kept", still.reason, verdicts=(still.verdict,))


if __name__ == "__main__":
    from flows.command import run

    run(retrain, reasonless)
