"""Pictures of what the gate judged: the candidate and Production on the same holdout rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.canvas import CANDIDATE, FAINT, PRODUCTION, Floats, Painter, Scene, blank, short, thinned
from tasks.decide import phrase
from tasks.records import Scores


def painters(given: Any) -> list[tuple[str, Painter, float]]:
    """(name, painter, height in inches) of what fits the evidence."""
    evidence, problem = given["evidence"], str(given["problem"])
    found: list[tuple[str, Painter, float]] = []
    if problem == "regression":
        found.append(("residuals", _residuals, 3.1))
    elif len(evidence.candidate.classes) == 2 and evidence.candidate.probability is not None:
        found.append(("curves", _curves, 3.3))
    else:
        found.append(("confusion", _confusion, 3.4))
    if problem == "regression" or evidence.candidate.probability is not None:
        found.append(("calibration", _calibration, 3.2))
    comparable = evidence.production is not None and _answers(evidence.candidate) is not None
    return [*found, ("agreement", _agreement, 3.2)] if comparable else found


def _sides(scene: Scene) -> list[tuple[str, Scores, str, str]]:
    """(name, scores, colour, line) of both models, Production first so that the candidate is drawn over it."""
    evidence = scene.given["evidence"]
    ours = (scene.subject.candidate, evidence.candidate, CANDIDATE, "-")
    if evidence.production is None:
        return [ours]
    return [(f"Production, {evidence.baseline}", evidence.production, PRODUCTION, "--"), ours]


def _holdout(scene: Scene, what: str) -> None:
    evidence = scene.given["evidence"]
    against = f"against version {evidence.baseline}" if evidence.production is not None else "no baseline"
    scene.title(f"{what}, {against}", f"{len(evidence.candidate.truth):,} holdout rows")


def _clean(scores: Scores) -> tuple[Floats, Floats, int]:
    """(truth, answer, rows left out) where both are known; the answer is the positive class's score, or the value."""
    answer = _answers(scores)
    if answer is None:
        return np.empty(0), np.empty(0), len(scores.truth)
    truth = np.asarray(scores.truth, dtype=np.float64)
    known = np.isfinite(truth) & np.isfinite(answer) & ((truth >= 0) | (not scores.classes))
    return truth[known], answer[known], int((~known).sum())


def _answers(scores: Scores) -> Floats | None:
    """One number per row; None when classes come without scores, or there are more than two."""
    if not scores.classes:
        return np.asarray(scores.prediction, dtype=np.float64)
    if scores.probability is None or len(scores.classes) != 2:
        return None
    return np.asarray(scores.probability[:, 1], dtype=np.float64)


def _curves(scene: Scene) -> str:
    """ROC and precision-recall of both models."""
    _holdout(scene, "ROC and precision-recall")
    roc, pr = scene.figure.subplots(1, 2)
    told = []
    for name, scores, colour, line in _sides(scene):
        truth, score, left = _clean(scores)
        positives = int(truth.sum())
        if not 0 < positives < len(truth):
            told.append(f"{name}: {len(truth):,} rows of one class or none, so no curve ({left:,} left out)")
            continue
        false, true, precision = _ranked(truth, score)
        area = float(np.trapezoid(true, false))
        average = float(np.sum(np.diff(true) * precision[1:]))
        far, high, exact = thinned(false, true, precision, most=400)
        roc.plot(far, high, color=colour, linestyle=line, label=f"{name}: area {area:.3f}")
        pr.plot(high[1:], exact[1:], color=colour, linestyle=line, label=f"{name}: average {average:.3f}")
        told.append(f"{name} has a ROC area of {area:.3f} and an average precision of {average:.3f}")
    if not roc.lines:
        for axes in (roc, pr):
            blank(axes, "; ".join(told))
        return f"{'; '.join(told)}."
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    roc.set(xlabel="false positive rate", ylabel="true positive rate (recall)", xlim=(0, 1), ylim=(0, 1.02))
    pr.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    roc.legend(loc="lower right")
    pr.legend(loc="lower left")
    return f"{'; '.join(told)}."


def _ranked(truth: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
    """(false positive rate, true positive rate, precision) at each threshold between two different scores."""
    order = np.argsort(-score, kind="stable")
    hits, ranked = truth[order], score[order]
    last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1]
    true = np.cumsum(hits)[last]
    called = last + 1.0
    rates = (np.r_[0.0, (called - true) / (len(hits) - hits.sum())], np.r_[0.0, true / hits.sum()])
    return rates[0], rates[1], np.r_[1.0, true / called]


def _calibration(scene: Scene) -> str:
    """What the models said against what came true, in ten groups of equal size."""
    _holdout(scene, "calibration")
    axes = scene.figure.add_subplot()
    for name, scores, colour, line in _sides(scene):
        truth, said = _confidence(scores)
        if not len(said):
            continue
        groups = [part for part in np.array_split(np.argsort(said, kind="stable"), 10) if len(part)]
        told = [float(said[part].mean()) for part in groups]
        came = [float(truth[part].mean()) for part in groups]
        spread = [1.96 * float(truth[part].std()) / max(1.0, len(part)) ** 0.5 for part in groups]
        gap = float(np.mean(np.abs(np.array(told) - np.array(came))))
        style: dict[str, Any] = {"color": colour, "linestyle": line, "marker": "o", "markersize": 3.5, "capsize": 2}
        axes.errorbar(told, came, yerr=spread, label=f"{name}: off by {gap:.3g} on average", **style)
    if not axes.lines:
        blank(axes, "no row has both an answer and a label")
        return "No row has both an answer and a label."
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8)
    regression, several = not scene.given["evidence"].candidate.classes, _several(scene)
    of = "of the class that was answered" if several else "of the positive class"
    axes.set_xlabel("mean answer (unit of the target)" if regression else f"predicted probability {of}")
    axes.set_ylabel("mean truth (unit of the target)" if regression else "share that came true")
    axes.legend(loc="upper left")
    return "Predicted against true, in ten groups of equal size with 95% bars; on the grey line they agree."


def _several(scene: Scene) -> bool:
    return len(scene.given["evidence"].candidate.classes) > 2


def _confidence(scores: Scores) -> tuple[Floats, Floats]:
    """(what came true, what was said): of more than two classes, of the one that was answered."""
    if len(scores.classes) <= 2:
        truth, said, _ = _clean(scores)
        return truth, said
    if scores.probability is None:
        return np.empty(0), np.empty(0)
    said = np.asarray(scores.probability, dtype=np.float64).max(axis=1, initial=0.0)
    known = (scores.truth >= 0) & np.isfinite(said)
    return (scores.truth == scores.prediction)[known].astype(np.float64), said[known]


def _agreement(scene: Scene) -> str:
    """Both models' answers to the same rows."""
    evidence = scene.given["evidence"]
    ours, theirs = _answers(evidence.candidate), _answers(evidence.production)
    _holdout(scene, "answers to the same rows")
    axes = scene.figure.add_subplot()
    known = np.zeros(0, dtype=bool) if ours is None or theirs is None else np.isfinite(ours) & np.isfinite(theirs)
    if ours is None or theirs is None or not known.any():
        blank(axes, "no row has an answer of both")
        return "No row has an answer of both."
    x, y = thinned(theirs[known], ours[known])
    axes.scatter(x, y, s=9, color=CANDIDATE, alpha=0.5, linewidths=0)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8)
    same = evidence.candidate.prediction == evidence.production.prediction
    what = "answer (unit of the target)"
    told = f"{phrase.count(int(known.sum()))} rows; on the grey line both say the same"
    if evidence.candidate.classes:
        what, told = "score of the positive class", f"the same class on {same.mean():.1%} of the rows"
    axes.set_xlabel(f"{what}, Production ({evidence.baseline})")
    axes.set_ylabel(f"{what}, {scene.subject.candidate}")
    axes.set_title(told)
    return f"Answers of both to the same rows: {told}."


def _residuals(scene: Scene) -> str:
    """What each model missed by."""
    _holdout(scene, "residuals")
    sides = _sides(scene)
    every = scene.figure.subplots(1, len(sides), sharey=True, squeeze=False)[0]
    told = []
    for axes, (name, scores, colour, _) in zip(every, sides, strict=True):
        truth, answer, left = _clean(scores)
        if not len(truth):
            blank(axes, f"{name}: no row has both an answer and a truth")
            continue
        missed = answer - truth
        size = float(np.sqrt(np.mean(missed**2)))
        out = f", {left:,} rows without a number left out" if left else ""
        axes.scatter(*thinned(answer, missed), s=9, color=colour, alpha=0.5, linewidths=0)
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.set_title(f"{name}: RMSE {size:.4g}{out}", parse_math=False)
        axes.set_xlabel("answer (unit of the target)")
        told.append(f"{name} misses by {size:.4g} (RMSE)")
    every[0].set_ylabel("answer minus truth")
    return f"{'; '.join(told) or 'No row has both an answer and a truth'}."


def _confusion(scene: Scene) -> str:
    """What the true classes were taken for."""
    _holdout(scene, "confusion")
    sides = _sides(scene)
    every = scene.figure.subplots(1, len(sides), squeeze=False)[0]
    for axes, (name, scores, _, _) in zip(every, sides, strict=True):
        shares, names = _taken_for(scores)
        if not shares.size:
            blank(axes, f"{name}: no row has both an answer and a label")
            continue
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*shares.shape):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set(title=name, xlabel="answer", ylabel="truth")
    return "Of each true class (a row), the share that was taken for each class; the diagonal is right."


def _taken_for(scores: Scores, most: int = 8) -> tuple[Floats, list[str]]:
    """(shares, names) of the most frequent classes; the others are taken together."""
    known = (scores.truth >= 0) & (scores.prediction >= 0)
    truth, answer = scores.truth[known].astype(np.intp), scores.prediction[known].astype(np.intp)
    if not len(truth):
        return np.empty((0, 0)), []
    size = np.bincount(truth, minlength=len(scores.classes))
    kept = np.sort(np.argsort(-size, kind="stable")[:most])
    place = np.full(len(scores.classes), len(kept))
    place[kept] = np.arange(len(kept))
    width = len(kept) + (len(kept) < len(scores.classes))
    counts = np.zeros((width, width))
    np.add.at(counts, (place[truth], place[answer]), 1)
    names = [short(scores.classes[one], 12) for one in kept] + ["others"] * (width - len(kept))
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), names
