"""The small language of ``retrain_when``: trigger names, ``and``, ``or`` and parentheses.

There is no ``not``: the absence of a signal is no reason to retrain, and an unknown signal must never count as one.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

TRIGGERS = ("age", "drift", "performance", "multivariate", "concept", "prediction", "volume", "growth", "upstream")


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed rule.

    Attributes:
        text: As it was written.
        names: The triggers it asks.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def holds(self, values: Mapping[str, bool | None]) -> bool | None:
        """Kleene's three-valued logic (Kleene 1952, section 64): None where what is unknown could tip it.

        Args:
            values: True for a trigger that fired, False for one that did not, None where that is unknown.
        """
        return _holds(self._tree, values)


def _holds(node: ast.expr, values: Mapping[str, bool | None]) -> bool | None:
    if isinstance(node, ast.Name):
        return values.get(node.id)
    if not isinstance(node, ast.BoolOp):
        raise TypeError(f"{ast.unparse(node)!r} is neither a trigger nor a combination")  # parse() lets none through
    parts = [_holds(part, values) for part in node.values]
    decisive = isinstance(node.op, ast.Or)
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


def parse(text: str) -> Expression:
    """Read a rule.

    Raises:
        ValueError: Names what is not a trigger, ``and``, ``or`` or a parenthesis.
    """
    help_ = f"use {', '.join(TRIGGERS)} with and, or and parentheses"
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} cannot be read: {error.msg}; {help_}") from None
    names: set[str] = set()
    waiting: list[ast.expr] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and node.id in TRIGGERS:
            names.add(node.id)
        elif isinstance(node, ast.BoolOp):
            waiting.extend(node.values)
        else:
            raise ValueError(f"{ast.unparse(node)!r} in {text!r} is no trigger; {help_}")
    return Expression(text, frozenset(names), tree)
