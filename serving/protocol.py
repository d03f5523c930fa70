"""Protocol: uvicorn's own, which also hangs up on clients that never finish the head of their first request.

uvicorn has a time limit between two requests of a connection and none before the first: a few hundred connections that
say nothing would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Protocol
else:
    _Protocol = AutoHTTPProtocol


def patient_for(seconds: float) -> type[asyncio.Protocol]:
    """The protocol that waits so long for the head of the first request of a connection."""

    class Patient(_Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(seconds, self.hang_up_unless_asked)

        def hang_up_unless_asked(self) -> None:
            if self.cycle is None and not self.transport.is_closing():  # there is one as soon as a head is complete
                self.transport.close()

    return Patient
