"""The form of a flow: each parameter is described once, for Prefect's page, the command line and ``help()``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic.fields import FieldInfo

P = ParamSpec("P")
R = TypeVar("R")


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
