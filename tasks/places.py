"""Places: addresses of the pages where a run or a version can be looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit

from tasks.stores import Stores


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where the pages of MLflow and Prefect are.

    Attributes:
        mlflow: Address without a slash at its end; None when no server is known.
        prefect: The same of Prefect.
    """

    mlflow: str | None = None
    prefect: str | None = None

    @classmethod
    def from_environment(cls, stores: Stores, environment: Mapping[str, str] = os.environ) -> Self:
        """BACKSTOP_MLFLOW_UI, or MLFLOW_TRACKING_URI where it is a server; PREFECT_UI_URL, or PREFECT_API_URL."""
        api = environment.get("PREFECT_API_URL", "").rstrip("/").removesuffix("/api")
        return cls(
            mlflow=_page(environment.get("BACKSTOP_MLFLOW_UI") or stores.tracking),
            prefect=_page(environment.get("PREFECT_UI_URL") or api),
        )

    def run(self, run_id: str) -> str | None:
        """Of an MLflow run."""
        return self.mlflow and f"{self.mlflow}/#/runs/{quote(run_id)}"

    def version(self, model: str, version: str) -> str | None:
        """Of a registered version."""
        return self.mlflow and f"{self.mlflow}/#/models/{quote(model)}/versions/{quote(version)}"

    def flow_run(self, flow_run_id: str) -> str | None:
        """Of a flow run."""
        return self.prefect and f"{self.prefect}/runs/flow-run/{quote(flow_run_id)}"


def _page(url: str) -> str | None:
    """An address that a person may be shown: of a server, without name, password and query."""
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
