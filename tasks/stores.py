"""Where things are kept: ledger, request log, MLflow, history. Read from the environment, with an embedded default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stores:
    """Addresses of everything that lasts.

    Attributes:
        home: Folder of the embedded defaults and of the kept history of file sources.
        ledger: SQLAlchemy URL of the ledger.
        requests: SQLAlchemy URL of the request log.
        tracking: MLflow tracking and registry URI.
        artifacts: Folder for the artifacts of new experiments; None: the MLflow server decides.
    """

    home: Path
    ledger: str
    requests: str
    tracking: str
    artifacts: Path | None

    @classmethod
    def at(cls, home: Path) -> Stores:
        """The embedded default in one folder, whatever the environment says."""
        home = home.resolve()
        return cls(
            home=home,
            ledger=f"sqlite:///{home / 'ledger.db'}",
            requests=f"sqlite:///{home / 'requests.db'}",
            tracking=f"sqlite:///{home / 'mlflow.db'}",
            artifacts=home / "artifacts",
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Stores:
        """From BACKSTOP_HOME (``.backstop``), BACKSTOP_LEDGER, BACKSTOP_REQUESTS and MLFLOW_TRACKING_URI.

        A ledger without a request log of its own keeps both in one database.
        """
        embedded = cls.at(Path(environment.get("BACKSTOP_HOME") or ".backstop"))
        ledger = environment.get("BACKSTOP_LEDGER") or embedded.ledger
        tracking = environment.get("MLFLOW_TRACKING_URI") or embedded.tracking
        shared = ledger if environment.get("BACKSTOP_LEDGER") else embedded.requests
        return cls(
            home=embedded.home,
            ledger=ledger,
            requests=environment.get("BACKSTOP_REQUESTS") or shared,
            tracking=tracking,
            artifacts=embedded.artifacts if tracking == embedded.tracking else None,
        )
