"""``make up``: start what does not run, deploy what is not deployed, and say where to look."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from stack import databases, example
from stack.program import heard
from stack.server import Server
from stack.settings import ROOT, Settings, StackError
from stack.supervision import Supervision

_PATIENCE = 300.0
"""Seconds that a server may take; the first start makes its tables, and imports alone take half a minute on a busy
machine."""

_EXAMPLE = "retrain/churn"


def main() -> None:
    """Bring everything up.

    Raises:
        SystemExit: 1, with what is wrong and what to do, on standard error.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        settings = Settings.from_environment()
        settings.make_folders()
        with _alone(settings):
            Stack(settings, console).up()
    except StackError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]make up:[/] {escape(str(error))}")
        raise SystemExit(1) from error


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Only one `make up` or `make down` at a time."""
    with (settings.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError("another `make up` or `make down` is under way; wait until it has ended") from None
        yield


class Stack:
    """What is brought up, step by step; each does only what is missing."""

    def __init__(self, settings: Settings, console: Console) -> None:
        """Nothing is started yet."""
        self.settings, self.console = settings, console
        self.supervision = Supervision(settings)
        self.server = Server(settings.prefect)

    def up(self) -> None:
        """All steps in order.

        Raises:
            StackError: When one of them cannot be done; what was started stays.
        """
        kept = self._remembered()
        self._agree(kept)
        was_up = self.supervision.running()
        if not was_up:
            self._begin()
        started = self._servers()
        written = example.write(self.settings.home / "data" / "churn.csv")
        self.server.make_pool()
        deployed = self._deploy(kept.get("deployed"))
        self._automate()
        started += self._worker()
        started += self._listener()
        first = written and _EXAMPLE in self.server.deployments()
        if first:
            self.server.start(_EXAMPLE)
        self._remember()
        self._tell(was_up=was_up, started=started, deployed=deployed, first=first)

    # What was chosen the last time.

    def _remembered(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads(self.settings.memory.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return kept

    def _agree(self, kept: Mapping[str, Any]) -> None:
        """See that this is the stack that was up before: another database would be another history."""
        shown = self.settings.shown
        memory = self.settings.memory
        if kept and kept.get("DATABASE") != shown["DATABASE"]:
            raise StackError(
                f"this stack keeps its state at {kept.get('DATABASE')}, and DATABASE now says {shown['DATABASE']}: "
                f"another history, another Production. Say DATABASE={kept.get('DATABASE')} (with the password), or "
                f"begin anew with BACKSTOP_HOME=<another folder>, or remove {memory} if you know that you want to"
            )
        moved = {name: kept[name] for name in shown if kept and kept.get(name) != shown[name]}
        if moved and self.supervision.running():
            was = ", ".join(f"{name}={value}" for name, value in moved.items())
            raise StackError(f"the stack is up with {was}; run `make down` first, or say the same again")

    def _remember(self) -> None:
        kept = self.settings.shown | {"deployed": _digest(ROOT / "prefect.yaml")}
        self.settings.memory.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.settings.told.items()]
        if "DATABASE" not in self.settings.told and self.settings.database is not None:
            lines.append("# DATABASE and BACKSTOP_LEDGER have a password and are yours to set: see docs/deploy.md")
        (self.settings.folder / "env").write_text("\n".join(lines) + "\n", "utf-8")

    # The servers.

    def _begin(self) -> None:
        taken = [
            f"port {port} of 127.0.0.1 is taken by another process; end it, or choose another one: make up {name}="
            f"{port + 1}"
            for name, port in (("PREFECT_PORT", self.settings.prefect_port), ("MLFLOW_PORT", self.settings.mlflow_port))
            if _taken(port)
        ]
        if taken:
            raise StackError("\n".join(taken))
        if self.settings.database is not None:
            made = databases.prepare(self.settings.database)
            if made:
                self.console.print(f"Made the databases {', '.join(made)}.")
        self.supervision.launch()

    def _servers(self) -> tuple[str, ...]:
        started = tuple(name for name in ("prefect", "mlflow") if self.supervision.start(name))
        if started:
            self.console.print(f"Starting {' and '.join(started)} (the first time takes a minute) ...")
        self._wait("prefect", self.server.healthy, self.settings.prefect)
        self._wait("mlflow", lambda: _answers(f"{self.settings.mlflow}/health"), self.settings.mlflow)
        return started

    def _wait(self, name: str, ready: Callable[[], bool], what: str) -> None:
        """Until it is ready; as long as it ends and is started again, for the whole patience.

        Raises:
            StackError: With the end of its log.
        """
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            state = self.supervision.processes()[name].state
            if state == "RUNNING" and ready():
                return
            if state in {"FATAL", "EXITED", "STOPPED"}:
                break
            time.sleep(0.3)
        log = self.settings.log(name)
        end = "\n".join(f"    {line}" for line in _tail(log))
        raise StackError(
            f"{name} ({what}) is {self.supervision.processes()[name].state} and does not answer. Its log {log} ends:\n"
            f"{end}\nMend it and run `make up` again; `make down` ends what was started"
        )

    # What is deployed.

    def _deploy(self, before: object) -> tuple[str, ...]:
        """Deploy prefect.yaml where it has changed or something is missing; a schedule that was paused stays paused.

        Deploying sets the schedules anew: nothing is done as long as nothing is missing.
        """
        file = ROOT / "prefect.yaml"
        there = self.server.deployments()
        wanted = _names(file)
        if before == _digest(file) and wanted <= set(there):
            return ()
        paused = [name for name in sorted(wanted) if there.get(name, {}).get("paused")]
        self._run("deploy", "prefect", "--no-prompt", "deploy", "--all")
        for name in paused:
            self.server.pause(there[name])
            self.console.print(f"[yellow]{name} was paused and stays so; resume it on its page.[/]")
        return tuple(sorted(wanted))

    def _automate(self) -> None:
        """Set up the automations, which name deployments by their ids."""
        if (ROOT / "flows" / "automations.py").exists():
            warned = self._run("automations", "flows.automations")
            if warned:
                self.console.print(f"[bold red]{escape(warned)}[/]")

    def _run(self, name: str, *module: str) -> str:
        """A command to its end, with its words in a log.

        Returns:
            What it said on standard error.

        Raises:
            StackError: When it fails.
        """
        log = self.settings.log(name)
        with log.open("w", encoding="utf-8") as words:
            done = subprocess.run(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env=self.settings.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.PIPE,
                check=False,
                text=True,
            )
            words.write(done.stderr)
        if done.returncode:
            end = "\n".join(f"    {line}" for line in _tail(log))
            raise StackError(f"`python -m {' '.join(module)}` failed. Its log {log} ends:\n{end}")
        return done.stderr.strip()

    def _worker(self) -> tuple[str, ...]:
        started = ("worker",) if self.supervision.start("worker") else ()
        self._wait("worker", self.server.has_worker, "which runs the flows")
        return started

    def _listener(self) -> tuple[str, ...]:
        """Where a policy reads from PostgreSQL: hears of its rows as they come (`flows.listen --install` once)."""
        return ("listen",) if heard(ROOT / "policies") and self.supervision.start("listen") else ()

    # What is said.

    def _tell(self, *, was_up: bool, started: tuple[str, ...], deployed: tuple[str, ...], first: bool) -> None:
        settings, say = self.settings, self.console.print
        if was_up:
            say(f"It was up already. Started again: {', '.join(started)}." if started else "It was up already.")
        say("")
        say(f"  Prefect   [bold]{settings.prefect}[/]   flow runs, reports, schedules, the forms to start one by hand")
        say(f"  MLflow    [bold]{settings.mlflow}[/]   runs, versions, stages")
        say(f"  State     {settings.home}")
        say(f"  Logs      {settings.folder}/*.log")
        if deployed:
            say(f"  Deployed  {', '.join(deployed)}")
        if first:
            say("")
            say(f"A first run of {_EXAMPLE} on generated customers has been asked for; its page is in Prefect's list.")
        say("")
        say(f"  . {os.path.relpath(settings.folder / 'env')}   points your shell here, for commands such as")
        say("    .venv/bin/prefect deployment run retrain/churn -p dry_run=true")
        say("  make status         what runs")
        say("  make down           ends exactly this; `make up` goes on with all state")


def _names(file: Path) -> set[str]:
    import yaml  # noqa: PLC0415  not needed for the other commands

    found = yaml.safe_load(file.read_text("utf-8"))["deployments"]
    return {f"{one['entrypoint'].rpartition(':')[2]}/{one['name']}" for one in found}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  always http, 127.0.0.1
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _tail(log: Path, lines: int = 15) -> list[str]:
    try:
        return log.read_text("utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return ["(it has said nothing)"]


if __name__ == "__main__":
    main()
