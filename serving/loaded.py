"""Loaded: a version that may answer: files as they were judged, nothing in them that is not allowed, and warm."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from serving.contract import Contract, NoContract, contract_of
from serving.preparation import prepared
from tasks import artifact, example
from tasks.columns import text_of
from tasks.ledger import Ledger
from tasks.policy import Policy
from tasks.stores import Stores

_WARM = 20
"""Answers to single rows before a version gets traffic; the first call of a model takes ten times as long."""
_TIE = 1e-6
"""Difference of two probabilities below which rounding may decide."""
_LARGEST = frozenset(
    {
        *("LogisticRegression", "RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier"),
        *("HistGradientBoostingClassifier", "GradientBoostingClassifier", "MLPClassifier", "GaussianNB"),
    }
)
"""Classifiers whose predict is the class with the largest probability, ties apart; with a tuned threshold it is not."""
_KEPT = 3
"""Copies of versions that stay on disk: what serves, what served before, and what is on its way."""


class Unfit(RuntimeError):
    """A version that must not answer.

    Attributes:
        kind: ``missing``, ``unverified``, ``swapped``, ``untrusted``, ``contract``, ``silent`` or ``away``.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


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
    """

    version: str
    digest: str
    model: Any
    contract: Contract
    classes: tuple[str, ...] = ()
    positive: int | None = None
    prepare: Callable[[Sequence[Mapping[str, Any]]], Any] | None = None
    largest: bool = False

    def answers(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer | None]:
        """What the version says to rows that keep to its contract; None where its answer is none (NaN).

        Raises:
            Exception: Whatever the model raises.
        """
        last, features = self._features(rows)
        chances = self._chances(last, features, len(rows))
        predicted = self._largest(last, chances) if chances and self.largest else None
        if predicted is None:
            predicted = np.asarray(last.predict(features)).reshape(len(rows)).tolist()
        if chances is None:
            return [None if _is_nothing(value) else Answer(value) for value in predicted]
        return [
            None if _is_nothing(value) or not all(map(math.isfinite, row)) else self._answer(value, row)
            for value, row in zip(predicted, chances, strict=True)
        ]

    def _features(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        """The last step of the model, and what it is given. A pipeline prepares the rows once, not for each answer."""
        if self.prepare is not None:
            return self.model[-1], self.prepare(rows)
        frame = self.contract.frame(rows)
        if len(getattr(self.model, "steps", ())) < 2:
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


class Loader:
    """Loads versions of one model. Everything takes place in the thread of whoever asks."""

    def __init__(self, policy: Policy, stores: Stores, *, accept_unseen: bool = False) -> None:
        self._policy, self._stores, self._accept_unseen = policy, stores, accept_unseen
        self._copies = stores.home / "serving" / policy.model

    def load(self, ledger: Ledger, version: str) -> Loaded:
        """Verify, load and warm a version.

        The files are copied first, and what was verified is the copy that is loaded: nobody can swap one between the
        two. A copy that is there and right is used without asking MLflow.

        Raises:
            Unfit: When it must not or cannot be served; says why and what to do.
            sqlalchemy.exc.SQLAlchemyError: When the ledger does not answer.
        """
        expected = ledger.digest(self._policy.model, version)
        if expected is None:
            raise Unfit(
                "unverified",
                f"the ledger has no digest of version {version} of {self._policy.model}, so its files cannot be "
                "verified; the next tick of the watch puts it down, if the version is in Production",
            )
        folder = self._verified(ledger, version, expected)
        model = self._model(folder, version)
        loaded = self._described(folder, version, expected, model, ledger)
        self._warm(folder, loaded)
        self._prune(version)
        return loaded

    def _verified(self, ledger: Ledger, version: str, expected: str) -> Path:
        """A private copy of the files that were judged."""
        copy = self._copies / version
        with suppress(OSError):
            if artifact.digest(copy) == expected:
                return copy
        try:
            return self._copied(self._fetched(ledger, version), version, expected)
        except OSError as error:
            raise Unfit(
                "away", f"version {version} of {self._policy.model} cannot be copied: {_line(error)}"
            ) from error

    def _copied(self, source: Path, version: str, expected: str) -> Path:
        copy = self._copies / version
        self._copies.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{version}-", dir=self._copies) as scratch:
            fresh = Path(scratch) / "fresh"
            shutil.copytree(source, fresh)
            found = artifact.digest(fresh)
            if found != expected:
                raise Unfit("swapped", self._swapped(version, found, expected))
            if copy.exists():
                copy.rename(Path(scratch) / "old")
            fresh.rename(copy)
        return copy

    def _fetched(self, ledger: Ledger, version: str) -> Path:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415  seconds, not needed where a copy is at hand

        from tasks import patience  # noqa: PLC0415  the same
        from tasks.registry import MissingVersion, Registry, SwappedArtifact  # noqa: PLC0415  the same

        try:
            with patience.little(make_url(self._stores.tracking).render_as_string(hide_password=True)):
                return Registry(self._stores).fetch(ledger, self._policy.model, version)
        except SwappedArtifact as error:
            raise Unfit("swapped", str(error)) from error
        except MissingVersion as error:
            raise Unfit("missing", str(error)) from error
        except FileNotFoundError as error:
            raise Unfit("missing", f"version {version} of {self._policy.model}: {error}") from error
        except (MlflowException, SQLAlchemyError, OSError, patience.MlflowAway) as error:
            raise Unfit(
                "away", f"version {version} of {self._policy.model} cannot be fetched: {_line(error)}"
            ) from error

    def _model(self, folder: Path, version: str) -> Any:
        training = self._policy.training
        try:
            return artifact.load(
                folder, trusted_types=training.trusted_types, allow_pickle=training.serialization == "pickle"
            )
        except artifact.UntrustedModel as error:
            raise Unfit("untrusted", f"version {version} of {self._policy.model}: {error}") from error
        except Exception as error:
            # Whatever loading raises is the answer.
            raise Unfit("silent", f"version {version} of {self._policy.model} does not load: {_line(error)}") from error

    def _described(self, folder: Path, version: str, digest: str, model: Any, ledger: Ledger) -> Loaded:
        profile = ledger.profile(self._policy.model, version)
        try:
            contract = contract_of(folder, profile, accept_unseen=self._accept_unseen)
        except NoContract as error:
            raise Unfit("contract", f"version {version} of {self._policy.model}: {error}") from error
        classes: tuple[str, ...] = ()
        if self._policy.problem != "regression":
            classes = tuple(str(text_of(label)) for label in getattr(model, "classes_", ()))
        quick = prepared(model, contract)
        last = type(model[-1] if hasattr(model, "steps") else model)
        largest = last.__module__.startswith("sklearn.") and last.__name__ in _LARGEST
        return Loaded(version, digest, model, contract, classes, self._positive(classes), quick, largest)

    def _positive(self, classes: tuple[str, ...]) -> int | None:
        if self._policy.problem != "binary" or not classes:
            return None
        named = self._policy.data.positive
        return classes.index(named) if named in classes else len(classes) - 1

    def _warm(self, folder: Path, loaded: Loaded) -> None:
        """Let it answer the stored rows, and single ones often enough to be quick from the first request on."""
        where = f"version {loaded.version} of {self._policy.model}"
        try:
            difference = example.check(folder, loaded.model) if (folder / example.FILE).is_file() else ""
            rows = _example_rows(folder)
            # Rows that were kept before the profile was known: what a column may hold is no question here.
            answers = [loaded.answers([rows[turn % len(rows)]])[0] for turn in range(_WARM)]
        except FileNotFoundError as error:
            message = (
                f"{where} has no stored input example to warm it with; train it with Backstop, or save it with one"
            )
            raise Unfit("silent", message) from error
        except Exception as error:
            # Whatever the model raises is the answer.
            raise Unfit("silent", f"{where} does not answer its stored example: {_line(error)}") from error
        if difference:
            raise Unfit("silent", f"{where} answers differently than when it was judged: {difference}")
        if None in answers:
            raise Unfit("silent", f"{where} answers its stored example with NaN or nothing; retrain it")

    def _swapped(self, version: str, found: str, expected: str) -> str:
        return (
            f"the files of version {version} of {self._policy.model} have digest {found[:12]} and were judged with "
            f"{expected[:12]}; nothing is loaded from them. Restore them, or roll back and retrain"
        )

    def _prune(self, newest: str) -> None:
        """Keep few copies; what cannot be removed is tried again with the next version."""
        folders = [path for path in self._copies.iterdir() if path.is_dir() and path.name != newest]
        for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT - 1 :]:
            shutil.rmtree(path, ignore_errors=True)


def _example_rows(folder: Path) -> list[dict[str, Any]]:
    """The stored rows: Backstop's own, or what MLflow keeps.

    Raises:
        FileNotFoundError: When there are none.
    """
    own = folder / example.FILE
    if own.is_file():
        stored = json.loads(own.read_text("utf-8"))
        names, data = list(stored["kinds"]), stored["rows"]
    else:
        stored = json.loads((folder / "input_example.json").read_text("utf-8"))
        names, data = stored["columns"], stored["data"]
    rows = [dict(zip(names, values, strict=True)) for values in data]
    if not rows:
        raise FileNotFoundError(f"{folder} keeps an example without rows")
    return rows


def _line(error: BaseException) -> str:
    """What went wrong, in one line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
