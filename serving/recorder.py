"""Recorder: rows on their way into the log database, without anybody who answers requests waiting for it.

A bounded queue in memory; one thread that takes batches from it; one that writes them. When the database does not take
them they go to a spool on disk, and from there into the database once it is back. A row may be written twice, after a
crash between the database's commit and the end of a spool file: the log knows a request by its id.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy.exc import DataError, IntegrityError

from serving.metrics import Metrics
from serving.spool import Spool

_log = logging.getLogger(__name__)

_BATCH = 500
_LINGER = 0.1
"""Seconds between two looks at the queue; nobody is woken per request."""
_HANDED = 8
"""Batches that the writing thread may have before it; more go to the disk."""
_RETRY = 1.0
"""Seconds between two tries of a database that is away."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What is recorded.

    Attributes:
        name: For metrics and folders.
        write: Puts a batch into the database, all of it or nothing; an empty one only sees whether it is there. Raises
            ValueError for a row that no database will ever take, and anything else when the database is away.
        encode: A row as one line.
        decode: And back; raises ValueError, KeyError or TypeError for a line that is none.
    """

    name: str
    write: Callable[[Sequence[T]], None]
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


class Recorder(Generic[T]):
    """Records one kind of rows. Threads run from :meth:`start` to :meth:`stop`."""

    def __init__(self, kind: Kind[T], spool: Spool, metrics: Metrics, *, queue_rows: int) -> None:
        self._kind, self._spool, self._metrics, self._limit = kind, spool, metrics, queue_rows
        self._waiting: deque[T] = deque()
        self._handed: queue.Queue[list[T]] = queue.Queue(_HANDED)
        self._under_way: list[T] = []
        self._stopping = threading.Event()
        self._taken = threading.Event()
        self._ended = False
        self._away = ""
        self._next_try = 0.0
        self._threads = [
            threading.Thread(target=self._take, name=f"take {kind.name}", daemon=True),
            threading.Thread(target=self._write, name=f"write {kind.name}", daemon=True),
        ]

    def start(self) -> None:
        """Begin; what an earlier process left on disk is written first."""
        self._metrics.log_up.labels(self._kind.name).set(1)
        for reason in ("queue", "spool", "refused", "torn"):
            self._metrics.dropped.labels(self._kind.name, reason)
        self._metrics.queued.labels(self._kind.name).set_function(lambda: len(self._waiting))
        self._metrics.spooled.labels(self._kind.name).set_function(self._spool.rows)
        self._metrics.spool_bytes.labels(self._kind.name).set_function(lambda: self._spool.size)
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Write what is there; what the database does not take within this time goes to the disk."""
        end = time.monotonic() + seconds
        self._stopping.set()
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))
        # A writer that hangs in the database may still succeed; twice is once.
        self._ended = True
        left = [*self._under_way]
        while not self._handed.empty():
            left += self._handed.get_nowait()
        left += [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._keep(left)
        self._spool.close()

    def put(self, rows: Sequence[T]) -> bool:
        """Take rows, without waiting for anything; False, and counted, when there is no room."""
        if len(self._waiting) + len(rows) > self._limit:
            self._drop(len(rows), "queue")
            return False
        self._waiting.extend(rows)
        return True

    @property
    def trouble(self) -> str:
        """Why rows do not go into the database now; empty: they do."""
        return self._away

    # Out of memory.

    def _take(self) -> None:
        while not self._stopping.wait(_LINGER):
            self._hand_over()
        self._hand_over()
        self._taken.set()

    def _hand_over(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            if self._away:
                self._keep(batch)
                continue
            try:
                self._handed.put_nowait(batch)
            except queue.Full:
                self._keep(batch)

    # Into the database.

    def _write(self) -> None:
        while not (self._stopping.is_set() and self._taken.is_set() and self._handed.empty()):
            self._replay()
            try:
                batch = self._handed.get(timeout=_LINGER)
            except queue.Empty:
                continue
            self._under_way = batch
            written = not self._away and self._try(batch)
            if self._ended:
                return
            if not written:
                self._keep(batch)
            self._under_way = []

    def _replay(self) -> None:
        """Write one file of the spool, when it is time to."""
        if self._stopping.is_set() or time.monotonic() < self._next_try or not (self._spool or self._away):
            return
        try:
            with self._spool.oldest() as lines:
                self._write_all(self._decoded(lines or ()))
        except _StillAway:
            return
        except OSError as error:
            self._gone(f"the spool cannot be read: {error}")
            return
        if not self._spool:
            self._back()

    def _write_all(self, rows: Sequence[T]) -> None:
        """In batches; without rows it is seen whether the database is there.

        Raises:
            _StillAway: When it does not take them.
        """
        for start in range(0, max(1, len(rows)), _BATCH):
            if not self._try(rows[start : start + _BATCH]):
                raise _StillAway

    def _try(self, rows: Sequence[T]) -> bool:
        """Whether the database took the rows, those left out that no database will ever take."""
        try:
            self._kind.write(rows)
        except (ValueError, DataError, IntegrityError) as error:
            return self._one_by_one(rows, error)
        except Exception as error:  # noqa: BLE001  whatever a database raises, the rows must not be lost
            self._gone(_line(error))
            return False
        self._metrics.recorded.labels(self._kind.name).inc(len(rows))
        return True

    def _one_by_one(self, rows: Sequence[T], error: Exception) -> bool:
        if len(rows) > 1:
            return all(self._try([row]) for row in rows)
        _log.error("a row for the log of %s was refused and is lost: %s", self._kind.name, _line(error))
        self._drop(len(rows), "refused")
        return True

    def _decoded(self, lines: Iterable[bytes]) -> list[T]:
        rows = []
        for line in lines:
            try:
                rows.append(self._kind.decode(line))
            except (ValueError, KeyError, TypeError) as error:
                _log.error("a line of the spool of %s cannot be read and is lost: %s", self._kind.name, _line(error))
                self._drop(1, "torn")
        return rows

    # Onto the disk.

    def _keep(self, rows: Sequence[T]) -> None:
        if not rows:
            return
        try:
            self._spool.append([self._kind.encode(row) for row in rows])
        except OSError as error:
            _log.error("%d rows of %s are lost: %s", len(rows), self._kind.name, error)
            self._drop(len(rows), "spool")

    def _gone(self, reason: str) -> None:
        if not self._away:
            _log.warning("the log does not take %s, they go to the disk: %s", self._kind.name, reason)
        self._away = reason
        self._next_try = time.monotonic() + _RETRY
        self._metrics.log_up.labels(self._kind.name).set(0)

    def _back(self) -> None:
        if self._away:
            _log.warning("the log takes %s again, and has all that was on the disk", self._kind.name)
        self._away = ""
        self._metrics.log_up.labels(self._kind.name).set(1)

    def _drop(self, rows: int, reason: str) -> None:
        self._metrics.dropped.labels(self._kind.name, reason).inc(rows)


class _StillAway(Exception):
    """The database did not take the rows."""


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
