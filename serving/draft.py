"""Draft: requests on their way from the question to the answer, several at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from serving.follower import Follower
from serving.inputs import Form, Question
from serving.lineup import Lineup
from serving.loaded import Answer, Loaded
from serving.routing import Arm

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for predictions.

    Attributes:
        body: As it came.
        begun: When it was complete, by ``time.perf_counter``.
        model: That the address named, or None.
    """

    body: bytes
    begun: float
    model: str | None = None


@dataclass(slots=True)
class Outcome:
    """One row on its way through."""

    question: Question
    arm: Arm
    answer: Answer | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Draft:
    """One request on its way through."""

    ask: Ask
    at: datetime
    form: Form
    follower: Follower
    lineup: Lineup
    outcomes: list[Outcome]
    groups: dict[Arm, list[Outcome]]


def answer(drafts: Sequence[Draft]) -> None:
    """Every row with its answer, or without one; the versions answer one after the other, each all of its rows."""
    together: dict[int, tuple[Loaded, list[tuple[Draft, list[Outcome]]]]] = {}
    for draft in drafts:
        for arm, group in draft.groups.items():
            loaded = draft.lineup.loaded[arm.version]
            together.setdefault(id(loaded), (loaded, []))[1].append((draft, group))
    begun = time.perf_counter()
    for loaded, parts in together.values():
        start = time.perf_counter()
        _score(loaded, [one for _, group in parts for one in group])
        took = time.perf_counter() - start
        for draft, group in parts:
            # A row of a batch took its share: otherwise a thousand rows in a second would be a thousand slow requests.
            share = ((begun - draft.ask.begun) * len(group) / len(draft.outcomes) + took) / len(group)
            for one in group:
                one.seconds = share


def _score(loaded: Loaded, group: list[Outcome]) -> None:
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


def written(form: Form, model: str, outcomes: Sequence[Outcome]) -> bytes:
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
