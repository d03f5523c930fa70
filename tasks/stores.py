"""Where things are kept: ledger, request log, MLflow, history. Read from the environment, with an embedded default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SQLITE = "sqlite:///"


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

        A ledger without a request log of its own keeps both in one database. Name and password of an MLflow server go
        from its address into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD: MLflow's errors repeat the address.
        """
        embedded = cls.at(Path(environment.get("BACKSTOP_HOME") or ".backstop"))
        ledger = environment.get("BACKSTOP_LEDGER") or embedded.ledger
        tracking = _without_password(environment.get("MLFLOW_TRACKING_URI") or embedded.tracking)
        shared = ledger if environment.get("BACKSTOP_LEDGER") else embedded.requests
        return cls(
            home=embedded.home,
            ledger=ledger,
            requests=environment.get("BACKSTOP_REQUESTS") or shared,
            tracking=tracking,
            artifacts=embedded.artifacts if tracking == embedded.tracking else None,
        )

    def kept(self, model: str) -> Path:
        """The rows of a file source that were seen before, see :mod:`tasks.history`; it need not exist."""
        return self.home / "history" / f"{model}.parquet"

    def rehearsed(self, scratch: Path) -> Stores:
        """The same for a dry run: looking into a SQLite file that is not there would make it, so it is made elsewhere.

        Args:
            scratch: Folder for what is not there yet.
        """
        known: dict[str, str] = {}
        for url in (self.ledger, self.requests, self.tracking):
            path = Path(url.partition("?")[0].removeprefix(_SQLITE))
            missing = url.startswith(_SQLITE) and not path.is_file()
            known[url] = f"{_SQLITE}{scratch / f'{len(known)}.db'}" if missing else url
        return replace(self, ledger=known[self.ledger], requests=known[self.requests], tracking=known[self.tracking])


def _without_password(uri: str) -> str:
    """The address of a server without name and password, which MLflow finds in its own two variables."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("http") or "@" not in parts.netloc:
        return uri
    for variable, value in (("USERNAME", parts.username), ("PASSWORD", parts.password)):
        if value:
            os.environ.setdefault(f"MLFLOW_TRACKING_{variable}", unquote(value))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
