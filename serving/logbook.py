"""Logbook: the request log as a gateway writes it: answers and labels, each with a queue and a spool of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import orjson

from serving.metrics import Metrics
from serving.recorder import Kind, Recorder
from serving.settings import Settings
from serving.spool import Spool
from tasks.requests import Label, RequestLog, Served
from tasks.stores import Stores

T = TypeVar("T")


class Logbook:
    """Both recorders, on one request log.

    Attributes:
        answers: What was asked and answered.
        labels: What turned out to be right.
    """

    def __init__(self, stores: Stores, settings: Settings, metrics: Metrics) -> None:
        self._url, self._metrics = stores.requests, metrics
        self._guard = threading.Lock()
        self._log: RequestLog | None = None
        folder, limit, rows = stores.home / "spool", settings.spool_bytes, settings.queue_rows
        self.answers = Recorder(
            Kind("requests", self._record, _served_line, _served),
            Spool(folder / "requests", limit=limit),
            metrics,
            queue_rows=rows,
        )
        self.labels = Recorder(
            Kind("labels", self._label, _label_line, _label),
            Spool(folder / "labels", limit=limit),
            metrics,
            queue_rows=rows,
        )

    def start(self) -> None:
        """Begin to record."""
        self.answers.start()
        self.labels.start()

    def stop(self) -> None:
        """Write or keep what is there, and let go of the database."""
        # The labels' requests go first: then fewer of them seem to be for nobody.
        self.answers.stop()
        self.labels.stop()
        with self._guard:
            if self._log is not None:
                self._log.close()
                self._log = None

    @property
    def trouble(self) -> dict[str, str]:
        """Why rows do not go into the log, by kind; empty: they do."""
        found = {"requests": self.answers.trouble, "labels": self.labels.trouble}
        return {f"log of {kind}": reason for kind, reason in found.items() if reason}

    def _record(self, rows: Sequence[Served]) -> None:
        self._with(lambda log: log.record(rows) if rows else log.ping())

    def _label(self, rows: Sequence[Label]) -> None:
        def put(log: RequestLog) -> int:
            if not rows:
                log.ping()
                return 0
            log.label(rows)
            return log.unmatched(rows)

        self._metrics.unmatched.inc(self._with(put))

    def _with(self, work: Callable[[RequestLog], T]) -> T:
        """Do something with the log, which is opened anew after a failure: its tables may have to be made again."""
        with self._guard:
            if self._log is None:
                self._log = RequestLog.open(self._url)
            log = self._log
        try:
            return work(log)
        except ValueError:
            raise
        except Exception:
            with self._guard:
                if self._log is log:
                    log.close()
                    self._log = None
            raise


def _served_line(row: Served) -> bytes:
    return orjson.dumps(
        {
            "request_id": row.request_id,
            "model": row.model,
            "version": row.version,
            "at": row.at.isoformat(),
            "seconds": row.seconds,
            "features": row.features,
            "prediction": row.prediction,
            "score": row.score,
            "failed": row.failed,
            "role": row.role,
        }
    )


def _served(line: bytes) -> Served:
    raw = orjson.loads(line)
    return Served(**{**raw, "at": datetime.fromisoformat(raw["at"])})


def _label_line(row: Label) -> bytes:
    told = {"request_id": row.request_id, "model": row.model, "label": row.label, "at": row.at.isoformat()}
    return orjson.dumps(told)


def _label(line: bytes) -> Label:
    raw = orjson.loads(line)
    return Label(**{**raw, "at": datetime.fromisoformat(raw["at"])})
