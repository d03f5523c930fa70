"""What follows when a candidate is there: the gate, Staging, the shadow, and Production. No flow of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import pages
from flows.steps import concluded, step
from tasks.case import Case
from tasks.dossier import Dossier
from tasks.progress import Course, Progress, silent
from tasks.records import Report, Standing, Verdict
from tasks.retrial import reach

if TYPE_CHECKING:
    from tasks.candidate import Made

_WOULD = {"promote": "promoted", "reject": "shadow-rejected", "wait": "waiting"}
"""What a dry run reports for each verdict of the shadow."""


def gate(case: Case, standing: Standing, made: Made, progress: Progress = silent) -> Verdict:
    """The gate's verdict on a candidate, which is put into the ledger."""
    from tasks import evidence  # noqa: PLC0415  seconds of imports, which the quiet path does without

    found = evidence.for_gate(case, standing, made, progress)
    dossier = Dossier("gate", {"evidence": found, "rules": case.policy.gate, "problem": case.policy.problem})
    verdict = reach(dossier, progress)
    version = made.candidate.version if made.candidate else None
    case.note(verdict, dossier, version=version, span=made.profile.holdout)
    return verdict


async def follow(case: Case, flow: str, standing: Standing, made: Made, verdicts: tuple[Verdict, ...]) -> Report:
    """What the gate's verdict, the last of these, leads to.

    Args:
        case: Whose model.
        flow: That made the candidate.
        standing: What the ledger says.
        made: The candidate.
        verdicts: That led here.
    """
    from tasks import promotion  # noqa: PLC0415  see gate()

    judged = verdicts[-1]
    version = made.candidate.version if made.candidate else None
    if judged.decision != "pass":
        decision = {"fail": "gate-failed"}.get(judged.decision, "gate-inconclusive")
        if version is not None:
            await step(promotion.refuse, again=True)(case, standing, version, judged)
        return concluded(case, flow, decision, judged.reason, verdicts=verdicts, candidate=version)
    if version is None:
        course = Course(pages.progress(case.model), f"shadow of {case.model}", 1)
        compared = reach(
            await step(promotion.compare, name="shadow", again=True)(case, standing, made.fitted.model, made.profile)
        )
        course.past()
        line = f"the candidate would be staged; shadow says {compared.decision}: {compared.reason}"
        would = _WOULD[compared.decision]
        if would == "promoted" and case.policy.rollout is not None and standing.production is not None:
            would = "canary"
        return concluded(case, flow, would, line, verdicts=(*verdicts, compared))
    staged = await step(promotion.stage, again=True)(case, standing, version, judged)
    return await advance(case, flow, staged, verdicts)


async def judge_again(case: Case, flow: str, standing: Standing) -> Report:
    """A candidate from an earlier run still waits; it goes on from there, on its own trail."""
    return await advance(case.on_trail(standing.staged_trail), flow, standing, ())


async def advance(case: Case, flow: str, standing: Standing, verdicts: tuple[Verdict, ...]) -> Report:
    """From Staging to Production, as far as the evidence carries."""
    from tasks import promotion  # noqa: PLC0415  see gate()

    course = Course(pages.progress(case.model), f"shadow and promotion of {case.model}", 1)
    step_taken = await step(promotion.advance, name="shadow and promote", again=True)(case, standing)
    course.past()
    return concluded(
        case,
        flow,
        step_taken.decision,
        step_taken.reason,
        verdicts=verdicts + step_taken.verdicts,
        candidate=standing.staged,
        transition=step_taken.transition,
    )
