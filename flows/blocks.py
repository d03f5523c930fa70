"""Prefect's notification blocks as sinks: ``block:slack-webhook/on-call`` in a policy's ``notify``.

The address is kept by Prefect's server, encrypted, and is in no policy, no environment and no log.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from tasks.notify import Heard


def tell(name: str, title: str, body: str) -> None:
    """Send through a block. Only outside of an event loop: a thread of its own waits for it.

    Args:
        name: ``type/name``, as Prefect shows it.
        title: One line.
        body: Plain text.

    Raises:
        LookupError: When there is no such block, or Prefect does not answer.
        ValueError: When it is no block that notifies.
        ConnectionError: When it was not taken. The block's own words hold its address, and are not repeated.
    """
    # Apprise logs the address that it loads, in this thread, and the one that it calls, in a thread of the loop's.
    with Heard() as heard, ThreadPoolExecutor(max_workers=1, initializer=heard.join) as pool:
        asyncio.run(_tell(name, title, body, pool))


async def _tell(name: str, title: str, body: str, pool: ThreadPoolExecutor) -> None:
    asyncio.get_running_loop().set_default_executor(pool)
    try:
        block: object = await Block.aload(name)
    except Exception as error:  # noqa: BLE001  the server's, the network's or the block's; none of them is shown whole
        raise LookupError(
            f"the block {name} cannot be loaded ({type(error).__name__}); make it in Prefect under Blocks, and write "
            "block:type/name"
        ) from None
    if not isinstance(block, NotificationBlock):
        raise ValueError(f"the block {name} is a {type(block).__name__}, which cannot notify; choose a notification")  # noqa: TRY004  the policy's value is wrong
    try:
        with block.raise_on_failure():
            sent: object = block.notify(body, title)
            if inspect.isawaitable(sent):  # Prefect's own are, inside of an event loop
                await sent
    except Exception as error:  # noqa: BLE001  apprise's words hold the address
        raise ConnectionError(
            f"the block {name} could not deliver it ({type(error).__name__}); see that its address is right"
        ) from None
