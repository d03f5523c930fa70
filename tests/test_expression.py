"""The rule of ``retrain_when`` means what it says, and what is unknown never counts as a reason."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.expression import TRIGGERS, parse

names = st.sampled_from(TRIGGERS)
rules = st.recursive(
    names,
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda part: f"({' '.join(part)})"),
    max_leaves=6,
)
values = st.fixed_dictionaries({name: st.sampled_from([True, False, None]) for name in TRIGGERS})


def test_and_binds_tighter_than_or() -> None:
    rule = parse("age or drift and performance")
    assert rule.holds({"age": True, "drift": False, "performance": False}) is True
    assert rule.holds({"age": False, "drift": True, "performance": False}) is False


def test_two_triggers_that_are_required_together_do_not_fire_alone() -> None:
    rule = parse("drift and performance")
    assert rule.holds({"drift": True, "performance": False}) is False
    assert rule.holds({"drift": True, "performance": True}) is True


def test_the_names_that_a_rule_asks_are_known() -> None:
    assert parse("age or (drift and age)").names == {"age", "drift"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("not drift", "not drift"),
        ("agee or drift", "agee"),
        ("age > 3", "age > 3"),
        ("__import__('os').system('true')", "__import__"),
        ("age or", "cannot be read"),
        ("", "cannot be read"),
        ("age if drift else volume", "age if drift else volume"),
        ("age, drift", "(age, drift)"),
        ("True", "True"),
    ],
)
def test_anything_but_triggers_and_or_and_parentheses_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ValueError, match="use age, drift, performance") as caught:
        parse(text)
    assert named in str(caught.value)


@given(rules, values)
@settings(max_examples=120, deadline=None)
def test_unknown_exactly_when_the_unknown_could_tip_it(text: str, signals: dict[str, bool | None]) -> None:
    rule = parse(text)
    unknown = sorted(name for name in rule.names if signals[name] is None)
    answers = {
        bool(eval(text, {"__builtins__": {}}, {**signals, **dict(zip(unknown, guess, strict=True))}))  # noqa: S307  the oracle
        for guess in itertools.product([True, False], repeat=len(unknown))
    }
    # For rules that ask each trigger once, Kleene's logic is exact; with repeats it may only be more careful.
    held = rule.holds(signals)
    if held is None:
        assert unknown
    else:
        assert answers == {held}


@given(rules)
@settings(max_examples=60, deadline=None)
def test_nothing_known_is_never_a_reason_to_retrain(text: str) -> None:
    assert parse(text).holds({}) is None


@given(rules, values, names)
@settings(max_examples=120, deadline=None)
def test_a_trigger_that_fires_never_takes_a_reason_away(text: str, signals: dict[str, bool | None], name: str) -> None:
    order = {False: 0, None: 1, True: 2}
    rule = parse(text)
    assert order[rule.holds({**signals, name: True})] >= order[rule.holds(signals)]
