"""Suspended runs that ask a person: found by their tags, and ended when the ledger says that there is nothing to ask.

This only tidies up. What was asked, answered and decided is in the ledger, and nothing here is needed to be right.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Completed

from tasks import approval
from tasks.case import Case

FLOW = "approve"
"""Name of the flow whose runs wait."""

_log = logging.getLogger(__name__)


def tag(model: str, version: str) -> str:
    """On a run that asks about a version; the same name as the version has in events."""
    return f"backstop.model-version.{model}.{version}"


async def mark(run: FlowRun, model: str, version: str) -> None:
    """Put the tag on a run, beside those that it has."""
    async with get_client() as client:
        tags = {*(await client.read_flow_run(run.id)).tags, "backstop", model, tag(model, version)}
        name = f"approve {model}: version {version} waits for an answer"
        await client.update_flow_run(run.id, name=name, tags=sorted(tags))
    run.name, run.tags = name, sorted(tags)


async def waiting() -> list[FlowRun]:
    """Runs that wait for a person's answer."""
    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    async with get_client() as client:
        return await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])), flow_run_filter=paused, limit=200
        )


async def asks_already(model: str, version: str) -> FlowRun | None:
    """Another run that asks about the same version and can be answered; None when there is none."""
    async with get_client() as client:
        for run in await waiting():
            keys = run.state.state_details.run_input_keyset if run.state else None
            if tag(model, version) not in run.tags or not keys:
                continue
            # A run that was killed between the two has the state and no form: nobody can answer it.
            if await client.filter_flow_run_input(run.id, keys["schema"], 1, set()):
                return run
    return None


@dataclass
class Tidy:
    """Ends runs that ask what is answered. They are looked up once per tick, on first use."""

    _runs: list[FlowRun] | None = field(default=None)

    async def __call__(self, case: Case) -> None:
        """End those of one model; a server that does not answer is no reason to fail."""
        if case.policy.approval is None or case.dry_run:
            return
        try:
            await self._end(case)
        except Exception:  # noqa: BLE001  see the module: it can wait for the next tick, the ledger has said it
            _log.warning("the runs that ask about %s could not be tidied up", case.model, exc_info=True)

    async def _end(self, case: Case) -> None:
        if self._runs is None:
            self._runs = await waiting()
        prefix = tag(case.model, "")
        asking = {one.removeprefix(prefix): run for run in self._runs for one in run.tags if one.startswith(prefix)}
        standing = case.standing()
        asked = approval.question(case, standing)
        for version, run in asking.items():
            if asked is None or asked.version != version:
                name = "Expired" if case.ledger.has_fact(case.model, version, "expired") else "Answered"
                await _end(run.id, name, approval.became(case, standing, version))


async def _end(run_id: UUID, name: str, message: str) -> None:
    async with get_client() as client:
        state = (await client.read_flow_run(run_id)).state
        if state is not None and state.is_paused():  # a person may have resumed it in this moment; it looks by itself
            await client.set_flow_run_state(run_id, Completed(name=name, message=message))
