"""The one renderer: verdicts, reports and the ledger as lines, Markdown and tables for people."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from tasks.places import Places
from tasks.records import Finding, Report, Transition, Verdict
from tasks.units import format_size

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from tasks.canvas import Picture

NEXT = {
    "kept": "Nothing to do. Production stays as it is, and the next evaluation comes with the schedule.",
    "first-promoted": "Watch its first hours: there is no earlier version to go back to.",
    "promoted": "Nothing to do. The health watch looks at it, and takes it back when the evidence says so.",
    "gate-failed": "Production stays. Read the failed checks below, then change the data, the training or the policy.",
    "gate-inconclusive": "Production stays. The evidence did not suffice: wait for more labelled rows, or see why a "
    "check could not be measured.",
    "shadow-rejected": "Production stays. The candidate was worse on real requests: find out why first.",
    "rejected": "Production stays. The candidate is archived; a new one comes with the next retraining.",
    "waiting": "Nothing was decided yet. Where a person has to approve: approve or reject it (docs/approval.md).",
    "awaiting": "A person has to approve or reject it before the deadline: in the form of the run that waits, or with "
    "flows.approve. Without an answer Production stays.",
    "approved": "Nothing to do. Production changed in the meantime, so the candidate is compared with what serves now.",
    "expired": "Production stays, the candidate is archived. If it should serve all the same, promote it by hand.",
    "answered": "Nothing to do. The question was answered before; the line says how.",
    "rolled-back": "The earlier version serves again, the bad one is quarantined. Find out why before you release it.",
    "canary": "Nothing to do. It answers a share of the requests; flows.rollout gives it more, or takes it out.",
    "stepped": "Nothing to do. It answers a larger share of the requests from now on.",
    "holding": "Nothing to do yet. The share stays until the evidence suffices, or the policy's deadline has passed.",
    "aborted": "Production answers all requests, the canary is archived and quarantined. Find out why first.",
    "ended": "Production answers all requests. A version that waits in Staging is judged anew by the next retraining.",
    "idle": "Nothing to do. No rollout runs.",
    "set-aside": "Production stays. Look at the feedback that was set aside: were its labels right? It is not learned.",
    "healthy": "Nothing to do. The version is known good from now on, a rollback may come back to it.",
    "watching": "Nothing to do yet. The watch goes on with the next tick.",
    "held": "A person has to look: Backstop saw something and had no safe move. Production is unchanged.",
    "failed": "The run could not finish. Correct what the error names and run it again.",
}
"""What a person does next, by the decision of a report; docs/decisions.md says it at length."""

_REPORTED = "reported"
_WORDS = {
    "triggers": {"ok": "quiet", "breach": "fired", "unknown": "unknown", "exempt": "no baseline"},
    "gate": {"ok": "pass", "breach": "fail", "unknown": "inconclusive", "exempt": "does not apply"},
    "shadow": {"ok": "holds", "breach": "worse", "unknown": "undecided", "exempt": "does not apply"},
    "health": {"ok": "healthy", "breach": "unhealthy", "unknown": "unknown", "exempt": "does not apply"},
    "rollout": {"ok": "not worse", "breach": "worse", "unknown": "not shown", "exempt": "does not apply"},
    "learning": {"ok": "ok", "breach": "doubtful", "unknown": "waits", "exempt": "does not apply"},
    "rollback": {"ok": "possible", "breach": "not possible", "unknown": "unknown", "exempt": "does not apply"},
    "person": {"ok": "answers", "breach": "does not answer", "unknown": "unknown", "exempt": "does not apply"},
    "data": {"ok": "ok", "breach": "problem", "unknown": "unknown", "exempt": "does not apply"},
}
_UNITS = {
    ("gate", "latency"): "seconds",
    ("gate", "size"): "bytes",
    ("shadow", "agreement"): "share",
    ("shadow", "failures"): "share",
    ("shadow", "live"): "share",
    ("health", "error_rate"): "share",
    ("health", "latency_p95"): "share",
    ("health", "accuracy"): "share",
    ("rollout", "error_rate"): "share",
    ("rollout", "latency_p95"): "share",
    ("rollout", "accuracy"): "share",
    ("rollout", "traffic"): "count",
    ("learning", "known_good"): "count",
    ("learning", "feedback"): "count",
    ("learning", "fresh"): "count",
    ("learning", "holdout"): "share",
    ("learning", "batches"): "share",
    ("triggers", "volume"): "count",
    ("triggers", "growth"): "share",
    ("triggers", "drift"): "share",
    ("health", "traffic"): "count",
}
_GLANCE = 120
"""Characters of a reason in a table that is looked over; the ledger holds it whole."""
_HEADERS = ("check", "outcome", "value", "limit", "n", "in words")
_MESSAGE = 300
"""Characters of the message of a state; the report has it whole."""
_NAME = 100
_PICTURES = 300_000
"""Bytes of pictures in one report, as text: it lies in Prefect's database. What has no room is in the MLflow run."""


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


def findings_table(verdict: Verdict) -> str:
    """The findings of a verdict as a table in Markdown."""
    rows = [_HEADERS, ("---",) * len(_HEADERS), *finding_rows(verdict)]
    return "\n".join(_markdown_row(row) for row in rows) if verdict.findings else "Nothing."


def glance_table(verdict: Verdict) -> str:
    """The findings that say something, in the width of a form; one sentence where none does."""
    rows = [row[:4] for row in finding_rows(verdict) if row[1] not in {"does not apply", _REPORTED}]
    if not rows:
        return escape(verdict.reason)
    return "\n".join(_markdown_row(row) for row in (_HEADERS[:4], ("---",) * 4, *rows))


def brief(text: str, most: int = _MESSAGE) -> str:
    """One line of at most so many characters, cut where a part of the sentence ends."""
    line = _one_line(text)
    if len(line) <= most:
        return line
    kept = line[: most - 2]
    ends = [place for mark in ("; ", ". ", ", ") if (place := kept.rfind(mark)) > most // 2]
    return f"{kept[: max(ends)] if ends else kept.rpartition(' ')[0] or kept} …"


def run_name(report: Report, actor: str = "") -> str:
    """What a flow run is called in a list, once it is known: ``retrain churn: drift + performance``.

    Args:
        report: Of the run.
        actor: On whose word it happened; named where that is a person's.
    """
    done = report.decision.replace("-", " ")
    version = f" {report.candidate}" if report.candidate else ""
    if report.flow == "retrain" and report.decision != "kept" and _why(report.verdicts):
        return training_name(report.model, report.verdicts, dry_run=report.dry_run)
    said = f"{report.flow} {report.model}: {f'version{version} ' if version else ''}{done}"
    if report.flow == "promote" and report.decision != "failed":
        said = f"{'reject' if done == 'rejected' else 'promote'} {report.model}{version}"
    if report.flow == "rollback" and report.candidate:
        said = f"roll back {report.model} to{version}"
    by = f" by {brief(actor, 40)}" if actor else ""
    return brief(f"{said}{by}{' (dry run)' if report.dry_run else ''}", _NAME)


def training_name(model: str, verdicts: Sequence[Verdict], *, dry_run: bool) -> str:
    """What a run is called that retrains: after the triggers that made it do so."""
    return brief(f"retrain {model}: {_why(verdicts)}{' (dry run)' if dry_run else ''}", _NAME)


def _why(verdicts: Sequence[Verdict]) -> str:
    """The triggers that fired, where that led to a retraining."""
    fired = [one for verdict in verdicts if verdict.judge == "triggers" for one in verdict.having("breach")]
    asked = any(verdict.judge == "triggers" and verdict.decision == "retrain" for verdict in verdicts)
    return " + ".join(finding.name.replace("_", " ") for finding in fired) if asked else ""


SERIOUS = (
    *("failed", "rolled-back", "aborted", "shadow-rejected", "held", "ended", "promoted", "awaiting", "canary"),
    "stepped",
)
"""Decisions of a tick that its run is named after; of all others there is one a minute."""


def tick_name(reports: Sequence[Report]) -> str:
    """What a run of a tick is called: ``watch 12 models: rolled back churn``."""
    about = reports[0].model if len(reports) == 1 else f"{len(reports)} models"
    by_decision: dict[str, list[str]] = {}
    for report in reports:
        by_decision.setdefault(report.decision, []).append(report.model)
    serious = [one for one in SERIOUS if one in by_decision]
    told = "; ".join(
        one.replace("-", " ") + ("" if len(reports) == 1 else f" {', '.join(by_decision[one])}") for one in serious
    )
    dry = " (dry run)" if any(report.dry_run for report in reports) else ""
    return brief(f"{reports[0].flow} {about}: {told or 'nothing to do'}{dry}", _NAME)


def markdown(
    report: Report, pictures: Sequence[Picture] = (), places: Places | None = None, run_id: str | None = None
) -> str:
    """A report as Markdown: the decision, what to do next, why, everything that was looked at, and where to read on.

    Args:
        report: Of one model.
        pictures: Of what its verdicts rest on.
        places: Where the pages of MLflow are.
        run_id: MLflow run of the version that was judged.
    """
    parts = [f"# {escape(report.model)}: {escape(report.decision.replace('-', ' '))}", f"**{escape(report.line)}**"]
    if report.dry_run:
        parts.append("Dry run: nothing was changed.")
    if report.error:
        parts.append(f"**Error:** {escape(report.error)}")
    if report.learned:
        parts.append(f"Learned from {escape(brief(report.learned))}")
    parts += ["## What to do next", NEXT.get(report.decision, "Read docs/decisions.md.")]
    if report.verdicts:
        parts += ["## Why", "\n".join(f"- {escape(brief(line(verdict)))}" for verdict in report.verdicts)]
        parts.append("## What was looked at")
        for verdict in report.verdicts:
            parts.append(f"### {verdict.judge.capitalize()}: {escape(verdict.decision)}")
            parts.append(findings_table(verdict))
    parts += _shown(pictures)
    parts += ["## Trail", _trail(report, places or Places(), run_id)]
    return "\n\n".join(parts) + "\n"


def _shown(pictures: Sequence[Picture]) -> Iterator[str]:
    """The pictures, in the text itself: Prefect's pages take no files, and MLflow may have no server."""
    left = _PICTURES
    if pictures:
        yield "## In pictures"
    for number, picture in enumerate(pictures):
        data = base64.b64encode(picture.png).decode("ascii")
        left -= len(data)
        if left < 0:
            names = ", ".join(one.name for one in pictures[number:])
            yield f"There is no room here for {names}: look among the files of the MLflow run, or ask `flows.trail`."
            return
        caption = escape(picture.caption)
        yield f"![{escape(picture.name)}](data:image/png;base64,{data})\n\n{caption}"


def table_rows(verdict: Verdict) -> list[dict[str, str]]:
    """A verdict as rows of a table artifact; what decided comes first. For the words there is no room."""
    return [dict(zip(_HEADERS[:-1], row, strict=False)) for row in finding_rows(verdict)]


def table(verdict: Verdict) -> Table:
    """A verdict as a table for the terminal."""
    from rich.text import Text  # noqa: PLC0415  the quiet path shows no table

    colours = {"breach": "red", "unknown": "yellow", "ok": "green", "exempt": "dim"}
    style = {_WORDS[verdict.judge][outcome]: colour for outcome, colour in colours.items()} | {_REPORTED: "dim"}
    made = _table(line(verdict), _HEADERS)
    for check, outcome, *rest in finding_rows(verdict):
        # Text, not strings: what users wrote is never read as rich's markup.
        made.add_row(Text(check), Text(outcome, style=style[outcome]), *map(Text, rest))
    return made


def ledger_lines(transitions: Iterable[Transition]) -> Iterator[Text]:
    """The history for the terminal, in the order given: what was done, and below it why. Text, and no markup."""
    from rich.text import Text  # noqa: PLC0415  the quiet path shows nothing

    for step in transitions:
        before = f", before: {step.previous}" if step.previous else ""
        state = "" if step.state == "applied" else f" [{step.state}]"
        yield Text.assemble(
            (f"{step.at:%Y-%m-%d %H:%M} UTC ", "dim"),
            (f"{step.seq:>4}  ", "dim"),
            (f"{step.action} version {step.version}", "bold"),
            f"{before}, by {step.actor}{state}",
        )
        yield Text(f"{' ' * 27}{shorten(_one_line(step.reason), _GLANCE)}", "dim")


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
    # What was measured and cannot decide is not what there was nothing to measure of.
    word = _REPORTED if finding.outcome == "exempt" and finding.value is not None else _WORDS[judge][finding.outcome]
    return finding.name, word, value, limit, count, _one_line(finding.reason)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell if cell == '---' else escape(cell) for cell in cells)} |"


def _trail(report: Report, places: Places, run_id: str | None) -> str:
    rows = {
        "trail": report.trail,
        "at": f"{report.at:%Y-%m-%d %H:%M:%S} UTC",
        "flow": report.flow,
        "candidate": report.candidate,
        "in Production now": report.production or "nothing",
    }
    if report.phase is not None:
        rows["rollout"] = report.phase
    if report.transition is not None:
        moved = report.transition
        rows["transition"] = f"{moved.seq}: {moved.action} version {moved.version}, {moved.state}, by {moved.actor}"
    told = [f"- {name}: {escape(value)}" for name, value in rows.items() if value is not None]
    return "\n".join((*told, *_links(report, places, run_id)))


def _links(report: Report, places: Places, run_id: str | None) -> Iterator[str]:
    version = report.candidate or report.production
    if version is not None and (page := places.version(report.model, version)):
        yield f"- version {escape(version)} in MLflow: [{page}]({page})"
    if run_id is not None:
        page = places.run(run_id)
        yield (
            f"- run in MLflow: [{page}]({page})" if page else f"- run in MLflow: `{run_id}`; `make mlflow-ui` shows it"
        )
    yield f"- the whole story: `python -m flows.trail {report.trail} --html story.html`"


def _table(title: str, headers: Iterable[str]) -> Table:
    from rich.table import Table  # noqa: PLC0415  the quiet path shows no table
    from rich.text import Text  # noqa: PLC0415  see above

    made = Table(title=Text(title), title_justify="left")
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


def _one_line(text: str) -> str:
    return " ".join(str(text).split())
