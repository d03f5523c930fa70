"""Preparation: what Backstop's own pipelines do to the columns, without a table for every row.

Nine tenths of the time of a small model go into building a DataFrame and into scikit-learn's checks of it. The numbers
that come out are the same to the bit, or this is not used: the pipeline has to be Backstop's in all its parts, and is
asked itself on a few rows when a version is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract import Contract
from serving.pedigree import is_backstops, is_class_of

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]

_UNSEEN = "\0a category that no training had"
_TRIED = 64
"""Rows on which it is held against the pipeline."""
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
"""What another order of adding may make of a number; a stored example may differ by a thousand times as much."""


def prepared(model: Any, contract: Contract) -> Prepared | None:
    """A function of checked rows that gives what the pipeline's first step gives, shape (rows, outputs).

    None where the model is no pipeline of Backstop's making, see :func:`serving.pedigree.is_backstops`, or where the
    two differ on any row that was tried: with every known category, with unknown ones, with nulls and with random
    numbers.
    """
    try:
        if not is_backstops(model):
            return None
        made = Prepared(model.named_steps["prepare"], contract)
        tried = made.trial_rows()
        expected = np.asarray(model[:-1].transform(contract.frame(tried)), dtype=np.float64)
    except Exception:  # noqa: BLE001  any model may come here, and the pipeline itself is always there
        return None
    return made if np.array_equal(made(tried), expected, equal_nan=True) else None


def ending(model: Any, methods: Mapping[str, str], package: str) -> tuple[Any, str] | None:
    """The last step of a pipeline, and the method that gives its numbers; None where it is none of these classes.

    Args:
        model: A pipeline.
        methods: By the name of the class.
        package: That the class has to come from; one of somebody's own may do anything.
    """
    last = model[-1]
    method = methods.get(type(last).__name__)
    return (last, method) if method is not None and is_class_of(last, package) else None


def same(found: Floats, expected: Any) -> bool:
    """Whether the numbers are those of the model, each row's beside each other."""
    values = np.asarray(expected).reshape(len(found), -1)
    return found.shape == values.shape and bool(np.allclose(found, values, rtol=_RELATIVE, atol=_ABSOLUTE))


class Prepared:
    """The fitted numbers of a ``ColumnTransformer`` of numbers first and words after them."""

    def __init__(self, transformer: Any, contract: Contract) -> None:
        parts = {name: (part, list(columns)) for name, part, columns in transformer.transformers_}
        self._contract = contract
        self._numbers: list[str] = parts.get("numbers", (None, []))[1]
        self._words: list[str] = parts.get("words", (None, []))[1]
        self._scale = _scaling(parts["numbers"][0]) if self._numbers else None
        self._base, self._added = _levels(parts["words"][0], self._words) if self._words else (np.empty(0), [])

    def __call__(self, rows: Rows) -> Floats:
        """What the pipeline's first step gives for n checked rows, shape (n, outputs)."""
        parts = []
        if self._numbers:
            numbers = np.array([[row[name] for name in self._numbers] for row in rows], dtype=np.float64)
            parts.append(numbers if self._scale is None else self._scale(numbers))
        if self._words:
            parts.append(np.array([self._coded(row) for row in rows]))
        return np.hstack(parts) if len(parts) > 1 else parts[0]

    def weighed(self, weights: Floats, offset: float) -> Callable[[Mapping[str, Any]], float]:
        """A function of one checked row: the product of what the preparation gives with weights, plus an offset.

        Args:
            weights: shape (outputs,).
            offset: Of the sum.

        Raises:
            ValueError: When a null goes through as it is: there is no product of it.
        """
        numbers, ours = self._numbers, len(weights) - len(self._base)
        zeros = np.zeros((1, len(numbers)))
        if self._scale is None:
            steps = [(name, 0.0, 1.0, float(weight), math.nan) for name, weight in zip(numbers, weights, strict=False)]
        else:
            mean, spread = self._scale.mean, self._scale.spread
            empty = self._scale(zeros)[0]
            # What a null adds, in place of the number and as its mark.
            nulls = [
                self._scale(np.where(np.arange(len(numbers)) == place, np.nan, zeros))[0] - empty
                for place in range(len(numbers))
            ]
            first = [float(-mean[place] / spread[place] * weights[place]) for place in range(len(numbers))]
            steps = [
                (
                    name,
                    float(mean[place]),
                    float(spread[place]),
                    float(weights[place]),
                    first[place] + float(nulls[place] @ weights[:ours]),
                )
                for place, name in enumerate(numbers)
            ]
            offset += float(empty[len(numbers) :] @ weights[len(numbers) : ours])
        offset += float(self._base @ weights[ours:])
        words = [
            (name, {level: float(more @ weights[ours:]) for level, more in added.items()})
            for name, added in zip(self._words, self._added, strict=True)
        ]

        def total(row: Mapping[str, Any]) -> float:
            found = offset
            for name, mean, spread, weight, null in steps:
                value = row[name]
                found += null if value is None else (value - mean) / spread * weight
            for name, terms in words:
                term = terms.get(row[name])
                found += terms[_UNSEEN] if term is None else term
            return found

        return total

    def trial_rows(self) -> list[dict[str, Any]]:
        """Rows in which everything occurs that the preparation treats apart."""
        draw = np.random.default_rng(0)
        longest = max((len(added) for added in self._added), default=0)
        rows: list[dict[str, Any]] = []
        for number in range(max(_TRIED, longest)):
            near = number % 2 and self._scale is not None
            row: dict[str, Any] = {
                name: None if draw.random() < 0.2 else self._number(place, draw, near=bool(near))
                for place, name in enumerate(self._numbers)
            }
            for name, added in zip(self._words, self._added, strict=True):
                row[name] = list(added)[number % len(added)]
            rows.append(row)
        return rows

    def _number(self, place: int, draw: np.random.Generator, *, near: bool) -> float:
        """Any number, or one as it was trained on: far off, every model of two classes says 0 or 1."""
        if near and self._scale is not None:
            return float(self._scale.mean[place] + draw.normal() * self._scale.spread[place])
        return float(draw.normal() * 10.0 ** draw.integers(-3, 6))

    def _coded(self, row: Mapping[str, Any]) -> Floats:
        total = self._base.copy()
        for name, added in zip(self._words, self._added, strict=True):
            here = added.get(row[name])
            total += added[_UNSEEN] if here is None else here
        return total


class _Scaling:
    """Median for nulls, a mark for each, and one scale."""

    def __init__(self, fill: Any, scale: Any) -> None:
        self._medians = np.asarray(fill.statistics_, dtype=np.float64)
        self._marked = fill.indicator_.features_ if fill.indicator_ is not None else np.empty(0, dtype=int)
        self.mean, self.spread = scale.mean_, scale.scale_

    def __call__(self, numbers: Floats) -> Floats:
        nulls = np.isnan(numbers)
        filled = np.hstack([np.where(nulls, self._medians, numbers), nulls[:, self._marked]])
        result: Floats = (filled - self.mean) / self.spread
        return result


def _scaling(part: Any) -> _Scaling | None:
    """None: the numbers go through as they are."""
    if not hasattr(part, "named_steps"):
        return None
    return _Scaling(part.named_steps["fill"], part.named_steps["scale"])


def _levels(part: Any, names: list[str]) -> tuple[Floats, list[dict[str | None, Floats]]]:
    """What the first levels of all columns give, and what every other level of each adds to it.

    One column for each level: what one column of words gives does not depend on the others, and whole numbers add up
    exactly.
    """
    import pandas as pd  # noqa: PLC0415  only while a version is loaded

    known = [[*map(str, levels), _UNSEEN, None] for levels in part.named_steps["codes"].categories_]
    first = [levels[0] for levels in known]
    wanted = [(place, level) for place, levels in enumerate(known) for level in levels]
    table = [first] + [[*first[:place], level, *first[place + 1 :]] for place, level in wanted]
    given = np.asarray(part.transform(pd.DataFrame(table, columns=names, dtype=object)), dtype=np.float64)
    added: list[dict[str | None, Floats]] = [{} for _ in names]
    for (place, level), row in zip(wanted, given[1:], strict=True):
        added[place][level] = row - given[0]
    return given[0], added
