"""Protocol: uvicorn's own, which also hangs up on clients that never finish the head of a request.

uvicorn has a time limit between two requests of a connection, which ends with the first byte of the second one, and
none before the first: a few hundred connections that say little or nothing would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Protocol
else:
    _Protocol = AutoHTTPProtocol


def patient_for(seconds: float) -> type[asyncio.Protocol]:
    """The protocol that waits so long for the head of a request, once its connection or its first byte is there."""

    class Patient(_Protocol):
        _awaited_after: Any = None
        """The request before the head that is waited for; None: the head of the first one."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(seconds, self.hang_up_unless_asked, None)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            before = self.cycle  # there is another one as soon as a head is complete
            if before is not None and before.response_complete and before is not self._awaited_after:
                self._awaited_after = before
                self.loop.call_later(seconds, self.hang_up_unless_asked, before)

        def hang_up_unless_asked(self, before: object) -> None:
            if self.cycle is before and not self.transport.is_closing():
                self.transport.close()

    return Patient
