"""One run of the watch over a folder of policies, in this process: what it takes, as one line of JSON.

The flow's own function without Prefect's engine around it, whose start costs the same for one model as for a thousand.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import Any

from flows.watch import watch
from tasks.policy_file import load_many


def main(folder: str) -> None:
    """Run it and print the line."""
    load_many(folder)  # what is imported on first use is imported now
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    began = time.monotonic()
    state: Any = asyncio.run(watch.fn(policy=folder))  # the flow's final state, with the reports
    cpu, wall = time.process_time() - start, time.monotonic() - began
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = state.data
    told = {"models": len(found), "decisions": sorted({one.decision for one in found}), "cpu": cpu, "wall": wall}
    sys.stdout.write("\n" + json.dumps(told | {"megabytes": max(more / 1000, 0.1)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
