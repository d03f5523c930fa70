"""Story: everything that the ledger knows of one version or one trail, in the order in which it was written.

What is asked for is a trail's id, a model (then it is what serves, or else the newest trail), or ``model:version``. The
story of a version is that of its own trail, and what happened to it on others: a rollback by hand, a successor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Table, case, distinct, or_, select, union

from tasks import schema
from tasks.ledger import Decision, Ledger
from tasks.records import Verdict
from tasks.units import format_size

Kind = Literal["decision", "version", "lesson", "transition", "rollout", "fact", "notification"]
Mark = Literal["good", "bad", "unsure", "plain"]

_MOST = 1_000
"""Rows of each kind; a longer story is told from its beginning, and says that it goes on."""

_MARKS: dict[str, Mark] = {
    **dict.fromkeys(("pass", "promote", "healthy", "known-good", "approved", "retrain", "step", "promoted"), "good"),
    **dict.fromkeys(
        (
            "fail",
            "reject",
            "unhealthy",
            "frozen",
            "quarantined",
            "rejected",
            "rollback",
            "failed",
            "stay",
            "back",
            "abort",
            "aborted",
        ),
        "bad",
    ),
    **dict.fromkeys(
        ("inconclusive", "wait", "unknown", "awaiting", "expired", "paged", "external", "hold", "unrouted"), "unsure"
    ),
}
_MOVES = {
    "stage": "to Staging",
    "promote": "to Production",
    "rollback": "back to Production",
    "reject": "out of Staging",
    "external": "changed outside of Backstop",
}


class NotTold(LookupError):
    """The ledger knows nothing of what was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One thing that happened.

    Attributes:
        at: When; a transition, when it took effect.
        kind: Of the ledger's row.
        title: ``gate: fail``, ``version 7 to Production``.
        text: In words.
        mark: Whether it speaks for the version.
        who: Person or flow, where the row names one.
        version: That it is about.
        trail: That it belongs to.
        flow_run_id: Prefect's.
        verdict: Of a decision, with its findings.
        evidence: Digest of what the verdict rests on.
        details: (name, value) of whatever else the row says.
    """

    at: datetime
    kind: Kind
    title: str
    text: str
    mark: Mark = "plain"
    who: str = ""
    version: str | None = None
    trail: str = ""
    flow_run_id: str | None = None
    verdict: Verdict | None = None
    evidence: str | None = None
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """The story of one version, or of one trail that made none.

    Attributes:
        model: Registered name.
        version: That it is about; None where nothing was trained.
        trail: On which it was made, or which was asked for.
        run_id: MLflow run of the version.
        production: What serves now.
        fate: What became of it, in one line.
        steps: In order.
        complete: False when there was more than is told.
    """

    model: str
    version: str | None
    trail: str
    run_id: str | None
    production: str | None
    fate: str
    steps: tuple[Step, ...]
    complete: bool = True


class Annals(Ledger):
    """An open ledger that is read by trail and by version."""

    def named(self) -> tuple[str, ...]:
        """Every model that the ledger has a row of, also those that nothing was ever promoted of."""
        tables = (schema.transitions, schema.decisions, schema.versions)
        with self._database.reading() as connection:
            names = connection.execute(union(*(select(distinct(table.c.model)) for table in tables))).scalars()
            return tuple(sorted(str(name) for name in names))

    def on_trail(self, trail: str) -> tuple[str, str | None] | None:
        """(model, version) that a trail is about; None when there is no such trail."""
        moves, facts, said = schema.transitions, schema.facts, schema.decisions
        # A rollback is about the version that it takes out of service.
        about = case((moves.c.action == "rollback", moves.c.previous), else_=moves.c.version)
        queries = (
            select(moves.c.model, about.label("version")).where(moves.c.trail == trail).order_by(moves.c.id),
            select(facts.c.model, facts.c.version).where(facts.c.trail == trail).order_by(facts.c.id),
            select(said.c.model, said.c.version)
            .where(said.c.trail == trail)
            .order_by(said.c.judge != "gate", said.c.id.desc()),
        )
        with self._database.reading() as connection:
            rows = (connection.execute(query.limit(1)).one_or_none() for query in queries)
            found = next((row for row in rows if row is not None), None)
        return None if found is None else (str(found.model), found.version)

    def newest_trail(self, model: str) -> str | None:
        """Of the newest decision."""
        rows = schema.decisions
        query = select(rows.c.trail).where(rows.c.model == model).order_by(rows.c.id.desc()).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one_or_none()

    def trails_of(self, model: str, version: str) -> tuple[str, ...]:
        """Those on which a version was judged, moved or rolled back from, its own first."""
        moves, said = schema.transitions, schema.decisions
        own = moves.c.action.in_(("stage", "promote", "reject")) & (moves.c.version == version)
        away = (moves.c.action == "rollback") & (moves.c.previous == version)
        queries = (
            select(said.c.trail).where(said.c.model == model, said.c.judge == "gate", said.c.version == version),
            select(moves.c.trail).where(moves.c.model == model, or_(own, away)).order_by(moves.c.seq),
        )
        with self._database.reading() as connection:
            found = [str(trail) for query in queries for trail in connection.execute(query).scalars()]
        return tuple(dict.fromkeys(found))

    def rows(self, model: str, trails: Iterable[str], version: str | None) -> dict[tuple[str, str], Row[Any]]:
        """(kind, key) -> row of everything on the trails and about the version."""
        trails = tuple(trails)
        tables: dict[str, tuple[Table, str]] = {
            "decision": (schema.decisions, "id"),
            "fact": (schema.facts, "id"),
            "transition": (schema.transitions, "seq"),
            "rollout": (schema.rollouts, "id"),
            "version": (schema.versions, "version"),
            "lesson": (schema.lessons, "id"),
            "notification": (schema.notifications, "id"),
        }
        found: dict[tuple[str, str], Row[Any]] = {}
        with self._database.reading() as connection:
            for kind, (table, key) in tables.items():
                conditions = [*_matching(table, trails, version)]
                if not conditions:
                    continue
                query = select(table).where(table.c.model == model, or_(*conditions)).order_by(table.c[key])
                for row in connection.execute(query.limit(_MOST)):
                    found[kind, str(getattr(row, key))] = row
        return found

    def order(self, model: str) -> dict[tuple[str, str], int]:
        """(kind, key) -> the place at which a row was written, for all rows of a model."""
        rows = schema.chain
        query = select(rows.c.kind, rows.c.row, rows.c.position).where(rows.c.model == model)
        with self._database.reading() as connection:
            return {(row.kind, row.row): row.position for row in connection.execute(query)}


def _matching(table: Table, trails: tuple[str, ...], version: str | None) -> Iterator[ColumnElement[bool]]:
    if "trail" in table.c:
        yield table.c.trail.in_(trails)
    if version is not None and "version" in table.c:
        yield table.c.version == version
    if version is not None and "previous" in table.c:
        yield table.c.previous == version


def tell(annals: Annals, asked: str) -> Story:
    """The story that was asked for.

    Args:
        annals: Open.
        asked: A trail's id, a model, or ``model:version``.

    Raises:
        NotTold: When the ledger knows nothing of it; says what it does know.
    """
    model, version, trail = _resolved(annals, asked.strip())
    trails = ((trail,) if trail else ()) + (annals.trails_of(model, version) if version else ())
    rows, order = annals.rows(model, trails, version), annals.order(model)
    steps = tuple(
        _step(annals, kind, rows[kind, key]) for kind, key in sorted(rows, key=lambda one: _place(one, order))
    )
    if not steps:
        raise NotTold(
            f"the ledger knows model {model}, and has nothing about {asked!r}; name the version as MLflow does"
        )
    standing = annals.standing(model)
    return Story(
        model=model,
        version=version,
        trail=trail or next(iter(trails), steps[0].trail),
        run_id=annals.run_of(model, version) if version else None,
        production=standing.production,
        fate=_fate(version, standing.production, steps),
        steps=steps,
        complete=len(rows) < _MOST,
    )


def _place(one: tuple[str, str], order: dict[tuple[str, str], int]) -> tuple[float, str]:
    """A row that no link stands for was put in beside the ledger; the audit says so, here it comes last."""
    return order.get(one, float("inf")), one[1]


def _resolved(annals: Annals, asked: str) -> tuple[str, str | None, str | None]:
    """(model, version, trail)."""
    models = annals.named()
    name, _, number = asked.partition(":")
    if number and name in models:
        return name, number, None
    if asked in models:
        if (serving := annals.standing(asked).production) is not None:
            return asked, serving, None
        newest = annals.newest_trail(asked)
        _, version = (newest and annals.on_trail(newest)) or (asked, None)
        return asked, version, newest
    if (found := annals.on_trail(asked)) is not None:
        return *found, asked
    known = ", ".join(models) or "no model at all"
    raise NotTold(
        f"{asked!r} is no trail and no model of this ledger, which knows {known}; give the id that ends every message, "
        "a model, or model:version. BACKSTOP_LEDGER (or BACKSTOP_HOME) says which ledger is read"
    )


def _fate(version: str | None, production: str | None, steps: tuple[Step, ...]) -> str:
    if version is None:
        last = next((step for step in reversed(steps) if step.kind == "decision"), steps[-1])
        return f"no version was made: {last.title}"
    if version == production:
        return f"version {version} is in Production"
    facts = {step.title.rpartition(": ")[2] for step in steps if step.kind == "fact" and step.version == version}
    serves = f"version {production} serves" if production else "nothing is in Production"
    for fact, told in (("quarantined", "was rolled back from and is quarantined"), ("rejected", "was rejected")):
        if fact in facts and "released" not in facts:
            return f"version {version} {told}; {serves}"
    served = any(step.kind == "transition" and step.title.endswith("Production") for step in steps)
    return f"version {version} {'was replaced' if served else 'is not in Production'}; {serves}"


# One step for each kind of row.


def _step(annals: Annals, kind: str, row: Row[Any]) -> Step:
    if kind == "decision":
        return _decided(next(iter(annals.decisions(row.model, limit=1, before=row.id + 1))))
    steps: dict[str, Callable[[Row[Any]], Step]] = {
        "fact": _stated,
        "transition": _moved,
        "rollout": _weighed,
        "version": _made,
        "lesson": _learned,
        "notification": _told,
    }
    return steps[kind](row)


def _decided(one: Decision) -> Step:
    verdict = one.verdict
    span = () if one.span is None else (("judged on", _span(one.span.start, one.span.end)),)
    proof = () if one.evidence is None else (("evidence", one.evidence[:12]),)
    return Step(
        at=one.at,
        kind="decision",
        title=f"{verdict.judge}: {verdict.decision}",
        text=verdict.reason,
        mark=_MARKS.get(verdict.decision, "plain"),
        version=one.version,
        trail=one.trail,
        flow_run_id=one.flow_run_id,
        verdict=verdict,
        evidence=one.evidence,
        details=(*span, *proof),
    )


def _stated(row: Row[Any]) -> Step:
    return Step(
        at=row.at,
        kind="fact",
        title=f"version {row.version}: {row.fact}",
        text=row.reason,
        mark=_MARKS.get(row.fact, "plain"),
        who=row.actor,
        version=row.version,
        trail=row.trail,
    )


def _moved(row: Row[Any]) -> Step:
    state = "" if row.state == "applied" else f" ({row.state})"
    before = (("in Production before", row.previous),) if row.previous else ()
    return Step(
        at=row.applied_at or row.intended_at,
        kind="transition",
        title=f"version {row.version} {_MOVES.get(row.action, row.action)}{state}",
        text=row.reason,
        mark=_MARKS.get(row.action, "plain") if row.state == "applied" else "unsure",
        who=row.actor,
        version=row.version,
        trail=row.trail,
        flow_run_id=row.flow_run_id,
        details=(("transition", str(row.seq)), *before),
    )


def _weighed(row: Row[Any]) -> Step:
    over = "" if row.state == "running" else f", the rollout was {row.state}"
    return Step(
        at=row.at,
        kind="rollout",
        title=f"version {row.version} answers {row.weight}% of the requests{over}",
        text=row.reason,
        mark=_MARKS.get(row.state, "plain"),
        who=row.actor,
        version=row.version,
        trail=row.trail,
        flow_run_id=row.flow_run_id,
        details=(("in Production", row.baseline),),
    )


def _made(row: Row[Any]) -> Step:
    profile = json.loads(row.profile) if row.profile else {}
    details = [("artifact", f"{format_size(row.size)}, SHA-256 {row.digest[:12]}")]
    if row.run_id:
        details.append(("MLflow run", row.run_id))
    if profile:
        details += [
            ("trained on", f"{profile['rows']:,} rows, {_window(profile['trained'])}"),
            ("judged on", f"{profile['labelled'] - profile['rows']:,} rows, {_window(profile['holdout'])}"),
            ("data", f"fingerprint {profile['fingerprint'][:16]}"),
        ]
    measured = "; ".join(_measured(one) for one in profile.get("metrics", ()))
    return Step(
        at=row.trained_at or datetime.min.replace(tzinfo=UTC),
        kind="version",
        title=f"version {row.version} {'trained' if profile else 'taken down: it was made elsewhere'}",
        text=f"on the holdout: {measured}" if measured else "its artifact is known from here on",
        version=row.version,
        details=tuple(details),
    )


def _learned(row: Row[Any]) -> Step:
    count = f"{row.size:,} labelled request{'' if row.size == 1 else 's'}"
    if row.version is None:
        title = f"{count} set aside: learned by nobody"
    else:
        title = f"version {row.version} learned {count}, as a copy of version {row.base}"
    return Step(
        at=row.at,
        kind="lesson",
        title=title,
        text=row.reason,
        mark="unsure" if row.version is None else "plain",
        version=row.version,
        trail=row.trail,
        details=(("in Production", row.base),) if row.version is None else (),
    )


def _told(row: Row[Any]) -> Step:
    return Step(
        at=row.at,
        kind="notification",
        title=f"told {row.sink}" if row.ok else f"{row.sink} could not be told",
        text=row.title if row.ok else f"{row.title}: {row.error}",
        mark="plain" if row.ok else "unsure",
        trail=row.trail,
    )


def _measured(plain: Mapping[str, Any]) -> str:
    value = plain["value"]
    return f"{plain['metric']} {'unknown' if value is None else f'{value:.4g}'}"


def _window(plain: Mapping[str, str]) -> str:
    return _span(datetime.fromisoformat(plain["start"]), datetime.fromisoformat(plain["end"]))


def _span(start: datetime, end: datetime) -> str:
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
