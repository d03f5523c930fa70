"""A real Prefect server, a real worker and a home with a trained model: what the tests under ``tests/live`` run on.

One per test process, made when the first test asks for it, ended by process id. It keeps everything in a folder of its
own and listens on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from servers import free_port, until

if TYPE_CHECKING:
    from scene import Scene

ROOT = Path(__file__).resolve().parents[1]
POOL = "backstop"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

_OURS = ("PREFECT_", "BACKSTOP_", "MLFLOW_")
"""What the environment of a test may say and what here is said anew."""


class Program:
    """One program in a process group of its own, which is all that is ever ended."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        """Say what to start; nothing is started yet."""
        self.name, self._command, self._environment, self.log = name, command, dict(environment), log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running program."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it and wait for nothing."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

    def end(self, how: signal.Signals = signal.SIGTERM, *, group: bool = True, seconds: float = 20) -> None:
        """Send a signal, by default to its whole group, and wait; what does not end is killed with its group."""
        if self._process is None:
            return
        for one in (how, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, one) if group else os.kill(self.pid, one)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
            group = True
        self._process = None

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text("utf-8", errors="replace")[-4000:] if self.log.exists() else ""


@dataclass
class Live:
    """A Prefect server with a worker, and what a person does with them.

    Attributes:
        folder: Of the server, the logs and the home.
        scene: The home that the worker's flows run in: recent customers, and a version in Production.
        port: Of the server, on 127.0.0.1; the same after a restart.
    """

    folder: Path
    scene: Scene
    port: int = field(default_factory=free_port)
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Say what the server and the worker are; nothing is started yet."""
        here = ("--host", "127.0.0.1", "--port", str(self.port))
        self.server = self._program("server", "prefect", "server", "start", *here)
        self.worker = self._program(
            *("worker", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "live")
        )

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """Of every program: server, worker, commands of a person."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return kept | {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "5",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_CLIENT_MAX_RETRIES": "7",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "BACKSTOP_HOME": str(self.scene.home),
            "BACKSTOP_RETRY_DELAYS": "1s,1s",
            **self.more,
        }

    def begin_with(self, database: Path) -> None:
        """Give the server a migrated database before it starts for the first time."""
        (self.folder / "prefect").mkdir(exist_ok=True)
        shutil.copy(database, self.folder / "prefect" / "prefect.db")

    def start_server(self) -> None:
        """Start it, and wait until it is healthy."""
        self.server.launch()
        until(lambda: not self.server.running or self.call("/health"), told="Prefect's server did not become healthy")
        assert self.server.running, self.server.said()

    def start_worker(self) -> None:
        """Start it, and wait until the server knows it."""
        self.worker.launch()
        until(lambda: not self.worker.running or self._has_worker(), told="the worker did not come")
        assert self.worker.running, self.worker.said()

    def call(self, path: str, method: str = "GET", **body: Any) -> Any:
        """One request to the API; POST with a body is what most of its questions are."""
        return self.send(path, body if body or method == "POST" else None, method)

    def send(self, path: str, body: Any, method: str = "POST") -> Any:
        """One request to the API whose body is not a mapping, such as a list of schedules or of events."""
        data = None if body is None else json.dumps(body).encode()
        for left in range(9, -1, -1):
            request = urllib.request.Request(  # noqa: S310  always http, 127.0.0.1
                self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  see above
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                # SQLite behind the server is locked now and then; its own clients try again as well.
                if error.code != 503 or not left:
                    raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error
                time.sleep(0.5)
        return None

    def prefect(self, *arguments: str, **environment: str) -> str:
        """A command of Prefect's own, as a person types it in the repository; returns what it printed."""
        return self.python("prefect", "--no-prompt", *arguments, **environment)

    def python(self, module: str, *arguments: str, **environment: str) -> str:
        """``python -m module ...`` under this server, as a person types it in the repository; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env={**self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def deploy(self, *names: str, schedules: Mapping[str, list[dict[str, Any]]] | None = None) -> None:
        """Deploy what prefect.yaml describes; a schedule runs only where it is given here.

        Args:
            names: As ``flow/deployment``; none: all.
            schedules: By the same names, in place of those of the file.
        """
        project = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
        chosen = [one for one in project["deployments"] if not names or named(one) in names]
        for one in chosen:
            one.pop("schedules", None)
            if schedules and named(one) in schedules:
                one["schedules"] = schedules[named(one)]
        derived = self.folder / "prefect.yaml"
        derived.write_text(yaml.safe_dump({**project, "deployments": chosen}), "utf-8")
        self.prefect("deploy", "--all", "--prefect-file", str(derived))

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment as the server has it, by ``flow/deployment``."""
        flow, _, one = name.partition("/")
        found: dict[str, Any] = self.call(f"/deployments/name/{flow}/{urllib.parse.quote(one)}")
        return found

    def run(self, name: str, *, home: Path | None = None, at: datetime | None = None, **parameters: Any) -> str:
        """Ask for a run, as the form does; returns its id.

        Args:
            name: As ``flow/deployment``.
            home: Folder that the flow keeps everything in; empty: the one of :attr:`scene`.
            at: When it was meant to start; empty: now.
            parameters: Of the flow.
        """
        variables = {"env": {"BACKSTOP_HOME": str(home)}} if home else {}
        details = {"scheduled_time": at.isoformat()} if at else {}
        made = self.call(
            f"/deployments/{self.deployment(name)['id']}/create_flow_run",
            "POST",
            parameters=parameters,
            job_variables=variables,
            state={"type": "SCHEDULED", "state_details": details},
        )
        return str(made["id"])

    def flow_run(self, run_id: str) -> dict[str, Any]:
        """A run as the server has it."""
        found: dict[str, Any] = self.call(f"/flow_runs/{run_id}")
        return found

    def ended(self, run_id: str, *, seconds: float = 240) -> dict[str, Any]:
        """Wait until a run has ended; returns it."""
        until(
            lambda: self.flow_run(run_id)["state_type"] in FINAL,
            told=f"the run {run_id} did not end; worker: {self.worker.said()[-600:]}",
            seconds=seconds,
            every=0.25,
        )
        return self.flow_run(run_id)

    def reached(self, run_id: str, state: str, *, seconds: float = 120) -> dict[str, Any]:
        """Wait until a run is in a state of this type or name, such as RUNNING or Suspended; returns it."""
        until(
            lambda: state in {self.flow_run(run_id)["state_type"], self.flow_run(run_id)["state_name"]},
            told=f"the run {run_id} did not become {state}",
            seconds=seconds,
        )
        return self.flow_run(run_id)

    def runs(self, name: str) -> list[dict[str, Any]]:
        """All runs of a deployment, the newest expected start first."""
        only = {"id": {"any_": [self.deployment(name)["id"]]}}
        found: list[dict[str, Any]] = self.call(
            "/flow_runs/filter", "POST", deployments=only, sort="EXPECTED_START_TIME_DESC", limit=200
        )
        return found

    def process_of(self, run_id: str) -> int:
        """Process id of a run that is under way on this machine, which carries the run's id in its environment.

        Raises:
            LookupError: When there is none.
        """
        mark = f"PREFECT__FLOW_RUN_ID={run_id}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    return int(entry.name)
        raise LookupError(f"no process of the run {run_id} is there")

    def emit(self, event: str, resource: Mapping[str, str], payload: Mapping[str, Any], related: Any = ()) -> None:
        """An event from another system, over the same API that it would use."""
        now = datetime.now(UTC).isoformat()
        body = {"occurred": now, "event": event, "resource": dict(resource), "payload": dict(payload)}
        self.send("/events", [{**body, "related": list(related), "id": str(uuid.uuid4())}])

    def _has_worker(self) -> bool:
        found = self.call(f"/work_pools/{POOL}/workers/filter", "POST")
        return any(one["name"] == "live" and one["status"] == "ONLINE" for one in found)

    def _program(self, name: str, *arguments: str) -> Program:
        return Program(name, [sys.executable, "-m", *arguments], self.environment, self.folder / f"{name}.log")


def named(deployment: Mapping[str, Any]) -> str:
    """``flow/deployment`` of an entry of prefect.yaml."""
    return f"{str(deployment['entrypoint']).rpartition(':')[2]}/{deployment['name']}"


def recent_scene(home: Path, mlflow_template: Path) -> Scene:
    """A home with customers of the last sixty days and a policy: what happens there happens now."""
    from scene import PER_DAY, Scene

    from rehearsal.churn import customers

    home.mkdir(parents=True)
    shutil.copy(mlflow_template, home / "mlflow.db")
    scene = Scene(home)
    start = datetime.now(UTC) - timedelta(days=60)
    scene.write(customers(60 * PER_DAY, start=start, days=60, seed=1))
    scene.policy()
    return scene


@contextmanager
def standing(folder: Path, mlflow_template: Path, prefect_template: Path, **more: str) -> Iterator[Live]:
    """A server with every deployment (nothing is scheduled), a worker, and version 1 of churn in Production.

    Args:
        folder: To keep everything in.
        mlflow_template: A migrated MLflow database.
        prefect_template: A migrated Prefect database.
        more: Environment of server and worker.
    """
    live = Live(folder, recent_scene(folder / "home", mlflow_template), more=more)
    live.begin_with(prefect_template)
    try:
        live.start_server()
        live.call("/work_pools/", "POST", name=POOL, type="process")
        live.worker.launch()
        live.deploy()
        until(live._has_worker, told="the worker did not come")  # its imports and the deploying share their seconds
        first = live.ended(live.run("retrain/churn", policy=live.scene.policy()))
        assert first["state_name"] == "Promoted", (first["state"], live.worker.said())
        yield live
    finally:
        live.worker.end(seconds=3)  # it would wait for what it runs, and nobody asks any more what comes of that
        live.server.end()


def wait(seconds: float) -> None:
    """Let the clock of the real servers go on."""
    time.sleep(seconds)
