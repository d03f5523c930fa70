"""Feedback: labelled requests that the version in Production has not learned from, each of them once.

Nothing is ever marked. What a version learned is put down together with the version (:class:`tasks.records.Lesson`),
and whether that counts follows from what became of the version: the transition is the mark. A process that dies
anywhere leaves no feedback that is learned and pending, or neither.

Without numpy, pandas or MLflow: a look that finds too little has to be cheap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tasks.case import Case
from tasks.dossier import Dossier
from tasks.ledger import Ledger
from tasks.policy import Learn
from tasks.records import LearningEvidence, Lesson, Span, Standing
from tasks.requests import Feedback, RequestLog

Fate = Literal["learned", "set aside", "pending"]
"""What became of a lesson's requests. ``pending``: they are to be learned again."""

_MOST = 200_000
"""Labelled requests that are looked through, the newest."""
_HARM = frozenset({"regression", "slice", "stability"})
"""Checks of the gate that compare with Production: who fails one has learned something wrong."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What there is to learn from.

    Attributes:
        root: The version that was trained from the beginning, and whose copies learned since.
        usable: Labelled requests that it could be learned from or judged by, in the order in which they were asked.
        tried: The last update of this very version that came to nothing, or None.
        judged: Window of the requests that that one was judged on.
    """

    root: str
    usable: tuple[Feedback, ...]
    tried: Lesson | None = None
    judged: Span | None = None

    def fresh(self, usable: Collection[Feedback]) -> int | None:
        """How many of these were not there when it was last tried in vain; None where it never was."""
        if self.tried is None or self.judged is None:
            return None
        known, (start, end) = set(self.tried.requests), (self.judged.start, self.judged.end)
        return sum(one.at >= end or (one.at < start and one.request_id not in known) for one in usable)


@dataclass(frozen=True, slots=True)
class Parts:
    """Usable feedback divided by time.

    Attributes:
        waiting: How many requests are there to be learned, those beyond what one version learns among them.
        batches: To be learned: whole batches, the oldest first.
        holdout: The newest requests, which judge.
    """

    waiting: int
    batches: tuple[tuple[Feedback, ...], ...]
    holdout: tuple[Feedback, ...]


def pending(case: Case, standing: Standing) -> Pending:
    """Look through ledger and request log.

    Requests from before the end of what the root was trained on are not feedback for it: its training data has them.

    Args:
        case: Whose model; its policy has a section ``learn``.
        standing: What the ledger says; something is in Production.

    Raises:
        ValueError: When the root has no stored profile.
    """
    rules, production = case.policy.learn, standing.production
    if rules is None or production is None:
        raise ValueError(f"{case.model} learns nothing: no section learn in the policy, or nothing in Production")
    begin = case.now - rules.window
    lessons = case.ledger.lessons(case.model, since=begin)
    line = lineage(lessons, production)
    fates = {number: fate(case.ledger, standing, line, lesson) for number, lesson in enumerate(lessons)}
    spent = {one for number, lesson in enumerate(lessons) if fates[number] != "pending" for one in lesson.requests}
    tried = [lesson for number, lesson in enumerate(lessons) if fates[number] == "pending"]
    last = tried[-1] if tried and tried[-1].base == production else None
    judged = _in_vain(case, last)
    trained = _profile(case, line[-1])["trained"]["end"]
    start = max(begin, datetime.fromisoformat(trained))
    with RequestLog.open(case.stores.requests) as log:
        found = log.feedback(case.model, start=start, end=case.now, limit=_MOST)
    usable = tuple(one for one in found if one.request_id not in spent)
    return Pending(line[-1], usable, last, judged)


def divided(usable: tuple[Feedback, ...], rules: Learn) -> Parts:
    """The newest requests judge; what is older is learned, in whole batches."""
    cut = max(0, len(usable) - rules.holdout)
    learn = usable[:cut][: rules.most]
    whole = len(learn) // rules.batch
    batches = tuple(learn[number * rules.batch : (number + 1) * rules.batch] for number in range(whole))
    return Parts(cut, batches, usable[cut:])


def waits(case: Case, standing: Standing, found: Pending) -> Dossier | None:
    """What is judged where a look at the ids is enough to wait for more; None: the rows have to be looked at."""
    rules, production = case.policy.learn, standing.production
    if rules is None or production is None:
        raise ValueError(f"{case.model} learns nothing: no section learn in the policy, or nothing in Production")
    parts = divided(found.usable, rules)
    evidence = LearningEvidence(
        production=production,
        known_good=production in standing.known_good,
        waiting=parts.waiting,
        newest=len(parts.holdout),
        fresh=found.fresh(found.usable),
    )
    waiting = not evidence.known_good or not parts.batches or len(parts.holdout) < rules.holdout
    if not waiting and (evidence.fresh is None or evidence.fresh >= rules.batch):
        return None
    return Dossier("learning", {"evidence": evidence, "rules": rules, "problem": case.policy.problem})


def lineage(lessons: tuple[Lesson, ...], version: str) -> tuple[str, ...]:
    """A version, the one that it is a copy of, and so on back to the one that was trained from the beginning."""
    bases = {lesson.version: lesson.base for lesson in lessons if lesson.version is not None}
    line = [version]
    while (base := bases.get(line[-1])) is not None and base not in line:
        line.append(base)
    return tuple(line)


def fate(ledger: Ledger, standing: Standing, line: Collection[str], lesson: Lesson) -> Fate:
    """What became of a lesson.

    Learned: its version serves, or the version that serves is a copy of it. Set aside: nobody learns it, because
    Production was far off on it, because its version was shown to be worse by the gate, or because its version came as
    far as Staging and went no further, or was rolled back. Pending: everything else. Its version was never judged (the
    process died), the gate could not tell or found fault with something that the feedback has no part in, or a newer
    candidate took its place.

    Args:
        ledger: Open.
        standing: What it says.
        line: Of the version in Production, see :func:`lineage`.
        lesson: Of the same model.
    """
    version = lesson.version
    if version is None:
        return "set aside"
    if version in line or version == standing.staged:
        return "learned"
    judged = ledger.gate_on(lesson.model, version)
    if judged is None:
        return "pending"
    verdict = judged.verdict
    if verdict.decision != "pass":
        return (
            "set aside"
            if _HARM & {finding.name.partition(" ")[0] for finding in verdict.having("breach")}
            else "pending"
        )
    went = version in standing.quarantined or ledger.has_fact(lesson.model, version, "rejected")
    return "set aside" if went else "pending"


def _in_vain(case: Case, last: Lesson | None) -> Span | None:
    """On which requests the gate refused this version; None where it did not, and only the process died."""
    decision = None if last is None else case.ledger.gate_on(case.model, str(last.version))
    return None if decision is None or decision.verdict.decision == "pass" else decision.span


def _profile(case: Case, version: str) -> Mapping[str, Any]:
    profile = case.ledger.profile(case.model, version)
    if profile is None:
        raise ValueError(
            f"version {version} of {case.model} has no stored profile, so nobody knows what it was trained on; promote "
            "a version that was trained by flows.retrain before anything is learned from feedback"
        )
    return profile
