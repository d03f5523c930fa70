"""The command line of a flow: ``python -m flows.retrain --help``."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from tasks.records import Report


def run(flow: Any) -> None:
    """Run a flow with the options of its own signature, and print what it decided.

    Args:
        flow: A Prefect flow, whose function is ``async`` and returns a Report or several.

    Raises:
        SystemExit: 1 when the flow failed, with the reason on standard error.
    """
    function: Callable[..., Awaitable[Report | Iterable[Report]]] = flow.fn

    @functools.wraps(function)
    def command(**options: Any) -> None:
        try:
            answer = asyncio.run(flow(**options))
        except Exception as error:  # a command line ends with a sentence, not with a traceback
            Console(stderr=True).print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}")
            raise SystemExit(1) from error
        reports = [answer] if isinstance(answer, Report) else list(answer)
        for report in reports:
            Console().print(f"[bold]{escape(report.model)}[/bold] {report.decision}: {escape(report.line)}")
        if any(report.error for report in reports):
            raise SystemExit(1)

    command.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    typer.run(command)
