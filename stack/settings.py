"""Settings: where the stack listens, where it keeps things, and the environment of each of its programs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parents[1]
POOL = "backstop"
WORKER = "stack"
"""Name of the worker, by which the server knows it."""

DATABASES = ("backstop_prefect", "backstop_mlflow", "backstop")
"""On a PostgreSQL server: of Prefect, of MLflow, and of ledger and request log."""

_TAKEN_OVER = ("BACKSTOP_LEDGER", "BACKSTOP_REQUESTS", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")
_SECRET = ("PREFECT_API_DATABASE_CONNECTION_URL", "MLFLOW_BACKEND_STORE_URI", "BACKSTOP_LEDGER", "BACKSTOP_REQUESTS")
_LONGEST_SOCKET = 100
"""Bytes of a socket's path: macOS takes 104, Linux 108."""


class StackError(RuntimeError):
    """The stack cannot be started, asked or ended; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person chooses, by environment variables or behind ``make up``.

    Attributes:
        home: Of everything that lasts.
        prefect_port: On 127.0.0.1.
        mlflow_port: On 127.0.0.1.
        database: Of a PostgreSQL server, without a database name; None: SQLite files in ``home``.
    """

    home: Path
    prefect_port: int = 4200
    mlflow_port: int = 5000
    database: URL | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """From BACKSTOP_HOME, PREFECT_PORT, MLFLOW_PORT and DATABASE.

        Raises:
            StackError: Lists everything that cannot be.
        """
        problems: list[str] = []
        prefect, mlflow = (
            _port(environment, name, default, problems)
            for name, default in (("PREFECT_PORT", 4200), ("MLFLOW_PORT", 5000))
        )
        if prefect == mlflow:
            problems.append(f"PREFECT_PORT and MLFLOW_PORT are both {prefect}; give each a port of its own")
        found = cls(
            Path(environment.get("BACKSTOP_HOME") or ".backstop").resolve(),
            prefect,
            mlflow,
            _database(environment.get("DATABASE", ""), problems),
        )
        ours = found.shared()
        problems += [
            f"{name} is set to {_shown(environment[name])}, and the stack brings its own; unset it, or run the flows "
            "against your own servers without `make up` (docs/deploy.md)"
            for name in _TAKEN_OVER
            if environment.get(name) and environment[name] != ours.get(name)
        ]
        if problems:
            raise StackError("\n".join(problems))
        return found

    def of_last_up(self) -> Settings:
        """With the ports that the last `make up` was told, whatever is said now: those are where the stack answers."""
        try:
            kept = json.loads(self.memory.read_text("utf-8"))
            return replace(self, prefect_port=int(kept["PREFECT_PORT"]), mlflow_port=int(kept["MLFLOW_PORT"]))
        except (OSError, ValueError, KeyError, TypeError):
            return self

    @property
    def memory(self) -> Path:
        """File with what was chosen the last time."""
        return self.folder / "settings.json"

    @property
    def folder(self) -> Path:
        """Of the stack's own state and logs."""
        return self.home / "stack"

    @property
    def socket(self) -> Path:
        """That supervisord is asked through; in a short place where the folder's path is too long for a socket."""
        near = self.folder / "supervisor.sock"
        if len(os.fsencode(near)) < _LONGEST_SOCKET - 20:  # supervisord makes it under a longer name first
            return near
        return self._short_folder / "s.sock"

    @property
    def _short_folder(self) -> Path:
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"backstop-{os.getuid()}-{name}"

    @property
    def prefect(self) -> str:
        """Address of Prefect's page."""
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def mlflow(self) -> str:
        """Address of MLflow's page."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def shown(self) -> dict[str, str | int]:
        """What a later `make up` has to agree with; without a password."""
        database = "sqlite"
        if (url := self.database) is not None:
            plain = URL.create(url.drivername, url.username, None, url.host, url.port, None, url.query)
            database = plain.render_as_string()
        return {"PREFECT_PORT": self.prefect_port, "MLFLOW_PORT": self.mlflow_port, "DATABASE": database}

    @property
    def told(self) -> dict[str, str]:
        """What a person's shell needs to be a client of the stack, and to say ``make status`` or ``make down``.

        Without anything that has a password in it: that is not written down.
        """
        secret = self.database is not None and self.database.password is not None
        kept = {name: value for name, value in self.shared().items() if not (secret and name in _SECRET)}
        choice = {name: str(value) for name, value in self.shown.items() if not (secret and name == "DATABASE")}
        return {"BACKSTOP_DEMO_DATA": str(self.home / "data")} | choice | kept

    def log(self, program: str) -> Path:
        """Where a program's log is."""
        return self.folder / f"{program}.log"

    def make_folders(self) -> None:
        """The folders that are needed, for nobody else to read.

        Raises:
            StackError: When they cannot be made, or the socket's is somebody else's.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"{self.folder} cannot be made ({error}); set BACKSTOP_HOME to a folder of yours"
            ) from None
        if self.socket.parent.stat().st_uid != os.getuid():
            raise StackError(f"{self.socket.parent} belongs to somebody else; set TMPDIR to a folder of yours")

    def shared(self) -> dict[str, str]:
        """What flows, workers and a person's shell say to reach the stack; has a password when ``database`` has."""
        return {
            "BACKSTOP_HOME": str(self.home),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": f"{self.prefect}/api",
            "MLFLOW_TRACKING_URI": self.mlflow,
            **({} if self.database is None else {"BACKSTOP_LEDGER": self._url("postgresql", DATABASES[2])}),
        }

    def environment(self, program: str, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Of one program: the databases' addresses go only to whom they concern.

        Args:
            program: ``prefect``, ``mlflow``, ``worker`` or any other that is a client of both.
            base: What was there before.
        """
        kept = {name: value for name, value in base.items() if name not in {*_SECRET, "DATABASE"}}
        kept = {"BACKSTOP_DEMO_DATA": str(self.home / "data")} | kept  # of the example's policy
        kept |= {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        shared = self.shared()
        if program == "prefect":
            return kept | {"PREFECT_HOME": shared["PREFECT_HOME"]} | self._of_prefect()
        if program == "mlflow":
            return kept | self._of_mlflow()
        # Without heartbeats nobody notices a run whose process and worker are both dead.
        usual = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_WORKER_QUERY_SECONDS": "5"}
        # A server that is started again is away for a minute or two, and one whose database is away answers 500.
        usual |= {"PREFECT_CLIENT_MAX_RETRIES": "7", "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}
        return usual | kept | shared

    def _of_prefect(self) -> dict[str, str]:
        database = (
            f"sqlite+aiosqlite:///{self.folder / 'prefect' / 'prefect.db'}"
            if self.database is None
            else self._url("postgresql+asyncpg", DATABASES[0])
        )
        return {
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            # Kept in memory, the slots of running flows would be lost with every restart of the server.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }

    def _of_mlflow(self) -> dict[str, str]:
        backend = (
            f"sqlite:///{self.home / 'mlflow.db'}"
            if self.database is None
            else self._url("postgresql+psycopg2", DATABASES[1])  # MLflow's moves between stages fail with psycopg 3
        )
        return {
            "MLFLOW_BACKEND_STORE_URI": backend,
            # Jobs of MLflow's evaluation would run beside the server, in a dozen processes.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    def _url(self, driver: str, name: str) -> str:
        assert self.database is not None  # noqa: S101  asked for by the callers
        return self.database.set(drivername=driver, database=name).render_as_string(hide_password=False)


def _port(environment: Mapping[str, str], name: str, default: int, problems: list[str]) -> int:
    said = environment.get(name, "").strip()
    if not said:
        return default
    if said.isdecimal() and 1024 <= int(said) <= 65535:
        return int(said)
    problems.append(f"{name} is {said!r}; write a number between 1024 and 65535")
    return default


def _database(said: str, problems: list[str]) -> URL | None:
    if said.strip() in {"", "sqlite"}:
        return None
    wanted = "write DATABASE=postgresql://user:password@host:5432, or DATABASE=sqlite for files"
    try:
        url = make_url(said.strip())
    except (ArgumentError, ValueError):
        problems.append(f"DATABASE cannot be read as an address; {wanted}")
        return None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        problems.append(f"DATABASE is of the kind {url.drivername!r}; {wanted}")
        return None
    if url.database:
        problems.append(f"DATABASE names the database {url.database!r}; leave it out, {', '.join(DATABASES)} are made")
        return None
    return url.set(drivername="postgresql")


def _shown(value: str) -> str:
    try:
        return make_url(value).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "a value of its own"
