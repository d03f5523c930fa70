"""Flows that do nothing, in a file of their own: what Prefect costs by itself."""

from __future__ import annotations

import asyncio

from prefect import flow


@flow(name="noop-async")
async def noop() -> None:
    """Nothing, beside the event loop."""


@flow(name="noop-sync")
def waits() -> None:
    """Nothing, by Prefect's default."""


if __name__ == "__main__":
    asyncio.run(noop())
