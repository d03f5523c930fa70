"""Ledger: the append-only history of what served, why, and on whose word.

It is what correctness rests on: MLflow's stages, aliases and tags are its projection. Rows are only ever added; the one
thing that changes is the state of an intent, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import func, select

from tasks import chain, schema, split
from tasks.database import Database
from tasks.journal import FACTS, Decision, Journal, Notification
from tasks.lock import lock
from tasks.outbox import Outbox
from tasks.policy import as_utc
from tasks.progress import Progress, silent
from tasks.records import Action, Arm, Rollout, Standing, State, Transition
from tasks.standing import SERVING, Rows, standing_of, transition_of
from tasks.transitions import Held, Refused, StaleDecision

__all__ = ["FACTS", "Decision", "Held", "Ledger", "Notification", "Refused", "StaleDecision"]


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class Ledger(Journal):
    """One open ledger. Use it as a context manager, or close it."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = _wall_clock) -> None:
        super().__init__(database)
        self._clock = clock

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], datetime] = _wall_clock) -> Self:
        """Connect, and create the tables if they are not there.

        Args:
            url: SQLAlchemy URL.
            clock: Tells the moment at which a transition takes effect. A replay of the past gives its own.

        Raises:
            SchemaTooNew: When the tables were made by a later version of Backstop.
            ValueError: When the URL cannot be read.
        """
        return cls(Database.open(url, part="ledger", revision=schema.LEDGER_REVISION), clock)

    def now(self) -> datetime:
        """The moment by the ledger's clock, aware; of a replay of the past, one in the past."""
        return as_utc(self._clock())

    @property
    def outbox(self) -> Outbox:
        """What has to be told."""
        return Outbox(self._database)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What serves.

    def models(self) -> tuple[str, ...]:
        """Names of the models that have a transition or had one begun, in order."""
        query = select(schema.models.c.model).where(schema.models.c.head > 0).order_by(schema.models.c.model)
        with self._database.reading() as connection:
            return tuple(connection.execute(query).scalars())

    def standing(self, model: str) -> Standing:
        """What serves, what waits and what may come back. A decision is based on its ``seq``."""
        with self._database.reading() as connection:
            return standing_of(Rows(connection, model))

    def rollout(self, model: str) -> Rollout | None:
        """The newest step of a progressive rollout, also of one that is over; None when there never was one."""
        with self._database.reading() as connection:
            return split.newest(connection, model)

    def rollouts(self, model: str) -> tuple[Rollout, ...]:
        """Every step of every rollout, the oldest first."""
        with self._database.reading() as connection:
            return split.every(connection, model)

    def arms(self, model: str) -> tuple[Arm, ...]:
        """Which version is to answer which percent of the requests, from one moment of the ledger.

        This is what a gateway polls. The version in Production comes first, the weights sum to 100; nothing when
        nothing is in Production.
        """
        with self._database.reading() as connection:
            return split.arms(standing_of(Rows(connection, model)), split.newest(connection, model))

    def serving(self, model: str) -> tuple[int, tuple[Arm, ...]]:
        """``seq`` of the newest transition in effect, and who answers since: two rows, cheap to poll.

        From one moment of the ledger. An intent that is not settled changes nothing yet. 0 and nobody where nothing
        ever took effect; otherwise as :meth:`arms`.
        """
        with self._database.reading() as connection:
            rows = Rows(connection, model)
            found, rollout = rows.last_applied(), split.newest(connection, model)
            if found is None or found.production is None:
                return (0 if found is None else found.seq, ())
            if rollout is None or rollout.state != "running":
                return found.seq, (Arm(found.production, 100),)
            return found.seq, split.arms(standing_of(rows), rollout)

    def shadow(self, model: str) -> str | None:
        """The version in Staging that may answer live requests unseen, see :func:`tasks.split.shadow`."""
        with self._database.reading() as connection:
            return split.shadow(standing_of(Rows(connection, model)), split.newest(connection, model))

    def history(self, model: str) -> tuple[Transition, ...]:
        """Every transition, the oldest first."""
        rows = schema.transitions
        query = select(rows).where(rows.c.model == model).order_by(rows.c.seq)
        with self._database.reading() as connection:
            return tuple(transition_of(row) for row in connection.execute(query))

    def serving_at(self, model: str, moment: datetime) -> Transition | None:
        """The transition that put into Production what served at that moment; None when nothing did.

        Raises:
            ValueError: For a naive datetime.
        """
        rows = schema.transitions
        query = (
            select(rows)
            .where(rows.c.model == model, rows.c.applied_at <= as_utc(moment), rows.c.action.in_(SERVING))
            .order_by(rows.c.applied_at.desc(), rows.c.seq.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None or found.production is None else transition_of(found)

    def until(self, transition: Transition) -> datetime | None:
        """When something else than what a transition put into Production began to serve; None: not to this day."""
        rows = schema.transitions
        query = (
            select(rows.c.applied_at)
            .where(
                rows.c.model == transition.model,
                rows.c.seq > transition.seq,
                rows.c.state == "applied",
                rows.c.action.in_(SERVING),
            )
            .order_by(rows.c.seq)
            .limit(1)
        )
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one_or_none()

    def last_rollback(self, model: str) -> Transition | None:
        """The newest rollback that took effect, by flows and by people alike; None when there was none."""
        rows = schema.transitions
        with self._database.reading() as connection:
            found = Rows(connection, model).newest(rows.c.action == "rollback", rows.c.state == "applied")
        return None if found is None else transition_of(found)

    def rollbacks_since(self, model: str, moment: datetime) -> int:
        """Rollbacks that were decided at or after that moment and took effect, by flows and by people alike."""
        rows = schema.transitions
        query = select(func.count()).where(
            rows.c.model == model,
            rows.c.action == "rollback",
            rows.c.state == "applied",
            rows.c.intended_at >= as_utc(moment),
        )
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def misfits(self, model: str, progress: Progress = silent) -> tuple[str, ...]:
        """Rows that were changed, taken out or put in behind the ledger's back; see :func:`tasks.chain.verify`."""
        with self._database.reading() as connection:
            return chain.verify(connection, model, progress)

    def link(self, model: str, position: int) -> str | None:
        """Digest of one link of the model's chain, or None; to be compared with what MLflow's tag says."""
        with self._database.reading() as connection:
            return chain.digest_at(connection, model, position)

    # What moves.

    @contextmanager
    def holding(self, model: str) -> Iterator[Held]:
        """The model's lock, held until the end of the block; what was written is committed then, or undone.

        The lock lives and dies with the connection: a process that is killed lets go of it. On SQLite it is the lock of
        the whole file. It does not nest.

        Raises:
            Busy: When somebody else has held it for longer than the database waits.
        """
        with self._database.writing() as connection:
            lock(connection, model)
            yield Held(connection, model, self._clock)

    def intend(
        self,
        *,
        model: str,
        based_on: int,
        action: Action,
        version: str,
        actor: str,
        reason: str,
        at: datetime,
        trail: str,
        evidence: Mapping[str, Any] | None = None,
        flow_run_id: str | None = None,
        release: bool = False,
    ) -> Transition:
        """Put down what is going to be done, before anything is done.

        Args:
            model: Registered name.
            based_on: ``seq`` of the standing that the decision was made on.
            action: See :class:`tasks.records.Transition`.
            version: That moves.
            actor: Person or flow.
            reason: One sentence.
            at: When it was decided.
            trail: The id that ties everything together.
            evidence: Records or plain values.
            flow_run_id: Prefect's.
            release: A person says that a quarantined version may come back by this.

        Raises:
            StaleDecision: When somebody else got in first, or an earlier intent is not settled; names who and what.
            Refused: When it would take the Production version out of service, or bring back a quarantined one.
            ValueError: For a naive datetime, or without a reason or a trail.
        """
        with self.holding(model) as held:
            return held.intend(
                based_on=based_on,
                action=action,
                version=version,
                actor=actor,
                reason=reason,
                at=at,
                trail=trail,
                evidence=evidence,
                flow_run_id=flow_run_id,
                release=release,
            )

    def weigh(self, step: Rollout, *, after: Rollout | None, flow_run_id: str | None = None) -> Rollout:
        """Give a canary a share of the requests in a transaction of its own; see :meth:`Held.weigh`."""
        with self.holding(step.model) as held:
            return held.weigh(step, after=after, flow_run_id=flow_run_id)

    def settle(self, transition: Transition, state: State) -> Transition:
        """Mark an intent as applied or abandoned, in a transaction of its own; see :meth:`Held.settle`."""
        with self.holding(transition.model) as held:
            return held.settle(transition, state)
