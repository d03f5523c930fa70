"""``make up`` and ``make down``: what they start, say and end; everything real, on ports of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prefect_live import ROOT
from servers import Postgres, free_port, until

from stack import databases, example
from stack.program import command, end_leftovers, heard
from stack.server import Server
from stack.settings import DATABASES, Settings, StackError
from stack.status import _unheard
from stack.supervision import PROGRAMS, Supervision, configuration

HIDDEN = "hunter2secret"


def clean(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "BACKSTOP_", "MLFLOW_"))
    }
    return kept | more


def make(what: str, environment: Mapping[str, str], *, code: int = 0) -> str:
    """``make up`` and its like, as the Makefile calls them; what was said."""
    done = subprocess.run(
        [sys.executable, "-m", f"stack.{what}"],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


# What a person chooses.


def test_everything_that_cannot_be_is_said_at_once() -> None:
    environment = {
        "PREFECT_PORT": "80",
        "MLFLOW_PORT": "many",
        "DATABASE": f"mysql://me:{HIDDEN}@host",
        "BACKSTOP_LEDGER": f"postgresql://me:{HIDDEN}@elsewhere/ledger",
    }
    with pytest.raises(StackError) as error:
        Settings.from_environment(environment)
    said = str(error.value)
    assert HIDDEN not in said
    for part in ("PREFECT_PORT is '80'", "MLFLOW_PORT is 'many'", "'mysql'", "BACKSTOP_LEDGER is set to", "***"):
        assert part in said


def test_two_programs_cannot_have_one_port() -> None:
    with pytest.raises(StackError, match="PREFECT_PORT and MLFLOW_PORT are both 5001"):
        Settings.from_environment({"PREFECT_PORT": "5001", "MLFLOW_PORT": "5001"})


def test_what_points_a_shell_to_the_stack_may_be_set_when_it_is_started(tmp_path: Path) -> None:
    environment = {"BACKSTOP_HOME": str(tmp_path)}
    shared = Settings.from_environment(environment).shared()
    assert Settings.from_environment(environment | shared).shared() == shared


def test_a_password_goes_only_to_the_program_whose_database_it_opens(tmp_path: Path) -> None:
    environment = {"BACKSTOP_HOME": str(tmp_path), "DATABASE": f"postgresql://me:{HIDDEN}@host:5432"}
    settings = Settings.from_environment(environment)
    has = {
        name: {key for key, value in settings.environment(name, environment).items() if HIDDEN in value}
        for name in PROGRAMS
    }
    assert has["prefect"] == {"PREFECT_API_DATABASE_CONNECTION_URL"}
    assert has["mlflow"] == {"MLFLOW_BACKEND_STORE_URI"}
    assert has["worker"] == {"BACKSTOP_LEDGER"}
    assert HIDDEN not in json.dumps(
        [settings.shown, configuration(settings), [command(one, settings) for one in PROGRAMS]]
    )
    assert settings.shown["DATABASE"] == "postgresql://me@host:5432"


@pytest.mark.parametrize("database", ["sqlite", "postgresql://me@host:5432", f"postgresql://me:{HIDDEN}@host:5432"])
def test_a_shell_that_points_to_the_stack_can_ask_for_its_status_and_holds_no_password(
    database: str, tmp_path: Path
) -> None:
    chosen = {"BACKSTOP_HOME": str(tmp_path), "PREFECT_PORT": "4301", "MLFLOW_PORT": "5301", "DATABASE": database}
    settings = Settings.from_environment(chosen)
    assert HIDDEN not in json.dumps(settings.told)
    again = settings.told if HIDDEN not in database else settings.told | {"DATABASE": database}
    assert Settings.from_environment(again) == settings
    if HIDDEN not in database:
        assert settings.told.items() >= settings.shared().items()


def test_the_socket_is_short_enough_however_long_the_folder_is(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-name-of-a-folder"] * 5)
    settings = Settings(deep)
    assert len(os.fsencode(settings.socket)) < 80
    assert settings.socket != Settings(deep / "another").socket
    settings.make_folders()
    assert settings.socket.parent.stat().st_mode & 0o077 == 0


def test_a_percent_sign_in_a_path_is_not_read_as_a_name(tmp_path: Path) -> None:
    assert f"{tmp_path}/100%%/stack/prefect.log" in configuration(Settings(tmp_path / "100%"))


def test_the_examples_customers_are_recent_and_are_written_once(tmp_path: Path) -> None:
    import pandas as pd

    from tasks.policy_file import load

    file = tmp_path / "data" / "churn.csv"
    assert example.write(file)
    assert not example.write(file)
    newest = pd.read_csv(file, parse_dates=["observed_at"])["observed_at"].max()
    assert (pd.Timestamp.now("UTC") - newest).total_seconds() < 7200
    assert load(str(ROOT / "policies" / "churn.yaml")).data.lookback.days == example.DAYS


def test_the_listener_hears_of_policies_on_postgresql_only(tmp_path: Path) -> None:
    text = (ROOT / "policies" / "churn.yaml").read_text("utf-8")
    (tmp_path / "churn.yaml").write_text(text, "utf-8")
    assert heard(tmp_path) == ()
    table = text.replace("${BACKSTOP_DEMO_DATA}/churn.csv", "postgresql://db/shop\n  table: customers")
    (tmp_path / "shop.yaml").write_text(table.replace("model: churn", "model: shop"), "utf-8")
    assert heard(tmp_path) == (str(tmp_path / "shop.yaml"),)


def test_children_of_a_program_that_was_killed_are_ended_and_no_others(tmp_path: Path) -> None:
    """MLflow's workers outlive it when it is killed, and keep its port: what is started again could not listen."""
    settings = Settings(tmp_path)
    settings.make_folders()
    sleep = f"import subprocess, sys; p = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"{sleep}; print(p.pid, flush=True); p.wait()"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        (settings.folder / "mlflow.group").write_text(str(parent.pid))
        parent.kill()
        parent.wait()
        assert end_leftovers(settings, "mlflow")
    until(lambda: not alive(child), told="the child was not ended")
    assert not end_leftovers(settings, "mlflow"), "the group is gone"
    assert not end_leftovers(settings, "prefect"), "nothing was put down"


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


# PostgreSQL.


def test_three_databases_are_made_once_and_prefects_has_its_extension(postgres_server: Postgres) -> None:
    settings = Settings.from_environment({"DATABASE": f"postgresql://backstop@/?host={postgres_server.folder}"})
    assert settings.database is not None
    assert databases.prepare(settings.database) == DATABASES
    assert databases.prepare(settings.database) == ()
    found = databases._ask(settings.database.set(database=DATABASES[0]), "SELECT extname FROM pg_extension")
    assert "pg_trgm" in found


def test_a_database_server_that_is_not_there_is_named_without_its_password() -> None:
    settings = Settings.from_environment({"DATABASE": f"postgresql://me:{HIDDEN}@127.0.0.1:{free_port()}"})
    assert settings.database is not None
    with pytest.raises(StackError, match=r"postgresql://me:\*\*\*@127\.0\.0\.1.*CREATE DATABASE") as error:
        databases.prepare(settings.database)
    assert HIDDEN not in str(error.value)


# The real thing.


@pytest.fixture
def place(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a stack of its own, which is ended whatever happens."""
    ports = {"PREFECT_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    environment = clean(BACKSTOP_HOME=str(tmp_path / "home"), OMP_NUM_THREADS="1", **ports)
    yield environment
    supervision = Supervision(Settings.from_environment(environment))
    if supervision.running():
        supervision.end()


def test_a_port_that_is_taken_is_named_with_the_variable_that_changes_it(place: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(place["MLFLOW_PORT"]))):
        said = make("up", place, code=1)
    assert f"port {place['MLFLOW_PORT']} of 127.0.0.1 is taken" in said
    assert "make up MLFLOW_PORT=" in said
    assert "Nothing of" in make("down", place)
    assert "is up; `make up` starts it" in make("status", place, code=3)


def test_a_server_that_does_not_answer_is_told_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = Settings(tmp_path, prefect_port=port)
    assert _unheard(settings) == [f"prefect, which does not answer at http://127.0.0.1:{port} (ConnectError)"]


@pytest.mark.slow  # a stack of its own: two servers, a worker, everything deployed
@pytest.mark.timeout(600)  # on a busy machine the two servers alone take minutes
def test_up_starts_everything_mends_what_is_missing_and_down_ends_exactly_that(place: dict[str, str]) -> None:
    said = make("up", place)
    settings = Settings.from_environment(place)
    server, supervision = Server(settings.prefect), Supervision(settings)
    for part in (settings.prefect, settings.mlflow, "retrain/churn", "watch/all-models", "make down"):
        assert part in said
    assert "A first run of retrain/churn" in said
    assert "NOBODY IS TOLD when a run fails" in said
    # Whoever looks after it does not know which ports somebody chose.
    unaware = {name: value for name, value in place.items() if not name.endswith("_PORT")}
    assert settings.prefect in make("status", unaware)

    # What prefect.yaml schedules comes into being, and the first run on the example's customers promotes.
    until(lambda: server.runs("retrain", "COMPLETED"), told="the first run did not end")
    assert [one["state_name"] for one in server.runs("retrain", "COMPLETED")] == ["Promoted"]
    assert server.runs("watch", "SCHEDULED") or server.runs("watch", "COMPLETED")

    # Whoever dies is started again; whoever was paused stays paused; a second `make up` does not deploy anew.
    before = supervision.processes()["mlflow"].pid
    os.kill(before, signal.SIGKILL)
    until(lambda: supervision.processes()["mlflow"].pid not in {0, before}, told="MLflow was not started again")
    supervision.stop("worker")
    server.pause(server.deployments()["retrain/churn"])
    again = make("up", place)
    assert "It was up already. Started again: worker." in again
    assert "Deployed" not in again
    assert server.deployments()["retrain/churn"]["paused"]
    other = make("up", place | {"DATABASE": "postgresql://me@host"}, code=1)
    assert "another history, another Production" in other

    pids = [one.pid for one in supervision.processes().values() if one.pid] + [supervision.pid()]
    said = make("down", unaware)
    assert "Down: " in said
    assert "could not be told" not in said
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    for port in (settings.prefect_port, settings.mlflow_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert {path.name for path in settings.home.iterdir()} >= {"ledger.db", "mlflow.db", "data", "stack"}
