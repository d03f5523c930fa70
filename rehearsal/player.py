"""Player: what the retrain flow would have decided on each day of a history, with everything kept in memory.

It calls what the flow calls: the signals, the triggers, the split, the training, the gate and the shadow are the
product's own. Only where the flow asks the ledger, the registry or the request log, it looks into its own lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rehearsal.memory import Memory, Model
from tasks import candidate as candidates
from tasks import evidence, past, promotion, signals
from tasks.data import Dataset, NothingNew, Split
from tasks.dossier import Dossier
from tasks.policy import Policy
from tasks.records import GateEvidence, Profile, Scores, Signals, Span, Verdict
from tasks.retrial import reach
from tasks.scoring import known_to

PROMOTED = frozenset({"first-promoted", "promoted"})


@dataclass(frozen=True, slots=True)
class Rules:
    """Who decides: the product, or another rule that is played for comparison.

    Attributes:
        triggers: Called with the signals, the policy and the rows of the lookback window.
        gate: Called with the evidence and the policy.
    """

    triggers: Callable[[Signals, Policy, Dataset], Verdict]
    gate: Callable[[GateEvidence, Policy], Verdict]


def _product_triggers(found: Signals, policy: Policy, _rows: Dataset) -> Verdict:
    return reach(Dossier("triggers", {"signals": found, "rules": policy.triggers}))


def _product_gate(found: GateEvidence, policy: Policy) -> Verdict:
    return reach(Dossier("gate", {"evidence": found, "rules": policy.gate, "problem": policy.problem}))


BACKSTOP = Rules(_product_triggers, _product_gate)


def playable(policy: Policy) -> Policy:
    """The policy without what only a real artifact, a server or a person can tell."""
    gate = policy.gate.model_copy(update={"latency": None, "size": None, "fresh_process": False, "alone": False})
    shadow = policy.shadow and policy.shadow.model_copy(update={"live": None})
    return policy.model_copy(update={"gate": gate, "shadow": shadow})


def left_out(policy: Policy) -> tuple[str, ...]:
    """What of the policy is not played, one phrase each."""
    gate, found = policy.gate, []
    names = ("latency", "size", "fresh_process", "alone")
    if asked := [name for name in names if getattr(gate, name)]:
        found.append(f"gate: {', '.join(asked)} (they measure an artifact on a machine)")
    if gate.checks:
        found.append("your own checks are asked, without latencies, size and loading")
    if policy.shadow is not None and policy.shadow.live is not None:
        found.append("shadow.live (there is no gateway)")
    if policy.approval is not None:
        found.append("approval (everything that waits for a person is approved at once)")
    if policy.rollout is not None:
        found.append("rollout (a version that may go out is in Production at once)")
    if policy.learn is not None:
        found.append("learn (no feedback is learned)")
    return (*found, "the watch and its rollbacks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """One evaluation.

    Attributes:
        at: Its moment.
        decision: As in :class:`tasks.records.Report`.
        reason: One sentence.
        production: In Production afterwards, or None.
        before: In Production before, or None.
        candidate: That was made now, or waited in Staging, or None.
        verdicts: In the order they were reached.
        begun: A training was begun.
    """

    at: datetime
    decision: str
    reason: str
    production: str | None
    before: str | None
    candidate: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    begun: bool = False

    @property
    def verdict(self) -> Verdict:
        """Of the triggers; only where they were asked."""
        return self.verdicts[0]

    @property
    def fired(self) -> tuple[str, ...]:
        """Triggers that led to a retraining."""
        if not self.verdicts or self.verdicts[0].decision != "retrain":
            return ()
        return tuple(finding.name for finding in self.verdicts[0].having("breach"))

    def judged(self, judge: str) -> Verdict | None:
        """The verdict of one judge, or None."""
        return next((one for one in self.verdicts if one.judge == judge), None)


class Player:
    """One policy on its way through the history.

    Attributes:
        days: Every evaluation so far, the oldest first.
        versions: Everything that was trained, by number.
    """

    def __init__(
        self, policy: Policy, memory: Memory, rules: Rules = BACKSTOP, labels: timedelta = timedelta(0)
    ) -> None:
        """Nothing is in Production.

        Args:
            policy: Validated; what cannot be played is left out of it, see :func:`left_out`.
            memory: The rows, and what other players have computed.
            rules: Who decides.
            labels: A row's label is known so long after the row.
        """
        self._labels = labels
        self.policy, self.memory, self.rules = playable(policy), memory, rules
        self.days: list[Day] = []
        self.versions: dict[str, Model] = {}
        self._production: str | None = None
        self._since: datetime | None = None
        self._began: datetime | None = None
        self._staged: tuple[str, datetime] | None = None
        self._evaluated: list[Day] = []
        self._retrained: datetime | None = None
        self._holdouts: list[Span] = []

    def evaluate(self, now: datetime) -> Day:
        """What the retrain flow does at one moment."""
        day = self._advance(now, ()) if self._staged is not None else self._retrain(now)
        self.days.append(day)
        return day

    def _retrain(self, now: datetime) -> Day:
        rows = self._window(now - self.policy.data.lookback, now)
        why = self.rules.triggers(self._signals(now, rows), self.policy, rows)
        evaluation = self._day(now, "kept", why.reason, (why,))
        self._evaluated.append(evaluation)
        if why.decision == "keep":
            return evaluation
        try:
            parts = candidates.parts_of(self.policy, now, rows, self._profile)
        except NothingNew as nothing:
            return self._day(now, "kept", f"{why.reason} Not retrained: {nothing}", (why,))
        except Exception as error:  # noqa: BLE001  what is wrong fails a run of the flow, and not the next one
            return self._failed(now, why, error)
        search = candidates.searches(self.policy, why)
        try:
            made = self.memory.candidate(self.policy, parts, now, search=search)
            return self._judged(now, why, made, parts)
        except Exception as error:  # noqa: BLE001  see above
            return self._failed(now, why, error)

    def known(self, now: datetime) -> datetime | None:
        """From when on rows have no label yet at a moment; None: all have theirs."""
        return now - self._labels if self._labels else None

    def _window(self, start: datetime, now: datetime) -> Dataset:
        return self.memory.window(start, now, known=self.known(now))

    def _failed(self, now: datetime, why: Verdict, error: Exception) -> Day:
        self._retrained = now
        return self._day(now, "failed", f"{type(error).__name__}: {error}", (why,), begun=True)

    def _signals(self, now: datetime, rows: Dataset) -> Signals:
        rules, profile = self.policy.triggers, self._profile
        known = past.of(
            rules,
            self._evaluated[: -past.depth(rules) - 1 : -1],
            since=self._since,
            retrained=self._retrained if past.looks_back(rules) else None,
        )
        if self._production is None or profile is None:
            return Signals(now=now, **known)
        model = self.versions[self._production]
        found = signals.against(self.policy, now, self._production, profile, rows, model.answers)
        return replace(found, production=self._production, **known)

    @property
    def _profile(self) -> Profile | None:
        return None if self._production is None else self.versions[self._production].profile

    def _judged(self, now: datetime, why: Verdict, made: Model, parts: Split) -> Day:
        if made.holdout is None or made.profile is None:
            raise ValueError("a candidate comes with its answers on the holdout")
        production, reason = self._answers(parts.holdout, made.holdout.classes)
        span = made.profile.holdout
        found = GateEvidence(
            candidate=made.holdout,
            production=production,
            latencies=None,
            size=None,
            loads=None,
            baseline=self._production,
            baseline_reason=reason,
            attempt=1 + sum(one.start < span.end and one.end > span.start for one in self._holdouts),
            known=known_to(made.model, parts.train, self.policy),
        )
        judged = self.rules.gate(evidence.with_rows(found, self.policy, parts.holdout), self.policy)
        version = str(len(self.versions) + 1)
        self.versions[version] = made
        self._holdouts.append(span)
        self._retrained = now
        if judged.decision != "pass":
            decision = {"fail": "gate-failed"}.get(judged.decision, "gate-inconclusive")
            return self._day(now, decision, judged.reason, (why, judged), candidate=version, begun=True)
        self._staged = (version, now)
        return replace(self._advance(now, (why, judged)), begun=True)

    def _answers(self, holdout: Dataset, classes: tuple[str, ...]) -> tuple[Scores | None, str]:
        if self._production is None:
            return None, "no version is in Production"
        try:
            return self.versions[self._production].answers(holdout, classes), ""
        except Exception as error:  # noqa: BLE001  whatever the old model raises is missing evidence, as in the flow
            return None, f"version {self._production} in Production could not score the holdout: {error}"

    def _advance(self, now: datetime, verdicts: tuple[Verdict, ...]) -> Day:
        """From Staging to Production, as far as the evidence carries."""
        if self._staged is None:
            raise ValueError("no version is in Staging")
        version, since = self._staged
        verdict = self._shadow(now, version)
        verdicts = (*verdicts, verdict)
        if verdict.decision == "wait" and self.policy.shadow and now - since < self.policy.shadow.deadline:
            return self._day(now, "waiting", verdict.reason, verdicts, candidate=version)
        before, self._staged = self._production, None
        if verdict.decision != "promote":
            return self._day(now, "shadow-rejected", verdict.reason, verdicts, candidate=version)
        self._production, self._since, self._holdouts = version, now, []
        self._began = self._began or now
        decision = "first-promoted" if before is None else "promoted"
        return replace(self._day(now, decision, verdict.reason, verdicts, candidate=version), before=before)

    def _shadow(self, now: datetime, version: str) -> Verdict:
        """On the rows that Production answered, as if each had been a request."""
        rules, profile = self.policy.shadow, self.versions[version].profile
        if rules is None or self._production is None or self._began is None or profile is None:
            return reach(promotion.nothing_to_compare(first=self._production is None))
        span = Span(start=max(now - rules.window, profile.trained.end), end=now)
        rows = self._window(max(span.start, self._began), now).take(slice(-rules.max_requests, None))
        both = (self.versions[self._production].model, self.versions[version].model)
        found = evidence.compare(rows, *both, self.policy, span)
        return reach(Dossier("shadow", {"evidence": found, "rules": rules}))

    def _day(
        self,
        now: datetime,
        decision: str,
        reason: str,
        verdicts: tuple[Verdict, ...],
        *,
        candidate: str | None = None,
        begun: bool = False,
    ) -> Day:
        return Day(
            at=now,
            decision=decision,
            reason=reason,
            production=self._production,
            before=self._production,
            candidate=candidate,
            verdicts=verdicts,
            begun=begun,
        )
