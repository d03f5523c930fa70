"""The frozen records that travel between the steps.

Every record is plain data: numbers, strings, tuples and other records. They import nothing but the standard library,
so that judging them costs no import, and they turn into JSON with :func:`to_plain`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Outcome = Literal["ok", "breach", "unknown", "exempt"]
"""What one look at one thing gave.

``ok`` and ``breach`` rest on evidence. ``unknown`` is evidence that is missing, broken or too little to tell; nothing
but waiting follows from it. ``exempt`` says that the rule does not apply here (no baseline yet): it speaks neither for
nor against, and a verdict of nothing but exemptions is no pass.
"""

Urgency = Literal["low", "medium", "high", "critical"]
Judge = Literal["triggers", "gate", "shadow", "health", "rollout", "rollback", "person", "data", "learning"]
Action = Literal["stage", "promote", "rollback", "reject", "external"]
State = Literal["intended", "applied", "abandoned"]
RolloutState = Literal["running", "promoted", "aborted", "ended"]


class Record:
    """What all of them have in common, written once: to compile it for each took half of the time to import them."""

    __slots__ = ()  # without an annotation, which would pass for a field of every record

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in zip(_names(self), _values(self), strict=True))
        return f"{type(self).__qualname__}({told})"


def _names(record: Record) -> tuple[str, ...]:
    return record.__slots__


def _values(record: Record) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in _names(record))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Finding(Record):
    """One thing looked at, with the numbers that the outcome rests on.

    Attributes:
        name: What was looked at, as the policy calls it (``drift``, ``regression``, ``error_rate``).
        outcome: See :data:`Outcome`.
        reason: One plain sentence with the numbers in it.
        value: The measured number, or None when there is none.
        threshold: What it is held against.
        margin: How far from the threshold is still tolerated, where the rule has one.
        interval: (low, high) of ``value`` at the rule's confidence.
        n: How many observations it rests on.
        urgency: Of a trigger that fired.
        evidence: Whatever else is needed to understand or to recompute it; plain JSON values.
    """

    name: str
    outcome: Outcome
    reason: str
    value: float | None = None
    threshold: float | None = None
    margin: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    urgency: Urgency | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Verdict(Record):
    """Findings, and what follows from them.

    Attributes:
        judge: Who judged.
        decision: triggers ``retrain | keep``, gate ``pass | fail | inconclusive``, shadow ``promote | reject | wait``,
            health ``healthy | unhealthy | frozen | unknown``, rollout ``hold | step | promote | abort | end``, rollback
            ``back | stay``, person ``promote | stay``, data ``failed | reconciled``, learning
            ``learn | wait | hold | set-aside``.
        reason: One plain sentence.
        findings: Everything that was looked at, also what did not matter.
        urgency: The highest among the triggers that fired.
    """

    judge: Judge
    decision: str
    reason: str
    findings: tuple[Finding, ...]
    urgency: Urgency | None = None

    def having(self, outcome: Outcome) -> tuple[Finding, ...]:
        """The findings with this outcome, in order."""
        return tuple(finding for finding in self.findings if finding.outcome == outcome)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Span(Record):
    """A window of time, ``start <= t < end``, both aware and in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Measurement(Record):
    """A metric with what is needed to compare it later.

    Attributes:
        metric: Name as in the policy.
        value: In the metric's own unit.
        error: Standard error of ``value``; None when it could not be had.
        n: Rows it rests on.
        greater_is_better: False for losses such as ``rmse``.
        skew: Of ``value``, as a mean of rows of which few are large; 0: not, or not known.
        degrees: Of freedom of ``error``, fewer than n - 1 where it hangs on few rows; None: n - 1.
    """

    metric: str
    value: float
    error: float | None
    n: int
    greater_is_better: bool = True
    skew: float = 0.0
    degrees: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Steps(Record):
    """An empirical distribution function at some points.

    Attributes:
        at: k points, ascending.
        below: Rows that hold less than each.
        upto: Rows that hold at most each.
    """

    at: tuple[float, ...]
    below: tuple[int, ...]
    upto: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class ColumnProfile(Record):
    """The distribution of one column, as counts that can be merged.

    Attributes:
        name: Column name; ``(prediction)`` for the model's own output.
        kind: ``number`` or ``category``.
        edges: Of a number: inner bin edges, ascending, k of them for k + 1 bins; a value belongs to the first bin
            whose edge is >= value. Empty for categories.
        categories: Of a category: the levels seen, in the order of ``counts``. A last count beyond the categories
            holds every level that is not among them.
        counts: Observations per bin; len(edges) + 1 or len(categories) + 1 of them. Nulls are not among them.
        nulls: Missing values.
        infinite: Of a number, how many of the observations are infinite.
        outside: Of a category, of the reference: rows to be expected outside of its levels in another sample as large,
            and how far off that may be (see :func:`tasks.decide.levels.outside`).
        low: Smallest finite value seen, of a number.
        high: Largest finite value seen, of a number.
        score: How strongly the reference model leans on the column, 0..1, where it was measured.
        steps: The distribution function of a number, where the policy asks for its Kolmogorov-Smirnov distance.
    """

    name: str
    kind: Literal["number", "category"]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    nulls: int = 0
    infinite: int = 0
    outside: tuple[int, int] | None = None
    low: float | None = None
    high: float | None = None
    score: float | None = None
    steps: Steps | None = None

    @property
    def present(self) -> int:
        """Observations that are not null."""
        return sum(self.counts)

    @property
    def rows(self) -> int:
        """All observations, nulls included."""
        return self.present + self.nulls


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sureness(Record):
    """Answers of a classifier of one degree of sureness: the probability that it gives the class that it says.

    Attributes:
        rows: Answers.
        labelled: Of them, with a label.
        right: Of those.
        said: How many of the labelled ones it says are right: the sum of those probabilities.
    """

    rows: int
    labelled: int
    right: int
    said: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Profile(Record):
    """What later decisions compare with; saved with the model that it describes.

    Attributes:
        columns: One per feature.
        prediction: The model's own output on the holdout: the score of the positive class, the value, or the class.
        metrics: On the holdout.
        rows: Rows trained on.
        labelled: Labelled rows that were there when it was trained, holdout included.
        trained_at: When the training ran.
        trained: Window of the rows that were fitted; nothing at or after ``trained.end`` was seen by the model.
        holdout: Window of the rows that it was judged on.
        fingerprint: Digest of the training rows.
        source_version: Of the feature source, as the policy or the source tells it.
        errors: (wrong answers, all answers) on the holdout; in regression those further off than ``error_limit``.
            None in a profile of before it was kept.
        error_limit: Of a regression: a tenth of the holdout's answers is further off, in the unit of the target.
        sureness: Of the answers on the holdout, by degree, the least sure first; None without probabilities.
    """

    columns: tuple[ColumnProfile, ...]
    prediction: ColumnProfile | None
    metrics: tuple[Measurement, ...]
    rows: int
    labelled: int
    trained_at: datetime
    trained: Span
    holdout: Span
    fingerprint: str
    source_version: str | None = None
    errors: tuple[int, int] | None = None
    error_limit: float | None = None
    sureness: tuple[Sureness, ...] | None = None

    def metric(self, name: str) -> Measurement | None:
        """The holdout metric of that name, or None."""
        return next((m for m in self.metrics if m.metric == name), None)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Scores(Record):
    """One model's answers on one set of rows. A model scores a row once; every check reads these.

    Attributes:
        truth: shape (n,), the labels; class codes 0..k-1 of ``classes`` in classification, floats in regression.
        prediction: shape (n,), in the same coding.
        probability: shape (n, k), columns in the order of ``classes``; None in regression or when the model has none.
        classes: The labels behind the codes, as strings; empty in regression. In a binary problem the second one is
            the positive class.
    """

    truth: np.ndarray[Any, Any]
    prediction: np.ndarray[Any, Any]
    probability: np.ndarray[Any, Any] | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Domain(Record):
    """How well a classifier told rows of before the training's end from recent ones that it had not seen.

    Attributes:
        auc: Area under its ROC curve.
        reference: Rows of then.
        recent: Rows of now.
        leading: Columns that it leaned on most, the first one most.
    """

    auc: Measurement
    reference: int
    recent: int
    leading: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Evaluation(Record):
    """What an earlier evaluation of the triggers found, as the ledger keeps it.

    Attributes:
        at: The moment it was made for.
        held: Names of the triggers that held, counted or not.
        saw: Which rows and labels it rested on; two that saw the same are one piece of evidence. Empty: not known.
    """

    at: datetime
    held: tuple[str, ...]
    saw: str = ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Signals(Record):
    """Everything the triggers look at, read once, before any decision.

    Attributes:
        now: The moment of the evaluation.
        profile: Of the Production version; None when there is none.
        production: Its version.
        recent: Profiles of the inputs that came after it was trained, one per column, binned with ITS edges.
        recent_prediction: Of its answers on them.
        performance: Its metric on labelled rows that it was not trained on.
        labelled_since: Labelled rows newer than what it was trained on.
        schema: Problems with the shape of the recent data, one sentence each.
        source_version: Of the feature source now.
        event: Reason given by a person or an event that asks for a retraining.
        event_urgency: As given with it.
        rolled_back_from: Version that the newest rollback took out of service, or None.
        rolled_back_at: When that took effect.
        errors: Its errors on the rows that came after its holdout, one look a day in the order of time: ``requests``
            are rows, ``wrong`` those answered wrongly (regression: further off than ``profile.error_limit``).
        sureness: Of the recent answers, by degree; None without probabilities.
        domain: Whether recent inputs can be told from those of the training; None: not asked, or unavailable.
        saw: Which rows and labels this evaluation rests on; see :class:`Evaluation`.
        evaluations: Earlier ones of this Production version since the last retraining, the newest first.
        evaluated_at: When the triggers were last evaluated, whatever came of it; None: never.
        retrained_at: When they, or an event, last started a training.
        unavailable: What could not be read, by signal name, with the reason.
    """

    now: datetime
    profile: Profile | None = None
    production: str | None = None
    recent: tuple[ColumnProfile, ...] | None = None
    recent_prediction: ColumnProfile | None = None
    performance: Measurement | None = None
    labelled_since: int | None = None
    schema: tuple[str, ...] = ()
    source_version: str | None = None
    event: str | None = None
    event_urgency: Urgency = "high"
    rolled_back_from: str | None = None
    rolled_back_at: datetime | None = None
    errors: tuple[Look, ...] | None = None
    sureness: tuple[Sureness, ...] | None = None
    domain: Domain | None = None
    saw: str = ""
    evaluations: tuple[Evaluation, ...] = ()
    evaluated_at: datetime | None = None
    retrained_at: datetime | None = None
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Candidate(Record):
    """A trained model that is logged and registered, and what is known of it.

    Attributes:
        model: Registered name.
        version: As MLflow numbers it.
        run_id: MLflow run.
        digest: SHA-256 over the files of the artifact that is deployed.
        size: Bytes of those files.
        profile: See :class:`Profile`.
    """

    model: str
    version: str
    run_id: str
    digest: str
    size: int
    profile: Profile


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Segments(Record):
    """Which segment of a column each holdout row belongs to.

    Attributes:
        by: Column.
        names: Of the segments; the rows without a value and the rare ones have one of their own each.
        codes: shape (n,), position of the row's segment among ``names``.
    """

    by: str
    names: tuple[str, ...]
    codes: np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class GateEvidence(Record):
    """What the gate judges. All of it is measured before, none of it is looked up while judging.

    Attributes:
        candidate: Its scores on the holdout.
        production: The Production version's scores on the same rows in the same order; None when there are none.
        baseline: The Production version; None when this is the first model. A baseline without scores is missing
            evidence, not a first model.
        baseline_reason: Why a baseline has no scores.
        latencies: Seconds per single-row predict, shape (calls,), after warm-up; None when it could not be measured.
        size: Bytes of the artifact that is deployed.
        loads: True when it loaded and answered the stored example in a fresh process; None when that was not tried.
        loads_reason: What happened there.
        extra: Findings of the user's own checks, and before them that of :mod:`tasks.alone`, where it found anything.
        attempt: How many candidates were judged on this holdout, this one included.
        segments: Of each column by which the policy looks at slices, where the rows have it.
        known: The classes that the candidate can answer, as text; empty in regression. None: from before this was
            looked at, and then nothing is judged that has come with it.
    """

    candidate: Scores
    production: Scores | None
    latencies: np.ndarray[Any, Any] | None
    size: int | None
    loads: bool | None
    loads_reason: str = ""
    baseline: str | None = None
    baseline_reason: str = ""
    extra: tuple[Finding, ...] = ()
    attempt: int = 1
    segments: tuple[Segments, ...] = ()
    known: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class LiveShadow(Record):
    """What a challenger did with live requests, beside the version in Production.

    Attributes:
        since: When the first of them was asked; None: there was none.
        requests: That it was given and answered or failed; what it was never given is not among them.
        failures: Of these, those that it raised on, refused, said NaN to, or died or hung of.
    """

    since: datetime | None
    requests: int
    failures: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class ShadowEvidence(Record):
    """Both models on the same recorded requests.

    Attributes:
        wins: Labelled requests on which only the challenger was right (regression: was closer).
        losses: Labelled requests on which only the champion was.
        ties: The other labelled ones.
        requests: All requests that both answered.
        agreements: Those on which both gave the same answer (regression: within the tolerance of the comparison).
        failures: Requests that the challenger could not answer.
        span: When they were recorded.
        live: What it did beside this Production; None: the policy asks for no live shadow.
    """

    wins: int
    losses: int
    ties: int
    requests: int
    agreements: int
    failures: int
    span: Span
    live: LiveShadow | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Look(Record):
    """Counts of one version's requests in one interval of the watch. Each request is counted once.

    Attributes:
        start: Of the interval.
        requests: Served.
        errors: Answered with an error.
        slow: Slower than the policy's limit.
        labelled: With a label by now.
        wrong: Labelled, and the answer was wrong.
    """

    start: datetime
    requests: int
    errors: int
    slow: int
    labelled: int
    wrong: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Beside(Record):
    """Another version that answered at the same time as the one that is watched.

    Attributes:
        version: In MLflow.
        role: ``canary``: it answered other requests. ``shadow``: it answered, unseen, those that the watched version
            had answered, so that it tells of wrong answers only, and neither of failures nor of time.
        looks: Of the same intervals, in the same order; empty intervals have zero counts.
        serving: It answers still. One that has gone tells only of what both went through.
    """

    version: str
    role: Literal["canary", "shadow"]
    looks: tuple[Look, ...]
    serving: bool = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class HealthEvidence(Record):
    """What the watch judges.

    Attributes:
        looks: From the start of the watch until now, in order, none left out; empty intervals have zero counts.
        now: The moment of the tick.
        started: Start of the watch.
        last_request: When the version last served, or None.
        unavailable: Why the source could not be read, or None.
        partial: What of the evidence is missing although the rest could be read, or None. An alarm counts all the
            same; nothing is healthy.
        read_at: When the labels were read; None: at ``now``. Of a period that is over it is later than that.
        beside: Another version that answered at the same time, asked for once the watched one is shown to be bad.
        alone: Why there is none, where it was asked for.
    """

    looks: tuple[Look, ...]
    now: datetime
    started: datetime
    last_request: datetime | None
    unavailable: str | None = None
    partial: str | None = None
    read_at: datetime | None = None
    beside: Beside | None = None
    alone: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class RolloutEvidence(Record):
    """What a progressive rollout is judged on: two versions that served at the same time.

    Attributes:
        version: The canary.
        baseline: Version in Production.
        weight: Percent of the requests that the canary is given now.
        started: When it was given its first ones; start of the first look.
        stepped: When it was given its present weight.
        now: The moment of the tick.
        canary: Its looks from ``started`` until now, in order, none left out; empty intervals have zero counts.
        production: Of the same intervals, those of the baseline.
        unavailable: Why the source could not be read, or None.
        partial: What of the evidence is missing although the rest could be read, or None. An alarm counts all the
            same; no step is taken.
        frozen: Why nothing may move: the watch found Production bad, and not by a cause of its own. None: it may.
    """

    version: str
    baseline: str
    weight: int
    started: datetime
    stepped: datetime
    now: datetime
    canary: tuple[Look, ...]
    production: tuple[Look, ...]
    unavailable: str | None = None
    partial: str | None = None
    frozen: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class LearningEvidence(Record):
    """What an update from feedback is judged on, before anything is learned.

    Attributes:
        production: Version that would be learned from.
        known_good: Whether it has finished its watch healthy.
        waiting: Labelled requests that no version has learned from, the holdout not among them.
        batches: (requests, of which Production is wrong) of each whole batch of them that would be learned, the
            oldest first.
        newest: Labelled requests that judge, the newest.
        holdout: (requests, of which Production is wrong) of them; None: not looked at, there is too little to learn.
        expected: The same of Production's own holdout, when it was judged; None: not known. Of no use in regression.
        fresh: Labelled requests that have come since the last update that was tried on this version and came to
            nothing; None: there was none.
        unseen: (label, how often it came) of labels that the version cannot say; such requests are left out.
        unfit: Requests that lack columns which the version needs, and are left out.
    """

    production: str
    known_good: bool
    waiting: int
    newest: int
    batches: tuple[tuple[int, int], ...] = ()
    holdout: tuple[int, int] | None = None
    expected: tuple[int, int] | None = None
    fresh: int | None = None
    unseen: tuple[tuple[str, int], ...] = ()
    unfit: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Lesson(Record):
    """Feedback that one version learned, or that none will.

    Attributes:
        model: Registered name.
        version: That learned it; None: it was set aside.
        base: In Production then; the version is a copy of it that learned these requests.
        requests: Ids.
        at: When.
        reason: One sentence.
        trail: Of the run.
    """

    model: str
    version: str | None
    base: str
    requests: tuple[str, ...]
    at: datetime
    reason: str
    trail: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Rollout(Record):
    """What the ledger's newest row about a progressive rollout says.

    Attributes:
        id: Of the row.
        model: Registered name.
        version: The canary.
        baseline: Version in Production when it began.
        weight: Percent of the requests that the canary is given.
        state: ``running``; ``promoted``: it is in Production; ``aborted``: it was worse, or nothing showed that it is
            not; ``ended``: it was superseded, or Production changed.
        started: When it was given its first weight.
        at: When this row was written; of a rollout that runs, when it was given its present weight.
        reason: One sentence.
        actor: Person or flow.
        trail: The id that ties trigger, run, gate, shadow, rollout and transition together.
    """

    id: int
    model: str
    version: str
    baseline: str
    weight: int
    state: RolloutState
    started: datetime
    at: datetime
    reason: str
    actor: str
    trail: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Arm(Record):
    """A version that answers requests.

    Attributes:
        version: In MLflow.
        weight: Percent of the requests, 1 to 100; those of all arms sum to 100.
    """

    version: str
    weight: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Transition(Record):
    """One row of the ledger.

    Attributes:
        model: Registered name.
        seq: 1, 2, 3 ... within the model.
        action: What moves. ``stage``: a new version to Staging. ``promote``: to Production. ``rollback``: an earlier
            version back to Production, the present one quarantined. ``reject``: from Staging to Archived.
            ``external``: a change made outside, taken down.
        version: That moves.
        previous: Version in Production before, or None.
        state: ``intended`` before MLflow is touched, ``applied`` after it was read back, ``abandoned`` when it was
            given up.
        actor: Person or flow.
        reason: One sentence.
        at: When it was decided.
        trail: The id that ties trigger, run, gate, shadow, transition and watch together.
        flow_run_id: Prefect's, where there was one.
        evidence: Plain JSON values.
        applied_at: When it took effect; None until then. A training of an hour lies between the two.
    """

    model: str
    seq: int
    action: Action
    version: str
    previous: str | None
    state: State
    actor: str
    reason: str
    at: datetime
    trail: str
    flow_run_id: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    applied_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Standing(Record):
    """What the ledger says about one model at one moment.

    Attributes:
        model: Registered name.
        seq: Of the ledger's head; 0 when it is empty. A decision is based on it (compare-and-swap).
        moved_at: When the newest transition took effect, or None.
        production: Version that serves, or None.
        since: When it was promoted.
        staged: Version that waits in Staging, or None.
        staged_since: When it came there.
        staged_trail: Trail on which it came there.
        pending: An intent that was not carried out yet, or None.
        known_good: Versions that finished a watch healthy, newest first.
        quarantined: Versions rolled back from.
    """

    model: str
    seq: int = 0
    production: str | None = None
    since: datetime | None = None
    staged: str | None = None
    staged_since: datetime | None = None
    staged_trail: str | None = None
    pending: Transition | None = None
    known_good: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    moved_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Report(Record):
    """What a flow decided and did; every flow returns one per model.

    Attributes:
        model: Registered name.
        flow: ``retrain``, ``learn``, ``watch``, ``rollout``, ``promote``, ``rollback``.
        decision: ``kept``, ``first-promoted``, ``promoted``, ``gate-failed``, ``gate-inconclusive``,
            ``shadow-rejected``, ``rejected``, ``waiting``, ``awaiting``, ``approved``, ``expired``, ``answered``,
            ``rolled-back``, ``healthy``, ``watching``, ``held``, ``failed``; of a rollout ``canary``, ``stepped``,
            ``holding``, ``aborted``, ``ended``, ``idle``; of feedback ``set-aside``.
        line: The decision in one line, in plain words, with its numbers.
        at: The moment it was made for.
        trail: Of the chain of events that it belongs to.
        production: Version in Production afterwards.
        candidate: Version that was judged, or None.
        verdicts: In the order they were reached.
        transition: The last one that was carried out, or None.
        dry_run: Nothing was changed.
        phase: Of a rollout: how far it is, ``25%, step 2 of 4``; None of everything else.
        learned: Which rows a candidate learned from, where the policy lets the newest choose.
        error: Of a model that failed while others went on.
    """

    model: str
    flow: str
    decision: str
    line: str
    at: datetime
    trail: str
    production: str | None = None
    candidate: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    transition: Transition | None = None
    dry_run: bool = False
    error: str | None = None
    phase: str | None = None
    learned: str | None = None


def to_plain(value: Any) -> Any:
    """A record as plain JSON values: numbers that JSON cannot hold become null, moments become ISO 8601.

    Raises:
        TypeError: For a type that no record holds.
    """
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return to_plain(value.tolist())
    raise TypeError(f"{type(value).__name__} is no plain value; put numbers, strings or records into a record")
