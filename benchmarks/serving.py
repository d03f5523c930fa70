"""What the gateway costs beside others that serve the same model: a logistic regression, and then a forest.

``python -m benchmarks.serving [--only logistic,forest]``: `mlflow models serve`, MLServer where it is installed
(``MLSERVER`` names the Python of an environment that has mlserver and mlserver-sklearn; it takes the last step of the
model alone, and fits a forest of its own), a bare Starlette app that calls predict on numpy, and the gateway, which
checks every row and records every answer. All run at once, one worker each, and are asked in turn, round after round;
each round compares with its own others. Processor seconds are those of the server and its children, as Linux counts
them; those of the gateway, and its time, run until the last answer is in the request log.

Wanted: at most a tenth of MLflow's processor time per request and ten times its requests, ahead of MLServer, and 0.7
of the requests of the bare app.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.load import Seen, connect, request, together
from benchmarks.process import Process, running
from benchmarks.proof import Line, conclude
from benchmarks.serving_home import FOREST, LOGISTIC, NAMES, Home, rows
from tasks import artifact
from tests.servers import free_port

LIMIT = 0.7
"""Of the bare app's requests per second."""
_CPU, _REQUESTS = 0.1, 10.0
"""Of MLflow's processor time per request, and of its requests per second."""
_BODIES = 200
MODELS = {"logistic": LOGISTIC, "forest": FOREST}


@dataclass(frozen=True, slots=True)
class Took:
    """One server in one round.

    Attributes:
        rate: Requests per second.
        cpu: Processor seconds per request.
        middle: Seconds that the median request took.
    """

    rate: float
    cpu: float
    middle: float


@dataclass(frozen=True, slots=True)
class Server:
    """One that is measured.

    Attributes:
        name: For the table.
        process: That answers.
        messages: Bytes of requests, in turn.
        drained: Waits until everything that follows from the answers is done.
        rounds: What it took; the first one, which warms it, is not kept.
    """

    name: str
    process: Process
    messages: tuple[bytes, ...]
    drained: Callable[[], None]
    rounds: list[Took] = field(default_factory=list)

    def measure(self, *, clients: int, seconds: float) -> Took:
        """Ask for so long.

        Raises:
            RuntimeError: When a request was not answered.
        """
        cpu, begun = self.process.cpu(), time.perf_counter()
        seen = together(self.process.port, self._message, clients=clients, seconds=seconds)
        self.drained()
        took, spent = time.perf_counter() - begun, self.process.cpu() - cpu
        _see_answered(self.name, seen)
        return Took(len(seen) / took, spent / len(seen), statistics.median(one.seconds for one in seen))

    def _message(self, number: int) -> bytes:
        return self.messages[number % len(self.messages)]


def _see_answered(name: str, seen: list[Seen]) -> None:
    bad = next((one for one in seen if one.status != 200), None)
    if bad is not None or not seen:
        raise RuntimeError(f"{name} did not answer: {bad}")


@contextmanager
def servers(home: Home) -> Iterator[list[Server]]:
    """All that can be had here, ready to answer."""
    folder, asked = home.artifact("1"), rows(_BODIES)
    plain = [json.dumps({"features": row}).encode() for row in asked]
    split = [{"columns": list(NAMES), "data": [list(row.values())]} for row in asked]
    with ExitStack() as stack:
        bare = stack.enter_context(_bare(home, folder))
        gateway = stack.enter_context(home.gateway())
        mlflow = stack.enter_context(_mlflow(home, folder))
        found = [
            Server("bare app", bare, tuple(request("/predict", one) for one in plain), _nothing),
            Server("gateway", gateway, tuple(request("/predict", one) for one in plain), lambda: _recorded(gateway)),
            Server(
                "mlflow models serve",
                mlflow,
                tuple(request("/invocations", json.dumps({"dataframe_split": one}).encode()) for one in split),
                _nothing,
            ),
        ]
        if python := os.environ.get("MLSERVER"):
            mlserver = stack.enter_context(_mlserver(home, folder, python))
            found.append(Server("MLServer", mlserver, tuple(_inference(row) for row in asked), _nothing))
        yield found


def _nothing() -> None:
    """Nothing follows from an answer."""


def _recorded(gateway: Process) -> None:
    """Until every answer of the gateway is in the request log."""
    while True:
        answered = gateway.metric("backstop_requests_total")
        if gateway.metric("backstop_recorded_rows_total", kind="requests") >= answered:
            return
        time.sleep(0.02)


@contextmanager
def _bare(home: Home, folder: Path) -> Iterator[Process]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare_app:app", "--port", str(port), "--no-access-log"]
    with running(command, port, home.folder / "bare.log", ready="/healthz", MODEL=str(folder)) as process:
        yield process


@contextmanager
def _mlflow(home: Home, folder: Path) -> Iterator[Process]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    command += ["-h", "127.0.0.1", "-p", str(port), "--workers", "1"]
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls uvicorn by its name
    with running(command, port, home.folder / "mlflow.log", ready="/ping", PATH=here) as process:
        yield process


_WEIGHED = (
    "import json, sys, joblib, numpy; from sklearn.linear_model import LogisticRegression; "
    "given = json.loads(sys.argv[1]); one = LogisticRegression(); "
    "[setattr(one, name, numpy.array(value)) for name, value in given.items()]; "
    "one.n_features_in_ = one.coef_.shape[1]; joblib.dump(one, 'model.joblib')"
)
_FITTED = (
    "import json, sys, joblib, pandas; from sklearn.ensemble import RandomForestClassifier; "
    "given = json.loads(sys.argv[1]); rows = pandas.read_csv(given['rows']); "
    "one = RandomForestClassifier(**given['params']); "
    "one.fit(rows.drop(columns=['repaid', 'asked_at']).to_numpy(), rows['repaid'].to_numpy()); "
    "joblib.dump(one, 'model.joblib')"
)
"""Run where MLServer is, whose scikit-learn may be another one."""


@contextmanager
def _mlserver(home: Home, folder: Path, python: str) -> Iterator[Process]:
    """MLServer with the last step of the model: it takes numbers that are scaled already, which is less work."""
    port, rest = free_port(), free_port()
    place = home.folder / "mlserver"
    place.mkdir(exist_ok=True)
    if type(artifact.load(folder)[-1]).__name__ == "LogisticRegression":
        code, given = _WEIGHED, json.dumps(_weights(folder))
    else:
        code, given = _FITTED, json.dumps({"rows": str(home.folder / "loan.csv"), "params": FOREST["params"]})
    subprocess.run([python, "-c", code, given], cwd=place, check=True)
    model = {"name": "loan", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "model.joblib"}}
    (place / "model-settings.json").write_text(json.dumps(model), "utf-8")
    settings = {"http_port": port, "grpc_port": rest, "metrics_port": free_port(), "host": "127.0.0.1"}
    (place / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}), "utf-8")
    command = [python, "-m", "mlserver.cli.main", "start", str(place)]
    with running(command, port, home.folder / "mlserver.log", ready="/v2/models/loan/ready") as process:
        yield process


def _weights(folder: Path) -> dict[str, Any]:
    last = artifact.load(folder)[-1]
    return {name: getattr(last, name).tolist() for name in ("coef_", "intercept_", "classes_")}


def _inference(row: dict[str, float]) -> bytes:
    values = {"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": list(row.values())}
    return request("/v2/models/loan/infer", json.dumps({"inputs": [values]}).encode())


def _same_answers(found: list[Server]) -> None:
    """They serve the same model; MLServer is given other numbers, and only has to answer.

    Raises:
        RuntimeError: When they say different things.
    """
    said: dict[str, list[Any]] = {}
    for server in found[:3]:
        place = "predictions" if server.name.startswith("mlflow") else "prediction"
        said[server.name] = []
        for message in server.messages[:20]:
            answer = json.loads(_once(server, message).body)[place]
            said[server.name].append(answer[0] if isinstance(answer, list) else answer)
    if len({json.dumps(one) for one in said.values()}) != 1:
        raise RuntimeError(f"the servers do not say the same: {said}")


def _once(server: Server, message: bytes) -> Seen:
    async def ask() -> Seen:
        client = await connect(server.process.port)
        seen = await client.ask(message)
        if client.transport is not None:
            client.transport.close()
        return seen

    return asyncio.run(ask())


def ratio(one: Server, other: Server, what: str) -> float:
    """Median over the rounds, each against the other's same round."""
    pairs = zip(one.rounds, other.rounds, strict=True)
    return float(statistics.median(getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs))


def main() -> None:
    """Run it, print a table and the JSON line.

    Raises:
        SystemExit: 1 when anything that is wanted is missed.
    """
    asked = argparse.ArgumentParser(description="What the gateway costs beside others that serve the same model.")
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--seconds", type=float, default=2.0)
    asked.add_argument("--clients", type=int, default=16)
    asked.add_argument("--only", default=",".join(MODELS), help="models, with commas between them")
    given = asked.parse_args()
    lines = []
    for kind in given.only.split(","):
        with tempfile.TemporaryDirectory(prefix="serving-") as scratch:
            home = Home(Path(scratch) / "home", {})
            home.begin()
            home.move("promote", home.train(MODELS[kind]))
            with servers(home) as found:
                _same_answers(found)
                for number in range(given.rounds + 1):
                    for server in found:
                        took = server.measure(clients=given.clients, seconds=given.seconds)
                        if number:
                            server.rounds.append(took)
                alone = {one.name: one.measure(clients=1, seconds=given.seconds) for one in found}
        lines += _told(kind, found, alone)
    raise SystemExit(conclude("serving", lines, rows=True))


def _told(kind: str, found: list[Server], alone: dict[str, Took]) -> list[Line]:
    bare, gateway, mlflow, *others = found
    print(kind)
    for one in found:
        rate, cpu = (statistics.median(getattr(took, what) for took in one.rounds) for what in ("rate", "cpu"))
        print(
            f"{one.name:20} {rate:7.0f} requests/s ({ratio(one, bare, 'rate'):5.2f} of the bare app), "
            f"cpu {1e6 * cpu:6.0f} us a request ({ratio(one, bare, 'cpu'):5.2f}); "
            f"one client {alone[one.name].rate:6.0f}/s, median {1000 * alone[one.name].middle:.2f} ms"
        )
    if not others:
        print("MLServer             not installed (MLSERVER names the Python of an environment that has it)")
    lines = [
        _line("requests, of those of a bare app", gateway, bare, "rate", LIMIT),
        _line("processor time of a request, of a bare app's", gateway, bare, "cpu", None),
        _line("requests, of those of mlflow models serve", gateway, mlflow, "rate", _REQUESTS),
        _line("processor time of a request, of mlflow models serve's", gateway, mlflow, "cpu", _CPU),
    ]
    for other in others:
        lines.append(_line("requests, of those of MLServer", gateway, other, "rate", 1.0))
        lines.append(_line("processor time of a request, of MLServer's", gateway, other, "cpu", 1.0))
    return [replace(one, what=f"{kind}: {one.what}") for one in lines]


def _line(what: str, gateway: Server, other: Server, measure: str, limit: float | None) -> Line:
    ours, theirs = (statistics.median(getattr(took, measure) for took in one.rounds) for one in (gateway, other))
    rate = measure == "rate"
    told = f"{ours:,.0f}/s against {theirs:,.0f}/s" if rate else f"{1e6 * ours:,.0f} us against {1e6 * theirs:,.0f} us"
    return Line(what=what, value=ratio(gateway, other, measure), limit=limit, least=rate, told=told)


if __name__ == "__main__":
    main()
