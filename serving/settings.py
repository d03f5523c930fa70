"""Settings: what a gateway is told when it starts, from its environment and its command line."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

PREFIX = "BACKSTOP_SERVING_"


class SettingsError(ValueError):
    """Settings that cannot be used; lists every problem."""


def _option(default: Any, text: str, *, least: float | None = None) -> Any:
    return field(default=default, metadata={"text": text, "least": least})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a gateway behaves.

    Every field can be set in the environment: ``max_rows`` as BACKSTOP_SERVING_MAX_ROWS.

    Attributes:
        host: Address to listen on.
        port: To listen on.
        token: Clients have to send it as ``Authorization: Bearer ...``; empty: nobody has to.
        max_bytes: Of a request's body.
        max_rows: Of one request.
        rate: Requests per second of one client address; 0: no limit.
        body_seconds: In which a client has to send its request.
        workers: Threads that score.
        waiting: Requests that may wait for a thread; more are sent away with a 503.
        poll_seconds: Between two looks at the ledger.
        queue_rows: Answers that may wait to be recorded; more are dropped and counted.
        spool_bytes: Of the answers on disk that wait for the log database; more are dropped and counted.
        shadow_rows: Answered rows that may wait for a candidate to answer them unseen; more are dropped and counted.
        shadow_seconds: That a candidate has for rows that it answers unseen, before its process is ended.
        shadow_bytes: Memory that its process may have.
        unseen: What becomes of a category, or a null, in a column in which the version's training rows had none:
            ``refuse`` or ``accept``.
    """

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(8400, "port to listen on", least=0)
    token: str = _option("", "bearer token that clients have to send; empty: none")
    max_bytes: int = _option(2 << 20, "bytes of a body", least=1024)
    max_rows: int = _option(1000, "rows of one request", least=1)
    rate: float = _option(0.0, "requests per second of one client address; 0: no limit", least=0)
    body_seconds: float = _option(10.0, "seconds in which a client has to send its request", least=0.1)
    workers: int = _option(2, "threads that score", least=1)
    waiting: int = _option(256, "requests that may wait for a thread", least=1)
    poll_seconds: float = _option(0.5, "seconds between two looks at the ledger", least=0.05)
    queue_rows: int = _option(50_000, "answers that may wait to be recorded", least=1)
    spool_bytes: int = _option(1 << 30, "bytes on disk that wait for the log database", least=1024)
    shadow_rows: int = _option(10_000, "answered rows that may wait for a candidate to answer them unseen", least=1)
    shadow_seconds: float = _option(10.0, "seconds that a candidate has for rows that it answers unseen", least=0.1)
    shadow_bytes: int = _option(4 << 30, "memory of a candidate that answers unseen", least=256 << 20)
    unseen: str = _option("refuse", "a category or null that training did not have: refuse or accept")

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ, **given: str | None) -> Settings:
        """From the environment; what is given goes before it.

        Raises:
            SettingsError: Lists every problem, with the variable or the option that it came from.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        known = {entry.name: entry for entry in fields(cls)}
        unknown = [name for name in environment if name.startswith(PREFIX) and name[len(PREFIX) :].lower() not in known]
        problems += [f"{name} is no setting; known are {', '.join(sorted(known))}" for name in sorted(unknown)]
        for name, entry in known.items():
            variable = f"{PREFIX}{name.upper()}"
            text, origin = given.get(name), f"--{name.replace('_', '-')}"
            if text is None:
                text, origin = environment.get(variable), variable
            if text is None or (not text and name != "token"):
                continue
            value, problem = _value(text, type(entry.default), entry.metadata["least"])
            values[name] = value
            problems += [f"{origin} is {text!r}: {problem}"] if problem else []
        settings = cls(**values) if not problems else cls()
        problems += (
            [] if settings.unseen in {"refuse", "accept"} else [f"unseen is {settings.unseen!r}: say refuse or accept"]
        )
        if problems:
            raise SettingsError("the gateway's settings cannot be used:\n" + "\n".join(f"  {one}" for one in problems))
        return settings


def _value(text: str, kind: Callable[[str], Any], least: float | None) -> tuple[Any, str]:
    """The value of a text, and what is wrong with it."""
    try:
        value = kind(text)
    except ValueError:
        return None, "give a whole number" if kind is int else "give a number"
    if least is not None and not (math.isfinite(value) and value >= least):
        return None, f"give at least {least:g}"
    return value, ""
