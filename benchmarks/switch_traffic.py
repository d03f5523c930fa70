"""How long a bad version is felt, and what the switch itself costs those who ask.

``python -m benchmarks.switch_traffic``: clients ask a gateway a hundred times a second; a good version replaces
another, then one that fails on everything is promoted; the watch's own tick looks at the request log, every
``health.tick``, until it rolls back. The value is the time from the first bad answer that a client got to the first
good one after the rollback, less one tick: at most 5 seconds. And no request fails but by the bad version itself:
what it answers with an error is counted apart from requests that are lost, refused or cut off.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load import Seen, request, steadily
from benchmarks.process import Process
from benchmarks.proof import Line, conclude
from benchmarks.serving_home import LOGISTIC, Home, rows
from tasks import watch
from tasks.case import open_case
from tasks.policy_file import load as load_policy

LIMIT = 5.0
TICK = 5.0
"""Seconds between two looks of the watch; a minute where the policy says nothing."""


@dataclass(frozen=True, slots=True)
class Switched:
    """One round.

    Attributes:
        felt: Seconds from the first bad answer to the first good one after it.
        lost: Requests that failed by anything else than the bad version.
        bad: Answers of the bad version.
        asked: All requests.
    """

    felt: float
    lost: int
    bad: int
    asked: int


@dataclass
class Crowd:
    """Clients in a thread."""

    port: int
    seen: list[Seen] = field(default_factory=list)

    @contextmanager
    def asking(self, rate: float) -> Iterator[None]:
        """So often a second, until the end of the block; the watch shares this process with them."""
        bodies = [request("/predict", json.dumps({"features": row}).encode()) for row in rows(50)]
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                self.seen += steadily(self.port, lambda number: bodies[number], rate=rate, requests=50)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def made(folder: Path) -> tuple[Home, tuple[str, str, str]]:
    """A home, and three versions: two good ones, the first in Production, and one that fails."""
    health = {"tick": f"{TICK:g}s", "watch": "5m", "latency_p95": "off", "accuracy": "off"}
    home = Home(folder, {"health": health})
    home.begin()
    first, second = home.train(LOGISTIC), home.train({**LOGISTIC, "params": {"max_iter": 1000, "C": 0.5}})
    bad = home.moody(first, "raise")
    home.move("promote", first)
    return home, (first, second, bad)


def serving(gateway: Process) -> str | None:
    """Which version the gateway has in Production."""
    version: str | None = json.loads(gateway.get("/readyz"))["models"]["loan"]["serving"]
    return version


def switched(home: Home, gateway: Process, versions: tuple[str, str, str], *, rate: float = 100.0) -> Switched:
    """One round: from the good version to another, to the bad one, and back by the watch."""
    _, second, bad = versions
    crowd = Crowd(gateway.port)
    with crowd.asking(rate):
        time.sleep(1)
        _promote(home, second, good=True)
        _until(lambda: serving(gateway) == second)
        time.sleep(1)
        _promote(home, bad, good=False)
        _until(lambda: serving(gateway) == bad)
        while True:
            time.sleep(TICK)
            if _looked(home) == "rolled-back":
                break
        _until(lambda: serving(gateway) == second)
        time.sleep(1)
    return judged(crowd.seen, bad)


def _promote(home: Home, version: str, *, good: bool) -> None:
    home.move("promote", version)
    if good:
        case = home.case()
        with case.ledger as ledger:
            told = {"reason": "a benchmark", "actor": "a benchmark", "trail": "t"}
            ledger.state_fact("loan", version, "known-good", at=datetime.now(UTC), **told)


def _looked(home: Home) -> str:
    """One tick of the watch, as its flow runs it."""
    case = open_case(load_policy(home.policy), actor="flows.watch", stores=home.stores)
    with case.ledger:
        return watch.tick(case, case.standing()).decision


def _until(what: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while callable(what) and not what():
        if time.monotonic() > end:
            raise TimeoutError("the gateway did not follow the ledger within a minute")
        time.sleep(0.05)


def judged(seen: list[Seen], bad: str) -> Switched:
    """What the clients saw.

    Args:
        seen: All requests.
        bad: The version whose errors are its own.
    """
    own = f"version {bad} of loan failed".encode()
    theirs = [one for one in seen if one.status == 500 and own in one.body]
    lost = [one for one in seen if one.status != 200 and not (one.status == 500 and own in one.body)]
    begun = min(one.sent + one.seconds for one in theirs)
    last = max(one.sent for one in theirs)
    back = min(one.sent + one.seconds for one in seen if one.status == 200 and one.sent > last)
    return Switched(back - begun, len(lost), len(theirs), len(seen))


def main() -> None:
    """Run it, print the rounds and the JSON line.

    Raises:
        SystemExit: 1 when a bad version is felt for longer, or a request was lost.
    """
    asked = argparse.ArgumentParser(description="How long a bad version is felt, and what the switch itself costs.")
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    found = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(prefix="switch-traffic-") as scratch:
            home, versions = made(Path(scratch) / "home")
            with home.gateway() as gateway:
                one = switched(home, gateway, versions)
        found.append(one)
        print(f"felt for {one.felt:.2f} s; {one.bad} bad answers, {one.lost} lost of {one.asked} requests")
    felt = [one.felt - TICK for one in found]
    told = f"median of {len(felt)} rounds, {max(felt):.2f} s at most"
    lines = [
        Line(
            what=f"seconds that a bad version is felt beyond one tick of {TICK:g} s",
            value=statistics.median(felt),
            limit=LIMIT,
            told=told,
        ),
        Line(
            what="requests lost by the switch itself",
            value=sum(one.lost for one in found),
            limit=0,
            told=f"of {sum(one.asked for one in found):,}",
        ),
    ]
    raise SystemExit(conclude("switch_traffic", lines, rows=True))


if __name__ == "__main__":
    main()
