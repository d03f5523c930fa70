"""What takes seconds to make and is copied by whoever needs it: made once in a test run, whatever process is first."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def prepared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that all processes of this run share and that nobody changes once it is made.

    Args:
        factory: Of this process.
        name: Of the folder; the same in every process.
        make: Puts something into the empty folder. Where it fails, the next who asks begins anew.
    """
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = common / name, common / f"{name}.made"
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def mlflow_database(folder: Path) -> None:
    """``mlflow.db``: empty, with all migrations."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_registered_models(max_results=1)


def prefect_database(folder: Path) -> None:
    """``prefect.db``: empty, with all migrations, which are more than half of what a server does when it starts."""
    from prefect.server.database import provide_database_interface
    from prefect.server.database.dependencies import temporary_database_interface
    from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    async def migrated() -> None:
        database = provide_database_interface()
        await database.create_db()
        await (await database.engine()).dispose()  # with it the write-ahead log becomes part of the file

    url = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    with temporary_database_interface(), temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: url}):
        asyncio.run(migrated())
