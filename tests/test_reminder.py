"""What goes on failing is told once in a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.reminder import EVERY, due

NOW = datetime(2026, 3, 1, 3, tzinfo=UTC)


def test_it_is_told_at_once_and_then_left_alone_for_a_while(tmp_path: Path) -> None:
    asked = [due(tmp_path, "the ledger is away", NOW + timedelta(minutes=minute)) for minute in range(32)]
    assert [minute for minute, told in enumerate(asked) if told] == [0, 15, 30]


def test_something_else_is_told_at_once(tmp_path: Path) -> None:
    assert due(tmp_path, "the ledger is away", NOW)
    assert due(tmp_path, "the policy is broken", NOW)
    assert not due(tmp_path, "the policy is broken", NOW)


def test_where_nothing_can_be_remembered_it_is_told_every_time(tmp_path: Path) -> None:
    (tmp_path / "told").write_text("a file where the folder should be", encoding="utf-8")
    assert due(tmp_path, "the ledger is away", NOW)
    assert due(tmp_path, "the ledger is away", NOW)


def test_a_mark_that_makes_no_sense_is_none(tmp_path: Path) -> None:
    assert due(tmp_path, "the ledger is away", NOW)
    (mark,) = (tmp_path / "told").iterdir()
    for nonsense in ("", "yesterday", (NOW + EVERY).isoformat(), NOW.replace(tzinfo=None).isoformat()):
        mark.write_text(nonsense, encoding="ascii")
        assert due(tmp_path, "the ledger is away", NOW), nonsense
