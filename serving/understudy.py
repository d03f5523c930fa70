"""Understudy: the process in which a candidate answers unseen. ``python -m serving.understudy``, with pipes.

It is started by :mod:`serving.shadow` and speaks with it in JSON: a pickle would let a candidate run code in the
gateway. Whatever happens in here, nobody waits for it: it gets what the processor has left, so much memory and no more,
and ends with the gateway.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from serving.wire import read, write

if TYPE_CHECKING:
    from serving.loaded import Loaded

OUT_OF_MEMORY = 77
"""Exit status: what it held is gone with the process, and the next one begins with nothing."""
_DEATH = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def main() -> int:
    """Load what comes first, then answer what comes, until nothing does."""
    inwards, outwards = sys.stdin.buffer, _private_output()
    order = read(inwards)
    if order is None:
        return 0
    _humble(int(order["memory"]))
    from serving.copies import Unfit  # noqa: PLC0415  under the limits, as everything that the candidate brings
    from serving.loaded import Package, opened  # noqa: PLC0415  the same

    try:
        loaded = opened(Package(**order["package"] | {"trusted_types": tuple(order["package"]["trusted_types"])}))
    except Unfit as error:
        write(outwards, {"unfit": error.kind, "message": str(error)})
        return 0
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    # Linux: from now on it runs when nobody else wants to. On a busy machine it would never have loaded that way.
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    write(outwards, {"ready": loaded.version})
    while (rows := read(inwards)) is not None:
        try:
            write(outwards, answered(loaded, rows))
        except MemoryError:
            # At once: to give back one by one what it holds could take minutes at the end of the queue.
            os._exit(OUT_OF_MEMORY)
    return 0


def answered(loaded: Loaded, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """(prediction, score, seconds, why not) of every row; the prediction is None where it failed.

    A row that the version would refuse, were it the one in Production, is a failure: Production has answered it.

    Raises:
        MemoryError: When there is no room for an answer.
    """
    refused = [_refusal(loaded, row) for row in rows]
    taken = [row for row, why in zip(rows, refused, strict=True) if not why]
    said = iter(_said(loaded, taken))
    return [[None, None, 0.0, why] if why else next(said) for why in refused]


def _refusal(loaded: Loaded, row: Mapping[str, Any]) -> str:
    from serving.inputs import BadInput, Question  # noqa: PLC0415  see main()

    try:
        loaded.contract.check([Question("", "", row, "features")])
    except BadInput as error:
        return f"it refuses the row: {str(error)[:300]}"
    return ""


def _said(loaded: Loaded, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Where it fails on rows together, on ever fewer: one bad row is one failure."""
    if not rows:
        return []
    start = time.perf_counter()
    try:
        answers = loaded.answers(rows)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  whatever the model raises
        if len(rows) == 1:
            return [[None, None, time.perf_counter() - start, f"{type(error).__name__}: {str(error)[:300]}"]]
        half = len(rows) // 2
        return _said(loaded, rows[:half]) + _said(loaded, rows[half:])
    share = (time.perf_counter() - start) / len(rows)
    return [
        [None, None, share, "its answer is NaN or nothing"] if one is None else [one.prediction, one.score, share, ""]
        for one in answers
    ]


def _private_output() -> BinaryIO:
    """The pipe to the gateway; what a model prints goes where errors go, and not between the answers."""
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def _humble(memory: int) -> None:
    """Take what others leave, hold no more than this, leave no core, and end with the gateway.

    Args:
        memory: Bytes.
    """
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
