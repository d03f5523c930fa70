"""Canvas: what every picture has in common: its size, its colours, its title, and that it never stops a decision."""

from __future__ import annotations

import io
import logging
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.decide import phrase
from tasks.dossier import Dossier
from tasks.records import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_log = logging.getLogger(__name__)

# Told apart by people of every colour vision (Okabe and Ito), and by lightness and line style in grey.
CANDIDATE, PRODUCTION, LIMIT, FAINT = "#0072B2", "#4D4D4D", "#D55E00", "#BDBDBD"

_WIDTH, _DPI = 7.2, 130  # inches; the column of a report is some 600 pixels wide, and twice that on a sharp screen
_POINTS = 1_500
"""Marks in one picture; more of them are thinned evenly, so the same evidence gives the same picture."""
_STYLE: Any = {
    "text.parse_math": False,  # a column may be called $a$
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture of what a verdict rested on.

    Attributes:
        name: ``drift``, ``inputs``, ``curves``, ``residuals``, ``confusion``, ``calibration``, ``agreement``,
            ``shadow`` or ``health``; docs/reading-a-run.md has a chapter for each.
        caption: What it shows, in one line.
        png: The image.
    """

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What the pictures are about.

    Attributes:
        model: Registered name.
        version: That was judged; None where the verdict is about the data.
        earlier: What the same judge said of the same version before, with the moments, the oldest first.
        at: The moment of the verdict.
    """

    model: str
    at: datetime
    version: str | None = None
    earlier: Sequence[tuple[datetime, Verdict]] = ()

    @property
    def candidate(self) -> str:
        """Its name in a legend."""
        return "candidate" if self.version is None else f"version {self.version}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a painter is given."""

    subject: Subject
    given: Any
    verdict: Verdict
    figure: Figure

    def title(self, what: str, n: str) -> None:
        """Whose picture it is, what it shows, and on how many rows or requests it rests."""
        version = "" if self.subject.version is None else f" version {self.subject.version}"
        title = f"{self.subject.model}{version}: {what} ({n})"
        self.figure.suptitle(title, fontsize=10.5, fontweight="bold", parse_math=False)


Painter = Callable[[Scene], str]
"""Draws, and says in one line what it drew."""


def drawn(
    name: str, painter: Painter, height: float, dossier: Dossier, verdict: Verdict, subject: Subject
) -> Picture | None:
    """One picture, or None and a line in the log when it cannot be drawn.

    Args:
        name: Of the picture.
        painter: Draws it.
        height: In inches.
        dossier: What the verdict rests on.
        verdict: Reached from it.
        subject: Whose it is.
    """
    try:
        caption, png = rendered(lambda figure: painter(Scene(subject, dossier.given, verdict, figure)), height)
        return Picture(name=name, caption=phrase.one_line(caption), png=png)
    except Exception:  # noqa: BLE001  a decision never stops for the sake of its picture
        _log.exception("the picture %s of %s could not be drawn; the decision stands without it", name, subject.model)
        return None


def rendered(paint: Callable[[Figure], str], height: float) -> tuple[str, bytes]:
    """A figure in the one style of all pictures.

    Args:
        paint: Draws on it, and says in one line what it drew.
        height: In inches.

    Returns:
        What it said, and the image as PNG.
    """
    import matplotlib as mpl  # noqa: PLC0415  a second, which only a run that has something to show pays
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  see above
    from matplotlib.figure import Figure  # noqa: PLC0415  see above

    with warnings.catch_warnings(), mpl.rc_context(_STYLE):
        warnings.simplefilter("ignore")  # a name in a script that the font does not have is shown as boxes
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
        canvas = FigureCanvasAgg(figure)
        return paint(figure), _png(canvas)


def _png(canvas: FigureCanvasAgg) -> bytes:
    """With 64 colours, which lines and bars need no more than: a third of the bytes.

    The pixels are taken from the canvas: ``savefig`` lays everything out once more, for a PNG that nobody keeps. An
    octree finds the colours in a fifth of the time that a median cut takes, and leaves bytes that need no search for
    the best way to pack them.
    """
    from PIL import Image  # noqa: PLC0415  comes with matplotlib

    canvas.draw()  # type: ignore[no-untyped-call]
    small = io.BytesIO()
    whole = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    whole.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(small, format="png")
    return small.getvalue()


def blank(axes: Axes, sentence: str) -> None:
    """Where there is nothing to draw, the picture says so."""
    axes.set_axis_off()
    text = textwrap.fill(sentence, 44)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=PRODUCTION, style="italic")


def short(name: str, most: int = 26) -> str:
    """A name that fits beside a bar."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def thinned(*arrays: NDArray[Any], most: int = _POINTS) -> tuple[NDArray[Any], ...]:
    """The same evenly spaced entries of each."""
    if not len(arrays[0]) > most:
        return arrays
    places = np.linspace(0, len(arrays[0]) - 1, most).astype(np.intp)
    return tuple(array[places] for array in arrays)
