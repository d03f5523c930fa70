"""Plots: what a verdict rested on, as pictures that a person reads at a glance.

They are drawn from the very dossiers that were judged. Evidence that cannot be drawn gives a picture that says why; a
picture that fails is a line in the log, and never stops a decision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks import gate_plots
from tasks.canvas import (
    CANDIDATE,
    FAINT,
    LIMIT,
    PRODUCTION,
    Floats,
    Painter,
    Picture,
    Scene,
    Subject,
    blank,
    drawn,
    short,
    thinned,
)
from tasks.decide import drift, phrase
from tasks.decide.health import answered
from tasks.decide.intervals import clopper_pearson
from tasks.decide.sequential import mixed, replay
from tasks.dossier import Dossier, unpack
from tasks.policy import Health
from tasks.progress import Progress, silent
from tasks.records import ColumnProfile, HealthEvidence, Look, Outcome, Signals, Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from matplotlib.axes import Axes

    from tasks.ledger import Decision, Ledger
    from tasks.story import Step

__all__ = ["Picture", "Subject", "pictures", "pictures_of"]

_log = logging.getLogger(__name__)

_COLOURS: dict[Outcome, str] = {"ok": CANDIDATE, "breach": LIMIT, "unknown": FAINT, "exempt": FAINT}
_BARS = 15
_PICTURED = 12
"""Pictures of one story at most: the newest verdict of each judge about each version."""


def pictures(dossier: Dossier, verdict: Verdict, subject: Subject) -> tuple[Picture, ...]:
    """Everything that can be shown of one verdict. Never raises.

    Args:
        dossier: What the verdict rests on.
        verdict: Reached from it.
        subject: Whose it is.
    """
    try:
        painters = _painters(dossier)
    except Exception:  # noqa: BLE001  a decision never stops for the sake of its picture
        _log.exception("the evidence of %s %s cannot be drawn", subject.model, verdict.judge)
        return ()
    made = (drawn(name, painter, height, dossier, verdict, subject) for name, painter, height in painters)
    return tuple(picture for picture in made if picture is not None)


def pictures_of(
    ledger: Ledger,
    model: str,
    decisions: Sequence[Step | Decision],
    *,
    only: Collection[str | None] | None = None,
    progress: Progress = silent,
) -> dict[str, tuple[Picture, ...]]:
    """Digest of the evidence -> pictures of the newest verdict of each judge about each version.

    What cannot be read or drawn is left out: no story and no report fails for the sake of its pictures.

    Args:
        ledger: With the evidence.
        model: Registered name.
        decisions: In order, the newest last.
        only: Digests of what is to be drawn; the other decisions are what was said before. None: everything.
        progress: Told how many decisions were looked at.
    """
    newest: dict[tuple[str, str | None], Step | Decision] = {}
    earlier: dict[tuple[str, str | None], list[tuple[datetime, Verdict]]] = {}
    for one in decisions:
        if one.verdict is not None and one.evidence is not None:
            key: tuple[str, str | None] = (one.verdict.judge, one.version)
            if key in newest and _decided_more(newest[key], one):
                continue
            if key in newest:
                earlier.setdefault(key, []).append((newest[key].at, _verdict_of(newest[key])))
            newest[key] = one
    found: dict[str, tuple[Picture, ...]] = {}
    for done, (key, one) in enumerate(newest.items(), start=1):
        progress(done, len(newest), f"pictures of {model}")
        if only is not None and one.evidence not in only:
            continue
        subject = Subject(model=model, at=one.at, version=one.version, earlier=tuple(earlier.get(key, ())))
        room = _PICTURED - sum(map(len, found.values()))
        if (dossier := _dossier(ledger, one.evidence)) is not None and room > 0:
            found[str(one.evidence)] = pictures(dossier, _verdict_of(one), subject)[:room]
    return {digest: drawn for digest, drawn in found.items() if drawn}


def _decided_more(before: Step | Decision, after: Step | Decision) -> bool:
    """A watch that came to its end is what one wants to see, not the first minute of the next one."""
    return _verdict_of(after).decision == "unknown" != _verdict_of(before).decision


def _verdict_of(one: Step | Decision) -> Verdict:
    if one.verdict is None:
        raise ValueError(f"{one} is no decision")
    return one.verdict


def _dossier(ledger: Ledger, digest: str | None) -> Dossier | None:
    try:
        body = ledger.evidence(digest) if digest is not None else None
        return None if body is None else unpack(body)
    except ValueError as error:  # the audit tells what is wrong with it
        _log.warning("no picture of evidence %s: %s", digest, error)
        return None


def _painters(dossier: Dossier) -> list[tuple[str, Painter, float]]:
    """(name, painter, height in inches) of what fits the evidence."""
    given = dossier.given
    if dossier.judge == "triggers":
        return [("drift", _drift, _drift_height(given)), ("inputs", _inputs, 2.3)] if _has_inputs(given) else []
    if dossier.judge == "gate":
        return gate_plots.painters(given)
    if dossier.judge == "shadow":
        return [("shadow", _shadow, 2.9)] if given["evidence"] is not None else []
    return [("health", _health, 4.2)] if dossier.judge == "health" else []


# What the triggers saw.


def _has_inputs(given: Any) -> bool:
    signals: Signals = given["signals"]
    return signals.profile is not None and signals.recent is not None and given["rules"].drift is not None


def _columns(given: Any) -> tuple[Any, ...]:
    signals: Signals = given["signals"]
    return drift.judge_columns(signals.profile.columns, signals.recent, given["rules"].drift)  # type: ignore[union-attr, arg-type]


def _drift_height(given: Any) -> float:
    return 1.5 + 0.24 * min(_BARS, len(given["signals"].profile.columns))


def _drift(scene: Scene) -> str:
    """One bar per column, the largest change on top."""
    found, signals, rules = _columns(scene.given), scene.given["signals"], scene.given["rules"].drift
    axes = scene.figure.add_subplot()
    n = max((one.n or 0 for one in found), default=0)
    scene.title(f"drift of the inputs since version {signals.production}", f"{n:,} recent rows")
    if not found:
        blank(axes, "the reference profile has no columns")
        return "No column to compare."
    shown = found[:_BARS]
    highest = max([rules.psi, *(one.value for one in shown if one.value is not None)])
    for place, one in enumerate(shown):
        value = one.value if one.value is not None else highest if one.outcome == "breach" else 0.0
        hatch = "///" if one.outcome == "unknown" or one.value is None else None
        axes.barh(place, value, color=_COLOURS[one.outcome], hatch=hatch, edgecolor="white", height=0.7)
        axes.text(value, place, f"  {_drift_note(one)}", va="center", fontsize=8)
    axes.axvline(rules.psi, color=LIMIT, linestyle="--", linewidth=1.2)
    axes.text(rules.psi, -0.85, f" limit {rules.psi:g}", color=LIMIT, fontsize=8)
    axes.set_yticks(range(len(shown)), [short(one.name) for one in shown])
    axes.set_ylim(len(shown) - 0.4, -1.15)
    axes.set_xlim(0, highest * 1.45)
    more = f"; {len(found) - _BARS} further columns moved less" if len(found) > _BARS else ""
    axes.set_xlabel(f"population stability index, PSI (no unit; hatched: not known){more}")
    moved = sum(one.outcome == "breach" for one in found)
    return f"{moved} of {len(found)} columns are shown to have moved by more than PSI {rules.psi:g}."


def _drift_note(found: Any) -> str:
    causes = found.evidence.get("causes") or []
    if found.outcome == "unknown":
        return "unknown"
    told = "" if found.value is None else f"{found.value:.2g}"
    others = ", ".join(cause for cause in causes if cause != "psi")
    return "; ".join(part for part in (told, others) if part)


def _inputs(scene: Scene) -> str:
    """Before and now of the three columns that moved most."""
    signals: Signals = scene.given["signals"]
    known = {one.name: one for one in signals.profile.columns}  # type: ignore[union-attr]
    now = {one.name: one for one in signals.recent or ()}
    pairs = [
        (known[one.name], now[one.name])
        for one in _columns(scene.given)
        if one.name in now and now[one.name].present and known[one.name].present
        if len(now[one.name].counts) == len(known[one.name].counts)
    ][:3]
    scene.title("what moved most", f"training {signals.profile.rows:,} rows")  # type: ignore[union-attr]
    if not pairs:
        blank(scene.figure.add_subplot(), "no column has values on both sides")
        return "No column has values on both sides."
    for place, (before, after) in enumerate(pairs):
        _two_bars(scene.figure.add_subplot(1, len(pairs), place + 1), before, after, first=place == 0)
    return f"Share of rows per bin at training and now: {', '.join(before.name for before, _ in pairs)}."


def _two_bars(axes: Axes, before: ColumnProfile, after: ColumnProfile, *, first: bool) -> None:
    bins = np.arange(len(before.counts))
    for counts, colour, name, move in (
        (before, PRODUCTION, "training", -0.2),
        (after, CANDIDATE, "now", 0.2),
    ):
        axes.bar(bins + move, 100 * np.asarray(counts.counts) / counts.present, 0.4, color=colour, label=name)
    axes.set_title(short(before.name), parse_math=False)
    names = [*before.categories, "other"] if before.kind == "category" else [f"{edge:.3g}" for edge in before.edges]
    step = max(1, -(-len(names) // 4))
    offset = 0.0 if before.kind == "category" else 0.5  # an edge lies between two bins
    ticks = range(0, min(len(names), len(bins)), step)
    axes.set_xticks([tick + offset for tick in ticks], [short(names[tick], 9) for tick in ticks], fontsize=7)
    if first:
        axes.set_ylabel("rows (%)")
        axes.legend(loc="best")


# What the shadow and the watch saw.


def _shadow(scene: Scene) -> str:
    """Who was right on the same requests, and whether that suffices to decide."""
    seen, rules = scene.given["evidence"], scene.given["rules"]
    answers, proof = scene.figure.subplots(1, 2, width_ratios=(1, 1.15))
    scene.title("shadow against Production", f"{seen.requests:,} requests of both")
    labelled = seen.wins + seen.losses + seen.ties
    counts = {
        "only candidate right": (seen.wins, CANDIDATE),
        "only Production right": (seen.losses, LIMIT),
        "both or neither": (seen.ties, PRODUCTION),
        "no label yet": (max(0, seen.requests - labelled), FAINT),
        "candidate failed": (seen.failures, LIMIT),
    }
    for place, (name, (count, colour)) in enumerate(counts.items()):
        answers.barh(place, count, color=colour, height=0.65, hatch="///" if name == "candidate failed" else None)
        answers.text(count, place, f" {count:,}", va="center", fontsize=8)
    answers.set_yticks(range(len(counts)), list(counts))
    answers.invert_yaxis()
    answers.set_xlim(0, max(1, *(count for count, _ in counts.values())) * 1.25)
    answers.set_xlabel("requests")
    _proof(proof, scene, -float(np.log(rules.false_promotion)))
    share = seen.agreements / seen.requests if seen.requests else None
    said = "no request was answered by both" if share is None else f"both gave the same answer to {share:.1%}"
    return f"The same requests through both models: {said}; on the right, whether that suffices to decide."


def _proof(axes: Axes, scene: Scene, needed: float) -> None:
    """The evidence for and against, look by look."""
    looks = [*scene.subject.earlier, (scene.subject.at, scene.verdict)]
    found = [(at, one.evidence) for at, said in looks for one in said.findings if "log_e_needed" in one.evidence]
    if not found:
        blank(axes, scene.verdict.reason)
        return
    days = [(at - found[0][0]).total_seconds() / 86_400 for at, _ in found]
    for key, colour, name in (("log_e_not_worse", CANDIDATE, "not worse"), ("log_e_worse", LIMIT, "worse")):
        style = "-" if key == "log_e_not_worse" else "--"
        axes.plot(days, [one[key] for _, one in found], style, marker="o", color=colour, label=f"that it is {name}")
    axes.axhline(needed, color=PRODUCTION, linewidth=1, linestyle=":")
    axes.text(0.99, needed, "needed", transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    axes.set_xlabel("days since the first comparison")
    axes.set_ylabel("evidence (log)")
    axes.margins(y=0.25)
    axes.legend(loc="best")


def _health(scene: Scene) -> str:
    """Each metric against its limit over the requests of the watch, and the evidence that decides."""
    evidence, rules = scene.given["evidence"], scene.given["rules"]
    looks: tuple[Look, ...] = evidence.looks
    total = np.array([look.requests for look in looks], dtype=np.float64)
    served = np.cumsum(total)
    metrics = _metrics(evidence, rules, str(scene.given["problem"]))
    scene.title(f"watch, {scene.verdict.decision}", f"{int(total.sum()):,} requests in {len(looks)} looks")
    if evidence.unavailable is not None or not total.sum() or not metrics:
        blank(scene.figure.add_subplot(), scene.verdict.reason[:300])
        return f"Nothing to draw: {scene.verdict.reason}"
    processes = [replay(bad, of, tolerated, scene.given["planned_looks"]) for _, (bad, of), tolerated, _ in metrics]
    rows = 1 if len(metrics) == 1 else 2
    places = scene.figure.subplots(rows, (len(metrics) + 2) // rows, squeeze=False).ravel()
    combined = mixed(processes)
    needed = -float(np.log(rules.false_rollback))
    crossed = np.flatnonzero(combined >= needed)
    alarmed = scene.verdict.decision in {"unhealthy", "frozen"}
    back = float(served[crossed[0]]) if alarmed and len(crossed) else None
    for axes, (name, (bad, of), tolerated, turned) in zip(places, metrics, strict=False):
        if of.sum():
            _rate(axes, served, (np.cumsum(bad), np.cumsum(of)), tolerated, turned=turned)
        else:
            blank(axes, "nothing that counts yet")
        axes.set_title(name)
    _evidence(places[len(metrics)], served, combined, needed)
    for axes in places[: len(metrics) + 1]:
        if back is not None:
            axes.axvline(back, color=LIMIT, linewidth=1.4)
            axes.text(back, 0.98, " alarm", color=LIMIT, fontsize=8, va="top", transform=axes.get_xaxis_transform())
    for axes in places[len(metrics) + 1 :]:
        axes.set_axis_off()
    return f"Each health metric with its 95% bounds against its limit, over the requests: {scene.verdict.decision}."


def _metrics(
    evidence: HealthEvidence, rules: Health, problem: str
) -> list[tuple[str, tuple[Floats, Floats], float, bool]]:
    """(name, (bad outcomes, all that count) per look, tolerated share, whether the policy states that of good ones)."""
    found: list[tuple[str, Callable[[Look], tuple[int, int]], float, bool]] = []
    if rules.error_rate is not None:
        found.append(("error rate", lambda look: (look.errors, look.requests), rules.error_rate, False))
    if rules.latency_p95 is not None:
        name = f"slower than {phrase.period(rules.latency_p95)}"
        found.append((name, lambda look: (look.slow, look.requests), 0.05, False))
    if rules.accuracy is not None and problem != "regression":
        late = "no label yet: counted as right"
        late = late if rules.labels is None else f"labelled, older than {phrase.period(rules.labels.delay)}"
        found.append((f"accuracy ({late})", answered(evidence, rules), 1 - rules.accuracy, True))
    metrics = []
    for name, count, limit, turned in found:
        counts = np.array([count(look) for look in evidence.looks], dtype=np.float64).reshape(-1, 2)
        metrics.append((name, (counts[:, 0], counts[:, 1]), limit, turned))
    return metrics


def _rate(axes: Axes, served: Floats, counts: tuple[Floats, Floats], tolerated: float, *, turned: bool) -> None:
    """The share of bad outcomes among all that count, over the requests; both as sums up to each look."""
    bad, of = counts
    there = np.flatnonzero(of > 0)
    (places,) = thinned(there, most=120)
    x, hits, all_ = served[places], bad[places], of[places]
    bounds = np.array([clopper_pearson(int(hit), int(n), 0.95) for hit, n in zip(hits, all_, strict=True)])
    rate, limit = hits / all_, tolerated
    if turned:
        rate, bounds, limit = 1 - rate, 1 - bounds[:, ::-1], 1 - tolerated
    axes.fill_between(x, 100 * bounds[:, 0], 100 * bounds[:, 1], color=CANDIDATE, alpha=0.18, linewidth=0)
    axes.plot(x, 100 * rate, color=CANDIDATE, marker="." if len(x) < 3 else None)
    axes.axhline(100 * limit, color=LIMIT, linestyle="--", linewidth=1.2)
    axes.text(
        0.99, 100 * limit, f"limit {phrase.percent(limit)}", color=LIMIT, transform=axes.get_yaxis_transform(), **_ABOVE
    )
    axes.set_xlabel("requests")
    axes.set_ylabel("%")
    far = max(abs(100 * limit - 100 * rate).max() * 1.3, 10 * abs(limit if not turned else 1 - limit), 1.0)
    axes.set_ylim(max(-1.0, 100 * limit - far * 1.3), min(101.0, 100 * limit + far * 1.3))


_ABOVE: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 8}


def _evidence(axes: Axes, served: Floats, combined: Floats, needed: float) -> None:
    axes.plot(*thinned(served, combined, most=200), color=CANDIDATE, marker="." if len(served) < 3 else None)
    axes.axhline(needed, color=LIMIT, linestyle="--", linewidth=1.2)
    axes.text(0.99, needed, "rolls back", color=LIMIT, transform=axes.get_yaxis_transform(), **_ABOVE)
    axes.set_ylim(
        min(-needed, max(float(combined.min()), -3 * needed)),
        min(max(1.6 * needed, 1.15 * float(combined.max())), 6 * needed),
    )
    axes.set_title("evidence that it is worse than its limits")
    axes.set_xlabel("requests")
    axes.set_ylabel("evidence (log)")
