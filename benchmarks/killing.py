"""Killing: processes that die at a boundary that was chosen before, or at a moment that was drawn.

A boundary is a point at which something outside of the process was just asked for, or is about to be: a statement, a
commit, a call to MLflow that changes something, a file that is renamed. The hooks are put on from outside, in a process
that was forked for it; the product has no line for them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.default import DefaultDialect

LASTING = frozenset({"commit", "rename"})
"""Between two of these nothing happens that outlives the process. Commits that write nothing are no boundary."""
CHANGES = LASTING | {"write", "call"}
"""And before every statement that writes, before and after every call to MLflow that changes something."""
EVERYTHING = CHANGES | {"read"}
"""And before every statement that reads."""

_CALLS = (
    "transition_model_version_stage",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
)
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_LONGEST = 120.0
"""Seconds that a forked process may take."""


@dataclass
class Doom:
    """Counts the boundaries of the process that it is put on, and ends it at one of them.

    Attributes:
        at: Number of the boundary to die at, from 0; None: to live and count.
        kinds: What counts as a boundary.
        seen: What the boundaries were.
    """

    at: int | None
    kinds: frozenset[str] = CHANGES
    seen: list[str] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _wrote: set[int] = field(default_factory=set)

    def put_on(self) -> None:
        """From now on; there is no way back, this process was made to die."""
        event.listen(Engine, "before_cursor_execute", self._statement)
        # Typed as a method that nobody replaces; here it is replaced in a process that was forked for it.
        DefaultDialect.do_commit = self._around_commit(DefaultDialect.do_commit)  # type: ignore[method-assign]
        for name in _CALLS:
            setattr(MlflowClient, name, self._around("call", name, getattr(MlflowClient, name)))
        Path.rename = self._around("rename", "rename", Path.rename)  # type: ignore[method-assign]

    def here(self, kind: str, what: str) -> None:
        """One boundary, if its kind counts."""
        if kind not in self.kinds:
            return
        with self._guard:
            if self.at == len(self.seen):
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(_LONGEST)  # another thread may be told first; this one goes no further
            self.seen.append(what)

    def _statement(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("PRAGMA"):  # three with every connection
            return
        writes = _WRITES.match(statement) is not None
        if writes:
            self._wrote.add(id(connection.connection.dbapi_connection))
        self.here("write" if writes else "read", f"{_called(connection)}: {' '.join(statement.split())[:50]}")

    def _around_commit(self, commit: Callable[..., None]) -> Callable[..., None]:
        def around(dialect: Any, connection: Any) -> None:
            key = id(getattr(connection, "dbapi_connection", connection))
            lasting = key in self._wrote
            self._wrote.discard(key)
            if lasting:
                self.here("commit", "before a commit")
            commit(dialect, connection)
            if lasting:
                self.here("commit", "after a commit")

        return around

    def _around(self, kind: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def around(*args: Any, **options: Any) -> Any:
            self.here(kind, f"before {name}")
            answer = function(*args, **options)
            self.here(kind, f"after {name}")
            return answer

        return around


def _called(connection: Connection) -> str:
    return Path(str(connection.engine.url.database)).stem


@dataclass(frozen=True, slots=True)
class Fate:
    """How a forked process ended.

    Attributes:
        signal: That ended it, or None.
        answer: What its work returned, as plain JSON values; None when it was killed or raised.
        error: Traceback of what it raised, or nothing.
    """

    signal: int | None
    answer: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Child:
    """A forked process at work.

    Attributes:
        pid: Of the process.
        letter: File with what it has to say.
        born: Monotonic seconds.
    """

    pid: int
    letter: Path
    born: float

    def kill(self) -> None:
        """At once, whatever it does."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Fate:
        """Wait for its end.

        Raises:
            TimeoutError: When it does not come; it is killed then.
        """
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.born > _LONGEST:
                self.kill()
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"a forked process did not end within {_LONGEST:g} seconds and was killed")
            time.sleep(0.002)
        said = json.loads(self.letter.read_text("utf-8")) if self.letter.is_file() else {}
        self.letter.unlink(missing_ok=True)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return Fate(killed, said.get("answer"), said.get("error", ""))


def fork(work: Callable[[], Any], folder: Path) -> Child:
    """Do this in a process that begins with everything that this one has imported. Only from a single thread.

    Args:
        work: Returns plain JSON values.
        folder: For the answer.

    Raises:
        RuntimeError: When this process has several threads: a lock that one of them holds would never be let go.
    """
    if threading.active_count() > 1:
        raise RuntimeError(f"a process with threads cannot be forked safely: {threading.enumerate()}")
    letter = folder / f"letter-{time.monotonic_ns()}.json"
    born = time.monotonic()
    pid = os.fork()
    if pid:
        return Child(pid, letter, born)
    code = 1
    try:
        said, code = {"answer": work()}, 0
    except BaseException:  # noqa: BLE001  it is told to whoever forked, and this process ends
        said = {"error": traceback.format_exc()}
    try:
        draft = letter.with_suffix(".draft")
        draft.write_text(json.dumps(said), "utf-8")
        os.replace(draft, letter)  # noqa: PTH105  Path.rename may be a boundary by now
    finally:
        sys.stdout.flush()
        os._exit(code)
