"""Servers that tests and benchmarks start themselves: PostgreSQL, MLflow's own, and a proxy that keeps requests back.

Each is a context manager, listens on this machine only, and is gone afterwards. Two of them can be stopped and started
again in the middle, as an outage does it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

_PATIENCE = 180.0
"""Seconds that a server may take to answer; MLflow's imports itself for half a minute on a busy machine."""


class NotInstalled(RuntimeError):
    """The server's programs are not on this machine."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: Callable[[], object], *, told: str, seconds: float = _PATIENCE, every: float = 0.05) -> None:
    """Wait until this neither raises nor answers with a falsehood.

    Args:
        what: Is asked again and again.
        told: Of the error: what did not happen.
        seconds: To wait at most.
        every: Seconds between two questions; more where the answer costs the one that is waited for its processor.

    Raises:
        TimeoutError: When it never does; says what was waited for.
    """
    end = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            if what():
                return
        except Exception as error:  # noqa: BLE001  told when the patience is at its end
            last = error
        time.sleep(every)
    raise TimeoutError(f"{told} within {seconds:g} seconds: {last!r}") from last


# PostgreSQL.


def programs() -> Path | None:
    """Folder of PostgreSQL's programs, or None. Debian: the package postgresql."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "postgres").exists()), None)


@dataclass
class Postgres:
    """One PostgreSQL server on a socket of its own.

    Attributes:
        folder: With the socket and the data.
    """

    folder: Path
    _programs: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def user(self) -> str | None:
        """Whom it runs as: PostgreSQL refuses root."""
        return "nobody" if os.geteuid() == 0 else None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        quick = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "timezone=Asia/Tokyo")
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder, *quick],
            stderr=subprocess.DEVNULL,
            user=self.user,
            cwd=self.folder,
        )
        until(self._answers, told="PostgreSQL did not answer")

    def stop(self, *, hard: bool = False) -> None:
        """Stop it: every client is sent away; ``hard``: as a power failure does it."""
        if self._process is None:
            return
        # SIGTERM would wait for every client to leave. SIGQUIT ends without a word; SIGKILL would leave children.
        self._process.send_signal(signal.SIGQUIT if hard else signal.SIGINT)
        self._process.wait(60)
        self._process = None

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex}"
        self._run(f"CREATE DATABASE {name}")
        return f"postgresql://backstop@/{name}?host={self.folder}"

    def _answers(self) -> bool:
        self._run("SELECT 1")
        return True

    def _run(self, statement: str) -> None:
        url = f"postgresql+psycopg://backstop@/postgres?host={self.folder}"
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with a cluster of its own.

    Raises:
        NotInstalled: When PostgreSQL's programs are not there.
    """
    place = programs()
    if place is None:
        raise NotInstalled("PostgreSQL's programs initdb and postgres are not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has to be short
    server = Postgres(folder, place)
    if server.user is not None:
        shutil.chown(folder, server.user)
    try:
        subprocess.run(
            [place / "initdb", "-D", folder / "data", "-U", "backstop", "--auth=trust", "--no-sync"],
            check=True,
            capture_output=True,
            user=server.user,
            cwd=folder,
        )
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


# MLflow.


@dataclass
class MlflowServer:
    """One ``mlflow server`` with several workers, which serves the artifacts too.

    Attributes:
        backend: SQLAlchemy URL of its database.
        artifacts: Folder behind its ``mlflow-artifacts:`` addresses.
        port: On 127.0.0.1; the same after a restart.
        workers: Processes.
        forked: gunicorn's workers, forked from one that has imported everything: half the time to start. Otherwise
            uvicorn's, which is what the command starts by default.
        log: What it says.
    """

    backend: str
    artifacts: Path
    log: Path
    workers: int = 2
    forked: bool = False
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        self.launch()
        until(lambda: self._ended() or self._healthy(), told="MLflow's server did not become healthy")
        if self._ended():
            raise RuntimeError(f"MLflow's server ended at once; it said: {self.log.read_text()}")

    def launch(self) -> None:
        """Start it and wait for nothing."""
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", str(self.workers))
        stores = ("--backend-store-uri", self.backend, "--serve-artifacts", "--artifacts-destination", self.artifacts)
        forked = ("--gunicorn-opts", "--preload --no-control-socket") if self.forked else ()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *where, *stores, *forked],
                stdout=log,
                stderr=log,
                # Jobs of MLflow's evaluation would outlive the server, in a dozen processes.
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )

    def stop(self) -> None:
        """Kill it with all its workers, in the middle of whatever they do."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
        self._process = None

    def freeze(self) -> None:
        """Let it hang: connections are taken, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it was."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("MLflow's server is not running; start it first")
        os.killpg(self._process.pid, number)

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _healthy(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310  always http, 127.0.0.1
            return bool(answer.status == 200)


@contextmanager
def mlflow_server(
    backend_url: str, artifacts: Path, workers: int = 2, *, forked: bool = False
) -> Iterator[MlflowServer]:
    """A real ``mlflow server``, stopped at the end with all its workers."""
    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        log = Path(folder) / "server.log"
        server = MlflowServer(backend_url, artifacts, log, workers=workers, forked=forked)
        try:
            server.start()
            yield server
        finally:
            server.stop()


# A network that delays and loses.


class Proxy:
    """Passes everything on to a server, but keeps back, delays or refuses what it is told to.

    What it has taken from a client it delivers even when the client is dead: a request that is under way in a network
    does not care about its sender.
    """

    def __init__(self, port: int) -> None:
        """Listen on a port of its own; ``port`` is the server's."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pattern: bytes | None = None
        self._refusing = False
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._kept: socket.socket | None = None
        self.held = threading.Event()
        """Set once a request that was waited for has arrived and is kept back."""
        self.delivered = threading.Event()
        """Set once the server has answered the request that was kept back."""
        self._spawn(self._accept)

    @property
    def url(self) -> str:
        """For MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    def hold(self, pattern: bytes) -> None:
        """Keep back the next request whose text has this in it, until :meth:`release`."""
        self.held.clear()
        self.delivered.clear()
        self._released.clear()
        self._pattern = pattern

    def release(self) -> None:
        """Deliver what was kept back."""
        self._released.set()

    def refuse(self, pattern: bytes = b"") -> None:
        """From the next request with this in it on (empty: at once), answer nobody: the server is gone."""
        self._refusing, self._pattern = True, pattern or None
        if not pattern:
            self._hang_up()

    def accept(self) -> None:
        """The server is back."""
        self._refusing, self._pattern = False, None

    def close(self) -> None:
        """Let go of every connection."""
        self._released.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, work: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=work, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self._refusing and self._pattern is None:
                    client.close()
                    continue
                self._open.add(client)
                self._spawn(self._requests, client)

    def _requests(self, client: socket.socket) -> None:
        """From the client to the server, which is connected to only once there is something to say."""
        server: socket.socket | None = None
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                caught = self._pattern is not None and self._pattern in data
                if caught and self._refusing:
                    self._pattern = None
                    self._hang_up()
                    break
                if caught:
                    self._pattern = None
                    data = _whole(data, client)
                    self.held.set()
                    self._released.wait()
                if server is None:
                    server = self._connected(client)
                self._kept = server if caught else self._kept
                server.sendall(data)
        if server is None:
            self._let_go(client)
        elif server is not self._kept:  # what was kept back still gets its answer, though nobody reads it
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    def _connected(self, client: socket.socket) -> socket.socket:
        server = socket.create_connection(("127.0.0.1", self._target))
        self._open.add(server)
        self._spawn(self._answers, client, server)
        return server

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if server is self._kept:
                    self.delivered.set()
                with contextlib.suppress(OSError):  # the client is dead
                    client.sendall(data)
        self._let_go(client, server)

    def _let_go(self, *ends: socket.socket) -> None:
        for end in ends:
            self._open.discard(end)
            end.close()

    def _hang_up(self) -> None:
        for end in tuple(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _whole(data: bytes, client: socket.socket) -> bytes:
    """The whole request that begins with these bytes: its sender may die before it has sent the body."""
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.splitlines() if line.lower().startswith(b"content-length:")]
    missing = int(lengths[0]) - len(body) if lengths else 0
    while missing > 0 and (more := client.recv(missing)):
        data, missing = data + more, missing - len(more)
    return data


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """A proxy before the server that listens on this port."""
    made = Proxy(port)
    try:
        yield made
    finally:
        made.close()
