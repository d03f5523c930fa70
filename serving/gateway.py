"""Gateway: from the bytes of a request to the bytes of its answer. It knows no HTTP framework."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from serving import feedback as labelling
from serving.draft import Ask, Draft, Outcome, answer, written
from serving.follower import Follower
from serving.inputs import BadInput, read
from serving.loaded import Loader
from serving.logbook import Logbook
from serving.metrics import Metrics
from serving.routing import Arm
from serving.settings import Settings
from serving.shadow import Shadow
from tasks.policy import Policy
from tasks.requests import Served
from tasks.stores import Stores

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)

_SMALL = 16 << 10
"""Bytes of a body that the event loop may answer itself; a larger one would keep the others waiting."""


class NothingServes(RuntimeError):
    """No version of the model can answer now."""


class ModelFailed(RuntimeError):
    """The model did not answer some rows.

    Attributes:
        places: Of those rows in the body.
    """

    def __init__(self, model: str, versions: Iterable[str], places: Iterable[str]) -> None:
        self.places = tuple(places)
        named = ", ".join(sorted(set(versions)))
        shown = ", ".join(self.places[:5])
        super().__init__(
            f"version {named} of {model} failed to answer {len(self.places)} row(s): {shown}. They are recorded as "
            "failed; nothing of this request was answered"
        )


class Gateway:
    """Everything that answers, for one or several models."""

    def __init__(self, policies: Sequence[Policy], stores: Stores, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.logbook = Logbook(stores, settings, self.metrics)
        self.followers = {
            policy.model: Follower(policy, stores, settings, self.metrics, shadow=self._shadow(policy, stores))
            for policy in policies
        }

    def _shadow(self, policy: Policy, stores: Stores) -> Shadow | None:
        """Where candidates answer unseen, if the policy asks for that."""
        if policy.shadow is None or policy.shadow.live is None:
            return None
        loader = Loader(policy, stores, accept_unseen=self.settings.unseen == "accept")
        keep = self.logbook.answers.put
        return Shadow(loader, policy.model, stores.ledger, self.settings, self.metrics, keep)

    def start(self) -> None:
        """Begin to follow the ledger and to record."""
        self.logbook.start()
        for follower in self.followers.values():
            follower.start()

    def stop(self) -> None:
        """End in order: what was answered is recorded or kept."""
        for follower in self.followers.values():
            follower.stop()
        self.logbook.stop()

    # Answering.

    def predict(self, body: bytes, begun: float, model: str | None = None) -> bytes:
        """Answer a body. Takes as long as the model takes: not for the event loop, unless :meth:`quick` says so.

        Args:
            body: As it came.
            begun: When it was complete, by ``time.perf_counter``.
            model: That the address named, or None.

        Raises:
            BadInput: When it cannot be answered, and why.
            NothingServes: When there is nobody to answer.
            ModelFailed: When the model did not.
        """
        (said,) = self.predict_all([Ask(body, begun, model)])
        if isinstance(said, Exception):
            raise said
        return said

    def predict_all(self, asks: Sequence[Ask]) -> list[bytes | Exception]:
        """Answer several bodies at once: a model that is asked for ten rows takes hardly longer than for one.

        Returns:
            For each its answer, or what :meth:`predict` raises. What is wrong with one is nothing to the others.
        """
        drafts: list[Draft | Exception] = [_tried(self._draft, ask) for ask in asks]
        answer([draft for draft in drafts if isinstance(draft, Draft)])
        return [draft if isinstance(draft, Exception) else _tried(self._finished, draft) for draft in drafts]

    def quick(self, body: int) -> bool:
        """Whether a body of so many bytes is answered in less time than it takes to hand it to a thread."""
        if body > _SMALL:
            return False
        lineups = (follower.desk.lineup for follower in self.followers.values())
        return all(lineup is None or lineup.quick for lineup in lineups)

    def _draft(self, ask: Ask) -> Draft:
        """What is asked and who answers; all of it is looked at before any of it is answered."""
        at = datetime.now(UTC)
        asked = read(ask.body, max_rows=self.settings.max_rows)
        follower = self.follower(ask.model, asked.model)
        lineup = follower.desk.lineup  # one look: a request that began on one line-up ends on it
        if lineup is None:
            reasons = "; ".join(follower.reasons.values()) or "the gateway has just started"
            raise NothingServes(f"no version of {follower.desk.model} can answer now: {reasons}")
        outcomes = [Outcome(question, lineup.pick(question.key)) for question in asked.questions]
        groups: dict[Arm, list[Outcome]] = {}
        for outcome in outcomes:
            groups.setdefault(outcome.arm, []).append(outcome)
        for arm, group in groups.items():
            lineup.loaded[arm.version].contract.check([one.question for one in group])
        return Draft(ask, at, asked.form, follower, lineup, outcomes, groups)

    def _finished(self, draft: Draft) -> bytes:
        failed = [one for one in draft.outcomes if one.answer is None]
        # Rows that nobody was given an answer to are no evidence; those at fault are.
        self._record(draft.follower, failed or draft.outcomes, draft.at)
        model = draft.lineup.model
        if failed:
            raise ModelFailed(model, (one.arm.version for one in failed), (one.question.place for one in failed))
        return written(draft.form, model, draft.outcomes)

    def follower(self, addressed: str | None, named: str | None) -> Follower:
        """Of the model that a request is for.

        Raises:
            BadInput: When it names none of those that are served, or two.
        """
        if addressed is not None and named not in {None, addressed}:
            raise BadInput.of(422, "model", "model", f"is {named!r}, the address says {addressed!r}; make them one")
        model = addressed or named
        listed = ", ".join(self.followers)
        if model is None and len(self.followers) > 1:
            raise BadInput.of(422, "model", "model", f"is missing; this gateway serves {listed}")
        if model is not None and model not in self.followers:
            raise BadInput.of(404, "model", "model", f"is {model[:80]!r}; this gateway serves {listed}")
        return self.followers[model] if model is not None else next(iter(self.followers.values()))

    def feedback(self, body: bytes) -> bytes:
        """Take labels.

        Raises:
            BadInput: When they cannot be read.
            NothingServes: When there is no room to keep them; the client has to send them again.
        """
        labels = labelling.read(body, self._truths, now=datetime.now(UTC), max_rows=self.settings.max_rows)
        if not self.logbook.labels.put(labels):
            raise NothingServes("too many labels wait to be written; send these again later")
        return orjson.dumps({"accepted": len(labels)})

    def _truths(self, model: str | None) -> labelling.Truths:
        """What a label may be."""
        if model is None and len(self.followers) > 1:
            return labelling.Truths()
        follower = self.follower(model, None)
        lineup = follower.desk.lineup
        classes: set[str] = set()
        for loaded in lineup.loaded.values() if lineup else ():
            classes.update(loaded.classes)
        return labelling.Truths(follower.desk.model, frozenset(classes), number=follower.problem == "regression")

    def _record(self, follower: Follower, outcomes: Sequence[Outcome], at: datetime) -> None:
        meters, model = follower.meters, follower.desk.model
        rows = []
        for one in outcomes:
            answer = one.answer
            meters[one.arm.version, one.arm.role].count(one.seconds, failed=answer is None)
            rows.append(
                Served(
                    request_id=one.question.request_id,
                    model=model,
                    version=one.arm.version,
                    at=at,
                    seconds=one.seconds,
                    features=one.question.features,
                    prediction=None if answer is None else answer.prediction,
                    score=None if answer is None else answer.score,
                    failed=answer is None,
                    role=one.arm.role,
                )
            )
        self.logbook.answers.put(rows)
        if follower.shadow is not None:  # it has a thread of its own, which looks later
            follower.shadow.put([row for row in rows if row.role == "production" and not row.failed])

    # Telling.

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether every model can be answered for, and everything that is not as it should be."""
        models = {name: _standing(follower) for name, follower in self.followers.items()}
        ready = all(model["serving"] is not None for model in models.values())
        log = self.logbook.trouble
        fine = ready and not log and not any(model["reasons"] for model in models.values())
        status = "ready" if fine else "degraded" if ready else "not ready"
        return ready, {"status": status, "models": models, "reasons": log}

    def described(self, name: str) -> Mapping[str, Any]:
        """What a model takes, and who answers.

        Raises:
            BadInput: When it is not served here.
            NothingServes: When no version of it is.
        """
        lineup = self.follower(name, None).desk.lineup
        if lineup is None:
            raise NothingServes(f"no version of {name} can answer now")
        return {
            "model": name,
            "arms": [{"version": arm.version, "role": arm.role, "weight": arm.weight} for arm in lineup.arms],
            "columns": lineup.production.contract.plain(),
            "classes": list(lineup.production.classes),
        }


def _tried(do: Callable[[T], R], what: T) -> R | Exception:
    try:
        return do(what)
    except Exception as error:  # noqa: BLE001  told to whoever asked, and to nobody else
        return error


def _standing(follower: Follower) -> dict[str, Any]:
    lineup = follower.desk.lineup
    return {
        "serving": lineup.production.version if lineup else None,
        "arms": {arm.version: arm.weight for arm in lineup.arms} if lineup else {},
        "ledger": follower.desk.wanted,
        "transition": lineup.seq if lineup else None,
        "shadow": follower.shadow.told if follower.shadow is not None else None,
        "reasons": follower.reasons,
    }
