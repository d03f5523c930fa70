"""The command line of a flow: ``python -m flows.retrain --help``."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, get_args

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape

from flows import terminal
from flows.form import descriptions, parameters
from tasks.policy import as_utc
from tasks.records import Report

Check = Callable[..., str]
"""Says of the options together what is wrong, before anything starts; empty: nothing."""


def run(flow: Any, *checks: Check) -> None:
    """Run a flow with the options of its own signature, and print what it decided.

    Args:
        flow: A Prefect flow, whose function is ``async`` and returns a Report or several.
        checks: Of its options, beside the one that its policy can be read.

    Raises:
        SystemExit: 1 when the flow failed or its policy cannot be read, with the reason on standard error; 2 for an
            option that cannot be; 130 when it was interrupted.
    """
    command(flow, partial(terminal.unreadable, flow.name), *checks)()


def command(flow: Any, *checks: Check) -> typer.Typer:
    """A flow as a command: its parameters are the options, with their own descriptions and bounds."""
    function: Callable[..., Awaitable[Report | Iterable[Report]]] = flow.fn

    def start(**options: Any) -> None:
        if problems := [wrong for check in checks if (wrong := check(**options))]:
            Console(stderr=True, soft_wrap=True, highlight=False).print("\n".join(problems), markup=False)
            raise SystemExit(1)
        answer = terminal.answered(lambda: flow(**options), str(options.get("policy") or ""))
        reports = [answer] if isinstance(answer, Report) else list(answer)
        for report in reports:
            Console(soft_wrap=True).print(_told(report))

    start.__signature__ = _signature(function)  # type: ignore[attr-defined]
    start.__doc__ = (inspect.getdoc(function) or "").split("\n\nArgs:")[0]
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name=flow.name)(start)
    return app


def _told(report: Report) -> str:
    """What it decided; of a dry run, what it would have."""
    name, line = f"[bold]{escape(report.model)}[/bold]", escape(report.line)
    if report.dry_run:
        return f"{name} dry run, would be {report.decision}: {line}"
    story = f"\n[dim]`make trail ID={report.model}:{report.candidate}` tells why.[/dim]" if report.candidate else ""
    return f"{name} {report.decision}: {line}{story}"


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The function's own, as typer reads it: what has to be named in Python is an option here."""
    hints, told = parameters(function), descriptions(function)
    return inspect.Signature(
        [
            parameter.replace(annotation=_option(parameter, hints[name], told[name]))
            for name, parameter in inspect.signature(function).parameters.items()
        ]
    )


def _option(parameter: inspect.Parameter, hint: Any, told: str) -> Any:
    # What typer cannot read by itself (a moment with its zone) comes as text, and pydantic reads it.
    plain, shown = (str | None, "<moment>") if _is_moment(hint) else (get_args(hint)[0], None)
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return Annotated[plain, typer.Option(help=told, metavar=shown, callback=_reader(hint))]
    return Annotated[plain, typer.Argument(help=told, callback=_reader(hint))]


def _is_moment(hint: Any) -> bool:
    return datetime in (hint, *get_args(hint), *(part for one in get_args(hint) for part in get_args(one)))


def _reader(hint: Any) -> Callable[[Any], Any]:
    """Reads one option as the flow will, so that what cannot be is refused before anything starts."""
    adapter = TypeAdapter(hint)

    def read(value: Any) -> Any:
        try:
            known = adapter.validate_python(value)
            return as_utc(known) if isinstance(known, datetime) else known
        except ValidationError as error:
            wrong = "; ".join(item["msg"] for item in error.errors())
            raise typer.BadParameter(f"{value!r} does not fit: {wrong}") from None
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return read
