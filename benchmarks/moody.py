"""A model that does as another one does while it is tried out, and misbehaves once it is in service."""

from __future__ import annotations

import os
import time
from typing import Any

from sklearn.base import BaseEstimator, ClassifierMixin

_TRIED = 60
"""Answers that it gives as it should: those to the stored example, and those that warm it."""


class Moody(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Asks another model, until its mood comes over it: ``crash``, ``hang`` (and burn the processor) or ``raise``."""

    def __init__(self, model: Any = None, mood: str = "") -> None:
        """Like another one, fitted."""
        self.model, self.mood = model, mood
        self.classes_ = getattr(model, "classes_", None)
        self._asked = 0

    def fit(self, X: Any, y: Any) -> Moody:
        """Fit the other one; a pipeline wants to see that it could."""
        self.model.fit(X, y)
        self.classes_ = self.model.classes_
        return self

    def predict(self, X: Any) -> Any:
        """As the other one does, for a while."""
        self._act()
        return self.model.predict(X)

    def predict_proba(self, X: Any) -> Any:
        """As the other one does, for a while."""
        self._act()
        return self.model.predict_proba(X)

    def _act(self) -> None:
        self._asked = getattr(self, "_asked", 0) + 1
        if self._asked <= _TRIED:
            return
        if self.mood == "crash":
            os._exit(9)
        if self.mood == "raise":
            raise RuntimeError("a bad version")
        end = time.monotonic() + 3600
        while self.mood == "hang" and time.monotonic() < end:
            pass
