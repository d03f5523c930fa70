"""Listens to PostgreSQL: rows that come into the table of a policy start an evaluation, within seconds; a program.

``python -m flows.listen --policy policies/churn.yaml --install`` puts a trigger on the table once (``--sql`` prints it
for whoever may do that); without it the program listens and emits `backstop.data.landed`, until it is stopped.

A notification that was sent while nobody listened is gone, so every (re)connect counts as data that landed.
Requires: `PREFECT_API_URL`, sources on PostgreSQL, and the automations.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import psycopg
import typer
from prefect.client.orchestration import get_client
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.text import Text
from sqlalchemy.engine import URL

from tasks.masking import mask
from tasks.springs import (
    NAME,
    ListenError,
    Spring,
    check_installed,
    install,
    removal,
    springs,
    statements,
    uninstall,
)

_PATIENCE = 30.0
"""Seconds after which a connection on which nothing comes is asked whether it still lives."""

_log = logging.getLogger("flows.listen")

Emit = Callable[[Spring, str], Awaitable[None]]


@dataclass(slots=True)
class _Bell:
    """One policy's: rung by whatever lands for it."""

    spring: Spring
    reason: str = ""
    rung: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Listener:
    """Turns notifications into events, at most one per policy in ``every`` seconds.

    Attributes:
        springs: What is listened to.
        emit: Gives an event to Prefect's server; may raise, and is tried again then.
        every: Seconds in which what lands for a policy becomes one event.
        longest: Seconds between two tries at most, of connecting and of emitting.
    """

    springs: list[Spring]
    emit: Emit
    every: float = 30.0
    longest: float = 60.0
    _bells: dict[str, _Bell] = field(default_factory=dict)

    async def run(self) -> None:
        """Listen to all databases until it is cancelled."""
        databases: dict[URL, list[Spring]] = {}
        for spring in self.springs:
            databases.setdefault(spring.url, []).append(spring)
            self._bells.setdefault(spring.policy, _Bell(spring))
        async with asyncio.TaskGroup() as group:
            for bell in self._bells.values():
                group.create_task(self._policy(bell))
            for url, some in databases.items():
                group.create_task(self._database(url, some))

    def _landed(self, spring: Spring, reason: str) -> None:
        bell = self._bells[spring.policy]
        bell.reason = reason
        bell.rung.set()

    async def _policy(self, bell: _Bell) -> None:
        while True:
            await bell.rung.wait()
            for delay in _delays(self.longest):
                # What lands from here on is told by the next event: the run of this one may have read by then.
                bell.rung.clear()
                try:
                    await self.emit(bell.spring, bell.reason)
                except Exception as error:  # noqa: BLE001  the server may be away for any reason; it is told when it is back
                    _log.warning("%s: not told yet, %s: %s", bell.spring.model, type(error).__name__, error)
                    await asyncio.sleep(delay)
                else:
                    break
            await asyncio.sleep(self.every)

    async def _database(self, url: URL, some: list[Spring]) -> None:
        shown = mask(url.render_as_string(hide_password=True))
        delays = _delays(self.longest)
        while True:
            try:
                await self._connection(url, some)
            except (psycopg.Error, OSError) as error:
                said = str(error).replace(str(url.password), "***") if url.password else str(error)
                _log.warning("%s: %s", shown, " ".join(said.split()))
            else:
                delays = _delays(self.longest)
            await asyncio.sleep(next(delays))

    async def _connection(self, url: URL, some: list[Spring]) -> None:
        """Listen on one connection until it is lost."""
        address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        async with await psycopg.AsyncConnection.connect(address, autocommit=True, connect_timeout=10) as connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(NAME)))
            _log.info("listening to %s", ", ".join(spring.place for spring in some))
            for spring in some:
                self._landed(
                    spring, f"began to listen to {spring.schema}.{spring.table}; what came before was not heard"
                )
            with suppress(psycopg.OperationalError):  # lost: the caller connects again, at once at first
                while True:
                    async for note in connection.notifies(timeout=_PATIENCE):
                        self._heard(note.payload, some)
                    await connection.execute("SELECT 1")

    def _heard(self, payload: str, some: list[Spring]) -> None:
        try:
            said = json.loads(payload)
            place = (said["schema"], said["table"])
        except (ValueError, KeyError, TypeError):
            _log.warning("not understood: %.200s", payload)  # anybody may NOTIFY on this channel
            return
        for spring in some:
            if place == (spring.schema, spring.table):
                self._landed(spring, f"rows were inserted into {spring.schema}.{spring.table}")


def _delays(longest: float) -> Iterator[float]:
    delay = 1.0
    while True:
        yield min(delay, longest)
        delay = min(delay * 2, longest)


async def emit(spring: Spring, reason: str) -> None:
    """Give the event to Prefect's server, and see that it took it.

    Raises:
        Exception: When it did not.
    """
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "backstop.data.landed",
        "resource": {
            "prefect.resource.id": f"backstop.model.{spring.model}",
            "prefect.resource.name": spring.model,
            "prefect.resource.role": "model",
            "backstop.source": "flows.listen",
        },
        "related": [],
        "payload": {
            "model": spring.model,
            "policy": spring.policy,
            "rows": None,
            "source": f"{spring.schema}.{spring.table}",
            "reason": reason,
        },
    }
    async with get_client() as client:
        await client.request("POST", "/events", json=[event])
    _log.info("%s: told, %s", spring.model, reason)


# The command.


def main(
    *,
    policy: Annotated[list[str], typer.Option(help="Policy files, models, a folder or a glob; may be given again.")],
    do_install: Annotated[bool, typer.Option("--install", help="Put the trigger on the tables, and end.")] = False,
    do_uninstall: Annotated[bool, typer.Option("--uninstall", help="Take it away, and end.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print what --install would do, and end.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Labels of the request log start evaluations too.")] = False,
    every: Annotated[float, typer.Option(min=1, max=86400, help="Seconds in which many inserts are one event.")] = 30.0,
) -> None:
    """Listen to the tables of policies on PostgreSQL, and tell Prefect when rows come.

    Raises:
        SystemExit: 1 when something cannot be listened to, with everything that is wrong.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    console = Console(soft_wrap=True, highlight=False)
    try:
        found = springs(",".join(policy), labels=labels)
        if sql:
            lines = [f"{one};" for spring in found for one in (removal if do_uninstall else statements)(spring)]
            console.print("\n".join(dict.fromkeys(lines)), markup=False)
        elif do_install or do_uninstall:
            for spring in found:
                console.print((uninstall if do_uninstall else install)(spring), markup=False)
        else:
            check_installed(found)
            asyncio.run(_until_stopped(Listener(found, emit, every)))
    except ListenError as error:
        Console(stderr=True, soft_wrap=True).print(Text(str(error), "red"))
        raise SystemExit(1) from error


async def _until_stopped(listener: Listener) -> None:
    """Listen until SIGTERM or SIGINT."""
    task: asyncio.Task[Any] = asyncio.create_task(listener.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    typer.run(main)
