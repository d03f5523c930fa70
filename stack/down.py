"""``make down``: end exactly what ``make up`` started."""

from __future__ import annotations

import httpx
from rich.console import Console
from rich.markup import escape

from stack.program import end_leftovers
from stack.server import Server
from stack.settings import Settings, StackError
from stack.supervision import PROGRAMS, Supervision
from stack.up import _alone

_ENDED = "Ended by `make down` in the middle; what it had begun is completed or given up by the next run."


def main() -> None:
    """Bring everything down.

    Raises:
        SystemExit: 1, with what is wrong, on standard error.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        settings = Settings.from_environment().of_last_up()
        supervision = Supervision(settings)
        if not supervision.running():
            console.print(f"Nothing of {settings.folder} is up.")
            return
        with _alone(settings):
            down(settings, supervision, console)
    except StackError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]make down:[/] {escape(str(error))}")
        raise SystemExit(1) from error


def down(settings: Settings, supervision: Supervision, console: Console) -> None:
    """The worker first, while the server still hears what becomes of its runs; then the servers.

    Raises:
        StackError: When something does not end.
    """
    running = [name for name, one in supervision.processes().items() if one.pid]
    supervision.stop("worker")
    try:
        orphans = Server(settings.prefect).end_orphans(_ENDED) if "prefect" in running else []
    except httpx.HTTPError as error:
        orphans = []
        console.print(
            f"[yellow]Prefect at {settings.prefect} could not be told which runs were ended: {type(error).__name__}[/]"
        )
    supervision.end()
    for name in PROGRAMS:
        end_leftovers(settings, name)
    if orphans:
        console.print(f"Ended in the middle: {', '.join(orphans)}. Nothing is lost; the next run goes on.")
    console.print(f"Down: {', '.join(running)}. All state is in {settings.home}; `make up` goes on with it.")


if __name__ == "__main__":
    main()
