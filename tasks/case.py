"""Case: what one run of a flow holds for one model, from its first line to its last.

Opening a case reads the policy, checks everything in it that points elsewhere, and opens the ledger. Nothing is
changed by that.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from tasks import delivery
from tasks.dossier import Dossier, pack
from tasks.ledger import Ledger
from tasks.plugins import PluginError, custom_metric, resolve
from tasks.policy import Policy, as_utc
from tasks.records import Span, Standing, Verdict
from tasks.stores import Stores

if TYPE_CHECKING:
    from tasks.registry import Registry


class LedgerError(RuntimeError):
    """The ledger cannot be opened; nothing can be decided without it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One model's policy, stores and moment.

    Attributes:
        policy: Of the model.
        stores: Where things are kept.
        ledger: Open; closed by whoever opened the case.
        now: The moment that the decision is made for.
        actor: Person or flow on whose word things happen.
        trail: The id that ties everything that follows together.
        flow_run_id: Prefect's, where there is one.
        dry_run: Nothing may be changed.
        block: Tells a Prefect block: called with its name, a title and a body, and raises when it was not taken.
    """

    policy: Policy
    stores: Stores
    ledger: Ledger
    now: datetime
    actor: str
    trail: str
    flow_run_id: str | None = None
    dry_run: bool = False
    block: Callable[[str, str, str], None] | None = None

    @property
    def model(self) -> str:
        """Registered name."""
        return self.policy.model

    def standing(self) -> Standing:
        """What the ledger says now."""
        return self.ledger.standing(self.model)

    def registry(self) -> Registry:
        """The door to MLflow, opened on first use: importing it costs seconds."""
        from tasks.registry import Registry  # noqa: PLC0415  the quiet path must not import MLflow

        return Registry(self.stores)

    def on_trail(self, trail: str | None) -> Case:
        """The same case on an older trail; unchanged when there is none."""
        return replace(self, trail=trail) if trail else self

    def note(self, verdict: Verdict, dossier: Dossier, *, version: str | None = None, span: Span | None = None) -> None:
        """Put a verdict into the ledger with what it rests on, unless this is a dry run."""
        if not self.dry_run:
            self.ledger.record(
                self.model,
                verdict,
                trail=self.trail,
                at=self.now,
                flow_run_id=self.flow_run_id,
                version=version,
                span=span,
                dossier=pack(dossier),
            )

    def told_lately(self, decision: str, reason: str) -> bool:
        """Whether this very thing about the data or the registry was the last that was noted, not long ago."""
        last = next(iter(self.ledger.decisions(self.model, "data", limit=1)), None)
        if last is None or (last.verdict.decision, last.verdict.reason) != (decision, reason):
            return False
        return self.now - last.at < max(self.policy.health.silence, self.policy.health.watch)

    def state(self, version: str, fact: str, reason: str) -> None:
        """Put a fact about a version into the ledger, unless this is a dry run."""
        if not self.dry_run:
            self.ledger.state_fact(
                self.model, version, fact, at=self.now, reason=reason, actor=self.actor, trail=self.trail
            )

    def answer(self, version: str, fact: str, reason: str) -> bool:
        """Answer the question about a version; False when somebody did so before. A dry run puts nothing down."""
        if self.dry_run:
            return self.ledger.has_fact(self.model, version, "awaiting")
        return self.ledger.answer(
            self.model, version, fact, at=self.now, reason=reason, actor=self.actor, trail=self.trail
        )

    def tell(self, title: str, body: str) -> None:
        """Notify; a sink that fails is recorded, is told again later, and stops nothing. A dry run tells nobody."""
        if not self.dry_run and self.policy.notify:
            delivery.tell(self, title, body)


def open_case(
    policy: Policy,
    *,
    actor: str,
    now: datetime | None = None,
    stores: Stores | None = None,
    flow_run_id: str | None = None,
    dry_run: bool = False,
    block: Callable[[str, str, str], None] | None = None,
) -> Case:
    """Open a case for one policy.

    Args:
        policy: Loaded and validated.
        actor: See :class:`Case`.
        now: Aware; empty: this moment.
        stores: Empty: as the environment says.
        flow_run_id: See :class:`Case`.
        dry_run: See :class:`Case`.
        block: See :class:`Case`.

    Raises:
        ValueError: When ``now`` has no time zone.
        LedgerError: When the ledger cannot be opened.
    """
    where = stores or Stores.from_environment()
    moment = as_utc(now) if now is not None else None
    scratch = Path(tempfile.mkdtemp(prefix="backstop-")) if dry_run else None
    if scratch is not None:
        where = where.rehearsed(scratch)
    ledger = open_ledger(where.ledger, moment)
    if scratch is not None:
        weakref.finalize(ledger, shutil.rmtree, scratch, ignore_errors=True)
    return Case(
        policy=policy,
        stores=where,
        ledger=ledger,
        now=moment or datetime.now(UTC),
        actor=actor,
        trail=uuid.uuid4().hex[:12],
        flow_run_id=flow_run_id,
        dry_run=dry_run,
        block=block,
    )


def open_ledger(url: str, moment: datetime | None = None) -> Ledger:
    """The ledger, or one clear error.

    Args:
        url: Of its database.
        moment: The present, where a past is played again; None: the clock tells.

    Raises:
        LedgerError: When it cannot be opened; the message holds no password.
    """
    try:
        # A past that is played again takes effect in the past; otherwise the ledger reads the clock when it is written.
        return Ledger.open(url) if moment is None else Ledger.open(url, clock=lambda: moment)
    except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise LedgerError(
            f"the ledger at {_shown(url)} cannot be opened: {type(error).__name__}: {said}; see that BACKSTOP_LEDGER "
            "(or BACKSTOP_HOME) is right, that the server runs and that the user may write there"
        ) from None


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return f"{url.partition('://')[0]}://***"


def _placed(policy: Policy, key: str, problem: str) -> str:
    """A problem with the line of the policy that it is about."""
    return ": ".join(part for part in (policy.where(key), problem) if part)


def check_plugins(policy: Policy) -> None:
    """See that everything that the policy names by import path or metric name is there, before the first effect.

    Raises:
        PluginError: With one line per problem.
    """
    training, gate = policy.training, policy.gate
    asked: list[tuple[str, str, tuple[str, ...]]] = []
    if training.estimator:
        asked.append(("training.estimator", training.estimator, tuple(training.params)))
    if training.trainer:
        asked.append(("training.trainer", training.trainer, tuple(training.params)))
    asked += [("gate.checks", path, ()) for path in gate.checks]
    problems: list[str] = []
    for place, path, accepts in asked:
        try:
            resolve(path, place=place, accepts=accepts)
        except PluginError as error:
            problems.append(_placed(policy, place, str(error)))
    if policy.learn is not None and not problems:
        from tasks.estimators import TrainingError, check_learner  # noqa: PLC0415  the quiet path has no estimator

        try:
            check_learner(training)
        except (PluginError, TrainingError) as error:
            problems.append(_placed(policy, "learn", f"learn: {error}"))
    rules = {"triggers.performance": policy.triggers.performance, "gate.performance": gate.performance}
    sliced = {f"gate.slices.{number}": one for number, one in enumerate(gate.slices)}
    for place, rule in (rules | {"gate.regression": gate.regression} | sliced).items():
        try:
            custom_metric(rule.metric) if rule and rule.metric else None
        except PluginError as error:
            problems.append(_placed(policy, f"{place}.metric", f"{place}.metric: {error}"))
    if problems:
        raise PluginError(*problems)
