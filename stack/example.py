"""The example's customers: generated, of the last weeks, so that the example policy has something to train on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

PER_DAY = 60
DAYS = 75
"""As far back as policies/churn.yaml looks."""


def write(path: Path, now: datetime | None = None) -> bool:
    """Write the customers of the weeks before now, unless the file is there; whether it was written."""
    if path.exists():
        return False
    from rehearsal.churn import customers  # noqa: PLC0415  pandas, for the first `make up` only

    moment = now or datetime.now(UTC)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = customers(PER_DAY * DAYS, start=moment - timedelta(days=DAYS), days=DAYS, seed=1)
    fresh = path.with_suffix(".new")
    rows.to_csv(fresh, index=False)
    fresh.replace(path)
    return True
