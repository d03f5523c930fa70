"""Domain: can a classifier tell the inputs of now from those of the training? (Lopez-Paz and Oquab 2017)

It sees what no column shows by itself: two columns that used to go together and no longer do. The area under its ROC
curve is the size of the effect, and does not grow with the number of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.decide import phrase
from tasks.decide.influence import Unmeasurable
from tasks.decide.metrics import bounds
from tasks.records import Domain, Finding

if TYPE_CHECKING:
    from tasks.policy import MultivariateTrigger


def judge(domain: Domain, rules: MultivariateTrigger) -> Finding:
    """The trigger ``multivariate``: the area is shown to be above ``rules.auc``.

    Args:
        domain: What was measured.
        rules: Of the policy.

    Raises:
        Unmeasurable: With too few rows, or when the area is no number.
    """
    if (fewest := min(domain.reference, domain.recent)) < rules.min_rows:
        raise Unmeasurable(
            f"{phrase.count(fewest)} rows on one side, {phrase.count(rules.min_rows)} are needed on both"
        )
    low, high = bounds(domain.auc, confidence=1 - rules.false_alarms)
    fires = low > rules.auc
    said = (
        f"a classifier tells {phrase.count(domain.recent)} recent rows from {phrase.count(domain.reference)} of the "
        f"training with AUC {phrase.number(domain.auc.value)} ({phrase.number(low)} to {phrase.number(high)})"
    )
    columns = f", mostly by {phrase.listing(list(domain.leading))}" if domain.leading else ""
    shown = f", shown to be above {phrase.number(rules.auc)}{columns}"
    return Finding(
        name="multivariate",
        outcome="breach" if fires else "ok",
        reason=said + (shown if fires else f", not shown to be above {phrase.number(rules.auc)}"),
        value=domain.auc.value,
        threshold=rules.auc,
        interval=(low, high),
        n=domain.recent,
        urgency="medium" if fires else None,
        evidence={"reference": domain.reference, "features": list(domain.leading)},
    )
