"""How numbers are written in the sentences that people read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from tasks.units import format_duration


def number(value: float) -> str:
    """Four significant digits: ``0.8731``, ``-12.5``."""
    return f"{value:.4g}"


def percent(share: float) -> str:
    """``0.035`` as ``3.5%``."""
    return f"{100 * share:.3g}%"


def count(rows: int) -> str:
    """``12,000``."""
    return f"{rows:,}"


def about(rows: float) -> str:
    """Two significant digits, upwards: a forecast should not look exact."""
    if rows <= 0:
        return "0"
    scale = 10.0 ** (math.floor(math.log10(rows)) - 1)
    return count(int(max(1, math.ceil(rows / scale) * scale)))


def period(length: timedelta) -> str:
    """Rounded to what a person would say: ``14 days``, ``1.5 hours``, ``40 seconds``."""
    seconds = abs(length.total_seconds())
    for unit, size in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= size:
            return _units(seconds / size, unit)
    return _units(seconds, "second") if seconds >= 1 else format_duration(abs(length))


def listing(names: Sequence[str], most: int = 5) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def one_line(text: str) -> str:
    """Line breaks and runs of blanks become one blank; what others wrote may hold both."""
    return " ".join(text.split())


def _units(amount: float, unit: str) -> str:
    written = f"{amount:.1f}".removesuffix(".0")
    return f"{written} {unit}" if written == "1" else f"{written} {unit}s"
