"""Freshness: whether anything that an evaluation of the triggers rested on has changed since it was made.

An evaluation that says ``keep`` leaves a basis beside its evidence: what the source looked like before its rows were
read, the policy, the version in Production, and the moment until which time alone changes nothing. As long as all of
that is as it was, the evaluation stands, and no row is read and no model loaded. Whatever cannot be told for sure is
:class:`Unsure`, and the evaluation is made in full.

What this does not see: a row of a SQL source whose features were changed in place, without a row, a label or a moment
that differs. Hence :data:`LONGEST`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tasks import dossier, sources
from tasks.case import Case
from tasks.glance import Glance
from tasks.ledger import Decision
from tasks.plugins import expand
from tasks.policy import Policy
from tasks.records import Standing, Verdict
from tasks.stores import Stores

LONGEST = timedelta(days=1)
"""For so long an evaluation stands at most; then the rows are read again, whatever the source looks like."""

_SMALL = 16_000_000
"""Bytes of a file that is read to see whether it changed; of a larger one the file system's word is taken."""

_SETTLED = 2.0
"""Seconds for which a file has to rest: two writes within one tick of a file system's clock look like one."""


class Unsure(Exception):
    """It cannot be told that nothing has changed; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What a source looked like, without its rows.

    Attributes:
        digest: Of everything that was looked at.
        rows: In the window; None where that would take reading them.
        start: Of the window that was looked at, aware.
        end: Of it.
    """

    digest: str
    rows: int | None
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Still:
    """An evaluation that stands.

    Attributes:
        verdict: Of that evaluation.
        trail: On which it was recorded.
        reason: Since when nothing is new, where, and what was said then, in one line.
    """

    verdict: Verdict
    trail: str
    reason: str


def sample(policy: Policy, *, start: datetime, end: datetime) -> Sample:
    """What the source looks like now.

    Args:
        policy: Of the model.
        start: Of the window, aware; of a file all of it is looked at.
        end: Of the window, aware.

    Raises:
        Unsure: For a source that only its own rows can tell of, or that cannot be looked at.
    """
    try:
        seen, rows = _seen(policy, start, end)
    except Unsure:
        raise
    except Exception as error:  # whatever is wrong with the source, reading it in full will tell it right
        raise Unsure(f"the source could not be looked at: {type(error).__name__}") from error
    return Sample(digest=_digest(seen), rows=rows, start=start, end=end)


def _seen(policy: Policy, start: datetime, end: datetime) -> tuple[list[str], int | None]:
    """Everything that is looked at, and how many rows there are, where that is known."""
    source = expand(policy.data.source)
    if "://" in source:
        tally = sources.tally(policy.data, start=start, end=end, by_label=policy.problem != "regression")
        return [sources.place(source), *tally.marks], tally.rows
    if sources.is_file(source):
        return [source, *_look(Path(source))], None
    raise Unsure(f"{source} is a loader, and only its rows tell what it gives")


def _look(path: Path) -> list[str]:
    """A small file's content; a large one's size, clocks and place on the disk."""
    there = path.stat()
    if there.st_size <= _SMALL:
        return [hashlib.sha256(path.read_bytes()).hexdigest()]
    if time.time() - max(there.st_mtime, there.st_ctime) < _SETTLED:
        raise Unsure(f"{path.name} was written this very moment")
    return [str((there.st_size, there.st_mtime_ns, there.st_ctime_ns, there.st_dev, there.st_ino))]


def basis(case: Case, standing: Standing, seen: Sample, *, until: datetime) -> dict[str, Any] | None:
    """What a later run has to find unchanged, as plain JSON values; None when nothing would stand for any time.

    Args:
        case: Whose model.
        standing: What the ledger said.
        seen: The source before its rows were read: what came while they were read is new next time.
        until: The moment from which time alone would change what the triggers see.
    """
    if until <= case.now:
        return None
    return {
        "source": seen.digest,
        "rows": seen.rows,
        "start": seen.start.isoformat(),
        "end": seen.end.isoformat(),
        "until": min(until, case.now + LONGEST).isoformat(),
        "kept_rows": _kept(case.policy, case.stores),
        "policy": _policy(case.policy),
        "production": standing.production,
        "seq": standing.seq,
    }


def still(case: Case, standing: Standing) -> Still:
    """The evaluation that stands, after a look at everything that it rested on. Nothing is changed.

    Args:
        case: Whose model, now.
        standing: What the ledger says.

    Raises:
        Unsure: When anything is not as it was, or that cannot be told.
    """
    if standing.pending is not None or standing.staged is not None or standing.production is None:
        raise Unsure("there is more to do than to look at the triggers")
    last, found = _last(case)
    try:
        until, start, end = (datetime.fromisoformat(found[name]) for name in ("until", "start", "end"))
        then = {name: found[name] for name in ("kept_rows", "policy", "production", "seq", "source", "rows")}
    except (KeyError, TypeError, ValueError) as error:
        raise Unsure(f"the basis of the last evaluation cannot be read: {error}") from error
    if not last.at <= case.now < until:
        raise Unsure(f"the evaluation of {_told(last.at)} stood until {_told(until)}, and now it is {_told(case.now)}")
    now = {
        "kept_rows": _kept(case.policy, case.stores),
        "policy": _policy(case.policy),
        "production": standing.production,
        "seq": standing.seq,
    }
    _same({name: then[name] for name in now}, now, last.at)
    glance = Glance(case.stores.tracking)
    if glance.differs(standing) or glance.blind:
        raise Unsure(glance.blind or "MLflow says something else than the ledger")
    seen = sample(case.policy, start=start, end=end)
    _same({"source": then["source"]}, {"source": seen.digest}, last.at)
    return Still(last.verdict, last.trail, _sentence(case, last, seen))


def _last(case: Case) -> tuple[Decision, Mapping[str, Any]]:
    """The newest evaluation with its basis; it said keep, and nothing went wrong since."""
    last, trouble = (
        next(iter(case.ledger.decisions(case.model, judge, limit=1)), None) for judge in ("triggers", "data")
    )
    if last is None or last.verdict.decision != "keep" or last.evidence is None:
        raise Unsure("the last evaluation did not say keep")
    if trouble is not None and trouble.id > last.id:
        raise Unsure(f"something was wrong since: {trouble.verdict.reason}")
    try:
        body = case.ledger.evidence(last.evidence)
        found = None if body is None else dossier.basis(body)
    except ValueError as error:
        raise Unsure(str(error)) from error
    if found is None:
        raise Unsure("the last evaluation left nothing to compare with")
    return last, found


def _same(then: Mapping[str, Any], now: Mapping[str, Any], at: datetime) -> None:
    if differing := [name.replace("_", " ") for name in now if then[name] != now[name]]:
        raise Unsure(f"not as on {_told(at)}: {', '.join(differing)}")


def _sentence(case: Case, last: Decision, seen: Sample) -> str:
    data = case.policy.data
    place = data.table or (Path(data.source).name if sources.is_file(data.source) else "the source")
    rows = "" if seen.rows is None else f" ({seen.rows:,} rows)"
    return f"nothing new in {place} since {_told(last.at)}{rows}; the evaluation of then stands: {last.verdict.reason}"


def _kept(policy: Policy, stores: Stores) -> str | None:
    """The file with the rows that were seen before, where the policy has one: it is read together with the source."""
    if not (policy.data.history and sources.is_file(policy.data.source)):
        return None
    try:
        there = stores.kept(policy.model).stat()
    except OSError:
        return "none"
    return str((there.st_size, there.st_mtime_ns, there.st_ctime_ns, there.st_ino))


def _policy(policy: Policy) -> str:
    """Everything that a person decided, the overrides of the environment included."""
    return _digest([policy.model_dump_json()])


def _digest(seen: list[str]) -> str:
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
