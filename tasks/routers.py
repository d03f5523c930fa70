"""Routers: servers of others that are told which version answers which share of the requests.

The ledger has the truth. A router follows it at every tick, and what it cannot carry out is said, holds the rollout,
and after a deadline calls a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tasks import reminder
from tasks.case import Case
from tasks.policy import Policy
from tasks.records import Arm


@dataclass(frozen=True, slots=True)
class Routing:
    """What became of weights.

    Attributes:
        settled: The server was asked afterwards, and gives each version what the ledger says.
        reason: One sentence; where it is not settled, why and what to do.
    """

    settled: bool
    reason: str


class TrafficRouter(Protocol):
    """Whatever splits requests between versions, and can be told how."""

    def route(self, arms: tuple[Arm, ...], *, dry_run: bool = False) -> Routing:
        """Give each version its share, and see that it has it; the same again changes nothing.

        A server that is away, refuses, or has other versions is no exception. No version that is not among the arms may
        be given anything, and none that is not ready.

        Args:
            arms: Who answers, with percents that sum to 100; the version in Production first.
            dry_run: Only look.
        """
        ...


def router(policy: Policy) -> TrafficRouter | None:
    """The server that a policy names; None: the gateway reads the ledger itself."""
    rules = policy.rollout.router if policy.rollout is not None else None
    if rules is None:
        return None
    from tasks.kserve import KserveRouter  # noqa: PLC0415  HTTP is imported by those who ask over it

    return KserveRouter(rules.kserve)


def settle(case: Case) -> Routing | None:
    """Put the ledger's weights onto the policy's router; None where there is none, or nothing serves.

    Since when it is not settled is a fact in the ledger. After ``health.silence`` a person is told, and again once in a
    while.
    """
    there, arms = router(case.policy), case.ledger.arms(case.model)
    if there is None or not arms:
        return None
    routing = there.route(arms, dry_run=case.dry_run)
    version, since = arms[0].version, case.standing().since
    stated = case.ledger.fact_at(case.model, version, "unrouted")
    unrouted = stated if stated is not None and since is not None and stated >= since else None
    if routing.settled and stated is not None:
        case.state(version, "routed", routing.reason)
    elif not routing.settled and unrouted is None:
        case.state(version, "unrouted", routing.reason)
    elif not routing.settled and unrouted is not None and case.now - unrouted > case.policy.health.silence:
        _call(case, routing, f"since {unrouted:%Y-%m-%d %H:%M} UTC ")
    return routing


def call(case: Case, routing: Routing | None) -> None:
    """Tell a person at once that something bad may go on answering: its share was taken away, and is still there."""
    if routing is not None and not routing.settled:
        _call(case, routing, "")


def _call(case: Case, routing: Routing, since: str) -> None:
    title = f"{case.model}: the server {since}does not split the requests as the ledger says"
    every = max(case.policy.health.silence, case.policy.health.watch)
    if not case.dry_run and reminder.due(case.stores.home, f"{case.model}: unrouted", case.now, every=every):
        case.tell(title, f"{routing.reason}\ntrail {case.trail}")
