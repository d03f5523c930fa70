"""``make status``: what runs, since when, and where to look."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stack.server import Server
from stack.settings import Settings, StackError
from stack.supervision import Process, Supervision


def main() -> None:
    """Print the table.

    Raises:
        SystemExit: 1 when something that should run does not; 3 when nothing is up.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        settings = Settings.from_environment()
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
    ill = [one.name for one in processes if one.state != "RUNNING"]
    if not ill and not Server(settings.prefect).has_worker():
        ill = ["worker, which has not reported to the server lately"]
    if ill:
        console.print(f"[red]Not well: {', '.join(ill)}[/]; `make up` starts again what is missing.")
        raise SystemExit(1)


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
