"""Dossier: what a verdict rested on, as bytes that last, and back again.

The judge's inputs are records, numbers and the section of the policy that judged. They are written as JSON with a mark
for everything that JSON has no word for, and compressed. The same inputs give the same bytes, so their digest names
them; numbers come back to the last bit. Nothing but the records and sections named here is ever built from it, and
nothing that does not fit their fields.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import types
import typing
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tasks import policy, records

if TYPE_CHECKING:
    import numpy as np

FORMAT = 2
"""Of the bytes; those of a later one cannot be read.

2: whole numbers are kept in as few bytes as they need.
"""

RULES = 6
"""Of the judges: raised whenever one of them says something else about the same evidence than it did before.

What an older one said is then told apart from what was changed. A test holds the judges against verdicts of old.
2: as long as a watch has not settled, its findings have no interval.
3: the trigger ``concept``; a version that is bad together with another one is not rolled back; the gate and the shadow
say which loss they would have found.
4: a column of which the reference holds no value has no type that it could have changed.
5: categories beyond the named ones are expected as often as the reference tells when each row is left out; infinite
values are drift; a reference of few values, or of infinite ones only, tells nothing; the most that an index may be.
Answers and labels that can show nothing are no pass; what is no probability has no metric; the ranks of many rows are
those of their cells. Bounds of amounts reach as far as the few large errors they hang on, and those of one model's
losses are skewed.
6: the accuracy of a candidate that only loses is bounded as Tango does it, too; a first model by recall or precision
alone is to be better than guessing; answers without a class, and probabilities of several classes in another order than
the answers, are no evidence. Many categories in few rows tell nothing, and one that rises alone is drift. A version
that stays although it has to go is told with the reason.
"""

_LIMIT = 2**31
"""Bytes that a dossier may have when it is unpacked; what is larger is no dossier of ours."""

_RECORDS = {
    one.__name__: one
    for one in (
        *(records.Finding, records.Verdict, records.Span, records.Measurement, records.ColumnProfile, records.Profile),
        *(records.Scores, records.Signals, records.GateEvidence, records.ShadowEvidence, records.Look),
        *(records.HealthEvidence, records.RolloutEvidence, records.LearningEvidence, records.LiveShadow),
        *(records.Transition, records.Standing, records.Evaluation, records.Beside),
        *(records.Sureness, records.Domain, records.Segments, records.Steps),
    )
}
_SECTIONS = {
    one.__name__: one
    for one in (
        *(policy.Triggers, policy.DriftTrigger, policy.PerformanceTrigger, policy.PredictionTrigger),
        *(policy.MultivariateTrigger, policy.ConceptTrigger, policy.Labels, policy.Confirm, policy.FalseRetrains),
        policy.SliceCheck,
        *(policy.Gate, policy.PerformanceCheck, policy.RegressionCheck, policy.StabilityCheck, policy.LatencyCheck),
        *(policy.Shadow, policy.Rollout, policy.Router, policy.Kserve, policy.Health, policy.Prometheus, policy.Learn),
    )
}

_LARGE = 1 << 20
"""Characters from which on little is gained by trying hard to compress them, and seconds are lost: scores of rows."""

_MARK = "~"
_KINDS = frozenset("?bhilqBHILQefd")
"""Of the arrays that are kept: truth values, whole numbers and floats, none of them objects."""


class Unreadable(ValueError):
    """These bytes are no dossier."""


class TooNew(Unreadable):
    """A later version of Backstop wrote this dossier."""


@dataclass(frozen=True, slots=True)
class Dossier:
    """What a verdict rested on.

    Attributes:
        judge: Which function judged; see :mod:`tasks.retrial`.
        given: Its inputs, by name.
        rules: Of the judges when it was judged, see :data:`RULES`.
        basis: What can be looked at again to see whether the same inputs would be read, as plain JSON values; see
            :mod:`tasks.freshness`. No judge gets it.
    """

    judge: str
    given: Mapping[str, Any]
    rules: int = RULES
    basis: Mapping[str, Any] | None = None


def pack(dossier: Dossier) -> bytes:
    """As bytes.

    Raises:
        TypeError: For an input that no judge takes.
    """
    plain = {"format": FORMAT, "rules": dossier.rules, "judge": dossier.judge, "given": _encode(dict(dossier.given))}
    if dossier.basis is not None:
        plain["basis"] = dict(dossier.basis)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return zlib.compress(text.encode("ascii"), level=6 if len(text) < _LARGE else 1)


def unpack(body: bytes) -> Dossier:
    """Back again.

    Raises:
        Unreadable: When it is none.
        TooNew: When it is of a later format.
    """
    try:
        plain = _plain(body)
        given = _decode(plain["given"])
        return Dossier(str(plain["judge"]), given, rules=int(plain["rules"]), basis=plain.get("basis"))
    except Unreadable:
        raise
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"the evidence cannot be read: {type(error).__name__}: {error}") from error


def basis(body: bytes) -> Mapping[str, Any] | None:
    """Only the basis of a dossier, and None when it has none or was judged by other rules.

    Nothing is built from the rest, so that this costs no numpy.

    Raises:
        Unreadable: When it is no dossier.
        TooNew: When it is of a later format.
    """
    try:
        plain = _plain(body)
        found = plain.get("basis") if plain["rules"] == RULES else None
    except Unreadable:
        raise
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"the evidence cannot be read: {type(error).__name__}: {error}") from error
    return found if isinstance(found, dict) else None


def _plain(body: bytes) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(_unzip(body))
    if plain["format"] not in range(1, FORMAT + 1):
        raise TooNew(f"the evidence has format {plain['format']}, and this Backstop reads {FORMAT}; update it")
    return plain


def _unzip(body: bytes) -> bytes:
    unzip = zlib.decompressobj()
    text = unzip.decompress(body, _LIMIT)
    if unzip.unconsumed_tail or unzip.unused_data or not unzip.eof:
        raise Unreadable("the evidence is cut off, or larger than what Backstop wrote")
    return text


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {f"{_MARK}float": repr(float(value))}
    if isinstance(value, datetime):
        return {f"{_MARK}moment": value.isoformat()}
    if isinstance(value, timedelta):
        return {f"{_MARK}duration": value // timedelta(microseconds=1)}
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        return _encode_named(value)
    if isinstance(value, Mapping):
        return {f"{_MARK}map": {str(key): _encode(item) for key, item in value.items()}}
    if isinstance(value, tuple):
        return {f"{_MARK}tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if hasattr(value, "dtype"):
        return _encode_array(value)
    raise TypeError(f"{type(value).__name__} cannot be kept as evidence; judges take records, numbers and text")


def _encode_named(value: Any) -> Any:
    name = type(value).__name__
    if _RECORDS.get(name) is type(value):
        fields = {item.name: _encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return {f"{_MARK}record": name, "fields": fields}
    if _SECTIONS.get(name) is type(value):
        return {
            f"{_MARK}section": name,
            "fields": {key: _encode(getattr(value, key)) for key in type(value).model_fields},
        }
    raise TypeError(f"{name} cannot be kept as evidence; it is not among the records and sections that judges take")


def _encode_array(value: Any) -> Any:
    import numpy as np  # noqa: PLC0415  counts and standings need no numpy

    if value.ndim == 0:
        return _encode(value.item())
    array = np.ascontiguousarray(value)
    if array.dtype.char not in _KINDS:
        raise TypeError(f"an array of {array.dtype} cannot be kept as evidence; use numbers")
    if array.dtype == np.float64 and array.ndim == 2 and array.shape[1] == 2:  # noqa: SIM102  reads better in two
        if (1.0 - array[:, 1]).tobytes() == array[:, 0].tobytes():  # of a binary problem half says everything
            return {f"{_MARK}complement": _encode_array(array[:, 1])}
    plain = {f"{_MARK}array": array.dtype.newbyteorder("<").str, "shape": list(array.shape)}
    kept = _narrowed(array)
    if kept.dtype.itemsize != array.dtype.itemsize:
        plain["kept"] = kept.dtype.newbyteorder("<").str
    data = kept.astype(kept.dtype.newbyteorder("<"), copy=False).tobytes()
    return {**plain, "data": base64.b64encode(data).decode("ascii")}


def _narrowed(array: Any) -> Any:
    """Whole numbers of eight bytes in as few bytes as they need: class codes are small."""
    import numpy as np  # noqa: PLC0415  see above

    if array.dtype.kind != "i" or array.dtype.itemsize < 8 or not array.size:
        return array
    ends = np.array([array.min(), array.max()])
    small = next(kind for kind in ("i1", "i2", "i4", "i8") if np.array_equal(ends.astype(kind), ends))
    return array.astype(small)


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next((key for key in value if key.startswith(_MARK)), "")
    if mark not in _DECODERS:
        raise Unreadable(f"the evidence holds {mark or 'something'!r}, which nothing is built from")
    return _DECODERS[mark](value)


def _decode_map(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _decode(item) for key, item in value[f"{_MARK}map"].items()}


def _decode_record(value: dict[str, Any]) -> Any:
    record = _RECORDS[value[f"{_MARK}record"]]
    fields = {key: _decode(item) for key, item in value["fields"].items()}
    for name, item in fields.items():
        hint = _hints(record).get(name, Any)  # a field that is not there is the constructor's to refuse
        if not _fits(item, hint):
            raise Unreadable(f"the evidence has {item!r:.80} as {record.__name__}.{name}, which takes {hint}")
    return record(**fields)


def _decode_section(value: dict[str, Any]) -> Any:
    fields = {key: _decode(item) for key, item in value["fields"].items()}
    return _SECTIONS[value[f"{_MARK}section"]].model_validate(fields)


def _decode_array(value: dict[str, Any]) -> np.ndarray[Any, Any]:
    import numpy as np  # noqa: PLC0415  see above

    kind = np.dtype(value[f"{_MARK}array"])
    kept = np.dtype(value.get("kept", kind))
    if kind.char not in _KINDS or kept.char not in _KINDS or not np.can_cast(kept, kind):
        raise Unreadable(f"the evidence holds an array of {kind} kept as {kept}, which is never done")
    data = np.frombuffer(base64.b64decode(value["data"]), dtype=kept)
    return data.astype(kind.newbyteorder("=")).reshape(value["shape"])


def _decode_complement(value: dict[str, Any]) -> np.ndarray[Any, Any]:
    import numpy as np  # noqa: PLC0415  see above

    second = _decode_array(value[f"{_MARK}complement"])
    return np.column_stack((1.0 - second, second))


_DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    f"{_MARK}float": lambda value: float(value[f"{_MARK}float"]),
    f"{_MARK}moment": lambda value: datetime.fromisoformat(value[f"{_MARK}moment"]),
    f"{_MARK}duration": lambda value: timedelta(microseconds=value[f"{_MARK}duration"]),
    f"{_MARK}tuple": lambda value: tuple(_decode(item) for item in value[f"{_MARK}tuple"]),
    f"{_MARK}map": _decode_map,
    f"{_MARK}record": _decode_record,
    f"{_MARK}section": _decode_section,
    f"{_MARK}array": _decode_array,
    f"{_MARK}complement": _decode_complement,
}


@cache
def _hints(record: type[Any]) -> dict[str, Any]:
    """Types of the fields of a record, which names numpy without importing it."""
    import numpy as np  # noqa: PLC0415  see above

    return typing.get_type_hints(record, localns={"np": np})


def _fits(value: Any, hint: Any) -> bool:
    """Whether a field takes the value; a whole number is a float too, a truth value is no number."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Any:
        return True
    if kind in {typing.Union, types.UnionType}:
        return any(_fits(value, one) for one in inner)
    if kind is typing.Literal:
        return isinstance(value, str) and value in inner
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, kind):
        return False
    if kind is tuple:
        each = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(each) == len(value) and all(map(_fits, value, each))
    if kind is Mapping:
        return all(_fits(item, inner[1]) for item in value.values())
    return True
