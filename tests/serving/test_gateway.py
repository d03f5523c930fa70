"""The gateway answers for what the ledger has in Production, in the form in which it was asked."""

from __future__ import annotations

import pytest
from shops import GOOD, Server


def test_one_row_is_answered(gateway: Server) -> None:
    answer = gateway.post("/predict", {"features": GOOD, "request_id": "one"})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["request_id"], said["model"], said["version"]) == ("one", "churn", "1")
    assert said["prediction"] in {"yes", "no"}
    assert said["score"] == pytest.approx(said["probabilities"]["yes"])
