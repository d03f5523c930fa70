"""Follower: looks at the ledger and puts at the desk what it says, once that is verified, loaded and warm."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from serving.copies import Unfit
from serving.lineup import Desk, Lineup
from serving.loaded import Loaded, Loader
from serving.metrics import Meter, Metrics
from serving.routing import Arm, Role
from serving.settings import Settings
from serving.shadow import Shadow
from tasks.database import SchemaTooNew
from tasks.ledger import Ledger
from tasks.policy import Policy
from tasks.stores import Stores

_log = logging.getLogger(__name__)

_FIRST, _LAST, _LAST_AWAY = 1.0, 60.0, 5.0
"""Seconds until a version that was not fit is tried again: first, at most, and at most where its store is away."""
_ROLES: tuple[Role, ...] = ("production", "canary")
_ABOUT: dict[Role, str] = {"production": "version", "canary": "canary"}
"""Under what a refusal is told."""
_STALE = 5.0
"""Seconds without an answer of the ledger after which it counts as away: a look that hangs raises nothing."""
_AWAY = (SQLAlchemyError, SchemaTooNew, OSError, ImportError, ValueError, RuntimeError)
"""What a ledger that cannot be read raises."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A version that was not fit, and when it is looked at again."""

    version: str
    kind: str
    pause: float
    due: float


class _Attempt:
    """One attempt to load a version, in a thread of its own."""

    def __init__(self, loader: Loader, url: str, version: str) -> None:
        self.version, self.over = version, threading.Event()
        self._loader, self._url = loader, url
        self._loaded: Loaded | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name=f"load version {version}", daemon=True).start()

    def result(self) -> Loaded:
        """What came of it, once it is over.

        Raises:
            Unfit: When the version must not be served, or could not be had.
        """
        if self._loaded is not None:
            return self._loaded
        if isinstance(self._error, Unfit):
            raise self._error
        raise Unfit("away", f"version {self.version} could not be loaded: {self._error!r}") from self._error

    def _run(self) -> None:
        try:
            with Ledger.open(self._url) as ledger:
                self._loaded = self._loader.load(ledger, self.version)
        except Exception as error:  # noqa: BLE001  told by whoever asks for the result
            self._error = error
        self.over.set()


class Follower:
    """Follows the ledger for one model, in a thread of its own."""

    def __init__(
        self,
        policy: Policy,
        stores: Stores,
        settings: Settings,
        metrics: Metrics,
        *,
        shadow: Shadow | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shadow = shadow
        self.desk = Desk(policy.model)
        self.meters: dict[tuple[str, str], Meter] = {}
        self.problem = policy.problem
        self._model, self._url, self._metrics, self._clock = policy.model, stores.ledger, metrics, clock
        self._interval = settings.poll_seconds
        self._loader = Loader(policy, stores, accept_unseen=settings.unseen == "accept")
        self._ledger: Ledger | None = None
        self._refusals: dict[Role, _Refusal] = {}
        self._before: Loaded | None = None
        self._answered = clock()
        self._attempt: _Attempt | None = None
        self._seq = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {policy.model}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._metrics.ledger_up.labels(self._model).set(0)
        self._metrics.switches.labels(self._model)
        if self.shadow is not None:
            self.shadow.start()
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer; what serves goes on serving."""
        self._stopping.set()
        self._thread.join(5)
        if self.shadow is not None:
            self.shadow.stop()

    @property
    def reasons(self) -> dict[str, str]:
        """What stands in the way, by what it is about; empty: what serves is what the ledger says."""
        found = self.desk.reasons
        silent = self._clock() - self._answered
        if "ledger" not in found and silent > _STALE:
            found["ledger"] = f"the ledger has not answered for {silent:.0f} s"
        attempt = self._attempt
        if attempt is not None:
            found["loading"] = f"version {attempt.version} is being fetched, verified, loaded and warmed"
        if self.shadow is not None and self.shadow.reason:
            found["shadow"] = self.shadow.reason
        return found

    def look(self) -> None:
        """One look at the ledger, and whatever follows from it."""
        try:
            ledger = self._opened()
            seq, arms = ledger.serving(self._model)
            candidate = ledger.shadow(self._model) if self.shadow is not None else None
        except _AWAY as error:
            self._lost(error)
            return
        self._reached()
        if seq < self._seq:
            self._behind(seq)
            return
        self._seq = seq
        if self.shadow is not None:
            self.shadow.follow(candidate)
        # The ledger's first arm is Production; the other one, where there is one, is on trial.
        self._follow(seq, tuple(Arm(one.version, one.weight, role) for one, role in zip(arms, _ROLES, strict=False)))

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  a follower that ends leaves a bad version serving for ever
                _log.exception("the follower of %s stumbled and goes on", self._model)
                self.desk.trouble("follower", f"{type(error).__name__}: {error}")
            if self._stopping.wait(self._interval):
                break
        if self._ledger is not None:
            self._ledger.close()

    def _opened(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger.open(self._url)
        return self._ledger

    def _reached(self) -> None:
        self._answered = self._clock()
        self.desk.clear("follower")
        self._metrics.ledger_up.labels(self._model).set(1)
        self._metrics.ledger_answered.labels(self._model).set_to_current_time()

    def _lost(self, error: Exception) -> None:
        said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        if self.desk.trouble("ledger", f"the ledger does not answer: {said[0]}"):
            _log.warning("the ledger does not answer for %s, what serves goes on: %s", self._model, said[0])
        self._metrics.ledger_up.labels(self._model).set(0)
        if self._ledger is not None:  # a file that was put back needs a new connection
            self._ledger.close()
            self._ledger = None

    def _behind(self, seq: int) -> None:
        """Somebody put another ledger in its place, or an empty one was made where it was."""
        message = (
            f"the ledger's newest transition is {seq} and was {self._seq} before: it is another ledger, or an old copy "
            "of it; put the right one back, or start the gateway anew to follow this one"
        )
        if self.desk.trouble("ledger", message):
            _log.error("%s: %s; what serves goes on", self._model, message)

    def _follow(self, seq: int, arms: tuple[Arm, ...]) -> None:
        desk = self.desk
        version = arms[0].version if arms else None
        if desk.clear("ledger"):
            _log.warning("the ledger answers again; following it for %s", self._model)
        if version != desk.wanted:
            desk.wanted = version
            self._forgive("production")
        if version is None:
            self._empty()
            return
        production = self._at_hand(version)
        if production is None:
            production = self._fetched("production", version)
        if production is None:  # until it is there, who answered goes on, all arms of it
            return
        self._forgive("production")
        self._set_up(seq, arms, production)

    def _set_up(self, seq: int, arms: tuple[Arm, ...], production: Loaded) -> None:
        """Who answers, now that Production is ready: with the canary once that is ready too, without it until then."""
        loaded = {production.version: production}
        if self.desk.lineup is None:  # nobody waits for a canary, least of all for one that is refused
            self._swap(Lineup.of(self._model, seq, (Arm(production.version),), loaded))
        for canary in arms[1:]:
            found = self._at_hand(canary.version) or self._fetched("canary", canary.version)
            if found is not None:
                self._forgive("canary")
                loaded[canary.version] = found
        if len(arms) == 1:
            self._forgive("canary")
            if self._attempt is not None:  # of a version that is not wanted any more
                self._attempt = None
        if len(loaded) < len(arms):
            arms = (Arm(production.version),)
        lineup = Lineup.of(self._model, seq, arms, loaded)
        present = self.desk.lineup
        if present is None or present.arms != lineup.arms:
            self._swap(lineup)

    def _at_hand(self, version: str) -> Loaded | None:
        """From memory, where it answers now or did just before: the way back must not wait for a store."""
        lineup = self.desk.lineup
        if lineup is not None and version in lineup.loaded:
            return lineup.loaded[version]
        return self._before if self._before is not None and self._before.version == version else None

    def _fetched(self, role: Role, version: str) -> Loaded | None:
        """From the store; None: not yet, or refused."""
        try:
            return self._loaded(role, version)
        except Unfit as error:
            self._refuse(role, version, error)
            return None

    def _loaded(self, role: Role, version: str) -> Loaded | None:
        """The version, ready to answer; None: not yet.

        It is loaded in a thread of its own: a store that hangs must not keep the ledger from being followed somewhere
        else.

        Raises:
            Unfit: When it must not be served.
        """
        if self._attempt is None or self._attempt.version != version:
            refusal = self._refusals.get(role)
            if refusal is not None and refusal.version == version and self._clock() < refusal.due:
                return None
            self._attempt = _Attempt(self._loader, self._url, version)
        if not self._attempt.over.wait(self._interval):
            return None
        attempt, self._attempt = self._attempt, None
        return attempt.result()

    def _swap(self, lineup: Lineup | None) -> None:
        before = self.desk.lineup
        # The meters of the new arms are there before the first request can need one.
        self.meters = {**self.meters, **self._metrics.switch(self._model, before, lineup)}
        self.desk.lineup = lineup
        if before is not None and (lineup is None or before.production.version != lineup.production.version):
            self._before = before.production
        _log.warning("%s: %s now, after %s", self._model, _told(lineup), _told(before))

    def _empty(self) -> None:
        """The ledger says that nothing serves; so nothing does."""
        if self.desk.lineup is not None:
            self._swap(None)
        self.desk.trouble("production", f"the ledger has no version of {self._model} in Production; promote one")

    def _refuse(self, role: Role, version: str, error: Unfit) -> None:
        longest = _LAST_AWAY if error.kind == "away" else _LAST
        known = self._refusals.get(role)
        pause = min(longest, 2 * known.pause) if known is not None and known.version == version else _FIRST
        self._gauge(role, 0)
        self._refusals[role] = _Refusal(version, error.kind, pause, self._clock() + pause)
        self._gauge(role, 1)
        instead = f"{_told(self.desk.lineup)} goes on" if self.desk.lineup else "nothing serves"
        if self.desk.trouble(_ABOUT[role], f"version {version} is refused ({error.kind}), {instead}: {error}"):
            _log.error("%s: version %s is refused, %s: %s", self._model, version, instead, error)

    def _forgive(self, role: Role) -> None:
        self._gauge(role, 0)
        self._refusals.pop(role, None)
        self.desk.clear(_ABOUT[role])
        if role == "production" and self.desk.wanted is not None:
            self.desk.clear("production")

    def _gauge(self, role: Role, value: int) -> None:
        refusal = self._refusals.get(role)
        if refusal is not None:
            self._metrics.version_refused.labels(self._model, refusal.version, refusal.kind).set(value)


def _told(lineup: Lineup | None) -> str:
    """Who answers, for people."""
    if lineup is None:
        return "nothing"
    return ", ".join(f"version {arm.version} ({arm.role}, {arm.weight:g}%)" for arm in reversed(lineup.arms))
