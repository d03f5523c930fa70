"""Limits: how much, how often and by whom may be asked."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request

from serving.inputs import BadInput
from serving.settings import Settings

_CLIENTS = 10_000
"""Addresses that are remembered; the one that asked longest ago is forgotten first."""
_DRAINED = 256 << 20
"""Bytes of a body that is too large which are still read: a client that is hung up on never sees why."""


class Rate:
    """So many requests per second for each client, with one second's worth at once."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = per_second, clock
        self._burst = max(1.0, per_second)
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Count one request.

        Raises:
            BadInput: When the client has used up what it may.
        """
        if not self._rate:
            return
        now = self._clock()
        left, at = self._clients.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        allowed = left >= 1
        self._clients[client] = (left - 1 if allowed else left, now)
        if len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)
        if not allowed:
            raise BadInput.of(429, "rate", "client", f"asks more than {self._rate:g} times a second; ask more slowly")


def check_token(given: str, settings: Settings) -> None:
    """See that the client knows the token, where one is set.

    Args:
        given: The header ``Authorization``; empty: there is none.
        settings: Of the gateway.

    Raises:
        BadInput: When it does not.
    """
    if not settings.token:
        return
    if not hmac.compare_digest(given.encode(), f"Bearer {settings.token}".encode()):
        raise BadInput.of(401, "token", "Authorization", "has not the gateway's token; send it as `Bearer <token>`")


async def body_of(request: Request, settings: Settings) -> bytes:
    """The body of a request.

    Raises:
        BadInput: When it is no JSON by its headers, is too large, or comes too slowly.
        starlette.requests.ClientDisconnect: When the client has gone.
    """
    _check_headers(request)
    announced = request.headers.get("content-length", "")
    limit = settings.max_bytes
    too_large = announced.isdecimal() and int(announced) > limit
    if too_large and (int(announced) > _DRAINED or "100-continue" in request.headers.get("expect", "").lower()):
        raise _too_large(announced, limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > _DRAINED:
                    break
                if size <= limit and not too_large:
                    chunks.append(chunk)
                else:
                    chunks.clear()
    except TimeoutError:
        if too_large or size > limit:
            raise _too_large(announced or f"more than {limit}", limit) from None
        message = f"did not come within {settings.body_seconds:g} s; send it at once"
        raise BadInput.of(408, "slow", "body", message) from None
    if size > limit:
        raise _too_large(str(size), limit)
    return b"".join(chunks)


def _check_headers(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadInput.of(415, "form", "Content-Type", f"is {kind[:60]!r}; send application/json")
    if coding := request.headers.get("content-encoding"):
        raise BadInput.of(415, "form", "Content-Encoding", f"is {coding[:60]!r}; send the body as it is")


def _too_large(size: str, limit: int) -> BadInput:
    return BadInput.of(413, "bytes", "body", f"has {size[:20]} bytes; send at most {limit}")
