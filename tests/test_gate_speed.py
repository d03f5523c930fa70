"""The gate asks each model for the holdout once, whatever it checks."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from test_scoring import Counting, metered

from benchmarks import gate_speed
from benchmarks.gate_speed import Stage
from tasks import evidence, training
from tasks.decide import gate
from tasks.policy import Gate, SliceCheck
from tasks.registry import Registry
from tasks.scoring import score
from tasks.training import Fitted

ROWS, CALLS, ALONE = 1_500, 299, 16


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[Stage]:
    """A candidate and a version in Production, as the benchmark has them."""
    folder = tmp_path_factory.mktemp("gate")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = gate_speed.stage(folder, "gradient boosting", ROWS, trained=2 * ROWS, calls=CALLS)
    with made.case.ledger:
        yield made


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_each_model_scores_the_holdout_once_whatever_is_checked(stage: Stage, metric: str) -> None:
    (candidate, asked), (production, before) = metered(stage.made.fitted.model), metered(stage.production)
    rules: Gate = stage.case.policy.gate.model_copy(
        update={
            "performance": stage.case.policy.gate.performance.model_copy(update={"metric": metric}),  # type: ignore[union-attr]
            "slices": (SliceCheck(by="x0", metric=metric), SliceCheck(by="x1")),
        }
    )
    case = replace(stage.case, policy=stage.case.policy.model_copy(update={"gate": rules}))
    fitted = Fitted(model=candidate, params={})
    on = replace(stage, case=case, made=replace(stage.made, fitted=fitted), production=production)
    verdict = gate.judge(gate_speed.gathered(on), rules, problem="binary")
    assert {"performance", "regression", "stability", "latency", "slice x0 = up to"} <= {
        " ".join(one.name.split()[:5]) for one in verdict.findings
    }
    assert ROWS <= before.rows <= ROWS + 5, "ties are asked again"
    # Some rows are asked alone, and single ones are timed, in up to three rounds.
    assert ROWS + ALONE + CALLS <= asked.rows <= ROWS + 5 + 2 * ALONE + 3 * (CALLS + 20)


def test_a_candidate_that_looks_at_other_rows_fails_unless_that_is_meant(stage: Stage) -> None:
    model = make_pipeline(FunctionTransformer(lambda rows: rows - rows.mean()), stage.made.fitted.model)
    scores = score(model, stage.made.split.holdout, classes=stage.made.scores.classes)
    made = replace(stage.made, fitted=Fitted(model=model, params={}), scores=scores)
    found = evidence.for_gate(stage.case, stage.standing, made)
    assert [(one.name, one.outcome) for one in found.extra] == [("alone", "breach")]
    rules = stage.case.policy.gate
    assert gate.judge(found, rules, problem="binary").decision == "fail"
    meant = stage.case.policy.model_copy(update={"gate": rules.model_copy(update={"alone": False})})
    assert not evidence.for_gate(replace(stage.case, policy=meant), stage.standing, made).extra


def test_production_is_loaded_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    plain = Registry.load

    def load(registry: Registry, *args: object) -> object:
        loaded.append(str(args[-1]))
        return plain(registry, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "load", load)
    found = evidence.for_gate(stage.case, stage.standing, stage.made)
    assert found.production is not None
    assert found.known == found.candidate.classes, "what the model knows is looked at"
    assert loaded == ["1"]


def test_no_more_fitted_rows_are_scored_than_the_holdout_has_nor_than_are_enough(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage.made
    for enough, scored in ((10 * ROWS, ROWS), (ROWS // 2, ROWS // 2)):
        monkeypatch.setattr(training, "_ENOUGH", enough)
        model = Counting(made.fitted.model)
        found = training.train_metrics(stage.case.policy, model, made.split, made.profile)
        assert found["accuracy"] > 0.5
        assert model.rows["predict_proba"] == scored < len(made.split.train)


def test_the_textbook_class_that_is_measured_beside_it_does_what_it_is_said_to(stage: Stage) -> None:
    model, before = Counting(stage.made.fitted.model), Counting(stage.production)
    on = replace(stage, made=replace(stage.made, fitted=Fitted(model=model, params={})), production=before)
    assert gate_speed.textbook(on)
    assert [one.rows["predict_proba"] for one in (model, before)] == [ROWS, ROWS]
    assert (model.rows["predict"], before.rows["predict"]) == (2 * ROWS + CALLS + 20, ROWS)
