"""supervisord: its file, its start, and what is asked of it through its socket."""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from stack.settings import ROOT, Settings, StackError

PROGRAMS = ("prefect", "mlflow", "worker", "listen")
"""In the order in which they are started; they are ended in the opposite one."""

_DOWN = (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError)

_FILE = """\
; Written by `make up`; changes are lost. Holds no address and no password: those are in the programs' environment.
[supervisord]
logfile={folder}/supervisord.log
logfile_maxbytes=2MB
logfile_backups=2
pidfile={folder}/supervisord.pid
directory={root}
identifier=backstop
umask=077
[unix_http_server]
file={socket}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

_PROGRAM = """\
[program:{name}]
command={command}
directory={root}
priority={priority}
autostart=false
autorestart=true
startsecs=3
startretries=20
stopasgroup=true
killasgroup=true
stopwaitsecs=30
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


@dataclass(frozen=True, slots=True)
class Process:
    """What supervisord says of a program.

    Attributes:
        name: One of :data:`PROGRAMS`.
        state: RUNNING, STARTING, BACKOFF, FATAL, STOPPED, ...
        pid: 0 where it does not run.
        seconds: Since it was started.
    """

    name: str
    state: str
    pid: int
    seconds: int


class Supervision:
    """One supervisord, running or not."""

    def __init__(self, settings: Settings) -> None:
        """Where it would be; nothing is started."""
        self._settings = settings

    def running(self) -> bool:
        """Whether it answers."""
        try:
            self._rpc().supervisor.getState()
        except _DOWN:
            return False
        return True

    def pid(self) -> int:
        """Of supervisord itself."""
        return int(self._rpc().supervisor.getPID())

    def launch(self) -> None:
        """Start it with no program yet; it goes on when this process ends.

        Raises:
            StackError: When it does not answer.
        """
        file = self._settings.folder / "supervisord.conf"
        file.write_text(configuration(self._settings), "utf-8")
        started = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)],
            cwd=ROOT,
            env=os.environ | {"BACKSTOP_HOME": str(self._settings.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        for _ in range(100):
            if self.running():
                return
            time.sleep(0.1)
        said = (started.stdout + started.stderr).strip()
        raise StackError(f"supervisord did not start: {said or 'see'} {self._settings.folder / 'supervisord.log'}")

    def processes(self) -> dict[str, Process]:
        """All programs, by name."""
        answer: Any = self._rpc().supervisor.getAllProcessInfo()
        return {
            str(one["name"]): Process(
                str(one["name"]),
                str(one["statename"]),
                int(one["pid"]),
                max(0, int(one["now"]) - int(one["start"])) if one["pid"] else 0,
            )
            for one in answer
        }

    def start(self, name: str) -> bool:
        """Start a program that does not run; whether there was anything to start."""
        if self.processes()[name].state in {"RUNNING", "STARTING", "BACKOFF"}:
            return False
        self._rpc().supervisor.startProcess(name, False)  # noqa: FBT003  the protocol has no names: do not wait
        return True

    def stop(self, name: str) -> None:
        """End a program with everything that it started, and wait."""
        with contextlib.suppress(xmlrpc.client.Fault):  # it does not run
            self._rpc().supervisor.stopProcess(name, True)  # noqa: FBT003  see above: wait

    def end(self, *, seconds: float = 90) -> None:
        """End all programs, the last first, and supervisord itself.

        Raises:
            StackError: When it is still there after so many seconds.
        """
        pid = self.pid()
        self._rpc().supervisor.shutdown()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        raise StackError(f"supervisord (process {pid}) does not end; see {self._settings.folder / 'supervisord.log'}")

    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._settings.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def configuration(settings: Settings) -> str:
    """The text of supervisord's file; it reads ``%`` as the beginning of a name."""
    plain = {"folder": settings.folder, "socket": settings.socket, "root": ROOT}
    head = _FILE.format(**{name: _escaped(value) for name, value in plain.items()})
    programs = (
        _PROGRAM.format(
            name=name,
            command=_escaped(shlex.join([sys.executable, "-m", "stack.program", name])),
            root=_escaped(ROOT),
            log=_escaped(settings.log(name)),
            priority=100 * (number + 1),
        )
        for number, name in enumerate(PROGRAMS)
    )
    return "\n".join((head, *programs))


def _escaped(value: str | Path) -> str:
    return str(value).replace("%", "%%")
