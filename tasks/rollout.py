"""Rollout: one tick of progressive delivery for one model, from the evidence to at most one step.

A candidate answers live requests unseen, then a share of them, then all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from tasks import canary, live, routers, split
from tasks.case import Case
from tasks.dossier import Dossier
from tasks.health_sources import counted, source
from tasks.records import Rollout, RolloutEvidence, Standing, Transition, Verdict
from tasks.retrial import reach
from tasks.routers import Routing

_AGAIN = timedelta(minutes=15)
"""Between two comparisons of a candidate that has answered live requests for long enough; each replays the log."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick came to.

    Attributes:
        decision: Its status, as in :class:`tasks.records.Report`.
        reason: One sentence.
        phase: How far the rollout is, ``25%, step 2 of 4``; None where none runs.
        version: The canary, or None.
        verdicts: What was judged; none where nothing runs.
        transition: That was carried out, or None.
        news: Something changed that a person would want to read.
    """

    decision: str
    reason: str
    phase: str | None = None
    version: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    transition: Transition | None = None
    news: bool = False


def tick(case: Case, standing: Standing) -> Tick:
    """Judge the canary and take at most one step. Without a canary this reads the ledger and writes nothing.

    What is there is read anew by every tick, so a tick that was killed at any line is made up for by the next one.

    Args:
        case: Whose model.
        standing: What the ledger says.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
    """
    routing, before = routers.settle(case), case.ledger.arms(case.model)
    try:
        seen = _judged(case, standing, routing)
    except Exception:
        if case.ledger.arms(case.model) != before:  # what the ledger took out is taken out whatever else fails
            routers.call(case, routers.settle(case))
        raise
    moved = case.ledger.arms(case.model) != before
    if moved:
        routing = routers.settle(case)
    if routing is None or routing.settled:
        return seen
    if moved and seen.decision == "aborted":
        routers.call(case, routing)
    decision = "holding" if seen.decision == "idle" else seen.decision
    return replace(seen, decision=decision, reason=f"{seen.reason}; {routing.reason}")


def _judged(case: Case, standing: Standing, routing: Routing | None) -> Tick:
    newest = case.ledger.rollout(case.model)
    seen = _delivered(case, standing, newest, routing)
    if seen.decision == "idle" and split.shadow(standing, newest) is not None:
        return _beside(case.on_trail(standing.staged_trail), standing) or seen
    return seen


def _delivered(case: Case, standing: Standing, newest: Rollout | None, routing: Routing | None) -> Tick:
    """What becomes of the version that has a share, or had one."""
    if newest is None:
        return _idle(standing, "no rollout has begun")
    case = case.on_trail(newest.trail)
    if newest.state == "running":
        return _running(case, standing, newest, routing)
    if canary.aborted(case, standing) is not None:  # the tick that aborted it came no further
        return _archived(case, standing, newest, ())
    if newest.state == "ended":
        return _ended(case, standing, newest)
    return _idle(standing, f"the last rollout, of version {newest.version}, was {newest.state}: {newest.reason}")


def _idle(standing: Standing, why: str) -> Tick:
    serves = (
        "nothing is in Production"
        if standing.production is None
        else (f"version {standing.production} answers all requests")
    )
    return Tick("idle", f"{serves}; {why}")


def _beside(case: Case, standing: Standing) -> Tick | None:
    """A candidate that answers live requests unseen goes on once that is enough; None: the policy asks for none."""
    rules, version = case.policy.shadow, standing.staged
    if rules is None or rules.live is None or version is None or live.with_a_person(case, standing):
        return None
    late = standing.staged_since is not None and case.now - standing.staged_since >= rules.deadline
    missing = "" if late else live.missing(case, standing)
    if not missing and not late:
        missing = _undecided(case, standing, version)
    if missing:
        line = f"version {version} answers live requests unseen beside version {standing.production}: {missing}"
        return Tick("holding", line, "shadow", version)
    from tasks import promotion  # noqa: PLC0415  see _promoted()

    done = promotion.advance(case, standing)
    decision = "holding" if done.decision == "waiting" else done.decision
    phase = _phase(case, case.policy.rollout.weights[0]) if decision == "canary" and case.policy.rollout else "shadow"
    return Tick(decision, done.reason, phase, version, done.verdicts, done.transition, news=decision != "holding")


def _undecided(case: Case, standing: Standing, version: str) -> str:
    """Why nothing is judged now: it was a while ago, with enough live requests, and labels do not come every minute."""
    last = next(iter(case.ledger.decisions(case.model, "shadow", limit=1)), None)
    if last is None or last.version != version or last.verdict.decision != "wait":
        return ""
    enough = any(one.name == "live" and one.outcome == "ok" for one in last.verdict.findings)
    if not enough or case.now - last.at >= _AGAIN or (standing.since is not None and last.at < standing.since):
        return ""
    return last.verdict.reason


def _running(case: Case, standing: Standing, rollout: Rollout, routing: Routing | None) -> Tick:
    rules = case.policy.rollout
    if rules is None:
        reason = f"the policy has no section rollout any more; version {rollout.version} waits in Staging"
        over = canary.end(case, rollout, "ended", reason)
        return _ended(case, standing, over) if over is not None else Tick("ended", reason, version=rollout.version)
    dossier = _dossier(case, rollout, routing)
    verdict = reach(dossier)
    if verdict.decision == "hold":
        _note_once(case, rollout, verdict, dossier)
        seen = dossier.given["evidence"]
        until = "" if seen.unavailable else f" {counted(seen.canary, seen.started, case.policy.health.tick)}"
        reason = f"{verdict.reason}{until}"
        return Tick("holding", reason, _phase(case, rollout.weight), rollout.version, (verdict,))
    case.note(verdict, dossier, version=rollout.version)
    if verdict.decision == "abort":
        over = canary.end(case, rollout, "aborted", verdict.reason)
        return _archived(case, standing, over or rollout, (verdict,))
    if verdict.decision == "promote":
        return _promoted(case, standing, rollout, verdict)
    weight = rules.following(rollout.weight)
    canary.weigh(case, rollout, weight, verdict.reason)
    return Tick("stepped", verdict.reason, _phase(case, weight), rollout.version, (verdict,), news=True)


def _dossier(case: Case, rollout: Rollout, routing: Routing | None) -> Dossier:
    """Everything that both versions did since the rollout began, and whether they have the shares that they should."""
    policy, log = case.policy, source(case.stores, case.policy)
    shared = {"started": rollout.started, "now": case.now, "health": policy.health, "problem": policy.problem}
    ours = log.evidence(case.model, rollout.version, role="canary", **shared)  # type: ignore[arg-type]
    theirs = log.evidence(case.model, rollout.baseline, **shared)  # type: ignore[arg-type]
    astray = routing.reason if routing is not None and not routing.settled else None
    missing = dict.fromkeys(one for one in (ours.partial, theirs.partial, astray) if one)
    evidence = RolloutEvidence(
        version=rollout.version,
        baseline=rollout.baseline,
        weight=rollout.weight,
        started=rollout.started,
        stepped=rollout.at,
        now=case.now,
        canary=ours.looks,
        production=theirs.looks,
        unavailable=ours.unavailable or theirs.unavailable,
        partial="; ".join(missing) or None,
        frozen=_frozen(case, rollout),
    )
    rules = {"rules": policy.rollout, "health": policy.health, "problem": policy.problem}
    return Dossier("rollout", {"evidence": evidence, **rules})


def _frozen(case: Case, rollout: Rollout) -> str | None:
    """Why nothing may move, where the watch says so of the version in Production."""
    last = next(iter(case.ledger.decisions(case.model, "health", limit=1)), None)
    if last is None or last.version != rollout.baseline or last.verdict.decision != "frozen" or last.at > case.now:
        return None
    return f"version {rollout.baseline} in Production is bad as well since {last.at:%Y-%m-%d %H:%M} UTC: nothing moves"


def _note_once(case: Case, rollout: Rollout, verdict: Verdict, dossier: Dossier) -> None:
    """The first hold at a weight is put down, and not the one of every minute."""
    last = next(iter(case.ledger.decisions(case.model, "rollout", limit=1)), None)
    if last is None or (last.version, last.verdict.decision) != (rollout.version, "hold") or last.at < rollout.at:
        case.note(verdict, dossier, version=rollout.version)


def _promoted(case: Case, standing: Standing, rollout: Rollout, verdict: Verdict) -> Tick:
    from tasks import promotion  # noqa: PLC0415  a tick that moves nothing must not import MLflow

    done = promotion.promote(case, standing, rollout.version, verdict)
    phase = _phase(case, 100)
    return Tick(done.decision, done.reason, phase, rollout.version, done.verdicts, done.transition, news=True)


def _archived(case: Case, standing: Standing, rollout: Rollout, verdicts: tuple[Verdict, ...]) -> Tick:
    """What follows once the canary has no share any more: a person is told, and the version is archived."""
    from tasks import promotion  # noqa: PLC0415  see _promoted()

    reason = verdicts[-1].reason if verdicts else rollout.reason
    version, stays = rollout.version, f"version {standing.production} answers all requests"
    paged = case.ledger.fact_at(case.model, version, "paged")
    if paged is None or paged < rollout.at:  # MLflow may be away, and this be tried again every minute
        title = f"{case.model}: canary {version} aborted, {stays}"
        case.tell(title, f"{reason}\ntrail {case.trail}")
        case.state(version, "paged", title)
    transition = promotion.archive(case, standing, version, reason)
    return Tick("aborted", f"{reason}; {stays}", "0%", version, verdicts, transition, news=True)


def _ended(case: Case, standing: Standing, rollout: Rollout) -> Tick:
    """A rollout that something else has ended; that is told once."""
    dossier = Dossier("rollout", {"ended": rollout.reason})
    verdict = reach(dossier)
    last = next(iter(case.ledger.decisions(case.model, "rollout", limit=1)), None)
    if last is not None and (last.version, last.verdict) == (rollout.version, verdict):
        return _idle(standing, f"the last rollout, of version {rollout.version}, was ended: {rollout.reason}")
    case.note(verdict, dossier, version=rollout.version)
    case.tell(f"{case.model}: rollout of version {rollout.version} ended", f"{rollout.reason}\ntrail {case.trail}")
    return Tick("ended", rollout.reason, "0%", rollout.version, (verdict,), news=True)


def _phase(case: Case, weight: int) -> str:
    steps = case.policy.rollout.weights if case.policy.rollout is not None else ()
    passed = sum(one <= weight for one in steps)
    return f"{weight}%, step {passed} of {len(steps)}"
