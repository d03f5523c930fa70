"""Metrics: what a gateway counts, in a registry of its own, as Prometheus reads it."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from serving.lineup import Lineup
from serving.routing import Arm

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ARM = ("model", "version", "role")


@dataclass(frozen=True, slots=True)
class Meter:
    """What one arm counts."""

    requests: Counter
    errors: Counter
    seconds: Histogram

    def count(self, seconds: float, *, failed: bool) -> None:
        """One row was answered, or failed, after so many seconds."""
        self.requests.inc()
        self.seconds.observe(seconds)
        if failed:
            self.errors.inc()


class Metrics:
    """All of a gateway's metrics. Requests count rows: a batch of ten is ten."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("backstop_requests", "Rows answered, failed ones included", _ARM, registry=registry)
        self._errors = Counter("backstop_request_errors", "Rows that the model failed", _ARM, registry=registry)
        self._seconds = Histogram(
            "backstop_request_seconds", "Seconds until a row was answered", _ARM, buckets=_SECONDS, registry=registry
        )
        self.refused = Counter(
            "backstop_refused_requests", "Requests answered with 4xx or 503", ("reason",), registry=registry
        )
        self._weight = Gauge("backstop_arm_weight", "Percent of the keys", _ARM, registry=registry)
        self._info = Gauge(
            "backstop_serving_info", "1 for each version that answers", (*_ARM, "digest"), registry=registry
        )
        self.switches = Counter("backstop_switches", "Changes of who answers", ("model",), registry=registry)
        self.version_refused = Gauge(
            "backstop_version_refused",
            "1 while the version that the ledger wants is not served, by why",
            ("model", "version", "reason"),
            registry=registry,
        )
        self.ledger_up = Gauge("backstop_ledger_up", "Whether the ledger answers", ("model",), registry=registry)
        self.ledger_answered = Gauge(
            "backstop_ledger_answered_timestamp_seconds", "When it last did", ("model",), registry=registry
        )
        kinds = ("kind",)
        self.log_up = Gauge("backstop_log_up", "Whether the log database takes rows", kinds, registry=registry)
        self.queued = Gauge("backstop_record_queue_rows", "Rows that wait in memory", kinds, registry=registry)
        self.recorded = Counter("backstop_recorded_rows", "Rows given to the log", kinds, registry=registry)
        self.dropped = Counter("backstop_dropped_rows", "Rows lost, by why", ("kind", "reason"), registry=registry)
        self.spooled = Gauge("backstop_spool_rows", "Rows on disk that wait for the log", kinds, registry=registry)
        self.spool_bytes = Gauge("backstop_spool_bytes", "Bytes of them", kinds, registry=registry)
        candidate = ("model", "version")
        self.shadow_up = Gauge(
            "backstop_shadow_up", "1 while a candidate answers unseen, 0 while it should", candidate, registry=registry
        )
        self.shadow_rows = Counter(
            "backstop_shadow_rows", "Rows that a candidate answered unseen", (*candidate, "outcome"), registry=registry
        )
        self.shadow_dropped = Counter(
            "backstop_shadow_dropped_rows", "Rows it was not given, by why", (*candidate, "reason"), registry=registry
        )
        self.shadow_restarts = Counter(
            "backstop_shadow_restarts", "Ends of its process, by why", (*candidate, "reason"), registry=registry
        )
        self.shadow_queue = Gauge("backstop_shadow_queue_rows", "Rows that wait for it", ("model",), registry=registry)
        self.unmatched = Counter(
            "backstop_unmatched_labels", "Labels whose request was not in the log when they came", registry=registry
        )

    def meter(self, model: str, arm: Arm) -> Meter:
        """Of one arm; its series begin at 0 with this."""
        names = (model, arm.version, arm.role)
        return Meter(self._requests.labels(*names), self._errors.labels(*names), self._seconds.labels(*names))

    def switch(self, model: str, before: Lineup | None, after: Lineup | None) -> dict[tuple[str, str], Meter]:
        """Who answers has changed.

        Returns:
            The meter of each arm, by version and role.
        """
        for arm in before.arms if before else ():
            names = (model, arm.version, arm.role)
            self._weight.labels(*names).set(0)
            self._info.remove(*names, before.loaded[arm.version].digest[:12] if before else "")
        for arm in after.arms if after else ():
            names = (model, arm.version, arm.role)
            self._weight.labels(*names).set(arm.weight)
            self._info.labels(*names, after.loaded[arm.version].digest[:12] if after else "").set(1)
        self.switches.labels(model).inc()
        return {(arm.version, arm.role): self.meter(model, arm) for arm in after.arms} if after else {}

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
