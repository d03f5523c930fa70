"""Scraped: health from the counters that a Prometheus server scrapes, and labels from the request log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tasks.counters import Series, Target, by_look, fitted, fitted_labels, increases, restarts
from tasks.policy import Health, Problem, Prometheus, as_utc
from tasks.prometheus import Server, Unclear, bucket, doubled, infinite, milliseconds, moment, selected
from tasks.records import HealthEvidence, Look
from tasks.requests import Role

if TYPE_CHECKING:
    from tasks.health_sources import HealthSource

_SELECTORS = ("requests", "errors", "seconds")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a tick asks for."""

    selectors: Mapping[str, str]
    started: datetime
    now: datetime
    health: Health
    rules: Prometheus

    @property
    def until(self) -> datetime:
        """Of the newest sample that counts: those that are younger may not all be there yet."""
        return self.now - self.rules.settle

    @property
    def length(self) -> timedelta:
        """From a while before the start: what was counted last before it is needed, and when somebody last asked."""
        return self.until - self.started + self.rules.settle + max(self.rules.stale, self.health.silence)

    @property
    def looks(self) -> int:
        """Complete ones."""
        return max(0, (self.now - self.started) // self.health.tick)

    def by_look(self, found: list[tuple[int, int]]) -> list[int]:
        """Increases summed by look. A look ends ``settle`` before its end, so that it is the same whoever asks when."""
        start = milliseconds(self.started - self.rules.settle)
        return by_look(found, start=start, tick=self.health.tick // timedelta(milliseconds=1), looks=self.looks)


@dataclass(slots=True)
class _Seen:
    """What the server had: counters by name, and how the scrapes of their processes went."""

    series: dict[str, tuple[Series, ...]]
    alive: Mapping[Target, Series]

    def found(self, name: str) -> tuple[Series, ...]:
        return self.series.get(name, ())

    def increases(self, name: str) -> list[tuple[int, int]]:
        """Of all counters of a name together; one restart of a process is one of all its counters."""
        restarted = restarts(one for every in self.series.values() for one in every)
        found: list[tuple[int, int]] = []
        for one in self.found(name):
            ups = self.alive.get(one.target)
            answered = [at for at, up in ups.samples if up] if ups else []
            found += increases(one, restarted.get(one.target, frozenset()), answered)
        return found


@dataclass(frozen=True, slots=True)
class ScrapedSource:
    """Requests, errors and slow answers as a Prometheus server has them; labels as the request log has them.

    Attributes:
        rules: The policy's section.
        labels: Where labels are.
    """

    rules: Prometheus
    labels: HealthSource

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
        """See :meth:`tasks.health_sources.HealthSource.evidence`; a server that does not answer is no exception.

        Raises:
            ValueError: For a naive datetime.
        """
        names = {"model": model, "version": version, "role": role}
        selectors = {name: selected(getattr(self.rules, name), **names) for name in _SELECTORS}
        asked = _Asked(selectors, as_utc(started), as_utc(now), health, self.rules)
        try:
            found = _counted(Server(self.rules), asked)
        except Unclear as error:
            return _nothing(asked, str(error), error.seen)
        if health.accuracy is None or problem == "regression":
            return found
        told = self.labels.evidence(model, version, started=started, now=now, health=health, problem=problem, role=role)
        return _with_labels(found, told)


def _nothing(asked: _Asked, why: str, seen: datetime | None) -> HealthEvidence:
    return HealthEvidence(looks=(), now=asked.now, started=asked.started, last_request=seen, unavailable=why)


def _counted(server: Server, asked: _Asked) -> HealthEvidence:
    """Requests, errors and slow answers.

    Raises:
        Unclear: When they cannot be told.
    """
    until, length = asked.until, asked.length
    requests = server.samples(asked.selectors["requests"], until=until, length=length)
    if not requests:
        return _absent(asked)
    if told := doubled(requests):
        raise Unclear(told)
    seen = _Seen({"requests": requests}, server.alive({one.target for one in requests}, until=until, length=length))
    partial = _missing(seen, asked)
    if asked.health.error_rate is not None:
        seen.series["errors"] = server.samples(asked.selectors["errors"], until=until, length=length)
        partial += _without(seen, "errors")
    if asked.health.latency_p95 is not None:
        limit = asked.health.latency_p95.total_seconds()
        buckets = bucket(asked.selectors["seconds"], limit)
        seen.series["seconds"] = server.samples(buckets, until=until, length=length)
        partial += _without(seen, "seconds")
        _check_edges(server, seen, asked, limit)
    return _evidence(seen, asked, partial)


def _absent(asked: _Asked) -> HealthEvidence:
    """No counter of the requests is there: a version that has just come is about to be scraped, any other is not.

    Raises:
        Unclear: For any other.
    """
    if asked.until - asked.started < asked.rules.stale:
        zeros = [0] * asked.looks
        return _looks(asked, zeros, zeros, zeros, last=None, partial=None)
    raise Unclear(
        f"Prometheus has no series {asked.selectors['requests']}; see that it scrapes whoever answers, and that the "
        "selector fits (health.prometheus.requests)"
    )


def _missing(seen: _Seen, asked: _Asked) -> list[str]:
    """Processes that answered, and that cannot be looked at any more although they are expected to be there.

    Raises:
        Unclear: When no process at all can be looked at.
    """
    oldest = milliseconds(asked.until - asked.rules.stale)
    newest: dict[Target, int] = {}
    for one in seen.found("requests"):
        newest[one.target] = max(newest.get(one.target, 0), one.samples[-1][0])
    last = {target: ups.samples[-1] for target, ups in seen.alive.items() if ups.samples}
    down = {target for target, (at, up) in last.items() if at >= oldest and not up}
    fresh = {target for target, at in newest.items() if at >= oldest} - down
    told = [
        f"{one[1] or 'a process'} cannot be scraped since {moment(newest[one]):%H:%M:%S} UTC" for one in sorted(down)
    ]
    if fresh:
        return told
    at = moment(max(newest.values()))
    why = "; ".join(told) or f"its last sample of {asked.selectors['requests']} is from then"
    raise Unclear(f"Prometheus has seen nothing since {at:%Y-%m-%d %H:%M:%S} UTC: {why}", at)


def _without(seen: _Seen, name: str) -> list[str]:
    """Processes whose requests are counted and whose bad answers are not.

    Raises:
        Unclear: When none has a counter of that name.
    """
    there = {one.target for one in seen.found(name)}
    if not there:
        raise Unclear(
            f"Prometheus has requests and no series for health.prometheus.{name}: that is not the same as none; "
            f"let the counter begin at 0 with the process, and see that the selector fits"
        )
    lacking = sorted({one.target for one in seen.found("requests")} - there)
    return [f"{instance or 'a process'} has no series for health.prometheus.{name}" for _, instance in lacking]


def _check_edges(server: Server, seen: _Seen, asked: _Asked, limit: float) -> None:
    """See that the buckets can tell what is slow.

    Raises:
        Unclear: When the limit lies between two edges, or the bucket of everything is missing.
    """
    ends = [infinite(one) for one in seen.found("seconds")]
    if any(ends) and not all(ends):
        return
    edges = ", ".join(f"{edge:g}" for edge in server.edges(asked.selectors["seconds"], until=asked.until))
    raise Unclear(
        f"health.latency_p95 of {limit:g} s is no edge of the buckets, which are at {edges or 'no edge at all'}; "
        "set it to one of them, or add the edge where they are counted: between two edges nothing is known"
    )


def _evidence(seen: _Seen, asked: _Asked, partial: list[str]) -> HealthEvidence:
    counted = seen.increases("requests")
    requests = asked.by_look(counted)
    zeros = [0] * asked.looks
    errors = _part(requests, asked.by_look(seen.increases("errors")), "errors") if seen.found("errors") else zeros
    slow = _part(requests, _slow(seen, asked), "seconds") if seen.found("seconds") else zeros
    last = max((at for at, increase in counted if increase), default=None)
    told = "; ".join(partial) or None
    return _looks(asked, requests, errors, slow, last=None if last is None else moment(last), partial=told)


def _slow(seen: _Seen, asked: _Asked) -> list[int]:
    """All less those up to the limit; both are read in one scrape, the smaller one first."""
    buckets = seen.found("seconds")
    every = replace(seen, series={**seen.series, "part": tuple(one for one in buckets if infinite(one))})
    quick = replace(seen, series={**seen.series, "part": tuple(one for one in buckets if not infinite(one))})
    both = zip(asked.by_look(every.increases("part")), asked.by_look(quick.increases("part")), strict=True)
    return [max(0, whole - part) for whole, part in both]


def _part(requests: Sequence[int], parts: Sequence[int], name: str) -> list[int]:
    """Bad answers by look.

    Raises:
        Unclear: When there are more of them than requests, and not only for one scrape.
    """
    found, rest = fitted(requests, parts)
    if rest > sum(parts[-2:]):
        raise Unclear(
            f"health.prometheus.{name} counts {sum(parts)} where health.prometheus.requests counts {sum(requests)}: "
            "the two do not select the same answers"
        )
    return found


def _looks(
    asked: _Asked,
    requests: Sequence[int],
    errors: Sequence[int],
    slow: Sequence[int],
    *,
    last: datetime | None,
    partial: str | None,
) -> HealthEvidence:
    looks = tuple(
        Look(start=asked.started + k * asked.health.tick, requests=n, errors=bad, slow=late, labelled=0, wrong=0)
        for k, (n, bad, late) in enumerate(zip(requests, errors, slow, strict=True))
    )
    return HealthEvidence(looks=looks, now=asked.now, started=asked.started, last_request=last, partial=partial)


def _with_labels(found: HealthEvidence, told: HealthEvidence) -> HealthEvidence:
    """The counts of one with the labels of the other, which has another clock: see :func:`fitted_labels`."""
    if told.unavailable is not None:
        why = "; ".join(one for one in (found.partial, f"labels: {told.unavailable}") if one)
        return replace(found, partial=why)
    fit = fitted_labels(
        [look.requests for look in found.looks],
        [look.labelled for look in told.looks],
        [look.wrong for look in told.looks],
    )
    pairs = zip(found.looks, fit, strict=True)
    return replace(found, looks=tuple(replace(look, labelled=some, wrong=bad) for look, (some, bad) in pairs))
