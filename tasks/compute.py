"""Compute: where the heavy steps of a retraining run; here, in several processes, or on a Dask cluster, through joblib.

Inside :func:`on` everything that goes through joblib goes there: the fits of a search, estimators that fit in
parallel, and the pieces into which scoring and counting divide many rows. Nothing that is decided depends on it: counts
are whole numbers that add up exactly, and each row's answer is that of the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.policy import Compute, Policy

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

_PIECE: ContextVar[int | None] = ContextVar("rows of a piece", default=None)
_PATIENCE = 10.0
"""Seconds to wait for a scheduler, and for its first worker."""
_ALIKE = ["numpy", "scipy", "pandas", "scikit-learn", "joblib"]


class ComputeError(RuntimeError):
    """The cluster cannot be used; its text says why, and what to do."""


@contextmanager
def on(policy: Policy) -> Iterator[None]:
    """Heavy steps run where the policy says, until this is left.

    Raises:
        ComputeError: When the scheduler does not answer, has no worker, or runs other versions than here.
    """
    if policy.compute is None:
        yield
        return
    from joblib import parallel_config  # noqa: PLC0415  most policies do without

    token = _PIECE.set(policy.compute.piece)
    try:
        if policy.compute.dask is None:
            with parallel_config(backend="loky", n_jobs=policy.compute.processes):
                yield
        else:
            with _connected(policy.compute) as client, parallel_config(backend="dask", n_jobs=-1, client=client):
                yield
    finally:
        _PIECE.reset(token)


@contextmanager
def _connected(compute: Compute) -> Iterator[Client]:
    try:
        from distributed import Client  # noqa: PLC0415  an optional part
    except ImportError as error:
        raise ComputeError(
            f"compute.dask is {compute.dask}, but the package distributed is not installed here; install backstop[dask]"
        ) from error
    address = str(compute.dask)
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise ComputeError(
            f"compute.dask: no scheduler answers at {address}: {error}. Start one there (dask scheduler), or turn "
            "`compute` off to run here"
        ) from error
    try:
        _checked(client, address)
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _checked(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        raise ComputeError(
            f"compute.dask: the scheduler at {address} has no worker; start some (dask worker)"
        ) from error
    here = versions()
    told: dict[str, dict[str, str]] = client.run(versions)
    other = {
        f"{name} {found} at {worker}, {here[name]} here"
        for worker, packages in told.items()
        for name, found in packages.items()
        if found != here[name]
    }
    if other:
        raise ComputeError(
            f"compute.dask: workers of {address} do not run what is installed here, so a model could answer otherwise "
            f"there: {'; '.join(sorted(other))}. Start them from the same lock file"
        )


def versions() -> dict[str, str]:
    """Of the packages that decide what a model answers, in this process."""
    return {name: version(name) for name in _ALIKE}


def pieces(rows: int) -> tuple[slice, ...]:
    """The stretches of so many rows that are worked on apart; a single one where nothing is divided."""
    piece = _PIECE.get()
    if piece is None or rows <= piece:
        return (slice(0, rows),)
    return tuple(slice(start, min(start + piece, rows)) for start in range(0, rows, piece))


def each(job: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
    """What the job returns for each of the arguments, in their order."""
    if _PIECE.get() is None or len(arguments) < 2:
        return [job(*one) for one in arguments]
    from joblib import Parallel, delayed  # noqa: PLC0415  see on()

    try:
        return list(Parallel()(delayed(job)(*one) for one in arguments))
    except PicklingError as error:
        raise ComputeError(
            f"compute: {error} A model or a column that cannot be sent to other processes needs `compute: off`"
        ) from error
