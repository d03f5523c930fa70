"""Disks that fill up, and folders that nobody may write to: real ones where the machine lets us make them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

_SIZE = 24
"""Megabytes of a disk."""

_MOST = 2**30
"""Pages that a SQLite file may have when nothing limits it."""


class Mounted:
    """A small disk of its own, in memory. What is put on it stays where it was, as a link."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is where the disk is mounted."""
        self.folder = folder

    def hold(self, path: Path) -> None:
        """Put this on the disk."""
        shutil.move(path, self.folder / path.name)
        path.symlink_to(self.folder / path.name)

    def full(self) -> None:
        """Not one byte more fits."""
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while True:
                        filler.write(b"\0" * size)

    def room(self) -> None:
        """There is room again."""
        (self.folder / "filler").unlink()


class Limited:
    """SQLite files that may not grow by one page: what SQLite says then is what it says of a full disk."""

    def __init__(self) -> None:
        """Nothing is limited yet."""
        self._held: list[str] = []
        self._full = False

    def hold(self, path: Path) -> None:
        """From now on this file is limited whenever the disk is full."""
        self._held.append(str(path))

    def full(self) -> None:
        """The files may not grow."""
        self._full = True

    def room(self) -> None:
        """They may grow again."""
        self._full = False

    def __call__(self, connection: Connection, *_: object) -> None:
        """Listener for every statement: the limit belongs to a connection, and there are many."""
        if connection.engine.url.database in self._held:
            cursor = connection.connection.cursor()
            cursor.execute(f"PRAGMA max_page_count={1 if self._full else _MOST}")
            cursor.close()


@contextmanager
def mounted(folder: Path) -> Iterator[Mounted]:
    """A disk of its own at this folder; the test is skipped where nobody may mount one."""
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk; SQLite files that may not grow stand in for it")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}m", "tmpfs", folder],  # noqa: S607  wherever the system keeps it
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this machine does not let us mount a small disk: {done.stderr.strip()}")
    try:
        yield Mounted(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607  see above


@contextmanager
def limited() -> Iterator[Limited]:
    """Every SQLite file, once it is told to be on the disk."""
    made = Limited()
    event.listen(Engine, "before_cursor_execute", made)
    try:
        yield made
    finally:
        event.remove(Engine, "before_cursor_execute", made)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder and everything in it that cannot be written, not even by root; the test is skipped where root can."""
    if os.geteuid() != 0:
        with _without_permission(folder):
            yield
        return
    if shutil.which("chattr") is None:
        pytest.skip("root may write everywhere, and there is no chattr here to forbid it")
    done = subprocess.run(["chattr", "-R", "+i", folder], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        pytest.skip(f"root may write everywhere, and files cannot be made immutable here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-R", "-i", folder], check=True)  # noqa: S607  see above


@contextmanager
def _without_permission(folder: Path) -> Iterator[None]:
    paths = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in paths]
    for path, mode in zip(paths, modes, strict=True):
        path.chmod(mode & 0o555)
    try:
        yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)
