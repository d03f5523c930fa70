"""The story of one version, from the trigger to the rollback, as the ledger has it; a command, and no flow.

``python -m flows.trail churn`` tells it of what serves now, ``churn:7`` of version 7, and the id that ends a message of
what it belongs to. ``--html story.html`` writes it with pictures into one page. Nothing is changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tasks.places import Places
from tasks.progress import on_terminal
from tasks.records import Verdict
from tasks.report import finding_rows
from tasks.stores import Stores
from tasks.story import Annals, NotTold, Step, Story, tell
from tasks.story_page import page

_COLOURS = {"good": "green", "bad": "red", "unsure": "yellow", "plain": "dim"}


def main(
    asked: Annotated[str, typer.Argument(metavar="ID|MODEL|MODEL:VERSION", help="What to tell the story of.")],
    *,
    html: Annotated[Path | None, typer.Option(help="Write one page with pictures into this file.")] = None,
) -> None:
    """Tell the story of one version, in the order in which it was written down.

    Raises:
        typer.BadParameter: When the ledger knows nothing of it, or the page cannot be written.
    """
    stores = Stores.from_environment()
    with tempfile.TemporaryDirectory(prefix="backstop-") as scratch:
        # To look into a ledger that is not there must not make one.
        stores = stores.rehearsed(Path(scratch))
        with Annals.open(stores.ledger) as annals:
            try:
                story = tell(annals, asked)
            except NotTold as unknown:
                raise typer.BadParameter(str(unknown)) from None
            if html is not None:
                from tasks.plots import pictures_of  # noqa: PLC0415  only pictures need numpy and matplotlib

                with on_terminal() as progress:
                    pictures = pictures_of(annals, story.model, story.steps, progress=progress)
                _write(html, page(story, pictures, Places.from_environment(stores)))
    console = Console(soft_wrap=True, highlight=False)
    if html is not None:
        console.print(f"{story.fate}. The story is in {html}", markup=False)
        return
    for line in lines(story, Places.from_environment(stores)):
        console.print(line)


def _write(path: Path, told: str) -> None:
    try:
        path.write_text(told, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"--html {path}: {error.strerror}; name a file that can be written") from None


def lines(story: Story, places: Places) -> Iterator[Text]:
    """The story for the terminal. Text, not markup: what users wrote is shown as it is."""
    name = story.model if story.version is None else f"{story.model} version {story.version}"
    yield Text.assemble((f"{name}: {story.fate}", "bold"))
    run = "" if story.run_id is None else f", MLflow run {places.run(story.run_id) or story.run_id}"
    yield Text(f"trail {story.trail}{run}", "dim")
    for step in story.steps:
        yield from _lines(step)
    if not story.complete:
        yield Text("There is more than is told here; the ledger has it all.", "yellow")


def _lines(step: Step) -> Iterator[Text]:
    who = f" by {step.who}" if step.who else ""
    yield Text.assemble(
        (f"{step.at:%Y-%m-%d %H:%M} ", "dim"),
        (step.title, f"bold {_COLOURS[step.mark]}"),
        (who, "dim"),
        f": {step.text}",
    )
    if step.details:
        yield Text(f"{' ' * 17}{'; '.join(f'{name} {value}' for name, value in step.details)}", "dim")
    if step.verdict is not None and step.mark in {"bad", "unsure"}:
        yield from _decisive(step.verdict)


def _decisive(verdict: Verdict) -> Iterator[Text]:
    for check, outcome, value, limit, n, words in finding_rows(verdict):
        if any(one.name == check and one.outcome in {"breach", "unknown"} for one in verdict.findings):
            yield Text(f"{' ' * 19}{check} {outcome} (value {value}, limit {limit}, n {n}): {words}")


if __name__ == "__main__":
    typer.run(main)
