"""Exchange: one request over HTTP and its answer, both within a deadline, with servers that others keep.

A server that is away, hangs, or sends a byte now and then costs a tick its deadline and nothing more.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

_LARGEST = 64 << 20
"""Bytes of an answer; a day of counters every fifteen seconds is one megabyte."""


class NoReply(OSError):
    """The server did not answer, or not with HTTP; the text holds no secret."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said.

    Attributes:
        status: Of HTTP.
        body: As it came.
    """

    status: int
    body: bytes


def ask(
    method: str,
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """Ask once; redirects are not followed.

    Args:
        method: Of HTTP.
        url: ``http`` or ``https``; a name and password in it are sent as basic authorization.
        seconds: For everything together, the answer included.
        headers: Beside those that HTTP needs.
        body: To send.
        context: Whom to trust; empty: whom the system trusts.

    Raises:
        NoReply: When there is no whole answer in time.
    """
    end = time.monotonic() + seconds
    try:
        parts = urlsplit(url)
        connection = _connection(parts, seconds, context)
    except ValueError as error:
        raise NoReply(f"the address cannot be used: {error}") from None
    path = parts.path or "/"
    sent = {**_authorization(parts), **(headers or {}), "Accept-Encoding": "identity"}
    late = threading.Event()
    try:
        connection.connect()
        with _hung_up_at(end, connection, late):
            connection.request(method, f"{path}?{parts.query}" if parts.query else path, body, sent)
            answer = connection.getresponse()
            content = answer.read(_LARGEST + 1)
            status, missing = answer.status, answer.length
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise NoReply(f"no whole answer within {seconds:.3g} s") from None
        raise NoReply(f"{type(error).__name__}: {error}") from None
    finally:
        connection.close()
    if late.is_set():  # an answer without a length ends where it is cut off
        raise NoReply(f"no whole answer within {seconds:.3g} s")
    if len(content) > _LARGEST:
        raise NoReply(f"the answer has more than {_LARGEST >> 20} MiB")
    if missing:  # http.client says nothing of it when it was told how much to read
        raise NoReply(f"the answer ends {missing} bytes too early")
    return Reply(status, content)


def place(url: str) -> str:
    """An address as it may be shown: without name, password and query."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return "***"


def _connection(parts: SplitResult, seconds: float, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=seconds, context=context)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("it is not of the form http://host:port")
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}


@contextmanager
def _hung_up_at(end: float, connection: http.client.HTTPConnection, late: threading.Event) -> Iterator[None]:
    """Cut the connection at a moment: a timeout of the socket begins anew with every byte."""
    wire = connection.sock

    def hang_up() -> None:
        late.set()
        with suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, end - time.monotonic()), hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
