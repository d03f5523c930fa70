"""The form of a flow: each parameter is described once, for Prefect's page, the command line and ``help()``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo

P = ParamSpec("P")
R = TypeVar("R")

FOLDER = "policies"
"""Where a project keeps its policies; a form names those that it finds there."""
_ZONE = r"([Zz]|[+-]\d\d:?\d\d)$"
"""End of a moment that says which zone it is in."""
_WORDS = r"\S.{1,}\S"
"""Blanks are no reason. (Prefect's page shows the pattern as Markdown, so it has no asterisks.)"""


def a_policy(told: str = "A policy file or a model name.") -> Any:
    """A field for a policy. It names those of the project: a choice would refuse the path of any other."""
    known = sorted({path.stem for path in Path(FOLDER).glob("*.y*ml")})
    here = f" Here: {', '.join(known[:12])}{', ...' if known[12:] else ''}." if known else ""
    return Field(description=told + here, min_length=1, max_length=500, pattern=r"\S")


def a_name(told: str) -> Any:
    """A field for who decides."""
    return Field(description=told, min_length=1, max_length=100, pattern=r"\S")


def a_reason(told: str) -> Any:
    """A field for a reason that must be given."""
    return Field(description=told, min_length=3, max_length=500, pattern=_WORDS)


def a_version(told: str) -> Any:
    """A field for a version, as MLflow numbers them."""
    return Field(description=told, pattern=r"^\d+$", max_length=10)


def a_moment(told: str) -> Any:
    """A field for a moment with its zone. The pattern is for Prefect's API; in Python it is a datetime already."""
    return Field(description=told, json_schema_extra={"pattern": _ZONE})


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """The function with an ``Args`` section in its docstring, made of the descriptions of its parameters.

    Prefect's form shows what it finds there, and overlooks the descriptions of pydantic's fields.
    """
    lines = [f"    {name}: {description}" for name, description in descriptions(function).items()]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines, ""])
    return function


def descriptions(function: Callable[..., Any]) -> dict[str, str]:
    """What the fields of a function's parameters say of themselves, by name.

    Raises:
        TypeError: For a parameter without a description; a form has no field that does not explain itself.
    """
    found = {name: _description(hint) for name, hint in parameters(function).items()}
    if missing := [name for name, description in found.items() if not description]:
        raise TypeError(
            f"{function.__name__} does not describe {', '.join(missing)}; annotate it as "
            "Annotated[type, Field(description=...)]"
        )
    return found


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's parameters with everything that they carry, by name and in order."""
    hints = get_type_hints(function, include_extras=True)
    return {name: hints[name] for name in inspect.signature(function).parameters}


def _description(hint: Any) -> str:
    carried = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, FieldInfo)]
    return next((item.description for item in carried if item.description), "")
