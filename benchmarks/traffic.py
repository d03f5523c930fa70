"""Ten minutes of mixed traffic on a real gateway, counted at the client and in the log.

``python -m benchmarks.traffic [--minutes 10]``: clients send single rows, batches and MLflow's forms, and labels for
half of the answers a few seconds later. Meanwhile a version is promoted, the log database is stopped and started again,
a canary begins and is aborted while MLflow is away, and Production is rolled back. Wanted: every request answered, each
answer in the log once and as the client got it, each label with its request, no row dropped, memory that does not grow.

The log database is PostgreSQL where its programs are installed, otherwise a SQLite file that is moved away meanwhile.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, select

from benchmarks.proof import Line, conclude
from benchmarks.shopfront import MODEL, Gateway, Shopfront
from tasks import schema
from tests.servers import NotInstalled, Postgres, postgres, until

ROW: dict[str, Any] = {
    "tenure_months": 12,
    "monthly_charges": 70.5,
    "total_charges": 840.0,
    "contract": "one year",
    "payment": "card",
    "support_calls": 2,
}
LABELLED, TWICE, NOBODYS = 0.5, 0.1, 0.02
"""Shares of the answers that get a label, of the labels that come twice, and of labels for requests that never were."""
GROWTH_MB = 25.0
"""More than this between the second quarter of the time and the last one is no flat memory."""


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        answers: (version, prediction) by request id.
        labels: By request id, as they were taken.
        failures: What was not answered as it should be, by what it was.
        seconds: Of each request.
        memory: (share of the time, bytes) of the gateway.
    """

    answers: dict[str, tuple[str, str]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    nobodys: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    due: list[tuple[float, str]] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)


class Client:
    """Asks without a pause to speak of, in every form that there is."""

    def __init__(self, name: str, url: str, seen: Seen, *, pause: float) -> None:
        self._name, self._seen, self._pause = name, seen, pause
        self._http = httpx.Client(base_url=url, timeout=30)
        self._draw = random.Random(name)
        self._number = 0

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        forms = {"single": 0.6, "batch": 0.2, "split": 0.07, "records": 0.07, "inputs": 0.06}
        with self._http:
            while not stop.is_set():
                form = self._draw.choices([*forms], [*forms.values()])[0]
                rows = 1 if form == "single" else self._draw.randint(2, 20)
                self._ask(form, [self._name_one() for _ in range(rows)])
                time.sleep(self._draw.random() * 2 * self._pause)

    def _name_one(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    def _ask(self, form: str, names: list[str]) -> None:
        begun = time.monotonic()
        try:
            answer = self._http.post(
                "/invocations" if form in {"split", "records"} else "/predict", json=_body(form, names)
            )
            found = _answers(form, answer.json()) if answer.status_code == 200 else {}
        except (httpx.HTTPError, ValueError, KeyError) as error:
            with self._seen.guard:
                self._seen.failures[type(error).__name__] += 1
            return
        with self._seen.guard:
            self._seen.seconds.append(time.monotonic() - begun)
            self._seen.requests[form] += 1
            if set(found) != set(names):
                self._seen.failures[f"status {answer.status_code}"] += 1
            self._seen.answers.update(found)
            later = begun + self._draw.uniform(0.2, 6)
            self._seen.due += [(later, name) for name in found if self._draw.random() < LABELLED]


def _body(form: str, names: list[str]) -> dict[str, Any]:
    keys = [f"customer {hash(name) % 500}" for name in names]
    if form == "single":
        return {"features": ROW, "request_id": names[0], "key": keys[0]}
    if form == "batch":
        return {
            "rows": [{"features": ROW, "request_id": one, "key": key} for one, key in zip(names, keys, strict=True)]
        }
    tables: dict[str, dict[str, Any]] = {
        "split": {"dataframe_split": {"columns": [*ROW], "data": [[*ROW.values()]] * len(names)}},
        "records": {"dataframe_records": [ROW] * len(names)},
        "inputs": {"inputs": {name: [value] * len(names) for name, value in ROW.items()}},
    }
    return {**tables[form], "request_ids": names, "keys": keys}


def _answers(form: str, answer: dict[str, Any]) -> dict[str, tuple[str, str]]:
    if form == "single":
        return {answer["request_id"]: (answer["version"], answer["prediction"])}
    if form == "batch":
        return {one["request_id"]: (one["version"], one["prediction"]) for one in answer["answers"]}
    rows = zip(answer["request_ids"], answer["versions"], answer["predictions"], strict=True)
    return {name: (version, said) for name, version, said in rows}


def label(url: str, seen: Seen, stop: threading.Event) -> None:
    """Send labels once they are due, some of them twice, some for nobody; the rest at the end."""
    draw = random.Random(1)
    with httpx.Client(base_url=url, timeout=30) as http:
        while True:
            over = stop.wait(0.2)
            with seen.guard:
                now = time.monotonic()
                ready = [name for at, name in seen.due if at <= now or over]
                seen.due = [] if over else [one for one in seen.due if one[0] > now]
            for start in range(0, len(ready), 50):
                _send(http, ready[start : start + 50], seen, draw)
            if over:
                return


def _send(http: httpx.Client, names: list[str], seen: Seen, draw: random.Random) -> None:
    told = {name: draw.choice(("yes", "no")) for name in names}
    again = [name for name in names if draw.random() < TWICE]
    nobodys = [f"nobody-{draw.getrandbits(60)}" for _ in names if draw.random() < NOBODYS]
    rows = [{"request_id": name, "label": told.get(name, "no")} for name in (*names, *again, *nobodys)]
    answer = http.post("/feedback", json={"labels": rows})
    with seen.guard:
        if answer.status_code == 202:
            seen.labels |= told
            seen.nobodys += len(nobodys)
        else:
            seen.failures[f"feedback {answer.status_code}"] += 1


def remember(gateway: Gateway, seen: Seen, stop: threading.Event, seconds: float) -> None:
    """The gateway's memory, a few dozen times."""
    begun = time.monotonic()
    while not stop.wait(seconds / 80):
        share = (time.monotonic() - begun) / seconds
        seen.memory.append((share, gateway.metric("process_resident_memory_bytes")))


@dataclass
class Log:
    """The log database, which can be away for a while."""

    url: str
    stop: Callable[[], None]
    start: Callable[[], None]


@contextmanager
def log_database(home: Path) -> Iterator[Log]:
    """PostgreSQL, or a file."""
    try:
        with postgres() as server:
            yield Log(server.database(), lambda: _end(server), server.start)
    except NotInstalled:
        file = home / "requests.db"
        yield Log(f"sqlite:///{file}", lambda: hide(file), lambda: bring_back(file))


def _end(server: Postgres) -> None:
    server.stop(hard=True)


def hide(path: Path) -> None:
    """A database goes away: a folder in its place cannot be opened, and nobody can make a new one."""
    aside = path.with_name(f"{path.name}.aside")
    aside.mkdir()
    for one in path.parent.glob(f"{path.name}*"):
        if one != aside:
            one.rename(aside / one.name)
    path.mkdir()


def bring_back(path: Path) -> None:
    """It is there again, as it was."""
    path.rmdir()
    aside = path.with_name(f"{path.name}.aside")
    for one in aside.iterdir():
        one.rename(path.with_name(one.name))
    aside.rmdir()


def acts(shop: Shopfront, log: Log) -> list[tuple[float, str, Callable[[], None]]]:
    """(share of the time, in words, what happens)."""
    tracking = shop.home / "mlflow.db"
    return [
        (0.12, "version 2 is promoted", lambda: shop.move("promote", "2")),
        (0.25, "the log database is stopped", log.stop),
        (0.40, "the log database is back", log.start),
        (0.48, "version 3 is staged", lambda: shop.move("stage", "3")),
        (0.50, "version 3 is a canary with 25%", lambda: shop.weigh("3", 25)),
        (0.58, "MLflow is away", lambda: hide(tracking)),
        (0.64, "the canary is aborted", lambda: shop.weigh("3", 0, "aborted")),
        (0.74, "MLflow is back", lambda: bring_back(tracking)),
        (0.82, "Production is rolled back to version 1", lambda: shop.move("rollback", "1")),
    ]


def drive(shop: Shopfront, gateway: Gateway, log: Log, *, seconds: float, clients: int, pause: float) -> Seen:
    """All of the traffic, and what happens meanwhile."""
    seen, stop, stop_labels = Seen(), threading.Event(), threading.Event()
    crowd = [Client(f"c{number}", gateway.url, seen, pause=pause) for number in range(clients)]
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in crowd]
    labels = threading.Thread(target=label, args=(gateway.url, seen, stop_labels))
    threads.append(threading.Thread(target=remember, args=(gateway, seen, stop, seconds)))
    begun = time.monotonic()
    for thread in (*threads, labels):
        thread.start()
    try:
        for share, words, act in acts(shop, log):
            time.sleep(max(0.0, begun + share * seconds - time.monotonic()))
            act()
            print(f"{time.monotonic() - begun:6.1f} s  {words}", flush=True)
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        stop_labels.set()
        labels.join(120)
    return seen


def compared(seen: Seen, url: str) -> dict[str, int]:
    """What the log has otherwise than the clients; all zeros when everything is as it should be."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    rows, truths = schema.requests.c, schema.labels.c
    with engine.connect() as connection:
        found = connection.execute(select(rows.request_id, rows.version, rows.prediction, rows.role)).all()
        labels = {row.request_id: row.label for row in connection.execute(select(truths.request_id, truths.label))}
    engine.dispose()
    served = [row for row in found if row.role != "shadow"]
    logged = {row.request_id: (row.version, row.prediction) for row in served}
    return {
        "lost": len(seen.answers.keys() - logged.keys()),
        "never asked": len(logged.keys() - seen.answers.keys()),
        "twice": len(served) - len(logged),
        "otherwise": sum(logged[name] != told for name, told in seen.answers.items() if name in logged),
        "labels lost": len(seen.labels.keys() - labels.keys()),
        "labels otherwise": sum(labels[name] != told for name, told in seen.labels.items() if name in labels),
        "labels for nobody": len(labels.keys() - logged.keys()) - seen.nobodys,
    }


def growth(memory: list[tuple[float, float]]) -> float:
    """Megabytes between the second quarter of the time and the last one."""
    early = [size for share, size in memory if 0.25 <= share < 0.5]
    late = [size for share, size in memory if share >= 0.75]
    return (statistics.median(late) - statistics.median(early)) / 1e6 if early and late else float("inf")


def measure(folder: Path, *, seconds: float, clients: int, pause: float) -> dict[str, Any]:
    """Everything, as the last line tells it."""
    shop = Shopfront(folder)
    shop.begin()
    with log_database(folder) as log:
        gateway = Gateway(shop, {"BACKSTOP_REQUESTS": log.url})
        try:
            gateway.start()
            seen = drive(shop, gateway, log, seconds=seconds, clients=clients, pause=pause)
            waiting = ("backstop_record_queue_rows", "backstop_spool_rows")
            until(lambda: not any(gateway.metric(one) for one in waiting), told="the log is not complete")
            dropped, alive = gateway.metric("backstop_dropped_rows_total"), gateway.alive
            arms = gateway.arms()
        finally:
            gateway.stop()
        wrong = compared(seen, log.url)
    wrong |= {"dropped": int(dropped), "not answered": sum(seen.failures.values()), "died": int(not alive)}
    wrong["not rolled back"] = int(arms != {"1": 100})
    grown = growth(seen.memory)
    versions = Counter(version for version, _ in seen.answers.values())
    slowest = sorted(seen.seconds)
    return {
        "value": sum(wrong.values()),
        "requests": dict(seen.requests),
        "rows": len(seen.answers),
        "labels": len(seen.labels),
        "by_version": dict(sorted(versions.items())),
        "wrong": {name: count for name, count in wrong.items() if count} | dict(seen.failures),
        "memory_growth_mb": round(grown, 1),
        "p50_ms": round(1000 * slowest[len(slowest) // 2], 1),
        "p99_ms": round(1000 * slowest[int(0.99 * len(slowest))], 1),
        "log": log.url.partition(":")[0],
        "model": MODEL,
    }


def main() -> None:
    """Measure, and end with one line of JSON; 1 when anything is not as it should be."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    asked.add_argument("--minutes", type=float, default=10.0)
    asked.add_argument("--clients", type=int, default=4)
    asked.add_argument("--pause", type=float, default=0.05, help="mean seconds between two requests of a client")
    given = asked.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="traffic-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MLflow's stages are deprecated
            found = measure(folder, seconds=60 * given.minutes, clients=given.clients, pause=given.pause)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("requests", "by_version", "wrong", "log"):
        print(f"{name:10} {found[name]}")
    told = f"of {sum(found['requests'].values()):,} requests, {found['rows']:,} rows and {found['labels']:,} labels"
    slow = f"p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms"
    lines = [
        Line(what="lost, doubled, wrong or dropped", value=found["value"], limit=0, told=told),
        Line(what="MB that the gateway has grown by", value=found["memory_growth_mb"], limit=GROWTH_MB, told=slow),
    ]
    raise SystemExit(conclude("traffic", lines, rows=True))


if __name__ == "__main__":
    main()
