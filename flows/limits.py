"""Limits: how long a flow may take, and when what failed is tried again, after how long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prefect.context import get_run_context
from prefect.exceptions import MissingContextError
from sqlalchemy.exc import DBAPIError, OperationalError

from tasks.database import Busy
from tasks.units import parse_duration

_LONGEST = {"retrain": "6h", "learn": "1h", "watch": "5m", "rollout": "5m", "rollback": "30m", "promote": "30m"}
"""By flow. A tick of the watch or of a rollout that takes longer keeps the next ones out."""

_DELAYS = "5m,5m"

_AWAY = frozenset({"MlflowAway", "ConnectTimeout", "ReadTimeout"})
"""By name: importing MLflow's or an HTTP client's errors would cost the watch its quiet path."""


def longest(flow: str, environment: Mapping[str, str] = os.environ) -> float:
    """Seconds that a run of this flow may take, from BACKSTOP_TIMEOUT_<FLOW> such as ``12h``.

    Raises:
        ValueError: When the variable is no duration above zero.
    """
    name = f"BACKSTOP_TIMEOUT_{flow.upper()}"
    return _seconds(name, environment.get(name) or _LONGEST[flow])


def delays(environment: Mapping[str, str] = os.environ) -> list[float]:
    """Seconds before each further try of a step, from BACKSTOP_RETRY_DELAYS (``5m,5m``; ``off``: no further try).

    Only in a run of a deployment, which nobody sits in front of. Somebody at a terminal wants to know at once.

    Raises:
        ValueError: When the variable is no list of durations.
    """
    try:
        deployed = getattr(getattr(get_run_context(), "flow_run", None), "deployment_id", None)
    except MissingContextError:
        deployed = None
    said = environment.get("BACKSTOP_RETRY_DELAYS") or _DELAYS
    if deployed is None or said.strip() == "off":
        return []
    return [_seconds("BACKSTOP_RETRY_DELAYS", one) for one in said.split(",")]


def passing(error: BaseException) -> bool:
    """Whether this error may be over in some minutes: a server or a network is away, a lock or a slot is taken.

    What is wrong with a policy, with the data or with a decision stays wrong, and whatever is not known here counts as
    that: trying again would only hide it for a while.
    """
    if isinstance(error, OperationalError | ConnectionError | TimeoutError | Busy):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _AWAY) or ("MlflowException" in names and str(error).startswith("API request to"))


def worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's ``retry_condition_fn``: see :func:`passing`."""
    return isinstance(state.data, BaseException) and passing(state.data)


def _seconds(name: str, said: str) -> float:
    try:
        seconds = parse_duration(said.strip()).total_seconds()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if seconds <= 0:
        raise ValueError(f"{name} is {said!r}; it has to be longer than nothing")
    return seconds
