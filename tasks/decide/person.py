"""A person's word on a version, with what speaks against it and whether the version answers."""

from __future__ import annotations

from tasks.records import Finding, Verdict


def promote(*, reason: str, actor: str, against: tuple[str, ...], tried: Finding) -> Verdict:
    """Promote what a person asks for, as long as it loads and answers; no word helps where it does not.

    Args:
        reason: The person's.
        actor: Who.
        against: What speaks against it and is overridden.
        tried: Whether the version loads and answers its stored example.
    """
    note = f"{reason} (by {actor}" + (f", although {'; '.join(against)})" if against else ")")
    decision = "promote" if tried.outcome == "ok" else "stay"
    return Verdict(judge="person", decision=decision, reason=note, findings=(tried,))
