"""Random sequences of everything that moves a version, against a model of what should hold.

Flows and people stage, promote, reject and roll back, people click in MLflow and delete versions there, processes die
in the middle of it, and the clock moves. Ledger, MLflow's store and the product's own functions are real. Only the
clock, the deaths and the trial in a fresh process (two seconds each) are played.

``BACKSTOP_SEQUENCES=1000 python -m pytest tests/test_sequences.py`` plays 1,000 sequences that nobody has seen; without
the variable it is the same few every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as play
from lifetime import FLOW, PERSON, Expected, Killed, Mortal, World, policy, small_world

from tasks import promotion, registry, rollback
from tasks.case import Case
from tasks.ledger import Ledger, StaleDecision
from tasks.reconcile import reconcile
from tasks.records import Finding, Standing, Transition, Verdict
from tasks.registry import MissingVersion, View
from tasks.transitions import Held

SEQUENCES = int(os.environ.get("BACKSTOP_SEQUENCES") or 0)
USUAL, STEPS = 12, 12

GATE = Verdict(judge="gate", decision="pass", reason="good enough", findings=())
SHADOW = Verdict(judge="shadow", decision="promote", reason="it is better", findings=())
PLACES = ("Production", "Production", "Staging", "Archived", "None", "champion", "challenger", "nowhere", "broken")

numbers = st.integers(0, 5)
"""Of a version: 0 is the newest, 1 the one before it, and so on."""
fates = st.tuples(st.sampled_from(["reconcile", "work", "work"]), st.sampled_from(range(56)))
deaths = st.one_of(st.none(), st.none(), fates)


class Sequences(RuleBasedStateMachine):
    """One model's life."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.model, self.expected = f"m{next(self.world.names)}", Expected()
        self.rows: tuple[Transition, ...] = ()
        self.stale: Standing | None = None
        self.client = self.world.client
        self.client.create_registered_model(self.model)
        self.policy = policy(self.model, "repair")

    @initialize(external=st.sampled_from(["repair", "adopt"]), good=st.sampled_from([2, 3, 1]))
    def begin(self, external: str, good: int) -> None:
        self.policy = policy(self.model, external)
        for _ in range(good):
            self.deploy(healthy=True, death=None)

    # A flow, and what is checked after it.

    def flow(
        self, actor: str, work: Callable[[Case, Standing], Any], death: tuple[str, int] | None = None
    ) -> Any | None:
        """Run a flow to its end, or to its death; whoever comes next finds what it left.

        Returns:
            What the work returned, or the refusal; None when the process died.
        """
        case, before, fate = self.case(actor), self.view(), self.world.fate
        self.stale = case.standing()
        try:
            fate.left = death[1] if death is not None and death[0] == "reconcile" else None
            bring_together(case)
            self.absorb(before)
            fate.left = death[1] if death is not None and death[0] == "work" else None
            answer = answered(case, work)
        except Killed:
            answer = None
        finally:
            fate.left = None
        self.absorb(before)
        if answer is not None:
            self.agree()
        return answer

    def case(self, actor: str) -> Case:
        world = self.world
        return Case(self.policy, world.stores, world.ledger, now=world.now, actor=actor, trail="a trail")

    def view(self) -> View:
        return registry.Registry(self.world.stores).view(self.model)

    def agree(self) -> None:
        """Ledger and MLflow say the same."""
        standing, view = self.world.ledger.standing(self.model), self.view()
        assert standing.pending is None
        assert view.production == (() if standing.production is None else (standing.production,))
        assert standing.production is None or view.champion == standing.production
        assert standing.staged is None or (standing.staged in view.staging and view.challenger == standing.staged)

    def absorb(self, before: View) -> None:
        """Tell the model what was settled since, and hold the ledger against it."""
        rows = self.world.ledger.history(self.model)
        for row in rows[len(self.rows) :]:
            if (row.actor, row.action) == (PERSON, "promote"):
                self.expected.release(row.version)
        for row in rows[len([one for one in self.rows if one.state != "intended"]) :]:
            assert row.state != "abandoned" or row.version not in before.versions, "nothing else is given up"
            if row.state == "applied":
                if row.action == "external":
                    self.may_be_adopted(row, before)
                assert row.applied_at == self.world.now
                self.expected.finish(row)
        assert [one.seq for one in rows] == list(range(1, len(rows) + 1))
        assert all(row.state != "intended" for row in rows[:-1])
        self.rows = rows
        standing, model = self.world.ledger.standing(self.model), self.expected
        assert (standing.production, standing.staged) == (model.production, model.staged)
        assert (list(standing.known_good), list(standing.quarantined)) == (model.good, model.bad)

    def may_be_adopted(self, row: Transition, before: View) -> None:
        """A change from outside becomes the truth only where the policy says so, or where nothing served."""
        version = row.evidence["production"]
        if self.expected.production is None:
            assert version in before.production
            return
        assert self.policy.external == "adopt"
        assert version not in self.expected.bad
        assert version is None or version in before.production

    def teardown(self) -> None:
        """The next flow finds whatever was left, and all is in order."""
        before = self.view()
        bring_together(self.case(FLOW))
        self.absorb(before)
        self.agree()

    # What flows and people do.

    @rule(healthy=st.booleans(), death=deaths)
    def deploy(self, healthy: bool, death: tuple[str, int] | None) -> None:
        """A new version, from the gate to Production; with luck its watch ends healthy."""
        version = self.register()

        def work(case: Case, standing: Standing) -> None:
            case.ledger.record(self.model, GATE, trail="a trail", at=case.now, version=version)
            promotion.stage(case, standing, version, GATE)
            promotion.promote(case, case.standing(), version, SHADOW)
            if healthy:
                case.state(version, "known-good", "it was healthy")
                self.expected.good.insert(0, version)

        answer = self.flow(FLOW, work, death)
        assert answer is None or self.expected.production == version

    @rule(death=deaths)
    def train(self, death: tuple[str, int] | None) -> None:
        """A new version that waits in Staging."""
        version = self.register()
        answer = self.flow(FLOW, lambda case, standing: promotion.stage(case, standing, version, GATE), death)
        assert answer is None or self.expected.staged == version

    @precondition(lambda self: self.expected.staged is not None)
    @rule(death=deaths)
    def promote(self, death: tuple[str, int] | None) -> None:
        """The version that waits has passed its shadow."""

        def work(case: Case, standing: Standing) -> Any:
            return standing.staged and promotion.promote(case, standing, standing.staged, SHADOW)

        self.flow(FLOW, work, death)

    @rule(number=numbers, override=st.booleans(), death=deaths)
    def promote_by_hand(self, number: int, override: bool, death: tuple[str, int] | None) -> None:
        version, harmful = self.named(number), []

        def work(case: Case, standing: Standing) -> Any:
            harmful.append(version in self.expected.bad)
            return promotion.by_hand(case, standing, version, "I know better", override=override)

        answer = self.flow(PERSON, work, death)
        if answer is not None:
            went = not isinstance(answer, ValueError | MissingVersion)
            assert went or not (override and self.answers(version))
            assert not went or (self.expected.production == version and self.answers(version))
            assert not went or override or not harmful[0]

    @rule(number=numbers, death=deaths)
    def reject(self, number: int, death: tuple[str, int] | None) -> None:
        version = self.named(number)
        self.flow(PERSON, lambda case, standing: promotion.reject(case, standing, version, "no"), death)

    @rule()
    def watch_finds_it_unhealthy(self) -> None:
        self.back(FLOW, None, None)

    @rule(death=fates)
    def watch_dies_over_it(self, death: tuple[str, int]) -> None:
        self.back(FLOW, None, death)

    @rule(number=st.none() | numbers, death=deaths)
    def roll_back_by_hand(self, number: int | None, death: tuple[str, int] | None) -> None:
        self.back(PERSON, None if number is None else self.named(number), death)

    def back(self, actor: str, to: str | None, death: tuple[str, int] | None) -> None:
        told: list[str | None] = []

        def work(case: Case, standing: Standing) -> Any:
            targets = [one for one in self.expected.targets() if to in {None, one}]
            held = actor == FLOW and self.expected.exhausted(case.now)
            told.append(None if held else next(filter(self.answers, targets), None))
            return rollback.roll_back(case, standing, reason="it fails", to=to, automatic=actor == FLOW)

        answer = self.flow(actor, work, death)
        if isinstance(answer, MissingVersion):  # a person names one that is not there
            assert not self.world.registered[self.model]
        elif answer is not None:
            assert answer.target == told[0]
            assert told[0] is None or self.expected.production == told[0]

    @rule()
    def watch_finds_it_healthy(self) -> None:
        def work(case: Case, standing: Standing) -> None:
            version = standing.production
            if version is not None and version not in standing.known_good:
                case.state(version, "known-good", "it was healthy")
                self.expected.good.insert(0, version)

        self.flow(FLOW, work)

    @precondition(lambda self: self.stale is not None and self.stale.seq < len(self.rows))
    @rule(number=numbers, action=st.sampled_from(["promote", "rollback", "stage", "reject"]))
    def decide_on_what_was(self, number: int, action: Any) -> None:
        """Somebody read the ledger before somebody else moved."""
        assert self.stale is not None
        case, before = self.case(PERSON), self.view()
        told = {"action": action, "version": self.named(number), "actor": PERSON, "reason": "late", "trail": "late"}
        with pytest.raises((StaleDecision, MissingVersion)):
            case.registry().move(case.ledger, self.stale, at=case.now, **told)
        assert self.view() == before
        self.absorb(before)

    # What happens outside.

    @rule(number=numbers, place=st.sampled_from(PLACES), archive=st.booleans())
    def meddle(self, number: int, place: str, archive: bool) -> None:
        """By hand in MLflow. What serves is not deleted here: a test of its own tells what happens then."""
        version = self.named(number)
        if place == "broken":
            self.world.broken.add((self.model, version))
        elif version not in self.view().versions:
            return
        elif place in {"champion", "challenger"}:
            self.client.set_registered_model_alias(self.model, place, version)
        elif place != "nowhere":
            archive = archive and place in {"Production", "Staging"}
            self.client.transition_model_version_stage(self.model, version, place, archive_existing_versions=archive)
        elif version != self.expected.production:
            self.client.delete_model_version(self.model, version)

    @precondition(lambda self: self.expected.bad)
    @rule(number=numbers, archive=st.booleans())
    def click_what_was_left(self, number: int, archive: bool) -> None:
        """Somebody puts a version into Production that was rolled back from; or a late write does."""
        version = self.expected.bad[number % len(self.expected.bad)]
        if version in self.view().versions:
            kept = {"archive_existing_versions": archive}
            self.client.transition_model_version_stage(self.model, version, "Production", **kept)

    @rule(hours=st.sampled_from([0, 1, 30, 100]))
    def time_passes(self, hours: int) -> None:
        self.world.now += timedelta(hours=hours, seconds=1)

    def register(self) -> str:
        return self.world.register(self.model)

    def named(self, number: int) -> str:
        return str(max(1, self.world.registered[self.model] - number))

    def answers(self, version: str) -> bool:
        return self.world.answers(self.model, version)

    # What always holds.

    @invariant()
    def something_serves_unless_a_person_took_it_out(self) -> None:
        taken_out = any(row.action == "external" and row.evidence["production"] is None for row in self.rows)
        assert self.expected.production is not None or not self.expected.served or taken_out

    @invariant()
    def who_served_is_known_for_every_moment(self) -> None:
        served = self.expected.served
        for moment in {at + late for at, _ in served for late in (timedelta(0), timedelta(seconds=-1))}:
            found = self.world.ledger.serving_at(self.model, moment)
            version = next((one for at, one in reversed(served) if at <= moment), None)
            assert (None if found is None else found.version) == version


def bring_together(case: Case) -> None:
    reconcile(case.registry(), case.ledger, case.model, external=case.policy.external, at=case.now, trail=case.trail)


def answered(case: Case, work: Callable[[Case, Standing], Any]) -> Any:
    try:
        return work(case, case.standing()) or "done"
    except (MissingVersion, ValueError) as refusal:
        return refusal


@pytest.fixture(scope="module")
def world(mlflow_template: Path) -> Iterator[World]:
    with small_world(mlflow_template) as made, pytest.MonkeyPatch.context() as patch:
        fate = made.fate

        def tried(case: Case, version: str) -> Finding:
            outcome: Any = "ok" if made.answers(case.model, version) else "breach"
            return Finding(name=f"version {version} answers", outcome=outcome, reason="as it is played")

        patch.setattr(registry, "MlflowClient", lambda **_: Mortal(made.client, fate))
        patch.setattr(Held, "settle", fate.watched(Held.settle))
        patch.setattr(Ledger, "intend", fate.watched(Ledger.intend))
        patch.setattr(promotion, "try_out", tried)
        patch.setattr(rollback, "try_out", tried)
        yield made


@pytest.mark.slow  # every move is two dozen calls to MLflow
@pytest.mark.timeout(0 if SEQUENCES else 300)
@pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")
def test_no_sequence_of_moves_deaths_and_clicks_breaks_what_should_hold(world: World) -> None:
    """See the module for what is played; BACKSTOP_SEQUENCES says how many sequences (15 unless told)."""
    Sequences.world = world
    play(
        Sequences,
        settings=settings(
            max_examples=SEQUENCES or USUAL,
            stateful_step_count=STEPS,
            derandomize=not SEQUENCES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
