"""Artifacts: what was judged is what is loaded, and nothing in it runs before it is known to be allowed."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import skops.io
import yaml
from samples import Guess
from scipy.sparse import csr_matrix
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tasks import artifact


class Hostile:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def folder_of(tmp_path: Path, content: bytes, *, name: str = "model.skops", serialization: str = "skops") -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    flavour = {"pickled_model": name, "serialization_format": serialization}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": flavour}}))
    (folder / "model.skops").write_bytes(content)
    return folder


def written(model: Any, path: Path) -> None:
    with path.open("wb") as file:
        artifact.dump(model, file)


@pytest.fixture
def fitted() -> LogisticRegression:
    return LogisticRegression().fit(np.arange(10.0).reshape(-1, 1), np.arange(10) > 4)


def test_a_model_of_scikit_learn_is_loaded_without_being_asked(tmp_path: Path, fitted: LogisticRegression) -> None:
    loaded = artifact.load(folder_of(tmp_path, skops.io.dumps(fitted)))
    assert loaded.predict([[0.0], [9.0]]).tolist() == [False, True]


def test_a_type_of_somebody_elses_is_refused_by_name_until_the_policy_trusts_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, skops.io.dumps(Guess("no")))
    with pytest.raises(artifact.UntrustedModel, match=r"samples\.Guess.*training\.trusted_types"):
        artifact.load(folder)
    assert artifact.load(folder, trusted_types=("samples.Guess",)).answer == "no"


MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(5).fit(np.arange(40.0).reshape(-1, 2), np.arange(20) > 9),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=3).fit(
        np.arange(80.0).reshape(-1, 2), np.arange(40) > 9
    ),
    "texts": lambda: make_pipeline(CountVectorizer(), LogisticRegression()).fit(
        ["red blue", "blue green"] * 9, [0, 1] * 9
    ),
    "somebody else's": lambda: [Guess("no"), {"sparse": csr_matrix(np.eye(3)), "draw": np.random.default_rng(0)}],
    "builtins": lambda: {"part": slice(1, 2), "content": bytearray(b"abc")},
    "bytes": lambda: {"bytes": b"abc", "array": bytearray(b"abc"), "when": datetime(2026, 1, 1, tzinfo=UTC)},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_types_of_a_file_are_those_that_skops_finds_in_all_of_it(name: str, tmp_path: Path) -> None:
    skops.io.dump(MODELS[name](), tmp_path / "model")
    assert artifact.types_in(tmp_path / "model") == skops.io.get_untrusted_types(file=tmp_path / "model")


def description(content: bytes) -> Any:
    """What a file says of its model; names of files are places in memory, and another one each time."""
    with ZipFile(io.BytesIO(content)) as whole:
        return json.loads(re.sub(r"\d{9,}|[-\da-f]{36}", "0", whole.read("schema.json").decode()))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_says_and_holds_what_one_of_skops_own_does(name: str) -> None:
    model, ours = MODELS[name](), io.BytesIO()
    artifact.dump(model, ours)
    theirs = skops.io.dumps(model)
    assert description(ours.getvalue()) == description(theirs)
    with ZipFile(ours) as one, ZipFile(io.BytesIO(theirs)) as other:
        held = [
            sorted(parts.read(part) for part in parts.namelist() if part != "schema.json") for parts in (one, other)
        ]
        assert held[0] == held[1]
        assert len(one.read("schema.json")) < len(other.read("schema.json"))  # the reason for it


def test_without_the_parts_of_skops_that_it_uses_skops_writes_the_file(
    fitted: LogisticRegression, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    monkeypatch.setitem(sys.modules, "skops.io._utils", None)
    artifact.dump(fitted, content)
    monkeypatch.undo()
    assert skops.io.loads(content.getvalue()).predict([[0.0], [9.0]]).tolist() == [False, True]


@pytest.mark.parametrize("write", [skops.io.dump, written])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_allowed_is_all_that_skops_has_to_be_told(
    name: str, write: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    """The quick look at the names and the thorough one come to the same."""
    path = tmp_path / "model"
    write(MODELS[name](), path)
    needed = artifact.types_in(path)
    refused = [one for one in needed if not artifact.is_trusted(one)]
    if refused:
        with pytest.raises(artifact.UntrustedModel, match=refused[0]):
            artifact.allowed_types(path)
    allowed = artifact.allowed_types(path, refused)
    assert set(needed) <= set(allowed)
    assert all(artifact.is_trusted(one) or one in refused for one in allowed)
    skops.io.load(path, trusted=allowed)


def test_functions_are_looked_at_by_skops_itself(tmp_path: Path) -> None:
    path = tmp_path / "model"
    skops.io.dump(FunctionTransformer(np.log1p), path)
    assert artifact._named(path) is None
    assert artifact.allowed_types(path) == artifact.types_in(path)
    skops.io.dump(FunctionTransformer(os.system), path)
    with pytest.raises(artifact.UntrustedModel, match="system"):
        artifact.allowed_types(path)
    skops.io.dump({"a text": '"__class__": "system", "__module__": "os"', "__class__": "a key"}, path)
    assert not artifact.types_in(path)
    assert artifact.allowed_types(path) == []


def test_a_hostile_pickle_is_refused_before_it_can_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps(Hostile(trace))
    for name, serialization in (("a", "cloudpickle"), ("b", "pickle"), ("c", "something new")):
        (tmp_path / name).mkdir()
        folder = folder_of(tmp_path / name, content, serialization=serialization)
        with pytest.raises(artifact.UntrustedModel, match="runs code when it is loaded"):
            artifact.load(folder)
    assert not trace.exists()
    artifact.load(folder, allow_pickle=True)
    assert trace.exists()  # the pickle was a working one


def test_a_pickle_that_calls_itself_skops_does_not_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, pickle.dumps(Hostile(tmp_path / "trace")))
    with pytest.raises(Exception, match="zip"):
        artifact.load(folder)
    assert not (tmp_path / "trace").exists()


def test_a_function_that_runs_commands_is_no_harmless_type(tmp_path: Path) -> None:
    refused = (
        "posix.system",
        "builtins.eval",
        "subprocess.Popen",
        "numpy.testing._private.utils.runstring",
        "sklearnx.A",
    )
    for name in refused:
        assert not artifact.is_trusted(name), name
        with pytest.raises(artifact.UntrustedModel, match=name.replace(".", r"\.")):
            artifact.check([name, "numpy.dtype"], ())
    for name in ("sklearn.tree._tree.Tree", "numpy.dtype", "scipy.sparse._csr.csr_matrix", "collections.OrderedDict"):
        assert artifact.is_trusted(name), name


@pytest.mark.parametrize("name", ["../model.skops", "/etc/hostname", "missing.skops"])
def test_a_model_file_outside_the_artifact_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.skops").write_bytes(skops.io.dumps(Guess()))
    with pytest.raises(ValueError, match="no file of the artifact"):
        artifact.load(folder_of(tmp_path, b"", name=name), trusted_types=("samples.Guess",))


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no MLmodel"):
        artifact.load(tmp_path)
    (tmp_path / "MLmodel").write_text(json.dumps({"flavors": {"pytorch": {}}}))
    with pytest.raises(ValueError, match="no scikit-learn model"):
        artifact.load(tmp_path)


def test_the_digest_shows_a_swap_of_anything(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"one")
    (folder / "deep" / "b").write_bytes(b"two")
    known = artifact.digest(folder)
    assert artifact.size(folder) == 6
    (folder / "a").write_bytes(b"onE")
    swapped = artifact.digest(folder)
    (folder / "a").write_bytes(b"one")
    assert artifact.digest(folder) == known
    (folder / "c").write_bytes(b"")
    added = artifact.digest(folder)
    (folder / "c").unlink()
    (folder / "deep" / "b").rename(folder / "deep" / "x")
    renamed = artifact.digest(folder)
    assert len({known, swapped, added, renamed}) == 4


def test_text_that_moves_from_one_file_to_the_next_changes_the_digest(tmp_path: Path) -> None:
    for name, first, second in (("one", b"ab", b"c"), ("two", b"a", b"bc")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(first)
        (tmp_path / name / "y").write_bytes(second)
    assert artifact.digest(tmp_path / "one") != artifact.digest(tmp_path / "two")


def test_what_mlflow_adds_when_it_hands_out_a_model_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    known = artifact.digest(tmp_path), artifact.size(tmp_path)
    (tmp_path / "registered_model_meta").write_text("model_name: m")
    assert (artifact.digest(tmp_path), artifact.size(tmp_path)) == known


def test_an_empty_folder_has_no_digest_and_no_size(tmp_path: Path) -> None:
    for ask in (artifact.digest, artifact.size):
        with pytest.raises(FileNotFoundError, match="no model"):
            ask(tmp_path)
