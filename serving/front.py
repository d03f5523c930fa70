"""Front: takes plain requests for predictions past the framework, which costs as much as the whole answer.

Plain is one JSON body of known size, small enough, with nothing unusual in its headers. Everything else, and every
other address, is the framework's. A test asks both ways and compares.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from serving.inputs import BadInput
from serving.limits import check_token

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from serving.app import Desktop

_PATHS = frozenset({"/predict", "/invocations"})
_KIND = (b"content-type", b"application/json")
_UNUSUAL = frozenset({b"content-encoding", b"transfer-encoding", b"expect"})


class Front:
    """The gateway as a server sees it.

    Attributes:
        app: The framework's.
    """

    def __init__(self, app: ASGIApp, desk: Desktop) -> None:
        self.app, self._desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run for the length of the server's life."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in _PATHS:
            token = _plain(scope["headers"], self._desk.settings.max_bytes)
            if token is not None:
                await self._answer(scope, receive, send, token)
                return
        await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, token: str) -> None:
        desk = self._desk
        try:
            if desk.settings.token:
                check_token(token, desk.settings)
            client = scope["client"]
            desk.rate.check(client[0] if client else "")
            body = await desk.predict(await _body(receive, desk.settings.body_seconds))
        except Exception as error:  # noqa: BLE001  whatever is wrong in here, the client is told, and the process goes on
            await desk.told(error, scope["path"])(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(body)), _KIND]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _plain(headers: list[tuple[bytes, bytes]], most: int) -> str | None:
    """The token that came with a plain request, empty where none did; None: it is not plain."""
    size, token = -1, b""
    for name, value in headers:
        if name == b"content-length":
            size = int(value) if value.isdigit() else most + 1
        elif name == b"content-type":
            if value != _KIND[1]:
                return None
        elif name == b"authorization":
            token = value
        elif name in _UNUSUAL:
            return None
    return token.decode("latin-1") if 0 <= size <= most else None


async def _body(receive: Any, seconds: float) -> bytes:
    """All of a body; the server sees to it that it is as long as was announced.

    Raises:
        BadInput: When it comes too slowly.
        ClientDisconnect: When the client has gone.
    """
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientDisconnect
                chunks.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise BadInput.of(408, "slow", "body", f"did not come within {seconds:g} s; send it at once") from None
