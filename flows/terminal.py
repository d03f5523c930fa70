"""Terminal: how a flow that a person started at a terminal begins, is interrupted, and says what went wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from prefect.client.base import ServerType, determine_server_type
from rich.console import Console
from rich.markup import escape

from flows.steps import not_begun
from tasks.case import open_ledger
from tasks.policy_file import PolicyError, load_many
from tasks.stores import Stores

_OURS = frozenset({"tasks", "flows", "serving"})
_ROOT = Path(__file__).resolve().parents[1]
_INTERRUPTED = 128 + signal.SIGINT


def unreadable(flow: str, *, policy: str, dry_run: bool = False, **_: object) -> str:
    """What is wrong with a policy, told before anything starts; empty where a part of what is asked for can be done.

    A person is told as well, as the flow itself would do it: who starts it may be a timer.

    Args:
        flow: Its name.
        policy: As it was asked for.
        dry_run: Nobody is told.
    """
    try:
        load_many(policy)
    except PolicyError as error:
        if error.loaded:
            return ""
        if not dry_run:
            not_begun(flow, policy, error)
        return f"PolicyError: {error}"
    return ""


def answered(start: Callable[[], Coroutine[Any, Any, Any]], policy: str) -> Any:
    """Run a flow to its end.

    Args:
        start: Makes it.
        policy: What it is asked to do it for; empty: that is not known.

    Raises:
        SystemExit: 1 when it failed, with the reason and what is in Production on standard error.
    """
    with _without_tracebacks():
        _own_server()
        runner = asyncio.Runner()
        try:
            answer = runner.run(start())
        except KeyboardInterrupt:
            _leave(policy)
        except Exception as error:
            # A command line ends with a sentence, not with a traceback.
            _say(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", policy)
            raise SystemExit(1) from error
        finally:
            runner.close()
    return answer


def whereabouts(policy: str) -> str:
    """What is in Production of the one model that a policy is of; empty where that cannot be told."""
    with suppress(Exception):
        (loaded,) = load_many(policy)
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backstop-")))
            # To look into a ledger that is not there must not make one.
            ledger = stack.enter_context(open_ledger(Stores.from_environment().rehearsed(scratch).ledger))
            standing = ledger.standing(loaded.model)
        what = "nothing is in Production"
        if standing.production is not None:
            since = "" if standing.since is None else f" since {standing.since:%Y-%m-%d %H:%M} UTC"
            what = f"version {standing.production} is in Production{since}"
        return f"{loaded.model}: {what}; `make trail ID={loaded.model}` tells what was done."
    return ""


def _say(told: str, policy: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(told)
    if policy and (where := whereabouts(policy)):
        console.print(where, markup=False)


def _leave(policy: str) -> NoReturn:
    """End at once. A fit cannot be interrupted, and to wait for its end would take hours; whatever it was about to
    write is completed or given up by the next run, as after any other death.
    """
    _say("[yellow]Interrupted[/]. What it had begun is completed or given up by the next run.", policy)
    if determine_server_type() is ServerType.EPHEMERAL:
        from prefect.server.api.server import SubprocessASGIServer  # noqa: PLC0415  see _own_server()

        SubprocessASGIServer().stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_INTERRUPTED)


def _own_server() -> None:
    """Start Prefect's temporary server here, where none is configured, deaf to Ctrl-C.

    A terminal tells every process of a command; a server that ended with it would leave the flow to ask it in vain for
    minutes what becomes of the run.
    """
    if determine_server_type() is not ServerType.EPHEMERAL:
        return
    from prefect.server.api.server import SubprocessASGIServer  # noqa: PLC0415  seconds, which no server of one's own needs

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()  # a process inherits which signals are blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Plain(logging.Filter):
    """Takes the traceback off an error that Backstop raised itself: its text says everything."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is not None and _is_told(error):
            record.exc_info, record.exc_text = None, None
        return True


def _is_told(error: BaseException) -> bool:
    if type(error).__module__.partition(".")[0] in _OURS:
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and bool(frames) and _is_ours(Path(frames[-1].filename))


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OURS


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    plain = _Plain()
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addFilter(plain)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(plain)
