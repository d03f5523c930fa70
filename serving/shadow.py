"""Shadow: a candidate that waits in Staging answers the requests that Production has answered, unseen by anybody.

It does so in a process of its own, after the answer has left, and its answers go to the request log under the ids of
those requests. It may be slow, crash, hang or eat memory: it is ended and started again, ever more rarely, and whoever
asks the gateway does not notice. What it dies of alone is put down as failed, so that no crash is good for it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from serving.copies import Unfit, line
from serving.loaded import Loader
from serving.metrics import Metrics
from serving.settings import Settings
from serving.understudy import OUT_OF_MEMORY
from serving.wire import Broken, Gone, Line, Silent
from tasks.database import SchemaTooNew
from tasks.ledger import Ledger
from tasks.requests import Served

_log = logging.getLogger(__name__)

_SLICE = 0.05
"""Seconds between two looks whether it has ended."""
_LINGER = 0.5
"""Seconds between two looks at what waits: a model answers twenty rows in hardly more time than one."""
_BATCH = 200
_LOADING = 120.0
"""Seconds that it has to load; it gets only what the processor has left."""
_LEAVING = 120.0
"""Seconds that it has to be gone when it has closed its pipe: what it dies of is told at its very end."""
_FIRST, _LAST = 1.0, 60.0
"""Seconds until it is started again: first, and at most."""
_SOUND = 60.0
"""Seconds without trouble after which the next trouble counts as the first."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_SECRETS = ("BACKSTOP_", "MLFLOW_", "PREFECT_")
"""Variables that a candidate has no business with begin with one of these."""


class Shadow:
    """Of one model, in a thread that nobody waits for. Without a candidate it has no process."""

    def __init__(
        self,
        loader: Loader,
        model: str,
        url: str,
        settings: Settings,
        metrics: Metrics,
        keep: Callable[[Sequence[Served]], object],
    ) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            loader: Of the model.
            model: Registered name.
            url: Of the ledger.
            settings: Of the gateway.
            metrics: Of the gateway.
            keep: Takes answers on their way to the request log, without waiting for anything.
        """
        self._loader, self._model, self._url, self._settings = loader, model, url, settings
        self._metrics, self._keep = metrics, keep
        self._wanted: str | None = None
        self._waiting: deque[Served] = deque()
        self._suspects: deque[Served] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None
        self._used = 0.0
        self._version: str | None = None
        self._pause, self._due, self._begun = _FIRST, 0.0, 0.0
        self._reason, self._state = "", "off"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"shadow {model}", daemon=True)

    def start(self) -> None:
        """Begin to look what waits."""
        self._metrics.shadow_queue.labels(self._model).set_function(lambda: len(self._waiting))
        self._thread.start()

    def stop(self) -> None:
        """End the process. What waits is not answered any more: nobody waits for it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._end()

    def follow(self, version: str | None) -> None:
        """Which version answers from now on; None: none does."""
        if version != self._wanted:
            self._waiting.clear()  # here and not by the thread, which would clear what came for the new one meanwhile
            self._wanted = version

    def put(self, rows: Sequence[Served]) -> None:
        """Take what Production has answered, without waiting for anything; what has no room is counted."""
        version = self._wanted
        if version is None:
            return
        room = self._settings.shadow_rows - len(self._waiting)
        self._waiting.extend(rows[: max(0, room)])
        if len(rows) > room:
            self._metrics.shadow_dropped.labels(self._model, version, "queue").inc(len(rows) - max(0, room))

    @property
    def reason(self) -> str:
        """Why the candidate does not answer; empty: it does, it is about to, or there is none."""
        return self._reason

    @property
    def told(self) -> dict[str, Any] | None:
        """What it does, for people; None: there is no candidate."""
        wanted = self._wanted
        return None if wanted is None else {"version": wanted, "state": self._state, "waiting": len(self._waiting)}

    # In its own thread.

    def _run(self) -> None:
        while not self._stopping.wait(_LINGER):
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  whatever it is, it must not end the only one who would mend it
                _log.exception("the shadow of %s stumbled and goes on", self._model)
                self._trouble(f"the gateway's own part of it stumbled: {line(error)}", "crashed")
        self._end()

    def _turn(self) -> None:
        if self._version != self._wanted:
            self._end()
            self._begin_with(self._wanted)
        if self._version is None or time.monotonic() < self._due:
            return
        try:
            if self._line is None:
                self._load(self._version)
            while (self._suspects or self._waiting) and not self._over():
                self._answer()
        except Unfit as error:
            self._trouble(f"version {self._version} is refused ({error.kind}): {error}", "refused")
        except Silent:
            if not self._over():
                self._trouble(f"version {self._version} did not answer in time and was ended", "hung")
        except Broken as error:
            self._trouble(f"version {self._version} {self._died(error)}", "crashed")
        except (SQLAlchemyError, SchemaTooNew, OSError) as error:
            self._trouble(f"version {self._version} cannot be fetched: {line(error)}", "away")

    def _begin_with(self, version: str | None) -> None:
        before, self._version = self._version, version
        self._suspects.clear()
        self._pause, self._due, self._reason, self._state = _FIRST, 0.0, "", "off" if version is None else "loading"
        if before is not None:
            self._metrics.shadow_up.labels(self._model, before).set(0)
        if version is not None:
            self._metrics.shadow_up.labels(self._model, version).set(0)
            for outcome in ("answered", "failed"):
                self._metrics.shadow_rows.labels(self._model, version, outcome)
        _log.warning("%s: %s answers unseen now", self._model, "nothing" if version is None else f"version {version}")

    def _over(self) -> bool:
        """Whether the version at hand is not wanted any more."""
        return self._stopping.is_set() or self._version != self._wanted

    def _load(self, version: str) -> None:
        self._state = "loading"
        with Ledger.open(self._url) as ledger:
            package = self._loader.pack(ledger, version)
        self._process = process = _process()
        if process.stdin is None or process.stdout is None:
            raise Broken("has no pipes")
        self._line = Line(
            process.stdout.fileno(), process.stdin.fileno(), given_up=self._over, excused=self._out_of_luck
        )
        self._used = 0.0
        order = {"memory": self._settings.shadow_bytes, "package": package.plain()}
        said = self._line.ask(order, _LOADING)
        if not isinstance(said, dict) or said.get("ready") != version:
            told = said if isinstance(said, dict) else {}
            raise Unfit(str(told.get("unfit", "silent")), str(told.get("message", "it said nothing of use")))
        self._reason, self._state, self._begun = "", "answering", time.monotonic()
        self._metrics.shadow_up.labels(self._model, version).set(1)

    def _out_of_luck(self) -> bool:
        """Whether it would work if the machine let it: it wants to run, and has hardly been allowed to."""
        if self._process is None:
            return False
        state, used = _at_work(self._process.pid)
        return state == "R" and used - self._used < self._settings.shadow_seconds

    def _answer(self) -> None:
        """One batch; of those that it died of, one by one, so that it is known which one it was."""
        rows = _taken(self._suspects, 1) or _taken(self._waiting, _BATCH)
        if not rows:
            return
        line_, version = self._line, self._version
        if line_ is None or version is None:
            raise Broken("is not there")
        self._used = _at_work(self._process.pid)[1] if self._process is not None else 0.0
        try:
            said = _checked(line_.ask([row.features for row in rows], self._settings.shadow_seconds), len(rows))
        except (Broken, Silent):
            if self._over():
                raise
            if len(rows) == 1:
                self._record(version, rows, [[None, None, self._settings.shadow_seconds, "it died of it, or hung"]])
            else:
                self._suspects.extend(rows)
            raise
        self._record(version, rows, said)

    def _record(self, version: str, rows: Sequence[Served], said: Sequence[Sequence[Any]]) -> None:
        kept = []
        for row, (prediction, score, seconds, why) in zip(rows, said, strict=True):
            failed = prediction is None
            self._metrics.shadow_rows.labels(self._model, version, "failed" if failed else "answered").inc()
            if failed:
                _log.info("%s: version %s failed unseen on %s: %s", self._model, version, row.request_id, why)
            kept.append(
                Served(
                    request_id=row.request_id,
                    model=row.model,
                    version=version,
                    at=row.at,
                    seconds=seconds,
                    features={},  # they are in the log already, under the same id
                    prediction=prediction,
                    score=score,
                    failed=failed,
                    role="shadow",
                )
            )
        self._keep(kept)

    def _trouble(self, reason: str, kind: str) -> None:
        """End the process, and try again later."""
        self._end()
        if self._over() or self._version is None:
            return
        if self._begun and time.monotonic() - self._begun > _SOUND:
            self._pause = _FIRST
        self._begun = 0.0
        self._due = time.monotonic() + self._pause
        self._reason = f"{reason}; it is started again in {self._pause:g} s, nobody waits for it"
        self._state = kind
        self._pause = min(_LAST, 2 * self._pause)
        self._metrics.shadow_up.labels(self._model, self._version).set(0)
        self._metrics.shadow_restarts.labels(self._model, self._version, kind).inc()
        _log.warning("%s: the shadow: %s", self._model, self._reason)

    def _died(self, error: Broken) -> str:
        if self._process is None or not isinstance(error, Gone):
            return f"talks no sense: {error}"
        end = time.monotonic() + _LEAVING
        while (status := self._process.poll()) is None and time.monotonic() < end and not self._stopping.wait(_SLICE):
            continue
        if status == OUT_OF_MEMORY:
            return f"needs more memory than {self._settings.shadow_bytes} bytes"
        return (
            f"says no more, and has not ended: {error}" if status is None else f"died (exit status {status}): {error}"
        )

    def _end(self) -> None:
        process, self._process, self._line = self._process, None, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _taken(source: deque[Served], most: int) -> list[Served]:
    """The first rows of a queue that somebody else may clear meanwhile."""
    rows: list[Served] = []
    with suppress(IndexError):
        while len(rows) < most:
            rows.append(source.popleft())
    return rows


def _checked(said: Any, rows: int) -> list[list[Any]]:
    """Answers as they must be.

    Raises:
        Broken: When they are something else: a candidate may say anything.
    """
    fits = isinstance(said, list) and len(said) == rows
    for one in said if fits else ():
        fits = fits and isinstance(one, list) and len(one) == 4
        fits = fits and isinstance(one[0], str | int | float | None) and isinstance(one[1], float | int | None)
        fits = fits and isinstance(one[2], float | int) and one[2] >= 0
    if not fits:
        raise Broken("it gave something else than one answer for each row")
    return list(said)


def _at_work(process: int) -> tuple[str, float]:
    """(state, processor seconds) of a process as Linux tells them; elsewhere nothing that would excuse it."""
    try:
        told = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
        return told[0], (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return "?", 0.0


def _process() -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
    kept |= dict.fromkeys(_THREADS, "1")
    # The user's own modules are found where this process finds them.
    kept["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    command = [sys.executable, "-m", "serving.understudy"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=kept, close_fds=True)
