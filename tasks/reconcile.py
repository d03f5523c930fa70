"""Reconcile: ledger and MLflow brought together, before a flow decides anything.

What an earlier run left undone is completed or given up. What somebody changed in MLflow by hand is undone, or taken
down as the new truth, as the policy says. Everything that was found is a finding for a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from tasks import artifact
from tasks.ledger import Held, Ledger
from tasks.records import Finding, Standing

if TYPE_CHECKING:
    from tasks.registry import Registry, View


@dataclass(frozen=True, slots=True)
class _Meeting:
    """Both sides of one model, while its lock is held.

    Attributes:
        registry: MLflow's side.
        ledger: What is known of the versions.
        held: The ledger's side.
        adopt: What was changed outside is taken as the truth.
        at: When this happens.
        trail: Of the run in which it happens.
    """

    registry: Registry
    ledger: Ledger
    held: Held
    adopt: bool
    at: datetime
    trail: str

    @property
    def model(self) -> str:
        return self.held.model

    def view(self) -> View:
        return self.registry.view(self.model)

    def there(self, version: str) -> bool:
        """Whether MLflow has this version, and not another of the same number: those of a deleted model come again."""
        view, run = self.view(), self.ledger.run_of(self.model, version)
        return version in view.versions and run in {None, view.runs.get(version)}


def reconcile(
    registry: Registry,
    ledger: Ledger,
    model: str,
    *,
    external: Literal["repair", "adopt"],
    at: datetime,
    trail: str,
) -> tuple[Finding, ...]:
    """Bring ledger and MLflow together, under the ledger's lock.

    Args:
        registry: MLflow.
        ledger: Open.
        model: Registered name.
        external: ``repair``: a stage that was changed by hand is changed back. ``adopt``: it becomes the truth. A model
            that the ledger has never seen is adopted in any case.
        at: When this happens.
        trail: Of the run in which it happens.

    Returns:
        One finding per thing that was not in order, named ``registry``; nothing when all was.

    Raises:
        RegistryMismatch: When MLflow does not keep what is written to it.
        MlflowAway: When MLflow does not answer.
    """
    with registry.holding(ledger, model) as held:
        meeting = _Meeting(registry, ledger, held, external == "adopt", at, trail)
        findings = (*_finish(meeting), *_production(meeting), *_champion(meeting), *_staging(meeting))
        standing = held.standing()
    return (*findings, *_described(registry, ledger, standing))


def _finish(meeting: _Meeting) -> tuple[Finding, ...]:
    """An intent that an earlier run left: completed, or given up when its version is gone."""
    pending = meeting.held.standing().pending
    if pending is None:
        return ()
    what = f"{pending.action} of version {pending.version} (transition {pending.seq}, trail {pending.trail})"
    begun = f"{pending.actor} began the {what} on {pending.at:%Y-%m-%d %H:%M} and did not finish it"
    if not meeting.there(pending.version):
        meeting.held.settle(pending, "abandoned")
        return (_found(f"{begun}; the version is gone from MLflow, so it was given up", seq=pending.seq),)
    meeting.registry.apply(meeting.held, pending)
    reason = f"{begun}; it was completed now and read back"
    return (Finding(name="registry", outcome="ok", reason=reason, evidence={"seq": pending.seq}),)


def _production(meeting: _Meeting) -> tuple[Finding, ...]:
    """What MLflow has in Production against what the ledger says."""
    standing, view = meeting.held.standing(), meeting.view()
    if view.production == (() if standing.production is None else (standing.production,)):
        another = standing.production is not None and not meeting.there(standing.production)
        return _repaired(meeting, standing, view) if another else ()
    if standing.production is None:
        return _taken_over(meeting, view)
    others = tuple(version for version in view.production if version != standing.production)
    # A click of a version that was rolled back from cannot be told from a write that MLflow carried out late.
    quarantined = bool(set(others) & set(standing.quarantined))
    if meeting.adopt and len(others) <= 1 and not quarantined:
        return _adopted(meeting, standing, others[0] if others else None)
    return _repaired(meeting, standing, view)


def _taken_over(meeting: _Meeting, view: View) -> tuple[Finding, ...]:
    """MLflow has a Production version, and to the ledger nothing serves. To undo that would end the service."""
    chosen = view.champion if view.champion in view.production else view.production[-1]
    reason = f"version {chosen} of {meeting.model} was promoted outside Backstop, and nothing served to the ledger"
    if len(view.production) > 1:
        reason += f"; of versions {', '.join(view.production)}, all in Production, it was kept and the others archived"
    return (_take_down(meeting, str(chosen), f"{reason}; it is taken over as what serves"),)


def _adopted(meeting: _Meeting, standing: Standing, version: str | None) -> tuple[Finding, ...]:
    before = f"version {standing.production} of {meeting.model}"
    if version is None:
        reason = f"{before} was taken out of Production outside Backstop; nothing serves, as the policy adopts it"
        meeting.held.adopt(
            action="external",
            version=str(standing.production),
            production=None,
            reason=reason,
            at=meeting.at,
            trail=meeting.trail,
        )
        return (_found(reason),)
    reason = f"{before} was replaced by version {version} outside Backstop; the policy adopts it"
    return (_take_down(meeting, version, reason),)


def _take_down(meeting: _Meeting, version: str, reason: str) -> Finding:
    """Record what serves, and make it the only one that does."""
    meeting.registry.serve(meeting.model, version)
    meeting.held.adopt(
        action="external", version=version, production=version, reason=reason, at=meeting.at, trail=meeting.trail
    )
    return _found(reason, adopted=version)


def _repaired(meeting: _Meeting, standing: Standing, view: View) -> tuple[Finding, ...]:
    """Put the ledger's version back into Production, where it still exists."""
    version = str(standing.production)
    now = f"versions {', '.join(view.production)}" if view.production else "nothing"
    if not meeting.there(version):
        another = f" (the version {version} that it has now is another one)" if version in view.versions else ""
        reason = (
            f"version {version} of {meeting.model} should be in Production and was deleted from MLflow, which has "
            f"{now} there{another}; nothing was changed. Roll back (flows.rollback) or promote another version "
            "(flows.promote)"
        )
        return (_found(reason),)
    meeting.registry.serve(meeting.model, version)
    after = meeting.view()
    if after.production != (version,):
        return (_found(f"version {version} of {meeting.model} could not be put back: MLflow has {after.production}"),)
    return (
        _found(
            f"MLflow had {now} of {meeting.model} in Production, changed outside Backstop; version {version} was put "
            f"back. To replace it use flows.promote{_instead(meeting, standing, view)}",
            repaired=version,
        ),
    )


def _instead(meeting: _Meeting, standing: Standing, view: View) -> str:
    """What else a person can do who wanted the change that was put back."""
    bad = set(view.production) & set(standing.quarantined)
    if bad:
        return f" with override: version {', '.join(sorted(bad))} was rolled back from and is never adopted"
    return "" if meeting.adopt else ", or set `external: adopt`"


def _champion(meeting: _Meeting) -> tuple[Finding, ...]:
    """The alias follows the stage."""
    version, view = meeting.held.standing().production, meeting.view()
    if version is None or view.production != (version,) or view.champion == version or not meeting.there(version):
        return ()
    meeting.registry.serve(meeting.model, version)
    was = "was missing" if view.champion is None else f"pointed to version {view.champion}"
    return (_found(f"the alias champion of {meeting.model} {was}; it points to version {version} again"),)


def _staging(meeting: _Meeting) -> tuple[Finding, ...]:
    """The candidate that waits, against what MLflow has in Staging. What others keep in Staging is their own affair."""
    standing, view = meeting.held.standing(), meeting.view()
    version = standing.staged
    if version is None:
        return ()
    gone = not meeting.there(version)
    if not gone and version in view.staging and view.challenger == version:
        return ()
    if gone or (meeting.adopt and version not in view.staging):
        reason = f"version {version} of {meeting.model} waited in Staging and was {'deleted' if gone else 'taken out'}"
        reason += " outside Backstop; it is given up"
        meeting.held.adopt(
            action="reject",
            version=version,
            production=standing.production,
            reason=reason,
            at=meeting.at,
            trail=meeting.trail,
        )
        return (_found(reason),)
    meeting.registry.wait(meeting.model, version)
    return (_found(f"version {version} of {meeting.model} waits in Staging and was moved outside Backstop; put back"),)


def _described(registry: Registry, ledger: Ledger, standing: Standing) -> tuple[Finding, ...]:
    """Remember the digest of a version that was made elsewhere, so that it cannot be swapped from now on.

    Not only by the run that took it over, which may have died before it came to this.
    """
    model, version = standing.model, standing.production
    if version is None or standing.since is None or ledger.digest(model, version) is not None:
        return ()
    served = ledger.serving_at(model, standing.since)
    if served is None or served.action != "external":
        return ()
    try:
        folder = registry.download(model, version)
        ledger.describe_external(model, version, digest=artifact.digest(folder), size=artifact.size(folder))
    except (LookupError, OSError) as error:
        reason = f"the files of version {version} of {model} could not be read, so a change of them cannot be noticed"
        return (Finding(name="registry", outcome="unknown", reason=f"{reason}: {error}"),)
    return ()


def _found(reason: str, **evidence: object) -> Finding:
    return Finding(name="registry", outcome="breach", reason=reason, evidence=evidence)
