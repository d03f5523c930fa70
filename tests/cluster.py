"""A simulated Kubernetes API with one InferenceService, which behaves as the real one does as far as it is used here.

No cluster was asked: what it does is written down from the documentation of Kubernetes (merge patches, resource
versions, status codes) and of KServe (``canaryTrafficPercent``, revisions, the status of the predictor).
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread
from typing import Any

PATH = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/churn"
TOKEN = "let-me-in"  # noqa: S105  of a server that lives as long as a test


class Cluster(ThreadingHTTPServer):
    """The API server and KServe's controller behind it.

    Attributes:
        object: The InferenceService.
        delay: Seconds before an answer.
        failing: What is answered instead, by method: a status.
        reconciles: The controller carries out what is asked.
        intruder: What somebody else does just before the next patches.
        patches: That were taken.
        ready: The newest revision answers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.lock = RLock()
        self.delay = 0.0
        self.failing: dict[str, int] = {}
        self.reconciles, self.ready = True, True
        self.intruder: list[Callable[[], None]] = []
        self.patches: list[dict[str, Any]] = []
        self.before = "churn-predictor-00001"
        self.object: dict[str, Any] = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "churn", "namespace": "models", "resourceVersion": "1", "generation": 1},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "mlflow"}, "storageUri": "s3://models/1"}}},
        }
        self.newest = self.before
        self.annotate(version="1")
        self.reconcile()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def annotate(self, **names: str) -> None:
        """What whoever deploys says."""
        annotations = self.object["metadata"].setdefault("annotations", {})
        annotations.update({f"backstop/{name}": value for name, value in names.items()})

    def deploy(self, version: str, *, beside: str, percent: int = 0) -> None:
        """A new revision beside the one that is rolled out, as a team's own pipeline does it."""
        with self.lock:
            self.annotate(version=version, baseline=beside)
            self.before, self.newest = self.newest, f"churn-predictor-0000{version}"
            self.change({"spec": {"predictor": {"canaryTrafficPercent": percent}}})

    def change(self, patch: dict[str, Any]) -> None:
        """Apply a merge patch (RFC 7386), and let the controller see it."""
        before = copy.deepcopy(self.object["spec"])
        self.object = merged(self.object, {name: patch[name] for name in ("spec",) if name in patch})
        metadata = self.object["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        metadata["generation"] += self.object["spec"] != before
        if self.reconciles:
            self.reconcile()

    def reconcile(self) -> None:
        """What the controller does: spread the traffic, and say so."""
        percent = self.object["spec"]["predictor"].get("canaryTrafficPercent", 100)
        traffic = [{"latestRevision": True, "percent": percent, "revisionName": self.newest}]
        if percent < 100:
            traffic.append({"latestRevision": False, "percent": 100 - percent, "revisionName": self.before})
        predictor = {
            "latestCreatedRevision": self.newest,
            "latestReadyRevision": self.newest if self.ready else self.before,
            "traffic": traffic,
        }
        generation = self.object["metadata"]["generation"]
        self.object["status"] = {"observedGeneration": generation, "components": {"predictor": predictor}}

    @property
    def percent(self) -> int | None:
        """What the spec asks for."""
        asked: int | None = self.object["spec"]["predictor"].get("canaryTrafficPercent")
        return asked


def merged(base: Any, patch: Any) -> Any:
    """A merge patch applied: null takes a key out."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def status(code: int, message: str) -> dict[str, Any]:
    """An error, as Kubernetes says it."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


class _Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if cluster := self._admitted():
            self._say(200, cluster.object)

    def do_PATCH(self) -> None:
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if cluster := self._admitted():
            with cluster.lock:
                self._say(*self._patched(cluster, patch))

    def _patched(self, cluster: Cluster, patch: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.headers["Content-Type"] != "application/merge-patch+json":
            return 415, status(415, "the body of the request was in an unknown format")
        if cluster.intruder:
            cluster.intruder.pop(0)()
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != cluster.object["metadata"]["resourceVersion"]:
            return 409, status(409, "the object has been modified; apply your changes to the latest version")
        cluster.patches.append(patch)
        cluster.change(patch)
        return 200, cluster.object

    def _admitted(self) -> Cluster | None:
        cluster = self.server
        assert isinstance(cluster, Cluster)
        time.sleep(cluster.delay)
        if self.command in cluster.failing:
            code = cluster.failing[self.command]
            self._say(code, status(code, "the server is currently unable to handle the request"))
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, status(401, "Unauthorized"))
        elif self.path != PATH:
            name = self.path.rpartition("/")[2]
            self._say(404, status(404, f'inferenceservices.serving.kserve.io "{name}" not found'))
        else:
            return cluster
        return None

    def _say(self, code: int, what: dict[str, Any]) -> None:
        body = json.dumps(what).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return  # the client has hung up

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def cluster() -> Iterator[Cluster]:
    """One that answers until the block ends."""
    with Cluster() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
