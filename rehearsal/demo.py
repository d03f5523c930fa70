"""The whole story on a clock of its own: ``make demo``.

Real flows, a real registry and a real ledger in one folder; only the clock and the requests are played. Without
arguments the customers are generated, with ``--data`` and ``--policy`` they are yours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

FOLDER = Path(".demo")
GENERATED = Path("policies/churn.yaml")
"""The policy whose data the demo makes itself."""
MARK = "made-by-backstop"
"""A file that says that the folder is ours to delete."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, clear the folder, tell the story.

    Raises:
        SystemExit: With one sentence, when the policy or the data cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m rehearsal.demo", description=__doc__)
    parser.add_argument("--data", help="a file with the columns of the policy; empty: generated customers")
    parser.add_argument("--policy", default=str(GENERATED), help="a policy file")
    options = parser.parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    prepare(FOLDER)
    settle(FOLDER)
    from rehearsal.churn import write_customers  # noqa: PLC0415  seconds of imports, after the options are read
    from rehearsal.story import derive, tell  # noqa: PLC0415  reads the environment that was just set

    policy = options.policy
    source = Path(options.data).resolve() if options.data else None
    if source is None and Path(policy) == GENERATED:
        source = (FOLDER / "data" / "churn.csv").resolve()
        write_customers(source)
        console.print("[dim]The customers of this demo are generated; the flows, registry and ledger are real.[/]")
    try:
        if source is not None:
            policy = derive(Path(policy), FOLDER / "policy.yaml", source=str(source))
        asyncio.run(tell(console, policy))
    except (ValueError, OSError) as error:
        console.print(f"[red]{type(error).__name__}[/]", escape(str(error)))
        raise SystemExit(1) from error


def prepare(folder: Path) -> None:
    """An empty folder of our own.

    Raises:
        SystemExit: When the folder is there and was not made by an earlier demo.
    """
    if folder.exists() and not (folder / MARK).exists():
        raise SystemExit(f"{folder} exists and was not made by the demo; move it away, nothing was deleted")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    (folder / MARK).write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")


def settle(folder: Path) -> None:
    """Point everything that lasts at the folder, before anything reads the environment."""
    home = folder.resolve()
    os.environ |= {
        "BACKSTOP_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    }
    for name in ("MLFLOW_TRACKING_URI", "BACKSTOP_LEDGER", "BACKSTOP_REQUESTS", "PREFECT_API_URL", "PREFECT_PROFILE"):
        os.environ.pop(name, None)


if __name__ == "__main__":
    main()
