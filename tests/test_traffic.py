"""Mixed traffic with a promotion, a canary's abort, a rollback and two outages in it.

The long form is ``python -m benchmarks.traffic``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.traffic import measure


@pytest.mark.slow
def test_every_request_is_answered_and_in_the_log_once_whatever_happens_meanwhile(
    tmp_path: Path, mlflow_template: Path
) -> None:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    found = measure(tmp_path, seconds=20, clients=3, pause=0.03)
    assert (found["wrong"], found["value"]) == ({}, 0), found
    assert found["rows"] > 300, found
    assert set(found["by_version"]) == {"1", "2", "3"}, found
    assert set(found["requests"]) == {"single", "batch", "split", "records", "inputs"}, found
