"""Copies: the files of versions as they were judged, in folders of the gateway's own.

The files are copied first, and what was verified is the copy that is loaded: nobody can swap one between the two.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from tasks import artifact
from tasks.ledger import Ledger
from tasks.stores import Stores

_KEPT = 4
"""Copies of versions that stay on disk: what serves, what served before, what answers unseen, what is on its way."""


class Unfit(RuntimeError):
    """A version that must not answer.

    Attributes:
        kind: ``missing``, ``unverified``, ``swapped``, ``untrusted``, ``contract``, ``silent`` or ``away``.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Copies:
    """Of the versions of one model. Everything takes place in the thread of whoever asks."""

    def __init__(self, model: str, stores: Stores) -> None:
        self._name, self._stores = model, stores
        self._copies = stores.home / "serving" / model

    def verified(self, ledger: Ledger, version: str) -> tuple[Path, str]:
        """A private copy of the files that were judged, and their digest.

        One that is there and right is used without asking MLflow.

        Raises:
            Unfit: When there is none, or the files are others; says why and what to do.
            sqlalchemy.exc.SQLAlchemyError: When the ledger does not answer.
        """
        expected = ledger.digest(self._name, version)
        if expected is None:
            raise Unfit(
                "unverified",
                f"the ledger has no digest of version {version} of {self._name}, so its files cannot be verified; the "
                "next tick of the watch puts it down, if the version is in Production",
            )
        copy = self._copies / version
        with suppress(OSError):
            if artifact.digest(copy) == expected:
                return copy, expected
        try:
            return self._copied(self._fetched(ledger, version), version, expected), expected
        except OSError as error:
            raise Unfit("away", f"version {version} of {self._name} cannot be copied: {line(error)}") from error

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
                return Registry(self._stores).fetch(ledger, self._name, version)
        except SwappedArtifact as error:
            raise Unfit("swapped", str(error)) from error
        except MissingVersion as error:
            raise Unfit("missing", str(error)) from error
        except FileNotFoundError as error:
            raise Unfit("missing", f"version {version} of {self._name}: {error}") from error
        except (MlflowException, SQLAlchemyError, OSError, patience.MlflowAway) as error:
            raise Unfit("away", f"version {version} of {self._name} cannot be fetched: {line(error)}") from error

    def _swapped(self, version: str, found: str, expected: str) -> str:
        return (
            f"the files of version {version} of {self._name} have digest {found[:12]} and were judged with "
            f"{expected[:12]}; nothing is loaded from them. Restore them, or roll back and retrain"
        )

    def prune(self, newest: str) -> None:
        """Keep few copies; what cannot be removed is tried again with the next version."""
        folders = [path for path in self._copies.iterdir() if path.is_dir() and path.name != newest]
        for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT - 1 :]:
            shutil.rmtree(path, ignore_errors=True)


def line(error: BaseException) -> str:
    """What went wrong, in one line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
