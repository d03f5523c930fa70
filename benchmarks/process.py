"""A server in a process of its own, and what it and its children cost, as Linux counts it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 180.0
_TICK, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """One that runs.

    Attributes:
        number: Its process id.
        port: That it listens on.
        log: What it says.
    """

    number: int
    port: int
    log: Path

    def cpu(self) -> float:
        """Seconds, user and system, of it and of all its descendants that live."""
        known = dict(_stats())
        mine, total = {self.number}, 0.0
        for _ in range(len(known)):
            more = {number for number, (parent, _) in known.items() if parent in mine} - mine
            if not more:
                break
            mine |= more
        for number in mine & known.keys():
            total += known[number][1]
        return total

    def get(self, path: str) -> str:
        """The text of an answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric with these labels."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{key}="{text}"' in head for key, text in labels.items()):
                total += float(value)
        return total


def _stats() -> Iterator[tuple[int, tuple[int, float]]]:
    """(process, (parent, processor seconds)) of all that run."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            told = path.read_text("utf-8").rpartition(")")[2].split()
            yield int(path.parent.name), (int(told[1]), (int(told[11]) + int(told[12])) / _TICK)


def resident(number: int) -> int:
    """Bytes of memory that a process and all its descendants hold now; what they share counts for each."""
    total, waiting = 0, [number]
    while waiting:
        one = Path("/proc") / str(waiting.pop())
        with suppress(OSError, ValueError, IndexError):
            total += int((one / "statm").read_text("utf-8").split()[1]) * _PAGE
            for children in one.glob("task/*/children"):
                waiting += map(int, children.read_text("utf-8").split())
    return total


@contextmanager
def running(command: list[str], port: int, log: Path, *, ready: str, **environment: str) -> Iterator[Process]:
    """Start a server, wait until this address answers with 200, and end it afterwards, with all that it started.

    Raises:
        TimeoutError: When it does not answer; with what it said.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BACKSTOP_", "MLFLOW_TR"))}
    kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", **environment}
    with log.open("ab") as told:
        process = subprocess.Popen(command, cwd=_ROOT, env=kept, stdout=told, stderr=told, start_new_session=True)
    server = Process(process.pid, port, log)
    try:
        _wait(server, ready, process)
        yield server
    finally:
        # A group of its own, which this process began: what the server started goes with it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(server: Process, path: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            server.get(path)
            return
        time.sleep(0.2)
    raise TimeoutError(f"{process.args!r} did not answer on {path}: {server.log.read_text('utf-8')[-3000:]}")
