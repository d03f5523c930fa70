"""Springs: tables of PostgreSQL from which data comes, and the trigger on them that says so with every statement."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg.sql import Identifier
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tasks import schema
from tasks.masking import mask
from tasks.plugins import PluginError, expand
from tasks.policy import Policy
from tasks.policy_file import PolicyError, load_many
from tasks.policy_problem import near
from tasks.stores import Stores

NAME = "backstop_data_landed"
"""Of the channel, the trigger and its function."""


_log = logging.getLogger(__name__)


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
    return _found(policy, requests, schema.labels.name, "--labels")


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
