"""Units: how people write durations, shares and sizes, and how they are told: ``30d``, ``20%``, ``3pt``, ``500MB``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"


def parse_duration(value: Any) -> timedelta:
    """``30d``, ``90s``, ``1.5h``, ``50ms``; a timedelta is taken as it is.

    Raises:
        ValueError: For anything else, a bare number included: its unit would be a guess.
    """
    if isinstance(value, timedelta):
        return value
    parts = re.findall(rf"{_NUMBER}\s*(ms|min|s|m|h|d|w)", str(value))
    rest = re.sub(rf"{_NUMBER}\s*(ms|min|s|m|h|d|w)", "", str(value)).strip()
    if isinstance(value, bool) or not parts or rest:
        raise ValueError(f"{value!r} is no duration; write a number and a unit, such as 30d, 12h, 15m, 90s or 50ms")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def format_duration(value: timedelta) -> str:
    """The shortest exact form that :func:`parse_duration` reads back."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds / _SECONDS[unit])}{unit}"
    return f"{seconds * 1000:.15g}ms" if seconds else "0s"


def parse_share(value: Any) -> float:
    """``20%``, ``2pt`` (points: hundredths) or ``0.2``.

    Raises:
        ValueError: For anything that is not a number with one of these units.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = re.fullmatch(rf"(-?){_NUMBER}\s*(%|pt|pp)?", str(value).strip())
    if isinstance(value, bool) or match is None:
        raise ValueError(f"{value!r} is no share; write 20%, 2pt (two points, 0.02) or 0.2")
    number = float(match[2]) * (-1 if match[1] else 1)
    # Divided as decimal text would be: 3pt is 0.03, not 0.03 with a float's tail.
    return round(number / 100, 12) if match[3] else number


def parse_size(value: Any) -> int:
    """``500MB``, ``1.5GiB``; a whole number is bytes.

    Raises:
        ValueError: For anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(rf"{_NUMBER}\s*(B|KB|MB|GB|KiB|MiB|GiB)", str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is no size; write a number and a unit, such as 500MB or 2GiB")
    return int(float(match[1]) * _BYTES[match[2]])


def format_size(value: int) -> str:
    """In the largest decimal unit that gives at least 1: ``12.3MB``."""
    for unit in ("GB", "MB", "KB"):
        if value >= _BYTES[unit]:
            number = value / _BYTES[unit]
            return f"{number:.3g}{unit}" if number < 999.5 else f"{number:.0f}{unit}"
    return f"{value}B"
