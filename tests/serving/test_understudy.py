"""A candidate answers unseen what Production has answered; nothing that it does reaches a client."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import skops.io
import yaml
from candidates import FAR, Moody
from mlflow import MlflowClient
from servers import until
from shops import GOOD, POLICY, Server, Shop, serving

from serving.contract import Column, Contract
from serving.loaded import Loaded, Loader
from serving.metrics import Metrics
from serving.settings import Settings
from serving.shadow import Shadow
from serving.understudy import answered
from serving.wire import Broken, Line, Silent
from tasks import artifact
from tasks.policy_file import load as load_policy
from tasks.requests import Served

BAD = {**GOOD, "monthly_charges": FAR}


def lively(shop: Shop) -> Shop:
    """The policy asks for a live shadow, and trusts the candidates of these tests."""
    training = {**POLICY["training"], "trusted_types": ["candidates.Moody"]}
    shop.policy.write_text(yaml.safe_dump({**POLICY, "training": training, "shadow": {"live": "60m"}}), "utf-8")
    return shop


def moody(shop: Shop, mood: str) -> str:
    """Register version 1 with a mood; it passed the gate, as far as the ledger knows."""
    folder = shop.home / "made" / mood
    shutil.copytree(shop.artifact("1"), folder)
    path = next(folder.glob("*.skops"))
    model = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    made = Moody()
    made.__dict__.update(model.steps[-1][1].__dict__, mood=mood)
    model.steps[-1] = (model.steps[-1][0], made)
    skops.io.dump(model, path)
    client = MlflowClient(tracking_uri=shop.stores.tracking, registry_uri=shop.stores.tracking)
    version = str(client.create_model_version("churn", folder.as_uri()).version)
    with shop.case().ledger as ledger:
        ledger.describe_external("churn", version, digest=artifact.digest(folder), size=1)
    return version


# In a gateway.


@pytest.fixture(scope="module")
def beside(shop_template: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Version 1 serves; nothing is in Staging yet."""
    shop = lively(shop_template.copy(tmp_path_factory.mktemp("beside") / "home"))
    with serving(shop, "--shadow-seconds", "5", PYTHONPATH=str(Path(__file__).parent)) as server:
        yield server


def state(server: Server) -> dict[str, Any] | None:
    told: dict[str, Any] | None = server.ready()["models"]["churn"]["shadow"]
    return told


def unseen(server: Server) -> dict[str, tuple[str, bool]]:
    """(version, failed) of what was put down as a shadow's, by request."""
    query = "SELECT request_id, version, failed FROM backstop_requests WHERE role = 'shadow'"
    with closing(sqlite3.connect(server.shop.home / "requests.db")) as log:
        return {name: (version, bool(failed)) for name, version, failed in log.execute(query)}


def ask(server: Server, name: str, features: dict[str, Any]) -> None:
    answer = server.post("/predict", {"features": features, "request_id": name})
    assert (answer.status_code, answer.json()["version"]) == (200, "1"), answer.text


@pytest.mark.slow
@pytest.mark.timeout(900)  # the process of a candidate gets what a busy machine has left
def test_a_candidate_in_staging_answers_unseen_and_one_that_dies_is_no_news_to_a_client(beside: Server) -> None:
    assert state(beside) is None
    crashing = moody(beside.shop, "crash")
    beside.shop.move("stage", crashing)
    beside.wait(lambda: state(beside) == {"version": crashing, "state": "answering", "waiting": 0}, "no shadow")
    good = [f"good{number}" for number in range(20)]
    for name in good:
        ask(beside, name, GOOD)
    beside.wait(lambda: set(good) <= set(unseen(beside)), "nothing was answered unseen")
    assert {unseen(beside)[name] for name in good} == {(crashing, False)}
    assert beside.ready()["status"] == "ready"

    rows = [{"features": BAD if number == 7 else GOOD, "request_id": f"r{number}"} for number in range(12)]
    answer = beside.post("/predict", {"rows": rows})
    assert {one["version"] for one in answer.json()["answers"]} == {"1"}
    beside.wait(lambda: beside.ready()["status"] == "degraded", "nobody was told that the shadow died")
    assert f"version {crashing} died (exit status 9)" in beside.ready()["models"]["churn"]["reasons"]["shadow"]
    assert beside.get("/readyz").status_code == 200
    ask(beside, "meanwhile", GOOD)
    beside.wait(lambda: {"meanwhile", "r7"} <= set(unseen(beside)), "it was not started again")
    found = unseen(beside)
    assert {name for name, (_, failed) in found.items() if failed} == {"r7"}, "it is known which row it was"
    assert {f"r{number}" for number in range(12)} <= set(found)
    labels = {"model": "churn", "version": crashing}
    assert beside.metric("backstop_shadow_restarts_total", reason="crashed", **labels) >= 2
    assert beside.metric("backstop_shadow_rows_total", outcome="failed", **labels) == 1
    assert beside.metric("backstop_request_errors_total") == 0

    beside.shop.move("reject", crashing)
    beside.wait(lambda: state(beside) is None, "a version that is not in Staging any more goes on answering unseen")
    beside.wait(lambda: beside.ready()["status"] == "ready", "what was said of it stays")
    beside.wait(lambda: children(beside) == [], "its process goes on")


def children(server: Server) -> list[str]:
    """What the gateway has started and not ended."""
    assert server.process is not None
    stats = [path.read_text("utf-8").rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    return [stat[0] for stat in stats if int(stat[1]) == server.process.pid]


# Alone, with what it does to one row.


@dataclass
class Kept:
    """What went to the request log."""

    rows: list[Served] = field(default_factory=list)

    def __call__(self, rows: Sequence[Served]) -> bool:
        self.rows += rows
        return True


@contextmanager
def shadow(shop: Shop, **changes: Any) -> Iterator[tuple[Shadow, Kept, Metrics]]:
    settings, metrics, kept = Settings(**changes), Metrics(), Kept()
    loader = Loader(load_policy(shop.policy), shop.stores)
    one = Shadow(loader, "churn", shop.stores.ledger, settings, metrics, kept)
    one.start()
    try:
        yield one, kept, metrics
    finally:
        one.stop()


def served(name: str, features: dict[str, Any]) -> Served:
    return Served(
        request_id=name,
        model="churn",
        version="1",
        at=datetime.now(UTC),
        seconds=0.01,
        features=features,
        prediction="no",
    )


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidates can be imported where they answer; nothing secret can be read there."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("BACKSTOP_SERVING_TOKEN", "secret")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("mood", "said", "changes"),
    [
        ("hang", "did not answer in time", {"shadow_seconds": 3.0}),
        # It runs when nobody else wants to: on a busy machine it takes a while to have eaten so much.
        ("eat", "needs more memory than", {"shadow_bytes": 1 << 30, "shadow_seconds": 120.0}),
    ],
)
def test_a_row_that_it_dies_of_alone_is_failed_and_the_next_one_answered(
    shop: Shop, importable: None, mood: str, said: str, changes: dict[str, Any]
) -> None:
    """A crash must never be good for a candidate: a request without an answer would be no evidence at all."""
    version = moody(lively(shop), mood)
    with shadow(shop, **changes) as (one, kept, metrics):
        one.follow(version)
        one.put([served("bad", BAD)])
        until(lambda: kept.rows, told="the bad row was not put down")
        until(lambda: said in one.reason, told="nobody was told why")
        one.put([served("good", GOOD)])
        until(lambda: len(kept.rows) > 1, told="it was not started again")
        assert [(row.request_id, row.failed, row.role, row.version) for row in kept.rows] == [
            ("bad", True, "shadow", version),
            ("good", False, "shadow", version),
        ]
        assert one.reason == ""
        up = metrics.registry.get_sample_value("backstop_shadow_up", {"model": "churn", "version": version})
        assert up == 1


def test_what_has_no_room_is_counted_and_what_is_not_wanted_is_not_kept(shop: Shop) -> None:
    settings, metrics, kept = Settings(shadow_rows=5), Metrics(), Kept()
    one = Shadow(Loader(load_policy(shop.policy), shop.stores), "churn", "", settings, metrics, kept)
    one.put([served("nobody's", GOOD)])
    assert len(one._waiting) == 0
    one.follow("2")
    one.put([served(f"r{number}", GOOD) for number in range(8)])
    assert [row.request_id for row in one._waiting] == ["r0", "r1", "r2", "r3", "r4"]
    labels = {"model": "churn", "version": "2", "reason": "queue"}
    assert metrics.registry.get_sample_value("backstop_shadow_dropped_rows_total", labels) == 3


# What it says.


class Picky:
    """Raises on 13, says NaN to 7."""

    def predict(self, frame: Any) -> list[float]:
        if (frame["n"] == 13).any():
            raise RuntimeError("no answer to 13")
        return [float("nan") if value == 7 else value for value in frame["n"]]


def test_what_it_raises_on_refuses_or_says_nan_to_is_failed_and_nothing_else() -> None:
    loaded = Loaded("2", "d", Picky(), Contract((Column("n", "number"),)))
    rows = [{"n": 1}, {"n": 13}, {"n": 7}, {"m": 1}, {"n": "text"}, {"n": None}, {"n": 2}]
    said = answered(loaded, rows)
    assert [one[0] for one in said] == [1, None, None, None, None, None, 2]
    assert [bool(one[3]) for one in said] == [False, True, True, True, True, True, False]
    assert "no answer to 13" in said[1][3]
    assert "features.n" in said[3][3]


@contextmanager
def line(excused: Callable[[], bool] = lambda: False) -> Iterator[tuple[Line, int, int]]:
    """The impatient side, and what the other one reads from and writes to."""
    theirs, out = os.pipe()
    back, mine = os.pipe()
    try:
        yield Line(back, out, given_up=lambda: False, excused=excused), theirs, mine
    finally:
        for one in (theirs, out, back, mine):
            os.close(one)


def test_nobody_waits_for_one_that_does_not_answer_or_does_not_listen() -> None:
    with line() as (one, _, _), pytest.raises(Silent):
        one.ask([1], 0.2)
    with line() as (one, _, _), pytest.raises(Silent):
        one.ask(["x" * 10_000_000], 0.2)  # more than a pipe holds


def test_one_that_the_machine_keeps_waiting_gets_longer_but_not_for_ever() -> None:
    begun = time.monotonic()
    with line(lambda: True) as (one, _, _), pytest.raises(Silent):
        one.ask([1], 0.1)
    assert 1 <= time.monotonic() - begun < 30


@pytest.mark.parametrize("said", [b"\xff" * 8, (3).to_bytes(8, "big") + b"{no", (2**40).to_bytes(8, "big")])
def test_what_is_no_message_is_not_believed(said: bytes) -> None:
    with line() as (one, _, mine):
        os.write(mine, said)
        with pytest.raises(Broken):
            one.ask([1], 1)


@pytest.mark.parametrize(
    "said", [None, {}, [], [[1, 0.5, 0.1, ""]] * 2, [[1, 0.5, 0.1]], [[{}, 0.5, 0.1, ""]], [[1, "x", 0.1, ""]], [1]]
)
def test_what_is_no_answer_to_each_row_is_not_believed(shop: Shop, said: Any) -> None:
    """The candidate's process may say anything; what it says goes into the evidence."""
    from serving.shadow import _checked

    with pytest.raises(Broken):
        _checked(said, 1)
    assert _checked([[1, None, 0.1, ""]], 1)


def test_the_process_of_a_candidate_sees_no_secret_and_ends_with_the_gateway(importable: None) -> None:
    from serving.shadow import _process

    process = _process()
    try:
        environment = Path(f"/proc/{process.pid}/environ")
        until(lambda: b"serving.understudy" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), told="not begun")
        assert b"BACKSTOP" not in environment.read_bytes()
        assert b"OMP_NUM_THREADS=1" in environment.read_bytes()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
