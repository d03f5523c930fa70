"""Where a rollback may go: to the newest version that was known good in production, and never in circles."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.records import Finding, Standing, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Where to go back to.

    Attributes:
        finding: ``ok`` when there is somewhere to go, ``breach`` when a person has to take over.
        versions: In the order in which they are to be tried; the first that loads and answers is taken.
    """

    finding: Finding
    versions: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """The first choice, or None."""
        return self.versions[0] if self.versions else None


def choose(standing: Standing, *, rollbacks_in_window: int, limit: int, to: str | None = None) -> Choice:
    """Choose among the versions that finished a watch healthy, newest first.

    A version that is quarantined or serves now is never chosen, so two bad versions cannot be swapped for ever; after
    too many rollbacks in the window a person decides.

    Args:
        standing: What the ledger says.
        rollbacks_in_window: Rollbacks within the policy's window.
        limit: So many are allowed; the next one is a person's.
        to: Only this version; it must be eligible all the same.
    """
    if rollbacks_in_window >= limit:
        return _none(
            standing,
            f"{rollbacks_in_window} rollbacks happened within the policy's window and {limit} are allowed; a person "
            "has to decide",
            value=float(rollbacks_in_window),
            threshold=float(limit),
        )
    barred = {standing.production, *standing.quarantined}
    eligible = tuple(version for version in standing.known_good if version not in barred)
    if to is not None and to not in eligible:
        return _none(standing, f"version {to} cannot be rolled back to: {_bar(standing, to)}")
    if not eligible:
        return _none(standing, f"no version can be rolled back to: {_nobody(standing)}; a person has to decide")
    versions = eligible if to is None else (to,)
    present = "nothing" if standing.production is None else f"version {standing.production}"
    reason = f"version {versions[0]} is known good and can come back; {present} is in Production"
    finding = Finding(
        name="rollback_target", outcome="ok", reason=reason, n=len(eligible), evidence=_evidence(standing)
    )
    return Choice(finding=finding, versions=versions)


def conclude(standing: Standing, choice: Choice, tried: tuple[Finding, ...], *, reason: str) -> Verdict:
    """Back to the first choice that loads and answers, or stay.

    Args:
        standing: What the ledger says.
        choice: See :func:`choose`.
        tried: What trying out its versions found, in their order, up to the first that answers.
        reason: Why the present version has to go.
    """
    findings = (choice.finding, *tried)
    if tried and tried[-1].outcome == "ok":
        told = f"version {standing.production} goes back to {choice.versions[len(tried) - 1]}: {reason}"
        return Verdict(judge="rollback", decision="back", reason=told, findings=findings)
    why = choice.finding.reason if not choice.versions else "no version known good loads and answers"
    if standing.production is None:
        told = f"nothing is in Production: {why}"
    else:
        told = f"Production stays at version {standing.production}, which has to go ({reason}): {why}"
    return Verdict(judge="rollback", decision="stay", reason=told, findings=findings)


def _none(standing: Standing, reason: str, value: float | None = None, threshold: float | None = None) -> Choice:
    finding = Finding(
        name="rollback_target",
        outcome="breach",
        reason=reason,
        value=value,
        threshold=threshold,
        evidence=_evidence(standing),
    )
    return Choice(finding=finding)


def _evidence(standing: Standing) -> dict[str, object]:
    return {
        "production": standing.production,
        "known_good": list(standing.known_good),
        "quarantined": list(standing.quarantined),
    }


def _bar(standing: Standing, version: str) -> str:
    if version == standing.production:
        return "it is in Production now"
    if version in standing.quarantined:
        return "it was rolled back from and is quarantined"
    return "it never finished a watch healthy"


def _nobody(standing: Standing) -> str:
    if standing.known_good:
        told = f"none but version {', '.join(standing.known_good)} finished a watch healthy"
    else:
        told = "none ever finished a watch healthy"
    if standing.quarantined:
        told += f", and version {', '.join(standing.quarantined)} was rolled back from"
    return told
