"""schemathesis reads the gateway's OpenAPI document and sends what a client could make of it, right and wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from shops import GOOD, Server

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip install schemathesis)")
EXAMPLES = 40
OPERATIONS = (
    *("POST /predict", "POST /invocations", "POST /models/{model}/predict", "POST /feedback"),
    *("GET /models/{model}", "GET /healthz", "GET /readyz", "GET /metrics"),
)


@pytest.fixture(scope="module")
def operations(gateway: Server) -> dict[str, Any]:
    """By method and address. Its plugin for pytest is not used: it goes with few versions of pytest."""
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    return {operation.label: operation for found in schema.get_all_operations() if (operation := found.ok())}


def test_the_document_has_these_addresses_and_no_others(operations: dict[str, Any]) -> None:
    assert set(operations) == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_one_that_the_document_promises(
    gateway: Server, operations: dict[str, Any], name: str, mode: Any
) -> None:
    """Of no status, type or shape that is not written there, and never a 5xx.

    What the document takes for right may be refused all the same: which columns there are, the model says.
    """
    if mode.is_negative and name.startswith("GET "):
        pytest.skip("nothing can be wrong about it")

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operations[name].as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance])

    answered()
    assert gateway.alive
    assert gateway.post("/predict", {"features": GOOD}).status_code == 200
