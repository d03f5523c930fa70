"""The benchmark of the log's age runs, and finds what is promised."""

from __future__ import annotations

import pytest
from servers import programs

from benchmarks import log_scale


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="PostgreSQL's programs are not installed")
def test_the_quick_form_finds_what_is_promised() -> None:
    lines = log_scale.prove(quick=True)
    assert [line.what for line in lines if line.limit is not None] == [
        "tick, 100 weeks to 2",
        "a week goes, s",
        "a large week goes, s",
    ]
    assert [line.what for line in lines if not line.ok] == []
