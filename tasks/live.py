"""Live: what a candidate in Staging did with live requests, beside Production and unseen by anybody.

The tick of the rollout reads this every minute, so nothing heavy is imported here.
"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from tasks import approval
from tasks.case import Case
from tasks.database import SchemaTooNew
from tasks.decide.phrase import one_line
from tasks.records import LiveShadow, Standing
from tasks.requests import RequestLog

NOTHING = LiveShadow(since=None, requests=0, failures=0)


def beside_production(case: Case, standing: Standing, log: RequestLog) -> LiveShadow:
    """What the version in Staging did beside the version that is in Production now; not what it did beside another."""
    if standing.staged is None or standing.staged_since is None or standing.since is None:
        return NOTHING
    start = max(standing.staged_since, standing.since)
    if start >= case.now:
        return NOTHING
    return log.live(case.model, standing.staged, start=start, end=case.now)


def missing(case: Case, standing: Standing) -> str:
    """What is missing until the version in Staging has answered live requests for long enough; empty: nothing."""
    from tasks.decide.shadow import live_enough  # noqa: PLC0415  scipy; without a live shadow nothing of it is needed

    if case.policy.shadow is None:
        return ""
    try:
        with RequestLog.open(case.stores.requests) as log:
            seen = beside_production(case, standing, log)
    except (SQLAlchemyError, SchemaTooNew, OSError) as error:
        return f"the request log could not be read: {one_line(str(error))[:200]}"
    return live_enough(seen, case.policy.shadow, case.now)


def with_a_person(case: Case, standing: Standing) -> bool:
    """Whether the version in Staging passed everything, and a person's word is what it waits for or has."""
    version = standing.staged
    if version is None or approval.question(case, standing) is not None:
        return version is not None
    return approval.granted(case, standing) is not None or case.ledger.has_fact(case.model, version, "expired")
