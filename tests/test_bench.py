"""The runner of the benchmarks: a limit that is missed, or that nobody measured, is never shown as kept."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import bench, bench_page, proof
from benchmarks.bench import BENCHMARKS, Run, chosen, order, run, together
from benchmarks.proof import Line

KEPT = {"value": 1.0, "limit": 2.0}
RUN = Run(lines=(Line(what="a", value=1.0, limit=2.0),), code=0, wall=1.0, cpu=2.0, peak=10)


def ran(tmp_path: Path, script: str) -> Run:
    return run([sys.executable, "-c", script], tmp_path / "printed.txt")


def saying(*lines: dict[str, float], **found: object) -> str:
    told = {**found, "lines": [{"what": "a", **line} for line in lines]}
    return f"print('a table'); print({json.dumps(told)!r})"


def valued(*values: float, least: bool = False) -> list[Run]:
    return [replace(RUN, lines=(Line(what="a", value=value, limit=2.0, least=least),)) for value in values]


def test_every_benchmark_is_there_says_what_it_measures_and_is_named_by_its_beginning() -> None:
    for name in BENCHMARKS:
        assert bench_page.about(name), name
        assert chosen(name) == (name,)
    assert chosen("drift, serving") == ("drift_speed", "serving")
    assert chosen("") == tuple(BENCHMARKS)
    with pytest.raises(ValueError, match="no benchmark 'drfit'; there are: drift_speed"):
        chosen("drfit,serving")


def test_repetitions_are_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "drift_speed", 3)
    assert order(["serving", "history"], 2) == ["serving", "history"] * 2
    assert order(["drift_speed", "serving"]) == ["drift_speed", "serving", "drift_speed", "drift_speed"]


def test_what_it_prints_is_told_while_it_runs(tmp_path: Path) -> None:
    told: list[str] = []
    script = "import sys, time; print('a line'); time.sleep(1); print('an error', file=sys.stderr); time.sleep(1)"
    run([sys.executable, "-u", "-c", script], tmp_path / "printed.txt", told.append)
    assert list(dict.fromkeys(one for one in told if one)) == ["a line", "an error"]


def test_a_process_is_measured_with_its_children_and_its_last_line_counts(tmp_path: Path) -> None:
    child = "held = bytearray(80_000_000); import time; time.sleep(1.0)"
    script = (
        "import subprocess, sys; held = bytearray(60_000_000);"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True);" + saying(KEPT, name="x", ok=True)
    )
    found = ran(tmp_path, script)
    assert (found.ok, found.code, [line.value for line in found.lines]) == (True, 0, [1.0])
    assert found.peak > 140_000_000, "what both held at the same moment"
    assert found.wall > 1


@pytest.mark.parametrize(
    "script",
    [
        saying({"value": 3, "limit": 2}, name="x", ok=False) + "; raise SystemExit(1)",
        saying(KEPT, name="x", ok=True) + "; raise SystemExit(1)",
        saying(KEPT, name="x"),
        saying(KEPT, name="x", ok=False),
        saying({"value": 3, "limit": 2}, name="x", ok=True),
        saying({"value": float("nan"), "limit": 2}, name="x", ok=True),
        saying(name="x", ok=True),
        'print(\'{"name": "x", "ok": true, "value": 1, "limit": 2}\')',
        "raise RuntimeError('no disk')",
        "print('half a table')",
        saying(KEPT, name="x", ok=True) + "; print('and then')",
    ],
)
def test_what_is_not_shown_to_be_kept_is_not_kept(tmp_path: Path, script: str) -> None:
    found = ran(tmp_path, script)
    assert not found.ok
    assert not together([found, found]).ok
    assert not together([RUN, found]).ok


def test_what_ended_early_says_why_on_the_page(tmp_path: Path) -> None:
    found = together([RUN, ran(tmp_path, "raise RuntimeError('no disk')")])
    text = bench_page.block("serving", found, rounds=2, machine="here")
    assert "**Did not come to its end** (exit code 1): RuntimeError: no disk" in text


def test_the_median_of_the_rounds_counts_and_of_two_the_worse() -> None:
    assert [line.value for line in together(valued(1.0, 9.0, 1.5)).lines] == [1.5]
    assert together(valued(1.0, 9.0, 1.5)).ok
    assert not together(valued(1.0, 9.0)).ok
    assert not together(valued(1.0, 9.0, least=True)).ok
    assert together(valued(1.0, 8.0, 9.0, least=True)).ok
    ahead = [replace(RUN, lines=(Line(what="a", value=value, limit=1.0, least=True),)) for value in (0.5, 3.0)]
    assert [line.value for line in together(ahead).lines] == [0.5]


def test_what_must_never_happen_must_not_in_any_round() -> None:
    never = [replace(RUN, lines=(Line(what="lost", value=value, limit=0),)) for value in (0.0, 1.0, 0.0)]
    assert together([never[0], never[2], never[0]]).ok
    assert [line.value for line in together(never).lines] == [1.0]
    assert not together(never).ok


def test_a_table_is_printed_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [Line(what="a | b", value=3.0, limit=2.0, told="x"), Line(what="c", value=0.5, limit=0.25, least=True)]
    code = proof.conclude("x", given, rows=True)
    found = proof.last(capsys.readouterr().out)
    assert found is not None
    assert (code, list(bench.lines(found))) == (1, given)
    text = bench_page.block("serving", replace(RUN, lines=tuple(given)), rounds=3, machine="here")
    assert "| a \\| b | 3 | ≤ 2 | **SHORT** | x |" in text
    assert "| c | 0.5 | ≥ 0.25 | ok |  |" in text


def test_the_page_has_one_block_per_benchmark_and_keeps_the_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Words\n", "utf-8")
    for text, name in (("one", "a"), ("two", "b"), ("three", "a")):
        bench_page.write(text, name, page)
    found = page.read_text("utf-8")
    assert found.startswith("# Words\n")
    assert ("one" in found, found.count("three"), found.count("two")) == (False, 1, 1)
    bench_page.write("three", "a", page)
    assert page.read_text("utf-8") == found


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    said = bench_page.machine()
    assert "cores, Python 3." in said
    assert platform.node() not in said


def test_a_benchmark_that_is_killed_says_so_and_a_bar_is_told_by_its_newest_state(tmp_path: Path) -> None:
    told: list[str] = []
    script = r"import os, time; print('50 %\r60 %\r70 %', end='', flush=True); time.sleep(1); os.kill(os.getpid(), 9)"
    found = run([sys.executable, "-u", "-c", script], tmp_path / "printed.txt", told.append)
    assert (found.code, found.said.startswith("ended by signal 9, after: ")) == (-9, True)
    assert {one for one in told if one} == {"70 %"}
