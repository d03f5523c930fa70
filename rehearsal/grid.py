"""Grid: every combination of some values of a policy, each validated before the first is played."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tasks.case import check_plugins
from tasks.plugins import PluginError
from tasks.policy import Policy
from tasks.policy_file import PolicyError, Problem, load, variable

MOST = 256
"""Combinations of one grid at most: a table with more is read by nobody."""
_ROWS = ("data.lookback", "data.holdout", "data.min_rows", "data.min_holdout")
"""Keys of ``data`` that may vary: all others decide what the rows are, and those are read once."""


class GridError(ValueError):
    """A grid that cannot be played.

    Attributes:
        problems: Everything that is wrong, one sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count}:", *(f"  {problem}" for problem in self.problems)]))


@dataclass(frozen=True, slots=True)
class Choice:
    """One combination.

    Attributes:
        values: (key, value as it was written) of what varies; empty for the policy as it is.
        policy: With these values.
    """

    values: tuple[tuple[str, str], ...]
    policy: Policy

    @property
    def label(self) -> str:
        """For a table."""
        return ", ".join(f"{key.removeprefix('triggers.')} {value}" for key, value in self.values) or "as it is"


def parsed(text: str) -> dict[str, tuple[str, ...]]:
    """``triggers.age=30d,90d triggers.drift.psi=0.1,0.2`` as key -> values.

    A value with spaces is put in quotes; a comma inside brackets or braces belongs to the value.

    Raises:
        GridError: Lists everything that is not of this form.
    """
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise GridError([f"grid {text!r} cannot be read: {error}; close the quotes"]) from None
    problems, found = [], {}
    for part in parts:
        key, sign, listed = part.partition("=")
        values = _values(listed)
        if not sign or not key or not all(values) or not values:
            problems.append(f"grid: {part!r} names no values; write it as triggers.age=30d,90d")
        elif key in found:
            problems.append(f"grid: {key} is there twice; put all of its values behind one `=`")
        elif len(set(values)) < len(values):
            problems.append(f"grid: {key} has a value twice in {listed}; keep one")
        elif key.split(".")[0] in {"model", "problem", "notify"} or (key.startswith("data.") and key not in _ROWS):
            problems.append(f"grid: {key} cannot vary, the rows are read once; of data only {', '.join(_ROWS)} can")
        else:
            found[key] = values
    if not parts:
        problems.append("grid is empty; write it as triggers.age=30d,90d, or leave it out")
    if (count := math.prod(map(len, found.values()))) > MOST:
        problems.append(f"grid has {count} combinations, at most {MOST} are played; leave some values out")
    if problems:
        raise GridError(problems)
    return found


def _values(listed: str) -> tuple[str, ...]:
    depth, values = 0, [""]
    for character in listed:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return tuple(value.strip() for value in values)


def choices(
    policy: str, grid: Mapping[str, Sequence[str]], *, source: str | None = None, environment: Mapping[str, str]
) -> tuple[Policy, tuple[Choice, ...]]:
    """The policy as it is, and every combination of the grid.

    Args:
        policy: A path, or the name of a model.
        grid: From :func:`parsed`; empty: only the policy as it is.
        source: Another source with the same columns.
        environment: With overrides of the policy, as for :func:`tasks.policy_file.load`.

    Raises:
        GridError: Lists every problem of the policy, of every combination, and of the code that they name.
    """
    base = _loaded(policy, environment, {})
    where = {} if source is None else {variable(base.model, "data.source"): os.fspath(Path(source).resolve())}
    problems: list[str] = []
    found: list[Choice] = []
    for values in product(*([(key, value) for value in each] for key, each in grid.items())):
        changes = {variable(base.model, key): value for key, value in values}
        told = {variable(base.model, key): f"grid {key}={value}" for key, value in values}
        try:
            loaded = _loaded(policy, {**environment, **where, **changes}, told)
            check_plugins(loaded)
            found.append(Choice(values, loaded))
        except GridError as error:
            problems += error.problems
        except PluginError as error:
            problems += error.problems
    if problems:
        raise GridError(problems)
    return _loaded(policy, {**environment, **where}, {}), tuple(found)


def _loaded(policy: str, environment: Mapping[str, str], told: Mapping[str, str]) -> Policy:
    try:
        return load(policy, environment)
    except PolicyError as error:
        raise GridError([str(_renamed(problem, told)) for problem in error.problems]) from None


def _renamed(problem: Problem, told: Mapping[str, str]) -> Problem:
    """A grid's value is no environment variable to whoever wrote it."""
    name = problem.where.removeprefix("environment variable ")
    return replace(problem, where=told[name]) if name in told else problem
