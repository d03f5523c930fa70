"""Back to the last version known good, on a person's word; trains nothing.

Requires: a ledger, and MLflow with the version to go back to.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.form import a_moment, a_name, a_policy, a_reason, a_version, explained
from flows.limits import longest
from flows.steps import answered_for, begin, concluded, published, reconciled, step
from tasks.case import Case
from tasks.records import Report
from tasks.rollback import roll_back


@flow(name="rollback", flow_run_name="rollback {policy}", timeout_seconds=longest("rollback"))
@explained
async def rollback(
    policy: Annotated[str, a_policy()],
    *,
    reason: Annotated[str, a_reason("Why the present version has to go. It is kept.")],
    to: Annotated[str | None, a_version("Version to go back to; empty: the newest known good.")] = None,
    actor: Annotated[str, a_name("Who asks for it. It is kept.")] = "a person",
    dry_run: Annotated[bool, Field(description="Show what would happen and change nothing.")] = True,
    as_of: Annotated[datetime | None, a_moment("The moment to put down, with its zone; empty: now.")] = None,
) -> Report:
    """Take the present Production version out of service and put the last version known good back.

    The version that goes is quarantined: only a person can promote it again. Where no version is eligible, Production
    stays and the report says why.
    """
    case = begin("rollback", policy, actor=actor, as_of=as_of, dry_run=dry_run)
    with case.ledger:

        async def run(case: Case) -> Report:
            return await _back(case, reason, to)

        return await published(await answered_for(case, "rollback", run), case)  # type: ignore[return-value]


async def _back(case: Case, reason: str, to: str | None) -> Report:
    standing = await reconciled(case)
    outcome = await step(roll_back)(case, standing, reason=reason, to=to, automatic=False)
    decision = "held" if outcome.target is None else "rolled-back"
    case.tell(f"{case.model}: {decision.replace('-', ' ')}", f"{outcome.reason}\ntrail {case.trail}")
    return concluded(
        case,
        "rollback",
        decision,
        outcome.reason,
        candidate=outcome.target,
        transition=outcome.transition,
        verdicts=(outcome.verdict,),
    )


if __name__ == "__main__":
    from flows.command import run

    run(rollback)
