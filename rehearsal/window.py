"""Window: one stretch of a replay, who served it, how well, and what was decided at its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Window:
    """One row of the table.

    Attributes:
        number: 1, 2, 3 ...
        start: Of the window.
        end: Of the window; the flows run at it.
        rows: Labelled rows in it.
        version: That served them.
        frozen: Metric of the first model.
        served: Metric of what Backstop had in Production.
        every: Metric of a model retrained at the window's start.
        fired: Triggers that fired at its end, with their urgency.
        decision: Of the retrain flow at its end.
        gate: The gate's decision, or empty.
    """

    number: int
    start: datetime
    end: datetime
    rows: int
    version: str
    frozen: float
    served: float
    every: float
    fired: str
    decision: str
    gate: str
