"""Lineup: the versions of one model that answer now, swapped as a whole."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.loaded import Loaded
from serving.routing import Arm, checked, route


@dataclass(frozen=True, slots=True)
class Lineup:
    """Who answers, as of one moment of the ledger.

    Attributes:
        model: Registered name.
        seq: Of the transition that it follows.
        arms: As :func:`serving.routing.checked` orders them.
        loaded: By version; one for every arm.
    """

    model: str
    seq: int
    arms: tuple[Arm, ...]
    loaded: Mapping[str, Loaded]

    @classmethod
    def of(cls, model: str, seq: int, arms: tuple[Arm, ...], loaded: Mapping[str, Loaded]) -> Lineup:
        """A line-up in which nobody is routed to a version that is not there.

        Raises:
            ValueError: When weights are no shares of 100, or a version that gets traffic is not loaded.
        """
        ordered = checked(arms)
        missing = [arm.version for arm in ordered if arm.version not in loaded]
        if missing:
            raise ValueError(f"version {', '.join(missing)} of {model} is not loaded; load it before it gets traffic")
        return cls(model, seq, ordered, {arm.version: loaded[arm.version] for arm in ordered})

    @property
    def quick(self) -> bool:
        """Whether everybody in it answers a few rows in less time than it takes to hand them to a thread."""
        return all(loaded.quick for loaded in self.loaded.values())

    @property
    def production(self) -> Loaded:
        """The Production version."""
        return self.loaded[next(arm.version for arm in self.arms if arm.role == "production")]

    def pick(self, key: str) -> Arm:
        """Who answers a key."""
        return route(key, self.arms, salt=self.model)


@dataclass(slots=True)
class Desk:
    """What one model serves, and what stands in the way of more. Requests read it, one follower writes it.

    Attributes:
        model: Registered name.
        wanted: Version that the ledger has in Production, as far as is known.
        lineup: Who answers; None: nobody yet. Replaced as a whole: a request that began on one ends on it.
    """

    model: str
    wanted: str | None = None
    lineup: Lineup | None = None
    _reasons: dict[str, str] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def trouble(self, what: str, reason: str) -> bool:
        """Note why something is not as it should be; True when that is new."""
        with self._guard:
            known = self._reasons.get(what) == reason
            self._reasons[what] = reason
            return not known

    def clear(self, what: str) -> bool:
        """It is as it should be; True when it was not before."""
        with self._guard:
            return self._reasons.pop(what, None) is not None

    @property
    def reasons(self) -> dict[str, str]:
        """What stands in the way, by what it is about."""
        with self._guard:
            return dict(self._reasons)
