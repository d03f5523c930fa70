"""Patience: how long MLflow's server is waited for by somebody who holds the ledger's lock, or is about to.

MLflow's client tries seven times more: for four minutes when the server is gone, for twenty when it hangs. Everybody
else who wants to move a version would wait as long, and gives up after one minute.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from tasks.database import Full

LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""Seconds, times, and the factor of the pauses between: three tries in at most 50 seconds, less than others wait for
the lock. What the environment says already stays. Outside of :func:`little` MLflow's own values hold: storing a large
artifact may well take a minute."""

_guard = threading.Lock()
_impatient = 0
_set: list[str] = []


class MlflowAway(RuntimeError):
    """MLflow's server cannot be reached, or does not answer."""


@contextmanager
def little(place: str) -> Iterator[None]:
    """Within this block MLflow's client gives up soon.

    Args:
        place: Where MLflow is, for the error.

    Raises:
        MlflowAway: When its server does not answer.
        Full: When it has no room left.
    """
    _enter()
    try:
        yield
    except MlflowException as error:
        told = str(error)
        if Full.told_by(error):
            raise Full(
                f"there is no room left for MLflow at {place}, or its disk is broken; what had been begun stays in the "
                "ledger as intended. Make room on its disk, and run again: the next flow completes it"
            ) from error
        if not told.startswith("API request to"):  # an answer, although not a pleasant one
            raise
        raise MlflowAway(
            f"MLflow at {place} did not answer, so nothing more was changed; what had been begun stays in the ledger "
            "as intended, and the next flow completes it. See that its server runs; MLFLOW_HTTP_REQUEST_TIMEOUT and "
            f"MLFLOW_HTTP_REQUEST_MAX_RETRIES say how long it is waited for. {told}"
        ) from error
    finally:
        _leave()


def _enter() -> None:
    """Set the limits, unless another thread has: MLflow's client reads them from the environment with every request."""
    global _impatient  # noqa: PLW0603  so does everybody in this process
    with _guard:
        _impatient += 1
        if _impatient == 1:
            _set[:] = [name for name in LIMITS if name not in os.environ]
            os.environ.update({name: LIMITS[name] for name in _set})


def _leave() -> None:
    global _impatient  # noqa: PLW0603  see above
    with _guard:
        _impatient -= 1
        if _impatient == 0:
            for name in _set:
                os.environ.pop(name, None)
