"""schemathesis reads the gateway's OpenAPI document and sends what a client could make of it, right and wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from shops import GOOD, Server

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip install schemathesis)")


@pytest.fixture(scope="session")
def document(gateway: Server) -> Any:
    return schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_promises(case: Any, gateway: Server) -> None:
    """Of no status, type or shape that is not written there, and never a 5xx.

    What the document takes for right may be refused all the same: which columns there are, the model says.
    """
    checks = schemathesis.checks
    case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])
    assert gateway.alive


def test_afterwards_the_gateway_answers_as_before(gateway: Server) -> None:
    assert gateway.post("/predict", {"features": GOOD}).status_code == 200
