"""Counters: what a process counted since it began, seen every few seconds, as increases look by look.

A counter begins at 0 with its process, and again when that restarts. Differences between two samples are counted, and
nothing is extrapolated: the counts stay whole numbers, as the tests of the watch need them.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Target = tuple[str, str]
"""(job, instance): the process that was asked."""


@dataclass(frozen=True, slots=True)
class Series:
    """One counter of one process.

    Attributes:
        labels: That name it.
        samples: (milliseconds since 1970, count), oldest first.
    """

    labels: Mapping[str, str]
    samples: tuple[tuple[int, int], ...]

    @property
    def target(self) -> Target:
        """Of which process."""
        return self.labels.get("job", ""), self.labels.get("instance", "")


def restarts(series: Iterable[Series]) -> dict[Target, frozenset[int]]:
    """Samples before which a process restarted: one of its counters went down. That holds for all of them.

    After a restart a busy counter may pass its old value before it is seen again, while a quiet one cannot.
    """
    found: dict[Target, set[int]] = {}
    for one in series:
        falls = (at for (_, before), (at, count) in zip(one.samples, one.samples[1:], strict=False) if count < before)
        found.setdefault(one.target, set()).update(falls)
    return {target: frozenset(moments) for target, moments in found.items()}


def increases(series: Series, restarted: frozenset[int], answered: Sequence[int]) -> list[tuple[int, int]]:
    """(milliseconds, increase) of each sample since the one before it.

    The first sample has none before it, and counts only where it is known that its counter had just begun: the process
    was seen before, without this counter.

    Args:
        series: One counter.
        restarted: Samples before which its process restarted.
        answered: Milliseconds at which its process was seen, sorted.
    """
    if not series.samples:
        return []
    first, count = series.samples[0]
    known = bisect.bisect_left(answered, first) > 0
    found = [(first, count)] if known else []
    for (_, before), (at, after) in zip(series.samples, series.samples[1:], strict=False):
        found.append((at, after if at in restarted or after < before else after - before))
    return found


def by_look(found: Iterable[tuple[int, int]], *, start: int, tick: int, looks: int) -> list[int]:
    """Increases summed by look; one look after the other, each with its end and without its beginning.

    Args:
        found: (milliseconds, increase).
        start: Of the first look, in milliseconds.
        tick: Length of a look, in milliseconds.
        looks: How many there are; what lies outside of them is left out.
    """
    sums = [0] * looks
    for at, increase in found:
        number = -((start - at) // tick) - 1  # rounded up, less one: what is seen at an end came before it
        if 0 <= number < looks:
            sums[number] += increase
    return sums


def fitted(requests: Sequence[int], parts: Sequence[int]) -> tuple[list[int], int]:
    """Parts of requests, none with more of them than requests: what does not fit goes into the look after it.

    Counters are read one after the other, so that a request may be in one of them a scrape before it is in the other.

    Returns:
        The parts by look, and what fits into none.
    """
    waiting, found = 0, []
    for total, part in zip(requests, parts, strict=True):
        waiting += part
        found.append(min(total, waiting))
        waiting -= found[-1]
    return found, waiting


def fitted_labels(requests: Sequence[int], labelled: Sequence[int], wrong: Sequence[int]) -> list[tuple[int, int]]:
    """(labelled, wrong) by look, from a log that has another clock; in their order, as many as there are requests.

    Those of one look keep the share that was wrong when only some of them fit; the rest follows in the next one.
    """
    queue = [[some, bad] for some, bad in zip(labelled, wrong, strict=True)]
    first, found = 0, []
    for number, total in enumerate(requests):
        room, some, bad = total, 0, 0
        while room and first <= number:
            here = queue[first]
            take = min(room, here[0])
            share = here[1] * take // here[0] if here[0] else 0
            some, bad, room = some + take, bad + share, room - take
            here[0], here[1] = here[0] - take, here[1] - share
            if here[0]:
                break
            first += 1
        found.append((some, bad))
    return found
