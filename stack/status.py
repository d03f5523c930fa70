"""``make status``: what runs, since when, and where to look."""

from __future__ import annotations

from datetime import timedelta

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stack.server import Server
from stack.settings import Settings, StackError
from stack.supervision import Process, Supervision


def main() -> None:
    """Print the table.

    Raises:
        SystemExit: 1 when something that should run does not, or not yet; 3 when nothing is up.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        settings = Settings.from_environment().of_last_up()
    except StackError as error:
        console.print(f"[red]make status:[/] {escape(str(error))}")
        raise SystemExit(1) from error
    supervision = Supervision(settings)
    if not supervision.running():
        console.print(f"Nothing of {settings.folder} is up; `make up` starts it.")
        raise SystemExit(3)
    processes = [one for one in supervision.processes().values() if one.name != "listen" or one.pid]
    console.print(table(settings, processes))
    console.print(f"Logs: {settings.folder}/*.log")
    starting = [one.name for one in processes if one.state == "STARTING"]
    ill = [one.name for one in processes if one.state not in {"RUNNING", "STARTING"}]
    if not ill and not starting:
        ill = _unheard(settings)
    if starting:
        console.print(f"[yellow]Starting: {', '.join(starting)}[/]; ask again in half a minute.")
    if ill:
        console.print(f"[red]Not well: {', '.join(ill)}[/]; `make up` starts again what is missing.")
    if ill or starting:
        raise SystemExit(1)


def _unheard(settings: Settings) -> list[str]:
    """What runs and does not answer."""
    try:
        heard = Server(settings.prefect).has_worker()
    except httpx.HTTPError as error:
        return [f"prefect, which does not answer at {settings.prefect} ({type(error).__name__})"]
    return [] if heard else ["worker, which has not reported to the server lately"]


def table(settings: Settings, processes: list[Process]) -> Table:
    """One row a program."""
    places = {"prefect": settings.prefect, "mlflow": settings.mlflow}
    shown = Table("program", "state", "process", "since", "where", box=None, pad_edge=False)
    for one in processes:
        since = str(timedelta(seconds=one.seconds)) if one.pid else ""
        shown.add_row(one.name, one.state.lower(), str(one.pid or ""), since, places.get(one.name, ""))
    return shown


if __name__ == "__main__":
    main()
