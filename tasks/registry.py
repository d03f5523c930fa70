"""Registry: MLflow's stages and aliases, the projection of the ledger that the rest of the world reads.

This is the only module that changes them. Every change is an intent in the ledger first, is carried out under the
ledger's lock, and is read back before it counts.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from tasks import artifact, patience
from tasks.decide import phrase
from tasks.ledger import Held, Ledger, StaleDecision
from tasks.policy import Policy
from tasks.records import Action, Standing, Transition
from tasks.stores import Stores

CHAMPION = "champion"
CHALLENGER = "challenger"

LINK_TAG = "backstop.ledger"
"""Tag of a version: position and digest of the ledger's newest link when it last moved."""

_TAG_LIMIT = 2_000
"""Of a tag's value; what is longer is cut, the ledger has it whole."""


class RegistryMismatch(RuntimeError):
    """What was read back from MLflow is not what was written: somebody changes stages beside Backstop."""


class SwappedArtifact(RuntimeError):
    """The files of a version are not those that were judged."""


class MissingVersion(LookupError):
    """The version does not exist in MLflow, or no longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What MLflow says of one model.

    Attributes:
        production: Versions in stage Production.
        staging: Versions in stage Staging.
        champion: Version that the alias points to, or None.
        challenger: Version that the alias points to, or None.
        versions: All that exist, the oldest first.
        runs: The run that each was made in, where it was made in one.
    """

    production: tuple[str, ...] = ()
    staging: tuple[str, ...] = ()
    champion: str | None = None
    challenger: str | None = None
    versions: tuple[str, ...] = ()
    runs: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """A door to MLflow's model registry."""

    def __init__(self, stores: Stores) -> None:
        """Open the door; nothing is read or written yet.

        Raises:
            ValueError: When ledger and MLflow are one SQLite file.
        """
        _refuse_one_file(stores)
        self._stores = stores
        self._client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)

    def view(self, model: str) -> View:
        """What MLflow says now; empty for a model that it does not know."""
        try:
            aliases = self._client.get_registered_model(model).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return View()
            raise
        every = {str(found.version): found for found in self._every_version(model)}
        stages = {version: found.current_stage for version, found in every.items()}
        ordered = sorted(stages, key=int)
        return View(
            production=tuple(version for version in ordered if stages[version] == "Production"),
            staging=tuple(version for version in ordered if stages[version] == "Staging"),
            champion=_text(aliases.get(CHAMPION)),
            challenger=_text(aliases.get(CHALLENGER)),
            versions=tuple(ordered),
            runs={version: str(found.run_id) for version, found in every.items() if found.run_id},
        )

    def move(
        self,
        ledger: Ledger,
        standing: Standing,
        *,
        action: Action,
        version: str,
        actor: str,
        reason: str,
        at: datetime,
        trail: str,
        flow_run_id: str | None = None,
        evidence: Mapping[str, Any] | None = None,
        release: bool = False,
    ) -> Transition:
        """Put a transition into the ledger and carry it out.

        Args:
            ledger: Open.
            standing: What the decision was based on.
            action: See :class:`tasks.records.Transition`.
            version: That moves.
            actor: Person or flow.
            reason: One sentence.
            at: When it was decided.
            trail: The id that ties everything together.
            flow_run_id: Prefect's.
            evidence: Records or plain values.
            release: A person says that a quarantined version may come back by this.

        Raises:
            StaleDecision: When somebody else got in first.
            Refused: When the ledger refuses the transition as such.
            MissingVersion: When MLflow does not have the version; nothing was begun.
            MlflowAway: When MLflow does not answer; what was begun by then, the next reconcile takes up.
            RegistryMismatch: When MLflow did not do what it was told; the next reconcile takes it up.
        """
        with patience.little(self._place):
            self._look_up(standing.model, version, action)
        transition = ledger.intend(
            model=standing.model,
            based_on=standing.seq,
            action=action,
            version=version,
            actor=actor,
            reason=reason,
            at=at,
            trail=trail,
            evidence=evidence,
            flow_run_id=flow_run_id,
            release=release,
        )
        return self.carry_out(ledger, transition)

    def see(self, model: str, version: str) -> None:
        """See that a version that a person named is there.

        Raises:
            MissingVersion: When it is not; names those that are.
        """
        there = sorted((str(one.version) for one in self._every_version(model)), key=lambda one: (len(one), one))
        if version not in there:
            has = f"has version {phrase.listing(there[::-1])}" if there else "has none"
            raise MissingVersion(f"there is no version {version} of {model}; MLflow at {self._place} {has}")

    def carry_out(self, ledger: Ledger, transition: Transition) -> Transition:
        """Do in MLflow what the intent says, under the ledger's lock; doing it twice is doing it once.

        Raises:
            StaleDecision: When the intent was abandoned meanwhile.
            RegistryMismatch: When MLflow did not do what it was told; the intent stays, and reconcile takes it up.
            MlflowAway: When MLflow does not answer; the intent stays likewise.
        """
        with self.holding(ledger, transition.model) as held:
            return self.apply(held, transition)

    @contextmanager
    def holding(self, ledger: Ledger, model: str) -> Iterator[Held]:
        """The model's lock, as :meth:`tasks.ledger.Ledger.holding`, for as long as MLflow answers.

        Raises:
            MlflowAway: When MLflow does not answer within the block; what was written to the ledger there is undone.
        """
        with ledger.holding(model) as held, patience.little(self._place):
            yield held

    def apply(self, held: Held, transition: Transition) -> Transition:
        """As :meth:`carry_out`, by whoever holds the lock already."""
        stored = held.get(transition.seq)
        if stored is not None and stored.state == "applied":
            return stored
        if stored is None or stored.state == "abandoned":
            raise StaleDecision(
                f"{transition.action} of version {transition.version} of {transition.model} (transition "
                f"{transition.seq}) was given up meanwhile; read the standing again and decide anew"
            )
        {"stage": self._stage, "promote": self._serve, "rollback": self._serve, "reject": self._archive}[stored.action](
            stored
        )
        # The ledger's newest digest outside of the ledger: whoever writes its chain anew is found out by it.
        self.tag(stored.model, stored.version, LINK_TAG, held.link())
        self._read_back(stored)
        return held.settle(stored, "applied")

    def serve(self, model: str, version: str) -> None:
        """Make it the one version in Production, whatever was there. Only under the ledger's lock."""
        with _stages_are_deprecated():
            self._client.transition_model_version_stage(model, version, "Production", archive_existing_versions=True)
        self._client.set_registered_model_alias(model, CHAMPION, version)
        self._drop_challenger(model, version)

    def wait(self, model: str, version: str) -> None:
        """Make it the one version in Staging, whatever was there. Only under the ledger's lock."""
        with _stages_are_deprecated():
            self._client.transition_model_version_stage(model, version, "Staging", archive_existing_versions=True)
        self._client.set_registered_model_alias(model, CHALLENGER, version)

    def links(self, model: str) -> dict[str, tuple[int, str]]:
        """Position and digest of the ledger's link that each version was tagged with, by version."""
        found = {str(one.version): one.tags.get(LINK_TAG, "").split() for one in self._every_version(model)}
        return {version: (int(parts[0]), parts[1]) for version, parts in found.items() if len(parts) == 2}

    def tag(self, model: str, version: str, key: str, value: str) -> None:
        """Set a tag on a version.

        Raises:
            MissingVersion: When MLflow does not have it.
        """
        try:
            self._client.set_model_version_tag(model, version, key, value[:_TAG_LIMIT])
        except MlflowException as error:
            raise self._missing(model, version, error) from error

    def download(self, model: str, version: str) -> Path:
        """The folder with the version's files: the artifact itself where it is local, otherwise a fresh copy.

        Raises:
            MissingVersion: When MLflow does not have the version or its files.
        """
        location = self._location(model, version)
        folder = _local(location) or self._copied(location, model, version)
        if not folder.is_dir():
            raise MissingVersion(
                f"the files of version {version} of {model} are not at {folder}; restore or retrain it"
            )
        return folder

    def fetch(self, ledger: Ledger, model: str, version: str, *, fresh: bool = False) -> Path:
        """The folder with the version's files, as they were when they were judged.

        A version that the ledger does not describe (it was promoted outside, and no reconcile has seen it) has no
        digest to hold against; its files are returned as they are. A copy that is there and right is not fetched again.

        Args:
            ledger: Open.
            model: Registered name.
            version: Whose files.
            fresh: Look at what the store has now, and not at a copy: what goes to Production, others load from there.

        Raises:
            SwappedArtifact: When they have changed since.
            MissingVersion: When MLflow does not have the version or its files.
        """
        expected = ledger.digest(model, version)
        copy = self._copies(model) / version
        if not fresh and expected is not None and copy.is_dir() and artifact.digest(copy) == expected:
            return copy
        folder = self.download(model, version)
        found = artifact.digest(folder)
        if expected is not None and found != expected:
            raise SwappedArtifact(
                f"the files of version {version} of {model} at {folder} have digest {found[:12]} and were judged with "
                f"{expected[:12]}; nothing is loaded from them. Restore them, or roll back and retrain"
            )
        return folder

    def load(self, ledger: Ledger, policy: Policy, version: str) -> Any:
        """The version's model, from files that have not changed and hold nothing that the policy does not trust.

        Raises:
            SwappedArtifact: When its files have changed since it was judged.
            MissingVersion: When MLflow does not have the version or its files.
        """
        folder = self.fetch(ledger, policy.model, version)
        training = policy.training
        return artifact.load(
            folder, trusted_types=training.trusted_types, allow_pickle=training.serialization == "pickle"
        )

    @property
    def _place(self) -> str:
        """Where MLflow is, without a password."""
        return make_url(self._stores.tracking).render_as_string(hide_password=True)

    def _every_version(self, model: str) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name='{model}'", page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _stage(self, transition: Transition) -> None:
        self.wait(transition.model, transition.version)
        for verdict in transition.evidence.get("verdicts", ()):
            self.tag(transition.model, transition.version, f"backstop.{verdict['judge']}", verdict["decision"])
        self._explain(transition)

    def _serve(self, transition: Transition) -> None:
        self.serve(transition.model, transition.version)
        bad = transition.previous
        if transition.action == "rollback" and bad is not None and bad in self.view(transition.model).versions:
            self.tag(transition.model, bad, "backstop.quarantined", transition.reason)
            self.tag(transition.model, bad, "backstop.trail", transition.trail)
        self._explain(transition)

    def _archive(self, transition: Transition) -> None:
        with _stages_are_deprecated():
            self._client.transition_model_version_stage(transition.model, transition.version, "Archived")
        self._drop_challenger(transition.model, transition.version)
        self.tag(transition.model, transition.version, "backstop.rejected", transition.reason)
        self._explain(transition)

    def _explain(self, transition: Transition) -> None:
        for key in ("trail", "actor", "reason"):
            self.tag(transition.model, transition.version, f"backstop.{key}", str(getattr(transition, key)))
        self.tag(transition.model, transition.version, "backstop.transition", f"{transition.seq} {transition.action}")

    def _drop_challenger(self, model: str, version: str) -> None:
        if _text(self._client.get_registered_model(model).aliases.get(CHALLENGER)) == version:
            self._client.delete_registered_model_alias(model, CHALLENGER)

    def _read_back(self, transition: Transition) -> None:
        """See that MLflow says what the transition says.

        Raises:
            RegistryMismatch: When it does not.
        """
        view = self.view(transition.model)
        version = transition.version
        if transition.action in {"promote", "rollback"}:
            right = view.production == (version,) and view.champion == version and view.challenger != version
        elif transition.action == "stage":
            right = view.staging == (version,) and view.challenger == version and version not in view.production
        else:
            right = version not in (*view.production, *view.staging) and view.challenger != version
        if not right:
            raise RegistryMismatch(
                f"after {transition.action} of version {version} of {transition.model} MLflow at {self._place} says "
                f"Production {view.production}, Staging {view.staging}, champion {view.champion}, challenger "
                f"{view.challenger}; somebody changes stages beside Backstop. Run the flow again: it reconciles first"
            )

    def _look_up(self, model: str, version: str, action: Action) -> None:
        """See that MLflow has a version; one question, however many others there are.

        Raises:
            MissingVersion: When it does not.
        """
        try:
            self._client.get_model_version(model, version)
        except MlflowException as error:
            if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                raise
            raise MissingVersion(
                f"MLflow at {self._place} has no version {version} of {model}, so it cannot {action} it; look at the "
                "versions that are there"
            ) from error

    def _location(self, model: str, version: str) -> str:
        """Where the version's files are, as a path or a URI."""
        try:
            uri = str(self._client.get_model_version_download_uri(model, version))
            # MLflow's own resolution of models:/m-... asks the process-wide tracking server, whichever that is.
            logged = uri.removeprefix("models:/")
            if logged != uri and logged.startswith("m-"):
                return str(self._client.get_logged_model(logged).artifact_location)
        except MlflowException as error:
            raise self._missing(model, version, error) from error
        return uri

    def _copies(self, model: str) -> Path:
        return self._stores.home / "downloads" / model

    def _copied(self, location: str, model: str, version: str) -> Path:
        """A fresh copy of files that are elsewhere, in the place of the copy before it."""
        keep = self._copies(model)
        keep.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{version}-", dir=keep) as scratch:
            fresh = Path(scratch) / "fresh"
            fresh.mkdir()
            try:
                folder = Path(
                    download_artifacts(artifact_uri=location, dst_path=str(fresh), tracking_uri=self._stores.tracking)
                )
            except MlflowException as error:
                raise MissingVersion(f"the files of version {version} of {model} cannot be had: {error}") from error
            target = keep / version
            if target.exists():
                target.rename(Path(scratch) / "old")
            folder.rename(target)
        return target

    def _missing(self, model: str, version: str, error: MlflowException) -> Exception:
        """What MLflow's error means here."""
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return MissingVersion(f"MLflow at {self._place} has no version {version} of {model}: {error}")
        same: Exception = error
        return same


def _refuse_one_file(stores: Stores) -> None:
    """The ledger's lock is SQLite's lock of the whole file: MLflow could never write into the same one."""
    ledger, tracking = make_url(stores.ledger), urlparse(stores.tracking)
    if ledger.get_backend_name() != "sqlite" or tracking.scheme != "sqlite":
        return
    if Path(str(ledger.database)).resolve() == Path(str(make_url(stores.tracking).database)).resolve():
        raise ValueError(
            f"ledger and MLflow are both in {ledger.database}; while a version moves the ledger locks its file, and "
            "MLflow would wait for ever. Set BACKSTOP_LEDGER to a file of its own"
        )


def _local(uri: str) -> Path | None:
    """The folder of a file URI or a plain path; None for everything that has to be downloaded."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(uri) if not parsed.scheme else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@contextmanager
def _stages_are_deprecated() -> Iterator[None]:
    """Stages are deprecated since MLflow 2.9 and work in the version that is pinned; here is where they are used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*transition_model_version_stage", category=FutureWarning)
        yield
