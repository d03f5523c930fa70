"""Processes killed at every boundary and at random moments: what the next run leaves of it.

``python -m benchmarks.crash_matrix [--kills 200 --flows --reads]``. Every act on a model (stage, promote, roll back,
reject, and what every flow begins with: reconcile) is done in a process of its own, which is ended by SIGKILL at its
k-th boundary, for every k. A second process comes after it as the next flow would. Then there has to be one version in
Production, the same for MLflow, its aliases and the ledger; nothing pending; no transition twice or half done; and
everything has to be either as if the act had never begun, or as if nobody had died. Whoever comes third must find
nothing to do. After that, kills at random moments, in every other trial while two processes act at once; with
``--flows`` the real flows.

The peer is a script that moves a version with MLflow's client (stage, alias, tag), killed in the same way.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from mlflow import MlflowClient

from benchmarks.acts import ACTS, MODEL, RACE, ROLL_BACK, VERSIONS, Act, Actor
from benchmarks.crash_site import Place, come_after, contest, perform, somewhere
from benchmarks.killing import CHANGES, EVERYTHING, Child, Doom, Fate, fork
from benchmarks.proof import Line, conclude
from tasks.stores import Stores

TAG = "serves"


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What came of one act.

    Attributes:
        name: Of the act.
        boundaries: That it has; 0 for kills at random moments.
        kills: Processes that were killed in the middle.
        bad: Kills after which something was wrong.
        begun: Kills after which the act was found begun, and was completed or given up.
        wrong: What, for the first ones.
        took: Seconds.
    """

    name: str
    boundaries: int
    kills: int
    bad: int
    begun: int
    wrong: tuple[str, ...]
    took: float


# Kills.


def every_boundary(
    place: Place,
    act: Act,
    kinds: frozenset[str] = CHANGES,
    *,
    chosen: Sequence[int] | Callable[[list[str]], Sequence[int]] | None = None,
) -> Score:
    """Kill at every boundary of an act, or at those that are chosen (numbers from the end are negative).

    What chooses may be a function of the names of the boundaries.
    """
    begun_at = time.perf_counter()
    place.before(act)
    before = place.do(partial(come_after, place.stores, act))
    place.before(act)
    boundaries = place.do(partial(perform, place.stores, act, Doom(None, kinds)))
    after = place.do(partial(come_after, place.stores, act))
    wrong = [f"nobody died: {told}" for told in (*before["faults"], *after["faults"])]
    tally = {"kills": 0, "begun": 0}
    numbers = chosen(boundaries) if callable(chosen) else range(len(boundaries)) if chosen is None else chosen
    for number in [one % len(boundaries) for one in numbers]:
        known = place.before(act)
        fate = fork(partial(perform, place.stores, act, Doom(number, kinds)), place.folder).end()
        told = place.do(partial(come_after, place.stores, act))
        begun = told["found"] > known
        tally["kills"] += fate.signal == signal.SIGKILL
        tally["begun"] += begun
        expected = (after if begun else before)["picture"]
        if faults := [*_died(fate), *told["faults"], *differences(told["picture"], expected)]:
            wrong.append(f"killed {boundaries[number]} (boundary {number}): {'; '.join(faults)}")
    took = time.perf_counter() - begun_at
    return Score(name=act.name, boundaries=len(boundaries), bad=len(wrong), wrong=tuple(wrong[:3]), took=took, **tally)


def _died(fate: Fate) -> Iterator[str]:
    if fate.signal != signal.SIGKILL:
        yield f"it was not killed: {fate.error or 'it came to its end'}"


def differences(found: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    """Where a picture is neither as before nor as after."""
    for what, value in expected.items():
        if found[what] != value:
            yield f"{what} should be {value} and is {found[what]}"


def random_moments(place: Place, acts: Sequence[Act], kills: int, *, seed: int) -> Score:
    """Kill so many processes at moments drawn from an act's own duration; every other time two act at once."""
    begun_at, draw = time.perf_counter(), random.Random(seed)
    spans = {act.name: _duration(place, act) for act in (*acts, RACE)}
    wrong: list[str] = []
    killed = begun = tried = 0
    while killed < kills and tried < 5 * kills:
        act = RACE if tried % 2 else acts[tried // 2 % len(acts)]
        tried += 1
        known = place.before(act)
        after = draw.uniform(0, spans[act.name])
        fates = _killed_after(place, act, after, victim=draw.randrange(2))
        told = place.do(partial(come_after, place.stores, act))
        killed += any(fate.signal == signal.SIGKILL for fate in fates)
        begun += told["found"] > known
        if faults := [*told["faults"], *(fate.error for fate in fates if fate.error)]:
            wrong.append(f"{act.name}, killed after {after:.3f} s: {'; '.join(faults)}")
    took = time.perf_counter() - begun_at
    if killed < kills:
        wrong.append(f"only {killed} of {kills} processes were killed in {tried} trials")
    return Score(
        name="random moments",
        boundaries=0,
        kills=killed,
        bad=len(wrong),
        begun=begun,
        wrong=tuple(wrong[:3]),
        took=took,
    )


def _duration(place: Place, act: Act) -> float:
    place.before(act)
    start = time.monotonic()
    place.do(partial(perform, place.stores, act, None))
    return time.monotonic() - start


def _killed_after(place: Place, act: Act, seconds: float, *, victim: int) -> list[Fate]:
    """One process, or in the race two, of which one is killed; the other one has to come to its end."""
    works: list[Callable[[], Any]] = [partial(perform, place.stores, act, None)]
    if act is RACE:
        works = [
            partial(contest, place.stores, name, action)
            for name, action in (("actor", RACE.action), ("actor", ROLL_BACK.action))
        ]
    children: list[Child] = [fork(work, place.folder) for work in works]
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        children[victim % len(children)].kill()
    return [child.end() for child in children]


# The peer.


def raw(place: Place, kinds: frozenset[str] = CHANGES) -> Score:
    """A script that moves a version with MLflow's client; nobody comes after it."""
    begun_at = time.perf_counter()
    bare = Act("raw MLflow", lambda actor: _raw(actor.case.stores, VERSIONS[0]), Actor.reconcile)
    place.before(bare)
    boundaries = place.do(partial(_doomed_raw, place.stores, Doom(None, kinds)))
    wrong = []
    for number, name in enumerate(boundaries):
        place.before(bare)
        fork(partial(_doomed_raw, place.stores, Doom(number, kinds)), place.folder).end()
        told = place.do(partial(_seen_raw, place.stores))
        if told not in ([["1"], "1", ["1"]], [["2"], "2", ["2"]]):
            wrong.append(f"killed {name}: Production {told[0]}, champion {told[1]}, tagged {told[2]}")
    return Score(
        name=bare.name,
        boundaries=len(boundaries),
        kills=len(boundaries),
        bad=len(wrong),
        begun=0,
        wrong=tuple(wrong[:3]),
        took=time.perf_counter() - begun_at,
    )


def _doomed_raw(stores: Stores, doom: Doom) -> list[str]:
    doom.put_on()
    _raw(stores, VERSIONS[1])
    return doom.seen


def _raw(stores: Stores, version: str) -> None:
    """As such scripts are written: the stage, the alias, and a tag that tells which one serves."""
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    before = client.get_registered_model(MODEL).aliases.get("champion")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated
        client.transition_model_version_stage(MODEL, version, "Production", archive_existing_versions=True)
    client.set_registered_model_alias(MODEL, "champion", version)
    client.set_model_version_tag(MODEL, version, TAG, "yes")
    if before is not None:
        client.set_model_version_tag(MODEL, str(before), TAG, "no")


def _seen_raw(stores: Stores) -> list[Any]:
    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    found = sorted(client.search_model_versions(f"name='{MODEL}'"), key=lambda one: int(one.version))
    champion = client.get_registered_model(MODEL).aliases.get("champion")
    serving = [str(one.version) for one in found if one.current_stage == "Production"]
    return [serving, champion and str(champion), [str(one.version) for one in found if one.tags.get(TAG) == "yes"]]


# All of it.


def matrix(kinds: frozenset[str], kills: int, seed: int) -> Iterator[Score]:
    """The long form: every boundary of every act, then random moments, then the peer."""
    with somewhere() as place:
        for act in ACTS:
            yield every_boundary(place, act, kinds)
        yield random_moments(place, ACTS, kills, seed=seed)
        yield raw(place, kinds)


class Nursery:
    """A process with one thread, which may fork; whoever asks for it may have many, and go on meanwhile."""

    def __init__(self, scores: Callable[..., Iterator[Score]], *given: Any) -> None:
        """Start it.

        Args:
            scores: Is called in it.
            given: To that, as plain values.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tasks.registry", "mlflow.store.model_registry.sqlalchemy_store"])
        self._here, there = context.Pipe(duplex=False)
        self._process = context.Process(target=_nursery, args=(there, scores, given))
        self._process.start()
        there.close()

    def __iter__(self) -> Iterator[Score]:
        """The scores, as they come.

        Raises:
            RuntimeError: When the process cannot go on, with its traceback.
            EOFError: When it ends without a word.
        """
        try:
            while True:
                score, wrong = self._here.recv()
                if wrong:
                    raise RuntimeError(f"the nursery cannot go on: {wrong}")
                if score is None:
                    return
                yield score
        finally:
            self._here.close()
            self._process.join()


def _nursery(there: Connection, scores: Callable[..., Iterator[Score]], given: tuple[Any, ...]) -> None:
    try:
        for score in scores(*given):
            there.send((score, ""))
        there.send((None, ""))
    except BaseException:  # noqa: BLE001  told to whoever waits for the scores
        there.send((None, traceback.format_exc()))


def main() -> None:
    """Run it and print a table and the JSON line.

    Raises:
        SystemExit: 1 when anything was wrong after any kill.
    """
    parser = argparse.ArgumentParser(description="Killed anywhere: one Production, and nothing done twice or by half.")
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument("--seed", type=int, default=20260105)
    parser.add_argument("--reads", action="store_true", help="before every statement that reads too; takes four times")
    parser.add_argument("--flows", action="store_true", help="kill the real flows too, at every boundary")
    asked = parser.parse_args()
    scores: list[Score] = []
    print(f"{'act':34} {'boundaries':>10} {'kills':>6} {'survived':>8} {'begun':>6} {'s':>6}")
    for score in _all(asked):
        scores.append(score)
        survived = f"{score.kills - score.bad:8} {score.begun:6} {score.took:6.0f}"
        print(f"{score.name:34} {score.boundaries:10} {score.kills:6} {survived}")
        print(*(f"    {told}" for told in score.wrong), sep="\n", end="\n" if score.wrong else "", flush=True)
    lines = [
        Line(
            what=f"{score.name}: kills after which anything is wrong",
            value=score.bad,
            limit=None if "raw" in score.name else 0,
            told=f"of {score.kills:,}" + (f", at {score.boundaries:,} boundaries" if score.boundaries else ""),
        )
        for score in scores
    ]
    raise SystemExit(conclude("crash_matrix", lines, rows=True))


def _all(asked: argparse.Namespace) -> Iterator[Score]:
    yield from Nursery(matrix, EVERYTHING if asked.reads else CHANGES, asked.kills, asked.seed)
    if asked.flows:
        from benchmarks.killed_flows import under_api  # noqa: PLC0415  imports Prefect, which the rest does without

        yield from under_api()


if __name__ == "__main__":
    main()
