"""What a flow run leaves in Prefect's pages: its name and tags, its report with pictures, the progress of long steps.

All of it comes after the fact and makes things readable. What fails here is a line in the log, and changes no decision.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from tasks import report as reports
from tasks.case import Case
from tasks.places import Places
from tasks.progress import Progress
from tasks.records import Report

if TYPE_CHECKING:
    from prefect import PrefectClient

    from tasks.canvas import Picture

_log = logging.getLogger(__name__)

_PACE = 2.0
"""Seconds between two reports of progress."""
_LINES = 10.0
"""Seconds between two lines about it in the log, which is what a person at a terminal sees."""
_QUIET = frozenset({"kept", "watching", "failed"})
"""Decisions that are told without pictures: nothing happened that one would have to see."""
_TAGS = 5
"""Trails that one flow run is tagged with at most."""


async def label(name: str, trails: Iterable[str] = ()) -> None:
    """Give the flow run its readable name and its trails as tags, in one call.

    What comes every minute calls this first, too, and has no ``flow_run_name``: for the sake of that Prefect makes one
    more client, which reads all certificates, and asks its server where results are kept.

    Args:
        name: From :func:`tasks.report.run_name` or :func:`tasks.report.tick_name`.
        trails: That it is part of.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    run = context.flow_run
    tags = sorted({*run.tags, *(f"trail:{trail}" for trail in list(dict.fromkeys(trails))[:_TAGS])})
    if (run.name, sorted(run.tags)) == (name, tags):
        return
    try:
        # Of an async flow the client is the async one.
        await cast("PrefectClient", context.client).update_flow_run(run.id, name=name, tags=tags)
        run.name, run.tags = name, tags
    except Exception:  # noqa: BLE001  a name that could not be given is no reason to fail
        _log.exception("flow run %s could not be named %r", run.id, name)


async def leave(report: Report, case: Case | None = None) -> None:
    """Leave the report where people look: in Markdown with pictures, and the gate's findings as a table of their own.

    Args:
        report: Of one model.
        case: Whose ledger has the evidence for the pictures; without it there are none.
    """
    model = report.model.lower().replace("_", "-")
    try:
        pictures, run_id = ((), None) if case is None else await asyncio.to_thread(_pictures, report, case)
        text = reports.markdown(
            report, pictures, None if case is None else Places.from_environment(case.stores), run_id
        )
        told = reports.escape(reports.brief(report.line))
        await acreate_markdown_artifact(text, key=f"{report.flow}-{model}", description=told)
        for verdict in report.verdicts:
            if verdict.judge == "gate":
                rows = reports.table_rows(verdict)
                told = reports.escape(reports.brief(reports.line(verdict)))
                await acreate_table_artifact(rows, key=f"gate-{model}", description=told)
    except Exception:  # noqa: BLE001  what was decided stands, in the ledger and in the run's state
        _log.exception("the report of %s could not be left in Prefect", report.model)


def _pictures(report: Report, case: Case) -> tuple[tuple[Picture, ...], str | None]:
    """Of what this very run judged, and the MLflow run of the version that it judged."""
    if report.decision in _QUIET:
        return (), None
    on_trail = tuple(reversed(case.ledger.decisions(case.model, trail=report.trail, limit=200)))
    own = [one for one in on_trail if one.flow_run_id == case.flow_run_id]
    judged = [one.version or report.candidate for one in own if one.verdict.judge != "rollback"]
    version = report.candidate if report.flow != "watch" else next((one for one in judged if one), None)
    run_id = case.ledger.run_of(case.model, version) if version is not None else None
    if report.dry_run or not own:
        return (), run_id
    from tasks.plots import pictures_of  # noqa: PLC0415  what shows no pictures need not import it

    evidence = {one.evidence for one in own}
    drawn = pictures_of(case.ledger, case.model, on_trail, only=evidence)  # the older ones for what became of them
    pictures = tuple(picture for one in own for picture in drawn.get(one.evidence or "", ()))
    # A watch that found nothing wrong does not import MLflow for the sake of a picture.
    if run_id is not None and pictures and (report.flow != "watch" or report.transition is not None):
        _keep(case, run_id, pictures)
    return pictures, run_id


def _keep(case: Case, run_id: str, pictures: tuple[Picture, ...]) -> None:
    from tasks.tracking import log_pictures  # noqa: PLC0415  costs seconds, and only a run that did something needs it

    try:
        log_pictures(case.stores, run_id, pictures)
    except Exception:  # noqa: BLE001  see leave()
        _log.exception("the pictures of %s could not be kept in MLflow run %s", case.model, run_id)


def progress(of: str) -> Progress:
    """To be called from a step's thread with (done, of, what); shows a bar for each thing that takes long.

    What is over within two seconds shows none, and no bar moves more often than that. The run's log, which a terminal
    shows, has a line when a bar begins, at its end, and every ten seconds between.

    Args:
        of: Whose steps they are: a model, or a word for several.
    """
    return _Bars(f"progress-{of.lower().replace('_', '-')}").told


class _Bars:
    """The bars of one step. All but ``told`` happens in the flow's own thread."""

    def __init__(self, key: str) -> None:
        self._key, self._loop = key, asyncio.get_running_loop()
        self._shown: dict[str, uuid.UUID] = {}
        self._said: dict[str, float] = {}
        self._written: dict[str, float] = {}
        self._log = _log if FlowRunContext.get() is None else get_run_logger()
        self._waiting: dict[str, float] = {}
        self._begun: set[str] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._one_by_one = asyncio.Lock()

    def told(self, done: int, total: int, what: str) -> None:
        """How far it is."""
        with suppress(RuntimeError):  # the flow has ended, and nobody looks
            self._loop.call_soon_threadsafe(self._note, 100.0 * min(done / max(total, 1), 1.0), what)

    def _note(self, percent: float, what: str) -> None:
        over, now = percent >= 100, self._loop.time()
        if over and what not in self._begun:
            self._waiting.pop(what, None)  # it took no time that is worth a bar
            return
        due = self._said.setdefault(what, now) + _PACE
        if over or what not in self._waiting:
            self._loop.call_at(now if over else due, self._say, what)
        self._waiting[what] = percent

    def _say(self, what: str) -> None:
        if (percent := self._waiting.pop(what, None)) is not None:
            self._said[what] = now = self._loop.time()
            self._begun.add(what)
            if percent >= 100 or now - self._written.get(what, -math.inf) >= _LINES:
                self._written[what] = now
                self._log.info("%s: %d %%", what, math.floor(percent))  # 100 is the end alone
            if percent >= 100:  # of this time: what is done again under its name begins anew
                self._begun.discard(what)
                del self._said[what], self._written[what]
            telling = self._loop.create_task(_show(self._shown, self._one_by_one, self._key, percent, what))
            self._telling.add(telling)  # the loop itself would forget it
            telling.add_done_callback(self._telling.discard)


async def _show(shown: dict[str, uuid.UUID], one_by_one: asyncio.Lock, key: str, percent: float, what: str) -> None:
    try:
        async with one_by_one:
            if what not in shown:
                shown[what] = await acreate_progress_artifact(min(percent, 100.0), key=key, description=what)
            else:
                await aupdate_progress_artifact(shown[what], min(percent, 100.0))
    except Exception as error:  # noqa: BLE001  see leave()
        _log.warning("progress of %s could not be shown: %s: %s", what, type(error).__name__, error)
