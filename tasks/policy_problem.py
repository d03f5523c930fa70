"""What is wrong with a policy, told so that a person can put it right: where, which key, which value, what to do."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from tasks.masking import mask
from tasks.policy import Policy, Section

KeyPath = tuple[str | int, ...]
"""Keys from the top of a policy down, such as ``("gate", "latency", "p99")``."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: ``file:line``, or the environment variable.
        key: Dotted path of the key; empty for the whole file.
        message: What is wrong, with the value, and the remedy.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


def sort_key(problem: Problem) -> tuple[str, int, str]:
    """Order of the file, by line as a number."""
    match = re.fullmatch(r"(.*?)(?::(\d+))?", problem.where, re.DOTALL)
    return (match[1] or "", int(match[2] or 0), problem.key) if match else (problem.where, 0, problem.key)


def near(word: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` when one of the known words is close, otherwise nothing."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def place_of(item: ErrorDetails, raw: Any) -> KeyPath | None:
    """Where in the raw values an error of pydantic is, without the tags that it puts in for the branches of a union.

    Returns:
        None for an error of the branch that was not meant: the text branch of a mapping, or the other way round.
    """
    place: list[str | int] = []
    here = raw
    for depth, part in enumerate(item["loc"]):
        last = depth == len(item["loc"]) - 1
        if part in here if isinstance(here, dict) else isinstance(here, list) and isinstance(part, int):
            here = here[part]
        elif not (isinstance(here, dict) and last and item["type"] == "missing"):
            if isinstance(here, dict) == (part == "str"):
                return None
            continue
        place.append(part)
    return tuple(place)


def section_at(place: KeyPath) -> type[Section] | None:
    """The record that the values at this place are read into, or None where a value is expected."""
    section: type[Section] = Policy
    for part in place:
        info = section.model_fields.get(str(part))
        below = _section_in(info.annotation) if info else None
        if below is None:
            return None
        section = below
    return section


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation if issubclass(annotation, Section) else None
    if typing.get_origin(annotation) in {typing.Union, types.UnionType, typing.Annotated}:
        parts = (_section_in(part) for part in typing.get_args(annotation))
        return next((part for part in parts if part is not None), None)
    return None


def explain(item: ErrorDetails, place: KeyPath) -> str:
    """One sentence with the value and the remedy."""
    kind, context = item["type"], item.get("ctx", {})
    value = shown(item["input"])
    if kind == "missing":
        return f"is missing; add it: {_description(place)}"
    if kind == "extra_forbidden":
        return _unknown_key(place)
    if kind == "value_error":
        return mask(item["msg"].removeprefix("Value error, "))
    if kind == "literal_error":
        expected = str(context["expected"])
        close = near(str(item["input"]), re.findall(r"'([^']+)'", expected))
        return f"{value} is not known; use {expected}{close}"
    if kind == "string_type":
        return f"{value} was read as {_kind(item['input'])}, not as text; put it in quotes"
    if kind == "string_pattern_mismatch":
        remedy = "use letters, digits, - and _, a letter first" if place == ("model",) else "write package.module:name"
        return f"{value} cannot be used; {remedy}"
    if kind in {"model_type", "dict_type"}:
        return f"{value} is no section; write its keys below it, or delete the line to get the defaults"
    if kind == "tuple_type":
        return f"{value} is no list; write it as [first, second]"
    if kind == "finite_number":
        return f"{value} is not finite; write a number"
    return f"{value} does not fit: it should be {_bound(item)}; {_description(place)}"


def _bound(item: ErrorDetails) -> str:
    """What a number should be; who writes 5 for a share means 5%."""
    number = item["input"]
    share = item["type"] == "less_than_equal" and item["ctx"]["le"] == 1
    if share and isinstance(number, int | float) and 1 < number <= 100 and number % 1 == 0:
        return f"a share, so write {number:g}%"
    return item["msg"].removeprefix("Input should be ")


def empty_value(place: KeyPath) -> str:
    """One sentence on a key that nothing is written behind."""
    section = section_at(place[:-1])
    info = section.model_fields.get(str(place[-1])) if section else None
    if info is None or not info.is_required():
        return "is empty; write `off` to turn it off, or delete the line to get the default"
    below = section_at(place)
    if below is None:
        return f"is empty, and it is needed: {_description(place)}"
    needed = [name for name, one in below.model_fields.items() if one.is_required()]
    return f"is empty, and it is needed: write its keys below it, {', '.join(needed) or 'indented'}"


def _unknown_key(place: KeyPath) -> str:
    section = section_at(place[:-1])
    known = list(section.model_fields) if section else []
    of = ".".join(map(str, place[:-1])) or "a policy"
    return f"is no key of {of}{near(str(place[-1]), known) or '; remove it'} (known: {', '.join(known)})"


def _description(place: KeyPath) -> str:
    section = section_at(place[:-1]) if place else None
    info = section.model_fields.get(str(place[-1])) if section else None
    return (info.description if info else None) or "see docs/policy.md"


def _kind(value: Any) -> str:
    names = {bool: "yes or no", int: "a number", float: "a number", list: "a list", dict: "a section"}
    return names.get(type(value), "a date" if hasattr(value, "isoformat") else type(value).__name__)


def shown(value: Any) -> str:
    """A value as far as it may be shown: a section is named by its keys, and nothing of an address with a password."""
    if isinstance(value, Mapping):
        return f"a section ({', '.join(map(str, value))})"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return re.sub(r"(?<=://)[^\s'\"]+", "***", text) if "://" in text else text
