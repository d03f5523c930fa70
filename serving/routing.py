"""Routing: which version answers a request; the same one for the same key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["production", "canary"]

WHOLE = 100
"""What the weights of all arms add up to."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One version that answers.

    Attributes:
        version: Of the model.
        weight: Percent of the keys, 0 to 100; fractions are allowed.
        role: A canary is on trial; Production is what it is compared with.
    """

    version: str
    weight: float = WHOLE
    role: Role = "production"


def checked(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The arms in the order in which :func:`route` reads them, canaries first.

    A canary's share grows at one end only: who was on it at 5 % is on it at 25 %.

    Raises:
        ValueError: When the weights do not add up to 100, one is outside of 0..100, or two arms are one version.
    """
    found = tuple(sorted(arms, key=lambda arm: arm.role == "production"))
    listed = ", ".join(f"{arm.version}: {arm.weight:g}" for arm in found) or "none"
    if any(not 0 <= arm.weight <= WHOLE for arm in found) or abs(sum(arm.weight for arm in found) - WHOLE) > 1e-9:
        raise ValueError(
            f"the weights of the versions ({listed}) are no shares of {WHOLE}; they must add up to {WHOLE}"
        )
    if len({arm.version for arm in found}) < len(found):
        raise ValueError(f"a version has two weights ({listed}); give each version one")
    return found


def route(key: str, arms: tuple[Arm, ...], *, salt: str) -> Arm:
    """The arm for a key: the same as long as the weights are the same.

    Args:
        key: Of the request; a customer, a session, or the request itself.
        arms: From :func:`checked`.
        salt: The model's name, so that the customers on one model's canary are not those on another's.
    """
    if len(arms) == 1:
        return arms[0]
    digest = hashlib.blake2b(f"{salt}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64 * WHOLE
    for arm in arms:
        place -= arm.weight
        if place < 0:
            return arm
    return next(arm for arm in reversed(arms) if arm.weight > 0)  # what rounding leaves at the very end
