"""Two processes that move a model to Production at the same moment: what MLflow holds afterwards, and what the ledger.

``python -m benchmarks.registry_race``: rounds of two processes that wait for each other and then both promote a version
of one model, or one promotes while the other rolls back, through the ledger and the registry as the flows do it. A
round is good when exactly one of them wins and the other is told that its decision is stale, MLflow has exactly that
version in Production and as champion, the ledger says the same, and a rollback that won has quarantined its version.
The peer is MLflow's own ``transition_model_version_stage(..., archive_existing_versions=True)``, called by two
processes in the same way on the same kind of store.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from benchmarks.proof import Line, conclude
from tasks.decide.rollback import choose
from tasks.ledger import Ledger, StaleDecision
from tasks.records import Action, Standing
from tasks.registry import Registry
from tasks.stores import Stores
from tests.servers import mlflow_server, postgres

MODEL = "race"
VERSIONS = ("1", "2", "3", "4")
PATIENCE = 120.0
"""Seconds that a process waits for the other one."""
AT = datetime(2026, 1, 5, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One process's account of one round.

    Attributes:
        number: Of the round.
        did: ``promote`` or ``rollback``.
        version: That it tried to move.
        said: ``won``, ``stale``, or what else it ran into.
        seconds: That the attempt took.
        before: In Production when the round began, to the ledger.
        production: In Production afterwards, to MLflow.
        champion: Afterwards, to MLflow.
        ledger: In Production afterwards, to the ledger.
        quarantined: Afterwards, to the ledger.
    """

    number: int
    did: str
    version: str
    said: str
    seconds: float
    before: str | None = None
    production: tuple[str, ...]
    champion: str | None = None
    ledger: str | None = None
    quarantined: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What came of one kind of race.

    Attributes:
        name: Of the race.
        rounds: Played.
        bad: Rounds that were not as they have to be.
        wins: How often each kind of attempt won.
        seconds: Median of a transition, both processes at it.
        took: Seconds for everything.
        wrong: What was found in the first bad rounds.
    """

    name: str
    rounds: int
    bad: int
    wins: dict[str, int]
    seconds: float
    took: float
    wrong: tuple[str, ...] = ()


# The two processes.


@dataclass(frozen=True, slots=True)
class Player:
    """One process with doors of its own.

    Attributes:
        side: 0 or 1.
        rolls_back: This one rolls back where the other promotes.
    """

    ledger: Ledger
    registry: Registry
    side: int
    rolls_back: bool

    def attempt(self, standing: Standing) -> tuple[Action, str]:
        """What this one will try, and with which version: never the one of the other process, nor what serves."""
        chosen = choose(standing, rollbacks_in_window=0, limit=1).version
        if self.rolls_back:
            return "rollback", str(chosen)
        others = [version for version in VERSIONS if version not in {standing.production, chosen}]
        return "promote", others[0] if standing.known_good else others[self.side]

    def move(self, standing: Standing, action: Action, version: str) -> str:
        """Try it; how it ended."""
        try:
            self.registry.move(
                self.ledger,
                standing,
                action=action,
                version=version,
                actor=f"player {self.side}",
                reason="it is better",
                at=AT,
                trail=f"{action} {version}",
            )
        except StaleDecision:
            return "stale"
        except Exception as error:  # noqa: BLE001  whatever it is, the round is bad and tells it
            return f"{type(error).__name__}: {error}"
        return "won"

    def pardon(self) -> None:
        """Every version may be rolled back to again."""
        standing = self.ledger.standing(MODEL)
        told: dict[str, Any] = {"at": AT, "reason": "next round", "actor": "the race", "trail": "race"}
        for version in standing.quarantined:
            self.ledger.state_fact(MODEL, version, "released", **told)
        for version in set(VERSIONS) - set(standing.known_good):
            self.ledger.state_fact(MODEL, version, "known-good", **told)


def race(stores: Stores, side: int, mixed: bool, rounds: int, barrier: Any, answers: Any) -> None:
    """One process's part in all rounds."""
    with Ledger.open(stores.ledger) as ledger:
        player = Player(ledger, Registry(stores), side, rolls_back=mixed and side == 1)
        for number in range(rounds):
            if mixed and side == 0:
                player.pardon()
            barrier.wait(PATIENCE)
            standing = ledger.standing(MODEL)
            did, version = player.attempt(standing)
            barrier.wait(PATIENCE)
            begun = time.perf_counter()
            said = player.move(standing, did, version)
            seconds = time.perf_counter() - begun
            barrier.wait(PATIENCE)
            view, after = player.registry.view(MODEL), ledger.standing(MODEL)
            answers.put(
                Account(
                    number=number,
                    did=did,
                    version=version,
                    said=said,
                    seconds=seconds,
                    before=standing.production,
                    production=view.production,
                    champion=view.champion,
                    ledger=after.production,
                    quarantined=after.quarantined,
                )
            )
            barrier.wait(PATIENCE)


def race_raw(stores: Stores, side: int, _: bool, rounds: int, barrier: Any, answers: Any) -> None:
    """The same with nothing but MLflow."""
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    for number in range(rounds):
        serving = _in_production(client)
        version = [version for version in VERSIONS if version not in serving][side]
        barrier.wait(PATIENCE)
        begun = time.perf_counter()
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # stages are deprecated
                client.transition_model_version_stage(MODEL, version, "Production", archive_existing_versions=True)
            said = "won"
        except Exception as error:  # noqa: BLE001  whatever it is, it is counted
            said = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - begun
        barrier.wait(PATIENCE)
        production = _in_production(client)
        answers.put(
            Account(number=number, did="raw", version=version, said=said, seconds=seconds, production=production)
        )
        if len(production) > 1 and side == 0:  # every round begins with one
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                client.transition_model_version_stage(MODEL, production[0], "Archived")
        barrier.wait(PATIENCE)


def _in_production(client: MlflowClient) -> tuple[str, ...]:
    found = client.search_model_versions(f"name='{MODEL}'")
    return tuple(str(one.version) for one in found if one.current_stage == "Production")


# The referee.


def prepare(stores: Stores) -> None:
    """A model with its versions, the first of them in Production."""
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    client.create_registered_model(MODEL)
    run = client.create_run(client.create_experiment(MODEL)).info
    for _ in VERSIONS:
        client.create_model_version(MODEL, source=f"{run.artifact_uri}/model", run_id=run.run_id)
    with Ledger.open(stores.ledger) as ledger:
        first = Player(ledger, Registry(stores), 0, rolls_back=False)
        said = first.move(ledger.standing(MODEL), "promote", "1")
    if said != "won":
        raise RuntimeError(f"version 1 could not be promoted before the race: {said}")


def compete(name: str, stores: Stores, rounds: int, *, mixed: bool = False, raw: bool = False) -> Score:
    """Let two processes play, and judge every round.

    Args:
        name: Of the race.
        stores: As :func:`prepare` left them.
        rounds: To play.
        mixed: The second process rolls back.
        raw: Without Backstop.

    Raises:
        RuntimeError: When a process ended before its last round.
    """
    context = multiprocessing.get_context("forkserver")
    # Fresh processes that begin with MLflow imported: importing it takes seconds.
    context.set_forkserver_preload(["tasks.registry", "mlflow.store.model_registry.sqlalchemy_store"])
    barrier, answers = context.Barrier(2), context.Queue()
    begun = time.perf_counter()
    part = race_raw if raw else race
    both = [context.Process(target=part, args=(stores, side, mixed, rounds, barrier, answers)) for side in (0, 1)]
    for one in both:
        one.start()
    accounts = [answers.get(timeout=PATIENCE) for _ in range(2 * rounds)]
    for one in both:
        one.join(PATIENCE)
        if one.exitcode != 0:
            raise RuntimeError(f"a process of the race {name} ended with {one.exitcode}; see what it printed")
    return _judged(name, accounts, fault_raw if raw else fault, time.perf_counter() - begun)


def _judged(name: str, accounts: list[Account], find: Callable[[list[Account]], str], took: float) -> Score:
    rounds: dict[int, list[Account]] = {}
    for account in accounts:
        rounds.setdefault(account.number, []).append(account)
    faults = {number: told for number, pair in sorted(rounds.items()) if (told := find(pair))}
    won = [account for account in accounts if account.said == "won"]
    return Score(
        name=name,
        rounds=len(rounds),
        bad=len(faults),
        wins={did: sum(account.did == did for account in won) for did in sorted({one.did for one in accounts})},
        seconds=statistics.median(account.seconds for account in won) if won else float("nan"),
        took=took,
        wrong=tuple(f"round {number}: {told}" for number, told in faults.items())[:3],
    )


def fault(pair: list[Account]) -> str:
    """What is wrong with a round, or nothing."""
    if sorted(account.said for account in pair) != ["stale", "won"]:
        return f"one had to win and the other to be stale: {[account.said for account in pair]}"
    winner = next(account for account in pair if account.said == "won")
    quarantined = (winner.before,) if winner.did == "rollback" else ()
    for seen in pair:
        if (seen.production, seen.champion, seen.ledger) != ((winner.version,), winner.version, winner.version):
            return (
                f"{winner.did} of {winner.version} won, and MLflow has {seen.production} in Production, champion "
                f"{seen.champion}, the ledger {seen.ledger}"
            )
        if seen.quarantined != quarantined:
            return f"{winner.did} of {winner.version} won, and quarantined are {seen.quarantined}"
    return ""


def fault_raw(pair: list[Account]) -> str:
    """The same for the peer, of whom nothing is asked but one version in Production."""
    return "" if all(len(seen.production) == 1 for seen in pair) else f"Production has {pair[0].production}"


# The places.


@contextmanager
def embedded() -> Iterator[Stores]:
    """Ledger and MLflow in SQLite files."""
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        stores = Stores.at(Path(folder))
        prepare(stores)
        yield stores


@contextmanager
def served(url: str, ledger: str | None = None) -> Iterator[Stores]:
    """MLflow behind HTTP, the ledger in SQLite or where this says."""
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        stores = replace(Stores.at(Path(folder)), tracking=url, artifacts=None)
        stores = replace(stores, ledger=ledger) if ledger else stores
        prepare(stores)
        yield stores


def play(asked: argparse.Namespace) -> Iterator[Score]:
    """All races, one after the other."""
    with embedded() as stores:
        yield compete("promote | promote, SQLite", stores, asked.rounds)
    with embedded() as stores:
        yield compete("promote | rollback, SQLite", stores, asked.rollback_rounds, mixed=True)
    with embedded() as stores:
        yield compete("raw MLflow, SQLite", stores, asked.peer_rounds, raw=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="race-")))
        ledger = stack.enter_context(postgres()).database() if asked.postgres else None
        server = stack.enter_context(mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts"))
        stores = stack.enter_context(served(server.url, ledger))
        kind = f"HTTP{', PostgreSQL' if ledger else ''}"
        yield compete(f"promote | promote, {kind}", stores, asked.http_rounds)
        yield compete(f"promote | rollback, {kind}", stores, asked.rollback_rounds, mixed=True)
        yield compete("raw MLflow, HTTP", stores, asked.peer_rounds, raw=True)


def main() -> None:
    """Run it and print a table and the JSON line.

    Raises:
        SystemExit: 1 when any round was bad.
    """
    parser = argparse.ArgumentParser(description="Two processes at once: one Production version, every time.")
    parser.add_argument("--rounds", type=int, default=1000, help="two promotes, SQLite")
    parser.add_argument("--http-rounds", type=int, default=200, help="two promotes, MLflow's server with two workers")
    parser.add_argument("--rollback-rounds", type=int, default=200, help="promote against rollback, on either")
    parser.add_argument("--peer-rounds", type=int, default=60, help="MLflow alone, on either")
    parser.add_argument("--postgres", action="store_true", help="keep the ledger of the HTTP rounds in PostgreSQL")
    scores: list[Score] = []
    print(f"{'race':34} {'rounds':>6} {'bad':>5} {'s/transition':>12} {'s':>6}  wins")
    for score in play(parser.parse_args()):
        scores.append(score)
        wins = ", ".join(f"{did} {count}" for did, count in score.wins.items())
        print(f"{score.name:34} {score.rounds:6} {score.bad:5} {score.seconds:12.3f} {score.took:6.0f}  {wins}")
        print(*(f"    {told}" for told in score.wrong), sep="\n", end="\n" if score.wrong else "", flush=True)
    lines = [
        Line(
            what=f"{score.name}: bad rounds",
            value=score.bad,
            limit=None if "raw" in score.name else 0,
            told=f"of {score.rounds:,}; {1000 * score.seconds:.0f} ms a transition",
        )
        for score in scores
    ]
    raise SystemExit(conclude("registry_race", lines, rows=True))


if __name__ == "__main__":
    main()
