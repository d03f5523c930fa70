"""Health sources: where the watch reads how the version in Production does, and over which period.

A watch has a plan: so many looks, and with them a promised rate of false alarms. The first period is the watch after a
promotion; from then on one day follows another, so that a tick costs the same however old the deployment is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from tasks.database import SchemaTooNew
from tasks.policy import Health, Policy, Problem, as_utc
from tasks.records import HealthEvidence, Look
from tasks.requests import RequestLog, Role
from tasks.stores import Stores

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """One stretch of the watch.

    Attributes:
        start: Of its first look.
        end: Of its last look.
        tick: Length of a look.
        planned_looks: How many it has.
        first: It is the watch that follows a promotion.
    """

    start: datetime
    end: datetime
    tick: timedelta
    planned_looks: int
    first: bool


def period(started: datetime, now: datetime, health: Health) -> Period:
    """The period that contains ``now``.

    Args:
        started: When the version came into Production.
        now: The moment of the tick; before ``started`` (clocks differ) it counts as ``started``.
        health: The policy's rules. A watch or a day that no whole number of looks fills is rounded up to one.

    Raises:
        ValueError: For a naive datetime.
    """
    begun, moment = as_utc(started), max(as_utc(now), as_utc(started))
    watch = _filled(begun, health.watch, health.tick, first=True)
    if moment < watch.end:
        return watch
    day = _filled(watch.end, _DAY, health.tick, first=False)
    passed = (moment - watch.end) // (day.end - day.start)
    return _filled(watch.end + passed * (day.end - day.start), _DAY, health.tick, first=False)


def due(started: datetime, now: datetime, health: Health, *, judged_until: datetime | None) -> tuple[Period, ...]:
    """The periods that a tick has to judge: the last one that is over, unless that was done, and the present one.

    Only a period that is over can say that a version is healthy, and no tick is sure to come at its very end.

    Args:
        started: When the version came into Production.
        now: The moment of the tick.
        health: The policy's rules.
        judged_until: The moment for which this version was last judged; None: never.
    """
    present = period(started, now, health)
    if present.first:
        return (present,)
    over = period(started, present.start - timedelta(microseconds=1), health)
    if judged_until is not None and as_utc(judged_until) >= over.end:
        return (present,)
    return (over, present)


def late(started: datetime, judged: Period, health: Health) -> tuple[Period, ...]:
    """The periods before one that has just been judged at its end, the newest first: labels may have come since.

    To judge a period again costs no false alarm. Answers without a label count as right, so with fewer labels the
    evidence against a version is never more than what it is with all of them, and that is bounded.

    Args:
        started: When the version came into Production.
        judged: A period that is over.
        health: The policy's rules.
    """
    found: list[Period] = []
    while not judged.first and len(found) < health.late_days:
        judged = period(started, judged.start - timedelta(microseconds=1), health)
        found.append(judged)
    return tuple(found)


def counted(looks: Sequence[Look], started: datetime, tick: timedelta) -> str:
    """Until when requests were counted, for the end of a line: a look that is not over yet counts for nothing."""
    if looks:
        return f"(counted until {looks[-1].start + tick:%H:%M:%S} UTC)"
    return f"(the first are counted at {started + tick:%H:%M:%S} UTC)"


def _filled(start: datetime, length: timedelta, tick: timedelta, *, first: bool) -> Period:
    looks = math.ceil(length / tick)
    return Period(start=start, end=start + looks * tick, tick=tick, planned_looks=looks, first=first)


class HealthSource(Protocol):
    """Whatever can count a version's requests, errors, slow answers and wrong ones, interval by interval."""

    def evidence(
        self,
        model: str,
        version: str,
        *,
        started: datetime,
        now: datetime,
        health: Health,
        problem: Problem,
        role: Role = "production",
    ) -> HealthEvidence:
        """Everything from ``started`` until ``now``; a source that cannot be read says so in ``unavailable``.

        Args:
            model: Registered name.
            version: That answered.
            started: Start of the period.
            now: The moment of the tick; for a period that is over, its end.
            health: The policy's rules: the tick, and what counts as slow.
            problem: Of the policy.
            role: In which it answered: ``production``, or ``canary`` of a rollout.
        """
        ...


@dataclass(frozen=True, slots=True)
class RequestLogSource:
    """The product's own request log.

    Attributes:
        url: SQLAlchemy URL.
    """

    url: str

    def evidence(
        self,
        model: str,
        version: str,
        *,
        started: datetime,
        now: datetime,
        health: Health,
        problem: Problem,
        role: Role = "production",
    ) -> HealthEvidence:
        """See :meth:`HealthSource.evidence`; a database that cannot be read is never an exception.

        Raises:
            ValueError: For a naive datetime.
        """
        begun, moment = as_utc(started), as_utc(now)
        limit = health.latency_p95
        try:
            with RequestLog.open(self.url) as log:
                looks = log.looks(
                    model,
                    version,
                    start=begun,
                    until=moment,
                    tick=health.tick,
                    slow_after=None if limit is None else limit.total_seconds(),
                    problem=problem,
                    role=role,
                )
                last = log.last_request(model, version, until=moment + timedelta(microseconds=1), role=role)
        except (SQLAlchemyError, SchemaTooNew, OSError) as error:
            reason = f"the request log could not be read: {_first_line(error)}"
            return HealthEvidence(looks=(), now=moment, started=begun, last_request=None, unavailable=reason)
        return HealthEvidence(looks=looks, now=moment, started=begun, last_request=last)


def source(stores: Stores, policy: Policy | None = None) -> HealthSource:
    """Where the watch reads.

    Args:
        stores: The addresses of everything that lasts.
        policy: Of the model; None: the request log.
    """
    log = RequestLogSource(stores.requests)
    if policy is None or policy.health.prometheus is None:
        return log
    from tasks.scraped import ScrapedSource  # noqa: PLC0415  HTTP is imported by those who ask over it

    return ScrapedSource(policy.health.prometheus, log)


def _first_line(error: BaseException) -> str:
    """What went wrong, without the statement, its parameters and the documentation's address."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
