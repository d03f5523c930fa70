"""The stack's own Prefect server, as its client: health, pool, deployments, runs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from stack.settings import POOL, WORKER

_PATIENCE = 60.0
"""Seconds in which a server that is busy is asked again: on SQLite it answers 503 while its database is locked."""
_BUSY = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE})


class Server:
    """Prefect's server over HTTP."""

    def __init__(self, address: str) -> None:
        """Of the server's page; nothing is asked yet."""
        self._http = httpx.Client(base_url=f"{address}/api", timeout=30)

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            return self._http.get("/health").json() is True
        except (httpx.HTTPError, ValueError):
            return False

    def make_pool(self) -> bool:
        """The pool that the deployments name; whether it had to be made."""
        answer = self._ask("POST", "/work_pools/", name=POOL, type="process")
        if answer.status_code == httpx.codes.CONFLICT:
            return False
        answer.raise_for_status()
        return True

    def has_worker(self) -> bool:
        """Whether the stack's worker has reported lately."""
        found = self._post(f"/work_pools/{POOL}/workers/filter")
        return any(one["name"] == WORKER and one["status"] == "ONLINE" for one in found)

    def deployments(self) -> dict[str, dict[str, Any]]:
        """All deployments, by ``flow/deployment``."""
        flows = {one["id"]: one["name"] for one in self._pages("/flows/filter")}
        return {f"{flows.get(one['flow_id'], '?')}/{one['name']}": one for one in self._pages("/deployments/filter")}

    def pause(self, deployment: dict[str, Any]) -> None:
        """Let a deployment's schedules rest."""
        self._ask("PATCH", f"/deployments/{deployment['id']}", paused=True).raise_for_status()

    def start(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run of a deployment; returns the run's id."""
        found = self.deployments()[deployment]["id"]
        once = {"parameters": parameters, "idempotency_key": str(uuid.uuid4())}  # however often it is asked
        answer = self._ask("POST", f"/deployments/{found}/create_flow_run", **once)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def runs(self, flow: str, state: str) -> list[dict[str, Any]]:
        """Runs of a flow in a state of this type, such as RUNNING."""
        wanted = {"state": {"type": {"any_": [state]}}}
        return list(self._pages("/flow_runs/filter", flow_runs=wanted, flows={"name": {"any_": [flow]}}))

    def end_orphans(self, reason: str) -> list[str]:
        """Say of the runs whose worker was just ended that they are no more; their names."""
        wanted = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        orphans = list(self._pages("/flow_runs/filter", flow_runs=wanted, work_pools={"name": {"any_": [POOL]}}))
        for run in orphans:
            self._end(run["id"], "CRASHED", reason)
        return [str(run["name"]) for run in orphans]

    def _end(self, run_id: str, state: str, message: str) -> None:
        said = {"type": state, "name": state.title(), "message": message}
        self._ask("POST", f"/flow_runs/{run_id}/set_state", state=said, force=True).raise_for_status()

    def _pages(self, path: str, **body: Any) -> Iterator[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._post(path, limit=200, offset=len(found), **body)
            found += page
            if len(page) < 200:
                return iter(found)

    def _post(self, path: str, **body: Any) -> list[dict[str, Any]]:
        answer = self._ask("POST", path, **body)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Its answer; asked again while it is busy. All that is asked here may be asked twice."""
        until = time.monotonic() + _PATIENCE
        while True:
            answer = self._http.request(method, path, json=body)
            if answer.status_code not in _BUSY or time.monotonic() > until:
                return answer
            time.sleep(1)
