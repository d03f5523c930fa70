"""Transitions: the rows of the ledger that say what served, and the lock under which they are written.

At most one row of a model is ``intended``, and it is the newest. Only ``applied`` rows define what serves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.engine import Connection

from tasks import chain, schema, split
from tasks.policy import as_utc
from tasks.records import Action, Rollout, Standing, State, Transition, to_plain
from tasks.standing import Rows, standing_of, transition_of

_ROWS = schema.transitions


class StaleDecision(RuntimeError):
    """The ledger moved after the decision's basis was read; somebody else got in first."""


class Refused(ValueError):
    """A transition that would harm whatever the evidence says, such as taking the Production version out of service."""


class Held:
    """One model's lock, held by an open transaction; what is written through it is committed together.

    Attributes:
        model: Registered name.
    """

    def __init__(self, connection: Connection, model: str, clock: Callable[[], datetime]) -> None:
        self.model = model
        self._connection = connection
        self._clock = clock

    def standing(self) -> Standing:
        """What the ledger says, and nobody else can change before the lock is let go."""
        return standing_of(Rows(self._connection, self.model))

    def get(self, seq: int) -> Transition | None:
        """One transition, or None."""
        found = self._connection.execute(_rows(self.model).where(_ROWS.c.seq == seq)).one_or_none()
        return None if found is None else transition_of(found)

    def link(self) -> str:
        """Position and digest of the newest link of the model's chain, as MLflow's tag keeps it."""
        position, digest = chain.newest(self._connection, self.model) or (0, "")
        return f"{position} {digest}"

    def intend(
        self,
        *,
        based_on: int,
        action: Action,
        version: str,
        actor: str,
        reason: str,
        at: datetime,
        trail: str,
        evidence: Mapping[str, Any] | None = None,
        flow_run_id: str | None = None,
        release: bool = False,
    ) -> Transition:
        """Put down what is going to be done; see :meth:`tasks.ledger.Ledger.intend`."""
        standing = self.standing()
        self._compare(standing, based_on, action, version)
        _refuse_harm(standing, action, version, release=release)
        transition = Transition(
            model=self.model,
            seq=self._head() + 1,
            action=action,
            version=version,
            previous=standing.production,
            state="intended",
            actor=actor,
            reason=_given("reason", reason),
            at=as_utc(at),
            trail=_given("trail", trail),
            flow_run_id=flow_run_id,
            evidence=to_plain(evidence or {}),
        )
        serves = version if action in {"promote", "rollback"} else standing.production
        self._insert(transition, serves)
        if release and version in standing.quarantined:
            self._state(transition, version, "released")
        return transition

    def settle(self, transition: Transition, state: State) -> Transition:
        """Mark an intent as applied or abandoned; doing it twice is doing it once.

        A rollback that is applied quarantines the version it was rolled back from, and a rejection that is applied
        marks its version: the fact and the transition cannot come apart.

        Raises:
            StaleDecision: When the intent was settled otherwise before.
            ValueError: For ``intended``, which is where it started.
        """
        if state == "intended":
            raise ValueError("a transition is settled as applied or abandoned, not as intended")
        stored = self.get(transition.seq)
        if stored is None or stored.state not in {"intended", state}:
            raise StaleDecision(
                f"transition {transition.seq} of {self.model} cannot become {state}: the ledger has it as "
                f"{'missing' if stored is None else stored.state}. Read the standing again"
            )
        if stored.state == state:
            return stored
        moment = self._moment(stored) if state == "applied" else None
        where = (_ROWS.c.model == self.model) & (_ROWS.c.seq == transition.seq)
        self._connection.execute(update(_ROWS).where(where).values(state=state, applied_at=moment))
        chain.append(self._connection, self.model, "settled", transition.seq)
        if state == "applied":
            self._mark(stored)
            self._end_rollout(stored)
        settled = self.get(transition.seq)
        if settled is None:
            raise StaleDecision(f"transition {transition.seq} of {self.model} vanished while it was settled")
        return settled

    def adopt(
        self,
        *,
        action: Action,
        version: str,
        production: str | None,
        reason: str,
        at: datetime,
        trail: str,
        actor: str = "outside Backstop",
    ) -> Transition:
        """Take down a change that is in the registry already; it is applied from the start.

        Args:
            action: ``external``, or ``reject`` for a candidate that is gone.
            version: That moved.
            production: What serves now; None: nothing does.
            reason: One sentence.
            at: When it was found.
            trail: Of the run that found it.
            actor: Who did it, as far as that is known.
        """
        transition = Transition(
            model=self.model,
            seq=self._head() + 1,
            action=action,
            version=version,
            previous=self.standing().production,
            state="applied",
            actor=actor,
            reason=_given("reason", reason),
            at=as_utc(at),
            trail=_given("trail", trail),
            evidence={"production": production},
        )
        self._insert(transition, production, applied_at=self._moment(transition))
        self._mark(transition)
        self._end_rollout(transition)
        stored = self.get(transition.seq)
        return stored or transition

    def rollout(self) -> Rollout | None:
        """The newest row about a progressive rollout, or None."""
        return split.newest(self._connection, self.model)

    def weigh(self, step: Rollout, *, after: Rollout | None, flow_run_id: str | None = None) -> Rollout:
        """Give a canary a share of the requests, or none any more.

        A canary that is aborted is quarantined by that: the fact and the share cannot come apart.

        Args:
            step: What is to be put down; its id is the ledger's.
            after: The newest row that the decision was based on.
            flow_run_id: Prefect's.

        Raises:
            StaleDecision: When the rollout went on meanwhile, or the canary is not in Staging, or its baseline not in
                Production, or an intent is not settled.
            ValueError: For a weight that is not among 0 to 99; Production is given by a promotion.
        """
        if not 0 <= step.weight < 100:
            raise ValueError(f"a canary has 0 to 99 percent of the requests, not {step.weight}; promote it instead")
        newest = self.rollout()
        if newest != after or (step.state == "running" and not self._may_serve(step)):
            now = "nothing" if newest is None else f"version {newest.version} at {newest.weight}% ({newest.state})"
            raise StaleDecision(
                f"{self.model}: version {step.version} was not given {step.weight}%, because somebody else got in "
                f"first: the newest step is {now}, and {self.standing().production} is in Production. Decide anew"
            )
        split.put(self._connection, step, flow_run_id)
        if step.state == "aborted":
            row = {"model": self.model, "version": step.version, "fact": "quarantined", "at": step.at}
            told = {"reason": step.reason, "actor": step.actor, "trail": step.trail}
            chain.write(self._connection, "fact", {**row, **told})
        written = self.rollout()
        return written or step

    def _may_serve(self, step: Rollout) -> bool:
        standing = self.standing()
        return standing.pending is None and len(split.arms(standing, step)) == 2

    def _end_rollout(self, transition: Transition) -> None:
        """Put down that a rollout is over by what has just taken effect."""
        running = self.rollout()
        end = None if running is None else split.ending(running, self.standing())
        if running is None or end is None:
            return
        state, because = end
        split.put(
            self._connection,
            replace(
                running,
                state=state,
                weight=100 if state == "promoted" else 0,
                at=max(transition.at, running.at),
                reason=f"{because}: {transition.action} of version {transition.version} by {transition.actor}",
                actor=transition.actor,
            ),
            transition.flow_run_id,
        )

    def _head(self) -> int:
        query = select(schema.models.c.head).where(schema.models.c.model == self.model)
        return int(self._connection.execute(query).scalar_one())

    def _compare(self, standing: Standing, based_on: int, action: str, version: str) -> None:
        head = self._head()
        if based_on == head and standing.pending is None:
            return
        first = self.get(based_on + 1) or standing.pending
        if first is None:
            told = f"its newest transition is {head}, and this decision claims to be based on {based_on}"
        else:
            state = {"intended": "has begun to", "applied": "did", "abandoned": "tried to"}[first.state]
            told = (
                f"{first.actor} got in first and {state} {first.action} version {first.version} at "
                f"{first.at:%Y-%m-%d %H:%M:%S} UTC (transition {first.seq}, trail {first.trail}: {first.reason})"
            )
        raise StaleDecision(
            f"{self.model}: {action} of version {version} was not begun, because {told}. Read the standing again and "
            "decide anew"
        )

    def _insert(self, transition: Transition, production: str | None, applied_at: datetime | None = None) -> None:
        values = {
            name: getattr(transition, name)
            for name in ("model", "seq", "action", "version", "previous", "state", "actor", "reason", "trail")
        }
        row = {
            **values,
            "flow_run_id": transition.flow_run_id,
            "evidence": json.dumps(to_plain(transition.evidence)),
            "intended_at": transition.at,
            "applied_at": applied_at,
            "production": production,
        }
        head = update(schema.models).where(schema.models.c.model == self.model).values(head=transition.seq)
        self._connection.execute(head)
        chain.write(self._connection, "transition", row)
        if transition.state != "intended":
            chain.append(self._connection, self.model, "settled", transition.seq)

    def _moment(self, transition: Transition) -> datetime:
        """When it is applied: never before it was decided, nor before the one that it follows."""
        last = Rows(self._connection, self.model).last_applied()
        moments = [as_utc(self._clock()), transition.at]
        if last is not None and last.applied_at is not None:
            moments.append(last.applied_at)
        return max(moments)

    def _mark(self, transition: Transition) -> None:
        marked: tuple[str, str] | None = None
        if transition.action == "rollback" and transition.previous not in {None, transition.version}:
            marked = (str(transition.previous), "quarantined")
        elif transition.action == "reject":
            marked = (transition.version, "rejected")
        if marked is None:
            return
        self._state(transition, *marked)

    def _state(self, transition: Transition, version: str, fact: str) -> None:
        """Put down a fact that follows from a transition, in the same transaction."""
        row = {"model": self.model, "version": version, "fact": fact, "at": transition.at}
        told = {"reason": transition.reason, "actor": transition.actor, "trail": transition.trail}
        chain.write(self._connection, "fact", {**row, **told})


def _rows(model: str) -> Select[Any]:
    return select(_ROWS).where(_ROWS.c.model == model)


def _given(name: str, value: str) -> str:
    if not value.strip():
        raise ValueError(f"a transition without a {name} cannot be explained later; give one, got {value!r}")
    return value


def _refuse_harm(standing: Standing, action: Action, version: str, *, release: bool) -> None:
    """What no evidence and no person may ask for by this action.

    Raises:
        Refused: With the way that leads there instead.
    """
    serving = f"version {version} of {standing.model} is in Production"
    if action in {"stage", "reject"} and version == standing.production:
        raise Refused(
            f"{serving}; to {action} it would leave nothing in service. Roll back, or promote another version"
        )
    if action == "rollback" and version == standing.production:
        raise Refused(f"{serving} already; a rollback needs another version to go to")
    if action in {"promote", "rollback"} and version in standing.quarantined and not release:
        raise Refused(
            f"version {version} of {standing.model} was rolled back from and is quarantined; a person has to "
            "release it first (flows.promote with override)"
        )
