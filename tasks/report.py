"""The one renderer: verdicts, reports and the ledger as lines, Markdown and tables for people."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from textwrap import shorten
from typing import TYPE_CHECKING

from tasks.quantities import format_size
from tasks.records import Finding, Report, Transition, Verdict

if TYPE_CHECKING:
    from rich.table import Table

NEXT = {
    "kept": "Nothing to do. Production stays as it is, and the next evaluation comes with the schedule.",
    "first-promoted": "Watch its first hours: there is no earlier version to go back to.",
    "promoted": "Nothing to do. The health watch looks at it, and takes it back when the evidence says so.",
    "gate-failed": "Production stays. Read the failed checks below, then change the data, the training or the policy.",
    "gate-inconclusive": "Production stays. The evidence did not suffice: wait for more labelled rows, or see why a "
    "check could not be measured.",
    "shadow-rejected": "Production stays. The candidate was worse on real requests: find out why first.",
    "rejected": "Production stays. The candidate is archived; a new one comes with the next retraining.",
    "waiting": "Nothing was decided yet. Where a person has to approve: approve or reject it with flows.promote.",
    "rolled-back": "The earlier version serves again, the bad one is quarantined. Find out why before you release it.",
    "healthy": "Nothing to do. The version is known good from now on, a rollback may come back to it.",
    "watching": "Nothing to do yet. The watch goes on with the next tick.",
    "held": "A person has to look: Backstop saw something and had no safe move. Production is unchanged.",
    "failed": "The run could not finish. Correct what the error names and run it again.",
}
"""What a person does next, by the decision of a report; docs/decisions.md says it at length."""

_WORDS = {
    "triggers": {"ok": "quiet", "breach": "fired", "unknown": "unknown", "exempt": "no baseline"},
    "gate": {"ok": "pass", "breach": "fail", "unknown": "inconclusive", "exempt": "does not apply"},
    "shadow": {"ok": "holds", "breach": "worse", "unknown": "undecided", "exempt": "does not apply"},
    "health": {"ok": "healthy", "breach": "unhealthy", "unknown": "unknown", "exempt": "does not apply"},
    "rollback": {"ok": "possible", "breach": "not possible", "unknown": "unknown", "exempt": "does not apply"},
    "person": {"ok": "answers", "breach": "does not answer", "unknown": "unknown", "exempt": "does not apply"},
    "data": {"ok": "ok", "breach": "problem", "unknown": "unknown", "exempt": "does not apply"},
}
_UNITS = {
    ("gate", "latency"): "seconds",
    ("gate", "size"): "bytes",
    ("shadow", "agreement"): "share",
    ("shadow", "failures"): "share",
    ("health", "error_rate"): "share",
    ("health", "latency_p95"): "share",
    ("health", "accuracy"): "share",
    ("triggers", "volume"): "count",
    ("triggers", "drift"): "share",
    ("health", "traffic"): "count",
}
_GLANCE = 120
"""Characters of a reason in a table that is looked over; the ledger holds it whole."""
_HEADERS = ("check", "outcome", "value", "limit", "n", "in words")


def line(verdict: Verdict) -> str:
    """A verdict in one plain line: ``Retrain model: true (high; age, drift): ...``, ``Gate: pass: ...``."""
    reason = _one_line(verdict.reason)
    if verdict.judge != "triggers":
        return f"{verdict.judge.capitalize()}: {verdict.decision}: {reason}"
    if reason.startswith("Retrain model:"):
        return reason
    fired = ", ".join(finding.name for finding in verdict.having("breach"))
    notes = "; ".join(note for note in (verdict.urgency or "", fired) if note)
    answer = "true" if verdict.decision == "retrain" else "false"
    return f"Retrain model: {answer}{f' ({notes})' if notes else ''}: {reason}"


def finding_rows(verdict: Verdict) -> list[tuple[str, str, str, str, str, str]]:
    """One row per finding: check, outcome, value, limit, n, reason; what decided comes first. Nothing is escaped."""
    order = {"breach": 0, "unknown": 1, "ok": 2, "exempt": 3}
    findings = sorted(verdict.findings, key=lambda finding: order[finding.outcome])
    return [_row(verdict.judge, finding) for finding in findings]


def markdown(report: Report) -> str:
    """A report as Markdown: the decision, why, everything that was looked at, and what to do next."""
    parts = [f"# {escape(report.model)}: {escape(report.decision.replace('-', ' '))}", f"**{escape(report.line)}**"]
    if report.dry_run:
        parts.append("Dry run: nothing was changed.")
    if report.error:
        parts.append(f"**Error:** {escape(report.error)}")
    if report.verdicts:
        parts += ["## Why", "\n".join(f"- {escape(line(verdict))}" for verdict in report.verdicts)]
        parts.append("## What was looked at")
        for verdict in report.verdicts:
            rows = [_HEADERS, ("---",) * len(_HEADERS), *finding_rows(verdict)]
            parts.append(f"### {verdict.judge.capitalize()}: {escape(verdict.decision)}")
            parts.append("\n".join(_markdown_row(row) for row in rows) if verdict.findings else "Nothing.")
    parts += ["## What to do next", NEXT.get(report.decision, "Read docs/decisions.md.")]
    parts += ["## Trail", _trail(report)]
    return "\n\n".join(parts) + "\n"


def table(verdict: Verdict) -> Table:
    """A verdict as a table for the terminal."""
    from rich.text import Text  # noqa: PLC0415  the quiet path shows no table

    colours = {"breach": "red", "unknown": "yellow", "ok": "green", "exempt": "dim"}
    style = {_WORDS[verdict.judge][outcome]: colour for outcome, colour in colours.items()}
    made = _table(line(verdict), _HEADERS)
    for check, outcome, *rest in finding_rows(verdict):
        # Text, not strings: what users wrote is never read as rich's markup.
        made.add_row(Text(check), Text(outcome, style=style[outcome]), *map(Text, rest))
    return made


def ledger_table(transitions: Iterable[Transition]) -> Table:
    """The history as a table for the terminal, in the order given."""
    from rich.text import Text  # noqa: PLC0415  the quiet path shows no table

    made = _table("Transitions", ("when (UTC)", "model", "seq", "action", "version", "before", "by", "state", "why"))
    for step in transitions:
        cells = (f"{step.at:%Y-%m-%d %H:%M}", step.model, str(step.seq), step.action, step.version)
        made.add_row(
            *map(Text, (*cells, step.previous or "-", step.actor, step.state, shorten(_one_line(step.reason), _GLANCE)))
        )
    return made


def escape(text: str) -> str:
    """User text for Markdown, also inside a table: shown as it is, never read as a mark, a column or HTML."""
    safe = html.escape(_one_line(text), quote=False)
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", safe)


def amount(value: float | None, unit: str = "") -> str:
    """A number as a person writes it.

    Args:
        value: None, NaN and infinities are no numbers: they read ``-``.
        unit: ``share``, ``seconds``, ``bytes``, ``days``, ``count`` or nothing.
    """
    if value is None or not math.isfinite(value):
        return "-"
    if unit == "share":
        return f"{value * 100:.3g}%"
    if unit == "bytes":
        return format_size(round(value))
    if unit == "seconds":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "days":
        return f"{value:.3g} days"
    if unit == "count" or (abs(value) >= 1000 and value == round(value)):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _row(judge: str, finding: Finding) -> tuple[str, str, str, str, str, str]:
    unit = str(finding.evidence.get("unit", _UNITS.get((judge, finding.name), "")))
    value = amount(finding.value, unit)
    if finding.interval is not None:
        value += f" ({amount(finding.interval[0], unit)} to {amount(finding.interval[1], unit)})"
    limit = amount(finding.threshold, unit)
    if finding.margin is not None:
        limit += f", margin {amount(finding.margin, unit)}"
    count = "-" if finding.n is None else f"{finding.n:,}"
    return finding.name, _WORDS[judge][finding.outcome], value, limit, count, _one_line(finding.reason)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell if cell == '---' else escape(cell) for cell in cells)} |"


def _trail(report: Report) -> str:
    rows = {
        "trail": report.trail,
        "at": f"{report.at:%Y-%m-%d %H:%M:%S} UTC",
        "flow": report.flow,
        "candidate": report.candidate,
        "in Production now": report.production or "nothing",
    }
    if report.transition is not None:
        moved = report.transition
        rows["transition"] = f"{moved.seq}: {moved.action} version {moved.version}, {moved.state}, by {moved.actor}"
    return "\n".join(f"- {name}: {escape(value)}" for name, value in rows.items() if value is not None)


def _table(title: str, headers: Iterable[str]) -> Table:
    from rich.table import Table  # noqa: PLC0415  the quiet path shows no table
    from rich.text import Text  # noqa: PLC0415  see above

    made = Table(title=Text(title), title_justify="left")
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


def _one_line(text: str) -> str:
    return " ".join(str(text).split())
