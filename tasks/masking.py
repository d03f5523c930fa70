"""Masking: addresses as they may be shown, without passwords and tokens. ``${NAME}`` is no secret and stays."""

from __future__ import annotations

import re

_USER = re.compile(r":(?!//)(?!\$\{\w+\}@)[^\s'\"]+@")
_NAMES = "password|passwd|pwd|token|secret|api_?key"
_QUERY = re.compile(rf"((?:{_NAMES})=)(?!\$\{{\w+\}}(?:[&;\s'\"]|$))[^&\s;'\"]+", re.IGNORECASE)


def mask(text: str) -> str:
    """A text in which ``user:password@`` and ``password=...`` of every address are masked."""
    return _QUERY.sub(r"\1***", _USER.sub(":***@", text))
