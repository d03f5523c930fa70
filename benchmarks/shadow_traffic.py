"""What a live shadow does to those who ask: a forest of 200 trees in Production, another one beside it.

``python -m benchmarks.shadow_traffic``: one gateway, 24 requests a second at even steps, at least 1,000 in each part;
the parts in turn, round after round: nobody in Staging, a second forest that answers unseen, one that hangs and burns
the processor, one that crashes. Each round's 99th percentile is held against that of its own part without a shadow.
The value is the worst of the three medians; at most 1.5. With it: no request failed, the good shadow answered all of
them, and what the others were not given is counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import request, steadily
from benchmarks.process import Process
from benchmarks.proof import Line, conclude
from benchmarks.serving_home import FOREST, Home, rows

LIMIT = 1.5
RATE = 24.0
PARTS = ("off", "on", "hang", "crash")
_TOLD = {"on": "well", "hang": "hanging", "crash": "crashing"}
_PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class Part:
    """What the clients saw in one part of a round.

    Attributes:
        p99: Seconds.
        p90: Seconds.
        failed: Requests without an answer.
    """

    p99: float
    p90: float
    failed: int


def made(folder: Path) -> tuple[Home, dict[str, str]]:
    """A home with a forest in Production, and the versions of the parts."""
    home = Home(folder, {"shadow": {"live": "60m"}})
    home.begin()
    home.move("promote", home.train(FOREST))
    second = home.train({**FOREST, "params": {**FOREST["params"], "random_state": 1}})
    return home, {"on": second, "hang": home.moody(second, "hang"), "crash": home.moody(second, "crash")}


def beside(gateway: Process) -> Any:
    """What the gateway says of the shadow."""
    return json.loads(gateway.get("/readyz"))["models"]["loan"]["shadow"]


def change(home: Home, gateway: Process, before: str | None, version: str | None) -> None:
    """Put another version beside Production, or none, and wait until it answers.

    Raises:
        TimeoutError: When it does not.
    """
    if before is not None:
        home.move("reject", before)
    if version is not None:
        home.move("stage", version)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        told = beside(gateway)
        if (told is None) == (version is None) and (told is None or told["state"] == "answering"):
            return
        time.sleep(0.1)
    raise TimeoutError(f"version {version} does not answer unseen: {gateway.get('/readyz')}")


def ask(gateway: Process, name: str, requests: int) -> Part:
    """One part: so many requests."""
    bodies = [
        json.dumps({"features": row, "request_id": f"{name}-{number}"}).encode()
        for number, row in enumerate(rows(requests))
    ]
    seen = steadily(gateway.port, lambda number: request("/predict", bodies[number]), rate=RATE, requests=requests)
    took = np.array([one.seconds for one in seen])
    p90, p99 = np.quantile(took, [0.9, 0.99])
    return Part(float(p99), float(p90), sum(one.status != 200 for one in seen))


def answered(gateway: Process, version: str, requests: float) -> float:
    """Rows that the version answered unseen by now; those that wait are waited for."""
    end = time.monotonic() + 60
    while True:
        found = gateway.metric("backstop_shadow_rows_total", version=version)
        if found >= requests or time.monotonic() > end:
            return found
        time.sleep(0.2)


def main() -> None:
    """Run it, print a table and the JSON line.

    Raises:
        SystemExit: 1 when the limit is missed, a request failed, or the good shadow left some out.
    """
    asked = argparse.ArgumentParser(description="What a live shadow does to those who ask.")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--requests", type=int, default=1000)
    given = asked.parse_args()
    found: dict[str, list[Part]] = {name: [] for name in PARTS}
    with tempfile.TemporaryDirectory(prefix="shadow-traffic-") as scratch:
        home, versions = made(Path(scratch) / "home")
        with home.gateway("--shadow-seconds", "5") as gateway:
            ask(gateway, "warm", 100)
            before: str | None = None
            for number in range(given.rounds):
                for name in PARTS:
                    change(home, gateway, before, versions.get(name))
                    before = versions.get(name)
                    found[name].append(ask(gateway, f"{name}-{number}", given.requests))
                    if name == "on":
                        unseen = answered(gateway, versions["on"], (number + 1) * given.requests)
            restarts = {
                kind: gateway.metric("backstop_shadow_restarts_total", reason=kind) for kind in ("hung", "crashed")
            }
    raise SystemExit(_told(found, unseen, given.rounds * given.requests, restarts))


def _told(found: dict[str, list[Part]], unseen: float, wanted: int, restarts: dict[str, float]) -> int:
    lines = []
    for name, parts in found.items():
        pairs = list(zip(parts, found["off"], strict=True))
        p99, alone = (1000 * statistics.median(one.p99 for one in which) for which in (parts, found["off"]))
        p90 = 1000 * statistics.median(one.p90 for one in parts)
        tenth = statistics.median(one.p90 / off.p90 for one, off in pairs)
        print(
            f"{name:6} p99 {p99:6.1f} ms   p90 {p90:6.1f} ms {tenth:5.2f}x   {sum(one.failed for one in parts)} failed"
        )
        if name != "off":
            value = statistics.median(one.p99 / off.p99 for one, off in pairs)
            told = f"{p99:.0f} ms against {alone:.0f} ms"
            lines.append(
                Line(what=f"p99 with a shadow, {_TOLD[name]}, of that without", value=value, limit=LIMIT, told=told)
            )
    failed = sum(one.failed for parts in found.values() for one in parts)
    lines += [
        Line(what="requests without an answer", value=failed, limit=0),
        Line(what="requests that the shadow answered too", value=unseen, limit=wanted, least=True),
    ]
    for kind, times in restarts.items():
        lines.append(Line(what=f"restarts of a shadow that {kind}", value=times, limit=1, least=True))
    return conclude("shadow_traffic", lines, rows=True)


if __name__ == "__main__":
    main()
