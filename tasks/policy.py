"""Policy: everything about one model that a person decides, in one YAML file.

The file is read once, validated whole, and travels as a frozen record. `docs/policy.md` is generated from it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from tasks.expression import TRIGGERS, parse
from tasks.quantities import Amount, Duration, Share, Size
from tasks.units import format_duration

Problem = Literal["binary", "multiclass", "regression"]

_IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
ImportPath = Annotated[str, Field(pattern=_IMPORT_PATH, examples=["your_package.module:name"])]

CLASSIFICATION_METRICS = (
    *("accuracy", "balanced_accuracy", "f1", "f1_macro", "f1_weighted", "precision", "recall"),
    *("roc_auc", "log_loss", "brier"),
)
PINBALL_METRICS = tuple(f"pinball_{percent:02}" for percent in (5, 10, 25, 50, 75, 90, 95))
"""Loss of a forecast of the 5 %, 10 % ... quantile."""
REGRESSION_METRICS = ("r2", "rmse", "mae", *PINBALL_METRICS)


def _off(value: Any) -> Any:
    """``off``, ``none`` and YAML's false mean that the section is not there."""
    return None if value is False or (isinstance(value, str) and value.lower() in {"off", "none", "no"}) else value


def _none(value: Any) -> Any:
    """``off`` is an empty list."""
    return () if _off(value) is None else value


def _hour(value: Any) -> Any:
    """``on`` and YAML's true are an hour; ``off`` is None."""
    return timedelta(hours=1) if value is True or (isinstance(value, str) and value.lower() == "on") else _off(value)


class Section(BaseModel):
    """What all sections share: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Order(Section):
    """For data without dates: an ordinal that is read as time."""

    column: str | None = Field(None, description="Integer column that orders the rows; empty: the order of the file.")
    start: date = Field(date(2000, 1, 1), description="Moment of the ordinal 0.")
    step: Duration = Field(timedelta(hours=1), description="Time between two ordinals.")


class Data(Section):
    """Where the rows come from, and which of them train."""

    source: str = Field(
        description="A SQLAlchemy URL, a path to a .csv or .parquet file (relative to the policy file), or "
        "package.module:loader called with start and end. ${NAME} is filled in from the environment."
    )
    table: str | None = Field(None, description="Table to read, of a SQL source.")
    query: str | None = Field(
        None,
        description="Instead of a table: SQL with the bound parameters :start and :end. One without them is read whole "
        "by every evaluation, and cut to the window afterwards.",
    )
    target: str = Field(description="Column to predict. Rows where it is empty count as not labelled yet.")
    positive: str | None = Field(None, description="The positive class of a binary problem; empty: the larger label.")
    timestamp: str | Order = Field(description="Column that says when the row came to be, or an order to read as time.")
    timezone: str | None = Field(None, description="Zone of timestamps that carry none, such as UTC. Never guessed.")
    drop: tuple[str, ...] = Field((), description="Columns that are no features.")
    categorical: tuple[str, ...] = Field((), description="Columns of numbers that are codes, not amounts.")
    key: tuple[str, ...] = Field((), description="Columns that identify a row; a repeated key is an error.")
    duplicates: Literal["refuse", "drop", "keep"] = Field("refuse", description="What to do with exact repeats.")
    trusted: tuple[str, ...] = Field((), description="Columns that may predict the target almost alone (no leak).")
    leak: Share = Field(0.99, description="A column that alone ranks the target this well is refused as a leak.")
    lookback: Duration = Field(timedelta(days=180), description="How far back rows are used.")
    holdout: Share = Field(0.2, gt=0, le=0.5, description="Share of the rows, the newest, that judge the candidate.")
    min_rows: int = Field(200, ge=20, description="Labelled rows below which nothing is trained.")
    min_holdout: int = Field(100, ge=20, description="Holdout rows below which nothing is judged.")
    history: bool = Field(
        default=True, description="Keep the rows of a file source, so that an overwritten file does not lose them."
    )
    source_version: str | None = Field(
        None, description="Version tag of the feature source; a change of it is an upstream change."
    )

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, value: str) -> str:
        known = value.endswith((".csv", ".csv.gz", ".parquet")) or _is_import_path(value)
        if known or "://" in value or re.fullmatch(r"\$\{\w+\}", value):
            return value
        raise ValueError(
            f"{value!r} is no source; give a SQLAlchemy URL, a .csv or .parquet file, or package.module:loader"
        )

    @model_validator(mode="after")
    def _sql_needs_a_table(self) -> Self:
        whole = self.source.startswith("${") and self.source.endswith("}")  # a URL that is kept out of the file
        if not whole and ("://" in self.source) == (self.table is None and self.query is None):
            raise ValueError("a SQL source needs `table` or `query`; other sources take neither")
        if self.table is not None and self.query is not None:
            raise ValueError("`table` and `query` exclude each other; keep one")
        return self

    @property
    def time_column(self) -> str | None:
        """Column of the source that orders the rows, or None when the file's own order does."""
        return self.timestamp if isinstance(self.timestamp, str) else self.timestamp.column


class Search(Section):
    """Hyperparameter search over the estimator's parameters, scored on splits by time of the training rows."""

    when: Literal["always", "drift", "never"] = Field("drift", description="When to search instead of only fitting.")
    method: Literal["halving", "random"] = Field("halving", description="Successive halving or random search.")
    iterations: int = Field(20, ge=2, le=1000, description="Parameter sets to try.")
    folds: int = Field(3, ge=2, le=20, description="Splits by time.")
    space: dict[str, list[Any]] = Field(description="Values to draw from, by parameter name.", min_length=1)


class Training(Section):
    """How a model is made."""

    estimator: ImportPath | None = Field(
        None, description="Class or function that returns an unfitted scikit-learn estimator, called with `params`."
    )
    trainer: ImportPath | None = Field(
        None, description="Instead: a function (X, y, **params) that returns a fitted model with predict."
    )
    params: dict[str, Any] = Field({}, description="Keyword arguments of the estimator or trainer.")
    preprocess: Literal["auto", "none"] = Field(
        "auto", description="auto: impute and encode by column type, inside the model; none: the estimator does it."
    )
    search: Annotated[Search | None, BeforeValidator(_off)] = Field(
        None, description="Hyperparameter search; off by default."
    )
    windows: tuple[Duration, ...] = Field(
        (),
        description="Newest stretches of the training rows, such as [7d, 21d], that are tried beside all of them: "
        "after a change the newest may teach more. The newest rows choose.",
    )
    seed: int = Field(0, ge=0, description="Of everything random in the training.")
    serialization: Literal["skops", "pickle"] = Field(
        "skops", description="pickle runs code when it is loaded; choose it only for models that you trust."
    )
    trusted_types: tuple[str, ...] = Field(
        (), description="Types beside those of scikit-learn, numpy and scipy that a model may hold (skops)."
    )

    @model_validator(mode="after")
    def _one_way_to_train(self) -> Self:
        if (self.estimator is None) == (self.trainer is None):
            raise ValueError("give `estimator` or `trainer`, one of the two, as package.module:name")
        return self


class Compute(Section):
    """Where searches, scores and counts run when one process is not enough. Nothing that is decided depends on it."""

    dask: str | None = Field(
        None, description="Address of a Dask scheduler, such as tcp://dask:8786. Empty: processes on this machine."
    )
    processes: int = Field(-1, ge=-1, description="How many on this machine; -1: one for each core.")
    piece: int = Field(100_000, ge=1, description="Rows that are scored or counted at a time by one of them.")

    @field_validator("dask")
    @classmethod
    def _address_is_one(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+/?|\$\{\w+\}", value):
            return value
        raise ValueError(f"{value!r} is no address of a scheduler; write tcp://host:8786 or tls://host:8786")

    @field_validator("processes")
    @classmethod
    def _some_process(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 processes do nothing; give a number, -1 for one per core, or `compute: off`")
        return value


class DriftTrigger(Section):
    """T2: the inputs are not what the Production version was trained on."""

    psi: Amount = Field(0.1, gt=0, description="Population stability index that a column must be shown to exceed.")
    share_of_features: Share = Field(0.3, gt=0, description="Share of the columns that must have drifted.")
    null_share: Share = Field(0.1, gt=0, description="Change of a column's share of nulls that counts as drift.")
    false_alarms: Share = Field(0.05, gt=0, lt=0.5, description="Share of false ones among drifted columns (FDR).")
    min_rows: int = Field(50, ge=10, description="Rows of either side below which the answer is unknown.")
    ks: bool = Field(
        default=False,
        description="Report each number's Kolmogorov-Smirnov distance too, within 0.001. It never fires, and is there "
        "for versions trained from then on.",
    )


class PerformanceTrigger(Section):
    """T3: the Production version has become worse than it was when it was promoted."""

    metric: str = Field("", description="Empty: accuracy, or r2 in regression.")
    drop: Amount = Field(0.03, gt=0, description="Loss against its own holdout metric that fires.")
    relative_drop: Share | None = Field(None, gt=0, description="The same as a share of that metric.")
    floor: Amount | None = Field(None, description="Below it the urgency is critical, whatever the baseline.")
    confidence: Share = Field(0.99, ge=0.5, lt=1, description="A drop that chance alone could give does not fire.")
    min_labels: int = Field(100, ge=10, description="Labelled rows below which the answer is unknown.")


class MultivariateTrigger(Section):
    """T2: columns that each look as they did, and together do not: a classifier tells rows of now from older ones."""

    auc: Share = Field(
        0.6, ge=0.5, lt=1, description="Area under the ROC curve that it must be shown to exceed; 50% is a guess."
    )
    false_alarms: Share = Field(0.01, gt=0, lt=0.5, description="Chance of a false alarm per evaluation.")
    rows: int = Field(2000, ge=100, le=50_000, description="Newest rows of each side that are compared at most.")
    min_rows: int = Field(200, ge=50, description="Rows of either side below which the answer is unknown.")


class Labels(Section):
    """How answers count whose labels come late, and not all at once."""

    delay: Duration = Field(
        description="Only answers older than this count, and of those the labelled ones. By then all labels that will "
        "ever come should be there: those of wrong answers tend to come first, and would raise false alarms."
    )


class ConceptTrigger(Section):
    """T6: the same inputs have other outcomes than at training, so the version in Production errs more often."""

    tolerate: Share = Field(
        0.02,
        gt=0,
        lt=1,
        description="Rise of the share of errors that is tolerated, beyond what its holdout leaves open.",
    )
    false_alarms: Share = Field(
        0.01, gt=0, lt=0.5, description="Chance of a false alarm in the life of a version, however often it is asked."
    )
    min_labels: int = Field(100, ge=10, description="Labelled rows below which the answer is unknown.")
    labels: Annotated[Labels | None, BeforeValidator(_off)] = Field(
        None, description="off: a row without a label counts as answered rightly. Or a section."
    )


class Confirm(Section):
    """T11: one evaluation alone starts no retraining. Age, volume and growth are not left to chance; they need none."""

    times: int = Field(2, ge=1, le=50, description="So many evaluations must agree, the present one among them.")
    of: int = Field(
        3, ge=1, le=50, description="Of the last so many. Evaluations that saw the same rows and labels are one."
    )

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.times > self.of:
            raise ValueError(f"`times` is {self.times} and `of` {self.of}: that can never hold; let `of` be as large")
        return self


class FalseRetrains(Section):
    """T11: how many retrainings healthy data may start, over all triggers together; `1 per 30d` is read too."""

    at_most: Amount = Field(
        gt=0, le=1000, description="So many on average; below 1 it is also the chance of a single one."
    )
    per: Duration = Field(timedelta(days=30), description="In any stretch of time of this length.")


def _rate(value: Any) -> Any:
    """``1 per 30d`` and ``5% per 30d`` as a section; ``off`` is None."""
    at_most, word, per = value.partition(" per ") if isinstance(value, str) else ("", "", "")
    return {"at_most": at_most.strip(), "per": per.strip()} if word else _off(value)


class PredictionTrigger(Section):
    """T5: the answers of the Production version are not distributed as they were."""

    psi: Amount = Field(0.2, gt=0, description="Population stability index that the answers must be shown to exceed.")
    false_alarms: Share = Field(0.05, gt=0, lt=0.5, description="Chance of a false alarm per evaluation.")
    min_rows: int = Field(50, ge=10, description="Recent answers below which the answer is unknown.")


class Triggers(Section):
    """When to retrain. Each can be turned ``off``."""

    retrain_when: str = Field(
        "any", description="any, all, or an expression such as `age or volume or (drift and performance)`."
    )
    age: Annotated[Duration | None, BeforeValidator(_off)] = Field(
        timedelta(days=30), description="Time since the Production version was trained; reached counts."
    )
    drift: Annotated[DriftTrigger | None, BeforeValidator(_off)] = Field(DriftTrigger(), description="Inputs moved.")
    performance: Annotated[PerformanceTrigger | None, BeforeValidator(_off)] = Field(
        PerformanceTrigger(), description="Quality fell."
    )
    multivariate: Annotated[MultivariateTrigger | None, BeforeValidator(_off)] = Field(
        None, description="Inputs moved together, as a classifier sees it; a second or two per evaluation."
    )
    concept: Annotated[ConceptTrigger | None, BeforeValidator(_off)] = Field(
        ConceptTrigger(), description="Errors have become more frequent since training."
    )
    prediction: Annotated[PredictionTrigger | None, BeforeValidator(_off)] = Field(
        PredictionTrigger(), description="Answers moved."
    )
    window: Duration = Field(
        timedelta(days=30), description="How far back recent rows reach; never before the Production version was made."
    )
    volume: Annotated[int | None, BeforeValidator(_off)] = Field(
        50_000, gt=0, description="New labelled rows since it was trained; reached counts."
    )
    growth: Annotated[Amount | None, BeforeValidator(_off)] = Field(
        None,
        gt=0,
        le=100,
        description="New labelled rows as a share of those it was trained on, such as `200%`; reached counts. A "
        "version that learned from few rows is trained again soon.",
    )
    upstream: Annotated[bool, BeforeValidator(lambda value: value not in {"off", "none"} and value)] = Field(
        default=True, description="A change of columns, types, categories or of the source's version tag."
    )

    rollback_cool_down: Annotated[Duration | None, BeforeValidator(_off)] = Field(
        timedelta(days=1),
        description="After a rollback no trigger retrains for so long: the data that made the bad version are still "
        "there. A forced retraining does.",
    )
    cool_down: Annotated[Duration | None, BeforeValidator(_off)] = Field(
        None, description="After any retraining no trigger retrains for so long. A forced retraining does."
    )
    confirm: Annotated[Confirm | None, BeforeValidator(_off)] = Field(
        None, description="How many of the last evaluations must agree; off: one is enough."
    )
    false_retrains: Annotated[FalseRetrains | None, BeforeValidator(_rate)] = Field(
        None,
        description="A budget of retrainings that healthy data may start, such as `1 per 30d`; off: each trigger keeps "
        "its own promise, and nothing is promised over all of them.",
    )

    @property
    def enabled(self) -> tuple[str, ...]:
        """Names of the triggers that are on, as the expression uses them."""
        return tuple(name for name in TRIGGERS if getattr(self, name))

    @model_validator(mode="after")
    def _expression_is_known(self) -> Self:
        if self.retrain_when not in {"any", "all"}:
            names = parse(self.retrain_when).names
            if missing := sorted(names - set(self.enabled)):
                raise ValueError(f"retrain_when names {', '.join(missing)}, turned off here; turn it on or take it out")
        return self


class PerformanceCheck(Section):
    """G1: the metric against a floor."""

    metric: str = Field("", description="Empty: accuracy, or r2 in regression.")
    at_least: Amount | None = Field(
        None,
        description="Floor (ceiling for losses such as rmse). Empty: 0.85 for accuracy, 0.5 for r2. Where always "
        "giving the same answer clears it too, a first model must be shown to be better than that.",
    )
    confidence: Share = Field(0.95, ge=0.5, lt=1, description="How sure the gate must be, one-sided.")


class RegressionCheck(Section):
    """G2: no worse than Production on the same rows."""

    metric: str = Field("", description="Empty: f1_weighted, or r2 in regression.")
    margin: Amount = Field(0.02, ge=0, description="Loss that is still tolerated, in the metric's unit.")
    confidence: Share = Field(0.95, ge=0.5, lt=1, description="How sure the gate must be, one-sided.")


class StabilityCheck(Section):
    """G3: the answers have not moved wildly, unless the labels say that they had to."""

    correlation: Share = Field(0.8, description="Least rank correlation of the two models' scores.")
    decision_rate_shift: Share = Field(0.1, description="Largest change of the share of any predicted class.")
    explained_by_labels: bool = Field(
        default=True, description="A move is accepted when the labels show that it is towards the truth."
    )


class LatencyCheck(Section):
    """G4: time of a single-row predict, after warm-up."""

    p99: Duration = Field(timedelta(milliseconds=50), description="Ninety-nine of a hundred calls are faster.")
    calls: int = Field(1000, ge=299, le=100_000, description="Calls measured; 299 are the least that bound a p99.")
    confidence: Share = Field(0.95, ge=0.5, lt=1, description="How sure the gate must be, one-sided.")


class SliceCheck(Section):
    """G7: no segment of the rows pays for the average."""

    by: str = Field(
        min_length=1, description="Feature column whose values are the segments; a number is cut at its quartiles."
    )
    metric: str = Field("", description="Empty: the metric of `regression`; accuracy, or r2, where that is off.")
    margin: Amount = Field(0.05, ge=0, description="Loss within a segment that is tolerated, in the metric's unit.")
    min_rows: int = Field(100, ge=20, description="Rows that a segment needs to be judged.")
    prove: Literal["harm", "safety"] = Field(
        "harm",
        description="harm: a segment fails once it is shown to be worse by more than the margin, all segments of the "
        "gate counted; safety: each must also be shown not to be, which needs many rows.",
    )
    too_small: Literal["reported", "unknown"] = Field(
        "reported", description="A segment with too few rows is reported, or leaves the gate inconclusive."
    )
    most: int = Field(20, ge=2, le=200, description="Largest segments of a text column; the others are one together.")
    confidence: Share = Field(0.95, ge=0.5, lt=1, description="How sure the gate must be, one-sided.")


class Gate(Section):
    """What a candidate must show before it may be promoted. Each check can be turned ``off``."""

    performance: Annotated[PerformanceCheck | None, BeforeValidator(_off)] = Field(
        PerformanceCheck(),
        description="Metric against a floor. With `off`, a first model passes only by a check of your own.",
    )
    regression: Annotated[RegressionCheck | None, BeforeValidator(_off)] = Field(
        RegressionCheck(), description="No worse than Production on the same rows."
    )
    slices: Annotated[tuple[SliceCheck, ...], BeforeValidator(_none)] = Field(
        (), description="Segments in which it is compared with Production too, such as `[{by: contract}]`."
    )
    stability: Annotated[StabilityCheck | None, BeforeValidator(_off)] = Field(
        StabilityCheck(), description="Answers have not moved wildly."
    )
    latency: Annotated[LatencyCheck | None, BeforeValidator(_off)] = Field(
        LatencyCheck(), description="Time of a single-row predict."
    )
    size: Annotated[Size | None, BeforeValidator(_off)] = Field(
        500_000_000, description="Largest artifact that may be deployed."
    )
    fresh_process: bool = Field(default=True, description="The candidate must load and answer in a fresh process.")
    alone: bool = Field(
        default=True,
        description="Rows of the holdout must be answered one by one as they were all at once. `off` for a model that "
        "is only ever asked for whole batches.",
    )
    checks: tuple[ImportPath, ...] = Field(
        (), description="Your own checks: functions of a GateEvidence that return a Finding."
    )


class Shadow(Section):
    """The candidate answers recorded requests beside Production before it may be promoted."""

    window: Duration = Field(timedelta(days=7), description="How far back recorded requests are replayed.")
    tolerate: Share = Field(0.02, gt=0, description="Loss per labelled request that is still tolerated.")
    worth_having: Annotated[Share | None, BeforeValidator(_off)] = Field(
        None,
        gt=0,
        lt=1,
        description="off: what loses no more than `tolerate` is promoted. A gain, such as 1pt: only what is shown to "
        "be better is promoted, and what is shown to gain less than this is rejected; `tolerate` counts no longer.",
    )
    false_promotion: Share = Field(0.05, gt=0, lt=0.5, description="Chance of promoting a candidate that is worse.")

    @property
    def bounds(self) -> tuple[float, float]:
        """Gains per labelled request: shown to be above the first is promoted, below the second rejected."""
        return (-self.tolerate, 0.0) if self.worth_having is None else (0.0, self.worth_having)

    max_requests: int = Field(20_000, ge=100, description="Newest requests that are replayed at most.")
    deadline: Duration = Field(
        timedelta(days=14), description="A candidate still undecided after this is given up, and a person is told."
    )
    live: Annotated[Duration | None, BeforeValidator(_hour)] = Field(
        None,
        description="Least time for which it also answers live requests, after Production and unseen by anybody; `on` "
        "is 60m. Needs the gateway.",
    )
    live_requests: int = Field(
        300, ge=1, description="Live requests that it must have answered by then; at most 1% of them may fail."
    )

    @model_validator(mode="after")
    def _live_ends_before_the_deadline(self) -> Self:
        if self.live is not None and self.deadline <= self.live:
            raise ValueError("`deadline` has to be longer than `live`, or every candidate would be given up")
        return self


class Learn(Section):
    """R8: a copy of the version in Production learns from feedback, and is judged like any other candidate."""

    batch: int = Field(50, ge=10, le=10_000, description="Labelled requests per batch; fewer wait for more.")
    most: int = Field(1000, ge=10, le=100_000, description="Labelled requests that one new version learns at most.")
    holdout: int = Field(
        500, ge=50, le=100_000, description="Newest labelled requests: they judge, and nothing has learned from them."
    )
    window: Duration = Field(timedelta(days=30), description="How long ago a request may be to be learned from.")
    tolerate: Share = Field(
        0.1,
        gt=0,
        lt=1,
        description="Feedback on which Production is shown to be wrong so much more often than on its own holdout is "
        "not learned: the labels are wrong, or the world has changed at once.",
    )
    false_alarms: Share = Field(
        0.01, gt=0, lt=0.5, description="Chance that an update of sound feedback is held, or loses a batch."
    )

    @model_validator(mode="after")
    def _a_batch_fits(self) -> Self:
        if self.most < self.batch:
            raise ValueError(f"`most` is {self.most} and `batch` {self.batch}; a version learns one batch at least")
        return self


_NAMED = r"\$\{\w+\}"


def _server(value: str) -> str:
    """An address of a server, with no secret written out in it.

    Raises:
        ValueError: For anything else, without what may be a secret in it.
    """
    if re.fullmatch(_NAMED, value):
        return value  # kept out of the file as a whole; looked at when it is filled in
    shown = re.sub(r"//[^/@]*@", "//***@", value)
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
        raise ValueError(f"{shown!r} is no address of a server; write it as http://host:port or ${{NAME}}")
    user = re.match(r"https?://([^/@]*)@", value)
    if user and ":" in user[1] and not re.fullmatch(rf".*:{_NAMED}", user[1]):
        raise ValueError(f"{shown!r} holds a password; write it as https://user:${{NAME}}@host:port")
    return value


def _secret(value: str | None) -> str | None:
    """A secret by the name of its variable.

    Raises:
        ValueError: For a secret that is written out; it is not repeated.
    """
    if value is None or re.fullmatch(_NAMED, value):
        return value
    raise ValueError("a secret stays out of the file; write ${NAME}, and put it into the environment")


ServerUrl = Annotated[str, AfterValidator(_server)]
SecretName = Annotated[str, AfterValidator(_secret)]


def _counter(value: str) -> str:
    """The selector of a counter by version.

    Raises:
        ValueError: For anything else, functions and ranges included: they are added when it is asked.
    """
    if not re.fullmatch(r"[A-Za-z_:][\w:]*\{.*\}", value, re.DOTALL):
        raise ValueError(
            f'{value!r} is no selector of a counter; write name{{label="value"}}, without function or range'
        )
    if "$version" not in value:
        raise ValueError(
            f'{value!r} tells no versions apart; match a label with the version, such as version="$version"'
        )
    return value


Counter = Annotated[str, AfterValidator(_counter)]


class Prometheus(Section):
    """Requests, errors and slow answers are counted by a Prometheus server; labels still come from the request log.

    In the selectors `$model`, `$version` and `$role` (`production` or `canary`) are filled in. They have to select
    counters that begin at 0 with the process: a series that is not there is no evidence, and not a count of 0.
    """

    url: ServerUrl = Field(description="Its address; ${NAME} is filled in from the environment.")
    token: SecretName | None = Field(None, description="Bearer token, as ${NAME}.")
    requests: Counter = Field(
        'backstop_requests_total{model="$model",version="$version",role="$role"}',
        description="Counter of the requests, failed ones included.",
    )
    errors: Counter = Field(
        'backstop_request_errors_total{model="$model",version="$version",role="$role"}',
        description="Counter of the failed ones.",
    )
    seconds: Counter = Field(
        'backstop_request_seconds_bucket{model="$model",version="$version",role="$role"}',
        description="Buckets of their seconds; `health.latency_p95` has to be the edge of one.",
    )
    settle: Duration = Field(
        timedelta(seconds=15), description="Samples that are younger are not counted yet; longer than a scrape takes."
    )
    stale: Duration = Field(
        timedelta(minutes=3), description="Without a sample for so long nothing is known; three scrapes at least."
    )
    timeout: Duration = Field(
        timedelta(seconds=10), le=timedelta(minutes=1), description="In which a tick's queries have to be answered."
    )


class Kserve(Section):
    """The weights of a rollout are put onto an InferenceService of KServe, as `spec.predictor.canaryTrafficPercent`.

    Whoever deploys the revisions says in two annotations which versions they are: see docs/rollout.md.
    """

    service: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="Name of the InferenceService.")
    namespace: str = Field(
        "default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="Namespace that it is in."
    )
    url: ServerUrl = Field(
        "https://kubernetes.default.svc",
        description="Of the Kubernetes API; ${NAME} is filled in from the environment.",
    )
    token: SecretName | None = Field(
        None, description="Bearer token, as ${NAME}; empty: the pod's service account, where there is one."
    )
    timeout: Duration = Field(
        timedelta(seconds=10), le=timedelta(minutes=1), description="In which a tick's calls have to be answered."
    )


class Router(Section):
    """Somebody else's server that the rollout's weights are put onto, at every tick."""

    kserve: Kserve = Field(description="An InferenceService of KServe.")


class Rollout(Section):
    """A candidate that passed gate and shadow answers a growing share of the requests before it goes to Production."""

    steps: tuple[Share, ...] = Field(
        (0.05, 0.25, 0.5, 1.0),
        min_length=1,
        description="Shares of the requests, rising, in whole percents; the last one is 100%, which is Production.",
    )
    hold: Duration = Field(timedelta(minutes=15), description="Least time at each step, however good it looks.")
    tolerate: Share = Field(
        0.02,
        gt=0,
        lt=1,
        description="At each step it must be shown that less than so much more of its requests fail, are slow or are "
        "answered wrongly than of Production's at the same time.",
    )
    ratio: Amount = Field(
        1.2, ge=1, le=10, description="It is taken out once it is shown to be bad more than so many times as often."
    )
    false_promotion: Share = Field(
        0.05, gt=0, lt=0.5, description="Chance that a version that is worse by `tolerate` gets past a step."
    )
    deadline: Duration = Field(
        timedelta(days=1), description="A step that is not shown to be safe by then is given up, and a person is told."
    )
    router: Annotated[Router | None, BeforeValidator(_off)] = Field(
        None, description="off: the gateway reads the weights from the ledger. Otherwise the server that is told them."
    )

    @property
    def weights(self) -> tuple[int, ...]:
        """The steps in percent."""
        return tuple(round(100 * share) for share in self.steps)

    def following(self, weight: int) -> int:
        """The percent of the requests that comes after ``weight``; 100 is Production."""
        return next((one for one in self.weights if one > weight), 100)

    @field_validator("steps")
    @classmethod
    def _steps_lead_to_production(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        told = ", ".join(f"{100 * share:.6g}%" for share in steps)
        if any(abs(100 * share - round(100 * share)) > 1e-9 or share <= 0 for share in steps):
            raise ValueError(f"{told}: give whole percents above 0, such as 5%, 25%, 50%, 100%")
        if list(steps) != sorted(set(steps)) or steps[-1] != 1:
            raise ValueError(f"{told}: give each step once, rising, the last one 100%, such as 5%, 25%, 50%, 100%")
        return steps

    @model_validator(mode="after")
    def _deadline_is_after_the_hold(self) -> Self:
        if self.deadline <= self.hold:
            raise ValueError("`deadline` has to be longer than `hold`, or no step could ever be taken")
        return self


class Approval(Section):
    """A person decides before Production."""

    required: Literal[True] = Field(default=True, description="Always true; write `approval: off` for none.")
    deadline: Duration = Field(timedelta(days=3), description="Without an answer by then Production stays.")


_DAY = timedelta(days=1)
_LATE = 14
"""Days that are looked at again at least: two weeks of them."""


class Health(Section):
    """The watch over the version that serves, and the way back."""

    watch: Duration = Field(timedelta(minutes=30), description="Length of the watch after a promotion.")
    tick: Duration = Field(timedelta(seconds=60), description="Interval of one look.")
    error_rate: Annotated[Share | None, BeforeValidator(_off)] = Field(
        0.1, gt=0, lt=1, description="Share of failed requests that is still tolerated."
    )
    latency_p95: Annotated[Duration | None, BeforeValidator(_off)] = Field(
        timedelta(seconds=1), description="Nineteen of twenty requests are faster."
    )
    accuracy: Annotated[Share | None, BeforeValidator(_off)] = Field(
        0.8, gt=0, lt=1, description="Least share of right answers once labels arrive; unused in regression."
    )
    false_rollback: Share = Field(0.01, gt=0, lt=0.5, description="Chance that a healthy version is rolled back.")
    labels: Annotated[Labels | None, BeforeValidator(_off)] = Field(
        None,
        description="How accuracy counts. off: an answer without a label counts as right, which finds harm within "
        "minutes where most labels come. A section: only answers older than the delay count.",
    )
    min_requests: int = Field(100, ge=1, description="Requests below which a watch cannot end healthy.")
    silence: Duration = Field(timedelta(minutes=15), description="No evidence for this long pages a person.")
    max_rollbacks: int = Field(2, ge=1, description="Automatic rollbacks per `rollback_window`; then a person.")
    rollback_window: Duration = Field(timedelta(days=7), description="Window of `max_rollbacks`.")
    prometheus: Annotated[Prometheus | None, BeforeValidator(_off)] = Field(
        None, description="off: everything is counted in the request log. Otherwise the server that has counted it."
    )

    @property
    def late_days(self) -> int:
        """Days of the watch that are looked at again for labels that came after they were over."""
        delay = self.labels.delay if self.labels is not None else timedelta(0)
        # What is old enough to count is looked at once more.
        return max(_LATE, math.ceil(delay / _DAY) + 2)


class Retention(Section):
    """How long what grows stays. Transitions, verdicts and the chain over them stay for ever, whatever this says.

    It needs a run of the watch, or `python -m tasks.retention`, that is given the policies of all models of the log.
    """

    requests: Annotated[Duration | None, BeforeValidator(_off)] = Field(
        None,
        description="How long recorded requests and their labels stay, such as `90d`; off: for ever. It is the least: "
        "on PostgreSQL they go by whole weeks, and a week goes when every model in it can do without.",
    )
    evidence: Annotated[Duration | None, BeforeValidator(_off)] = Field(
        None,
        description="How long the evidence of verdicts stays, from which they can be judged again; off: for ever. Of "
        "what serves, waits or would be gone back to it stays.",
    )


class Policy(Section):
    """One model's policy."""

    model: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$", description="Name in MLflow's registry.")
    problem: Problem = Field("binary", description="What is predicted.")
    data: Data
    training: Training
    triggers: Triggers = Field(Triggers(), description="When to retrain.")
    gate: Gate = Field(Gate(), description="What a candidate must show.")
    shadow: Annotated[Shadow | None, BeforeValidator(_off)] = Field(
        Shadow(), description="Comparison on recorded requests; off where no requests are recorded."
    )
    rollout: Annotated[Rollout | None, BeforeValidator(_off)] = Field(
        None, description="off: Production moves all at once. A section: step by step; needs a gateway that splits."
    )
    learn: Annotated[Learn | None, BeforeValidator(_off)] = Field(
        None, description="off, or a section: online learning; the estimator needs `partial_fit`."
    )
    approval: Annotated[Approval | None, BeforeValidator(_off)] = Field(
        None, description="off, or a section: a person approves every promotion."
    )
    health: Health = Field(Health(), description="The watch over what serves.")
    compute: Annotated[Compute | None, BeforeValidator(_off)] = Field(
        None, description="off, or a section: heavy steps of a retraining in several processes or on a Dask cluster."
    )
    retention: Retention = Field(Retention(), description="How long requests and evidence stay.")
    external: Literal["repair", "adopt"] = Field(
        "repair", description="A stage changed by hand in MLflow is undone, or taken as the new truth."
    )
    notify: tuple[str, ...] = Field(
        (), description="Where decisions are sent: apprise URLs, file:path, or ${NAME} from the environment."
    )

    _text: str = PrivateAttr("")
    _origin: str = PrivateAttr("")
    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    def where(self, key: str) -> str:
        """The ``file:line`` or the variable that a dotted key comes from; empty for a policy that was made in code."""
        parts = key.split(".")
        above = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
        return next((self._places[one] for one in above if one in self._places), self._origin)

    @property
    def text(self) -> str:
        """The YAML as it was written, secrets still by name; kept with every run."""
        return self._text

    @property
    def origin(self) -> str:
        """Path of the file it was read from; empty when it was made in code."""
        return self._origin

    @model_validator(mode="before")
    @classmethod
    def _defaults_by_problem(cls, raw: Any) -> Any:
        """Fill in the metrics that depend on the problem, before anything is frozen."""
        return with_metric_defaults(raw) if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _metrics_fit_the_problem(self) -> Self:
        fitting = REGRESSION_METRICS if self.problem == "regression" else CLASSIFICATION_METRICS
        for place, section in (
            ("triggers.performance", self.triggers.performance),
            ("gate.performance", self.gate.performance),
            ("gate.regression", self.gate.regression),
            *((f"gate.slices[{number}]", one) for number, one in enumerate(self.gate.slices)),
        ):
            known = CLASSIFICATION_METRICS + REGRESSION_METRICS
            if section is not None and section.metric in known and section.metric not in fitting:
                raise ValueError(
                    f"{place}.metric {section.metric!r} does not fit {self.problem}; use one of {', '.join(fitting)} "
                    "or the name of a scikit-learn scorer"
                )
        return self

    @model_validator(mode="after")
    def _limits_are_within_the_metric(self) -> Self:
        """A margin of 2, where two points were meant, would let every candidate pass."""
        share = frozenset(CLASSIFICATION_METRICS) - {"log_loss", "brier"}
        usual = "r2" if self.problem == "regression" else "accuracy"
        whole = self.gate.regression.metric if self.gate.regression else usual
        slices = ((f"gate.slices[{number}]", one) for number, one in enumerate(self.gate.slices))
        for place, section in (("gate.regression", self.gate.regression), *slices):
            metric = (section.metric or whole) if section is not None else ""
            if section is not None and metric in share and section.margin >= 1:
                raise ValueError(
                    f"{place}.margin {section.margin:g}: {metric} lies between 0 and 1, so that no candidate could "
                    f"lose more; write {section.margin:g}pt if points are meant"
                )
        check = self.gate.performance
        if check is not None and check.metric in share and (check.at_least or 0) > 1:
            raise ValueError(
                f"gate.performance.at_least {check.at_least:g}: {check.metric} lies between 0 and 1, so that no "
                f"candidate could reach it; write {check.at_least:g}% if percent are meant"
            )
        return self

    @model_validator(mode="after")
    def _windows_are_parts_of_the_lookback(self) -> Self:
        windows, lookback = self.training.windows, self.data.lookback
        wrong = [one for one in windows if not timedelta(0) < one < lookback]
        if wrong or len(set(windows)) < len(windows):
            said = ", ".join(format_duration(one) for one in wrong or windows)
            raise ValueError(
                f"training.windows {said}: each must be longer than nothing and shorter than data.lookback "
                f"{format_duration(lookback)}, and no two alike"
            )
        return self

    @property
    def looks_back(self) -> dict[str, timedelta]:
        """How far back what is decided about this model may have to read the request log, by what needs it."""
        needs = {"health (the watch, and days that late labels count for)": self.health.watch}
        needs = {name: length + (self.health.late_days + 2) * _DAY for name, length in needs.items()}
        if self.shadow is not None:
            waiting = self.approval.deadline if self.approval is not None else timedelta(0)
            needs |= {"shadow.window": self.shadow.window, "shadow.deadline": self.shadow.deadline + waiting}
        if self.rollout is not None:
            needs["rollout.deadline at each step"] = self.rollout.deadline * len(self.rollout.steps)
        if self.learn is not None:
            needs["learn.window"] = self.learn.window
        if "backstop_" in f"{self.data.table} {self.data.query}":
            needs["data.lookback (it reads the request log)"] = self.data.lookback
        return needs

    @model_validator(mode="after")
    def _nothing_goes_that_is_needed(self) -> Self:
        problems = []
        for name in ("requests", "evidence"):
            kept = getattr(self.retention, name)
            short = {what: need for what, need in self.looks_back.items() if kept is not None and need > kept}
            if short:
                told = ", ".join(f"{what} needs {format_duration(need)}" for what, need in short.items())
                least = format_duration(max(short.values()))
                problems.append(
                    f"retention.{name} {format_duration(kept)} is too short: {told}; write {least} or more, or `off`"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _a_rollout_can_be_judged(self) -> Self:
        if self.rollout is not None and self.health.error_rate is None and self.health.latency_p95 is None:
            raise ValueError(
                "rollout needs health.error_rate or health.latency_p95: with both off nothing could ever show that a "
                "canary is safe. Turn one on, or write `rollout: off`"
            )
        return self


def with_metric_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """A copy of the raw policy in which the metrics that were left out fit the problem."""
    regression = raw.get("problem", "binary") == "regression"
    first, second = ("r2", "r2") if regression else ("accuracy", "f1_weighted")
    filled = dict(raw)
    for section, check, metric in (
        ("triggers", "performance", first),
        ("gate", "performance", first),
        ("gate", "regression", second),
    ):
        part = filled.get(section, {})
        here = part.get(check, {}) if isinstance(part, dict) else None
        if not isinstance(here, dict):
            continue  # turned off, or a mistake that validation will name
        here = {"metric": metric, **here}
        if check == "performance" and section == "gate" and here.get("at_least") is None:
            default = {"accuracy": 0.85, "r2": 0.5}.get(str(here["metric"]))
            here |= {} if default is None else {"at_least": default}
        filled[section] = {**part, check: here}
    return filled


def _is_import_path(value: str) -> bool:
    module, _, name = value.partition(":")
    return bool(name) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def as_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: For a naive datetime; its zone would be a guess.
    """
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment.isoformat()} has no time zone; write it as {moment.isoformat()}+00:00 or give a zone"
        )

    return moment.astimezone(UTC)
