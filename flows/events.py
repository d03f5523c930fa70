"""Events: what flows tell Prefect's automations, written down before it is sent: an absent server loses nothing.

docs/events.md has every event with its payload. Nothing that has to be right rests on them: the ledger has it already.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings

from tasks import approval, delivery
from tasks.case import Case
from tasks.outbox import LEASE, LONGEST, Message, digest
from tasks.records import Report, Verdict

PREFIX = "backstop"
_SINK = "prefect"
_PATIENCE = 20.0
"""Seconds that a server may take to accept events."""
_NAMES = uuid.UUID("5c3f6c0e-6f0b-4f3e-9a57-0b2f6d3d2b51")
"""Namespace of the events' ids: what happened has one id, however often it is sent."""

_ENDS = {
    "expired": "approval.expired",
    "held": "model.held",
    "healthy": "model.known-good",
    "canary": "rollout.started",
    "stepped": "rollout.stepped",
    "aborted": "rollout.aborted",
    "ended": "rollout.ended",
}
"""Of decisions that are events by themselves."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a model.

    Attributes:
        name: ``backstop.model.promoted`` and its like.
        model: Registered name.
        at: When, aware.
        payload: Plain values, see docs/events.md.
        versions: Role and number of each version that it is about.
        run: Prefect's id of the flow run that it happened in, or None.
        deployment: Of that run, or None.
    """

    name: str
    model: str
    at: datetime
    payload: Mapping[str, Any]
    versions: tuple[tuple[str, str], ...] = ()
    run: str | None = None
    deployment: str | None = None

    def plain(self) -> dict[str, Any]:
        """As Prefect's API takes it."""
        kept = json.dumps([self.name, self.model, self.run, *self.payload.values()], sort_keys=True, default=str)
        related = [(f"{PREFIX}.model-version.{self.model}.{number}", role) for role, number in self.versions]
        related += [(f"{PREFIX}.trail.{self.payload['trail']}", "trail")]
        related += [(f"prefect.{role}.{one}", role) for role, one in self._where() if one]
        return {
            "id": str(uuid.uuid5(_NAMES, kept)),
            "occurred": self.at.isoformat(),
            "event": self.name,
            "resource": {
                "prefect.resource.id": f"{PREFIX}.model.{self.model}",
                "prefect.resource.name": self.model,
                "prefect.resource.role": "model",
            },
            "related": [{"prefect.resource.id": one, "prefect.resource.role": role} for one, role in related],
            "payload": dict(self.payload),
        }

    def _where(self) -> tuple[tuple[str, str | None], ...]:
        return ("flow-run", self.run), ("deployment", self.deployment)


def of(report: Report, case: Case, *, told: bool = True) -> tuple[Event, ...]:
    """What a report has to tell, in the order in which it happened. A dry run tells nothing.

    Args:
        report: Of one model.
        case: It was made for.
        told: False: an earlier run has told this very thing.
    """
    # An evaluation that stands from before has told it then; its report is on the trail of then.
    stands = report.flow == "retrain" and report.decision == "kept" and report.trail != case.trail
    if report.dry_run or not told or stands:
        return ()
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    common = {
        "versions": tuple(_versions(report)),
        "run": None if run is None else str(run.id),
        "deployment": None if run is None or run.deployment_id is None else str(run.deployment_id),
    }
    at = case.ledger.now()
    shared = _shared(report, case)
    return tuple(
        Event(name=f"{PREFIX}.{name}", model=report.model, at=at, payload=shared | more, **common)  # type: ignore[arg-type]
        for name, more in _happened(report, case)
    )


def _shared(report: Report, case: Case) -> dict[str, Any]:
    return {
        "model": report.model,
        "policy": case.policy.origin or report.model,
        "trail": report.trail,
        "decision": report.decision,
        "reason": report.error or report.line,
        "at": report.at.astimezone(UTC).isoformat(),
        "production": report.production,
        "version": _version(report),
        "dry_run": False,
    }


def _happened(report: Report, case: Case) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name without prefix, what only this event has), in order."""
    # What others show again beside a question was told by the run that judged it.
    for verdict in (
        report.verdicts if report.flow in {"retrain", "learn"} or report.decision == "shadow-rejected" else ()
    ):
        yield from _judged(report, verdict)
    yield from _moved(report, case)
    if report.decision == "awaiting":
        asked = approval.question(case, case.standing())
        yield "approval.requested", {"deadline": asked.deadline.isoformat() if asked else None}
    elif report.decision == "failed":
        yield "run.failed", {"flow": report.flow}
    elif report.decision in _ENDS:
        yield _ENDS[report.decision], {}


def _moved(report: Report, case: Case) -> Iterator[tuple[str, dict[str, Any]]]:
    move = report.transition
    if move is None:
        return
    told: dict[str, Any] = {"previous": move.previous, "by": move.actor}
    if move.action == "promote":
        if (word := case.ledger.word(report.model, move.version, "approved")) is not None:
            yield "approval.approved", {"by": word[0]}
        yield "model.promoted", told
    elif move.action == "rollback":
        yield "model.rolled-back", told
    elif report.decision == "rejected":
        yield "approval.rejected", {"by": move.actor}


def _judged(report: Report, verdict: Verdict) -> Iterator[tuple[str, dict[str, Any]]]:
    broken = [finding.name for finding in verdict.having("breach")]
    if verdict.judge == "triggers":
        told: dict[str, Any] = {"fired": broken, "urgency": verdict.urgency}
        yield "retrain.decided", told | {"decision": verdict.decision, "reason": verdict.reason}
        if any(name.startswith("drift") for name in broken):
            yield "drift.detected", told | {"reason": verdict.reason}
    elif verdict.judge == "gate":
        passed = verdict.decision == "pass"
        failed = broken + [finding.name for finding in verdict.having("unknown")]
        because = {"decision": verdict.decision, "reason": verdict.reason, "failed": [] if passed else failed}
        yield f"gate.{'passed' if passed else 'failed'}", because
    elif verdict.judge == "shadow" and verdict.decision == "reject" and report.decision == "shadow-rejected":
        yield "shadow.rejected", {"reason": verdict.reason}


def _version(report: Report) -> str | None:
    if report.transition is not None:
        return report.transition.version
    return report.candidate or report.production


def _versions(report: Report) -> Iterator[tuple[str, str]]:
    version, move = _version(report), report.transition
    if version is not None:
        yield "model-version", version
    if move is not None and move.previous not in {None, version}:
        yield "previous-version", str(move.previous)


async def emit(case: Case, events: tuple[Event, ...]) -> None:
    """Write events down, and send them with whatever waits; what fails is a line in the log and is sent later."""
    try:
        if events and listened_to():
            now = case.ledger.now()
            await asyncio.to_thread(case.ledger.outbox.put, [_message(case, event, now) for event in events])
        await mail(case)
    except Exception:  # noqa: BLE001  what was decided stands; a ledger that is away has been told about already
        _log.exception("the events of %s could not be written down", case.model)


async def mail(case: Case) -> None:
    """Try again what was not taken before. Where nothing waits, this is one query."""
    waiting = await asyncio.to_thread(delivery.again, case)
    if not waiting or not listened_to():
        return
    now = case.ledger.now()
    # All that wait go in their order, also those whose time has not come: a later one must not overtake them.
    every = [one for one in case.ledger.outbox.due(case.model, now + LONGEST + LEASE) if one.kind == "event"]
    mine = [one for one in [case.ledger.outbox.claim(message, now) for message in every] if one is not None]
    error = await _post([json.loads(message.body) for message in mine])
    for message in mine:
        await asyncio.to_thread(_put_down, case, message, error)


def listened_to() -> bool:
    """Whether there is a server of its own; the one that a run starts for itself ends with it, and hears nobody."""
    return bool(get_current_settings().api.url)


async def _post(events: list[dict[str, Any]]) -> str | None:
    """Send events and wait until they are accepted; why they were not, or None."""
    if not events:
        return None
    try:
        async with asyncio.timeout(_PATIENCE), get_client() as client:
            await client.request("POST", "/events", json=events)
    except Exception as error:  # noqa: BLE001  whatever it is, the events wait
        return f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return None


def _put_down(case: Case, message: Message, error: str | None) -> None:
    """Of an event only what was not taken is put among the notifications: Prefect's own feed has the others."""
    now = case.ledger.now()
    settled = case.ledger.outbox.settle(message, now, ok=error is None)
    if error is not None and (settled.attempts == 1 or settled.state == "given up"):
        case.ledger.note_notification(
            case.model, trail=message.trail, at=now, sink=_SINK, title=message.title, ok=False, error=error
        )


def _message(case: Case, event: Event, now: datetime) -> Message:
    body = json.dumps(event.plain(), ensure_ascii=False)
    return Message(
        kind="event",
        model=case.model,
        trail=str(event.payload["trail"]),
        at=now,
        sink=_SINK,
        address=digest(_SINK),
        title=event.name,
        body=body,
        due=now,
    )
