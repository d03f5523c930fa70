"""A person's decision on a version: promote it, or reject it, with a reason that is kept.

Requires: a ledger, and MLflow with the version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.form import a_moment, a_name, a_policy, a_reason, a_version, explained
from flows.limits import longest
from flows.steps import answered_for, begin, concluded, published, reconciled, step
from tasks import promotion
from tasks.case import Case
from tasks.records import Report


@flow(name="promote", flow_run_name="promote {policy}", timeout_seconds=longest("promote"))
@explained
async def promote(
    policy: Annotated[str, a_policy()],
    *,
    reason: Annotated[str, a_reason("Why. It is kept.")],
    version: Annotated[str | None, a_version("Version to decide on; empty: the one in Staging.")] = None,
    decision: Annotated[Literal["promote", "reject"], Field(description="What to do with it.")] = "promote",
    actor: Annotated[str, a_name("Who decides. It is kept.")] = "a person",
    override: Annotated[
        bool, Field(description="Promote although the gate did not pass it, or it was rejected or rolled back before.")
    ] = False,
    dry_run: Annotated[bool, Field(description="Show what would happen and change nothing.")] = True,
    as_of: Annotated[datetime | None, a_moment("The moment to put down, with its zone; empty: now.")] = None,
) -> Report:
    """Promote a version on a person's word, or take it out of Staging.

    It must load and answer in a fresh process. One that the gate did not pass, that was rejected after it, or that was
    rolled back before, needs `override`.
    """
    case = begin("promote", policy, actor=actor, as_of=as_of, dry_run=dry_run)
    with case.ledger:

        async def run(case: Case) -> Report:
            return await _decide(case, version, decision, reason, override=override)

        return await published(await answered_for(case, "promote", run), case)  # type: ignore[return-value]


async def _decide(case: Case, version: str | None, decision: str, reason: str, *, override: bool) -> Report:
    standing = await reconciled(case)
    chosen = version or standing.staged
    if chosen is None:
        raise ValueError(f"{case.model} has no version in Staging; name the version to {decision}")
    if decision == "reject":
        transition = await step(promotion.reject)(case, standing, chosen, reason)
        return concluded(
            case,
            "promote",
            "rejected",
            f"version {chosen} rejected by {case.actor}: {reason}",
            candidate=chosen,
            transition=transition,
        )
    advance = await step(promotion.by_hand)(case, standing, chosen, reason, override=override)
    return concluded(
        case,
        "promote",
        advance.decision,
        advance.reason,
        verdicts=advance.verdicts,
        candidate=chosen,
        transition=advance.transition,
    )


if __name__ == "__main__":
    from flows.command import run

    run(promote)
