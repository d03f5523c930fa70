"""Journal: what was decided about models, what is known of their versions, and who was told. Only ever added to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from tasks import chain, removal, schema
from tasks.database import Database
from tasks.lock import lock
from tasks.policy import as_utc
from tasks.records import Candidate, Finding, Judge, Lesson, Span, Verdict, to_plain

FACTS = (
    *("known-good", "quarantined", "released", "rejected", "awaiting", "approved", "expired", "paged"),
    *("unrouted", "routed"),
)
"""What can be said of a version."""

_ENDED_BY = {
    "known-good": ("quarantined",),
    "quarantined": ("released",),
    "released": ("quarantined",),
    "awaiting": ("approved", "rejected", "expired"),
    "approved": ("rejected", "expired"),
    "unrouted": ("routed",),
}
"""Which later fact takes an earlier one back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """A verdict as it was put down.

    Attributes:
        id: Of the row.
        model: Registered name.
        trail: That it belongs to.
        verdict: What was decided, with its findings.
        at: The moment it was made for.
        flow_run_id: Prefect's, where there was one.
        version: That was judged, or None.
        seq: The ledger's head when it was recorded.
        span: Window of the rows that it was judged on, where there was one.
        evidence: Digest of what it rested on; None for a row from before evidence was kept.
    """

    id: int
    model: str
    trail: str
    verdict: Verdict
    at: datetime
    flow_run_id: str | None
    version: str | None
    seq: int
    span: Span | None
    evidence: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Notification:
    """What was sent where.

    Attributes:
        model: That it was about.
        trail: That it belongs to.
        at: When.
        sink: Where to, without its secrets.
        title: First line of the message.
        ok: It was delivered.
        error: Why not.
    """

    model: str
    trail: str
    at: datetime
    sink: str
    title: str
    ok: bool
    error: str | None


class Journal:
    """The part of an open ledger in which nothing moves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # What was decided.

    def record(
        self,
        model: str,
        verdict: Verdict,
        *,
        trail: str,
        at: datetime,
        flow_run_id: str | None = None,
        version: str | None = None,
        span: Span | None = None,
        dossier: bytes | None = None,
    ) -> None:
        """Put down a verdict.

        Args:
            model: Registered name.
            verdict: Of any judge.
            trail: That it belongs to.
            at: The moment it was made for.
            flow_run_id: Prefect's, where there is one.
            version: That was judged.
            span: Window of the rows that it was judged on; a gate's verdict counts against that holdout.
            dossier: What it rested on, so that it can be judged again; see :mod:`tasks.dossier`.
        """
        head = select(schema.models.c.head).where(schema.models.c.model == model).scalar_subquery()
        values = {
            "model": model,
            "trail": trail,
            "judge": verdict.judge,
            "decision": verdict.decision,
            "reason": verdict.reason,
            "verdict": json.dumps(to_plain(verdict)),
            "at": at,
            "flow_run_id": flow_run_id,
            "version": version,
            "seq": func.coalesce(head, 0),
            "span_start": span.start if span else None,
            "span_end": span.end if span else None,
            "evidence": None if dossier is None else hashlib.sha256(dossier).hexdigest(),
        }
        with self._writing(model) as connection:
            if dossier is not None:
                _keep(connection, dossier)
            chain.write(connection, "decision", values)

    def evidence(self, digest: str) -> bytes | None:
        """What a decision rested on, or None when it is not there.

        Raises:
            ValueError: When it was changed since it was put down.
        """
        rows = schema.evidence
        with self._database.reading() as connection:
            found = connection.execute(select(rows.c.body).where(rows.c.digest == digest)).scalar_one_or_none()
        if found is None:
            return None
        body = bytes(found)
        if hashlib.sha256(body).hexdigest() != digest:
            raise ValueError(f"evidence {digest[:12]} was changed in the ledger after it was put down; do not trust it")
        return body

    def remove_evidence(self, order: removal.Order) -> int:
        """Take evidence out that is older than it is kept, and put that down; see :mod:`tasks.removal`.

        Returns:
            How many bodies that were.
        """
        with self._writing(order.model) as connection:
            return removal.carry_out(connection, order)

    def removable(self, order: removal.Order) -> int:
        """How much evidence an order would take out."""
        with self._database.reading() as connection:
            return len(removal.due(connection, order))

    def removed(self, model: str) -> Mapping[str, tuple[removal.Removal, ...]]:
        """What was taken out of a model's evidence because of its age, by its digest."""
        with self._database.reading() as connection:
            return removal.removed(connection, model)

    def decisions(
        self,
        model: str,
        judge: Judge | None = None,
        *,
        trail: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> tuple[Decision, ...]:
        """What was decided, the newest first.

        Args:
            model: Registered name.
            judge: Only this one's.
            trail: Only of this trail.
            limit: At most so many.
            before: Only those that were put down before the decision with this id.
        """
        rows = schema.decisions
        query = select(rows).where(rows.c.model == model).order_by(rows.c.id.desc()).limit(limit)
        if judge is not None:
            query = query.where(rows.c.judge == judge)
        if trail is not None:
            query = query.where(rows.c.trail == trail)
        if before is not None:
            query = query.where(rows.c.id < before)
        with self._database.reading() as connection:
            return tuple(_decision(row) for row in connection.execute(query))

    def decided(self, model: str) -> int:
        """How many decisions there are about a model."""
        query = select(func.count()).where(schema.decisions.c.model == model)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def gate_on(self, model: str, version: str) -> Decision | None:
        """The gate's newest verdict on a version; None when it never judged it."""
        rows = schema.decisions
        query = (
            select(rows)
            .where(rows.c.model == model, rows.c.judge == "gate", rows.c.version == version)
            .order_by(rows.c.id.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else _decision(found)

    def gate_decision(self, model: str, version: str) -> str | None:
        """The gate's newest word on a version; None when it never judged it."""
        rows = schema.decisions
        query = (
            select(rows.c.decision)
            .where(rows.c.model == model, rows.c.judge == "gate", rows.c.version == version)
            .order_by(rows.c.id.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one_or_none()

    def attempts_on(self, model: str, holdout: Span) -> int:
        """Gate verdicts recorded since the last promotion whose holdout overlaps this one.

        Judging candidate after candidate on the same rows makes a lucky one likely; the gate spends its error over
        them. What came before a promotion and what after is told by the ledger's order, not by clocks.
        """
        rows, moves = schema.decisions, schema.transitions
        last = (
            select(func.coalesce(func.max(moves.c.seq), 0))
            .where(moves.c.model == model, moves.c.action == "promote", moves.c.state == "applied")
            .scalar_subquery()
        )
        query = select(func.count()).where(
            rows.c.model == model,
            rows.c.judge == "gate",
            rows.c.seq >= last,
            rows.c.span_start < as_utc(holdout.end),
            rows.c.span_end > as_utc(holdout.start),
        )
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    # What is known of versions.

    def state_fact(
        self, model: str, version: str, fact: str, *, at: datetime, reason: str, actor: str, trail: str
    ) -> None:
        """Say something of a version.

        Raises:
            ValueError: For a fact that is not among :data:`FACTS`.
        """
        if fact not in FACTS:
            raise ValueError(f"{fact!r} is nothing that can be said of a version; use one of {', '.join(FACTS)}")
        values = {"model": model, "version": version, "fact": fact, "at": at}
        with self._writing(model) as connection:
            chain.write(connection, "fact", {**values, "reason": reason, "actor": actor, "trail": trail})

    def answer(self, model: str, version: str, fact: str, *, at: datetime, reason: str, actor: str, trail: str) -> bool:
        """Answer an open question about a version; of several answers the first one counts.

        Returns:
            Whether this was it. Nothing is put down when the question was answered already, or never asked.
        """
        values = {"model": model, "version": version, "fact": fact, "at": at}
        with self._writing(model) as connection:
            newest = _newest(connection, model, version, ("awaiting", *_ENDED_BY["awaiting"]))
            if newest is None or newest.fact != "awaiting":
                return False
            chain.write(connection, "fact", {**values, "reason": reason, "actor": actor, "trail": trail})
            return True

    def has_fact(self, model: str, version: str, fact: str) -> bool:
        """Whether a fact was stated and not taken back since."""
        return self.fact_at(model, version, fact) is not None

    def fact_at(self, model: str, version: str, fact: str) -> datetime | None:
        """When a fact was last stated; None when it never was, or was taken back since.

        An approval is taken back by a rejection or a deadline that passed; a quarantine by a release.
        """
        with self._database.reading() as connection:
            newest = _newest(connection, model, version, (fact, *_ENDED_BY.get(fact, ())))
        return newest.at if newest is not None and newest.fact == fact else None

    def word(self, model: str, version: str, fact: str) -> tuple[str, str] | None:
        """Who stated a fact that holds, and why: (actor, reason); None when it does not hold."""
        with self._database.reading() as connection:
            newest = _newest(connection, model, version, (fact, *_ENDED_BY.get(fact, ())))
        return (newest.actor, newest.reason) if newest is not None and newest.fact == fact else None

    def describe(self, candidate: Candidate, lesson: Lesson | None = None) -> None:
        """Put down what a version is: its run, the digest of its artifact, its profile. Twice the same is once.

        Args:
            candidate: The version.
            lesson: What it learned, of one that learned from feedback; the two are put down together or not at all.

        Raises:
            ValueError: When the version is described already and differs; a version never changes.
        """
        profile = json.dumps(to_plain(candidate.profile), sort_keys=True)
        values = {"run_id": candidate.run_id, "trained_at": candidate.profile.trained_at, "profile": profile}
        self._put_version(candidate.model, candidate.version, candidate.digest, candidate.size, values, lesson)

    def set_aside(self, lesson: Lesson) -> None:
        """Put down feedback that nobody will learn from.

        Raises:
            ValueError: For a lesson that a version learned.
        """
        if lesson.version is not None:
            raise ValueError(f"version {lesson.version} of {lesson.model} learned this; it cannot be set aside as well")
        with self._writing(lesson.model) as connection:
            _teach(connection, lesson)

    def lessons(self, model: str, *, since: datetime) -> tuple[Lesson, ...]:
        """What was learned from feedback or set aside, the oldest first; of those before ``since`` without requests.

        Raises:
            ValueError: For a naive datetime.
        """
        rows, begin = schema.lessons, as_utc(since)
        query = select(rows).where(rows.c.model == model).order_by(rows.c.id)
        with self._database.reading() as connection:
            return tuple(_lesson(row, begin) for row in connection.execute(query))

    def describe_external(self, model: str, version: str, *, digest: str, size: int) -> None:
        """Put down the digest of a version that was made elsewhere, so that it cannot be swapped from now on.

        Raises:
            ValueError: When the version is described already with another digest.
        """
        self._put_version(model, version, digest, size, {})

    def profile(self, model: str, version: str) -> dict[str, Any] | None:
        """The stored profile as plain JSON values, or None."""
        stored = self._version(model, version)
        return None if stored is None or stored.profile is None else json.loads(stored.profile)

    def run_of(self, model: str, version: str) -> str | None:
        """The MLflow run that made a version, or None where it was made elsewhere or is not described."""
        stored = self._version(model, version)
        return None if stored is None else stored.run_id

    def digest(self, model: str, version: str) -> str | None:
        """SHA-256 of the artifact as it was when the version was described, or None."""
        stored = self._version(model, version)
        return None if stored is None else str(stored.digest)

    # What was told.

    def note_notification(
        self, model: str, *, trail: str, at: datetime, sink: str, title: str, ok: bool, error: str | None = None
    ) -> None:
        """Put down what was sent where; ``sink`` and ``error`` without secrets."""
        values = {"model": model, "trail": trail, "at": at, "sink": sink}
        with self._writing(model) as connection:
            chain.write(connection, "notification", {**values, "title": title, "ok": ok, "error": error})

    def notifications(self, model: str, *, limit: int = 100) -> tuple[Notification, ...]:
        """What was sent, the newest first."""
        rows = schema.notifications
        query = select(rows).where(rows.c.model == model).order_by(rows.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        return tuple(
            Notification(
                model=row.model,
                trail=row.trail,
                at=row.at,
                sink=row.sink,
                title=row.title,
                ok=row.ok,
                error=row.error,
            )
            for row in found
        )

    @contextmanager
    def _writing(self, model: str) -> Iterator[Connection]:
        """A transaction under the model's lock: the links of its chain are added one by one."""
        with self._database.writing() as connection:
            lock(connection, model)
            yield connection

    def _version(self, model: str, version: str) -> Row[Any] | None:
        rows = schema.versions
        query = select(rows).where(rows.c.model == model, rows.c.version == version)
        with self._database.reading() as connection:
            return connection.execute(query).one_or_none()

    def _put_version(
        self,
        model: str,
        version: str,
        digest: str,
        size: int,
        values: Mapping[str, Any],
        lesson: Lesson | None = None,
    ) -> None:
        rows = schema.versions
        query = select(rows).where(rows.c.model == model, rows.c.version == version)
        with self._writing(model) as connection:
            stored = connection.execute(query).one_or_none()
            if stored is None:
                row = {"model": model, "version": version, "digest": digest, "size": size, **values}
                chain.write(connection, "version", row)
                if lesson is not None:
                    _teach(connection, lesson)
                return
        if stored.digest != digest or any(getattr(stored, name) != value for name, value in values.items()):
            raise ValueError(
                f"version {version} of {model} is described already, with digest {stored.digest[:12]}, and this is "
                f"{digest[:12]} or another run or profile; a version never changes. Register a new one; where the "
                "model was deleted in MLflow its numbers began anew, and every run takes the next one until one is free"
            )


def _newest(connection: Connection, model: str, version: str, facts: tuple[str, ...]) -> Row[Any] | None:
    """The newest among some facts about a version."""
    rows = schema.facts
    query = (
        select(rows)
        .where(rows.c.model == model, rows.c.version == version, rows.c.fact.in_(facts))
        .order_by(rows.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def _keep(connection: Connection, body: bytes) -> None:
    """Put a body down under its digest, once."""
    rows, digest = schema.evidence, hashlib.sha256(body).hexdigest()
    # Held, so that it is not taken out as old at this moment.
    held = select(rows.c.digest).where(rows.c.digest == digest).with_for_update(read=True)
    if connection.execute(held).one_or_none() is None:
        # Another model's run may put down the very same at this moment.
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(rows).values(digest=digest, body=body))


def _teach(connection: Connection, lesson: Lesson) -> None:
    names = ("model", "version", "base", "at", "reason", "trail")
    values = {name: getattr(lesson, name) for name in names}
    requests = {"requests": json.dumps(lesson.requests), "size": len(lesson.requests)}
    chain.write(connection, "lesson", values | requests)


def _lesson(row: Row[Any], since: datetime) -> Lesson:
    return Lesson(
        model=row.model,
        version=row.version,
        base=row.base,
        requests=tuple(json.loads(row.requests)) if row.at >= since else (),
        at=row.at,
        reason=row.reason,
        trail=row.trail,
    )


def _decision(row: Row[Any]) -> Decision:
    span = None if row.span_start is None else Span(start=row.span_start, end=row.span_end)
    return Decision(
        id=row.id,
        model=row.model,
        trail=row.trail,
        verdict=_verdict(json.loads(row.verdict)),
        at=row.at,
        flow_run_id=row.flow_run_id,
        version=row.version,
        seq=row.seq,
        span=span,
        evidence=row.evidence,
    )


def _verdict(plain: Mapping[str, Any]) -> Verdict:
    findings = tuple(
        Finding(**{**item, "interval": tuple(item["interval"]) if item["interval"] else None})
        for item in plain["findings"]
    )
    return Verdict(**{**plain, "findings": findings})
