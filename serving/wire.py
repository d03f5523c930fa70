"""Wire: messages between two processes over pipes: eight bytes of length, then JSON.

The side that must not wait for the other has deadlines for everything, and believes no length.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson

_HEAD = 8
_MOST = 256 << 20
"""Bytes of a message; more is nothing that one of ours says."""
_SLICE = 0.25
"""Seconds after which it is asked whether waiting is still worth it."""


class Broken(RuntimeError):
    """The other side has gone, or says what is no message."""


class Gone(Broken):
    """The other side has closed its end: it has died, or is about to."""


class Silent(RuntimeError):
    """The other side did not answer, or did not listen, in time."""


def read(file: BinaryIO) -> Any | None:
    """The next message, however long that takes; None at the end."""
    head = file.read(_HEAD)
    if len(head) < _HEAD:
        return None
    body = file.read(int.from_bytes(head, "big"))
    return orjson.loads(body)


def write(file: BinaryIO, message: Any) -> None:
    """Send a message, however long that takes."""
    body = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    file.write(len(body).to_bytes(_HEAD, "big") + body)
    file.flush()


class Line:
    """The impatient side."""

    def __init__(
        self, inwards: int, outwards: int, *, given_up: Callable[[], bool], excused: Callable[[], bool]
    ) -> None:
        """Talk over two file descriptors.

        Args:
            inwards: To read from.
            outwards: To write to.
            given_up: Asked while waiting; True: there is nothing to wait for any more.
            excused: Asked at a deadline; True: it is not its fault, and it gets up to ten times as long.
        """
        self._in, self._out, self._given_up, self._excused = inwards, outwards, given_up, excused
        self._last = 0.0
        os.set_blocking(inwards, False)
        os.set_blocking(outwards, False)

    def ask(self, message: Any, seconds: float) -> Any:
        """Send a message and wait for the answer.

        Raises:
            Broken: When the other side has gone, or says what is no message.
            Silent: When it takes longer than this, or was given up.
        """
        end = time.monotonic() + seconds
        self._last = end + 9 * seconds
        body = orjson.dumps(message)
        self._put(memoryview(len(body).to_bytes(_HEAD, "big") + body), end)
        size = int.from_bytes(self._get(_HEAD, end), "big")
        if size > _MOST:
            raise Broken(f"an answer of {size} bytes was announced")
        try:
            return orjson.loads(self._get(size, end))
        except orjson.JSONDecodeError as error:
            raise Broken(f"an answer was no JSON: {error}") from error

    def _put(self, block: memoryview, end: float) -> None:
        while block:
            self._wait(end, write=True)
            try:
                block = block[os.write(self._out, block) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Gone(f"it listens no more: {error}") from error

    def _get(self, size: int, end: float) -> bytes:
        found = bytearray()
        while len(found) < size:
            self._wait(end, write=False)
            try:
                part = os.read(self._in, min(size - len(found), 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise Gone("it has gone")
            found += part
        return bytes(found)

    def _wait(self, end: float, *, write: bool) -> None:
        wanted: tuple[list[int], list[int]] = ([], [self._out]) if write else ([self._in], [])
        while True:
            now = time.monotonic()
            late = now >= end and (now >= self._last or not self._excused())
            if late or self._given_up():
                raise Silent("it did not answer in time")
            if any(select.select(*wanted, [], min(max(end - now, 0.01), _SLICE))[:2]):
                return
