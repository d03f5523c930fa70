"""docs/policy.md says what the schema says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import policy_page
from tasks.policy import Policy
from tasks.policy_page import main, page, sections


def test_the_page_is_up_to_date() -> None:
    assert policy_page.PAGE.read_text("utf-8") == page(), "run `make docs` and commit docs/policy.md"


def test_every_key_is_there_with_a_description() -> None:
    text = page()
    for name, section in sections(Policy, ""):
        for key in section.model_fields:
            row = next((line for line in text.splitlines() if line.startswith(f"| `{key}` |")), None)
            assert row is not None, f"{name}.{key}"
    assert [line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []


@pytest.mark.parametrize(
    "row",
    [
        "| `age` | duration or `off` | `30d` | above 0 |",
        "| `holdout` | share | `20%` | above 0, at most 50% |",
        "| `size` | size or `off` | `500MB` | above 0 |",
        "| `p99` | duration | `50ms` | above 0 |",
        "| `source` | text | **needed** |  |",
        "| `estimator` | import path | empty |  |",
        "| `checks` | list of import paths | empty |  |",
        "| `approval` | section or `off` | `off` |  |",
        "| `calls` | whole number | `1000` | at least 299, at most 100000 |",
        "| `external` | `repair` or `adopt` | `repair` |  |",
    ],
)
def test_values_are_written_as_a_person_writes_them(row: str) -> None:
    assert f"\n{row} " in page()


def test_a_page_that_lags_is_found_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(policy_page, "PAGE", tmp_path / "policy.md")
    assert main(["--check"]) == 1
    assert "run `make docs`" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "policy.md").write_text("old", "utf-8")
    assert main(["--check"]) == 1
