"""One shop is made for all tests of the gateway, and copied for each that changes something."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prepared import prepared
from shops import Server, Shop, serving

from serving.loaded import Loader
from tasks.policy_file import load as load_policy


@pytest.fixture(scope="session")
def shop_template(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Shop:
    """Versions 1, 2 and 3 are trained; version 1 is in Production."""

    def make(folder: Path) -> None:
        home = folder / "home"
        home.mkdir()
        shutil.copy(mlflow_template, home / "mlflow.db")
        shop = Shop(home)
        shop.begin()
        for strength in (1.0, 0.5, 0.25):
            shop.train(C=strength)
        shop.move("promote", "1")
        with shop.case().ledger as ledger:  # the copies that a gateway keeps: with them it starts without MLflow
            loader = Loader(load_policy(shop.policy), shop.stores)
            for version in ("1", "2", "3"):
                loader.load(ledger, version)

    return Shop(prepared(tmp_path_factory, "shop", make) / "home")


@pytest.fixture
def shop(shop_template: Shop, tmp_path: Path) -> Shop:
    """A copy of its own."""
    return shop_template.copy(tmp_path / "home")


@pytest.fixture(scope="session")
def gateway(shop_template: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway for the tests that change nothing."""
    with serving(shop_template.copy(tmp_path_factory.mktemp("gateway") / "home")) as server:
        yield server
