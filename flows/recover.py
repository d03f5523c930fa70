"""Start a run that crashed once more, with the same parameters.

Requires: a Prefect server. Started by an automation (automations/recover.yaml), or by a person with the id of the run.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import State
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed
from pydantic import Field

from flows.form import explained

SECOND = "second-try"
"""Tag of a run that was started because another one crashed."""

_ONCE = {
    "rollback": "a second rollback would go one version further; see what serves, and ask for it again",
    "promote": "see what serves, and ask for it again",
    "watch": "the next tick looks again by itself",
    "rollout": "the next tick looks again by itself",
    "learn": "the next run looks again by itself, and learns what this one did not",
    "recover": "see the run that it was for, and start that one again",
}


class NotRepeated(RuntimeError):
    """The run is not started again; a person has to look."""


@flow(name="recover", flow_run_name="recover {flow_run_id}")
@explained
async def recover(
    flow_run_id: Annotated[UUID, Field(description="Id of the run that crashed.")],
) -> str:
    """Start a crashed run once more, with the same parameters; never a third time.

    Asked twice about the same run it starts one. A run that was itself a second try is not repeated: this one fails
    then, so that a person hears of it.
    """
    async with get_client() as client:
        crashed = await _read(client, flow_run_id)
        if crashed.state is None or not crashed.state.is_crashed():
            now = "unknown" if crashed.state is None else crashed.state.name
            return _ended("NothingToDo", f"{crashed.name} is {now}, not crashed; nothing was started")
        await _see_that_it_may(client, crashed)
        again = await _again(client, crashed)
    return _ended("StartedAgain", f"{crashed.name} crashed; it goes on as {again.name} ({again.id})")


def _ended(name: str, message: str) -> str:
    # What a flow returns as a state becomes its final state; the message is its result too.
    state: State[str] = Completed(name=name, message=message, data=message)
    return state  # type: ignore[return-value]


async def _read(client: PrefectClient, run_id: UUID) -> FlowRun:
    try:
        return await client.read_flow_run(run_id)
    except ObjectNotFound:
        raise NotRepeated(f"there is no run {run_id} on this server; give the id of the run that crashed") from None


async def _see_that_it_may(client: PrefectClient, crashed: FlowRun) -> None:
    """See that the run may be repeated.

    Raises:
        NotRepeated: When it may not, with what to do.
    """
    who = f"{crashed.name} ({crashed.id})"
    if crashed.deployment_id is None:
        raise NotRepeated(f"{who} was not started by a deployment; start it again where it was started")
    if SECOND in crashed.tags:
        said = crashed.state.message if crashed.state else None
        raise NotRepeated(
            f"{who} crashed too, and was a second try already: {said}. See its log, then start it yourself"
        )
    name = (await client.read_flow(crashed.flow_id)).name
    if name in _ONCE:
        raise NotRepeated(f"{who} crashed and is not repeated by itself: {_ONCE[name]}")


async def _again(client: PrefectClient, crashed: FlowRun) -> FlowRun:
    """The one run that follows this crash: asked again, the server answers with the same."""
    if crashed.deployment_id is None:
        raise NotRepeated(f"{crashed.name} has no deployment")
    try:
        return await client.create_flow_run_from_deployment(
            crashed.deployment_id,
            parameters=crashed.parameters,
            job_variables=crashed.job_variables,
            tags=[*crashed.tags, SECOND],
            idempotency_key=f"recover-{crashed.id}",
        )
    except ObjectNotFound:
        raise NotRepeated(
            f"the deployment of {crashed.name} ({crashed.id}) is gone; deploy it, then start it"
        ) from None
