"""Glance: a cheap look at what MLflow has in Production, for the tick that must not import MLflow.

It only tells whether ledger and MLflow differ. What follows is decided by :mod:`tasks.reconcile`, which looks again,
with MLflow's own client and under the lock. A stage that somebody clicks in MLflow's UI is thereby found within a tick,
and not with the next retraining.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tasks.records import Standing

_SECONDS = 3
"""That a server may take to answer: a minute's tick must not wait for it."""

_RECENT = 20
"""Versions that are asked for by when they were changed; a click changes its version last."""

_VERSIONS = text(
    "SELECT version, current_stage FROM model_versions WHERE workspace = 'default' AND name = :model "
    "AND current_stage IN ('Production', 'Staging')"
)
_ALIASES = text("SELECT alias, version FROM registered_model_aliases WHERE workspace = 'default' AND name = :model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """What was seen of one model in MLflow.

    Attributes:
        production: Versions in stage Production.
        staging: Versions in stage Staging.
        aliases: Version by alias.
    """

    production: frozenset[str]
    staging: frozenset[str]
    aliases: Mapping[str, str]


class Glance:
    """Looks at one MLflow for as long as a run takes; after one look that fails it does not try again.

    Attributes:
        blind: Why MLflow cannot be looked at, or None.
    """

    def __init__(self, tracking: str) -> None:
        """Nothing is opened yet.

        Args:
            tracking: MLflow's tracking URI: a database that SQLAlchemy opens, or a server.
        """
        self.blind: str | None = None
        self._tracking = tracking
        self._look: Callable[[str], Sighting] | None = None

    def differs(self, standing: Standing) -> bool:
        """Whether MLflow says something else than the ledger; False where it cannot be looked at."""
        if self.blind is not None:
            return False
        try:
            self._look = self._look or _eye(self._tracking)
            seen = self._look(standing.model)
        except (OSError, ValueError, LookupError, ImportError, SQLAlchemyError, http.client.HTTPException) as error:
            said = str(getattr(error, "orig", None) or error).strip().splitlines() or [""]
            self.blind = f"MLflow could not be looked at: {type(error).__name__}: {said[0]}"
            return False
        return not agrees(seen, standing)


def agrees(seen: Sighting, standing: Standing) -> bool:
    """Whether what was seen is what the ledger says. What others keep in Staging is their own affair."""
    serves = frozenset() if standing.production is None else frozenset({standing.production})
    if seen.production != serves:
        return False
    if standing.production is not None and seen.aliases.get("champion") != standing.production:
        return False
    waits = standing.staged
    return waits is None or (waits in seen.staging and seen.aliases.get("challenger") == waits)


def _eye(tracking: str) -> Callable[[str], Sighting]:
    parts = urlsplit(tracking)
    if parts.scheme in {"http", "https"}:
        return partial(_from_server, tracking)
    return partial(_from_database, _engine(tracking))


def _engine(tracking: str) -> Engine:
    url = make_url(tracking)
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database)).resolve()
        if not path.is_file():
            raise LookupError(f"there is no {path}")
        # Read only: a look must not make a file that is not there, nor wait for a writer.
        return create_engine(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true", poolclass=NullPool)
    return create_engine(url, pool_pre_ping=True)


def _from_database(engine: Engine, model: str) -> Sighting:
    """From the tables of MLflow, whose version is pinned; a test holds them against MLflow's own client."""
    with engine.connect() as connection:
        stages = [(str(row.version), row.current_stage) for row in connection.execute(_VERSIONS, {"model": model})]
        aliases = {row.alias: str(row.version) for row in connection.execute(_ALIASES, {"model": model})}
    return _sighting(stages, aliases)


def _from_server(tracking: str, model: str) -> Sighting:
    """From MLflow's REST API: the newest version in each stage, and the versions that were changed last."""
    known = _get(tracking, "registered-models/get", {"name": model})
    if known is None:
        return _sighting([], {})
    found = known["registered_model"]
    asked = {"filter": f"name='{model}'", "max_results": _RECENT, "order_by": "last_updated_timestamp DESC"}
    recent = _get(tracking, "model-versions/search", asked) or {}
    versions = [*found.get("latest_versions", ()), *recent.get("model_versions", ())]
    stages = [(str(one["version"]), one.get("current_stage", "None")) for one in versions]
    return _sighting(stages, {one["alias"]: str(one["version"]) for one in found.get("aliases", ())})


def _get(tracking: str, what: str, query: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer, or None where MLflow does not know the model.

    Raises:
        LookupError: When it answers with another error.
    """
    parts = urlsplit(tracking)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        path = f"{parts.path.rstrip('/')}/api/2.0/mlflow/{what}?{urlencode(query)}"
        connection.request("GET", path, headers=_credentials())
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status == http.client.NOT_FOUND:
        return None
    if answer.status != http.client.OK:
        raise LookupError(f"the server at {parts.hostname} answered {answer.status} to {what}")
    content: dict[str, Any] = json.loads(body)
    return content


def _credentials() -> dict[str, str]:
    """As MLflow's own client takes them from the environment."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}
    return {}


def _sighting(stages: list[tuple[str, str]], aliases: Mapping[str, str]) -> Sighting:
    return Sighting(
        production=frozenset(version for version, stage in stages if stage == "Production"),
        staging=frozenset(version for version, stage in stages if stage == "Staging"),
        aliases=aliases,
    )
