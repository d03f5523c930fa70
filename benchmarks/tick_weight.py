"""What the runs cost that decide "nothing to do": they are the ones that run most.

``python -m benchmarks.tick_weight``: whole processes against a real Prefect server, as its worker starts them for a
deployment, in turn, round after round: an async flow that does nothing, a sync one, the quiet tick of the watch over
one model and over many, the quiet evaluation of a model with 50,000 rows that are as they were, and that evaluation in
full. Every row is compared with the async flow that does nothing, round by round; processor seconds are those of the
process as the operating system counts them. The limit holds for the watch over one model and for the quiet evaluation,
for the medians of processor seconds and of wall clock. The watch is also held against the sync flow, which
is Prefect's default and waits for its heartbeat at its end: a third of that is wanted. A process that does nothing
with an async flow takes two thirds of it, most of them Prefect's imports; so the runs alone are compared, too, in a
process that is there already (``benchmarks/flow_alone.py``).

The same as commands of a person (``python -m flows.watch``) is shown beside it: Prefect imports FastAPI for every flow
that is called with a parameter, whatever the flow does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from benchmarks.proof import Line, conclude
from benchmarks.quiet_home import Home
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
LIMIT, SYNC_LIMIT = 1.3, 1 / 3
BASE, SYNC, COMMAND = "does nothing, async", "does nothing, sync", "command that does nothing"
JUDGED = ("watch, 1 model", "retrain, quiet")
_KINDS = {"cpu": "processor seconds", "wall": "wall clock"}
_PATIENCE, _TRIES = 240.0, 30


@dataclass(frozen=True, slots=True)
class Took:
    """One process.

    Attributes:
        wall: Seconds.
        cpu: Seconds, user and system.
    """

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of run.

    Attributes:
        name: For the table.
        base: Name of the row that it is compared with.
        took: Every round.
    """

    name: str
    base: str
    took: list[Took] = field(default_factory=list)

    def ratios(self, base: Row) -> tuple[float, float]:
        """(processor seconds, wall clock) against another row, each the median of the rounds' ratios."""
        pairs = list(zip(self.took, base.took, strict=True))
        cpu = statistics.median(mine.cpu / other.cpu for mine, other in pairs)
        return cpu, statistics.median(mine.wall / other.wall for mine, other in pairs)


class Server:
    """A Prefect server of its own on this machine."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling the modules anew each time is nothing that users do
        self.environment = {
            **kept,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        }
        self._command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        self._log = folder / "server.log"

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Until the end of the block.

        Raises:
            TimeoutError: When it does not come up.
        """
        with self._log.open("w") as log:
            process = subprocess.Popen(self._command, env=self.environment, stdout=log, stderr=log, cwd=ROOT)
        try:
            end = time.monotonic() + _PATIENCE
            while not self._healthy():
                if time.monotonic() > end or process.poll() is not None:
                    raise TimeoutError(f"Prefect's server did not come up: {self._log.read_text()[-2000:]}")
                time.sleep(0.5)
            yield self
        finally:
            process.terminate()
            process.wait(60)

    def _healthy(self) -> bool:
        with suppress(URLError, ConnectionError, TimeoutError):
            return bool(self.call("GET", "/health"))
        return False

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to the API."""
        content = None if body is None else json.dumps(body).encode()
        request = Request(  # noqa: S310  the address is our own
            self.url + path, data=content, method=method, headers={"Content-Type": "application/json"}
        )
        for number in range(_TRIES):
            try:
                with urlopen(request, timeout=30) as answer:  # noqa: S310  see above
                    return json.loads(answer.read())
            except HTTPError as error:
                if error.code != http.client.SERVICE_UNAVAILABLE or number == _TRIES - 1:
                    raise
                time.sleep(1)  # SQLite behind Prefect's server is busy for somebody else
        return None

    def deploy(self, name: str, entrypoint: str, parameters: Mapping[str, Any]) -> str:
        """Id of a deployment of a flow of this repository."""
        flow = self.call("POST", "/flows/", {"name": name})
        told = {"name": name, "flow_id": flow["id"], "entrypoint": entrypoint, "path": str(ROOT)}
        return str(self.call("POST", "/deployments/", {**told, "parameters": dict(parameters)})["id"])

    def run(self, deployment: str) -> Took:
        """One run of it in a process like the worker's.

        Raises:
            RuntimeError: When it did not complete.
        """
        asked = self.call("POST", f"/deployments/{deployment}/create_flow_run", {"state": {"type": "PENDING"}})
        took, told = timed(["-m", "prefect.engine"], {**self.environment, "PREFECT__FLOW_RUN_ID": asked["id"]})
        state = self.call("GET", f"/flow_runs/{asked['id']}")["state"]
        if state["type"] != "COMPLETED":
            raise RuntimeError(f"the run ended as {state['name']}: {state['message']}\n{told[-2000:]}")
        return took


def timed(arguments: list[str], environment: Mapping[str, str]) -> tuple[Took, str]:
    """One process from its start to its end, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, cpu), done.stdout + done.stderr


def measured(server: Server, home: Home, rounds: int) -> tuple[Row, ...]:
    """Every kind of run, in turn; the first round of each is not counted."""
    one, many = {"policy": str(home.policy)}, {"policy": str(home.many)}
    deployed = {
        BASE: server.deploy("noop-async", "benchmarks/noop_flow.py:noop", {}),
        SYNC: server.deploy("noop-sync", "benchmarks/noop_flow.py:waits", {}),
        "watch, 1 model": server.deploy("watch", "flows/watch.py:watch", one),
        "watch, many models": server.deploy("watch-many", "flows/watch.py:watch", many),
        "retrain, quiet": server.deploy("retrain", "flows/retrain.py:retrain", one),
        "retrain, in full (dry run)": server.deploy(
            "retrain-full", "flows/retrain.py:retrain", {**one, "dry_run": True}
        ),
    }
    commands = {
        COMMAND: ["benchmarks/noop_flow.py"],
        "command watch, 1 model": ["-m", "flows.watch", str(home.policy)],
        "command retrain, quiet": ["-m", "flows.retrain", str(home.policy)],
    }
    rows = {name: Row(name, BASE) for name in deployed} | {name: Row(name, COMMAND) for name in commands}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        for name, row in rows.items():
            if name in deployed:
                took = server.run(deployed[name])
            else:
                took, _ = timed(commands[name], server.environment)
            if number:
                row.took.append(took)
    return tuple(rows.values())


def main() -> None:
    """Run it, print a table and the JSON line.

    Raises:
        SystemExit: 1 when the watch over one model or the quiet evaluation is heavier than the limit.
    """
    asked = argparse.ArgumentParser(description="What the runs cost that decide that there is nothing to do.")
    asked.add_argument("--rounds", type=int, default=9)
    asked.add_argument("--models", type=int, default=50)
    asked.add_argument("--home", type=Path, help="made by benchmarks.quiet_home today; empty: a new one")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="tick-weight-") as scratch:
        folder = Path(scratch)
        server = Server(folder)
        home = Home(given.home.resolve() if given.home else folder / "home")
        server.environment["BACKSTOP_HOME"] = str(home.folder)
        if given.home is None:
            timed(["-m", "benchmarks.quiet_home", str(home.folder), "--models", str(given.models)], server.environment)
        with server.running():
            rows = measured(server, home, given.rounds)
            _, told = timed(["-m", "benchmarks.flow_alone", str(home.policy), str(given.rounds)], server.environment)
    alone = json.loads(told.partition("\n")[0])
    raise SystemExit(_told(rows, alone, len(list(home.many.iterdir())) if given.home else given.models))


def _told(rows: tuple[Row, ...], alone: Mapping[str, list[float]], models: int) -> int:
    by_name = {row.name: row for row in rows}
    lines: list[Line] = []
    for row in rows:
        ratios = row.ratios(by_name[row.base])
        for kind, value in zip(("cpu", "wall"), ratios, strict=True):
            seconds = statistics.median(getattr(one, kind) for one in row.took)
            most = LIMIT if row.name in JUDGED else None
            what = f"{row.name} against {row.base}, {_KINDS[kind]}"
            lines.append(Line(what=what, value=value, limit=most, told=f"{seconds:.2f} s"))
    tick, sync = by_name["watch, 1 model"], by_name[SYNC]
    for kind, value in zip(("cpu", "wall"), tick.ratios(sync), strict=True):
        what = f"{tick.name} against {SYNC}, {_KINDS[kind]}"
        lines.append(Line(what=what, value=value, limit=SYNC_LIMIT if kind == "wall" else None))
    middle = {name: statistics.median(took) for name, took in alone.items()}
    for name, limit in ((SYNC, SYNC_LIMIT), (BASE, None)):
        base = middle[name.rpartition(" ")[2]]
        told = f"{middle['watch'] * 1000:,.0f} ms against {base * 1000:,.0f} ms"
        what = f"{tick.name} against {name}, the run alone"
        lines.append(Line(what=what, value=middle["watch"] / base, limit=limit, told=told))
    each = [statistics.median(one.cpu for one in by_name[f"watch, {what}"].took) for what in ("1 model", "many models")]
    more = (each[1] - each[0]) / max(1, models - 1) * 1000
    lines.append(Line(what="milliseconds of a processor for each further model of a watch", value=more))
    return conclude("tick_weight", lines, rows=True)


if __name__ == "__main__":
    main()
