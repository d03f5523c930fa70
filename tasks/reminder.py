"""Reminder: what goes on failing is told once in a while and not every minute, also when no ledger can remember it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

EVERY = timedelta(minutes=15)
"""How long a person is left alone with what was said already."""


def due(home: Path, what: str, now: datetime, *, every: timedelta = EVERY) -> bool:
    """Whether it is time to say something (again); whoever asks says it then.

    A mark that cannot be read or written, or that lies in the future, is none: twice is better than never.

    Args:
        home: Folder of the embedded defaults; the marks lie in ``told`` there.
        what: The same words for the same trouble.
        now: Aware.
        every: Between two reminders.
    """
    mark = home / "told" / hashlib.sha256(what.encode()).hexdigest()[:16]
    with suppress(OSError, ValueError, TypeError):
        since = now - datetime.fromisoformat(mark.read_text("ascii"))
        if timedelta(0) <= since < every:
            return False
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(now.isoformat(), encoding="ascii")
    return True
