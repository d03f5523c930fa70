"""Customers of a telephone company that does not exist: generated data with a drift that can be switched on.

Nothing here was measured anywhere. The numbers are drawn from a seeded generator whose rule is written below, so that
the demo and the tests know what is true: how good a model can be, when the world changes, and what a retraining gains.
For real data use the policies ``bike``, ``telco`` and ``weather``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.policy import as_utc

CONTRACTS = ("month-to-month", "one year", "two year")
PAYMENTS = ("card", "bank transfer", "cheque")


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The rule that customers follow: how they are distributed, and who of them leaves.

    The log-odds of leaving are ``offset + steepness * (contract + early * t + support * c + price * m)`` with the
    tenure t, the support calls c and the monthly charges m on a fixed scale that does not move with the world.

    Attributes:
        name: For the reader of a report.
        contracts: Shares of :data:`CONTRACTS`.
        payments: Shares of :data:`PAYMENTS`.
        charges: Median of the monthly charges.
        calls: Mean number of support calls.
        contract: What each of :data:`CONTRACTS` adds to the inclination to leave.
        early: Weight of a short tenure.
        support: Weight of a support call.
        price: Weight of high charges.
        offset: Log-odds of leaving for a customer in the middle of everything.
        steepness: How sharply the inclination decides; the larger, the better the best possible model.
    """

    name: str
    contracts: tuple[float, float, float]
    payments: tuple[float, float, float]
    charges: float
    calls: float
    contract: tuple[float, float, float]
    early: float
    support: float
    price: float
    offset: float
    steepness: float


STEADY = World(
    name="steady",
    contracts=(0.5, 0.3, 0.2),
    payments=(0.45, 0.35, 0.2),
    charges=65.0,
    calls=1.5,
    contract=(0.9, -0.6, -1.4),
    early=1.0,
    support=1.1,
    price=0.5,
    offset=-4.4,
    steepness=3.2,
)
"""Short contracts, short tenure and many support calls make people leave; the price matters a little."""

PRICE_RISE = World(
    name="price_rise",
    contracts=(0.3, 0.3, 0.4),
    payments=(0.65, 0.25, 0.1),
    charges=85.0,
    calls=1.5,
    contract=(0.6, 0.0, -0.9),
    early=0.2,
    support=0.8,
    price=1.3,
    offset=-6.2,
    steepness=3.2,
)
"""Prices rose, long contracts were sold with a rebate, and now it is the charges that make people leave."""


def customers(rows: int, *, start: datetime, days: float, seed: int, world: World = STEADY) -> pd.DataFrame:
    """Generated customers, oldest first.

    Args:
        rows: How many.
        start: Moment of the earliest one, with a time zone.
        days: They are spread evenly at random over so many days.
        seed: The same seed gives the same rows; another one gives other customers of the same world.
        world: The rule that they follow.

    Returns:
        ``rows`` rows with the columns customer_id, observed_at (UTC), tenure_months, monthly_charges, total_charges,
        contract, payment, support_calls and churned (``yes`` or ``no``).

    Raises:
        ValueError: For a start without a time zone, or for no rows or no days.
    """
    if rows < 1 or days <= 0:
        raise ValueError(f"rows={rows} and days={days} give no customers; both must be above zero")
    first = as_utc(start)
    draw = np.random.default_rng(seed)
    frame = _features(rows, draw, world)
    left = draw.random(rows) < chance_to_leave(frame, world)
    seconds = np.sort(draw.random(rows)) * timedelta(days=days).total_seconds()
    frame.insert(0, "observed_at", pd.Timestamp(first) + pd.to_timedelta(np.floor(seconds), unit="s"))
    prefix = f"{first:%y%m%d}-{seed}"
    frame.insert(0, "customer_id", [f"{prefix}-{number:06d}" for number in range(rows)])
    frame["churned"] = np.where(left, "yes", "no")
    return frame


def chance_to_leave(frame: pd.DataFrame, world: World) -> np.ndarray:
    """The true probability of leaving, shape (rows,): no model can know more."""
    added = dict(zip(CONTRACTS, world.contract, strict=True))
    inclination = (
        frame["contract"].map(added).to_numpy(float)
        + world.early * (36.0 - frame["tenure_months"].to_numpy(float)) / 24.0
        + world.support * (frame["support_calls"].to_numpy(float) - 1.5)
        + world.price * (frame["monthly_charges"].to_numpy(float) - 65.0) / 20.0
    )
    return 1.0 / (1.0 + np.exp(-(world.offset + world.steepness * inclination)))


def write_customers(path: Path) -> None:
    """A year of generated customers, in which prices rise after seven months."""
    begin = datetime(2025, 1, 1, tzinfo=UTC)  # all of it in the past: a real run may follow
    before = customers(13_200, start=begin, days=220, seed=1, world=STEADY)
    after = customers(8_400, start=begin + timedelta(days=220), days=140, seed=2, world=PRICE_RISE)
    pd.concat([before, after]).to_csv(path, index=False)


def corrupt_labels(frame: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """A copy in which this share of the labels, drawn at random, says the opposite.

    Raises:
        ValueError: For a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} is outside 0..1; write 0.3 to turn three labels of ten")
    chosen = np.random.default_rng(seed).choice(len(frame), size=round(share * len(frame)), replace=False)
    labels = frame["churned"].to_numpy(dtype=object, copy=True)
    labels[chosen] = np.where(labels[chosen] == "yes", "no", "yes")
    return frame.assign(churned=labels)


def _features(rows: int, draw: np.random.Generator, world: World) -> pd.DataFrame:
    tenure = np.clip(np.round(draw.gamma(1.8, 18.0, rows)), 1, 72)
    charges = np.round(world.charges * np.exp(draw.normal(0.0, 0.25, rows)), 2)
    total = np.round(tenure * charges * draw.normal(1.0, 0.05, rows), 2)
    return pd.DataFrame(
        {
            "tenure_months": tenure.astype(int),
            "monthly_charges": charges,
            "total_charges": total,
            "contract": draw.choice(CONTRACTS, rows, p=world.contracts),
            "payment": draw.choice(PAYMENTS, rows, p=world.payments),
            "support_calls": draw.poisson(world.calls, rows),
        }
    )
