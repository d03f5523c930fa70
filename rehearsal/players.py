"""The players of a replay: what Backstop has in Production, the first model kept for ever, and one retrained always."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rehearsal.story import Stage
from rehearsal.traffic import serve
from rehearsal.window import Window
from tasks.data import Dataset
from tasks.decide.metrics import measure
from tasks.plugins import custom_metric
from tasks.policy_file import load
from tasks.scoring import classes_of, score
from tasks.training import fit


@dataclass(frozen=True, slots=True)
class Players:
    """All three, on the same rows.

    Attributes:
        stage: The rows and the policy.
        begin: When the first model was made.
    """

    stage: Stage
    begin: datetime

    def serve(self, number: int, start: datetime, end: datetime) -> Window:
        """Answer the rows of a window: Backstop's version into the request log, the others beside it."""
        rows = self.stage.rows.between(start, end).labelled
        case = self.stage.case(end)
        with case.ledger:
            version = str(case.standing().production)
            serve(case, rows, seed=number)
            registry = case.registry()
            served = self._metric(registry.load(case.ledger, case.policy, version), rows)
            first = case.ledger.history(case.model)[0].version
            frozen = self._metric(registry.load(case.ledger, case.policy, first), rows)
        return Window(
            number=number,
            start=start,
            end=end,
            rows=len(rows),
            version=version,
            frozen=frozen,
            served=served,
            every=self._metric(self._retrained(start), rows),
            fired="-",
            decision="",
            gate="-",
        )

    def _retrained(self, moment: datetime) -> Any:
        """Fitted on everything that the policy's lookback reaches, with nothing held out."""
        policy = load(self.stage.policy)
        return fit(policy, self.stage.rows.between(moment - policy.data.lookback, moment).labelled, search=False).model

    def _metric(self, model: Any, rows: Dataset) -> float:
        policy = load(self.stage.policy)
        rule = policy.triggers.performance or policy.gate.performance
        metric = rule.metric if rule else ("r2" if policy.problem == "regression" else "accuracy")
        scores = score(model, rows, classes=classes_of(model, rows, policy))
        return measure(metric, scores, custom=custom_metric(metric)).value
