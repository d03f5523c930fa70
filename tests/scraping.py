"""Prometheus for tests: the real server on data of its own, and one that answers whatever a test tells it to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import httpx
import yaml
from servers import NotInstalled, free_port, until

Labels = dict[str, str]
Answer = bytes | dict[str, Any]


@dataclass
class Prometheus:
    """One real Prometheus server.

    Attributes:
        folder: Of its configuration and its data.
        targets: host:port of what it scrapes, under one job.
        every: Seconds between two scrapes.
    """

    folder: Path
    targets: list[str]
    every: float = 1.0
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        program = shutil.which("prometheus")
        if program is None:
            raise NotInstalled("the program prometheus is not installed (Debian: the package prometheus)")
        self.configure()
        with (self.folder / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--config.file={self.folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        until(self._ready, told="Prometheus did not become ready")

    def configure(self) -> None:
        """Write what it scrapes."""
        config = {
            "global": {"scrape_interval": f"{self.every:g}s", "scrape_timeout": f"{self.every:g}s"},
            "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": self.targets}]}],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")

    def value(self, query: str) -> float | None:
        """Of the one series that a query finds, now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10)
        found = answer.json()["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def _ready(self) -> bool:
        return httpx.get(f"{self.url}/-/ready", timeout=5).status_code == 200


@contextmanager
def prometheus(folder: Path, *targets: str, every: float = 1.0) -> Iterator[Prometheus]:
    """A real server that scrapes these.

    Raises:
        NotInstalled: When the program is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    server = Prometheus(folder, list(targets), every)
    try:
        server.start()
        yield server
    finally:
        server.stop()


# One that says what it is told to.


def matrix(*series: tuple[Labels, list[tuple[float, object]]]) -> Answer:
    """Samples, as Prometheus answers a selector with a range."""
    result = [{"metric": labels, "values": [[at, str(value)] for at, value in samples]} for labels, samples in series]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


def vector(*labels: Labels) -> Answer:
    """As Prometheus answers ``group by``."""
    result = [{"metric": one, "value": [0, "1"]} for one in labels]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


class Oracle(ThreadingHTTPServer):
    """Answers a query by the first word of it that it knows.

    Attributes:
        answers: By the beginning of the query.
        status: Of HTTP.
        delay: Seconds before each byte of an answer.
        queries: That came, with their headers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Voice)
        self.answers: dict[str, Answer | Callable[[str], Answer]] = {}
        self.status = 200
        self.delay = 0.0
        self.queries: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Voice(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        oracle = self.server
        assert isinstance(oracle, Oracle)
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        query = form["query"][0]
        oracle.queries.append((query, dict(self.headers)))
        word = next((one for one in oracle.answers if re.match(one, query)), None)
        told = matrix() if word is None else oracle.answers[word]
        answer = told(query) if callable(told) else told
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(oracle.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not oracle.delay:
            self.wfile.write(body)
            return
        for number in range(len(body)):
            time.sleep(oracle.delay)
            try:
                self.wfile.write(body[number : number + 1])
            except OSError:
                return  # the client has hung up

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def oracle() -> Iterator[Oracle]:
    """One that answers until the block ends."""
    with Oracle() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
