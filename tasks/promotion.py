"""Promotion: a candidate's way from the gate to Production, one step at a time, each kept in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from tasks import approval, artifact, canary
from tasks.case import Case
from tasks.dossier import Dossier
from tasks.evidence import for_shadow
from tasks.policy import Approval, Shadow
from tasks.records import Profile, Standing, Transition, Verdict
from tasks.retrial import reach
from tasks.rollback import try_out
from tasks.signals import profile_of
from tasks.transitions import StaleDecision


@dataclass(frozen=True, slots=True)
class Advance:
    """What became of a candidate in Staging.

    Attributes:
        decision: As in :class:`tasks.records.Report`.
        reason: One sentence.
        verdicts: That led there.
        transition: That was carried out, or None.
    """

    decision: str
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    transition: Transition | None = None


def refuse(case: Case, standing: Standing, version: str, verdict: Verdict) -> None:
    """Keep Production, mark the candidate with the reasons, and tell a person.

    Raises:
        ValueError: In a dry run, which has no version to mark.
    """
    registry = case.registry()
    registry.tag(case.model, version, "backstop.gate", verdict.decision)
    registry.tag(case.model, version, "backstop.reason", verdict.reason)
    case.state(version, "rejected", verdict.reason)
    worst = (*verdict.having("breach"), *verdict.having("unknown"))
    stays = f"version {standing.production} stays in Production" if standing.production else "nothing is in Production"
    case.tell(
        f"{case.model}: gate {verdict.decision}, {stays}",
        "\n".join(
            (verdict.reason, *(f"- {finding.name}: {finding.reason}" for finding in worst), f"trail {case.trail}")
        ),
    )


def stage(case: Case, standing: Standing, version: str, verdict: Verdict) -> Standing:
    """Move a candidate that passed the gate to Staging; a canary that was there is superseded by it.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
    """
    before = canary.running(case, standing)
    _move(case, standing, "stage", version, verdict.reason, (verdict,))
    if before is not None and before.version != version:
        reason = f"version {before.version} is superseded by version {version}, which passed the gate"
        case.tell(f"{case.model}: rollout of version {before.version} ended", f"{reason}\ntrail {before.trail}")
    return case.standing()


def advance(case: Case, standing: Standing) -> Advance:
    """Judge the candidate in Staging, and let it go out, reject it or let it wait.

    One that is a canary by now is the rollout's to judge.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
        ValueError: When nothing is in Staging.
    """
    version = standing.staged
    if version is None:
        raise ValueError(f"{case.model} has no version in Staging to advance; run flows.retrain first")
    if (serving := canary.running(case, standing)) is not None:
        return Advance("waiting", f"{canary.told(serving)}; flows.rollout takes its next step")
    if (given_up := canary.aborted(case, standing)) is not None:
        return Advance("aborted", given_up.reason, transition=archive(case, standing, version, given_up.reason))
    dossier = _compare_staged(case, standing, version)
    verdict = reach(dossier)
    case.note(verdict, dossier, version=version)
    if verdict.decision == "reject":
        return _rejected(case, standing, version, verdict, "shadow-rejected")
    if verdict.decision == "wait":
        return _waiting(case, standing, version, verdict)
    if case.policy.approval is not None and not case.ledger.has_fact(case.model, version, "approved"):
        return _awaiting(case, standing, version, verdict)
    return go_out(case, standing, version, verdict)


def go_out(case: Case, standing: Standing, version: str, verdict: Verdict) -> Advance:
    """Let a version that passed everything go out: at once, or where the policy has a rollout, as a canary first.

    The first model has no version beside it that it could be compared with, and goes to Production at once.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
        SwappedArtifact: When the version's files are not those that were judged.
        MissingVersion: When MLflow does not have the version or its files.
    """
    rules = case.policy.rollout
    if rules is None or standing.production is None or rules.weights[0] == 100:
        return promote(case, standing, version, verdict)
    weight = rules.weights[0]
    reason = f"version {version} is a canary with {weight}% of the requests beside version {standing.production}: "
    reason += "; ".join((*_grounds(case, version, verdict), verdict.reason))
    if not case.dry_run:
        case.registry().fetch(case.ledger, case.model, version, fresh=True)
    canary.begin(case, standing, version, weight, reason)
    case.tell(f"{case.model}: version {version} is a canary with {weight}%", f"{reason}\ntrail {case.trail}")
    return Advance("canary", reason, (verdict,))


def _compare_staged(case: Case, standing: Standing, version: str) -> Dossier:
    """What the shadow judges of a version in the registry."""
    if standing.production is None or case.policy.shadow is None:
        return compare(case, standing, None, None)
    model = case.registry().load(case.ledger, case.policy, version)
    return compare(case, standing, model, profile_of(case, version), version)


def compare(
    case: Case, standing: Standing, challenger: Any, profile: Profile | None, version: str | None = None
) -> Dossier:
    """What the shadow judges of a challenger; where there is nothing to compare, that is said.

    Args:
        case: Whose model.
        standing: What the ledger says.
        challenger: The candidate's model, loaded.
        profile: The candidate's; it tells which requests the candidate has not been trained on.
        version: Its number in the registry; None: it has none yet.

    Raises:
        ValueError: When a comparison is due and the challenger has no profile.
    """
    if standing.production is None:
        return nothing_to_compare(first=True)
    if case.policy.shadow is None:
        return nothing_to_compare(first=False)
    if profile is None:
        raise ValueError(f"{case.model}'s version in Staging has no stored profile; it was not trained by Backstop")
    found = for_shadow(case, standing, challenger, version=version, unseen_since=profile.trained.end)
    return Dossier("shadow", {"evidence": found, "rules": case.policy.shadow})


def promote(case: Case, standing: Standing, version: str, verdict: Verdict, *, release: bool = False) -> Advance:
    """Move a version to Production and tell about it.

    Args:
        case: Whose model.
        standing: What the decision is based on.
        version: To promote.
        verdict: That led here.
        release: A person says that the version may come back although it was rolled back from.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
        SwappedArtifact: When the version's files are not those that were judged.
        MissingVersion: When MLflow does not have the version or its files.
    """
    first = standing.production is None
    what = "is the first in Production" if first else f"replaces {standing.production}"
    reason = f"version {version} {what}: {'; '.join((*_grounds(case, version, verdict), verdict.reason))}"
    transition = _move(case, standing, "promote", version, reason, (verdict,), release=release)
    case.tell(f"{case.model}: version {version} promoted", f"{reason}\ntrail {case.trail}")
    return Advance("first-promoted" if first else "promoted", reason, (verdict,), transition)


def by_hand(case: Case, standing: Standing, version: str, reason: str, *, override: bool) -> Advance:
    """Promote a version on a person's word, once it loads and answers.

    Args:
        case: Whose model; its actor is the person.
        standing: What the decision is based on.
        version: To promote.
        reason: The person's.
        override: The person knows that the gate did not pass it, or that it was rolled back before.

    Raises:
        ValueError: When something speaks against it and ``override`` is not set; names everything that does. When it
            does not load and answer; no override helps then.
        MissingVersion: When there is no such version.
        StaleDecision: When the ledger moved since ``standing`` was read.
    """
    case.registry().see(case.model, version)
    against = [*_objections(case, standing, version)]
    if against and not override:
        raise ValueError(
            f"version {version} of {case.model} stays where it is: {'; '.join(against)}. Set override (--override at a "
            "terminal) to promote it all the same"
        )
    tried = try_out(case, version)
    dossier = Dossier("person", {"reason": reason, "actor": case.actor, "against": tuple(against), "tried": tried})
    verdict = reach(dossier)
    if verdict.decision != "promote":
        raise ValueError(f"version {version} of {case.model} stays where it is: {tried.reason}")
    case.note(verdict, dossier, version=version)
    if version == standing.staged:
        case.state(version, "approved", verdict.reason)
    return promote(case, standing, version, verdict, release=True)


def answered(
    case: Case, standing: Standing, version: str, decision: Literal["approve", "reject"] | None, why: str
) -> Advance:
    """A person's answer about a version that awaits approval. The first one counts, until the deadline.

    Args:
        case: Whose model; its actor is the person.
        standing: What the ledger says now.
        version: That was asked about.
        decision: The person's; None: nobody said anything now, and only what is overdue or was said before is done.
        why: The person's reason.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read; the person's word is kept by then.
        ValueError: When it is approved and does not load and answer.
    """
    asked = approval.question(case, standing)
    if standing.staged == version and asked is None:  # there was an answer, and it was not carried out
        if approval.granted(case, standing) is not None:
            return carry_out(case, standing, version) if decision != "reject" else _no(case, standing, version, why)
        if case.ledger.has_fact(case.model, version, "expired"):
            return expire(case, standing, version)
    if asked is None or asked.version != version:
        return Advance("answered", approval.became(case, standing, version))
    if asked.overdue(case.now):
        return expire(case, standing, version)
    if decision is None:
        until = f"{asked.deadline:%Y-%m-%d %H:%M} UTC"
        return Advance("waiting", f"version {version} awaits a person's approval until {until}")
    if decision == "reject":
        return _no(case, standing, version, why)
    if not case.answer(version, "approved", why):
        return Advance("answered", approval.became(case, case.standing(), version))
    return carry_out(case, standing, version)


def _no(case: Case, standing: Standing, version: str, why: str) -> Advance:
    reason = f"version {version} rejected by {case.actor}: {why}"
    return Advance("rejected", reason, transition=reject(case, standing, version, why))


def carry_out(case: Case, standing: Standing, version: str) -> Advance:
    """Promote what a person approved, once it loads and answers; against another Production it is judged again first.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
        ValueError: When something speaks against it, or it does not load and answer.
    """
    if (serving := canary.running(case, standing)) is not None:
        return Advance("answered", f"it was carried out: {canary.told(serving)}")
    if canary.aborted(case, standing) is not None:
        return advance(case, standing)
    actor, why = case.ledger.word(case.model, version, "approved") or (case.actor, "approved")
    case = replace(case, actor=actor)
    if not approval.compared_with_present(case, version):
        went_on = advance(case, standing)
        note = f"approved by {actor} ({why}); compared with what is in Production now: {went_on.reason}"
        decision = "approved" if went_on.decision == "waiting" else went_on.decision
        return Advance(decision, note, went_on.verdicts, went_on.transition)
    if against := [*_objections(case, standing, version)]:
        raise ValueError(f"version {version} of {case.model} was approved and stays where it is: {'; '.join(against)}")
    tried = try_out(case, version)
    dossier = Dossier("person", {"reason": why, "actor": actor, "against": (), "tried": tried})
    verdict = reach(dossier)
    if verdict.decision != "promote":
        raise ValueError(f"version {version} of {case.model} was approved and stays where it is: {tried.reason}")
    case.note(verdict, dossier, version=version)
    return go_out(case, standing, version, verdict)


def expire(case: Case, standing: Standing, version: str) -> Advance:
    """Nobody answered in time: what serves stays, the candidate goes, and a person is told.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read, or somebody answered in this moment.
    """
    stays = f"version {standing.production} stays in Production" if standing.production else "nothing is in Production"
    reason = f"nobody approved version {version} within the deadline; {stays}"
    if not case.answer(version, "expired", reason) and not case.ledger.has_fact(case.model, version, "expired"):
        raise StaleDecision(f"{case.model}: somebody answered about version {version} when its deadline passed")
    transition = _move(case, standing, "reject", version, reason, ())
    case.tell(f"{case.model}: approval of version {version} expired, {stays}", f"{reason}\ntrail {case.trail}")
    return Advance("expired", reason, transition=transition)


def _objections(case: Case, standing: Standing, version: str) -> Iterator[str]:
    if version == standing.production:
        yield "it is in Production already, and there is nothing to do"
    if version in standing.quarantined:
        yield "it was rolled back from and is quarantined"
    judged = case.ledger.gate_decision(case.model, version)
    if judged is None:
        yield "the gate never judged it"
    elif judged != "pass":
        yield f"the gate said {judged}"
    elif case.ledger.has_fact(case.model, version, "rejected"):
        yield "it was rejected after the gate had passed it"


def _grounds(case: Case, version: str, verdict: Verdict) -> tuple[str, ...]:
    """Where the shadow had nothing to compare: what the gate measured, so that the line has its numbers."""
    if len(verdict.having("exempt")) < len(verdict.findings):
        return ()
    judged = next((one for one in case.ledger.decisions(case.model, "gate", limit=10) if one.version == version), None)
    told = judged.verdict.having("ok") if judged is not None else ()
    return tuple(finding.reason for finding in told if finding.name in {"performance", "regression"})


def reject(case: Case, standing: Standing, version: str, reason: str) -> Transition | None:
    """Take a version out of Staging.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
    """
    transition = _move(case, standing, "reject", version, reason, ())
    case.tell(f"{case.model}: version {version} rejected", f"{reason}\ntrail {case.trail}")
    return transition


def archive(case: Case, standing: Standing, version: str, reason: str) -> Transition | None:
    """Take a version out of Staging without a word; whoever does it has told it.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
    """
    return _move(case, standing, "reject", version, reason, ())


def _rejected(case: Case, standing: Standing, version: str, verdict: Verdict, decision: str) -> Advance:
    transition = reject(case, standing, version, verdict.reason)
    return Advance(decision, verdict.reason, (verdict,), transition)


def _waiting(case: Case, standing: Standing, version: str, verdict: Verdict) -> Advance:
    rules = case.policy.shadow or Shadow()
    since = standing.staged_since or case.now
    if case.now - since < rules.deadline:
        return Advance("waiting", f"version {version} waits in Staging: {verdict.reason}", (verdict,))
    reason = f"version {version} was given up after {(case.now - since).days} days without a decision: {verdict.reason}"
    transition = reject(case, standing, version, reason)
    return Advance("shadow-rejected", reason, (verdict,), transition)


def _awaiting(case: Case, standing: Standing, version: str, verdict: Verdict) -> Advance:
    asked = approval.question(case, standing)
    if asked is not None and not asked.overdue(case.now):
        since = f"{asked.asked:%Y-%m-%d %H:%M} UTC, until {asked.deadline:%Y-%m-%d %H:%M}"
        return Advance("waiting", f"version {version} awaits a person's approval since {since}", (verdict,))
    if asked is not None or case.ledger.has_fact(case.model, version, "expired"):
        late = expire(case, standing, version)
        return Advance(late.decision, late.reason, (verdict,), late.transition)
    deadline = case.now + (case.policy.approval or Approval()).deadline
    passed = "gate and shadow" if case.policy.shadow else "the gate"
    reason = f"version {version} passed {passed} and awaits a person's approval: {verdict.reason}"
    case.state(version, "awaiting", reason)
    until = f"without an answer until {deadline:%Y-%m-%d %H:%M} UTC Production stays"
    case.tell(f"{case.model}: version {version} awaits approval", f"{reason}\n{until}\ntrail {case.trail}")
    return Advance("awaiting", reason, (verdict,))


def _move(
    case: Case,
    standing: Standing,
    action: Literal["stage", "promote", "reject"],
    version: str,
    reason: str,
    verdicts: tuple[Verdict, ...],
    *,
    release: bool = False,
) -> Transition | None:
    """Carry out one transition; a dry run carries out none.

    What goes to Production has the files that were judged: days may lie between the gate and this moment.
    """
    if case.dry_run:
        return None
    registry = case.registry()
    if action == "promote":
        folder = registry.fetch(case.ledger, case.model, version, fresh=True)
        if case.ledger.digest(case.model, version) is None:  # made elsewhere: from now on it cannot be swapped either
            digest, size = artifact.digest(folder), artifact.size(folder)
            case.ledger.describe_external(case.model, version, digest=digest, size=size)
    return registry.move(
        case.ledger,
        standing,
        action=action,
        version=version,
        actor=case.actor,
        reason=reason,
        at=case.now,
        trail=case.trail,
        flow_run_id=case.flow_run_id,
        evidence={"verdicts": verdicts},
        release=release,
    )


def nothing_to_compare(*, first: bool) -> Dossier:
    """What the shadow judges where there is none: of the first model, or as the policy has it."""
    reason = "shadow is off in the policy"
    if first:
        reason = "no baseline: this is the first model, so there is nothing to compare it with"
    return Dossier("shadow", {"evidence": None, "rules": None, "nothing": reason})
