"""Gateway: from the bytes of a request to the bytes of its answer. It knows no HTTP framework."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from serving import feedback as labelling
from serving.follower import Follower
from serving.inputs import Asked, BadInput, Form, Question, read
from serving.lineup import Lineup
from serving.loaded import Answer, Loaded, Loader
from serving.logbook import Logbook
from serving.metrics import Metrics
from serving.routing import Arm
from serving.settings import Settings
from serving.shadow import Shadow
from tasks.policy import Policy
from tasks.requests import Served
from tasks.stores import Stores

_log = logging.getLogger(__name__)


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


@dataclass(slots=True)
class _Outcome:
    """One row on its way through."""

    question: Question
    arm: Arm
    answer: Answer | None = None
    seconds: float = 0.0


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
        """Answer a body. Takes as long as the model takes: not for the event loop.

        Args:
            body: As it came.
            begun: When it was complete, by ``time.perf_counter``.
            model: That the address named, or None.

        Raises:
            BadInput: When it cannot be answered, and why.
            NothingServes: When there is nobody to answer.
            ModelFailed: When the model did not.
        """
        at = datetime.now(UTC)
        asked = read(body, max_rows=self.settings.max_rows)
        follower = self.follower(model, asked.model)
        lineup = follower.desk.lineup  # one look: a request that began on one line-up ends on it
        if lineup is None:
            reasons = "; ".join(follower.reasons.values()) or "the gateway has just started"
            raise NothingServes(f"no version of {follower.desk.model} can answer now: {reasons}")
        outcomes = self._answered(asked, lineup, begun)
        failed = [one for one in outcomes if one.answer is None]
        # Rows that nobody was given an answer to are no evidence; those at fault are.
        self._record(follower, failed or outcomes, at)
        if failed:
            raise ModelFailed(lineup.model, (one.arm.version for one in failed), (one.question.place for one in failed))
        return _written(asked.form, lineup.model, outcomes)

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

    def _answered(self, asked: Asked, lineup: Lineup, begun: float) -> list[_Outcome]:
        """Every row with its answer, or without one; the arms answer one after the other."""
        groups: dict[Arm, list[_Outcome]] = {}
        outcomes = [_Outcome(question, lineup.pick(question.key)) for question in asked.questions]
        for outcome in outcomes:
            groups.setdefault(outcome.arm, []).append(outcome)
        for arm, group in groups.items():  # all of it is looked at before any of it is answered
            lineup.loaded[arm.version].contract.check([one.question for one in group])
        before = time.perf_counter() - begun
        for arm, group in groups.items():
            start = time.perf_counter()
            _score(lineup.loaded[arm.version], group)
            # A row of a batch took its share: otherwise a thousand rows in a second would be a thousand slow requests.
            share = (before * len(group) / len(outcomes) + time.perf_counter() - start) / len(group)
            for one in group:
                one.seconds = share
        return outcomes

    def _record(self, follower: Follower, outcomes: Sequence[_Outcome], at: datetime) -> None:
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


def _score(loaded: Loaded, group: list[_Outcome]) -> None:
    """Let a version answer its rows; where it fails on them together, on ever fewer: one bad row is one error."""
    try:
        answers = loaded.answers([one.question.features for one in group])
    except Exception:  # noqa: BLE001  whatever the model raises
        if len(group) == 1:
            _log.exception("version %s failed to answer %s", loaded.version, group[0].question.request_id)
            return
        half = len(group) // 2
        _score(loaded, group[:half])
        _score(loaded, group[half:])
        return
    for one, answer in zip(group, answers, strict=True):
        one.answer = answer


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


def _written(form: Form, model: str, outcomes: Sequence[_Outcome]) -> bytes:
    """The answer, in the form in which was asked."""
    if form == "mlflow":
        return orjson.dumps(
            {
                "predictions": [one.answer.prediction for one in outcomes if one.answer],
                "request_ids": [one.question.request_id for one in outcomes],
                "model": model,
                "versions": [one.arm.version for one in outcomes],
            }
        )
    rows = [
        {
            "request_id": one.question.request_id,
            "version": one.arm.version,
            "prediction": one.answer.prediction,
            "score": one.answer.score,
            "probabilities": one.answer.probabilities,
        }
        for one in outcomes
        if one.answer
    ]
    return orjson.dumps({"model": model, **rows[0]} if form == "single" else {"model": model, "answers": rows})
