"""Incidents: what is put down when a run could not begin, or found the registry changed. Records, not judgements."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.records import Finding, Verdict


def mistake(problems: Sequence[str], *, name: str) -> Verdict:
    """What the ledger keeps of a run that failed: one finding per problem.

    Args:
        problems: One sentence each; at least one.
        name: Where they lie: ``data``, ``training``, or the flow.
    """
    findings = tuple(Finding(name=name, outcome="breach", reason=problem) for problem in problems)
    return Verdict(
        judge="data", decision="failed", reason=f"{len(findings)} problem(s): {problems[0]}", findings=findings
    )


def reconciled(findings: tuple[Finding, ...]) -> Verdict:
    """What the ledger keeps of a registry that differed from it.

    Args:
        findings: One per thing that was not in order.
    """
    reason = "; ".join(finding.reason for finding in findings)
    return Verdict(judge="data", decision="reconciled", reason=reason, findings=findings)
