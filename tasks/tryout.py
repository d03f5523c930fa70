"""Tryout: whether a saved model loads and answers its stored example in a Python process of its own.

Nothing that costs seconds is imported here. The process makes itself ready while its starter still looks for the model:
where a version in Production fails, each second until the one before it serves again is a second of wrong answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.policy import Policy

Answer = tuple[bool | None, str]
"""Whether it answers, None where that could not be tried; and one sentence."""

_PATIENCE = 120.0


class Tryout:
    """A process that waits for the folder of one artifact."""

    def __init__(self, policy: Policy) -> None:
        """Start it.

        Args:
            policy: Says which types and formats may be loaded.
        """
        self._trouble = ""
        self._process: subprocess.Popen[str] | None = None
        options = {
            "trusted_types": policy.training.trusted_types,
            "allow_pickle": policy.training.serialization == "pickle",
        }
        # The user's own modules are found where this process finds them.
        path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.fresh", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            self._trouble = f"no fresh process could be started: {error}"

    def of(self, folder: Path, *, timeout: float = _PATIENCE) -> Answer:
        """Whether the artifact loads and answers there; asked once.

        Args:
            folder: Of the artifact.
            timeout: Seconds until it counts as not answering.
        """
        if self._process is None:
            return None, self._trouble
        try:
            output, errors = self._process.communicate(f"{folder.resolve()}\n", timeout)
        except subprocess.TimeoutExpired:
            return False, f"it did not answer within {timeout:g} s in a fresh process"
        if self._process.returncode:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            return False, f"the fresh process died with exit code {self._process.returncode}: {last}"
        return _reported(output)

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(ValueError):  # its pipes were read to the end before
            self._process.communicate()


@contextmanager
def begun(policy: Policy) -> Iterator[Tryout]:
    """A process that makes itself ready meanwhile, and is gone afterwards.

    Args:
        policy: As for :class:`Tryout`.
    """
    tryout = Tryout(policy)
    try:
        yield tryout
    finally:
        tryout.close()


def answers_in_fresh_process(folder: Path, policy: Policy, *, timeout: float = _PATIENCE) -> Answer:
    """Whether an artifact loads and answers its stored example in a new Python process.

    Args:
        folder: Of the artifact.
        policy: Says which types and formats may be loaded.
        timeout: Seconds until it counts as not answering.
    """
    with begun(policy) as tryout:
        return tryout.of(folder, timeout=timeout)


def _reported(output: str) -> Answer:
    try:
        said = json.loads(output.strip().splitlines()[-1])
        return said["answers"], str(said["reason"])
    except (IndexError, ValueError, KeyError, TypeError):
        return False, f"the fresh process ended without an answer; it wrote {output[-200:]!r}"
