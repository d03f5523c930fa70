"""Spool: lines on disk that wait for a database, in files that are only ever appended to.

A file belongs to the process that writes it, by a lock that dies with it; what a process leaves behind, any other that
looks into the same folder takes over.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import IO

_SEGMENT = 4 << 20
"""Bytes after which a new file is begun."""


class SpoolFull(OSError):
    """No more may be kept."""


class Spool:
    """The files of one kind of rows. Safe to use from several threads."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        """Look what is there; the folder is made when something is written.

        Args:
            folder: Of the files.
            limit: Bytes of all of them together.
        """
        self._folder, self._limit = folder, limit
        self._guard = Lock()
        self._open: IO[bytes] | None = None
        self._made = 0
        self._counted: dict[Path, tuple[int, int]] = {}

    def append(self, lines: Sequence[bytes]) -> None:
        """Keep lines, on the disk and not only on its way there when this returns.

        Raises:
            SpoolFull: When the limit is reached.
            OSError: When they cannot be written; none of them is kept then.
        """
        block = b"".join(line + b"\n" for line in lines)
        with self._guard:
            if self.size + len(block) > self._limit:
                raise SpoolFull(f"{self._folder} holds {self.size} bytes and may hold {self._limit}")
            file = self._file()
            begun = file.tell()
            try:
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), begun)
                self._close()
                raise
            if file.tell() >= _SEGMENT:
                self._close()

    @property
    def size(self) -> int:
        """Of all files."""
        total = 0
        for path in self._paths():
            with suppress(OSError):
                total += path.stat().st_size
        return total

    def __bool__(self) -> bool:
        return any(True for _ in self._paths())

    def rows(self) -> int:
        """Lines of all files; a file that has not grown is not counted again."""
        known, self._counted = self._counted, {}
        for path in self._paths():
            with suppress(OSError):
                size = path.stat().st_size
                counted = known.get(path)
                rows = counted[1] if counted and counted[0] == size else path.read_bytes().count(b"\n")
                self._counted[path] = (size, rows)
        return sum(rows for _, rows in self._counted.values())

    @contextmanager
    def oldest(self) -> Iterator[list[bytes] | None]:
        """The lines of the oldest file that nobody else writes or reads; None: there is none.

        The file is removed at the end of the block, and stays when the block raises. A last line that was cut off by a
        crash comes as it is.
        """
        with self._guard:
            self._close()
        for path in self._paths():
            with suppress(FileNotFoundError), path.open("rb") as file:
                if not _locked(file) or not path.exists():
                    continue
                yield file.read().splitlines()
                path.unlink(missing_ok=True)
                return
        yield None

    def close(self) -> None:
        """Let go of the open file."""
        with self._guard:
            self._close()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def _file(self) -> IO[bytes]:
        if self._open is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._made += 1
            path = self._folder / f"{time.time_ns():020d}-{os.getpid()}-{self._made}.jsonl"
            self._open = path.open("xb")
            _locked(self._open)
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            with suppress(OSError):
                self._open.close()
            self._open = None


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
