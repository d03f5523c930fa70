"""What the tests share: one Prefect API, one migrated MLflow database to copy, stores in ``tmp_path``; their order."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

os.environ.update(DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true", PREFECT_SERVER_ANALYTICS_ENABLED="false")
# Every client that a flow makes asks the server for its version, and for a token that this one has not.
os.environ.update(PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED="false", PREFECT_CLIENT_CSRF_SUPPORT_ENABLED="false")
# Tests run several processes on few cores: more threads of one model only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing here speaks TLS, but every HTTP client that is made, Prefect's too, first reads the authorities that it would
# believe: with all the world's 20 ms each time, in tests, servers and flow runs; with this one none.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("authority.pem"))

# skops looks for functions in all modules, in the order in which they came: seconds once there are many before these.
import scipy.special  # noqa: F401
from prepared import mlflow_database, prefect_database, prepared
from servers import MlflowServer, NotInstalled, Postgres, mlflow_server, postgres

from tasks import canvas
from tasks.stores import Stores

_AS_THEY_GO_OUT = canvas._png, canvas._DPI, canvas._STYLE["figure.constrained_layout.use"]
_MOST = 8
"""Processes of tests; each has servers of its own, and some hundred megabytes."""

LIVE = "live"
"""Folder of the tests that share one real server with a worker, and mostly wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits comes first, what is short last: one of the processes begins with the former, the others compute."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not _waits(item), item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than there are processors: much of what is tested waits for servers (see :data:`LIVE`)."""
    return min((os.cpu_count() or 1) + 2, _MOST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Files are not taken apart, nor is the folder whose tests share a server."""
    return _Scheduling(config, log)


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return LIVE if Path(file).parent.name == LIVE else file


def _waits(item: pytest.Item) -> bool:
    return item.path.parent.name == LIVE


@pytest.fixture(scope="session", autouse=True)
def unseen_pictures() -> Iterator[None]:
    """Painted, as they always are, but not turned into pixels, which took a seventh of all that flows do in tests."""
    from PIL import Image

    pixel = io.BytesIO()
    Image.new("P", (1, 1)).save(pixel, format="png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "_png", lambda _: pixel.getvalue())
        yield


@pytest.fixture
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pixels, but few, and without the search for the best layout."""
    _drawn(monkeypatch, dpi=50, layout=False)


@pytest.fixture
def fine_pictures(coarse_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they go out, also where a whole file asks for coarse ones."""
    _drawn(monkeypatch, *_AS_THEY_GO_OUT[1:])


def _drawn(monkeypatch: pytest.MonkeyPatch, dpi: int, layout: bool) -> None:
    monkeypatch.setattr(canvas, "_png", _AS_THEY_GO_OUT[0])
    monkeypatch.setattr(canvas, "_DPI", dpi)
    monkeypatch.setitem(canvas._STYLE, "figure.constrained_layout.use", value=layout)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database: its migrations take seconds, a copy of it takes none."""
    return prepared(tmp_path_factory, "mlflow-template", mlflow_database) / "mlflow.db"


@pytest.fixture(scope="session")
def prefect_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh Prefect database, for every server that is not there to show how it begins."""
    return prepared(tmp_path_factory, "prefect-template", prefect_database) / "prefect.db"


@pytest.fixture
def stores(tmp_path: Path, mlflow_template: Path) -> Stores:
    """Everything that lasts, in ``tmp_path``."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    return Stores.at(home)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory, prefect_template: Path) -> Iterator[None]:
    """A real Prefect API on a temporary database; seconds to start, so there is one for the session."""
    from prefect.testing.utilities import prefect_test_harness

    folder = tmp_path_factory.mktemp("prefect")
    shutil.copy(prefect_template, folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        # The harness makes itself a folder and has no other way to be given one with a database in it.
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(folder))
        stack.enter_context(prefect_test_harness(server_startup_timeout=180))
        patch.undo()
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL; every test makes a database of its own in it."""
    try:
        with postgres() as server:
            yield server
    except NotInstalled as missing:
        pytest.skip(f"{missing}")


@pytest.fixture(scope="session")
def mlflow_http(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[MlflowServer]:
    """A real MLflow server with two workers, over HTTP; models of several tests have names of their own in it."""
    folder = tmp_path_factory.mktemp("mlflow-http")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", forked=True) as server:
        yield server


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of the public data sets."""
    folder = os.environ.get("BACKSTOP_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BACKSTOP_TEST_DATA does not point to the public data sets; they are not part of this repository")
    return Path(folder)
