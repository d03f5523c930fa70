"""Seconds of runs in a process that is there already: its start, its imports and its end are taken off.

``python -m benchmarks.flow_alone POLICY ROUNDS``, against the server of ``PREFECT_API_URL``: the quiet tick of the
watch and the two flows that do nothing, in turn; one line of JSON. The first round is not counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.noop_flow import noop, waits
from flows.watch import watch


def main(policy: str, rounds: int) -> None:
    """Run them, and print what each took."""

    async def tick() -> Any:
        return await watch(policy)

    async def idle() -> None:
        await noop()

    works: dict[str, Callable[[], Any]] = {
        "watch": lambda: asyncio.run(tick()),
        "async": lambda: asyncio.run(idle()),
        "sync": waits,
    }
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            if number:
                took[name].append(time.perf_counter() - begun)
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
