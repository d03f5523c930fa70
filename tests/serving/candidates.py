"""Candidates that do to a row that is far off what no model should do, and answer all others as they learned to."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import numpy as np
import skops.io
from mlflow import MlflowClient
from shops import Shop
from sklearn.linear_model import LogisticRegression

from tasks import artifact

FAR = 1e12
"""A value that no customer has; scaled it is still far off."""
_FAR_OFF = 1e6


class Moody(LogisticRegression):
    """Crashes, hangs, eats memory or raises, as its ``mood`` says."""

    mood: str

    def predict_proba(self, X: Any) -> Any:
        """As it learned to, but for a row that is far off."""
        if np.abs(np.asarray(X, dtype=float)).max() > _FAR_OFF:
            _act(self.mood)
        return super().predict_proba(X)


def _act(mood: str) -> None:
    print("what a model prints is no answer", flush=True)  # noqa: T201  that it prints is the point
    if mood == "crash":
        os._exit(9)
    if mood == "hang":
        time.sleep(1000)
    if mood == "eat":
        held = [bytearray(64 << 20) for _ in range(1000)]
        raise RuntimeError(f"{len(held)} pieces of 64 MiB could be had")
    raise RuntimeError("it does not like that row")


def moody(shop: Shop, mood: str) -> str:
    """Register version 1 with a mood; it passed the gate, as far as the ledger knows."""
    folder = shop.home / "made" / mood
    shutil.copytree(shop.artifact("1"), folder)
    path = next(folder.glob("*.skops"))
    model = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    made = Moody()
    made.__dict__.update(model.steps[-1][1].__dict__, mood=mood)
    model.steps[-1] = (model.steps[-1][0], made)
    skops.io.dump(model, path)
    client = MlflowClient(tracking_uri=shop.stores.tracking, registry_uri=shop.stores.tracking)
    version = str(client.create_model_version("churn", folder.as_uri()).version)
    with shop.case().ledger as ledger:
        ledger.describe_external("churn", version, digest=artifact.digest(folder), size=1)
    return version
