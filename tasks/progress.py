"""Progress: how far something is that takes longer than a person likes to wait for without a sign."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Progress = Callable[[int, int, str], None]
"""Told (done, of, what is done)."""


def silent(_done: int, _total: int, _what: str) -> None:
    """Shows nothing."""


@dataclass(slots=True)
class Course:
    """The stages of something that cannot say more precisely how far it is.

    Attributes:
        progress: Told of each.
        what: Is done, in words.
        stages: How many there are.
        done: Of them.
    """

    progress: Progress
    what: str
    stages: int
    done: int = 0

    def __post_init__(self) -> None:
        """Tells that it has begun."""
        self.progress(0, self.stages, self.what)

    def past(self) -> None:
        """One stage more is over."""
        self.done += 1
        self.progress(min(self.done, self.stages), self.stages, self.what)

    def end(self) -> None:
        """It is over, with fewer stages than there might have been."""
        if self.done < self.stages:
            self.done = self.stages
            self.progress(self.done, self.stages, self.what)


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """Bars that go away at the end, on the error stream: what is found can be piped. None without a terminal."""
    from rich import progress as bars  # noqa: PLC0415  flows and judges show none
    from rich.console import Console  # noqa: PLC0415  see above

    console = Console(stderr=True)
    with bars.Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        rows: dict[str, bars.TaskID] = {}

        def told(done: int, total: int, what: str) -> None:
            if what not in rows:
                rows[what] = shown.add_task(what, total=total)
            shown.update(rows[what], completed=done, total=total)

        yield told
