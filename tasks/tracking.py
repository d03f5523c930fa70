"""Tracking: what was trained, on what and why, as an MLflow run and a registered version without a stage."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd

from tasks import artifact, example
from tasks import profile as profiles
from tasks.columns import kind_of
from tasks.data import Split
from tasks.estimators import TrainingError
from tasks.policy import Policy
from tasks.records import Candidate, Profile, Verdict, to_plain
from tasks.stores import Stores

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tasks.canvas import Picture
    from tasks.training import Fitted

FOLDER = "model"
"""Of the model among the artifacts of its run."""

PLOTS = "plots"
"""Of the pictures among them."""

_PACKAGES = ("scikit-learn", "skops", "numpy", "scipy", "pandas")
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
_UNFINISHED = ".backstop-"
"""What the names of folders begin with in which a model is written before it is put in its place."""
_FORGOTTEN = 24 * 3600.0
"""Seconds after which nobody writes there any more."""
_SIZE = re.compile(r"^model_size_bytes: \d+$", re.MULTILINE)
"""As it stands in MLflow's layout of a model."""
_LONGEST = 4000
"""Characters of a tag or parameter; some MLflow databases hold no more."""


def save(policy: Policy, fitted: Fitted, split: Split, folder: Path) -> Path:
    """Write the artifact that would be deployed: the model, its signature, its requirements and its example.

    Args:
        policy: Of the model.
        fitted: The model.
        split: Its rows; the newest ones serve as the example.
        folder: Is created.

    Returns:
        The folder.

    Raises:
        TrainingError: When the model cannot be saved as the policy says.
    """
    rows = split.holdout.features.tail(5).reset_index(drop=True)
    shown = rows.set_axis(pd.Index(list(rows.columns), dtype=object), axis=1)  # MLflow compares the names with a range
    described = {
        "path": str(folder),
        "signature": _signature(policy, fitted, rows),
        "input_example": shown,
        "pip_requirements": _requirements(policy),  # left to itself MLflow imports the model elsewhere for 13 s
    }
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as beside:
        # Said once, when MLflow imports its own model types; it is not about ours.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
        if policy.training.serialization == "pickle":
            _pickled(fitted.model, described)
            example.write(folder, fitted.model, rows)
            return folder
        # Writing a large model takes as long as all the rest, the model's answers among it.
        content, found = _dumped(policy, fitted.model)
        file = folder.with_name(f"{folder.name}.skops")
        writing = beside.submit(file.write_bytes, content.view)
        _lay_out(described, found)
        example.write(folder, fitted.model, rows)
        writing.result()
    _put_in(file, folder)
    return folder


def _pickled(model: Any, described: dict[str, Any]) -> None:
    """The folder of the artifact, with the model as a pickle.

    Args:
        model: Fitted.
        described: What MLflow is told.

    Raises:
        TrainingError: When the model cannot be pickled.
    """
    import mlflow.sklearn  # noqa: PLC0415  see save()

    try:
        mlflow.sklearn.save_model(model, serialization_format="cloudpickle", **described)
    except OSError:
        raise
    except Exception as error:
        # The parts of a model may raise anything when they are pickled.
        raise TrainingError(
            f"training.serialization: this {type(model).__name__} cannot be pickled: {type(error).__name__}: {error}; "
            "keep locks, open files, connections and the like out of the fitted model, or leave them out in its "
            "__getstate__"
        ) from error


def _lay_out(described: dict[str, Any], found: list[str]) -> None:
    """The folder of the artifact, around a model of no size, which the model's file takes the place of.

    MLflow, given the model, writes it again and loads it to see whether it can: for a forest of 100 MB that is more
    than half of all that registering it costs, and the gate loads it in a fresh process.

    Args:
        described: What MLflow is told.
        found: Types in the model.
    """
    import mlflow.sklearn  # noqa: PLC0415  see save()
    from sklearn.dummy import DummyRegressor  # noqa: PLC0415  see save()

    mlflow.sklearn.save_model(DummyRegressor(), serialization_format="skops", skops_trusted_types=found, **described)


def _put_in(file: Path, folder: Path) -> None:
    """Give the model's file its place, and the layout the size of what lies there now."""
    place, layout = artifact.model_file(folder), folder / "MLmodel"
    place.unlink()  # a file that takes another one's place waits for the disk on some systems
    file.rename(place)
    # One line of it. To read and write all of it as YAML takes as long as writing a small model.
    text = layout.read_text("utf-8")
    layout.write_text(_SIZE.sub(f"model_size_bytes: {artifact.size(folder)}", text), "utf-8")


class _Content(io.RawIOBase):
    """A file in memory that is written at once, and not copied."""

    def __init__(self) -> None:
        super().__init__()
        self.view, self._place = memoryview(b""), 0

    def write(self, content: Any) -> int:
        self.view = memoryview(content)
        return len(self.view)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        some = self.view[self._place : self._place + len(buffer)]
        buffer[: len(some)] = some
        self._place += len(some)
        return len(some)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self.view)}[whence]
        return self._place


def _dumped(policy: Policy, model: Any) -> tuple[_Content, list[str]]:
    """The file of the model, and the types in it that somebody who loads it has to trust.

    Raises:
        TrainingError: When skops cannot write it, or read it where the gate will not try to, or it holds types that the
            policy does not trust.
    """
    content = _Content()
    file = cast("IO[bytes]", content)
    try:
        artifact.dump(model, file)
        found = artifact.allowed_types(file, policy.training.trusted_types)
        if not policy.gate.fresh_process:
            import skops.io  # noqa: PLC0415  see save()

            skops.io.load(file, trusted=found)  # nobody else would see that it cannot be read again
    except artifact.UntrustedModel as error:
        raise TrainingError(f"training.serialization: {error}") from error
    except OSError:
        raise
    except Exception as error:
        # skops raises whatever it meets in a model that it cannot describe.
        raise TrainingError(
            f"training.serialization: skops cannot save this model and read it again: {type(error).__name__}: {error}; "
            "build it of scikit-learn's own parts, or set `serialization: pickle` if you trust it"
        ) from error
    return content, found


def _signature(policy: Policy, fitted: Fitted, rows: pd.DataFrame) -> Any:
    from mlflow.models import ModelSignature  # noqa: PLC0415  see save()
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415  see save()

    inputs = [ColSpec("double" if kind_of(rows[name]) == "number" else "string", str(name)) for name in rows.columns]
    kinds = {"i": "long", "u": "long", "f": "double", "b": "boolean"}
    classes = getattr(fitted.model, "classes_", None)
    kind = "double" if policy.problem == "regression" or classes is None else kinds.get(classes.dtype.kind, "string")
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec(kind)]))


def _requirements(policy: Policy) -> list[str]:
    names = (*_PACKAGES, "cloudpickle") if policy.training.serialization == "pickle" else _PACKAGES
    found = []
    for name in names:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return found


def log(
    policy: Policy,
    fitted: Fitted,
    split: Split,
    *,
    profile: Profile,
    train: Mapping[str, float],
    verdict: Verdict,
    trail: str,
    stores: Stores,
    flow_run_id: str | None = None,
) -> Candidate:
    """Log one training as an MLflow run, and register its model; no stage is set.

    Args:
        policy: Of the model; its text is kept with the run.
        fitted: The model.
        split: Its rows.
        profile: From :func:`tasks.training.profile_of`; its metrics are those of the holdout.
        train: From :func:`tasks.training.train_metrics`.
        verdict: The triggers', which says why.
        trail: Ties it to what follows.
        stores: Where MLflow is.
        flow_run_id: Prefect's.

    Raises:
        TrainingError: When the model cannot be saved as the policy says, or the artifact store does not take it.
        mlflow.exceptions.MlflowException: When MLflow cannot be reached; the run is then marked as failed.
    """
    from mlflow import MlflowClient  # noqa: PLC0415  see save()

    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    with _scratch(stores) as scratch, ThreadPoolExecutor(1) as beside:
        with _storing(scratch):
            folder = save(policy, fitted, split, Path(scratch) / FOLDER)
        digest, size = beside.submit(artifact.digest, folder), artifact.size(folder)
        run = client.create_run(
            _experiment(client, policy.model, stores),
            tags=_tags(policy, fitted, profile, verdict, trail=trail, flow_run_id=flow_run_id),
        )
        try:
            with _storing(run.info.artifact_uri):
                _describe(client, run.info.run_id, policy, fitted, profile, train, verdict)
                digest.result()  # before the files move
                _put(client, run, folder, stores)
            number = _register(client, policy.model, run, trail)
        except BaseException:
            client.set_terminated(run.info.run_id, "FAILED")
            raise
        client.set_terminated(run.info.run_id)
        return Candidate(
            model=policy.model,
            version=number,
            run_id=run.info.run_id,
            digest=digest.result(),
            size=size,
            profile=profile,
        )


@contextmanager
def _scratch(stores: Stores) -> Iterator[str]:
    """A folder for a while, on the disk where the files will be kept if that is a folder of this machine."""
    with _storing(str(stores.artifacts or tempfile.gettempdir())):
        if stores.artifacts is not None:
            stores.artifacts.mkdir(parents=True, exist_ok=True)
            _clear(stores.artifacts)
        scratch = tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=stores.artifacts)
    with scratch as folder:
        yield folder


def _clear(artifacts: Path) -> None:
    """Remove what runs left behind that were killed while they wrote."""
    for path in artifacts.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):  # another run clears it too
            if time.time() - path.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(path)


def _put(client: MlflowClient, run: Any, folder: Path, stores: Stores) -> None:
    """Put the model's files where the run keeps its own: all of them at once, where they lie on that disk already."""
    place = urlsplit(run.info.artifact_uri)
    if stores.artifacts is not None and place.scheme == "file":
        kept = Path(url2pathname(place.path))
        with suppress(OSError):  # the experiment was made elsewhere
            kept.mkdir(parents=True, exist_ok=True)
            folder.rename(kept / FOLDER)
            return
    client.log_artifacts(run.info.run_id, str(folder), FOLDER)


@contextmanager
def _storing(place: str) -> Iterator[None]:
    """Files of a run are put where they are kept.

    Raises:
        TrainingError: When there is no room, or nobody may write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE and not isinstance(error, shutil.Error):
            raise
        raise TrainingError(
            f"the model was trained, but its files cannot be stored at {place}: {type(error).__name__}: {error}. Make "
            "room there, or let the user write there, and run again; nothing was registered"
        ) from error


def _experiment(client: MlflowClient, model: str, stores: Stores) -> str:
    """The id of the model's experiment, which is made when it is not there."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  see save()

    name = f"backstop/{model}"
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None if stores.artifacts is None else (stores.artifacts / model).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another run may just have made it
            if found is None:
                raise error from None
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _tags(
    policy: Policy, fitted: Fitted, profile: Profile, verdict: Verdict, *, trail: str, flow_run_id: str | None
) -> dict[str, str]:
    """Why, and on what."""
    fired = verdict.having("breach")
    # An image holds no git; it was told its commit when it was built.
    built = os.environ.get("BACKSTOP_REVISION")
    revision = git_revision(Path(policy.origin).parent if policy.origin else Path.cwd()) or built
    tags = {
        "mlflow.runName": f"{policy.model} {profile.trained_at:%Y-%m-%d %H:%M}",
        "mlflow.source.git.commit": revision,
        "mlflow.note.content": verdict.reason,
        "backstop.trail": trail,
        "backstop.flow_run_id": flow_run_id,
        "backstop.triggers": ", ".join(finding.name for finding in fired),
        "backstop.urgency": verdict.urgency,
        "backstop.reason": verdict.reason,
        "backstop.thresholds": json.dumps({finding.name: finding.threshold for finding in verdict.findings}),
        "backstop.git_revision": revision,
        "backstop.fingerprint": profile.fingerprint,
        "backstop.rows": str(profile.rows),
        "backstop.labelled": str(profile.labelled),
        "backstop.trained": f"{profile.trained.start.isoformat()} to {profile.trained.end.isoformat()}",
        "backstop.holdout": f"{profile.holdout.start.isoformat()} to {profile.holdout.end.isoformat()}",
        "backstop.source_version": profile.source_version,
        "backstop.searched": str(fitted.searched).lower(),
        "backstop.window": fitted.window,
    }
    return {name: value[:_LONGEST] for name, value in tags.items() if value}


def _describe(
    client: MlflowClient,
    run_id: str,
    policy: Policy,
    fitted: Fitted,
    profile: Profile,
    train: Mapping[str, float],
    verdict: Verdict,
) -> None:
    """Parameters, metrics of both parts, and the files that explain them."""
    from mlflow.entities import Metric, Param  # noqa: PLC0415  see save()

    training, moment = policy.training, int(time.time() * 1000)
    params = {"estimator": training.estimator or training.trainer, "seed": training.seed, **fitted.params}
    metrics = {f"holdout_{metric.metric}": metric.value for metric in profile.metrics}
    metrics |= {f"train_{name}": value for name, value in train.items()}
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, moment, 0) for name, value in metrics.items()],
        params=[Param(name, str(value)[:_LONGEST]) for name, value in params.items()],
    )
    client.log_text(run_id, policy.text or policy.model_dump_json(indent=1), "policy.yaml")
    client.log_text(run_id, profiles.to_json(profile), "profile.json")
    client.log_text(run_id, json.dumps(to_plain(verdict), indent=1), "triggers.json")


def log_pictures(stores: Stores, run_id: str, pictures: Iterable[Picture]) -> None:
    """Put pictures beside the model, as ``plots/<name>.png`` of its run; those of a later verdict replace them.

    Raises:
        mlflow.exceptions.MlflowException: When MLflow cannot be reached, or does not know the run.
    """
    from mlflow import MlflowClient  # noqa: PLC0415  see save()

    client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
    with tempfile.TemporaryDirectory(prefix="backstop-") as scratch:
        for picture in pictures:
            (Path(scratch) / f"{picture.name}.png").write_bytes(picture.png)
        client.log_artifacts(run_id, scratch, PLOTS)


def _register(client: MlflowClient, model: str, run: Any, trail: str) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  see save()

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    registered = client.create_model_version(
        model, f"{run.info.artifact_uri}/{FOLDER}", run_id=run.info.run_id, tags={"backstop.trail": trail}
    )
    return str(registered.version)


def git_revision(folder: Path) -> str | None:
    """The commit that is checked out around a folder, read from git's own files; None when there is none."""
    for place in (folder.resolve(), *folder.resolve().parents):
        git = place / ".git"
        if git.is_file():  # a worktree or a submodule
            git = place / git.read_text("utf-8").removeprefix("gitdir:").strip()
        if (git / "HEAD").is_file():
            return _commit(git)
    return None


def _commit(git: Path) -> str | None:
    head = (git / "HEAD").read_text("utf-8").strip()
    if not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    shared = git / "commondir"
    home = git / shared.read_text("utf-8").strip() if shared.is_file() else git
    if (home / name).is_file():
        return (home / name).read_text("utf-8").strip()
    packed = home / "packed-refs"
    lines = packed.read_text("utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
