"""Clients that ask a server over kept connections, and note when and what they were answered.

A client of its own: the usual ones cost several times what the servers cost that are to be measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its client saw it.

    Attributes:
        sent: By ``time.perf_counter``.
        seconds: Until the answer was there.
        status: Of HTTP; 0: the connection broke.
        body: Of the answer.
    """

    sent: float
    seconds: float
    status: int
    body: bytes


def request(path: str, body: bytes) -> bytes:
    """The bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + _HEAD + body


@dataclass
class Client(asyncio.Protocol):
    """One connection, with one request at a time."""

    arrived: asyncio.Future[tuple[int, bytes]] | None = None
    transport: asyncio.Transport | None = None
    _bytes: bytearray = field(default_factory=bytearray)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is whole."""
        self._bytes += data
        end = self._bytes.find(_HEAD)
        if end < 0 or self.arrived is None:
            return
        head = bytes(self._bytes[:end]).lower()
        place = head.find(b"content-length:")
        size = int(head[place + 15 :].split(b"\r\n", 1)[0])
        if len(self._bytes) < end + 4 + size:
            return
        body = bytes(self._bytes[end + 4 : end + 4 + size])
        del self._bytes[: end + 4 + size]
        future, self.arrived = self.arrived, None
        if not future.done():
            future.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told with status 0."""
        if self.arrived is not None and not self.arrived.done():
            self.arrived.set_result((0, str(exc).encode()))
        self.transport = None

    async def ask(self, message: bytes) -> Seen:
        """Send a request and wait for its answer."""
        begun = time.perf_counter()
        if self.transport is None:
            return Seen(begun, 0.0, 0, b"no connection")
        self.arrived = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        status, body = await self.arrived
        return Seen(begun, time.perf_counter() - begun, status, body)


async def connect(port: int) -> Client:
    """A connection to a server of this machine."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


def together(port: int, message: Callable[[int], bytes], *, clients: int, seconds: float) -> list[Seen]:
    """So many clients ask without a pause for so long.

    Args:
        port: Of the server.
        message: Gives the bytes of the n-th request.
        clients: Connections.
        seconds: After which none begins another request.
    """

    async def every() -> list[Seen]:
        end, number = time.perf_counter() + seconds, 0
        seen: list[Seen] = []

        async def one() -> None:
            nonlocal number
            client = await connect(port)
            while time.perf_counter() < end:
                number += 1
                seen.append(await client.ask(message(number)))
            if client.transport is not None:
                client.transport.close()

        await asyncio.gather(*(one() for _ in range(clients)))
        return seen

    return asyncio.run(every())


def _open(free: list[Client]) -> Client | None:
    """A connection that the server has not closed, as it does with one that nobody used for seconds."""
    while free:
        client = free.pop()
        if client.transport is not None and not client.transport.is_closing():
            return client
    return None


def steadily(port: int, message: Callable[[int], bytes], *, rate: float, requests: int) -> list[Seen]:
    """Requests at even steps, however long the answers take; every one has a connection for itself while it waits.

    A request that would have to wait for its client would hide how slow the server is.
    """

    async def every() -> list[Seen]:
        free = [await connect(port) for _ in range(4)]
        begun = time.perf_counter()

        async def one(number: int) -> Seen:
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            client = _open(free) or await connect(port)
            seen = await client.ask(message(number))
            if client.transport is not None:
                free.append(client)
            return seen

        found = await asyncio.gather(*(one(number) for number in range(requests)))
        for client in free:
            if client.transport is not None:
                client.transport.close()
        return list(found)

    return asyncio.run(every())
