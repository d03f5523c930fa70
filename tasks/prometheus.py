"""Prometheus: the watch's counts from a server that scrapes whoever answers.

Asked for are the samples as they were scraped (``counter[90s]``), not ``rate`` or ``increase``: those extrapolate, and
an error *ratio* needs two whole numbers. Whatever is missing, stale, doubled or no number is said, never counted as 0.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from tasks.counters import Series, Target
from tasks.exchange import NoReply, Reply, ask, place
from tasks.notify import expand
from tasks.policy import Prometheus

_APART = ("job", "cluster", "prometheus", "prometheus_replica", "replica", "receive")
"""Labels of which one process has one value: two mean that it is counted twice."""


class Unclear(RuntimeError):
    """What was asked for has no usable answer; the text says why and what to do.

    Attributes:
        seen: When there last was one, where that is known.
    """

    def __init__(self, text: str, seen: datetime | None = None) -> None:
        super().__init__(text)
        self.seen = seen


@dataclass(slots=True)
class Server:
    """One Prometheus server, for the queries of one tick.

    Attributes:
        rules: Its section of the policy.
        environment: For ``${NAME}``.
    """

    rules: Prometheus
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _end: float | None = None

    def samples(self, selector: str, *, until: datetime, length: timedelta) -> tuple[Series, ...]:
        """All samples of the counters that a selector selects; () when there are none.

        Args:
            selector: Without a range.
            until: Of the newest sample.
            length: How far back.

        Raises:
            Unclear: When the server does not answer, or with something that is no count.
        """
        found = self._ask(f"{selector}[{math.ceil(length.total_seconds())}s]", until)
        return tuple(one for one in map(_series, found) if one.samples)

    def alive(self, targets: Iterable[Target], *, until: datetime, length: timedelta) -> dict[Target, Series]:
        """How the scrapes of some processes went: 1 for each that did, 0 for each that did not.

        Raises:
            Unclear: As for :meth:`samples`.
        """
        found: dict[Target, Series] = {}
        by_job: dict[str, list[str]] = {}
        for job, instance in sorted(targets):
            by_job.setdefault(job, []).append(instance)
        for job, instances in by_job.items():
            listed = "|".join(re.escape(instance) for instance in instances)
            selector = f"up{{job={_quoted(job)},instance=~{_quoted(listed)}}}"
            found |= {one.target: one for one in self.samples(selector, until=until, length=length)}
        return found

    def edges(self, selector: str, *, until: datetime) -> tuple[float, ...]:
        """The edges of the buckets of a histogram, rising, without the infinite one.

        Raises:
            Unclear: As for :meth:`samples`.
        """
        found = self._ask(f"group by (le) ({selector})", until, "vector")
        return tuple(sorted(edge for one in found if math.isfinite(edge := _edge(one["metric"].get("le", "")))))

    def _ask(self, query: str, until: datetime, kind: str = "matrix") -> list[Any]:
        reply = self._post({"query": query, "time": f"{until.timestamp():.3f}"})
        try:
            answer = json.loads(reply.body)
            said = answer["error"] if answer["status"] != "success" else ""
            warned = answer.get("warnings")
            found: list[Any] = [] if said else list(answer["data"]["result"])
            fits = said or answer["data"]["resultType"] == kind
            fits = fits and all(isinstance(one["metric"], dict) for one in found)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Unclear(
                f"{self._where} answers {_told(reply)}, which is no answer to a query; see the address"
            ) from None
        if said or reply.status != 200:
            raise Unclear(f"{self._where} refuses {query}: {str(said)[:300] or _told(reply)}")
        if warned:  # such as a store behind it that is away
            raise Unclear(f"{self._where} answers with a part only: {'; '.join(map(str, warned))[:300]}")
        if not fits:
            raise Unclear(f"{self._where} answers {_told(reply)}, which is no {kind}; see the selector {query}")
        return found

    def _post(self, form: Mapping[str, str]) -> Reply:
        self._end = self._end or time.monotonic() + self.rules.timeout.total_seconds()
        try:
            url = expand(self.rules.url, self.environment)
            token = expand(self.rules.token, self.environment) if self.rules.token else ""
            reply = ask(
                "POST",
                f"{url.rstrip('/')}/api/v1/query",
                seconds=max(0.01, self._end - time.monotonic()),
                headers={
                    "Content-Type": "application/x-www-form-urlencoded",
                    **({"Authorization": f"Bearer {token}"} if token else {}),
                },
                body=urlencode(form).encode(),
            )
        except (ValueError, NoReply) as error:
            raise Unclear(f"{self._where} does not answer: {error}") from None
        if reply.status in {401, 403}:
            raise Unclear(f"{self._where} answers {reply.status}: see the name, password or token of health.prometheus")
        return reply

    @property
    def _where(self) -> str:
        try:
            return f"Prometheus at {place(expand(self.rules.url, self.environment))}"
        except ValueError:
            return f"Prometheus at {self.rules.url}"


def selected(template: str, *, model: str, version: str, role: str) -> str:
    """A selector of the policy with its three names filled in."""
    for name, value in (("$model", model), ("$version", version), ("$role", role)):
        template = template.replace(name, _escaped(value))
    return template


def bucket(selector: str, limit: float) -> str:
    """The selector of a histogram's buckets, of two of them only: up to a limit, and all.

    Clients write the edge 1 as ``1``, ``1.0`` or ``1e+00``; the server keeps what it was given.
    """
    forms = {repr(limit), f"{limit:g}", f"{limit:e}", f"{limit:.17g}"}
    listed = "|".join(re.escape(one) for one in (*sorted(forms), "+Inf"))
    head = selector.rstrip().removesuffix("}").rstrip().removesuffix(",")
    comma = "" if head.endswith("{") else ","
    return f"{head}{comma}le=~{_quoted(listed)}}}"


def doubled(series: Iterable[Series]) -> str:
    """Why some counters seem to be those of one process twice, or nothing."""
    seen: dict[str, Mapping[str, str]] = {}
    for one in series:
        instance = one.labels.get("instance")
        before = seen.setdefault(instance, one.labels) if instance else one.labels
        for name in _APART:
            values = {before.get(name, ""), one.labels.get(name, "")}
            if len(values) > 1:
                two = " and ".join(repr(value) for value in sorted(values))
                return (
                    f"{instance} is counted under two values of {name}, {two}, and would count twice; "
                    f"let the selectors of health.prometheus select one"
                )
    return ""


def infinite(series: Series) -> bool:
    """Whether it is the bucket of everything."""
    return math.isinf(_edge(series.labels.get("le", "")))


def moment(milliseconds: int) -> datetime:
    """Since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def milliseconds(at: datetime) -> int:
    """The same the other way round."""
    return round(at.timestamp() * 1000)


def _series(raw: Mapping[str, Any]) -> Series:
    """A counter of the answer.

    Raises:
        Unclear: For native histograms, and for what is no whole number from 0 on.
    """
    labels = {str(name): str(value) for name, value in raw["metric"].items()}
    told = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    if "values" not in raw:
        raise Unclear(f"{{{told}}} is no classic counter (a native histogram?); export classic buckets beside it")
    samples = []
    try:
        for at, text in raw["values"]:
            value = float(text)
            if not (math.isfinite(value) and value >= 0 and value.is_integer()):
                raise Unclear(
                    f"{{{told}}} says {str(text)[:40]} at {moment(round(at * 1000)):%H:%M:%S}, which is no count"
                )
            samples.append((round(at * 1000), int(value)))
    except (ValueError, TypeError, OverflowError):
        raise Unclear(f"{{{told}}} holds what is no sample; see the address of health.prometheus") from None
    return Series(labels, tuple(sorted(samples)))


def _edge(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _told(reply: Reply) -> str:
    return f"{reply.status} {reply.body[:80].decode('utf-8', 'replace')!r}"
