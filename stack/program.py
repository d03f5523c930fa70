"""One program of the stack, with its own environment: what supervisord runs as ``python -m stack.program NAME``.

The programs' addresses and passwords are put into their environment here, so that none of them is on a command line or
in supervisord's file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from stack.settings import POOL, ROOT, WORKER, Settings


def command(name: str, settings: Settings) -> list[str]:
    """What is run under a name, without its environment.

    Raises:
        KeyError: For a name that the stack has no program for.
    """
    here = ["--host", "127.0.0.1", "--port"]
    artifacts = ["--serve-artifacts", "--artifacts-destination", str(settings.home / "artifacts")]
    if name == "listen":
        return ["flows.listen", *(part for policy in heard(ROOT / "policies") for part in ("--policy", policy))]
    return {
        "prefect": ["prefect", "server", "start", *here, str(settings.prefect_port)],
        "mlflow": ["mlflow", "server", *here, str(settings.mlflow_port), "--workers", "2", *artifacts],
        "worker": ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER],
    }[name]


def heard(folder: Path) -> tuple[str, ...]:
    """The policies of a folder whose rows come into PostgreSQL: new ones can be heard of within seconds."""
    from tasks.policy_file import PolicyError, load_many  # noqa: PLC0415  the servers need no policies

    try:
        found = load_many(os.environ.get("BACKSTOP_POLICIES") or str(folder))
    except PolicyError as error:
        found = tuple(error.loaded)  # the watch says what is wrong with the others
    return tuple(str(one.origin) for one in found if one.data.source.startswith("postgres") and one.origin)


def end_leftovers(settings: Settings, name: str) -> bool:
    """End what a program that was killed has left: its children would keep its port. Whether there was anything.

    They are still in the process group that was put down when it was started, and run this very environment's Python.
    """
    try:
        group = (settings.folder / f"{name}.group").read_text("ascii").strip()
    except FileNotFoundError:
        return False
    listing = ["ps", "-A", "-ww", "-o", "pgid=,args="]
    every = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    members = [line.split(maxsplit=1) for line in every.splitlines()]
    if group == str(os.getpgrp()) or not any(one[0] == group and sys.prefix in one[-1] for one in members if one):
        return False
    os.killpg(int(group), signal.SIGKILL)
    return True


def main() -> None:
    """Become the program: the process that supervisord started is the one that it ends."""
    name = sys.argv[1]
    settings = Settings.from_environment()
    end_leftovers(settings, name)
    (settings.folder / f"{name}.group").write_text(str(os.getpgrp()), "ascii")
    os.execve(  # noqa: S606  this very Python, with a fixed module
        sys.executable, [sys.executable, "-m", *command(name, settings)], settings.environment(name)
    )


if __name__ == "__main__":
    main()
