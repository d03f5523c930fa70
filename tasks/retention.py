"""Retention: what is older than the policies keep it goes, once a day: requests with their labels, and evidence.

``python -m tasks.retention policies`` does it at once, and ``--dry-run`` tells what would go. Nothing that a comparison
under way still reads goes, whatever the policy says: of a candidate in Staging and of a rollout everything since they
began stays, and a policy that keeps less than its own windows need is refused when it is read.

The ledger is never shortened: every transition, decision and link stays. What may go is the evidence that an old
decision was made on, and that it went is a row of the ledger itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy import func, select

from tasks import schema
from tasks.database import Database
from tasks.expiry import Gone, Stays, claim, expire
from tasks.ledger import Ledger
from tasks.partitions import sliced
from tasks.policy import Policy, as_utc
from tasks.policy_file import PolicyError, load_many
from tasks.progress import Course, Progress, on_terminal, silent
from tasks.records import Standing
from tasks.removal import Order
from tasks.stores import Stores
from tasks.units import format_duration

EVERY = timedelta(days=1)
_BACK = 2
"""Newest versions known good, to which a rollback goes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What a run came to.

    Attributes:
        gone: Of the request log.
        stays: Weeks of the log that are older than one of the policies keeps them and stay, with the reason.
        evidence: Bodies of evidence that went, by model.
    """

    gone: tuple[Gone, ...]
    stays: tuple[Stays, ...]
    evidence: dict[str, int]

    def lines(self) -> tuple[str, ...]:
        """One sentence each, what went first; nothing where nothing did and nothing had to."""
        return (
            *(f"requests: {one.name} is gone, {one.rows:,} rows" for one in self.gone),
            *(f"evidence: {count:,} of {model} removed" for model, count in self.evidence.items()),
            *(f"requests: {one.name} stays: {one.reason}" for one in self.stays if not one.expected),
        )


def wanted(policies: Iterable[Policy]) -> bool:
    """Whether any of these says that something goes."""
    return any(one.retention.requests is not None or one.retention.evidence is not None for one in policies)


def daily(policies: tuple[Policy, ...], stores: Stores, ledger: Ledger, now: datetime) -> Swept | None:
    """What a tick does: nothing, but once a day. None: it was done today, or no policy asks for it.

    Args:
        policies: Of all models that share the log; others keep their rows.
        stores: Where things are kept.
        ledger: Open.
        now: Aware.
    """
    if not wanted(policies):
        return None
    # Who is given other policies has a turn of its own: it may be the one that knows all models.
    models = ",".join(sorted(policy.model for policy in policies))
    with _log(stores) as log:
        if not claim(log, hashlib.sha256(models.encode()).hexdigest()[:16], min(now, _clock(log)), EVERY):
            return None
        return sweep(policies, log, ledger, now, actor="flows.watch")


def sweep(
    policies: tuple[Policy, ...],
    log: Database,
    ledger: Ledger,
    now: datetime,
    *,
    actor: str,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Swept:
    """Take out what may go.

    Args:
        policies: As for :func:`daily`.
        log: The request log's database.
        ledger: Open.
        now: Aware. Of a clock that is ahead more would go than may; a database that says it is earlier is believed.
        actor: On whose word.
        dry_run: Only tell what would go.
        progress: Told how far it is.
    """
    course = Course(progress, "retention", 1 + len(policies))
    moment = min(now, _clock(log))
    standings = {policy.model: ledger.standing(policy.model) for policy in policies}
    bounds = {
        policy.model: bound
        for policy in policies
        if (bound := _bound(policy, standings[policy.model], ledger, moment)) is not None
    }
    found = tuple(expire(log, bounds, moment, dry_run=dry_run))
    course.past()
    evidence: dict[str, int] = {}
    for policy in policies:
        order = _order(policy, standings[policy.model], ledger, moment, actor)
        if order is not None and (count := (ledger.removable if dry_run else ledger.remove_evidence)(order)):
            evidence[policy.model] = count
        course.past()
    return Swept(
        gone=tuple(one for one in found if isinstance(one, Gone)),
        stays=tuple(one for one in found if isinstance(one, Stays)),
        evidence=evidence,
    )


def _bound(policy: Policy, standing: Standing, ledger: Ledger, now: datetime) -> datetime | None:
    """Nothing that was asked of this model at or after it goes; None: nothing at all."""
    if policy.retention.requests is None:
        return None
    bounds = [now - policy.retention.requests]
    if standing.staged_since is not None:
        window = policy.shadow.window if policy.shadow is not None else timedelta(0)
        bounds.append(standing.staged_since - window)
    rollout = ledger.rollout(policy.model)
    if rollout is not None and rollout.state == "running":
        bounds.append(rollout.started)
    return min(bounds)


def _order(policy: Policy, standing: Standing, ledger: Ledger, now: datetime, actor: str) -> Order | None:
    """Which evidence goes; that of what serves, waits or would be gone back to stays."""
    kept = policy.retention.evidence
    if kept is None:
        return None
    versions = {standing.production, standing.staged, *standing.known_good[:_BACK]} - {None}
    # Why a version was made was decided before it had its number, and is on its trail.
    trails = {one.trail for one in ledger.history(policy.model) if one.version in versions}
    return Order(
        model=policy.model,
        before=now - kept,
        versions=sorted(str(one) for one in versions),
        trails=sorted(trails),
        at=now,
        reason=f"older than retention.evidence, {format_duration(kept)}",
        actor=actor,
    )


@contextmanager
def _log(stores: Stores) -> Iterator[Database]:
    database = Database.open(stores.requests, part="requests", revision=schema.LOG_REVISION)
    try:
        yield database
    finally:
        database.close()


def _clock(log: Database) -> datetime:
    """What a database server's own clock says. Without a server the newest request does: an idle log loses nothing."""
    with log.reading() as connection:
        if sliced(log):
            return as_utc(connection.execute(select(func.now())).scalar_one())
        newest = connection.execute(select(func.max(schema.requests.c.at))).scalar_one()
    return datetime.max.replace(tzinfo=UTC) if newest is None else as_utc(newest) + EVERY


def main(
    policies: Annotated[str, typer.Argument(help="All models of the log: a folder, a glob, or several with commas.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go, and change nothing.")] = False,
) -> None:
    """Take out what is older than the policies keep it.

    Raises:
        typer.BadParameter: For policies that cannot be read; nothing is taken out then.
    """
    try:
        loaded = load_many(policies)
    except PolicyError as error:
        raise typer.BadParameter(str(error)) from error
    stores, now = Stores.from_environment(), datetime.now(UTC)
    if not wanted(loaded):
        typer.echo("No policy has retention.requests or retention.evidence: everything stays.")
        return
    with Ledger.open(stores.ledger) as ledger, _log(stores) as log, on_terminal() as progress:
        swept = sweep(loaded, log, ledger, now, actor="tasks.retention", dry_run=dry_run, progress=progress)
    typer.echo("Nothing is changed; this would happen:" if dry_run else f"As of {now:%Y-%m-%d %H:%M} UTC:")
    for line in swept.lines() or ("nothing is old enough to go",):
        typer.echo(f"  {line}")


if __name__ == "__main__":
    typer.run(main)
