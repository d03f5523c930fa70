"""docs/policy.md, written from the schema of Policy: ``python -m tasks.policy_page``, ``--check`` only compares."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from tasks.policy import Policy, Section
from tasks.policy_file import load
from tasks.policy_words import percent, read_aloud
from tasks.units import format_duration, format_size, parse_duration, parse_share, parse_size

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "policy.md"
EXAMPLE = ROOT / "policies" / "churn.yaml"

_INTRODUCTION = """\
# The policy file

<!-- Written by `make docs` from tasks/policy.py; a test fails when it lags. Change the descriptions there. -->

One YAML file per model says everything that a person decides about it. `model`, `data` and `training` are needed;
everything else has a default. An unknown key is an error, and so is an empty one. Loading a file tells every problem
at once: the line, the key, the value and what to do.

- **Where.** A flow takes a path or a model name; `churn` is `policies/churn.yaml`, or `$BACKSTOP_POLICIES/churn.yaml`.
- **Quantities.** A duration is a number with its unit: `30d`, `12h`, `15m`, `90s`, `50ms`, `2w`. A share is `20%`,
  `2pt` (two points: 0.02) or `0.2`. A size is `500MB` or `2GiB`.
- **Off.** `off` turns a section or a check off, where its type says so.
- **Text that YAML reads as something else** goes into quotes: `"yes"`, `"1"`, `"2024-01-01"`.
- **Overrides.** `BACKSTOP_<MODEL>__GATE__LATENCY__P99=80ms` wins over `gate.latency.p99` of the file: the model's name
  in capitals with `_` for `-`, then the keys with two underscores between. Values are read as YAML. The run keeps which
  variables were at work.
- **Paths.** A file source, `sqlite:///` with a relative path and `file:` in `notify` are relative to the policy file.
- **Secrets** stay out of the file: `${NAME}` in `data.source` and `notify` is filled in from the environment when the
  source is read or the message is sent.
"""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the schema says about one key.

    Attributes:
        types: Without None and Annotated.
        metadata: Of the field, and of the annotated types in it.
        optional: None is one of the values.
    """

    types: tuple[Any, ...]
    metadata: tuple[Any, ...]
    optional: bool

    @property
    def parsers(self) -> tuple[Any, ...]:
        """Functions that read the value before it is validated."""
        return tuple(item.func for item in self.metadata if isinstance(item, BeforeValidator))

    @property
    def can_be_off(self) -> bool:
        """``off`` is read as None, or as false."""
        return any(parser not in {parse_duration, parse_share, parse_size} for parser in self.parsers)

    @property
    def section(self) -> type[Section] | None:
        """The section that the key holds, if it holds one."""
        found = (kind for kind in self.types if isinstance(kind, type) and issubclass(kind, Section))
        return next(found, None)

    @property
    def is_share(self) -> bool:
        """Between 0 and 1."""
        return parse_share in self.parsers and annotated_types.Le(1) in self.metadata


def page() -> str:
    """The whole page."""
    example = EXAMPLE.read_text("utf-8").rstrip("\n")
    spoken = read_aloud(load(EXAMPLE, {})).splitlines()
    parts = [_INTRODUCTION.rstrip("\n"), *(_section(name, section) for name, section in sections(Policy, ""))]
    parts += ["## A full example", "`policies/churn.yaml`:", f"```yaml\n{example}\n```"]
    parts += ["Read aloud:", "\n>\n".join(f"> {sentence}" for sentence in spoken)]
    return "\n\n".join(parts) + "\n"


def sections(section: type[Section], name: str) -> Iterator[tuple[str, type[Section]]]:
    """Every section by its dotted name, the top first, in the order of the file."""
    yield name, section
    for key, info in section.model_fields.items():
        facts = _facts(info)
        listed = next((_items(typing.get_args(kind)[0]).section for kind in facts.types if _is_list(kind)), None)
        if below := facts.section or listed:
            yield from sections(below, f"{name}.{key}".lstrip(".") + ("[]" if listed else ""))


def main(arguments: Sequence[str]) -> int:
    """Write the page, or compare it.

    Returns:
        Exit status: 1 when ``--check`` finds that the page lags.
    """
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, "utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text("utf-8") == text:
        return 0
    sys.stderr.write("docs/policy.md lags behind tasks/policy.py; run `make docs` and commit it\n")
    return 1


def _section(name: str, section: type[Section]) -> str:
    lines = ["| key | type | default | bounds | what it is |", "|---|---|---|---|---|"]
    for key, info in section.model_fields.items():
        facts = _facts(info)
        what = info.description or (_doc(facts.section) if facts.section else "")
        cells = (f"`{key}`", _type(facts), _default(info, facts), _bounds(facts), what)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    title = f"## `{name}`" if name else "## Top level"
    return "\n\n".join((title, _doc(section), "\n".join(lines)))


def _doc(section: type[Section]) -> str:
    """Its docstring without the number of the feature that it begins with."""
    text = re.sub(r"^[A-Z]\d+: ", "", inspect.cleandoc(section.__doc__ or ""))
    return text[:1].upper() + text[1:]


def _facts(info: FieldInfo) -> _Facts:
    kinds: list[Any] = []
    metadata = list(info.metadata)
    waiting = [info.annotation]
    while waiting:
        kind = waiting.pop(0)
        if typing.get_origin(kind) in {typing.Union, types.UnionType}:
            waiting.extend(typing.get_args(kind))
        elif typing.get_origin(kind) is typing.Annotated:
            inner, *marks = typing.get_args(kind)
            waiting.append(inner)
            for item in marks:
                metadata += item.metadata if isinstance(item, FieldInfo) else (item,)
        else:
            kinds.append(kind)
    there = tuple(kind for kind in kinds if kind is not types.NoneType)
    return _Facts(there, tuple(metadata), optional=types.NoneType in kinds)


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple


def _items(kind: Any) -> _Facts:
    """Of what is in a list."""
    return _facts(FieldInfo.from_annotation(kind))


def _type(facts: _Facts) -> str:
    return " or ".join([*(_name(kind, facts) for kind in facts.types), *(["`off`"] if facts.can_be_off else [])])


def _name(kind: Any, facts: _Facts) -> str:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return " or ".join(f"`{_written(value, facts)}`" for value in arguments)
    if _is_list(kind):
        return f"list of {_type(_items(arguments[0]))}s"
    if typing.get_origin(kind) is dict:
        return "values by name" if arguments[1] is Any else "lists of values by name"
    if kind is str:
        patterns = (str(getattr(item, "pattern", "")) for item in facts.metadata)
        return "import path" if any(":" in pattern for pattern in patterns) else "text"
    if kind is float:
        return "share" if facts.is_share else "number"
    if kind is int:
        return "size" if parse_size in facts.parsers else "whole number"
    return {bool: "true or false", timedelta: "duration"}.get(kind, "section" if facts.section else kind.__name__)


def _default(info: FieldInfo, facts: _Facts) -> str:
    if info.is_required():
        return "**needed**"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return "on, see below" if facts.can_be_off else "see below"
    if value is None:
        return "`off`" if facts.can_be_off else "empty"
    return "empty" if value in ((), {}, "") else f"`{_written(value, facts)}`"


def _bounds(facts: _Facts) -> str:
    """The tightest lower and upper bound."""
    if facts.section:
        return ""
    low: list[tuple[Any, str]] = []
    high: list[tuple[Any, str]] = []
    for item in facts.metadata:
        if isinstance(item, annotated_types.Gt):
            low.append((item.gt, "above"))
        elif isinstance(item, annotated_types.Ge):
            low.append((item.ge, "at least"))
        elif isinstance(item, annotated_types.Lt):
            high.append((item.lt, "below"))
        elif isinstance(item, annotated_types.Le):
            high.append((item.le, "at most"))
    chosen: list[tuple[Any, str]] = []
    if low:
        chosen.append(max(low, key=lambda bound: (bound[0], bound[1] == "above")))
    if high:
        chosen.append(min(high, key=lambda bound: (bound[0], bound[1] != "below")))
    return ", ".join(f"{word} {_written(value, facts)}" for value, word in chosen)


def _written(value: Any, facts: _Facts) -> str:
    """A value as a person writes it in the file."""
    if isinstance(value, timedelta):
        return format_duration(value) if value else "0"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        (kind,) = {typing.get_args(one)[0] for one in facts.types}
        return f"[{', '.join(_written(one, _items(kind)) for one in value)}]"
    if facts.is_share and 0 < value <= 1:
        return percent(value)
    if parse_size in facts.parsers and value:
        return format_size(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
