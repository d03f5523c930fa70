"""Alone: whether a row is answered by itself as it was among all the others.

A model is judged on its answers to the whole holdout at once, and is asked for one row at a time where it serves. One
that scales, ranks or fills a row by the others that came with it is good at the first and knows nothing at the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tasks.data import Dataset
from tasks.decide import phrase
from tasks.records import Finding, Scores
from tasks.scoring import score

_ROWS = 16
"""That are asked. Who looks at the others does so for most rows; what befalls one of five shows in 97 of a hundred
samples of so many, and more of them would cost a large forest as much as scoring the holdout does."""
_OFF = 1e-3
"""Difference that no order of adding makes: of a probability, or in standard deviations of all answers."""


def judge(model: Any, holdout: Dataset, scores: Scores) -> Finding | None:
    """The finding ``alone``; None where every row that was asked got the answer that it had before.

    Args:
        model: Fitted.
        holdout: n labelled rows.
        scores: The model's answers to all of them at once.
    """
    n = len(holdout)
    places = np.unique(np.linspace(0, max(0, n - 1), min(n, _ROWS)).astype(np.intp))
    try:
        with threadpool_limits(limits=1):  # as in measuring the latency: more do nothing for one row
            each = [score(model, holdout.take([int(place)]), classes=scores.classes) for place in places]
    except Exception as error:  # noqa: BLE001  whatever the model raises is the answer
        return _finding(f"asked for one row alone it raised {type(error).__name__}: {error}", len(places))
    other = [place for place, one in zip(places, each, strict=True) if _differs(one, scores, int(place))]
    if not other:
        return None
    first = int(other[0])
    alone = each[int(np.searchsorted(places, first))]
    why = (
        f"{phrase.count(len(other))} of {phrase.count(len(places))} rows get another answer alone than among all rows "
        f"of the holdout, such as {_said(alone, 0)} and not {_said(scores, first)}: the model looks at the other rows "
        "that it is given, or draws its answers by lot, and what was judged is not what a request would get"
    )
    return _finding(why, len(places))


def _finding(why: str, rows: int) -> Finding:
    remedy = "let it fit in training what it scales or fills by, or turn gate.alone off if it is never asked row by row"
    return Finding(name="alone", outcome="breach", reason=phrase.one_line(f"{why}; {remedy}"), n=rows)


def _differs(alone: Scores, scores: Scores, place: int) -> bool:
    if scores.probability is not None and alone.probability is not None:
        return not _near(alone.probability[0], scores.probability[place], _OFF)
    if scores.classes:
        return bool(alone.prediction[0] != scores.prediction[place])
    spread = float(np.std(scores.prediction))
    return not _near(alone.prediction[:1], scores.prediction[place : place + 1], _OFF * spread)


def _near(found: NDArray[np.float64], expected: NDArray[np.float64], off: float) -> bool:
    return bool(np.allclose(found, expected, rtol=1e-6, atol=off, equal_nan=True))


def _said(scores: Scores, place: int) -> str:
    if scores.probability is not None:
        shares = ", ".join(phrase.number(float(share)) for share in scores.probability[place][:4])
        return f"the probabilities {shares}"
    code = scores.prediction[place]
    if scores.classes:
        return repr(scores.classes[int(code)]) if code >= 0 else "no answer"
    return phrase.number(float(code))
