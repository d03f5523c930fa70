"""What the tests of events share: the automations of the repository on the real server, and a person who is told."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_live import ROOT, Live
from servers import until

from flows.automations import set_up

FOLDER = ROOT / "automations"
MODEL = {
    "prefect.resource.id": "backstop.model.churn",
    "prefect.resource.name": "churn",
    "prefect.resource.role": "model",
}
ELSEWHERE = MODEL | {"backstop.source": "a drift monitor"}


@dataclass
class Sink:
    """A real HTTP server that a person reads: apprise sends JSON to it."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """For BACKSTOP_NOTIFY."""
        return f"json://127.0.0.1:{self.port}/on-call-7f3a"

    def told(self, *words: str, seconds: float = 60) -> dict[str, Any]:
        """Wait for a message that holds all these words; returns it."""
        until(lambda: self._with(words), told=f"nobody was told {words}; only {self.messages}", seconds=seconds)
        return self._with(words)[0]

    def _with(self, words: tuple[str, ...]) -> list[dict[str, Any]]:
        return [one for one in self.messages if all(word in f"{one['title']}\n{one['message']}" for word in words)]


@contextmanager
def sink() -> Iterator[Sink]:
    """A person who can be told."""
    told = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def reacting(live: Live, folder: Path = FOLDER) -> Iterator[Sink]:
    """The automations of a folder on the server, and somebody who is told; both are gone afterwards."""
    with sink() as told:
        try:
            put(live, folder, told)
            yield told
        finally:
            for one in automations(live):
                removed(live, f"/automations/{one['id']}")
            for block in live.call("/block_documents/filter", "POST"):
                removed(live, f"/block_documents/{block['id']}")


def removed(live: Live, path: str) -> None:
    """Remove something; SQLite behind a busy server may be locked for the moment."""

    def gone() -> bool:
        try:
            live.call(path, "DELETE")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        return True

    until(gone, told=f"{path} could not be removed", seconds=60)


def put(live: Live, folder: Path, told: Sink, *, check: bool = False) -> dict[str, str]:
    """Set them up in this process, which spares ten seconds of imports; what was done, by name."""
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: live.url}):
        patch.setenv("BACKSTOP_NOTIFY", told.url)
        changes, _ = asyncio.run(set_up(folder, "policies", check=check))
    return {change.name: change.what for change in changes}


def automations(live: Live) -> list[dict[str, Any]]:
    """All that the server has."""
    found: list[dict[str, Any]] = live.call("/automations/filter", "POST")
    return found


def command(live: Live, *arguments: str, **environment: str) -> tuple[int, str]:
    """``python -m flows.automations ...``; its exit code, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.automations", *arguments],
        env={**live.environment, "COLUMNS": "200", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@contextmanager
def nobody_works(live: Live) -> Iterator[None]:
    """Runs are created and stay as they are: the pool is paused. They are removed afterwards."""
    live.call("/work_pools/backstop", "PATCH", is_paused=True)
    try:
        yield
    finally:
        for name in ("retrain/on-event", "approve/by-event"):
            for run in live.runs(name):
                if run["state_type"] in {"SCHEDULED", "PENDING"}:
                    removed(live, f"/flow_runs/{run['id']}")
        live.call("/work_pools/backstop", "PATCH", is_paused=False)


def since(live: Live, name: str, before: set[str]) -> list[dict[str, Any]]:
    """Runs of a deployment that were not there before."""
    return [run for run in live.runs(name) if run["id"] not in before]


def ids(live: Live, name: str) -> set[str]:
    """Of all runs of a deployment."""
    return {run["id"] for run in live.runs(name)}


def process_of(run_id: str) -> int:
    """The process of a flow run, by the run id in its environment.

    Raises:
        ProcessLookupError: When there is none.
    """
    mark = run_id.encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if path.stat().st_uid == os.getuid() and mark in path.read_bytes():
                return int(path.parent.name)
        except OSError:
            continue
    raise ProcessLookupError(f"no process runs {run_id}")
