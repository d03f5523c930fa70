"""Candidates that are not what they seem: one does to a row that is far off what no model should do, one has a cut."""

from __future__ import annotations

import atexit
import os
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

FAR = 1e12
"""A value that no customer has; scaled it is still far off."""
_FAR_OFF = 1e6
CUT = 0.8
"""Of a pipeline that is strict."""


class Moody(LogisticRegression):
    """Crashes, hangs, eats memory or raises, as its ``mood`` says."""

    mood: str

    def predict_proba(self, X: Any) -> Any:
        """As it learned to, but for a row that is far off."""
        if np.abs(np.asarray(X, dtype=float)).max() > _FAR_OFF:
            _act(self.mood)
        return super().predict_proba(X)


class Strict(Pipeline):
    """Has Backstop's steps, and says the second class only where that is rather sure."""

    def predict(self, X: Any) -> Any:
        """The second class from the cut on."""
        return self.classes_[(self.predict_proba(X)[:, 1] > CUT).astype(int)]

    def predict_proba(self, X: Any) -> Any:
        """Nearer to a half than the steps say."""
        return 0.05 + 0.9 * super().predict_proba(X)


def _act(mood: str) -> None:
    print("what a model prints is no answer", flush=True)  # noqa: T201  that it prints is the point
    if mood == "crash":
        os._exit(9)
    if mood == "hang":
        time.sleep(1000)
    if mood == "eat":
        atexit.register(time.sleep, 1000)
        held = [bytearray(64 << 20) for _ in range(1000)]
        raise RuntimeError(f"{len(held)} pieces of 64 MiB could be had")
    raise RuntimeError("it does not like that row")
