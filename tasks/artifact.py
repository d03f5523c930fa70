"""Artifact: the folder of a saved model: its digest, its size, and loading it without running what it brings along.

MLflow is not imported: loading has to be quick where a model is tried out in a fresh process.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import yaml

_BOOKKEEPING = frozenset({"registered_model_meta"})
"""Files that MLflow puts beside a model when it hands it out; they are not part of what was saved."""

_TRUSTED = ("sklearn", "numpy", "scipy")
_UNTRUSTED_PARTS = frozenset({"testing", "_testing", "tests", "f2py", "distutils"})
"""Parts of the trusted packages that run whatever text they are given."""

_HARMLESS = frozenset(
    {
        *("builtins.list", "builtins.tuple", "builtins.dict", "builtins.set", "builtins.frozenset", "builtins.str"),
        *("builtins.int", "builtins.float", "builtins.bool", "builtins.complex", "builtins.bytes", "builtins.slice"),
        *("collections.OrderedDict", "collections.defaultdict", "collections.Counter"),
    }
)
_DESCRIPTION = "schema.json"
_CLASS = b'"__class__": '
_TYPE = re.compile(_CLASS + rb'"([\w.]+)",\s*"__module__": "([\w.]+)"')
_LOADER = re.compile(rb'"__loader__": "(\w+)"')
"""How types stand in a description; inside of a text of the model the quotes would be escaped."""
_PLAIN = frozenset(
    {
        *("ObjectNode", "JsonNode", "TypeNode", "DictNode", "ListNode", "TupleNode", "SetNode", "SliceNode"),
        *("NdArrayNode", "MaskedArrayNode", "DTypeNode", "SparseMatrixNode", "RandomStateNode", "RandomGeneratorNode"),
        *("TreeNode", "LossNode", "CachedNode", "BytesNode"),
    }
)
"""What skops describes by its class alone; functions, methods and calls are another matter."""
_CHUNK = 1 << 20
_File = Path | IO[bytes]


class UntrustedModel(RuntimeError):
    """A model that would bring more with it than the policy allows."""


def files(folder: Path) -> tuple[Path, ...]:
    """The files of an artifact, sorted by name.

    Raises:
        FileNotFoundError: When there are none.
    """
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in _BOOKKEEPING)
    ordered = tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))
    if not ordered:
        raise FileNotFoundError(f"{folder} holds no model; see that the artifact store is reachable and complete")
    return ordered


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of an artifact's files, 64 hex digits.

    Raises:
        FileNotFoundError: When there are none.
    """
    total = hashlib.sha256()
    for path in files(folder):
        name = path.relative_to(folder).as_posix().encode()
        # With the lengths, so that no text can pass from one file into the next.
        total.update(len(name).to_bytes(8, "big") + name + path.stat().st_size.to_bytes(8, "big"))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    return total.hexdigest()


def size(folder: Path) -> int:
    """Bytes of an artifact's files.

    Raises:
        FileNotFoundError: When there are none.
    """
    return sum(path.stat().st_size for path in files(folder))


def dump(model: Any, file: IO[bytes]) -> None:
    """Write a model as :func:`skops.io.dump` does, in half to two thirds of the time, by one call of ``file.write``.

    skops indents the description of the model, and indented JSON is made by Python instead of C: for a forest that
    takes longer than its numbers. What takes a model apart is skops's own; where another version of it keeps that
    elsewhere, it writes the file itself.

    Raises:
        Exception: Whatever skops meets in a model that it cannot describe.
    """
    import skops.io  # noqa: PLC0415  digest and size are asked for without a model

    try:
        from skops.io._utils import SaveContext, get_state  # noqa: PLC0415  see above
    except ImportError:
        skops.io.dump(model, file)
        return
    whole = io.BytesIO()
    with ZipFile(whole, "w") as parts:
        context = SaveContext(zip_file=parts)
        state = get_state(model, context)
        context.clear_memo()
        state |= {"protocol": context.protocol, "_skops_version": skops.__version__}
        parts.writestr(_DESCRIPTION, json.dumps(state))
    file.write(whole.getbuffer())


def load(folder: Path, *, trusted_types: Iterable[str] = (), allow_pickle: bool = False) -> Any:
    """The model of an artifact.

    Nothing of it runs before its types are known to be allowed: those of scikit-learn, numpy and scipy, a few of
    Python's own, and ``trusted_types``.

    Args:
        folder: As MLflow lays it out, with its ``MLmodel``.
        trusted_types: See ``training.trusted_types`` of the policy.
        allow_pickle: Whether a pickled model may be loaded, which runs whatever code it holds.

    Raises:
        UntrustedModel: Names the types or the format that are not allowed, and the remedy.
        ValueError: For a folder that holds no model of scikit-learn's flavour.
    """
    path, serialization, declared = _model_file(folder)
    if serialization == "skops":
        return _load_skops(path, declared, tuple(trusted_types))
    if not allow_pickle:
        raise UntrustedModel(
            f"{path.name} in {folder} is a {serialization}, which runs code when it is loaded; "
            "train it again with `serialization: skops`, or set `serialization: pickle` in the policy if you trust it"
        )
    with path.open("rb") as file:
        # Only where the policy says that these models are trusted.
        return pickle.load(file)  # noqa: S301  see above


def model_file(folder: Path) -> Path:
    """The file of an artifact that holds the model.

    Raises:
        ValueError: For a folder that holds no model of scikit-learn's flavour.
    """
    return _model_file(folder)[0]


def _model_file(folder: Path) -> tuple[Path, str, tuple[str, ...]]:
    """The file that holds the model, how it is serialised, and the types that it says it holds."""
    description = folder / "MLmodel"
    if not description.is_file():
        raise ValueError(f"{folder} has no MLmodel file; it is no model that MLflow saved")
    try:
        flavour = yaml.safe_load(description.read_text("utf-8"))["flavors"]["sklearn"]
        name, serialization = str(flavour["pickled_model"]), str(flavour["serialization_format"])
        declared = tuple(str(one) for one in flavour.get("skops_trusted_types") or ())
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{description} describes no scikit-learn model: {error}; train it with Backstop") from error
    path = folder / name
    if path.parent != folder or not path.is_file() or path.is_symlink():
        raise ValueError(f"{description} names {name!r}, which is no file of the artifact; train the model again")
    return path, serialization, declared


def _load_skops(path: Path, declared: tuple[str, ...], trusted_types: tuple[str, ...]) -> Any:
    """The model. Where the file holds other types than it says, they are looked up.

    Either way skops builds nothing of a type that is not on the list it is given, and only allowed ones are.
    """
    import skops.io  # noqa: PLC0415  digest and size are asked for without a model
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415  see above

    with suppress(UntrustedTypesFoundException):
        return skops.io.load(path, trusted=[name for name in declared if name in trusted_types or is_trusted(name)])
    found = types_in(path)
    check(found, trusted_types)
    return skops.io.load(path, trusted=found)


def allowed_types(file: _File, trusted_types: Iterable[str] = ()) -> list[str]:
    """The types in a skops file that was just written, where all of them are allowed.

    Those that skops trusts by itself may be among them or not. Whoever loads the file does not rely on this.

    Args:
        file: Where it is, or itself.
        trusted_types: See :func:`load`.

    Raises:
        UntrustedModel: Names the types that are not allowed.
    """
    named, trusted = _named(file), frozenset(trusted_types)
    if named is not None and all(name in trusted or is_trusted(name) for name in named):
        return sorted(named)
    found = types_in(file)  # skops trusts some that are not on this list
    check(found, trusted)
    return found


def _named(file: _File) -> frozenset[str] | None:
    """All types in a skops file, as its description calls them; None where not all of it is classes.

    Looking for the names takes a sixth of the time in which skops builds the tree of a large forest.
    """
    with ZipFile(file) as whole:
        text = whole.read(_DESCRIPTION)
    types = _TYPE.findall(text)
    if len(types) != text.count(_CLASS) or not {loader.decode() for loader in set(_LOADER.findall(text))} <= _PLAIN:
        return None
    return frozenset(f"{module.decode()}.{name.decode()}" for name, module in set(types))


def types_in(file: _File) -> list[str]:
    """The types in a skops file beyond those that skops itself trusts.

    skops would read all numbers of the model for that and look at none of them: what types there are stands in the
    file's description. So it is asked about a copy that has the description and nothing else. Who builds the model is
    asked again, by :func:`skops.io.load`, of the whole file.

    Raises:
        zipfile.BadZipFile: For a file that is none.
        KeyError: For one without a description.
    """
    import skops.io  # noqa: PLC0415  digest and size are asked for without a model

    bare = io.BytesIO()
    with ZipFile(file) as whole, ZipFile(bare, "w") as copy:
        for name in dict.fromkeys(whole.namelist()):
            copy.writestr(name, whole.read(name) if name == _DESCRIPTION else b"")
    found: list[str] = skops.io.get_untrusted_types(data=bare.getvalue())
    return found


def check(found: Iterable[str], trusted_types: Iterable[str]) -> None:
    """Refuse types that are neither trusted by themselves nor named in the policy.

    Raises:
        UntrustedModel: Names them and the remedy.
    """
    named = frozenset(trusted_types)
    refused = sorted(name for name in found if name not in named and not is_trusted(name))
    if refused:
        raise UntrustedModel(
            f"the model holds {', '.join(refused)}, which may run any code when it is loaded; "
            "add them to training.trusted_types in the policy if you trust them"
        )


def is_trusted(name: str) -> bool:
    """Whether a type belongs to scikit-learn, numpy, scipy or the harmless ones of Python."""
    parts = name.split(".")
    return name in _HARMLESS or (parts[0] in _TRUSTED and not _UNTRUSTED_PARTS.intersection(parts))
