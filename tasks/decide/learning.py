"""Learning: may a copy of the version in Production learn from the feedback that waits?

A gate cannot see that labels are wrong where it judges by the same labels. So before anything is learned it is asked
whether Production itself is about as good on the feedback as it was when it was judged: a world that drifts slowly is
followed batch by batch and stays near that; labels that were swapped, and a world that has changed at once, do not.
Which of the two it is, no model can tell from the labels alone: a person, or a training from the beginning, has to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.decide import phrase
from tasks.records import Finding, LearningEvidence, Verdict

if TYPE_CHECKING:
    from tasks.policy import Learn, Problem

FAR = 3.0
"""In regression an answer is wrong that is off by more than so many times Production's own root mean square error."""

_FAR_AT_MOST = 1 / FAR**2
"""Share of such answers at most, whatever the errors are like, while that error stays what it was (Chebyshev)."""


def judge(evidence: LearningEvidence, rules: Learn, *, problem: Problem | str) -> Verdict:
    """Learn, wait for more, hold until a person has looked, or set all of it aside.

    Args:
        evidence: What was counted.
        rules: The policy's section ``learn``.
        problem: What is predicted; it says what a wrong answer is.
    """
    waits = (_known_good(evidence), _feedback(evidence, rules), _fresh(evidence, rules))
    findings = (*waits, _holdout(evidence, rules, problem), _batches(evidence, rules, problem), *_left_out(evidence))
    decision, decisive = _concluded(evidence, rules, problem, findings)
    reason = "; ".join(finding.reason for finding in decisive)
    return Verdict(judge="learning", decision=decision, reason=phrase.one_line(reason), findings=findings)


def doubtful(evidence: LearningEvidence, rules: Learn, problem: Problem | str) -> tuple[bool, ...]:
    """Of each batch, whether Production is shown to be wrong on it more often than is tolerated.

    Where it is not known what was to be expected, every batch is doubtful.
    """
    tolerated = _tolerated(evidence, rules, problem)
    if tolerated is None:
        return (True,) * len(evidence.batches)
    return tuple(_low(wrong, n, evidence, rules) > tolerated for n, wrong in evidence.batches)


def _concluded(
    evidence: LearningEvidence, rules: Learn, problem: Problem | str, findings: tuple[Finding, ...]
) -> tuple[str, list[Finding]]:
    """The decision, and the findings that it follows from."""
    by_name = {finding.name: finding for finding in findings}
    waiting = [finding for finding in findings if finding.outcome == "unknown"]
    if waiting:
        return "wait", waiting
    if by_name["holdout"].outcome == "breach":
        return "hold", [by_name["holdout"]]
    if by_name["holdout"].outcome == "exempt":
        return "wait", [by_name["holdout"]]
    if all(doubtful(evidence, rules, problem)):
        return "set-aside", [by_name["batches"]]
    return "learn", [by_name["feedback"], by_name["batches"], by_name["holdout"]]


def _known_good(evidence: LearningEvidence) -> Finding:
    """Updates that come faster than the watch would leave nothing behind that one could go back to."""
    who = f"version {evidence.production}"
    reason = (
        f"{who} is known good" if evidence.known_good else f"{who} has not finished its watch yet; flows.watch does"
    )
    return Finding(name="known_good", outcome="ok" if evidence.known_good else "unknown", reason=reason)


def _feedback(evidence: LearningEvidence, rules: Learn) -> Finding:
    enough = evidence.waiting >= rules.batch and evidence.newest >= rules.holdout
    said = f"{phrase.count(evidence.waiting)} labelled requests wait"
    if enough:
        reason = f"{said} beside the newest {phrase.count(evidence.newest)}, which judge"
    else:
        newest = f"beside the newest {phrase.count(rules.holdout)}, of which there are {phrase.count(evidence.newest)}"
        reason = f"{said}, {phrase.count(rules.batch)} are needed {newest}"
    return Finding(
        name="feedback",
        outcome="ok" if enough else "unknown",
        reason=reason,
        value=float(evidence.waiting),
        threshold=float(rules.batch),
        n=evidence.waiting,
    )


def _fresh(evidence: LearningEvidence, rules: Learn) -> Finding:
    """To try the same again on the same rows would be trying until it works."""
    if evidence.fresh is None:
        return Finding(name="fresh", outcome="exempt", reason="no update of this version was tried in vain")
    enough = evidence.fresh >= rules.batch
    said = f"{phrase.count(evidence.fresh)} labelled requests have come since the last update that was tried in vain"
    return Finding(
        name="fresh",
        outcome="ok" if enough else "unknown",
        reason=said if enough else f"{said}, {phrase.count(rules.batch)} are needed for another try",
        value=float(evidence.fresh),
        threshold=float(rules.batch),
        n=evidence.fresh,
    )


def _holdout(evidence: LearningEvidence, rules: Learn, problem: Problem | str) -> Finding:
    if evidence.holdout is None:
        return Finding(name="holdout", outcome="exempt", reason="not looked at as long as nothing would be learned")
    n, wrong = evidence.holdout
    tolerated = _tolerated(evidence, rules, problem)
    if tolerated is None:
        who = f"version {evidence.production}"
        reason = f"how often {who} was wrong when it was judged is not known; train one with flows.retrain first"
        return Finding(name="holdout", outcome="unknown", reason=reason)
    if not n:
        return Finding(name="holdout", outcome="unknown", reason="no labelled request is there to judge by")
    breach = _low(wrong, n, evidence, rules) > tolerated
    said = f"version {evidence.production} is wrong on {phrase.count(wrong)} of the newest {phrase.count(n)}"
    rule = f"{phrase.percent(tolerated)} are tolerated"
    remedy = "look at the labels; if they are right, the world has changed at once: retrain from the beginning"
    return Finding(
        name="holdout",
        outcome="breach" if breach else "ok",
        reason=f"{said}, shown to be more than the {rule}: {remedy}" if breach else f"{said}, {rule}",
        value=wrong / n,
        threshold=tolerated,
        interval=_interval(wrong, n, evidence, rules),
        n=n,
        evidence={"wrong": wrong, "tolerate": rules.tolerate},
    )


def _batches(evidence: LearningEvidence, rules: Learn, problem: Problem | str) -> Finding:
    tolerated = _tolerated(evidence, rules, problem)
    marks = doubtful(evidence, rules, problem)
    if tolerated is None or not marks:
        return Finding(name="batches", outcome="exempt", reason="there is no batch to look at")
    n, wrong = max(evidence.batches, key=lambda one: one[1] / one[0])
    worst = f"version {evidence.production} is wrong on {wrong} of {n} in the worst"
    rule = f"{phrase.percent(tolerated)} are tolerated"
    aside = sum(marks)
    said = f"{aside} of {len(marks)} batches are set aside" if aside else f"none of {len(marks)} batches is doubtful"
    return Finding(
        name="batches",
        outcome="breach" if aside else "ok",
        reason=f"{said}: {worst}, {rule}",
        value=wrong / n,
        threshold=tolerated,
        interval=_interval(wrong, n, evidence, rules),
        n=sum(rows for rows, _ in evidence.batches),
        evidence={"wrong": [bad for _, bad in evidence.batches], "doubtful": [int(mark) for mark in marks]},
    )


def _left_out(evidence: LearningEvidence) -> tuple[Finding, ...]:
    """What is quarantined and decides nothing: a person has to see it."""
    found: list[Finding] = []
    if evidence.unseen:
        told = ", ".join(f"{label!r} ({count})" for label, count in evidence.unseen[:8])
        n = sum(count for _, count in evidence.unseen)
        reason = (
            f"{phrase.count(n)} requests have labels that version {evidence.production} cannot say, and are left out"
        )
        reason += f": {told}; correct them, or retrain from the beginning with them"
        found.append(Finding(name="labels", outcome="breach", reason=reason, value=float(n), n=n))
    if evidence.unfit:
        reason = f"{phrase.count(evidence.unfit)} requests lack columns that the version needs, and are left out"
        found.append(
            Finding(name="columns", outcome="breach", reason=reason, value=float(evidence.unfit), n=evidence.unfit)
        )
    return tuple(found)


def _tolerated(evidence: LearningEvidence, rules: Learn, problem: Problem | str) -> float | None:
    """The share of wrong answers that is tolerated: the most that Production may have had, and the policy's points."""
    if problem == "regression":
        expected = _FAR_AT_MOST
    elif evidence.expected is None or evidence.expected[0] <= 0:
        return None
    else:
        from tasks.decide.intervals import clopper_pearson  # noqa: PLC0415  see _interval()

        n, wrong = evidence.expected
        # Half of the error is spent here: a measured rate taken for the true one would alarm far too often.
        expected = clopper_pearson(wrong, n, 1 - rules.false_alarms / 2)[1]
    return min(expected + rules.tolerate, 0.999)


def _low(wrong: int, n: int, evidence: LearningEvidence, rules: Learn) -> float:
    return _interval(wrong, n, evidence, rules)[0]


def _interval(wrong: int, n: int, evidence: LearningEvidence, rules: Learn) -> tuple[float, float]:
    """The other half of the error, over everything that is looked at."""
    from tasks.decide.intervals import clopper_pearson  # noqa: PLC0415  to wait for more feedback needs no numpy

    return clopper_pearson(wrong, n, 1 - rules.false_alarms / 2 / (1 + len(evidence.batches)))
