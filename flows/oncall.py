"""Whom the automations tell: a block in Prefect, made from BACKSTOP_NOTIFY, or by a person in the Prefect UI.

The address is kept in the block, encrypted by the server, and nowhere else: not in the automation, not in an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import BlockDocument

from tasks.notify import expand, mask

BLOCK = "backstop-on-call"
"""Name of the block."""

_LOUD = (
    "NOBODY IS TOLD when a run fails, crashes or is refused. Set BACKSTOP_NOTIFY to an address (slack://..., "
    f"mailto://..., see appriseit.com) or make a block {BLOCK!r} in Prefect, and run this again."
)


@dataclass(frozen=True, slots=True)
class OnCall:
    """Who is told.

    Attributes:
        block: Id of the block; None: nobody.
        said: One sentence for the person who set it up. No secret is in it.
        warnings: What that person must not overlook.
        differs: The block on the server is not what BACKSTOP_NOTIFY says.
    """

    block: UUID | None
    said: str
    warnings: tuple[str, ...] = ()
    differs: bool = False


async def on_call(client: PrefectClient, environment: Mapping[str, str], *, check: bool) -> OnCall:
    """Find or make the block.

    Args:
        client: Of the server.
        environment: With BACKSTOP_NOTIFY: addresses with commas between, or ``block:type/name`` for one of your own.
        check: Change nothing.

    Raises:
        ValueError: When an address names a variable that is not set, or a block that is not there.
    """
    sinks = [sink.strip() for sink in environment.get("BACKSTOP_NOTIFY", "").split(",") if sink.strip()]
    own = [sink.removeprefix("block:") for sink in sinks if sink.startswith("block:")]
    files = [sink for sink in sinks if sink.startswith("file:")]
    urls = [expand(sink, environment) for sink in sinks if not sink.startswith(("block:", "file:"))]
    cannot = tuple(f"{sink}: a file cannot be told by the Prefect server; only the flows write it." for sink in files)
    if own:
        return await _of_a_person(client, own, cannot, left=[mask(sink) for sink in sinks if "block:" not in sink])
    there = await _there(client)
    if urls:
        return await _made(client, ", ".join(urls), there, cannot, shown=[mask(url) for url in urls], check=check)
    if there is not None:
        return OnCall(there.id, f"Told is the block {BLOCK}, which is there.", cannot)
    return OnCall(None, "Nobody is told.", (*cannot, _LOUD))


async def _of_a_person(client: PrefectClient, own: list[str], cannot: tuple[str, ...], left: list[str]) -> OnCall:
    kind, _, name = own[0].partition("/")
    found = await client.read_block_documents_by_type(kind) if kind else []
    block = next((one for one in found if one.name == name), None)
    if block is None:
        raise ValueError(f"BACKSTOP_NOTIFY: there is no block {own[0]!r} in Prefect; make it, or correct type and name")
    over = own[1:] + [sink for sink in left if not sink.startswith("file:")]
    more = (f"Only {own[0]} is told by the automations; left out: {', '.join(over)}.",) if over else ()
    return OnCall(block.id, f"Told is the block {own[0]}.", (*cannot, *more))


async def _there(client: PrefectClient) -> BlockDocument | None:
    return next((one for one in await client.read_block_documents() if one.name == BLOCK), None)


async def _made(
    client: PrefectClient,
    url: str,
    there: BlockDocument | None,
    cannot: tuple[str, ...],
    *,
    shown: list[str],
    check: bool,
) -> OnCall:
    # Prefect's block for Slack hands every address on to apprise, several with commas between.
    said = f"Told is the block {BLOCK}: {', '.join(shown)}."
    kept = None if there is None else await client.read_block_document(there.id, include_secrets=True)
    if kept is not None and kept.data.get("url") == url:
        return OnCall(kept.id, said, cannot)
    if kept is not None and "url" not in kept.data:
        raise ValueError(
            f"the block {BLOCK!r} in Prefect is of another type; remove it, or name it: block:type/{BLOCK}"
        )
    if check:
        return OnCall(None if kept is None else kept.id, said, cannot, differs=True)
    # No secret of a person is overwritten unasked: BACKSTOP_NOTIFY is what says who is told.
    made = await SlackWebhook(url=url).asave(BLOCK, overwrite=True)
    return OnCall(made if isinstance(made, UUID) else UUID(str(made)), said, cannot)
