"""One run of the watch over a folder of policies, in this process: what it takes, as one line of JSON.

The flow's own function without Prefect's engine around it, whose start costs the same for one model as for a thousand.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks.drift_peers import extra
from flows.watch import watch
from tasks.policy_file import load_many


def main(folder: str) -> None:
    """Run it and print the line."""
    load_many(folder)  # what is imported on first use is imported now
    began = time.monotonic()
    # A process begins with the peak of the one that started it; what is counted here begins anew.
    state, cpu, more = extra(lambda: asyncio.run(watch.fn(policy=folder)))  # the flow's final state, with the reports
    wall, found = time.monotonic() - began, state.data
    told = {"models": len(found), "decisions": sorted({one.decision for one in found}), "cpu": cpu, "wall": wall}
    sys.stdout.write("\n" + json.dumps(told | {"megabytes": more / 1e6}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
