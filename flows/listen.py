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
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tasks.masking import mask
from tasks.plugins import PluginError, expand
from tasks.policy import Policy
from tasks.policy_file import PolicyError, load_many
from tasks.policy_problem import near
from tasks.stores import Stores

NAME = "backstop_data_landed"
"""Of the channel, the trigger and its function."""

_LABELS = "labels"
_PATIENCE = 30.0
"""Seconds after which a connection on which nothing comes is asked whether it still lives."""

_log = logging.getLogger("flows.listen")


class ListenError(ValueError):
    """What cannot be listened to; nothing was begun.

    Attributes:
        problems: Everything that is wrong, one sentence each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def _quote(name: str) -> str:
    return Identifier(name).as_string()


@dataclass(frozen=True, slots=True)
class Spring:
    """A table from which data comes.

    Attributes:
        policy: What the flows are given.
        model: Its model.
        url: Of the database, for SQLAlchemy; holds the password.
        schema: Of the table.
        table: Its name.
    """

    policy: str
    model: str
    url: URL
    schema: str
    table: str

    @property
    def place(self) -> str:
        """For people; no secret."""
        return f"{self.schema}.{self.table} in {mask(self.url.render_as_string(hide_password=True))}"

    @property
    def quoted(self) -> str:
        """The table as SQL."""
        return f"{_quote(self.schema)}.{_quote(self.table)}"


# What is listened to.


def springs(spec: str, *, labels: bool, environment: Mapping[str, str] = os.environ) -> list[Spring]:
    """The tables of the policies.

    Args:
        spec: Policy files, model names, a folder or a glob, with commas between.
        labels: The labels of the request log too.
        environment: For ``${NAME}`` in the sources.

    Raises:
        ListenError: Lists every policy that cannot be read or is not a table of PostgreSQL.
    """
    try:
        policies = load_many(spec)
    except PolicyError as error:
        raise ListenError(str(problem) for problem in error.problems) from None
    found: list[Spring] = []
    problems: list[str] = []
    for policy in policies:
        if "://" not in policy.data.source and len(policies) > 1:  # of a folder, the files are what they are
            _log.warning("%s: left out, its data.source is a file or a loader", policy.model)
            continue
        try:
            found.append(_spring(policy, environment))
            if labels:
                found.append(_labels(policy))
        except (ListenError, PluginError, ArgumentError) as error:
            problems.append(f"{policy.origin}: {mask(str(error))}")
    if problems or not found:
        raise ListenError(problems or [f"{spec}: no policy has its data on PostgreSQL; there is nothing to listen to"])
    return found


def _spring(policy: Policy, environment: Mapping[str, str]) -> Spring:
    source = expand(policy.data.source, environment)
    if not source.startswith("postgres"):
        raise ListenError(["data.source is not on PostgreSQL; let whatever writes it emit backstop.data.landed itself"])
    if policy.data.table is None:
        raise ListenError(
            ["data.query names no table to put a trigger on; give data.table, or emit the event yourself"]
        )
    return _found(policy, source, policy.data.table, "data.table")


def _labels(policy: Policy) -> Spring:
    requests = Stores.from_environment().requests
    if not requests.startswith("postgres"):
        raise ListenError(["--labels: the request log (BACKSTOP_REQUESTS) is not on PostgreSQL; leave --labels out"])
    return _found(policy, requests, _LABELS, "--labels")


def _found(policy: Policy, source: str, name: str, key: str) -> Spring:
    url = make_url(source).set(drivername="postgresql+psycopg")
    schema, _, bare = name.rpartition(".")
    with _connected(url) as connection:
        there = inspect(connection)
        schema = schema or str(there.default_schema_name)
        known = there.get_table_names(schema=schema)
        if bare not in known:
            views = bare in there.get_view_names(schema=schema)
            said = "is a view; put the trigger on the table behind it" if views else f"is not there{near(bare, known)}"
            raise ListenError([f"{key}: {name!r} {said}"])
    return Spring(policy.origin, policy.model, url, schema, bare)


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": 10})
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        shown = mask(url.render_as_string(hide_password=True))
        hidden = said.replace(str(url.password), "***") if url.password else said
        raise ListenError([f"{shown}: {hidden}"]) from None


# The trigger.


def statements(spring: Spring) -> tuple[str, ...]:
    """SQL that installs the trigger, as often as it is run. One notification per statement, however many rows.

    The rows are not counted: a transition table would keep a copy of every bulk load for it.
    """
    function = f"{_quote(spring.schema)}.{_quote(NAME)}"
    notify = f"pg_notify('{NAME}', json_build_object('schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME)::text)"
    body = f"BEGIN\n  PERFORM {notify};\n  RETURN NULL;\nEND"
    event = f"AFTER INSERT ON {spring.quoted} FOR EACH STATEMENT"
    return (
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$\n{body} $$",
        *removal(spring),
        f"CREATE TRIGGER {_quote(NAME)} {event} EXECUTE FUNCTION {function}()",
    )


def removal(spring: Spring) -> tuple[str, ...]:
    """SQL that takes the trigger away; its function stays, as other tables of the schema may use it."""
    return (f"DROP TRIGGER IF EXISTS {_quote(NAME)} ON {spring.quoted}",)


def install(spring: Spring) -> str:
    """Put the trigger on the table; returns what was done.

    Raises:
        ListenError: When the user of the policy may not, or the table is locked for ten seconds.
    """
    with _connected(spring.url) as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))  # no writer waits longer behind this
        there = _installed(connection, spring)
        # Where the trigger is there, only its function is written anew: that locks no table.
        for statement in statements(spring)[: 1 if there else None]:
            _execute(connection, statement)
    return f"{spring.place}: {'is there already' if there else 'installed'}"


def uninstall(spring: Spring) -> str:
    """Take the trigger away; returns what was done.

    Raises:
        ListenError: See :func:`install`.
    """
    with _connected(spring.url) as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        there = _installed(connection, spring)
        for statement in removal(spring) if there else ():
            _execute(connection, statement)
    return f"{spring.place}: {'removed' if there else 'is not there'}"


def _execute(connection: Connection, statement: str) -> None:
    # Straight to the driver and without parameters: a % in a name is a % then.
    connection.connection.cursor().execute(statement)


def _installed(connection: Connection, spring: Spring) -> bool:
    asked = (
        "SELECT 1 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE t.tgname = :name AND c.relname = :table AND n.nspname = :schema AND t.tgenabled <> 'D'"
    )
    values = {"name": NAME, "table": spring.table, "schema": spring.schema}
    return connection.execute(text(asked), values).first() is not None


def check_installed(found: Iterable[Spring]) -> None:
    """See that every table has its trigger: without one nothing would ever come, and nobody would notice.

    Raises:
        ListenError: Lists the tables without.
    """
    problems = []
    for spring in found:
        with _connected(spring.url) as connection:
            if not _installed(connection, spring):
                problems.append(f"{spring.place} has no trigger; install it first: --install, or --sql for your DBA")
    if problems:
        raise ListenError(problems)


# Listening.

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
