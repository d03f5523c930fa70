"""The ledger's transitions reach the users, whatever is away; what cannot be verified does not."""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import NotInstalled, postgres
from shops import GOOD, Server, Shop, serving

from tasks.requests import Label, RequestLog

NOW = datetime.now(tz=UTC)


@dataclass
class Crowd:
    """Clients that ask without a pause, and what they saw: when they asked, by which name, and what came."""

    server: Server
    seen: list[tuple[float, str, int, str | None]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    @contextmanager
    def asking(self, clients: int = 3) -> Iterator[None]:
        stop = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(number, stop)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)

    def _ask(self, client: int, stop: threading.Event) -> None:
        with httpx.Client(base_url=self.server.url, timeout=30) as http:
            number = 0
            while not stop.is_set():
                number += 1
                name = f"c{client}-{number}"
                asked = time.monotonic()
                try:
                    answer = http.post("/predict", json={"features": GOOD, "request_id": name})
                except BaseException as error:  # noqa: BLE001  whatever it is, it must not happen
                    self.failures.append(error)
                    return
                version = answer.json().get("version") if answer.status_code == 200 else None
                self.seen.append((asked, name, answer.status_code, version))
                time.sleep(0.005)

    def answering(self, since: float, before: float = math.inf) -> set[str | None]:
        """The versions that answered what was asked between two moments."""
        return {version for at, _, _, version in self.seen if since < at < before}


def hide(path: Path) -> Path:
    """A database goes away: a folder in its place cannot be opened, and nobody can make a new one."""
    aside = path.with_name(f"{path.name}.aside")
    aside.mkdir()
    for one in path.parent.glob(f"{path.name}*"):
        if one != aside:
            with suppress(FileNotFoundError):  # whoever closes the database takes its log away
                one.rename(aside / one.name)
    path.mkdir()
    return aside


def bring_back(path: Path) -> None:
    path.rmdir()
    aside = path.with_name(f"{path.name}.aside")
    for one in aside.iterdir():
        one.rename(path.with_name(one.name))
    aside.rmdir()


def hold(server: Server, what: Any) -> None:
    """Do something between two looks of the gateway."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        what()
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_promote_and_a_rollback_under_load_reach_the_users_and_lose_nothing(shop: Shop) -> None:
    """The log database goes away in the middle, too. Seen by the clients: every answer, none twice, none lost."""
    with serving(shop) as server:
        crowd = Crowd(server)
        with crowd.asking():
            time.sleep(1)
            shop.move("promote", "2")
            server.wait(lambda: server.serving() == "2", "the promotion did not arrive")
            promoted = time.monotonic()
            time.sleep(3)
            hide(shop.home / "requests.db")
            server.wait(lambda: server.metric("backstop_spool_rows", kind="requests") > 20, "nothing was spooled")
            assert server.ready()["status"] == "degraded"
            rolled = time.monotonic()
            shop.move("rollback", "1")
            server.wait(lambda: server.serving() == "1", "the rollback did not arrive")
            back = time.monotonic()
            time.sleep(3)
            bring_back(shop.home / "requests.db")
            time.sleep(1)
        server.wait(lambda: server.ready()["status"] == "ready", "the log did not come back")
        assert crowd.failures == []
        assert {status for _, _, status, _ in crowd.seen} == {200}
        # How long the way here takes, benchmarks/switch_traffic.py measures.
        assert crowd.answering(promoted, before=rolled) == {"2"}
        assert crowd.answering(back) == {"1"}
        asked = {name: version for _, name, _, version in crowd.seen}
        server.wait(lambda: server.metric("backstop_spool_rows") == 0, "the spool was not replayed")
        server.wait(lambda: len(shop.logged()) == len(asked), "the log is not complete")
        logged = shop.logged()
        assert dict(zip(logged.request_ids, logged.versions, strict=True)) == asked
        assert server.metric("backstop_dropped_rows_total") == 0
        assert server.metric("backstop_switches_total", model="churn") == 3
        rows = [server.metric("backstop_requests_total", version=version) for version in ("1", "2")]
        assert sum(rows) == len(asked)


def test_what_is_away_keeps_nobody_from_being_answered(shop: Shop) -> None:
    shutil.rmtree(shop.stores.home / "serving" / "churn" / "2")  # there is a copy of 1 and 3: MLflow is not needed

    def promote(version: str) -> None:
        shop.move("promote", version)
        hide(shop.home / "mlflow.db")

    with serving(shop) as server:
        hold(server, lambda: promote("2"))
        server.wait(lambda: server.ready()["models"]["churn"]["ledger"] == "2", "the transition was not seen")
        ready = server.ready()
        assert (ready["status"], server.serving()) == ("degraded", "1")
        assert "version 2" in str(ready["models"]["churn"]["reasons"])
        assert server.post("/predict", {"features": GOOD}).json()["version"] == "1"

        hold(server, lambda: (bring_back(shop.home / "mlflow.db"), promote("3")))
        taken = server.wait(lambda: server.serving() == "3", "a load that hangs keeps the next one waiting")
        assert taken < 10

        hide(shop.home / "ledger.db")
        server.wait(lambda: "ledger" in server.ready()["models"]["churn"]["reasons"], "nobody said that it is away")
        assert server.get("/readyz").status_code == 200, "what serves is not taken out of the load balancer"
        assert server.metric("backstop_ledger_up", model="churn") == 0
        assert server.post("/predict", {"features": GOOD}).json()["version"] == "3"

        (shop.home / "ledger.db").rmdir()  # a new, empty ledger is not the word that nothing shall serve
        server.wait(lambda: "another ledger" in str(server.ready()), "the empty ledger was believed")
        assert server.post("/predict", {"features": GOOD}).json()["version"] == "3"
        for made in shop.home.glob("ledger.db*"):
            made.unlink() if made.is_file() else None
        (shop.home / "ledger.db").mkdir()
        bring_back(shop.home / "ledger.db")
        bring_back(shop.home / "mlflow.db")
        server.wait(lambda: server.ready()["status"] == "ready", "all is back, and it does not say so")
        shop.move("rollback", "1")
        server.wait(lambda: server.serving() == "1", "it follows no longer")


def test_a_swapped_artifact_is_refused_and_the_present_version_goes_on(shop: Shop) -> None:
    shutil.rmtree(shop.stores.home / "serving")
    with serving(shop) as server:
        folder = shop.artifact("2")
        original = (folder / "MLmodel").read_bytes()
        shop.move("promote", "2")
        server.wait(lambda: server.serving() == "2", "the honest one is served")
        assert server.metric("backstop_version_refused", version="2") == 0

        bad = shop.artifact("3") / "model.skops"
        honest = bad.read_bytes()
        bad.write_bytes(next(folder.glob("*.skops")).read_bytes())
        shop.move("promote", "3")
        server.wait(
            lambda: server.metric("backstop_version_refused", version="3", reason="swapped") == 1, "not refused"
        )
        ready = server.ready()
        assert (ready["status"], server.serving()) == ("degraded", "2")
        assert "judged with" in ready["models"]["churn"]["reasons"]["version"]
        assert server.post("/predict", {"features": GOOD}).json()["version"] == "2"

        bad.write_bytes(honest)
        server.wait(lambda: server.serving() == "3", "the files are right again")
        assert server.metric("backstop_version_refused") == 0
        assert server.ready()["status"] == "ready"
        assert original == (folder / "MLmodel").read_bytes()


def test_a_gateway_that_is_killed_leaves_its_spool_to_the_next_and_one_that_is_told_to_end_nothing(shop: Shop) -> None:
    server = Server(shop, shop.home / "gateway.log")
    server.start()
    try:
        server.wait(lambda: server.serving() == "1", "version 1 is not served")
        hide(shop.home / "requests.db")
        for number in range(30):
            assert server.post("/predict", {"features": GOOD, "request_id": f"r{number}"}).status_code == 200
            assert server.post("/feedback", {"request_id": f"r{number}", "label": "no"}).status_code == 202
        server.wait(lambda: server.metric("backstop_spool_rows") == 60, "not all is on the disk")
        server.stop(signal.SIGKILL)
        bring_back(shop.home / "requests.db")
        server.start()
        server.wait(lambda: len(shop.logged()) == 30, "what was on the disk was not written")
        server.wait(lambda: set(shop.logged().labels) == {"no"}, "the labels were not written")
        server.wait(lambda: server.metric("backstop_spool_rows") == 0, "what was written stayed in the spool")
        server.wait(lambda: server.serving() == "1", "version 1 is not served")
        for number in range(30, 35):
            assert server.post("/predict", {"features": GOOD, "request_id": f"r{number}"}).status_code == 200
    finally:
        server.stop()
    assert set(shop.logged().request_ids) == {f"r{number}" for number in range(35)}, "told to end, it wrote what it had"


def test_an_outage_of_postgresql_loses_nothing(shop: Shop) -> None:
    try:
        with postgres() as database:
            url = database.database()
            _outage(Shop(shop.home, url), database, url)
    except NotInstalled as missing:
        pytest.skip(f"{missing}")


def _outage(shop: Shop, database: Any, url: str) -> None:
    with serving(shop, BACKSTOP_REQUESTS=url) as server:
        crowd = Crowd(server)
        with crowd.asking(1):
            time.sleep(0.5)
            database.stop(hard=True)
            server.wait(lambda: server.metric("backstop_spool_rows") > 20, "nothing was spooled")
            database.start()
            time.sleep(0.5)
        assert crowd.failures == []
        with RequestLog.open(url) as log:
            wanted = {name for _, name, status, _ in crowd.seen if status == 200}
            assert len(wanted) == len(crowd.seen)
            named = [Label(request_id=name, model="churn", label="no", at=NOW) for name in wanted]
            server.wait(lambda: log.unmatched(named) == 0, "not all was replayed")
        assert len(shop.logged()) == len(wanted)
