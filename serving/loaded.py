"""Loaded: a version that may answer: files as they were judged, nothing in them that is not allowed, and warm."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract import Contract, NoContract, contract_of
from serving.copies import Copies, Unfit, line
from serving.forest import MOST, Forest, forest_of
from serving.pedigree import is_class_of, is_pipeline
from serving.preparation import Prepared, prepared
from serving.sample import kept_rows, other_answers
from serving.shortcut import shortcut
from tasks import artifact, example
from tasks.columns import text_of
from tasks.ledger import Ledger
from tasks.policy import Policy
from tasks.stores import Stores

_log = logging.getLogger(__name__)

_WARM = 20
"""Answers to single rows before a version gets traffic; the first call of a model takes ten times as long."""
_TIE = 1e-6
"""Difference of two probabilities below which rounding may decide."""
FEW = 16
"""Rows up to which a loop costs less than numpy."""
_LARGEST = frozenset(
    {
        *("LogisticRegression", "RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier"),
        *("HistGradientBoostingClassifier", "GradientBoostingClassifier", "MLPClassifier", "GaussianNB"),
    }
)
"""Classifiers whose predict is the class with the largest probability, ties apart; with a tuned threshold it is not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version says to one row.

    Attributes:
        prediction: A plain value.
        score: Probability of the positive class of a binary problem, or None.
        probabilities: By class, as text; None where the model has none.
    """

    prediction: Any
    score: float | None = None
    probabilities: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that may answer.

    Attributes:
        version: Of the model.
        digest: Of its files.
        model: Fitted.
        contract: What it takes.
        classes: As text, in the model's order; empty in regression.
        positive: Place of the positive class, or None.
        prepare: See :func:`serving.preparation.prepared`; None: the model does it itself.
        largest: Its answer is the class with the largest probability.
        shortcut: See :func:`serving.shortcut.shortcut`; used for a few rows. None: the model is asked.
        forest: See :func:`serving.forest.forest_of`; used for some rows. None: the model is asked.
        in_steps: It is a pipeline whose steps may be asked in turn. A class of somebody's own may do more around them.
    """

    version: str
    digest: str
    model: Any
    contract: Contract
    classes: tuple[str, ...] = ()
    positive: int | None = None
    prepare: Prepared | None = None
    largest: bool = False
    shortcut: Callable[[Mapping[str, Any]], list[float]] | None = None
    forest: Forest | None = None
    in_steps: bool = False

    @property
    def quick(self) -> bool:
        """Whether a few rows cost so little that handing them to a thread would cost more."""
        return self.shortcut is not None and (self.largest or not self.classes)

    @property
    def itself(self) -> Loaded:
        """The same without any short way: the model is asked for everything, as it was when it was judged."""
        return replace(self, prepare=None, largest=False, shortcut=None, forest=None, in_steps=False)

    @property
    def _width(self) -> int:
        """Numbers of an answer. A classifier in a problem of regression gives more; then its predict is what counts."""
        return len(self.classes) or 1

    def answers(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer | None]:
        """What the version says to rows that keep to its contract; None where its answer is none (NaN).

        Raises:
            Exception: Whatever the model raises.
        """
        if len(rows) <= FEW and self.shortcut is not None and (short := self._shortly(rows)) is not None:
            return short
        last, features = self._features(rows)
        means = self.forest(features) if self.forest is not None and len(rows) <= MOST else None
        if means is not None and means.shape[1] != self._width:
            means = None
        if means is not None and not self.classes:
            return [None if _is_nothing(value) else Answer(value) for (value,) in means.tolist()]
        chances = self._chances(last, features, len(rows)) if means is None else means.tolist()
        predicted = self._largest(last, chances) if chances and self.largest else None
        if predicted is None:
            predicted = np.asarray(last.predict(features)).reshape(len(rows)).tolist()
        if chances is None:
            return [None if _is_nothing(value) else Answer(value) for value in predicted]
        return [
            None if _is_nothing(value) or not all(map(math.isfinite, row)) else self._answer(value, row)
            for value, row in zip(predicted, chances, strict=True)
        ]

    def _shortly(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer | None] | None:
        """The answers without the model; None where it has to be asked after all."""
        if self.shortcut is None:
            return None
        said = [self.shortcut(row) for row in rows]
        if not all(math.isfinite(value) for row in said for value in row):
            return None
        if said and len(said[0]) != self._width:
            return None
        if not self.classes:
            return [Answer(value) for (value,) in said]
        predicted = self._largest(self.model[-1], said) if self.largest else None
        return None if predicted is None else [self._answer(*one) for one in zip(predicted, said, strict=True)]

    def _features(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        """What is asked, and what it is given: the last step of a pipeline, so that the rows are prepared once."""
        if self.prepare is not None:
            return self.model[-1], self.prepare(rows)
        frame = self.contract.frame(rows)
        if not self.in_steps:
            return self.model, frame
        return self.model[-1], self.model[:-1].transform(frame)

    def _largest(self, last: Any, chances: list[list[float]]) -> list[Any] | None:
        """The classes with the largest probability; None where a row is so near to a tie that predict has to be asked.

        Two calls of a model cost twice what one costs.
        """
        labels = last.classes_.tolist()
        found = []
        for row in chances:
            best = max(row)
            if sum(chance > best - _TIE for chance in row) != 1:
                return None
            found.append(labels[row.index(best)])
        return found

    def _chances(self, last: Any, features: Any, rows: int) -> list[list[float]] | None:
        if not self.classes or not hasattr(last, "predict_proba"):
            return None
        chances = np.asarray(last.predict_proba(features), dtype=np.float64)
        if chances.shape != (rows, len(self.classes)):
            raise ValueError(
                f"predict_proba gave shape {chances.shape} for {rows} rows and {len(self.classes)} classes"
            )
        return list(chances.tolist())

    def _answer(self, value: Any, chances: list[float]) -> Answer:
        score = None if self.positive is None else chances[self.positive]
        return Answer(value, score, dict(zip(self.classes, chances, strict=True)))


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value)) or value == ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """Everything that it takes to load a version, in this process or another; all of it plain values.

    Attributes:
        model: Registered name.
        version: Of it.
        digest: Of the files.
        folder: Of the verified copy.
        profile: Of the ledger, or None.
        problem: See the policy, as all that follow.
        positive: The positive class.
        trusted_types: Types beside scikit-learn's that the model may hold.
        allow_pickle: Whether a pickle may be loaded.
        accept_unseen: Take nulls and categories that the training did not have.
        dropped: Columns that the policy drops.
    """

    model: str
    version: str
    digest: str
    folder: str
    profile: Mapping[str, Any] | None
    problem: str
    positive: str | None
    trusted_types: tuple[str, ...]
    allow_pickle: bool
    accept_unseen: bool
    dropped: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class Loader:
    """Loads versions of one model. Everything takes place in the thread of whoever asks."""

    def __init__(self, policy: Policy, stores: Stores, *, accept_unseen: bool = False) -> None:
        self._policy, self._accept_unseen = policy, accept_unseen
        self._copies = Copies(policy.model, stores)

    def load(self, ledger: Ledger, version: str) -> Loaded:
        """Verify, load and warm a version.

        Raises:
            Unfit: When it must not or cannot be served; says why and what to do.
            sqlalchemy.exc.SQLAlchemyError: When the ledger does not answer.
        """
        loaded = opened(self.pack(ledger, version))
        self._copies.prune(version)
        return loaded

    def pack(self, ledger: Ledger, version: str) -> Package:
        """Verify a version, and say what it takes to load it; nothing of it is loaded here.

        Raises:
            Unfit: When its files are not those that were judged.
            sqlalchemy.exc.SQLAlchemyError: When the ledger does not answer.
        """
        folder, digest = self._copies.verified(ledger, version)
        training = self._policy.training
        return Package(
            model=self._policy.model,
            version=version,
            digest=digest,
            folder=str(folder),
            profile=ledger.profile(self._policy.model, version),
            problem=self._policy.problem,
            positive=self._policy.data.positive,
            trusted_types=training.trusted_types,
            allow_pickle=training.serialization == "pickle",
            accept_unseen=self._accept_unseen,
            dropped=self._policy.data.drop,
        )


def opened(package: Package) -> Loaded:
    """Load a verified version and warm it.

    Raises:
        Unfit: When it must not be served.
    """
    folder = Path(package.folder)
    loaded = _described(folder, package, _model(folder, package))
    return _warmed(folder, loaded, f"version {package.version} of {package.model}")


def _model(folder: Path, package: Package) -> Any:
    where = f"version {package.version} of {package.model}"
    try:
        return artifact.load(folder, trusted_types=package.trusted_types, allow_pickle=package.allow_pickle)
    except artifact.UntrustedModel as error:
        raise Unfit("untrusted", f"{where}: {error}") from error
    except Exception as error:
        # Whatever loading raises is the answer.
        raise Unfit("silent", f"{where} does not load: {line(error)}") from error


def _described(folder: Path, package: Package, model: Any) -> Loaded:
    try:
        contract = contract_of(folder, package.profile, accept_unseen=package.accept_unseen, dropped=package.dropped)
    except NoContract as error:
        raise Unfit("contract", f"version {package.version} of {package.model}: {error}") from error
    classes: tuple[str, ...] = ()
    if package.problem != "regression":
        classes = tuple(str(text_of(label)) for label in getattr(model, "classes_", ()))
    quick = prepared(model, contract)
    in_steps = is_pipeline(model) and len(model.steps) > 1
    last = model[-1] if in_steps else model
    largest = is_class_of(last, "sklearn") and type(last).__name__ in _LARGEST
    positive = _positive(package, classes)
    return Loaded(
        package.version,
        package.digest,
        model,
        contract,
        classes,
        positive,
        quick,
        largest,
        shortcut(model, quick, contract),
        forest_of(model, quick, contract),
        in_steps,
    )


def _positive(package: Package, classes: tuple[str, ...]) -> int | None:
    if package.problem != "binary" or not classes:
        return None
    return classes.index(package.positive) if package.positive in classes else len(classes) - 1


def _warmed(folder: Path, loaded: Loaded, where: str) -> Loaded:
    """Let it answer the stored rows, and single ones often enough to be quick from the first request on.

    Returns:
        It; without its short ways where these say anything else than was stored.
    """
    try:
        difference = example.check(folder, loaded.model) if (folder / example.FILE).is_file() else ""
        rows = kept_rows(folder)
        other = "" if difference else other_answers(folder, loaded, rows, many=FEW + 1)
        warm = loaded.itself if other else loaded
        # Rows that were kept before the profile was known: what a column may hold is no question here.
        answers = [warm.answers([rows[turn % len(rows)]])[0] for turn in range(_WARM)]
    except FileNotFoundError as error:
        message = f"{where} has no stored input example to warm it with; train it with Backstop, or save it with one"
        raise Unfit("silent", message) from error
    except Exception as error:
        # Whatever the model raises is the answer.
        raise Unfit("silent", f"{where} does not answer its stored example: {line(error)}") from error
    if difference:
        raise Unfit("silent", f"{where} answers differently than when it was judged: {difference}")
    if None in answers:
        raise Unfit("silent", f"{where} answers its stored example with NaN or nothing; retrain it")
    if other:
        _log.warning("%s is asked itself, which is right and slower: by the gateway's short ways %s", where, other)
    return warm
