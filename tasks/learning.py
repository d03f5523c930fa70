"""Learning: a copy of the version in Production learns from feedback, and becomes a candidate like any other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks import feedback, tracking
from tasks import profile as profiles
from tasks.candidate import Made, measurements
from tasks.case import Case
from tasks.columns import kind_of, text_of
from tasks.data import Dataset, Split, fingerprint
from tasks.decide.learning import FAR, doubtful
from tasks.dossier import Dossier
from tasks.estimators import failed, learner
from tasks.feedback import Parts, Pending
from tasks.policy import Learn
from tasks.records import LearningEvidence, Lesson, Profile, Standing, Verdict
from tasks.requests import Feedback, RequestLog
from tasks.scoring import classes_of, recorded_rows, score
from tasks.signals import profile_of
from tasks.training import Fitted, check_answers, train_metrics
from tasks.training import profile_of as describe


@dataclass(frozen=True, slots=True)
class Studied:
    """Feedback as it was found, with what Production says to it.

    Attributes:
        production: The version in Production.
        profile: Of it.
        batches: Rows of each batch that would be learned, and the ids of their requests.
        holdout: Rows that judge.
        unfit: Requests that lack a column, and are older than the holdout.
        evidence: What was counted.
        rules: The policy's section.
    """

    production: str
    profile: Profile
    batches: tuple[tuple[Dataset, tuple[str, ...]], ...]
    holdout: Dataset
    unfit: tuple[str, ...]
    evidence: LearningEvidence
    rules: Learn

    def dossier(self, case: Case) -> Dossier:
        """What the decision rests on."""
        return Dossier("learning", {"evidence": self.evidence, "rules": self.rules, "problem": case.policy.problem})


def study(case: Case, standing: Standing, found: Pending) -> Studied:
    """Let the version in Production answer the feedback, and count.

    Args:
        case: Whose model; its policy has a section ``learn``.
        standing: What the ledger says; something is in Production.
        found: What there is.

    Raises:
        ValueError: When it cannot be learned from that version.
        TrainingError: When its estimator has no ``partial_fit``.
    """
    rules, production = case.policy.learn, standing.production
    profile = None if production is None else profile_of(case, production)
    if rules is None or production is None or profile is None:
        raise ValueError(f"{case.model} learns nothing: no section learn, nothing in Production, or it has no profile")
    model = case.registry().load(case.ledger, case.policy, production)
    learner(model)
    known = {text_of(label) for label in getattr(model, "classes_", ())}
    usable = found.usable
    unseen = Counter(one.label for one in usable if not _sayable(case, one.label, known))
    usable = tuple(one for one in usable if one.label not in unseen)
    parts = feedback.divided(usable, rules)
    rows = _Rows(case, profile, parts)
    batches = tuple(rows.of(batch) for batch in parts.batches)
    batches = tuple(batch for batch in batches if len(batch[0]))
    holdout, _ = rows.of(parts.holdout)
    evidence = LearningEvidence(
        production=production,
        known_good=production in standing.known_good,
        waiting=parts.waiting,
        newest=len(holdout),
        batches=tuple(_counted(case, profile, model, batch) for batch, _ in batches),
        holdout=_counted(case, profile, model, holdout),
        expected=expected(profile),
        fresh=found.fresh(usable),
        unseen=tuple(sorted(unseen.items())),
        unfit=len(rows.unfit),
    )
    older = {one.request_id for batch in parts.batches for one in batch}
    unfit = tuple(one for one in rows.unfit if one in older)
    return Studied(production, profile, batches, holdout, unfit, evidence, rules)


def make(case: Case, studied: Studied, why: Verdict, scratch: Path) -> Made:
    """Let a copy learn the batches that are not doubtful, score it and, unless this is a dry run, register it.

    What it learned is put down together with what it is.

    Args:
        case: Whose model.
        studied: The feedback.
        why: The decision to learn.
        scratch: Folder for the artifact of a dry run.

    Raises:
        TrainingError: When the estimator raises, or what it became answers with what is no answer.
    """
    policy = case.policy
    sound = _sound(case, studied)
    model = case.registry().load(case.ledger, policy, studied.production)
    for rows, _ in sound:
        _learn(case, model, rows)
    parts = Split(train=_joined([rows for rows, _ in sound]), holdout=studied.holdout)
    check_answers(policy, model, parts.train)
    scores = score(model, parts.holdout, classes=classes_of(model, parts.holdout, policy))
    fitted = Fitted(model=model, params=dict(policy.training.params))
    described = describe(policy, parts, scores, measurements(policy, scores), case.now)
    profile = _grown(studied.profile, described, parts.train)
    if case.dry_run:
        return Made(fitted, parts, scores, profile, tracking.save(policy, fitted, parts, scratch / "model"), None)
    candidate = tracking.log(
        policy,
        fitted,
        parts,
        profile=profile,
        train=train_metrics(policy, model, parts, profile),
        verdict=why,
        trail=case.trail,
        stores=case.stores,
        flow_run_id=case.flow_run_id,
    )
    requests = tuple(one for _, ids in sound for one in ids)
    case.ledger.describe(candidate, _lesson(case, studied, candidate.version, requests, why.reason))
    registry = case.registry()
    registry.tag(case.model, candidate.version, "backstop.learned_from", studied.production)
    return Made(fitted, parts, scores, profile, registry.fetch(case.ledger, case.model, candidate.version), candidate)


def set_aside(case: Case, studied: Studied, why: Verdict) -> int:
    """Put down the batches that are doubtful and the requests that fit no model: nobody will learn them.

    Returns:
        How many requests that were; a dry run puts nothing down.
    """
    marks = doubtful(studied.evidence, studied.rules, case.policy.problem)
    bad = [ids for (_, ids), mark in zip(studied.batches, marks, strict=True) if mark]
    requests = (*(one for ids in bad for one in ids), *studied.unfit)
    if requests and not case.dry_run:
        case.ledger.set_aside(_lesson(case, studied, None, requests, why.reason))
    return len(requests)


def expected(profile: Profile) -> tuple[int, int] | None:
    """(rows, wrong) of a version's own holdout; None where its accuracy is not known."""
    accuracy = profile.metric("accuracy")
    if accuracy is None or accuracy.n <= 0 or not 0 <= accuracy.value <= 1:
        return None
    return accuracy.n, round((1 - accuracy.value) * accuracy.n)


class _Rows:
    """Requests as rows that the model takes."""

    def __init__(self, case: Case, profile: Profile, parts: Parts) -> None:
        self.unfit: list[str] = []
        names = [column.name for column in profile.columns]
        chosen = [one for part in (*parts.batches, parts.holdout) for one in part]
        with RequestLog.open(case.stores.requests) as log:
            asked = log.asked(case.model, [one.request_id for one in chosen])
        self._kinds = {column.name: column.kind for column in profile.columns}
        self._places: dict[str, int] = {}
        meant = {one.request_id: one.label for one in chosen}
        for place, (request_id, features) in enumerate(zip(asked.request_ids, asked.features, strict=True)):
            if not all(name in features for name in names):
                self.unfit.append(request_id)
            elif asked.labels[place] == meant[request_id]:  # somebody may just have told another one
                self._places[request_id] = place
        rows = recorded_rows(asked, case.policy)
        self._rows = Dataset(features=self._shaped(rows.features, names), target=rows.target, time=rows.time)

    def of(self, part: Sequence[Feedback]) -> tuple[Dataset, tuple[str, ...]]:
        """Some of them, in the order in which they were asked, those left out that lack a column."""
        fit = [one.request_id for one in part if one.request_id in self._places]
        return self._rows.take([self._places[one] for one in fit]), tuple(fit)

    def _shaped(self, features: pd.DataFrame, names: list[str]) -> pd.DataFrame:
        """The columns of the training, in their order and of their kinds: a few requests need not show them."""
        made: dict[str, pd.Series[Any]] = {}
        for name in names:
            column = features[name] if name in features else pd.Series(np.nan, index=features.index)
            if self._kinds[name] == "category" and kind_of(column) == "number":
                texts = [text_of(value) for value in column]
                column = pd.Series(texts, index=features.index, dtype=object)
            elif self._kinds[name] == "number" and kind_of(column) == "category":
                column = pd.to_numeric(column, errors="coerce").astype(np.float64)
            made[name] = column
        return pd.DataFrame(made, index=features.index)


def _sayable(case: Case, label: str, known: set[str | None]) -> bool:
    """Whether a label is one that the model could have answered; in regression, a number."""
    if case.policy.problem != "regression":
        return label in known
    try:
        return bool(np.isfinite(float(label)))
    except ValueError:
        return False


def _counted(case: Case, profile: Profile, model: Any, rows: Dataset) -> tuple[int, int]:
    """(rows, of which the model is wrong)."""
    if not len(rows):
        return 0, 0
    scores = score(model, rows, classes=classes_of(model, rows, case.policy))
    if case.policy.problem != "regression":
        return len(rows), int((scores.prediction != scores.truth).sum())
    usual = profile.metric("rmse")
    if usual is None:
        return len(rows), len(rows)
    return len(rows), int((~(np.abs(scores.prediction - scores.truth) <= FAR * usual.value)).sum())


def _sound(case: Case, studied: Studied) -> list[tuple[Dataset, tuple[str, ...]]]:
    marks = doubtful(studied.evidence, studied.rules, case.policy.problem)
    sound = [batch for batch, mark in zip(studied.batches, marks, strict=True) if not mark]
    if not sound:
        raise ValueError(f"no batch of {case.model}'s feedback may be learned; nothing was made")
    return sound


def _learn(case: Case, model: Any, rows: Dataset) -> None:
    """One batch. What stands before the estimator is applied as it is: its weights mean what they meant in training."""
    name = str(case.policy.training.estimator or case.policy.training.trainer)
    try:
        features, last = learner(model)(rows.features)
        last.partial_fit(features, _targets(case, model, rows))
    except Exception as error:
        # The user's estimator may raise anything.
        raise failed(name, case.policy.training.params, error) from error


def _targets(case: Case, model: Any, rows: Dataset) -> NDArray[Any]:
    """The labels as the model knows them: the log has text."""
    if case.policy.problem == "regression":
        return np.array(rows.target.tolist(), dtype=np.float64)
    known = {text_of(label): place for place, label in enumerate(model.classes_)}
    found: NDArray[Any] = np.asarray(model.classes_)[[known[text_of(label)] for label in rows.target]]
    return found


def _joined(parts: Sequence[Dataset]) -> Dataset:
    return Dataset(
        features=pd.concat([part.features for part in parts], ignore_index=True),
        target=pd.concat([part.target for part in parts], ignore_index=True),
        time=pd.DatetimeIndex([moment for part in parts for moment in part.time]).as_unit("us"),
    )


def _grown(base: Profile, own: Profile, learned: Dataset) -> Profile:
    """The profile of a version that learned: what its base was trained on, and the feedback on top.

    Its columns are counted in the bins of the base: a few batches do not say how inputs are distributed.
    """
    counted = {column.name: column for column in profiles.count(learned.features, base.columns)}
    columns = tuple(profiles.merge(column, counted[column.name]) for column in base.columns)
    both = hashlib.sha256(f"{base.fingerprint} {fingerprint(learned)}".encode()).hexdigest()
    return Profile(
        columns=columns,
        prediction=own.prediction,
        metrics=own.metrics,
        rows=base.rows + len(learned),
        labelled=base.labelled + len(learned),
        trained_at=own.trained_at,
        trained=type(base.trained)(start=base.trained.start, end=max(base.trained.end, own.trained.end)),
        holdout=own.holdout,
        fingerprint=both,
        source_version=base.source_version,
        errors=own.errors,
        error_limit=own.error_limit,
        sureness=own.sureness,
    )


def _lesson(case: Case, studied: Studied, version: str | None, requests: tuple[str, ...], reason: str) -> Lesson:
    return Lesson(
        model=case.model,
        version=version,
        base=studied.production,
        requests=requests,
        at=case.now,
        reason=reason,
        trail=case.trail,
    )
