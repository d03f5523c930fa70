"""Evidence: what the gate and the shadow judge, measured before anything is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from tasks import alone, artifact, compute
from tasks.candidate import Made
from tasks.case import Case
from tasks.columns import kind_of, text_of
from tasks.data import Dataset
from tasks.decide import phrase
from tasks.dossier import Dossier, pack, unpack
from tasks.live import beside_production
from tasks.plugins import resolve
from tasks.policy import Policy, SliceCheck
from tasks.progress import Course, Progress, silent
from tasks.records import Finding, GateEvidence, Scores, Segments, ShadowEvidence, Span, Standing
from tasks.requests import Recorded, RequestLog
from tasks.scoring import as_answers, classes_of, known_to, quietest, recorded_rows, score
from tasks.tryout import begun

_NUMBERS = 10
"""A number with more values than these is cut at its quartiles."""
_OTHERS, _MISSING = "(others)", "(missing)"


def for_gate(case: Case, standing: Standing, made: Made, progress: Progress = silent) -> GateEvidence:
    """Everything about a candidate that the gate's rules ask for. Each model scores the holdout once.

    Args:
        case: Whose model.
        standing: What the ledger says.
        made: The candidate.
        progress: Told how far it is.
    """
    gate, course = case.policy.gate, Course(progress, f"evidence about the candidate of {case.model}", 4)
    # It makes itself ready beside the scoring, and is over before single rows are timed.
    with begun(case.policy) if gate.fresh_process else nullcontext() as fresh:
        production, baseline_reason = _production_scores(case, standing, made)
        course.past()
        loads, loads_reason = (None, "") if fresh is None else fresh.of(made.folder)
        course.past()
    apart = alone.judge(made.fitted.model, made.split.holdout, made.scores) if gate.alone else None
    calls = quietest(made.fitted.model, made.split.holdout.features, gate.latency) if gate.latency is not None else None
    course.past()
    found = with_rows(
        GateEvidence(
            candidate=made.scores,
            production=production,
            latencies=calls,
            size=artifact.size(made.folder),
            loads=loads,
            loads_reason=loads_reason,
            baseline=standing.production,
            baseline_reason=baseline_reason,
            attempt=1 + case.ledger.attempts_on(case.model, made.profile.holdout),
            known=known_to(made.fitted.model, made.split.train, case.policy),
        ),
        case.policy,
        made.split.holdout,
    )
    course.past()
    return found if apart is None else replace(found, extra=(apart, *found.extra))


def with_rows(evidence: GateEvidence, policy: Policy, holdout: Dataset) -> GateEvidence:
    """The evidence with what the holdout's rows tell besides: the segments, and the user's own checks.

    Args:
        evidence: Of both models on the holdout.
        policy: Of the model.
        holdout: The rows.
    """
    checks = [check for check in policy.gate.slices if check.by in holdout.features.columns]  # else the gate says so
    segments = tuple(segments_of(holdout.features, check) for check in checks)
    return _with_own_checks(policy, replace(evidence, segments=segments))


def segments_of(features: pd.DataFrame, check: SliceCheck) -> Segments:
    """The segment of each row: no row is left out.

    Args:
        features: n rows, tidy, with the column.
        check: Says which column, and how many values of a text have a segment of their own.
    """
    column = features[check.by]
    missing = column.isna().to_numpy()
    if kind_of(column) == "number" and column.nunique() > _NUMBERS:
        names, codes = _quartiles(column.to_numpy(dtype=np.float64), missing)
    else:
        names, codes = _frequent(column, check.most)
    codes = np.where(missing, len(names), codes)
    names = [*names, _MISSING]
    used = np.unique(codes)
    kept = np.searchsorted(used, codes).astype(np.int16)
    return Segments(by=check.by, names=tuple(names[place] for place in used), codes=kept)


def _frequent(column: pd.Series[Any], most: int) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Names and codes of a text: its most frequent values, and the others together. Each value is looked at once."""
    places, levels = pd.factorize(column, use_na_sentinel=False)
    texts, times = [text_of(level) for level in levels], np.bincount(places, minlength=len(levels))
    counted: Counter[str] = Counter()
    for text, count in zip(texts, times.tolist(), strict=True):
        if text:
            counted[text] += count
    names = [*sorted(name for name, _ in counted.most_common(most)), _OTHERS]
    known = {name: place for place, name in enumerate(names[:-1])}
    table = np.array([known.get(str(text), len(names) - 1) for text in texts], dtype=np.intp)
    return names, table[places]


def _quartiles(values: np.ndarray[Any, Any], missing: np.ndarray[Any, Any]) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Names and codes of a number; an edge belongs to the quarter below it."""
    edges = np.unique(np.quantile(values[~missing], [0.25, 0.5, 0.75], method="inverted_cdf"))
    told = [phrase.number(edge) for edge in edges]
    between = [f"above {low} to {high}" for low, high in pairwise(told)]
    return [f"up to {told[0]}", *between, f"above {told[-1]}"], np.searchsorted(edges, values, side="left")


def _production_scores(case: Case, standing: Standing, made: Made) -> tuple[Scores | None, str]:
    """The Production version's scores on the candidate's holdout, or the reason why there are none."""
    version = standing.production
    if version is None:
        return None, "no version is in Production"
    try:
        model = case.registry().load(case.ledger, case.policy, version)
        with compute.on(case.policy):
            return score(model, made.split.holdout, classes=made.scores.classes, beside=made.scores), ""
    except Exception as error:  # noqa: BLE001  whatever the old model raises is missing evidence, told in its finding
        return None, f"version {version} in Production could not score the holdout: {error}"


def _with_own_checks(policy: Policy, evidence: GateEvidence) -> GateEvidence:
    """The evidence with the findings of the user's own checks; a check that raises is no pass."""
    found = tuple(_own_check(path, evidence) for path in policy.gate.checks)
    return replace(evidence, extra=found)


def _own_check(path: str, evidence: GateEvidence) -> Finding:
    name = path.rpartition(":")[2]
    try:
        # Of its own: a check that sorts or rounds in place must not change what is judged after it.
        finding = resolve(path, place="gate.checks")(deepcopy(evidence))
        if isinstance(finding, Finding):
            return _as_kept(finding)
    except Exception as error:  # noqa: BLE001  the user's code may raise anything
        return Finding(name=name, outcome="unknown", reason=f"{path} raised {type(error).__name__}: {error}")
    return Finding(
        name=name,
        outcome="unknown",
        reason=f"{path} returned {type(finding).__name__}; it must return a tasks.records.Finding",
    )


def _as_kept(finding: Finding) -> Finding:
    """As it comes back from the ledger: what cannot be kept, or fits no finding, is told now and not years later."""
    kept: Finding = unpack(pack(Dossier("gate", {"extra": finding}))).given["extra"]
    return kept


def for_shadow(
    case: Case, standing: Standing, challenger: Any, *, version: str | None, unseen_since: datetime
) -> ShadowEvidence:
    """Both models on recorded requests that neither was trained on.

    What the challenger said to a request when it was asked, as a live shadow, is its answer; the others are replayed.

    Args:
        case: Whose model.
        standing: What the ledger says; it has a Production version.
        challenger: The candidate's model, loaded.
        version: The candidate's, or None where it has none: in a dry run.
        unseen_since: End of the rows that the challenger was fitted on.

    Raises:
        ValueError: When the policy has no shadow or nothing is in Production.
    """
    shadow, policy = case.policy.shadow, case.policy
    if shadow is None or standing.production is None:
        raise ValueError(f"{case.model} has no shadow comparison to make: shadow is off or nothing is in Production")
    span = Span(start=max(case.now - shadow.window, unseen_since), end=case.now)
    with RequestLog.open(case.stores.requests) as log:
        recorded = log.window(
            case.model, start=span.start, end=span.end, limit=shadow.max_requests, labelled_first=True
        )
        said = _said(log, case.model, version, recorded)
        live = beside_production(case, standing, log) if version is not None and shadow.live is not None else None
    rows = recorded_rows(recorded, policy)
    if not len(rows):
        return ShadowEvidence(wins=0, losses=0, ties=0, requests=0, agreements=0, failures=0, span=span, live=live)
    champion = case.registry().load(case.ledger, policy, standing.production)
    # Window and rows are in the same order: that of the time.
    failed = np.array([name in said and said[name] is None for name in recorded.request_ids])
    answers = [said.get(name) for name, bad in zip(recorded.request_ids, failed, strict=True) if not bad]
    found = compare(rows.take(~failed), champion, challenger, policy, span, answers)
    return replace(found, failures=found.failures + int(failed.sum()), live=live)


def _said(log: RequestLog, model: str, version: str | None, recorded: Recorded) -> dict[str, str | None]:
    """What the challenger said to recorded requests when they were asked; None where it failed."""
    if version is None or not len(recorded):
        return {}
    first, last = recorded.times[0], recorded.times[-1]
    return log.unseen(model, version, start=first, end=last + timedelta(microseconds=1))


def compare(
    rows: Dataset, champion: Any, challenger: Any, policy: Policy, span: Span, said: Sequence[str | None] = ()
) -> ShadowEvidence:
    """Both models on the same rows, request by request.

    Args:
        rows: Recorded requests, with labels where they have arrived.
        champion: The model in Production.
        challenger: The candidate.
        policy: Of the model.
        span: When the requests were recorded.
        said: What the challenger said to each row when it was asked, as text; None: it is asked now. Empty: all are.
    """
    if not len(rows):
        return ShadowEvidence(wins=0, losses=0, ties=0, requests=0, agreements=0, failures=0, span=span)
    classes = classes_of(champion, rows, policy)
    ours = score(champion, rows, classes=classes)
    try:
        theirs = replace(ours, prediction=_answers(challenger, rows, said or [None] * len(rows), classes))
    except Exception:  # noqa: BLE001  a challenger that cannot answer what the champion answered loses by it
        return ShadowEvidence(wins=0, losses=0, ties=0, requests=len(rows), agreements=0, failures=len(rows), span=span)
    labelled = rows.target.notna().to_numpy()
    if policy.problem == "regression":
        gain, same = _closer(ours, theirs)
    else:
        gain = (theirs.prediction == ours.truth).astype(int) - (ours.prediction == ours.truth).astype(int)
        same = theirs.prediction == ours.prediction
    gain = gain[labelled]
    return ShadowEvidence(
        wins=int((gain > 0).sum()),
        losses=int((gain < 0).sum()),
        ties=int((gain == 0).sum()),
        requests=len(rows),
        agreements=int(same.sum()),
        failures=0,
        span=span,
    )


def _answers(
    challenger: Any, rows: Dataset, said: Sequence[str | None], classes: tuple[str, ...]
) -> np.ndarray[Any, Any]:
    """What the challenger says to every row: as codes of the classes, or numbers in regression."""
    known = np.array([one is not None for one in said])
    answers = np.empty(len(rows), dtype=np.intp if classes else np.float64)
    answers[known] = as_answers([one for one in said if one is not None], classes)
    if not known.all():
        answers[~known] = score(challenger, rows.take(~known), classes=classes).prediction
    return answers


def _closer(ours: Scores, theirs: Scores) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """For regression: who was closer to the truth, and whether both said about the same.

    A hundredth of the spread of the champion's answers counts as the same.
    """
    same = np.abs(theirs.prediction - ours.prediction) <= 0.01 * float(np.std(ours.prediction))
    gain = np.sign(np.abs(ours.prediction - ours.truth) - np.abs(theirs.prediction - theirs.truth))
    return np.where(same, 0, gain).astype(int), same
