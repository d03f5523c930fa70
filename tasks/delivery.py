"""Delivery: telling the policy's sinks through the outbox, and telling them again what they did not take."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks import notify
from tasks.outbox import FIRST, LEASE, Message, digest

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.case import Case

_REST = 60.0
"""Seconds that a sink which kept us waiting is left alone: one that hangs must not cost every model its patience."""
_hung: dict[str, float] = {}


def tell(case: Case, title: str, body: str) -> None:
    """Tell every sink of the policy; what is not taken is tried again by later runs.

    Raises:
        Exception: What the ledger said when it could not be written; the sinks were told all the same.
    """
    now = case.ledger.now()
    trouble: Exception | None = None
    kept: dict[str, Message] = {}
    try:
        asked = [_message(case, sink, title, body, now) for sink in case.policy.notify]
        kept = dict(zip(case.policy.notify, case.ledger.outbox.put(asked), strict=True))
    except Exception as error:  # noqa: BLE001  the ledger may be what there is to tell about
        trouble = error
    sinks = tuple(sink for sink in case.policy.notify if not _rests(sink))
    for sink, sent in zip(sinks, _send(case, sinks, title, body), strict=True):
        if sink in kept:
            _put_down(case, kept[sink], sent)
    if trouble is not None:
        raise trouble


def again(case: Case) -> tuple[Message, ...]:
    """Try what is due again.

    Returns:
        Events that are due: Prefect's client delivers them, and this package does not know it.
    """
    if case.dry_run:
        return ()
    now = case.ledger.now()
    due = case.ledger.outbox.due(case.model, now)
    sinks = {digest(sink): sink for sink in case.policy.notify}
    for message in due:
        if message.kind == "notification":
            _try(case, message, sinks.get(message.address), now)
    return tuple(message for message in due if message.kind == "event")


def _try(case: Case, message: Message, sink: str | None, now: datetime) -> None:
    if sink is not None and _rests(sink):
        return
    mine = case.ledger.outbox.claim(message, now)
    if mine is None:  # another run tries it in this moment
        return
    if sink is None:
        lost = notify.Delivery(sink=message.sink, ok=False, error="the policy does not name this sink any more")
        _put_down(case, mine, lost, final=True)
        return
    (sent,) = _send(case, (sink,), message.title, f"{message.body}\n(from {message.at:%Y-%m-%d %H:%M} UTC)")
    _put_down(case, mine, sent)


def _send(case: Case, sinks: tuple[str, ...], title: str, body: str) -> Iterable[notify.Delivery]:
    sent = notify.send(sinks, title=title, body=body, block=case.block)
    for sink, delivery in zip(sinks, sent, strict=True):
        if delivery.hung:
            _hung[digest(sink)] = time.monotonic()
    return sent


def _put_down(case: Case, message: Message, sent: notify.Delivery, *, final: bool = False) -> None:
    """The attempt is a row that stays; what becomes of the message changes."""
    now = case.ledger.now()
    settled = case.ledger.outbox.settle(message, now, ok=sent.ok, final=final)
    error = sent.error
    if settled.state == "given up":
        error = f"{error}; given up after {settled.attempts} attempts"
    case.ledger.note_notification(
        case.model, trail=message.trail, at=now, sink=sent.sink, title=message.title, ok=sent.ok, error=error
    )


def _message(case: Case, sink: str, title: str, body: str, now: datetime) -> Message:
    return Message(
        kind="notification",
        model=case.model,
        trail=case.trail,
        at=now,
        sink=notify.mask(sink),
        address=digest(sink),
        title=title,
        body=body,
        # Whoever writes it down tries it now; when nothing comes of that, a later run does.
        due=now + (FIRST if _rests(sink) else LEASE),
    )


def _rests(sink: str) -> bool:
    since = _hung.get(digest(sink))
    return since is not None and time.monotonic() - since < _REST
