"""Quantities of a policy, as pydantic reads, bounds and writes them; see :mod:`tasks.units`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from tasks.units import format_duration, format_size, parse_duration, parse_share, parse_size

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    Field(gt=timedelta(0)),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30d", "90s", "50ms"]}),
]
"""A length of time above zero."""

Share = Annotated[
    float,
    BeforeValidator(parse_share),
    Field(ge=0, le=1, allow_inf_nan=False),
    WithJsonSchema({"type": ["string", "number"], "examples": ["20%", "2pt", 0.2]}),
]
"""A share, a probability or a difference of two of them, 0..1."""

Amount = Annotated[
    float,
    BeforeValidator(parse_share),
    Field(allow_inf_nan=False),
    WithJsonSchema({"type": ["string", "number"], "examples": ["2pt", 0.02, 3.5]}),
]
"""A finite number in a metric's own unit; ``2pt`` is 0.02."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(gt=0),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["500MB"]}),
]
"""Bytes."""
