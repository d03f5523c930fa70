"""MLflow or PostgreSQL goes away in the middle, and comes back: one version in Production, nothing done twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest
from servers import MlflowServer, Postgres, Proxy, proxy

from tasks import database, patience
from tasks.database import Busy, Lost
from tasks.glance import Glance
from tasks.ledger import Ledger
from tasks.patience import MlflowAway
from tasks.reconcile import reconcile
from tasks.records import Finding
from tasks.registry import Registry
from tasks.stores import Stores

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)

WRITES = (b"/model-versions/transition-stage", b"/registered-models/alias", b"/model-versions/set-tag")
"""What a promote writes to MLflow, in this order."""


@dataclass
class Player:
    """One process's doors to the ledger and to MLflow, and a model of its own."""

    stores: Stores
    model: str

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.stores.ledger)
        self.registry = Registry(self.stores)

    def promote(self, version: str) -> None:
        self.registry.move(
            self.ledger,
            self.ledger.standing(self.model),
            action="promote",
            version=version,
            actor="a test",
            reason="it is better",
            at=T0,
            trail=f"t{version}",
        )

    def reconcile(self) -> tuple[Finding, ...]:
        return reconcile(self.registry, self.ledger, self.model, external="repair", at=T0, trail="r")

    def agreed(self, *versions: str) -> None:
        """Each of these was promoted once, and the last one serves; a further reconcile finds nothing."""
        assert self.reconcile() == ()
        view, standing = self.registry.view(self.model), self.ledger.standing(self.model)
        assert (view.production, view.champion) == ((versions[-1],), versions[-1])
        assert (standing.production, standing.pending) == (versions[-1], None)
        assert [(row.version, row.state) for row in self.ledger.history(self.model)] == [
            (version, "applied") for version in versions
        ]


def begun(stores: Stores) -> Player:
    """A model with three versions, the first of them in Production."""
    player = Player(stores, f"m{uuid.uuid4().hex[:8]}")
    client = player.registry._client
    client.create_registered_model(player.model)
    run = client.create_run(client.create_experiment(player.model)).info
    for _ in range(3):
        client.create_model_version(player.model, source=f"{run.artifact_uri}/model", run_id=run.run_id)
    player.promote("1")
    return player


@pytest.fixture
def player(stores: Stores, mlflow_http: MlflowServer) -> Iterator[Player]:
    made = begun(replace(stores, tracking=mlflow_http.url, artifacts=None))
    yield made
    made.ledger.close()


@pytest.fixture
def network(mlflow_http: MlflowServer) -> Iterator[Proxy]:
    with proxy(mlflow_http.port) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


# MLflow.


@pytest.mark.parametrize("write", WRITES)
def test_a_promote_that_mlflow_left_in_the_middle_is_completed_once(
    player: Player, network: Proxy, write: bytes, impatient: None
) -> None:
    caught = Player(replace(player.stores, tracking=network.url), player.model)
    network.refuse(write)
    with caught.ledger, pytest.raises(MlflowAway, match="the next flow completes it"):
        caught.promote("2")
    pending = player.ledger.standing(player.model).pending
    assert pending is not None, "what was begun is known"
    assert pending.version == "2"
    (finding,) = player.reconcile()
    assert "it was completed now and read back" in finding.reason
    player.agreed("1", "2")


def test_a_server_that_is_gone_is_an_error_within_seconds_and_lets_go_of_the_lock(
    player: Player, network: Proxy
) -> None:
    caught = Player(replace(player.stores, tracking=network.url), player.model)
    network.refuse()
    since = time.monotonic()
    with pytest.raises(MlflowAway, match=rf"MLflow at {network.url} did not answer.*See that its server runs"):
        caught.reconcile()
    assert time.monotonic() - since < 60, "MLflow's own values: four minutes"
    network.accept()
    caught.promote("2")
    caught.ledger.close()
    player.agreed("1", "2")


def test_a_server_that_hangs_is_waited_for_as_the_environment_says(
    player: Player, mlflow_http: MlflowServer, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    hang(player, mlflow_http)
    since = time.monotonic()
    with pytest.raises(MlflowAway):
        player.promote("2")
    assert time.monotonic() - since < 14, "without that it were fifteen"
    mlflow_http.thaw()  # and it goes on with what it was told
    player.registry = Registry(player.stores)
    assert len(player.reconcile()) == 1
    player.agreed("1", "2")


def hang(player: Player, server: MlflowServer) -> None:
    """Freeze the server at the first write of the player's next transition."""
    write = player.registry._client.transition_model_version_stage

    def frozen(*rest: Any, **named: Any) -> Any:
        server.freeze()
        return write(*rest, **named)

    player.registry._client.transition_model_version_stage = frozen  # type: ignore[method-assign]


@pytest.mark.slow  # MLflow's server starts anew
def test_a_server_that_was_killed_between_two_calls_and_started_again(
    player: Player, mlflow_http: MlflowServer, impatient: None
) -> None:
    alias = player.registry._client.set_registered_model_alias

    def killed(*rest: Any) -> None:
        mlflow_http.stop()
        alias(*rest)

    player.registry._client.set_registered_model_alias = killed  # type: ignore[method-assign]
    try:
        with pytest.raises(MlflowAway):
            player.promote("2")
    finally:
        mlflow_http.start()
    player.registry = Registry(player.stores)
    assert player.registry.view(player.model).champion == "1", "half of it was done"
    assert len(player.reconcile()) == 1
    player.agreed("1", "2")


def test_patience_is_short_only_inside_and_never_against_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in patience.LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")

    def seen() -> list[str | None]:
        return [os.environ.get(name) for name in patience.LIMITS]

    with patience.little("a"):
        assert seen() == ["99", "2", "1"]
        with patience.little("b"):
            assert seen() == ["99", "2", "1"]
        assert seen() == ["99", "2", "1"]
    assert seen() == ["99", None, None]


# A write that arrives after its writer is dead.


def promote_and_wait(stores: Stores, model: str) -> None:
    Player(stores, model).promote("2")


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Fresh processes that begin with MLflow imported: importing it takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.registry", "mlflow.store.model_registry.sqlalchemy_store"])
    return context


def test_a_write_that_arrives_after_its_writer_was_killed_is_seen_and_put_right(
    player: Player, network: Proxy, processes: ForkServerContext
) -> None:
    network.hold(WRITES[0])
    distant = replace(player.stores, tracking=network.url)
    writer = processes.Process(target=promote_and_wait, args=(distant, player.model))
    writer.start()
    assert network.held.wait(60), "the request is under way"
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join(60)
    assert len(player.reconcile()) == 1
    player.promote("3")
    player.agreed("1", "2", "3")

    network.release()
    assert network.delivered.wait(60)
    late = player.registry.view(player.model)
    assert (late.production, late.champion) == (("2",), "3"), "MLflow does as it is told, however late"
    standing = player.ledger.standing(player.model)
    assert standing.production == "3"
    assert Glance(player.stores.tracking).differs(standing), "the next tick of the watch sees it"
    (finding,) = player.reconcile()
    assert "version 3 was put back" in finding.reason
    player.agreed("1", "2", "3")


# PostgreSQL.


@pytest.fixture
def shared(stores: Stores, postgres_server: Postgres) -> Iterator[Player]:
    """The ledger in PostgreSQL, MLflow in a file."""
    made = begun(replace(stores, ledger=postgres_server.database()))
    yield made
    made.ledger.close()


def kill_before(player: Player, server: Postgres, call: str) -> Callable[[], None]:
    """PostgreSQL dies when the player's registry comes to this call; what undoes that."""
    work = getattr(player.registry, call)

    def killing(*rest: Any) -> Any:
        server.stop(hard=True)
        return work(*rest)

    setattr(player.registry, call, killing)
    return lambda: setattr(player.registry, call, work)


@pytest.mark.parametrize("call", ["serve", "_read_back"], ids=["before MLflow is told", "before it is read back"])
def test_a_ledger_that_dies_while_its_lock_is_held_has_the_intent_when_it_is_back(
    shared: Player, postgres_server: Postgres, call: str
) -> None:
    undo = kill_before(shared, postgres_server, call)
    since = time.monotonic()
    try:
        with pytest.raises(Lost):
            shared.promote("2")
        assert time.monotonic() - since < 60
        with pytest.raises(Lost):
            shared.reconcile()
    finally:
        postgres_server.start()
    undo()
    pending = shared.ledger.standing(shared.model).pending
    assert pending is not None
    assert pending.version == "2"
    assert shared.registry.view(shared.model).production == ("2",), "MLflow was told, and the ledger could not be"
    assert len(shared.reconcile()) == 1
    shared.agreed("1", "2")


def test_a_ledger_that_dies_before_the_intent_leaves_nothing(shared: Player, postgres_server: Postgres) -> None:
    undo = kill_before(shared, postgres_server, "_look_up")
    try:
        with pytest.raises(Lost):
            shared.promote("2")
    finally:
        postgres_server.start()
    undo()
    shared.agreed("1")
    shared.promote("2")
    shared.agreed("1", "2")


def hold_on(stores: Stores, model: str, holding: Any) -> None:
    with Player(stores, model).ledger.holding(model):
        holding.set()
        time.sleep(300)


def test_the_lock_in_postgresql_dies_with_the_process_that_was_killed(
    shared: Player, processes: ForkServerContext
) -> None:
    holding = processes.Event()
    holder = processes.Process(target=hold_on, args=(shared.stores, shared.model, holding))
    holder.start()
    assert holding.wait(60)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join(60)
    since = time.monotonic()
    shared.promote("2")
    assert time.monotonic() - since < 60, "no lease had to expire"
    shared.agreed("1", "2")


def test_a_lock_that_nobody_lets_go_of_is_not_waited_for_for_ever(
    shared: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_ON_POSTGRESQL", ("SET lock_timeout = 200",))
    with shared.ledger.holding(shared.model), Ledger.open(shared.stores.ledger) as other:
        promised = f"the lock of {shared.model} could not be had.*run this one again"
        with pytest.raises(Busy, match=promised), other.holding(shared.model):
            pass
    shared.promote("2")
    shared.agreed("1", "2")


def test_every_connection_to_postgresql_gives_up_waiting_within_a_minute(shared: Player) -> None:
    with shared.ledger._database.reading() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "1min"
