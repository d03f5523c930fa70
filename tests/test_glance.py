"""The cheap look at MLflow: it says the same as MLflow's own client, on a database and on a server."""

from __future__ import annotations

import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import MlflowServer

from tasks.glance import Glance
from tasks.records import Standing
from tasks.stores import Stores


class Mlflow:
    """One model with five versions, of which the third serves and the fourth waits."""

    def __init__(self, uri: str, source: str) -> None:
        self.uri = uri
        self.model = f"m{uuid.uuid4().hex[:8]}"
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self.client.create_registered_model(self.model)
        for _ in range(5):
            self.client.create_model_version(self.model, source=source)
        self.stage("3", "Production")
        self.stage("4", "Staging")
        self.client.set_registered_model_alias(self.model, "champion", "3")
        self.client.set_registered_model_alias(self.model, "challenger", "4")
        self.standing = Standing(model=self.model, seq=3, production="3", staged="4")

    def stage(self, version: str, stage: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated
            self.client.transition_model_version_stage(self.model, version, stage)

    def differs(self, standing: Standing | None = None) -> bool:
        glance = Glance(self.uri)
        found = glance.differs(standing or self.standing)
        assert glance.blind is None
        return found


@pytest.fixture
def local(stores: Stores) -> Mlflow:
    return Mlflow(stores.tracking, str(stores.home))


@pytest.fixture
def served(mlflow_http: MlflowServer) -> Mlflow:
    return Mlflow(mlflow_http.url, "s3://nowhere/files")


@pytest.fixture(params=["local", pytest.param("served", marks=pytest.mark.slow)])
def mlflow(request: pytest.FixtureRequest) -> Mlflow:
    """The same on a database and on a server."""
    made: Mlflow = request.getfixturevalue(request.param)
    return made


CLICKS: dict[str, Callable[[Mlflow], object]] = {
    "a second version in Production": lambda m: m.stage("1", "Production"),
    "another version in Production": lambda m: (m.stage("5", "Production"), m.stage("3", "Archived")),
    "Production archived": lambda m: m.stage("3", "Archived"),
    "Production deleted": lambda m: (m.stage("3", "Archived"), m.client.delete_model_version(m.model, "3")),
    "the alias moved": lambda m: m.client.set_registered_model_alias(m.model, "champion", "1"),
    "the alias gone": lambda m: m.client.delete_registered_model_alias(m.model, "champion"),
    "the candidate promoted": lambda m: m.stage("4", "Production"),
    "the candidate taken out": lambda m: m.stage("4", "None"),
    "the challenger moved": lambda m: m.client.set_registered_model_alias(m.model, "challenger", "1"),
    "the whole model deleted": lambda m: m.client.delete_registered_model(m.model),
}


def test_what_fits_does_not_differ(mlflow: Mlflow) -> None:
    assert not mlflow.differs()
    assert not mlflow.differs(Standing(model=mlflow.model, seq=1, production="3")), "others may use Staging"


@pytest.mark.parametrize("click", CLICKS)
def test_what_was_clicked_differs(mlflow: Mlflow, click: str) -> None:
    CLICKS[click](mlflow)
    assert mlflow.differs()


def test_a_version_promoted_outside_differs_from_a_ledger_in_which_nothing_serves(mlflow: Mlflow) -> None:
    assert mlflow.differs(Standing(model=mlflow.model))
    assert not mlflow.differs(Standing(model="never heard of"))


def test_an_old_version_among_many_is_seen_when_it_is_clicked(served: Mlflow) -> None:
    for _ in range(30):
        served.client.create_model_version(served.model, source="s3://nowhere/files")
    assert not served.differs()
    served.stage("1", "Production")
    assert served.differs()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://127.0.0.1:1", "ConnectionRefusedError"),
        ("sqlite:////nowhere/mlflow.db", "there is no /nowhere/mlflow.db"),
        ("databricks://profile", "MLflow could not be looked at"),
    ],
)
def test_what_cannot_be_looked_at_is_told_and_not_tried_again(uri: str, told: str) -> None:
    glance = Glance(uri)
    assert not glance.differs(Standing(model="churn", seq=1, production="1"))
    assert told in str(glance.blind)
    before = glance.blind
    assert not glance.differs(Standing(model="other"))
    assert glance.blind is before


def test_a_look_makes_no_database_and_tells_no_password(tmp_path: Path) -> None:
    Glance(f"sqlite:///{tmp_path / 'mlflow.db'}").differs(Standing(model="churn"))
    assert list(tmp_path.iterdir()) == []
    glance = Glance("postgresql://ada:s3cret@127.0.0.1:1/mlflow")
    glance.differs(Standing(model="churn"))
    assert glance.blind is not None
    assert "s3cret" not in glance.blind


def test_it_imports_nothing_heavy() -> None:
    heavy = "{'mlflow', 'pandas', 'sklearn', 'prefect', 'numpy', 'requests'}"
    code = f"import sys, tasks.glance; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
