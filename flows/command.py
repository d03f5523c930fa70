"""The command line of a flow: ``python -m flows.retrain --help``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, get_args

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape

from flows.form import descriptions, parameters
from tasks.policy import as_utc
from tasks.records import Report


def run(flow: Any) -> None:
    """Run a flow with the options of its own signature, and print what it decided.

    Args:
        flow: A Prefect flow, whose function is ``async`` and returns a Report or several.

    Raises:
        SystemExit: 1 when the flow failed, with the reason on standard error; 2 for an option that cannot be.
    """
    command(flow)()


def command(flow: Any) -> typer.Typer:
    """A flow as a command: its parameters are the options, with their own descriptions and bounds."""
    function: Callable[..., Awaitable[Report | Iterable[Report]]] = flow.fn

    def start(**options: Any) -> None:
        try:
            answer = asyncio.run(flow(**options))
        except Exception as error:
            # A command line ends with a sentence, not with a traceback.
            Console(stderr=True, soft_wrap=True).print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}")
            raise SystemExit(1) from error
        reports = [answer] if isinstance(answer, Report) else list(answer)
        for report in reports:
            told = f"[bold]{escape(report.model)}[/bold] {report.decision}: {escape(report.line)}"
            Console(soft_wrap=True).print(told)

    start.__signature__ = _signature(function)  # type: ignore[attr-defined]
    start.__doc__ = (inspect.getdoc(function) or "").split("\n\nArgs:")[0]
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name=flow.name)(start)
    return app


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
