"""Rollback: back to the last version known good; trains nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks import tryout
from tasks.case import Case
from tasks.decide import rollback as judgement
from tasks.dossier import Dossier
from tasks.records import Finding, Outcome, Standing, Transition, Verdict
from tasks.retrial import reach


@dataclass(frozen=True, slots=True)
class Reversal:
    """What became of a rollback.

    Attributes:
        target: Version that was chosen, or None.
        transition: As it was carried out; None when there is no target or in a dry run.
        verdict: How the target was chosen and tried.
        reason: One sentence.
    """

    target: str | None
    transition: Transition | None
    verdict: Verdict
    reason: str


def roll_back(
    case: Case, standing: Standing, *, reason: str, to: str | None = None, automatic: bool = True
) -> Reversal:
    """Choose the version to go back to, see that it loads and answers, and move to it.

    Args:
        case: Whose model.
        standing: What the decision is based on.
        reason: Why the present version has to go.
        to: A version that a person names, which must be known good all the same; empty: the newest one.
        automatic: Counts against the policy's limit of automatic rollbacks.

    Raises:
        MissingVersion: When there is no version that a person names.
        StaleDecision: When the ledger moved since ``standing`` was read.
    """
    if to is not None and to not in standing.known_good:
        case.registry().see(case.model, to)
    health = case.policy.health
    recent = case.ledger.rollbacks_since(case.model, case.now - health.rollback_window) if automatic else 0
    choice = judgement.choose(standing, rollbacks_in_window=recent, limit=health.max_rollbacks, to=to)
    tried: list[Finding] = []
    for version in choice.versions:
        tried.append(try_out(case, version))
        if tried[-1].outcome == "ok":
            break
    dossier = Dossier(
        "rollback",
        {
            "standing": standing,
            "rollbacks_in_window": recent,
            "limit": health.max_rollbacks,
            "to": to,
            "tried": tuple(tried),
            "reason": reason,
        },
    )
    verdict = reach(dossier)
    if verdict.decision == "back":
        return _back(case, standing, choice.versions[len(tried) - 1], verdict, dossier)
    if standing.production is None:  # a person asks for it; no verdict on a version that is not there is kept
        why = tried[-1].reason if tried else choice.finding.reason
        empty = f"nothing is in Production of {case.model}, so there is nothing to roll back; {why}"
        return Reversal(None, None, replace(verdict, reason=empty), empty)
    return _stay(case, verdict, dossier)


def _back(case: Case, standing: Standing, version: str, verdict: Verdict, dossier: Dossier) -> Reversal:
    if case.dry_run:
        return Reversal(version, None, verdict, verdict.reason)
    case.note(verdict, dossier, version=version)
    return Reversal(version, _carry_out(case, standing, version, verdict), verdict, verdict.reason)


def _stay(case: Case, verdict: Verdict, dossier: Dossier) -> Reversal:
    """Nothing moves; the ledger tells why, once and not with every tick that finds the same."""
    last = next(iter(case.ledger.decisions(case.model, "rollback", limit=1)), None)
    if last is None or (last.trail, last.verdict.reason) != (case.trail, verdict.reason):
        case.note(verdict, dossier)
    return Reversal(None, None, verdict, verdict.reason)


def try_out(case: Case, version: str) -> Finding:
    """Whether a version loads and answers its stored example in a fresh process, right now."""
    try:
        with tryout.begun(case.policy) as trial:  # ready by the time that MLflow has told where the files are
            folder = case.registry().fetch(case.ledger, case.model, version, fresh=True)
            answered, reason = trial.of(folder)
    except Exception as error:  # noqa: BLE001  an artifact that cannot be fetched is a finding about it
        answered, reason = False, f"version {version} cannot be fetched: {error}"
    outcome: Outcome = "unknown" if answered is None else "ok" if answered else "breach"
    return Finding(name=f"version {version} answers", outcome=outcome, reason=reason)


def _carry_out(case: Case, standing: Standing, version: str, verdict: Verdict) -> Transition:
    return case.registry().move(
        case.ledger,
        standing,
        action="rollback",
        version=version,
        actor=case.actor,
        reason=verdict.reason,
        at=case.now,
        trail=case.trail,
        flow_run_id=case.flow_run_id,
        evidence={"verdict": verdict},
    )
