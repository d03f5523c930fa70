"""The benchmark of the log's age runs; that the watch reads no old partition, test_partitions asks of the plans."""

from __future__ import annotations

import math

import pytest
from servers import programs

from benchmarks import log_scale


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="PostgreSQL's programs are not installed")
def test_the_quick_form_times_what_is_promised_and_lets_go_of_weeks() -> None:
    lines = log_scale.prove(quick=True)  # raises where a week is not gone
    assert [line.what for line in lines if line.limit is not None] == [
        "tick, 100 weeks to 2",
        "a batch written, 100 weeks to 2",
        "a week goes, s",
        "a large week goes, s",
    ]
    assert all(0 < line.value < math.inf for line in lines), lines
