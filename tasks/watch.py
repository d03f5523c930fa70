"""Watch: one tick for one model, from the evidence to what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from tasks.beside import beside
from tasks.case import Case
from tasks.decide.health import unread_since
from tasks.dossier import Dossier
from tasks.health_sources import Period, counted, due, late, source
from tasks.records import Standing, Transition, Verdict
from tasks.retrial import reach
from tasks.rollback import roll_back
from tasks.standing import SERVING


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick came to.

    Attributes:
        decision: As in :class:`tasks.records.Report`.
        reason: One sentence.
        verdicts: Of the periods that were judged, and of the rollback.
        transition: That was carried out, or None.
        news: Something changed that a person would want to read.
    """

    decision: str
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    transition: Transition | None = None
    news: bool = False


def tick(case: Case, standing: Standing) -> Tick:
    """Judge the version that serves, and act on it. On the quiet path this reads two tables and writes nothing.

    Args:
        case: Whose model.
        standing: What the ledger says.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
    """
    version, since = standing.production, standing.since
    if version is None or since is None:
        if any(one.action in SERVING and one.state == "applied" for one in case.ledger.history(case.model)):
            return Tick("held", "nothing is in Production, so there is nothing to watch")
        return Tick("watching", "nothing was ever in Production; there is nothing to watch before the first promotion")
    last = next(iter(case.ledger.decisions(case.model, "health", limit=1)), None)
    known = last if last is not None and last.version == version and last.at >= since else None
    unread = unread_since(known.verdict) if known else None
    verdicts: tuple[Verdict, ...] = ()
    for period in due(since, case.now, case.policy.health, judged_until=known.at if known and not unread else None):
        dossier = _dossier(case, version, period, since=since, unread=unread, never=known is None)
        dossier, verdict = _judged(case, standing, dossier, period)
        verdicts += (verdict,)
        lost = unread_since(verdict)
        changed = known is None or known.verdict.decision != verdict.decision or (unread is None) != (lost is None)
        # What could not be read is put down when that begins and when it ends, and not every minute in between.
        if changed or (case.now >= period.end and lost is None):
            case.note(verdict, dossier, version=version)
        if verdict.decision == "unhealthy":
            return _unhealthy(case, standing, version, verdicts, newly=changed)
        if verdict.decision == "frozen":
            return _frozen(case, version, verdicts, newly=changed)
        if verdict.decision == "healthy" and version not in standing.known_good:
            case.state(version, "known-good", verdict.reason)
        over = case.now >= period.end and lost is None  # a source that is away is not asked again for each period
        if over and (found := _late(case, standing, version, since, period)) is not None:
            verdicts += (found,)
            if found.decision == "frozen":
                return _frozen(case, version, verdicts, newly=changed)
            return _unhealthy(case, standing, version, verdicts, newly=changed)
    return _quiet(case, standing, version, verdicts, _until(case, dossier))


def _judged(case: Case, standing: Standing, dossier: Dossier, period: Period) -> tuple[Dossier, Verdict]:
    """The verdict with what it rests on. Only of a version that is shown to be bad it is asked who else is."""
    verdict = reach(dossier)
    if verdict.decision != "unhealthy":
        return dossier, verdict
    other, alone = beside(case, standing, start=period.start, end=min(case.now, period.end))
    evidence = replace(dossier.given["evidence"], beside=other, alone=alone)
    asked = replace(dossier, given={**dossier.given, "evidence": evidence})
    return asked, reach(asked)


def _late(case: Case, standing: Standing, version: str, since: datetime, judged: Period) -> Verdict | None:
    """What labels say that came when their period was over; None where they say nothing against the version.

    Looked at once a day, when another period is over: that is how long a label that is late already may wait.
    """
    if case.policy.health.accuracy is None or case.policy.problem == "regression":
        return None
    for period in late(since, judged, case.policy.health):
        dossier = _dossier(case, version, period, since=since, unread=None, never=False)
        dossier, verdict = _judged(case, standing, dossier, period)
        if verdict.decision in {"unhealthy", "frozen"}:
            case.note(verdict, dossier, version=version)
            return verdict
    return None


def _dossier(
    case: Case, version: str, period: Period, *, since: datetime, unread: datetime | None, never: bool
) -> Dossier:
    """What a period is judged on.

    Args:
        case: Whose model.
        version: That serves.
        period: Of the watch.
        since: When it came into Production.
        unread: Since when the evidence could not be read at the last tick that said so; None: it could.
        never: No tick has judged this version yet.
    """
    policy = case.policy
    evidence = source(case.stores, policy).evidence(
        case.model,
        version,
        started=period.start,
        now=min(case.now, period.end),
        health=policy.health,
        problem=policy.problem,
    )
    seen = evidence.last_request
    if evidence.partial is not None or (evidence.unavailable is not None and (seen is None or unread is not None)):
        seen = unread or (since if never else case.now)
    # Silence begins when the version came into Production, not when it last served before that, nor with the period.
    evidence = replace(evidence, last_request=max(seen or since, since), read_at=case.now)
    given = {"evidence": evidence, "rules": policy.health, "problem": policy.problem}
    return Dossier("health", {**given, "planned_looks": period.planned_looks})


def _unhealthy(case: Case, standing: Standing, version: str, verdicts: tuple[Verdict, ...], *, newly: bool) -> Tick:
    back = roll_back(case, standing, reason=verdicts[-1].reason)
    decision = "rolled-back" if back.target is not None else "held"
    title = f"{case.model}: version {version} is unhealthy, " + (
        f"rolled back to {back.target}" if back.target is not None else "and nothing is eligible to go back to"
    )
    news = _page_once(case, version, title, back.reason, always=newly or back.transition is not None)
    return Tick(decision, back.reason, (*verdicts, back.verdict), back.transition, news=news or case.dry_run)


def _frozen(case: Case, version: str, verdicts: tuple[Verdict, ...], *, newly: bool) -> Tick:
    """Bad together with another version, or perhaps: nothing moves, and a person is called."""
    cause = next(one for one in verdicts[-1].findings if one.name == "shared_cause")
    other = f"version {cause.evidence['other']}"
    told = "are bad at once" if cause.outcome == "breach" else "cannot be told apart yet"
    title = f"{case.model}: version {version} and {other} {told}, nothing is rolled back"
    news = _page_once(case, version, title, verdicts[-1].reason, always=newly)
    return Tick("held", f"version {version} stays: {verdicts[-1].reason}", verdicts, news=news or case.dry_run)


def _until(case: Case, dossier: Dossier) -> str:
    """Until when the requests of a period were counted; nothing where they could not be."""
    evidence = dossier.given["evidence"]
    if evidence.unavailable is not None:
        return ""
    return f" {counted(evidence.looks, evidence.started, case.policy.health.tick)}"


def _quiet(case: Case, standing: Standing, version: str, verdicts: tuple[Verdict, ...], until: str) -> Tick:
    verdict = verdicts[-1]
    settled = any(one.decision == "healthy" for one in verdicts)
    silent = next((one for one in verdict.findings if one.evidence.get("page")), None)
    if silent is not None:
        news = _page_once(case, version, f"{case.model}: no evidence about version {version}", silent.reason)
        return Tick("held", f"version {version} stays: {silent.reason}", verdicts, news=news)
    if settled and version not in standing.known_good:
        healthy = next(one for one in verdicts if one.decision == "healthy")
        return Tick("healthy", f"version {version} is known good: {healthy.reason}", verdicts, news=True)
    if settled:
        return Tick("healthy", f"version {version}: {verdict.reason}{until}", verdicts)
    return Tick("watching", f"version {version}: {verdict.reason}{until}", verdicts)


def _page_once(case: Case, version: str, title: str, reason: str, *, always: bool = False) -> bool:
    """Tell a person, but not every minute: once per silence deadline or watch, whichever is longer.

    Returns:
        Whether it was told now.
    """
    paged: datetime | None = case.ledger.fact_at(case.model, version, "paged")
    if (
        not always
        and paged is not None
        and case.now - paged < max(case.policy.health.silence, case.policy.health.watch)
    ):
        return False
    case.state(version, "paged", title)
    case.tell(title, f"{reason}\ntrail {case.trail}")
    return True
