"""The command line: it explains itself, refuses what cannot be, prints the decision, and ends with a sentence."""

from __future__ import annotations

import inspect
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL
from pydantic import Field
from scene import FIRST, QUIET, Scene, day
from servers import until
from typer.testing import CliRunner, Result

from flows import terminal
from flows.approve import approve
from flows.command import command
from flows.form import descriptions, explained
from flows.learn import learn
from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch
from tasks.policy_file import load_many
from tasks.records import Report

ROOT = Path(__file__).resolve().parents[2]
FLOWS = [retrain, learn, watch, promote, rollback, approve]


def ask(of: Any, *arguments: str) -> Result:
    """The command of a flow, in this process."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(command(of), list(arguments))


def python(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m`` as a person would type it, against the API of the tests."""
    quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "COLUMNS": "200"}
    api = PREFECT_API_URL.value()
    assert api, "no API: the command would start a server of its own"
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **quiet, "PREFECT_API_URL": api, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@flow(name="echo")
@explained
async def echo(
    policy: Annotated[str, Field(description="A policy.")],
    *,
    count: Annotated[int, Field(ge=1, le=5, description="How often.")] = 1,
    kind: Annotated[Literal["a", "b"], Field(description="Which.")] = "a",
    loud: Annotated[bool, Field(description="Whether it shouts.")] = False,
    as_of: Annotated[datetime | None, Field(description="When.")] = None,
) -> list[Report]:
    """Say again what was said.

    More of it.
    """
    line = f"{policy} {count} {kind} {loud} {as_of!r} [bold]"
    return [Report(model="churn", flow="echo", decision="kept", line=line, at=datetime.now(UTC), trail="t")]


@pytest.mark.parametrize("of", FLOWS, ids=lambda one: one.name)
def test_help_explains_every_option_in_the_words_of_the_form(of: Any) -> None:
    result = ask(of, "--help")
    assert result.exit_code == 0
    told = " ".join(result.output.split())
    described = descriptions(of.fn)
    assert list(described) == list(inspect.signature(of.fn).parameters)
    assert next(iter(described)) == "policy"
    for name, description in described.items():
        assert " ".join(description.split()) in told
        assert ("policy" if name == "policy" else f"--{name.replace('_', '-')}") in told
    assert str(inspect.getdoc(of.fn)).splitlines()[0] in told
    assert "Args:" not in told


def test_options_reach_the_flow_as_what_they_are(prefect_api: None) -> None:
    result = ask(echo, "p", "--count", "3", "--kind", "b", "--loud", "--as-of", "2026-03-01T12:00+01:00")
    assert result.exit_code == 0, result.output
    moment = datetime(2026, 3, 1, 11, tzinfo=UTC)
    assert f"churn kept: p 3 b True {moment!r} [bold]" in result.output


@pytest.mark.parametrize(
    ("of", "arguments", "said"),
    [
        (promote, ["p", "--reason", "abc", "--version", "abc"], ["--version", "'abc' does not fit", r"^\d+$"]),
        (promote, ["p", "--reason", "a"], ["--reason", "'a' does not fit", "at least 3 characters"]),
        (promote, ["p", "--reason", "abc", "--decision", "maybe"], ["--decision", "'maybe'", "promote", "reject"]),
        (promote, ["p"], ["Missing option", "--reason"]),
        (rollback, ["p", "--reason", "abc", "--to", "v2"], ["--to", "'v2' does not fit"]),
        (rollback, ["p", "--reason", "a" * 501], ["--reason", "at most 500 characters"]),
        (retrain, ["p", "--urgency", "soon"], ["--urgency", "'soon'", "low", "critical"]),
        (retrain, ["p", "--as-of", "2026-03-01"], ["--as-of", "has no time zone", "2026-03-01T00:00:00+00:00"]),
        (retrain, ["p", "--as-of", "tuesday"], ["--as-of", "'tuesday' does not fit"]),
        (retrain, [], ["Missing argument", "policy"]),
        (watch, ["p", "--force"], ["No such option", "--force"]),
        (echo, ["p", "--count", "9"], ["--count", "less than or equal to 5"]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(of: Any, arguments: list[str], said: list[str]) -> None:
    result = ask(of, *arguments)
    assert result.exit_code == 2
    told = " ".join(result.output.split()).casefold()
    for words in said:
        assert words.casefold() in told


def test_a_parameter_that_does_not_explain_itself_is_refused() -> None:
    async def silent(policy: str) -> None:
        """A flow."""

    with pytest.raises(TypeError, match=r"silent does not describe policy; annotate it"):
        explained(silent)


def test_help_of_the_module_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.retrain", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Retrain whatever the triggers say; needs a reason." in " ".join(done.stdout.split())
    assert done.stderr == ""


@pytest.mark.slow
def test_a_decision_is_printed_and_the_exit_code_is_zero(first: Scene, prefect_api: None) -> None:
    done = python("flows.retrain", first.policy(), "--as-of", day(QUIET).isoformat(), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.match(r"churn dry run, would be kept: dry run, nothing changed: Retrain model: false", done.stdout)
    assert "Traceback" not in done.stderr


def test_a_bad_policy_ends_with_its_problems_and_exit_code_one(empty: Scene, prefect_api: None) -> None:
    path = Path(empty.policy(problem="binray", health={"error_rate": "150%"}))
    done = python("flows.retrain", str(path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    problems = [line for line in done.stderr.splitlines() if f"{path}:" in line]
    assert "PolicyError: 2 problems in the policy:" in done.stderr
    assert len(problems) == 2
    assert "'binray' is not known; use 'binary'" in done.stderr


def test_bad_data_ends_with_its_problems_and_exit_code_one(first: Scene, prefect_api: None) -> None:
    result = ask(retrain, first.policy(data={"source": "nowhere.csv"}), "--as-of", day(FIRST + 1).isoformat())
    assert result.exit_code == 1
    assert "DataError: data.source: there is no file" in " ".join(result.output.split())


def test_a_watch_in_which_one_model_fails_exits_with_one(first: Scene, prefect_api: None) -> None:
    broken = first.policy("other", problem="binray")
    moment = (day(FIRST) + timedelta(hours=1)).isoformat()
    result = ask(watch, f"{first.policy()},{broken}", "--as-of", moment)
    assert result.exit_code == 1
    assert "other.variant:2: problem: 'binray' is not known" in result.output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_interrupted_flow_ends_at_once_and_says_what_is_in_production(empty: Scene, tmp_path: Path) -> None:
    """Ctrl-C at a terminal is told to every process of the command, Prefect's temporary server among them."""
    module = tmp_path / "endless.py"
    module.write_text("import time\n\n\ndef rows(start, end):\n    print('reading', flush=True)\n    time.sleep(600)\n")
    policy = empty.policy(data={"source": "endless:rows"})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "PREFECT_HOME": str(tmp_path / "prefect")}
    command_ = [sys.executable, "-m", "flows.retrain", policy, "--force", "--reason", "to be interrupted"]
    log = tmp_path / "said.txt"
    # Where the tests were started in the background, Ctrl-C is ignored, and whoever is started ignores it as well.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("wb") as said:
        process = subprocess.Popen(
            command_,
            cwd=ROOT,
            env=environment,
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, before)
    try:
        until(lambda: "reading" in log.read_text() or process.poll() is not None, told="it does not read")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 130, "the read, which takes ten minutes, is not waited for"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    told = log.read_text()
    assert "Interrupted. What it had begun is completed or given up by the next run." in told
    assert "churn: nothing is in Production; `make trail ID=churn` tells what was done." in told
    assert "Traceback" not in told


def test_a_force_without_a_reason_is_refused_before_anything_starts(empty: Scene, prefect_api: None) -> None:
    done = python("flows.retrain", empty.policy(), "--force", "--reason", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("force needs a reason that is kept, of three characters or more; got 'x'.")


@pytest.mark.parametrize(
    ("failing", "kept"),
    [
        (lambda: load_many("nowhere"), False),
        (lambda: int("x"), True),
    ],
)
def test_what_backstop_raised_itself_is_logged_without_a_traceback(failing: Callable[[], object], kept: bool) -> None:
    try:
        failing()
    except ValueError:
        record = logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "it failed", (), sys.exc_info())
    assert terminal._Plain().filter(record)
    assert (record.exc_info is not None) == kept
