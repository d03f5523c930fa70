"""A person's approval: show what speaks for a candidate, wait for an answer, carry it out.

Requires: a ledger, and MLflow with the version. To wait for an answer in a form it requires a deployment; without one
(`python -m flows.approve`) the answer is given with the command.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal

from prefect import flow
from prefect.context import get_run_context
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows import pages, suspended
from flows.form import a_moment, a_name, a_policy, a_reason, a_version, explained
from flows.steps import answered_for, begin, concluded, published, reconciled, step
from tasks import approval
from tasks import report as reports
from tasks.approval import Question
from tasks.case import Case
from tasks.ledger import StaleDecision
from tasks.records import Report, Standing

_ATTEMPTS = 4
"""How often an answer is tried while others move the ledger at the same time."""


class Answer(RunInput):
    """The form of a run that waits. No field has a default: an empty answer is no approval."""

    decision: Literal["approve", "reject"] = Field(
        description="Approve: it goes to Production. Reject: it is archived."
    )
    name: Annotated[str, a_name("Who decides. It is kept.")]
    reason: Annotated[str, a_reason("Why. It is kept.")]


@flow(name="approve", flow_run_name="approve {policy} version {version}")
@explained
async def approve(
    policy: Annotated[str, a_policy()],
    *,
    version: Annotated[str, a_version("Version that awaits approval.")],
    decision: Annotated[
        Literal["approve", "reject"] | None,
        Field(description="Empty: the run shows the evidence and waits for the answer in its own form."),
    ] = None,
    name: Annotated[str | None, a_name("Who decides; needed with a decision. It is kept.")] = None,
    reason: Annotated[str | None, a_reason("Why; needed with a decision. It is kept.")] = None,
    dry_run: Annotated[bool, Field(description="Show what would happen and change nothing.")] = False,
    as_of: Annotated[datetime | None, a_moment("The moment to put down, with its zone; empty: now.")] = None,
) -> Report:
    """Ask a person whether a candidate may go to Production, and do what the answer says.

    The first answer counts, wherever it is given; after the policy's deadline Production stays. What was asked about is
    exactly what is promoted, and it must load and answer. If Production changed in the meantime, the candidate is
    compared with the new one first.
    """
    given = _given(decision, name, reason)
    case = begin("approve", policy, actor=given.name if given else "flows.approve", as_of=as_of, dry_run=dry_run)
    with case.ledger:

        async def run(case: Case) -> Report:
            return await _asked(case, version, given)

        return await published(await answered_for(case, "approve", run), case)  # type: ignore[return-value]


def _given(decision: Literal["approve", "reject"] | None, name: str | None, reason: str | None) -> Answer | None:
    """The answer that came with the run.

    Raises:
        ValueError: When it is not complete; names everything that is missing.
    """
    if decision is None and name is None and reason is None:
        return None
    parts = {"decision": decision, "name": name, "reason": reason}
    if missing := [part for part, value in parts.items() if not value or not value.strip()]:
        raise ValueError(
            f"an answer needs a decision, a name and a reason; {', '.join(missing)} {'are' if missing[1:] else 'is'} "
            "missing. Give all three, or none of them to be asked in the form of the run"
        )
    return Answer(decision=decision, name=str(name), reason=str(reason))


async def _asked(case: Case, version: str, given: Answer | None) -> Report:
    standing = await reconciled(case)
    case = case.on_trail(standing.staged_trail if standing.staged == version else None)
    question = approval.question(case, standing)
    if given is None and question is not None and question.version == version and not question.overdue(case.now):
        answer = await _in_its_form(case, standing, question)
        if isinstance(answer, Report):
            return answer
        given = answer
    return await _carried_out(case, version, given)


async def _in_its_form(case: Case, standing: Standing, question: Question) -> Answer | Report:
    """The answer from the form. A run that is asked for the first time ends here, and begins anew when it is resumed.

    Returns:
        What there is to know, where nobody can answer here.
    """
    version, run = question.version, get_run_context().flow_run  # type: ignore[union-attr]
    until = f"until {question.deadline:%Y-%m-%d %H:%M} UTC"
    line = f"version {version} asks to {_replace(standing)}; a person is asked {until}"
    report = concluded(case, "approve", "waiting", line, verdicts=approval.verdicts(case, version), candidate=version)
    if run is None or run.deployment_id is None or case.dry_run:
        how = "answer with --decision, --name and --reason, or in the run of a deployment"
        return replace(report, line=f"{report.line}. {how}")
    key = f"approve-{version}"
    if key not in (run.empirical_policy.pause_keys or ()):  # otherwise it was resumed, and somebody's answer is there
        other = await suspended.asks_already(case.model, version)
        if other is not None and other.id != run.id:
            return replace(report, line=f"{report.line}, in the run {other.name} ({other.id})", verdicts=())
        await pages.leave(report, case)
        await suspended.mark(run, case.model, version)
    form = Answer.with_initial_data(description=shown(case, standing, question))
    return await asuspend_flow_run(wait_for_input=form, key=key)


async def _carried_out(case: Case, version: str, given: Answer | None) -> Report:
    """What the answer leads to; the ledger is read anew, for hours may lie between the question and this moment."""
    from tasks import promotion  # noqa: PLC0415  seconds of imports, which a run that only asks does without

    asker = replace(case, actor=given.name.strip()) if given else case
    decision, why = (given.decision, given.reason.strip()) if given else (None, "")
    for attempt in range(1, _ATTEMPTS + 1):
        standing = await reconciled(case)
        try:
            done = await step(promotion.answered)(asker, standing, version, decision, why)
        except StaleDecision:  # a tick or another door in between: look again at what is right now
            if attempt == _ATTEMPTS:
                raise
            continue
        return concluded(
            *(asker, "approve", done.decision, done.reason),
            verdicts=done.verdicts,
            candidate=version,
            transition=done.transition,
        )
    raise AssertionError("the last attempt returns or raises")


def shown(case: Case, standing: Standing, question: Question) -> str:
    """What the form says above its fields, in Markdown: what is asked, and the tables of gate and shadow."""
    version = question.version
    digest = case.ledger.digest(case.model, version) or "unknown"
    parts = [
        f"## May version {version} of {reports.escape(case.model)} {_replace(standing)}?",
        f"Artifact `{digest[:16]}`, asked {question.asked:%Y-%m-%d %H:%M} UTC.",
        f"Without an answer before **{question.deadline:%Y-%m-%d %H:%M} UTC** Production stays as it is.",
    ]
    for verdict in approval.verdicts(case, version):
        parts.append(f"### {verdict.judge.capitalize()}: {reports.escape(verdict.decision)}")
        parts.append(reports.glance_table(verdict))
    parts.append(f"The report of this run has the reasons and pictures. Trail `{case.trail}`.")
    return "\n\n".join(parts)


def _replace(standing: Standing) -> str:
    if standing.production is None:
        return "be the first in Production"
    return f"replace version {standing.production} in Production"


if __name__ == "__main__":
    from flows.command import run

    run(approve)
