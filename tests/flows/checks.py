"""A user's own gate checks, as their policy names them."""

from __future__ import annotations

from tasks.records import Finding, GateEvidence


def content(evidence: GateEvidence) -> Finding:
    """A check that passes."""
    n = len(evidence.candidate.truth)
    return Finding(name="content", outcome="ok", reason=f"looked at {n} rows and found nothing", n=n)


def opposed(evidence: GateEvidence) -> Finding:
    """A check that fails."""
    return Finding(name="opposed", outcome="breach", reason="customers over 60 are treated worse")


def broken(evidence: GateEvidence) -> Finding:
    """A check with a mistake in it."""
    raise KeyError("segment")


def vague(evidence: GateEvidence) -> bool:
    """A check that returns nonsense."""
    return True
