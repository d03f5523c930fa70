"""Learn from feedback: a copy of the version in Production learns labelled requests, and is judged like any other.

Requires: a policy with a section `learn`, a version in Production, a ledger, MLflow, and a request log that a gateway
writes to (`BACKSTOP_HOME`, or `BACKSTOP_LEDGER`, `BACKSTOP_REQUESTS` and `MLFLOW_TRACKING_URI`).

Where there is too little feedback, what follows is not even imported.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prefect import flow
from pydantic import Field

from flows import pages
from flows.follow import follow, gate, judge_again
from flows.form import a_moment, a_policy, explained
from flows.limits import longest
from flows.steps import answered_for, begin, concluded, published, reconciled, see_clock, step
from tasks import feedback
from tasks.case import Case, check_plugins
from tasks.dossier import Dossier
from tasks.progress import Course
from tasks.records import Report, Standing, Verdict
from tasks.retrial import reach

if TYPE_CHECKING:
    from tasks.learning import Studied

_AGAIN = timedelta(days=1)
"""After which the same is put down and told once more."""


@flow(name="learn", timeout_seconds=longest("learn"))
@explained
async def learn(
    policy: Annotated[str, a_policy()],
    *,
    dry_run: Annotated[bool, Field(description="Show what would happen: no run, no version, no row.")] = False,
    as_of: Annotated[datetime | None, a_moment("Judge as of this moment, with its zone; empty: now.")] = None,
) -> Report:
    """Let a copy of the version in Production learn from new feedback, and promote it when it passes gate and shadow.

    Feedback that Production is far off on is not learned: labels may be wrong. A candidate that still waits is judged
    again before anything new is learned.
    """
    await pages.label(f"learn {policy}")
    case = begin("learn", policy, actor="flows.learn", as_of=as_of, dry_run=dry_run)
    news = True
    with case.ledger:

        async def run(case: Case) -> Report:
            nonlocal news
            report, news = await _learn(case)
            return report

        report = await answered_for(case, "learn", run)
        return await published(report, case, told=news)  # type: ignore[return-value]


async def _learn(case: Case) -> tuple[Report, bool]:
    """The report, and whether it is news."""
    if case.policy.learn is None:
        raise ValueError(f"the policy of {case.model} has no section learn; add one (docs/learning.md), or use retrain")
    standing = case.standing()
    see_clock(case, standing)
    if standing.pending is not None or standing.staged is not None:
        standing = await reconciled(case)
        if standing.staged is not None:
            return await judge_again(case, "learn", standing), True
    if standing.production is None:
        return concluded(
            case, "learn", "kept", "nothing is in Production to learn; flows.retrain makes the first"
        ), False
    found = await asyncio.to_thread(feedback.pending, case, standing)
    if (quiet := feedback.waits(case, standing, found)) is not None:
        if _last(case, standing) is None:  # once per version: what could never learn need not be waited for
            await step(check_plugins)(case.policy)
        return _waited(case, standing, quiet)
    await step(check_plugins)(case.policy)
    if (now := await reconciled(case)) != standing:
        moved = f"the ledger moved while feedback was looked through, to transition {now.seq}; the next run looks again"
        return concluded(case, "learn", "kept", moved), False
    from tasks import learning  # noqa: PLC0415  seconds of imports, which the quiet path does without

    course = Course(pages.progress(case.model), f"learning of {case.model}", 2)
    studied = await step(learning.study, again=True)(case, standing, found)
    course.past()
    concluding = await _concluded(case, standing, studied, course)
    course.end()
    return concluding


async def _concluded(case: Case, standing: Standing, studied: Studied, course: Course) -> tuple[Report, bool]:
    """What the feedback leads to."""
    from tasks import learning  # noqa: PLC0415  see _learn()

    dossier = studied.dossier(case)
    verdict = reach(dossier)
    if verdict.decision == "wait":
        return _waited(case, standing, dossier)
    if verdict.decision == "hold":
        return _held(case, standing, verdict, dossier)
    case.note(verdict, dossier, version=standing.production)
    aside = await step(learning.set_aside, again=True)(case, studied, verdict)
    if aside:
        told = f"{aside} labelled requests are set aside and learned by nobody"
        case.tell(f"{case.model}: {told}", f"{verdict.reason}\ntrail {case.trail}")
    if verdict.decision == "set-aside":
        return concluded(case, "learn", "set-aside", verdict.reason, verdicts=(verdict,)), True
    with tempfile.TemporaryDirectory(prefix="backstop-") as scratch:
        made = await step(learning.make, name="learn")(case, studied, verdict, Path(scratch))
        course.past()
        judged = await step(gate, again=True)(case, standing, made, progress=pages.progress(case.model))
        report = await follow(case, "learn", standing, made, (verdict, judged))
    return _with_fate(case, report), True


def _waited(case: Case, standing: Standing, dossier: Dossier) -> tuple[Report, bool]:
    """Too little feedback. The same is put down once, and not by every run."""
    verdict = reach(dossier)
    last = _last(case, standing)
    if last is None or (last.decision, _lacking(last)) != (verdict.decision, _lacking(verdict)):
        case.note(verdict, dossier, version=standing.production)
    return concluded(case, "learn", "kept", verdict.reason, verdicts=(verdict,)), False


def _held(case: Case, standing: Standing, verdict: Verdict, dossier: Dossier) -> tuple[Report, bool]:
    """Nothing is learned until a person has looked. That is told once a day."""
    last = next(iter(case.ledger.decisions(case.model, "learning", limit=1)), None)
    same = last is not None and (last.version, last.verdict.decision) == (standing.production, "hold")
    news = not same or last is None or case.now - last.at >= _AGAIN
    if news:
        case.note(verdict, dossier, version=standing.production)
        title = f"{case.model}: nothing is learned from feedback, version {standing.production} stays"
        case.tell(title, f"{verdict.reason}\ntrail {case.trail}")
    return concluded(case, "learn", "held", f"nothing is learned: {verdict.reason}", verdicts=(verdict,)), news


def _with_fate(case: Case, report: Report) -> Report:
    """The report, and what becomes of the feedback where its version did not pass the gate."""
    if report.candidate is None or not report.decision.startswith("gate-"):
        return report
    lesson = next(one for one in reversed(case.ledger.lessons(case.model, since=case.now)) if one.version is not None)
    standing = case.standing()
    fate = feedback.fate(case.ledger, standing, (), lesson)
    count = f"its {len(lesson.requests)} labelled requests"
    told = {"set aside": f"{count} are set aside", "pending": f"{count} wait for more"}.get(fate, "")
    return replace(report, line=f"{report.line}; {told}" if told else report.line)


def _last(case: Case, standing: Standing) -> Verdict | None:
    """The newest verdict on feedback for the version in Production, or None."""
    last = next(iter(case.ledger.decisions(case.model, "learning", limit=1)), None)
    return last.verdict if last is not None and last.version == standing.production else None


def _lacking(verdict: Verdict) -> tuple[str, ...]:
    return tuple(finding.name for finding in verdict.having("unknown"))


if __name__ == "__main__":
    from flows.command import run

    run(learn)
