"""Online learning, killed before and after everything that it puts into the ledger: each piece of feedback once."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from scene import Scene, day
from stream import directly, policy
from test_learn import FULL, full_scene, stream_scene

from benchmarks.crash_matrix import Nursery
from benchmarks.killing import Doom, fork
from tasks import feedback
from tasks.case import open_case
from tasks.policy_file import load

__all__ = ["full_scene", "stream_scene"]

MINE = re.compile(
    r"ledger: (INSERT INTO backstop_(versions|lessons|decisions|transitions)|UPDATE backstop_transitions)"
)
"""What the flow itself puts down; everything else in the ledger goes with one of these."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found after a process had died and another one had come after it.

    Attributes:
        name: Of the boundary.
        killed: The process was.
        wrong: Why the second process failed, or nothing.
        lessons: (version, requests) of all that were put down.
        learned: Requests that the version in Production has learned, each as often as it is there.
        pending: Requests that can be learned or judged by.
        production: Versions in Production in MLflow.
        third: What a third run came to.
    """

    name: str
    killed: bool
    wrong: str
    lessons: int = 0
    learned: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    production: tuple[str, ...] = ()
    third: str = ""


def act(home: Path, doom: Doom | None) -> list[str]:
    """One run of the flow, without what it leaves in Prefect."""
    from flows.learn import _learn

    os.environ["BACKSTOP_HOME"] = str(home)
    if doom is not None:
        doom.put_on()
    case = open_case(load(policy(Scene(home))), actor="flows.learn", now=day(FULL))
    with case.ledger:
        report, _ = asyncio.run(_learn(case))
    return [report.decision] if doom is None else doom.seen


def picture(home: Path) -> dict[str, Any]:
    """The next run, what is there after it, and a third one."""
    act(home, None)
    scene = Scene(home)
    case = open_case(load(policy(scene)), actor="a test", now=day(FULL))
    with case.ledger as ledger:
        standing = ledger.standing("churn")
        lessons = ledger.lessons("churn", since=day(0))
        line = feedback.lineage(lessons, str(standing.production))
        learned = [one for lesson in lessons if lesson.version in line for one in lesson.requests]
        left = feedback.pending(case, standing).usable
        assert ledger.misfits("churn") == ()
        assert standing.pending is None
        assert standing.staged is None
    return {
        "lessons": len(lessons),
        "learned": learned,
        "pending": [one.request_id for one in left],
        "production": list(scene.view.production),
        "third": act(home, None)[0],
    }


def killed(template: Path, folder: Path) -> Iterator[Seen]:
    """In the nursery: killed at each boundary, and every time somebody comes after."""
    for name in ("learn", "follow", "steps"):
        import_module(f"flows.{name}").step = directly  # type: ignore[attr-defined]
    kinds = frozenset({"write", "commit"})
    counted = Scene(template).copy(folder / "counted")
    first = fork(partial(counted_act, counted.home, Doom(None, kinds)), folder).end()
    if first.answer is None:
        raise RuntimeError(f"the run that nobody kills came to no end: {first.error or first.signal}")
    names, modules = first.answer
    for name in modules:
        with suppress(Exception, SystemExit):  # some of what was imported there cannot be imported by itself
            import_module(name)  # and whoever is forked from now on need not
    for number in boundaries(names):
        home = Scene(template).copy(folder / str(number)).home
        fate = fork(partial(act, home, Doom(number, kinds)), folder).end()
        after = fork(partial(picture, home), folder).end()
        said = {key: tuple(value) if isinstance(value, list) else value for key, value in (after.answer or {}).items()}
        yield Seen(names[number], fate.signal == signal.SIGKILL, fate.error + after.error, **said)


def counted_act(home: Path, doom: Doom) -> tuple[list[str], list[str]]:
    """The boundaries of a run to its end and after it, and everything that was imported for that."""
    names = list(act(home, doom))
    picture(home)
    return names, [name for name in sys.modules if name.partition(".")[0] not in {"__main__", "__mp_main__"}]


def boundaries(names: list[str]) -> list[int]:
    """Before each thing of its own that it puts down, and right after that was committed.

    Deaths with the same commits behind them leave the same to whoever comes after: two things in one transaction, or
    the end of one transaction and the next one before it is committed. Of these the latest is taken, with most undone.
    """
    chosen: dict[int, int] = {}
    committed = 0
    mine = False
    for number, name in enumerate(names):
        if name == "after a commit":
            committed += 1
            if mine:
                chosen[committed] = number
            mine = False
        elif MINE.match(name):
            chosen[committed] = number
            mine = True
    return sorted(chosen.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_api")
def test_killed_anywhere_each_piece_of_feedback_is_learned_once_or_pending(full_scene: Scene, tmp_path: Path) -> None:
    found: list[Any] = list(Nursery(killed, full_scene.home, tmp_path))
    assert len(found) >= 8, "before and after: the decision, the version with its lesson, the gate, the transitions"
    assert [one.name for one in found if one.wrong] == [], next((one.wrong for one in found if one.wrong), "")
    assert all(one.killed for one in found)
    everything = {*found[0].learned, *found[0].pending}
    begun_anew = 0
    for one in found:
        assert len(one.learned) == len(set(one.learned)), one.name
        assert set(one.learned) & set(one.pending) == set(), one.name
        assert {*one.learned, *one.pending} == everything, one.name
        assert len(one.learned) >= 50, one.name
        assert len(one.production) == 1, one.name
        assert one.third == "kept", one.name
        begun_anew += one.lessons > 1
    assert begun_anew >= 1, "some died between the lesson and the transition, and the feedback was pending again"
