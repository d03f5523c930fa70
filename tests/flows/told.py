"""Rows as they are told: one kind of source after the other, an evaluation of it, and what a later look finds."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from scene import QUIET, Scene, day, everybody
from sqlalchemy import create_engine

from tasks import freshness
from tasks.case import open_case
from tasks.dossier import Dossier
from tasks.freshness import Still, Unsure
from tasks.policy_file import load
from tasks.records import Verdict
from tasks.retrial import reach
from tasks.signals import observe

LATER = QUIET + 0.25
"""Of the same day: six hours after the evaluation."""


class Told:
    """Rows in one kind of source, and the policy that names it."""

    def __init__(self, scene: Scene, kind: str) -> None:
        self.scene, self.kind = scene, kind
        frame = everybody()
        self.rows = frame[frame["observed_at"] < day(QUIET)].reset_index(drop=True)
        self.rows.loc[self.rows.index[-40:], "churned"] = None  # their labels come late
        self.changes: dict[str, Any] = {}
        self.write(self.rows)

    def write(self, rows: pd.DataFrame) -> None:
        """The source as it is from now on."""
        if self.kind == "file":
            self.scene.write(rows, "told.csv")
            return
        engine = create_engine(f"sqlite:///{self.scene.home / 'told.db'}")
        rows = rows.assign(observed_at=rows["observed_at"].map(lambda moment: moment.isoformat()))
        rows.to_sql("customers", engine, index=False, if_exists="replace")
        engine.dispose()

    def policy(self, **changes: Any) -> str:
        """Path of the policy; the changes replace its own."""
        data: dict[str, Any] = {"source": "told.csv"}
        if self.kind != "file":
            data = {"source": f"sqlite:///{self.scene.home / 'told.db'}", "table": "customers"}
        if self.kind == "query":
            told = "SELECT * FROM customers WHERE observed_at >= :start AND observed_at < :end ORDER BY customer_id;"
            data = {"source": data["source"], "query": told}
        self.changes |= changes
        return self.scene.policy("told", **{"data": data, **self.changes})

    def evaluate(self, at: float = QUIET) -> Verdict:
        """An evaluation in full, as the flow makes and records it."""
        case = open_case(load(self.policy()), actor="a test", now=day(at), stores=self.scene.stores)
        with case.ledger:
            seen = observe(case, case.standing())
            rests = Dossier("triggers", {"signals": seen.signals, "rules": case.policy.triggers}, basis=seen.basis)
            case.note(verdict := reach(rests), rests)
        return verdict

    def look(self, at: float = LATER) -> Still:
        """What the flow's first look finds."""
        case = open_case(load(self.policy()), actor="a test", now=day(at), stores=self.scene.stores)
        with case.ledger:
            return freshness.still(case, case.standing())

    def sees(self, what: str, at: float = LATER) -> None:
        """The look does not trust the earlier evaluation, and says why."""
        with pytest.raises(Unsure, match=what):
            self.look(at)
