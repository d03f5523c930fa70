"""User code that the policy names, and metrics that are not built in."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tasks.plugins import PluginError, custom_metric, expand, resolve, scorer


def test_an_import_path_gives_the_function_behind_it() -> None:
    assert resolve("json:dumps", place="gate.checks")([1]) == "[1]"


@pytest.mark.parametrize(
    ("path", "accepts", "said"),
    [
        ("no_such_package_of_ours:thing", (), "cannot be imported"),
        ("json:dmps", (), "did you mean 'dumps'"),
        ("math:pi", (), "is a float"),
        ("json", (), "package.module:name"),
        ("samples:loader", ("start", "end", "colour"), "colour"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_key_and_value(path: str, accepts: tuple[str, ...], said: str) -> None:
    with pytest.raises(PluginError) as told:
        resolve(path, place="data.source", accepts=accepts)
    assert said in str(told.value)
    assert "data.source" in str(told.value)
    assert path in str(told.value)


def test_a_signature_that_takes_what_is_passed_is_accepted() -> None:
    assert resolve("samples:loader", place="data.source", accepts=("start", "end"))


def test_environment_variables_are_filled_in() -> None:
    assert expand("sql://${USER_NAME}@${HOST}/x", {"USER_NAME": "me", "HOST": "there"}) == "sql://me@there/x"


@pytest.mark.parametrize("environment", [{}, {"HOST": ""}])
def test_an_unset_or_empty_variable_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(PluginError, match="variable HOST is not set"):
        expand("sql://${HOST}/x", environment)


def test_built_in_metrics_need_no_custom_function() -> None:
    assert custom_metric("accuracy") is None
    assert custom_metric("rmse") is None


def test_a_metric_may_be_a_function_of_the_users_own() -> None:
    found = custom_metric("numpy:allclose")
    assert found is not None
    assert found(np.array([1.0]), np.array([1.0]), 1e-5)


def test_scorers_give_what_scikit_learn_gives_on_the_same_answers() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, 200)
    score = np.clip(truth * 0.3 + draw.random(200) * 0.7, 0, 1)
    probability = np.c_[1 - score, score]
    prediction = (score > 0.5).astype(int)
    assert scorer("average_precision")(truth, prediction, probability) > 0.5
    assert scorer("roc_auc")(truth, prediction, probability) == pytest.approx(roc_auc_score(truth, score))
    balanced = scorer("balanced_accuracy")(truth, prediction, None)
    assert balanced == pytest.approx(balanced_accuracy_score(truth, prediction))
    assert scorer("neg_log_loss")(truth, prediction, probability) < 0  # more is better for losses too
    assert scorer("explained_variance")(truth * 1.0, score, None) < 1


def test_an_unknown_metric_is_an_error_with_a_near_match() -> None:
    with pytest.raises(PluginError, match="did you mean 'balanced_accuracy'"):
        scorer("balanced_acuracy")
