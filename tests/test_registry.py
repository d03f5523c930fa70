"""The registry: one version in Production, whatever crashes or is clicked, and files that are what was judged."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks import artifact, registry
from tasks.decide.rollback import choose
from tasks.ledger import Ledger, Refused, StaleDecision
from tasks.reconcile import reconcile
from tasks.records import Action, Finding, Standing, Transition
from tasks.registry import MissingVersion, Registry, RegistryMismatch, SwappedArtifact
from tasks.stores import Stores

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)


class Place:
    """A ledger, MLflow with three versions of a model, and short words for what is done to them."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.ledger = Ledger.open(stores.ledger, clock=lambda: T0)
        self.registry = Registry(stores)
        self.client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
        self.client.create_registered_model("churn")
        for number in (1, 2, 3):
            self.add(number)

    def add(self, number: int) -> Path:
        folder = self.stores.home / "artifacts" / str(number)
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text(f"flavors: {number}")
        self.client.create_model_version("churn", source=folder.as_uri())
        return folder

    def move(self, action: Action, version: str, standing: Standing | None = None) -> Transition:
        return self.registry.move(
            self.ledger,
            standing or self.standing,
            action=action,
            version=version,
            actor="ada",
            reason=f"{action} it",
            at=T0,
            trail="t1",
            evidence={"findings": (Finding(name="x", outcome="ok", reason="r"),)},
        )

    def intend(self, action: Action, version: str) -> Transition:
        standing = self.standing
        return self.ledger.intend(
            model="churn",
            based_on=standing.seq,
            action=action,
            version=version,
            actor="ada",
            reason="it is better",
            at=T0,
            trail="t1",
        )

    def click(self, version: str, stage: str, *, archive: bool = False) -> None:
        """Somebody changes a stage in MLflow's own interface."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.client.transition_model_version_stage("churn", version, stage, archive_existing_versions=archive)

    def reconcile(self, external: str = "repair") -> tuple[Finding, ...]:
        found = reconcile(self.registry, self.ledger, "churn", external=external, at=LATER, trail="t2")  # type: ignore[arg-type]
        assert reconcile(self.registry, self.ledger, "churn", external=external, at=LATER, trail="t3") == () or any(  # type: ignore[arg-type]
            "nothing was changed" in finding.reason for finding in found
        ), "what is reconciled stays so"
        return found

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.client.get_model_version("churn", version).tags)

    @property
    def standing(self) -> Standing:
        return self.ledger.standing("churn")

    @property
    def view(self) -> Any:
        return self.registry.view("churn")


@pytest.fixture
def place(stores: Stores) -> Iterator[Place]:
    made = Place(stores)
    yield made
    made.ledger.close()


# Moving.


def test_a_model_that_mlflow_does_not_know_has_an_empty_view(place: Place) -> None:
    view = place.registry.view("fraud")
    assert (view.production, view.staging, view.versions) == ((), (), ())
    assert reconcile(place.registry, place.ledger, "fraud", external="repair", at=T0, trail="t") == ()


def test_a_version_goes_from_staging_to_production_and_the_aliases_follow(place: Place) -> None:
    place.move("stage", "1")
    assert (place.view.staging, place.view.challenger, place.view.champion) == (("1",), "1", None)
    done = place.move("promote", "1")
    assert (place.view.production, place.view.staging) == (("1",), ())
    assert (place.view.champion, place.view.challenger) == ("1", None)
    assert (done.state, done.seq, place.standing.production) == ("applied", 2, "1")
    assert place.tags("1")["backstop.trail"] == "t1"
    assert place.tags("1")["backstop.transition"] == "2 promote"


def test_a_promotion_archives_the_version_before_it(place: Place) -> None:
    place.move("promote", "1")
    place.move("promote", "2")
    assert place.view.production == ("2",)
    assert place.client.get_model_version("churn", "1").current_stage == "Archived"


def test_a_rollback_goes_back_and_marks_the_bad_version(place: Place) -> None:
    place.move("promote", "1")
    place.move("promote", "2")
    place.move("rollback", "1")
    assert (place.view.production, place.view.champion) == (("1",), "1")
    assert place.tags("2")["backstop.quarantined"] == "rollback it"
    assert place.standing.quarantined == ("2",)
    with pytest.raises(Refused, match="quarantined"):
        place.move("promote", "2")
    assert place.view.production == ("1",)


def test_a_rejected_candidate_is_archived_with_the_reason(place: Place) -> None:
    place.move("promote", "1")
    place.move("stage", "2")
    place.move("reject", "2")
    assert (place.view.production, place.view.staging, place.view.challenger) == (("1",), (), None)
    assert place.tags("2")["backstop.rejected"] == "reject it"


def test_a_newer_candidate_takes_the_place_in_staging(place: Place) -> None:
    place.move("stage", "1")
    place.move("stage", "2")
    assert (place.view.staging, place.standing.staged) == (("2",), "2")


def test_whoever_decided_on_an_older_standing_changes_nothing(place: Place) -> None:
    seen = place.standing
    place.move("promote", "1")
    with pytest.raises(StaleDecision, match="ada got in first"):
        place.move("promote", "2", seen)
    assert place.view.production == ("1",)


def test_a_version_that_does_not_exist_is_named_before_anything_is_begun(place: Place) -> None:
    with pytest.raises(MissingVersion, match="no version 9 of churn"):
        place.move("promote", "9")
    assert place.ledger.history("churn") == ()


def test_carrying_out_twice_is_carrying_out_once(place: Place) -> None:
    pending = place.intend("promote", "1")
    first = place.registry.carry_out(place.ledger, pending)
    assert place.registry.carry_out(place.ledger, pending) == first
    assert len(place.ledger.history("churn")) == 1


def test_an_abandoned_intent_is_not_carried_out(place: Place) -> None:
    pending = place.intend("promote", "1")
    place.ledger.settle(pending, "abandoned")
    with pytest.raises(StaleDecision, match="given up"):
        place.registry.carry_out(place.ledger, pending)
    assert place.view.production == ()


def test_what_is_read_back_must_be_what_was_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.move("promote", "1")

    def meddle(_transition: Transition) -> None:
        place.click("1", "Production")  # somebody clicks between writing and reading back

    monkeypatch.setattr(place.registry, "_explain", meddle)
    with pytest.raises(RegistryMismatch, match=r"Production \('1', '2'\)"):
        place.move("promote", "2")
    assert place.standing.pending is not None, "the intent stays"
    monkeypatch.undo()
    (finding,) = place.reconcile()
    assert "completed" in finding.reason
    assert place.view.production == ("2",)


def test_mlflow_being_down_leaves_the_intent_for_the_next_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise ConnectionError("MLflow is down")

    with monkeypatch.context() as patch:
        patch.setattr(place.registry._client, "transition_model_version_stage", down)
        with pytest.raises(ConnectionError):
            place.move("promote", "1")
    assert place.standing.pending is not None
    place.reconcile()
    assert (place.standing.production, place.view.production) == ("1", ("1",))


def test_the_deprecation_of_stages_is_silenced_here_and_nowhere_else(place: Place) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        place.move("promote", "1")
        warnings.warn("stages elsewhere", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught if warning.category is FutureWarning] == ["stages elsewhere"]


# Reconciling.


def test_nothing_is_found_when_all_is_in_order(place: Place) -> None:
    assert place.reconcile() == ()
    place.move("promote", "1")
    place.move("stage", "2")
    assert place.reconcile() == ()


@pytest.mark.parametrize("action", ["stage", "promote", "rollback"])
def test_an_intent_that_was_left_is_completed(place: Place, action: Action) -> None:
    place.move("promote", "1")
    place.intend(action, "2")
    (finding,) = place.reconcile()
    assert finding.name == "registry"
    assert "ada began the" in finding.reason
    assert [row.state for row in place.ledger.history("churn")] == ["applied", "applied"]
    assert place.view.production == (("1",) if action == "stage" else ("2",))


def test_an_intent_whose_version_was_deleted_is_given_up(place: Place) -> None:
    place.move("promote", "1")
    place.intend("promote", "2")
    place.client.delete_model_version("churn", "2")
    (finding,) = place.reconcile()
    assert (finding.outcome, "given up" in finding.reason) == ("breach", True)
    assert (place.standing.production, place.standing.pending, place.view.production) == ("1", None, ("1",))


def test_a_model_that_served_before_backstop_came_is_taken_over_with_its_digest(place: Place) -> None:
    place.click("2", "Production")
    (finding,) = place.reconcile()
    assert finding.outcome == "breach"
    assert place.standing.production == "2"
    assert place.view.champion == "2"
    (row,) = place.ledger.history("churn")
    assert (row.action, row.state, row.applied_at) == ("external", "applied", LATER)
    assert place.ledger.digest("churn", "2") == artifact.digest(place.registry.download("churn", "2"))


def test_of_several_that_served_before_the_champion_is_kept(place: Place) -> None:
    for version in ("1", "2", "3"):
        place.click(version, "Production")
    place.client.set_registered_model_alias("churn", "champion", "2")
    (finding,) = place.reconcile()
    assert "versions 1, 2, 3" in finding.reason
    assert (place.view.production, place.standing.production) == (("2",), "2")


@pytest.mark.parametrize("archive", [False, True])
def test_repair_undoes_a_promotion_that_was_clicked(place: Place, archive: bool) -> None:
    place.move("promote", "1")
    place.click("2", "Production", archive=archive)
    (finding,) = place.reconcile("repair")
    assert finding.outcome == "breach"
    assert "version 1 was put back" in finding.reason
    assert (place.view.production, place.view.champion, place.standing.seq) == (("1",), "1", 1)


@pytest.mark.parametrize("archive", [False, True])
def test_adopt_takes_a_promotion_that_was_clicked_as_the_truth(place: Place, archive: bool) -> None:
    place.move("promote", "1")
    place.click("2", "Production", archive=archive)
    (finding,) = place.reconcile("adopt")
    assert "adopts it" in finding.reason
    assert (place.view.production, place.view.champion) == (("2",), "2")
    last = place.ledger.history("churn")[-1]
    assert (last.action, last.version, last.previous, last.trail) == ("external", "2", "1", "t2")
    assert place.ledger.digest("churn", "2") is not None


def test_an_ambiguous_change_is_undone_even_where_changes_are_adopted(place: Place) -> None:
    place.move("promote", "1")
    place.click("2", "Production")
    place.click("3", "Production")
    place.reconcile("adopt")
    assert (place.view.production, place.standing.production) == (("1",), "1")


def test_production_taken_out_by_hand_is_put_back_or_taken_as_the_truth(place: Place) -> None:
    place.move("promote", "1")
    place.click("1", "Archived")
    place.reconcile("repair")
    assert place.view.production == ("1",)
    place.click("1", "Archived")
    place.reconcile("adopt")
    assert (place.view.production, place.standing.production) == ((), None)
    assert place.ledger.serving_at("churn", LATER) is None


def test_a_deleted_production_version_is_told_and_leaves_the_ledger_as_it_is(place: Place) -> None:
    place.move("promote", "1")
    place.ledger.state_fact("churn", "2", "known-good", at=T0, reason="r", actor="a", trail="t")
    place.client.delete_model_version("churn", "1")
    (finding,) = place.reconcile("repair")
    assert "was deleted from MLflow" in finding.reason
    assert place.standing.production == "1", "the gate must not take the next candidate for a first model"
    place.move("rollback", "2")
    assert place.reconcile() == ()


def test_an_alias_that_was_moved_is_set_again(place: Place) -> None:
    place.move("promote", "1")
    place.client.set_registered_model_alias("churn", "champion", "3")
    (finding,) = place.reconcile()
    assert "pointed to version 3" in finding.reason
    assert place.view.champion == "1"


def test_a_candidate_that_was_moved_is_put_back_and_one_that_was_deleted_is_given_up(place: Place) -> None:
    place.move("promote", "1")
    place.move("stage", "2")
    place.click("2", "None")
    place.reconcile()
    assert (place.view.staging, place.view.challenger) == (("2",), "2")
    place.client.delete_model_version("churn", "2")
    place.reconcile()
    assert place.standing.staged is None
    assert place.standing.production == "1"


def test_a_candidate_promoted_by_a_click_goes_back_to_staging_when_changes_are_repaired(place: Place) -> None:
    place.move("promote", "1")
    place.move("stage", "2")
    place.click("2", "Production", archive=True)
    place.reconcile("repair")
    assert (place.view.production, place.view.staging, place.standing.staged) == (("1",), ("2",), "2")


# Files.


def describe(place: Place, version: str) -> Path:
    folder = place.registry.download("churn", version)
    place.ledger.describe_external("churn", version, digest=artifact.digest(folder), size=artifact.size(folder))
    return folder


def test_a_local_artifact_is_used_where_it_is(place: Place) -> None:
    folder = describe(place, "1")
    assert folder == place.stores.home / "artifacts" / "1"
    assert place.registry.fetch(place.ledger, "churn", "1") == folder


def test_a_swapped_artifact_is_not_loaded(place: Place) -> None:
    folder = describe(place, "1")
    (folder / "MLmodel").write_text("flavors: evil")
    with pytest.raises(SwappedArtifact, match=r"files of version 1 of churn .* were judged with"):
        place.registry.fetch(place.ledger, "churn", "1")
    (folder / "MLmodel").write_text("flavors: 1")
    (folder / "more.py").write_text("")
    with pytest.raises(SwappedArtifact):
        place.registry.fetch(place.ledger, "churn", "1")


def test_files_that_are_gone_are_named(place: Place) -> None:
    folder = describe(place, "1")
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(MissingVersion, match="files of version 1 of churn are not at"):
        place.registry.fetch(place.ledger, "churn", "1")
    with pytest.raises(MissingVersion, match="no version 9"):
        place.registry.download("churn", "9")
    with pytest.raises(MissingVersion, match="no version 9"):
        place.registry.tag("churn", "9", "a", "b")


def test_files_that_are_elsewhere_are_copied_once_and_again_when_the_copy_was_touched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = describe(place, "1")
    monkeypatch.setattr(registry, "_local", lambda _: None)  # as if MLflow kept them in a bucket
    copy = place.registry.fetch(place.ledger, "churn", "1")
    assert copy == place.stores.home / "downloads" / "churn" / "1"
    assert artifact.digest(copy) == artifact.digest(folder)
    folder.rename(folder.with_name("elsewhere"))
    assert place.registry.fetch(place.ledger, "churn", "1") == copy, "what is there and right is not fetched again"
    (copy / "MLmodel").write_text("flavors: evil")
    folder.with_name("elsewhere").rename(folder)
    assert (place.registry.fetch(place.ledger, "churn", "1") / "MLmodel").read_text() == "flavors: 1"
    assert [path.name for path in copy.parent.iterdir()] == ["1"], "nothing else is left behind"


def test_a_right_copy_does_not_vouch_for_what_the_store_has_now(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = describe(place, "1")
    monkeypatch.setattr(registry, "_local", lambda _: None)
    copy = place.registry.fetch(place.ledger, "churn", "1")
    (folder / "MLmodel").write_text("flavors: evil")
    assert place.registry.fetch(place.ledger, "churn", "1") == copy
    with pytest.raises(SwappedArtifact, match="were judged with"):
        place.registry.fetch(place.ledger, "churn", "1", fresh=True)


def test_ledger_and_mlflow_in_one_file_are_refused_because_they_would_wait_for_each_other(stores: Stores) -> None:
    with pytest.raises(ValueError, match="would wait for ever"):
        Registry(replace(stores, tracking=stores.ledger))


# Where to go back to.


def standing(**given: object) -> Standing:
    return replace(Standing(model="churn", seq=9, production="5"), **given)  # type: ignore[arg-type]


def test_a_rollback_goes_to_the_newest_version_known_good_not_to_the_newest_archived(place: Place) -> None:
    for version in ("1", "2", "3"):
        place.move("promote", version)
        if version == "1":
            place.ledger.state_fact("churn", version, "known-good", at=T0, reason="r", actor="a", trail="t")
    choice = choose(place.standing, rollbacks_in_window=0, limit=2)
    assert (choice.version, choice.finding.outcome) == ("1", "ok")


def test_two_bad_versions_are_never_swapped_for_ever(place: Place) -> None:
    for version in ("1", "2"):
        place.move("promote", version)
        place.ledger.state_fact("churn", version, "known-good", at=T0, reason="r", actor="a", trail="t")
    place.move("rollback", "1")
    choice = choose(place.standing, rollbacks_in_window=1, limit=5)
    assert choice.version is None
    assert "none but version 1 finished a watch healthy, and version 2 was rolled back from" in choice.finding.reason


def test_all_known_good_versions_are_offered_newest_first() -> None:
    found = choose(standing(known_good=("5", "4", "3", "2"), quarantined=("3",)), rollbacks_in_window=1, limit=2)
    assert found.versions == ("4", "2")


@pytest.mark.parametrize(
    ("given", "to", "said"),
    [
        ({}, None, "none ever finished a watch healthy"),
        ({"known_good": ("5",)}, None, "none but version 5 finished"),
        ({"known_good": ("4",)}, "5", "it is in Production now"),
        ({"known_good": ("4",)}, "3", "it never finished a watch healthy"),
        ({"known_good": ("4",), "quarantined": ("3",)}, "3", "rolled back from and is quarantined"),
    ],
)
def test_without_an_eligible_version_a_person_is_told_why(given: dict[str, object], to: str | None, said: str) -> None:
    choice = choose(standing(**given), rollbacks_in_window=0, limit=2, to=to)
    assert (choice.versions, choice.finding.outcome) == ((), "breach")
    assert said in choice.finding.reason


def test_after_too_many_rollbacks_a_person_decides() -> None:
    choice = choose(standing(known_good=("4",)), rollbacks_in_window=2, limit=2)
    assert choice.version is None
    assert (choice.finding.value, choice.finding.threshold) == (2, 2)
    assert "a person has to decide" in choice.finding.reason
