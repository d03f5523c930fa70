"""Aftermath: what ledger and MLflow say when somebody died and somebody else came after, and what is wrong with it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from sqlalchemy import select

from tasks import schema
from tasks.database import Database
from tasks.ledger import Ledger
from tasks.records import Transition, to_plain
from tasks.registry import LINK_TAG, Registry, View
from tasks.stores import Stores

FLEETING = frozenset({LINK_TAG, "backstop.trail"})
"""Tags that differ between two runs that did the same."""

_MOVES = frozenset({"stage", "promote", "rollback", "reject"})


@dataclass(frozen=True)
class Scenery:
    """Everything that both sides say of one model at the moment of the first question, read without anybody's help.

    Attributes:
        stores: Where.
        model: Registered name.
    """

    stores: Stores
    model: str

    def picture(self) -> dict[str, Any]:
        """What has to be the same whenever the same was done."""
        ledger = Ledger(self._database)
        standing, history = ledger.standing(self.model), ledger.history(self.model)
        # Only of what serves: a version may be described before it is moved, and be left where it is.
        digest = standing.production and ledger.digest(self.model, standing.production)
        view = self._view
        told = ("seq", "action", "version", "previous", "state", "actor")
        plain: dict[str, Any] = to_plain(
            {
                "registry": [view.production, view.staging, view.champion, view.challenger, view.versions],
                "versions": {
                    number: [one.current_stage, {key: text for key, text in one.tags.items() if key not in FLEETING}]
                    for number, one in self.versions.items()
                },
                "transitions": [[getattr(row, name) for name in told] for row in history],
                "standing": [standing.production, standing.staged, standing.known_good, standing.quarantined],
                "facts": [[row["version"], row["fact"]] for row in self.facts()],
                "digest": digest,
            }
        )
        return plain

    def everything(self) -> dict[str, Any]:
        """Every row of both sides, now; two of these are equal when nothing at all was changed between them."""
        with self._database.reading() as connection:
            kept = {
                table.name: [tuple(row) for row in connection.execute(select(table))]
                for table in schema.ledger.sorted_tables
            }
        if self.stores.tracking.startswith("sqlite:///"):
            return kept | _rows(Path(self.stores.tracking.removeprefix("sqlite:///")))
        return kept | {"mlflow": [str(dict(one)) for one in Scenery(self.stores, self.model).versions.values()]}

    def facts(self) -> list[dict[str, Any]]:
        """The facts that transitions bring along, oldest first."""
        rows = schema.facts
        named = rows.c.fact.in_(("quarantined", "rejected"))
        with self._database.reading() as connection:
            found = connection.execute(select(rows).where(rows.c.model == self.model, named).order_by(rows.c.id))
            return [{"version": row.version, "fact": row.fact, "trail": row.trail} for row in found]

    def faults(self) -> list[str]:
        """What is wrong, one sentence each."""
        ledger = Ledger(self._database)
        return [*self._disagreements(ledger), *self._misdeeds(ledger.history(self.model)), *self._broken(ledger)]

    def _disagreements(self, ledger: Ledger) -> Iterator[str]:
        """Between the ledger and MLflow, or with themselves."""
        standing, view = ledger.standing(self.model), self._view
        if view.production != (() if standing.production is None else (standing.production,)):
            yield f"MLflow has {view.production} in Production, the ledger {standing.production}"
        if view.champion != standing.production:
            yield f"champion points to {view.champion}, and {standing.production} is in Production"
        waits = () if standing.staged is None else (standing.staged,)
        if view.staging != waits or view.challenger != standing.staged:
            yield f"MLflow has {view.staging} in Staging, challenger {view.challenger}; the ledger {standing.staged}"
        if standing.pending is not None:
            yield f"transition {standing.pending.seq} is still pending"

    def _misdeeds(self, history: tuple[Transition, ...]) -> Iterator[str]:
        """Transitions that are there twice, not at all, out of order or half done."""
        if [row.seq for row in history] != list(range(1, len(history) + 1)):
            yield f"transitions are numbered {[row.seq for row in history]}"
        if unsettled := [row.seq for row in history if row.state not in {"applied", "abandoned"}]:
            yield f"transitions {unsettled} are neither applied nor abandoned"
        if odd := [row.seq for row in history if (row.applied_at is None) == (row.state == "applied")]:
            yield f"transitions {odd} have a moment and were not applied, or the other way round"
        moments: list[datetime] = [row.applied_at for row in history if row.applied_at is not None]
        if moments != sorted(moments):
            yield f"transitions were applied at {moments}, not in their order"
        yield from self._marks(history)
        yield from self._tags(history)

    def _marks(self, history: tuple[Transition, ...]) -> Iterator[str]:
        due: Counter[tuple[str, str, str]] = Counter()
        for row in history:
            if row.state == "applied" and row.action == "rollback" and row.previous not in {None, row.version}:
                due[str(row.previous), "quarantined", row.trail] += 1
            if row.state == "applied" and row.action == "reject":
                due[row.version, "rejected", row.trail] += 1
        found = Counter((fact["version"], fact["fact"], fact["trail"]) for fact in self.facts())
        if found != due:
            yield f"facts that the transitions call for: {dict(due)}; facts that are there: {dict(found)}"

    def _tags(self, history: tuple[Transition, ...]) -> Iterator[str]:
        """What MLflow's tags tell of the newest transition of each version."""
        newest = {row.version: row for row in history if row.state == "applied"}
        quarantined = {row.previous for row in history if row.state == "applied" and row.action == "rollback"}
        for number, version in self.versions.items():
            row = newest.get(number)
            if row is not None and row.action in _MOVES and row.actor != "outside Backstop":
                if version.tags.get("backstop.transition") != f"{row.seq} {row.action}":
                    yield f"version {number} is tagged {version.tags.get('backstop.transition')}, not {row.seq}"
                if row.action == "stage" and version.tags.get("backstop.gate") != "pass":
                    yield f"version {number} was staged and its tags do not say that it passed the gate"
            if ("backstop.quarantined" in version.tags) != (number in quarantined):
                yield f"version {number} has the tags {version.tags}; quarantined are {quarantined}"

    def _broken(self, ledger: Ledger) -> Iterator[str]:
        """The chain over the ledger's rows, and what MLflow knows of it."""
        yield from ledger.misfits(self.model)
        for number, version in self.versions.items():
            position, _, digest = version.tags.get(LINK_TAG, "").partition(" ")
            if digest and ledger.link(self.model, int(position)) != digest:
                yield f"version {number} is tagged with link {position}, which has another digest in the ledger"

    @cached_property
    def _view(self) -> View:
        return Registry(self.stores).view(self.model)

    @cached_property
    def versions(self) -> dict[str, Any]:
        """As MLflow has them, by number."""
        client = MlflowClient(tracking_uri=self.stores.tracking, registry_uri=self.stores.tracking)
        return {str(one.version): one for one in client.search_model_versions(f"name='{self.model}'")}

    @cached_property
    def _database(self) -> Database:
        return Database.open(self.stores.ledger, part="ledger", revision=schema.LEDGER_REVISION)


def _rows(path: Path) -> dict[str, Any]:
    names = ("registered_models", "registered_model_aliases", "model_versions", "model_version_tags")
    connection = sqlite3.connect(path)
    try:
        return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}  # noqa: S608  fixed
    finally:
        connection.close()
