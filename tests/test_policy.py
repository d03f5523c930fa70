"""A policy file: everything that is wrong is told at once, overrides win, and nothing weakens a check by accident."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.case import check_plugins
from tasks.plugins import PluginError, expand
from tasks.policy import Policy
from tasks.policy_file import PolicyError, load, load_many, read_aloud

GOOD = """\
model: churn
data:
  source: churn.csv
  target: churned
  timestamp: observed_at
training:
  estimator: sklearn.linear_model:LogisticRegression
  params: {C: 0.5, class_weight:}
"""
POLICIES = Path(__file__).resolve().parent.parent / "policies"


def written(folder: Path, text: str = GOOD, name: str = "churn.yaml") -> Path:
    path = folder / name
    path.write_text(dedent(text), "utf-8")
    return path


def problems(path: Path | str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(path, environment or {})
    return [str(problem) for problem in caught.value.problems]


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


# Reading


def test_only_model_data_and_training_are_needed_and_the_promised_defaults_hold(tmp_path: Path) -> None:
    policy = load(written(tmp_path), {})
    assert (policy.triggers.age, policy.triggers.volume) == (timedelta(days=30), 50_000)
    assert policy.triggers.performance is not None
    assert (policy.triggers.performance.metric, policy.triggers.performance.drop) == ("accuracy", 0.03)
    assert policy.gate.performance is not None
    assert (policy.gate.performance.metric, policy.gate.performance.at_least) == ("accuracy", 0.85)
    assert policy.gate.regression is not None
    assert (policy.gate.regression.metric, policy.gate.regression.margin) == ("f1_weighted", 0.02)
    assert policy.gate.latency is not None
    assert policy.gate.latency.p99.total_seconds() == 0.05
    assert (policy.gate.size, policy.gate.fresh_process) == (500_000_000, True)
    assert (policy.health.error_rate, policy.health.accuracy) == (0.1, 0.8)
    assert policy.training.params == {"C": 0.5, "class_weight": None}


def test_regression_gets_regression_metrics(tmp_path: Path) -> None:
    policy = load(written(tmp_path, GOOD + "problem: regression\n"), {})
    assert policy.gate.performance is not None
    assert policy.gate.regression is not None
    assert (policy.gate.performance.metric, policy.gate.performance.at_least) == ("r2", 0.5)
    assert policy.gate.regression.metric == "r2"


def test_the_text_and_the_file_are_kept(tmp_path: Path) -> None:
    policy = load(written(tmp_path), {})
    assert policy.text == GOOD
    assert policy.origin == str(tmp_path / "churn.yaml")


def test_every_example_policy_loads_without_any_variable_set() -> None:
    loaded = load_many(str(POLICIES), {})
    assert [policy.model for policy in loaded] == ["bike", "churn", "telco", "weather"]
    assert all("${" in policy.data.source for policy in loaded)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("churn.csv", "{folder}/churn.csv"),
        ("data/churn.parquet", "{folder}/data/churn.parquet"),
        ("/abs/churn.csv", "/abs/churn.csv"),
        ("${DATA}/churn.csv", "${DATA}/churn.csv"),
        ("package.module:loader", "package.module:loader"),
    ],
)
def test_a_relative_file_is_relative_to_the_policy(tmp_path: Path, source: str, expected: str) -> None:
    policy = load(written(tmp_path, GOOD.replace("churn.csv", source)), {})
    assert policy.data.source == expected.replace("{folder}", str(tmp_path))


@pytest.mark.parametrize(
    ("said", "expected"),
    [("../data", "{folder}/../data/churn.csv"), ("/abs", "/abs/churn.csv"), ("s3://bucket", "s3://bucket/churn.csv")],
)
def test_what_a_variable_stands_for_is_relative_to_the_policy_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: str
) -> None:
    monkeypatch.setenv("CHURN_DATA", said)
    policy = load(written(tmp_path, GOOD.replace("churn.csv", "${CHURN_DATA}/churn.csv")))
    assert expand(policy.data.source) == expected.replace("{folder}", str(tmp_path))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sqlite:///churn.db", "sqlite:///{folder}/churn.db"),
        ("sqlite:////abs/churn.db", "sqlite:////abs/churn.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql+psycopg://${PGUSER}@db/churn", "postgresql+psycopg://${PGUSER}@db/churn"),
    ],
)
def test_a_relative_database_is_relative_to_the_policy(tmp_path: Path, source: str, expected: str) -> None:
    policy = load(written(tmp_path, GOOD.replace("churn.csv", f"'{source}'\n  table: customers")), {})
    assert policy.data.source == expected.replace("{folder}", str(tmp_path))


def test_a_relative_notification_file_is_relative_to_the_policy(tmp_path: Path) -> None:
    policy = load(written(tmp_path, GOOD + 'notify: ["file:told.jsonl", "file:/abs", "${SLACK_URL}"]\n'), {})
    assert policy.notify == (f"file:{tmp_path}/told.jsonl", "file:/abs", "${SLACK_URL}")


# Problems


def test_every_problem_is_told_at_once_with_its_line_the_value_and_the_remedy(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
        model: churn
        problem: binry
        data:
          source: churn.csv
          target: yes
          timestamp: observed_at
          lookback: 180 parsecs
          lokback: 3d
        training:
          estimator: sklearn.linear_model.LogisticRegression
        triggers:
          retrain_when: agee or drift
          drift: {psi: .nan, false_alarms: 70%}
        gate:
          performance: {metric: f1}
          latency: 50ms
        shadow: of
        notify: slack://tokena/tokenb
        """,
    )
    expected = {
        2: ("problem", "'binry' is not known; use 'binary'"),
        5: ("data.target", "was read as yes or no, not as text; put it in quotes"),
        7: ("data.lookback", "'180 parsecs' is no duration; write a number and a unit"),
        8: ("data.lokback", "is no key of data; did you mean 'lookback'?"),
        10: (
            "training.estimator",
            "'sklearn.linear_model.LogisticRegression' cannot be used; write package.module:name",
        ),
        12: ("triggers.retrain_when", "'agee' in 'agee or drift' is no trigger; use age"),
        15: ("gate.performance.at_least", "f1 has no usual value"),
        16: ("gate.latency", "'50ms' is no section"),
        17: ("shadow", "'of' is no section"),
        18: ("notify", "is no list; write it as [first, second]"),
    }
    found = problems(path)
    for line, (key, message) in expected.items():
        assert [text for text in found if text.startswith(f"{path}:{line}: {key}: ") and message in text], (line, found)
    assert len([text for text in found if text.startswith(f"{path}:13: triggers.drift.")]) == 2
    assert len(found) == len(expected) + 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: churn\ndata:\ntraining: {estimator: a.b:C}\n", "2: data: is empty, and it is needed: write its keys"),
        (GOOD.replace("target: churned", "target:"), "4: data.target: is empty, and it is needed: Column to predict."),
        (GOOD + "shadow:\n", "9: shadow: is empty; write `off` to turn it off, or delete the line"),
        (
            GOOD + "rollout: {steps: [5, 25%, 100%]}\n",
            "9: rollout.steps.0: 5 does not fit: it should be a share, so write 5%",
        ),
        (
            GOOD + "rollout: {steps: [5%, 100]}\n",
            "9: rollout.steps.1: 100 does not fit: it should be a share, so write 100%",
        ),
    ],
)
def test_a_remedy_is_one(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    assert only(problems(path)).startswith(f"{path}:{told}")


def test_what_an_import_shows_to_be_wrong_has_its_line_too(tmp_path: Path) -> None:
    gate = "gate:\n  performance: {metric: f2, at_least: 0.5}\n  checks:\n  - no_such_module:check\n"
    path = written(tmp_path, GOOD.replace("LogisticRegression", "LogisticRegresion") + gate)
    with pytest.raises(PluginError) as caught:
        check_plugins(load(path, {"BACKSTOP_CHURN__GATE__REGRESSION": "{metric: f3, margin: 1pt}"}))
    estimator, check, floor, margin = caught.value.problems
    assert estimator.startswith(f"{path}:7: training.estimator: 'sklearn.linear_model:LogisticRegresion': ")
    assert check.startswith(f"{path}:11: gate.checks: 'no_such_module:check' cannot be imported")
    assert floor.startswith(f"{path}:10: gate.performance.metric: metric 'f2' is unknown")
    assert margin.startswith("environment variable BACKSTOP_CHURN__GATE__REGRESSION: gate.regression.metric: ")
    data = {"source": "a.csv", "target": "y", "timestamp": "t"}
    made = Policy.model_validate({"model": "m", "data": data, "training": {"trainer": "no_such_module:train"}})
    with pytest.raises(PluginError, match=r"^training\.trainer: "):  # what was made in code has no file
        check_plugins(made)


def test_how_many_of_several_cannot_be_read_is_known(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        written(tmp_path, GOOD.replace("model: churn", f"model: {name}"), f"{name}.yaml")
    for name in ("four", "five"):
        written(tmp_path, "model: 5\nproblem: binry\n", f"{name}.yaml")
    with pytest.raises(PolicyError) as caught:
        load_many(f"{tmp_path},gone.yaml,{tmp_path}/five.yaml", {})
    assert (len(caught.value.loaded), caught.value.unread) == (3, 3)


def test_a_check_over_a_whole_section_is_told_beside_the_mistakes_inside_it(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("  target: churned", "  target: 5\n  table: t"))
    found = problems(path)
    assert any("data.target: 5 was read as a number" in text for text in found)
    assert any("other sources take neither" in text for text in found)


def test_missing_keys_are_named_with_what_they_are(tmp_path: Path) -> None:
    found = problems(written(tmp_path, "model: churn\ndata: {source: a.csv}\n"))
    assert [text.split(": ")[1] for text in found] == ["training", "data.target", "data.timestamp"]
    assert all("is missing; add it" in text for text in found)


def test_a_repeated_key_is_an_error_and_not_the_last_one_wins(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "triggers:\n  age: 30d\n  age: 40d\n")
    assert only(problems(path)) == f"{path}:11: triggers.age: is there twice, first on line 10; keep one"


def test_an_emptied_section_is_an_error_and_does_not_turn_its_checks_off(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "gate:\n  regression:\n  #  margin: 2pt\nshadow:\n")
    found = problems(path)
    assert [text.split(": ")[:2] for text in found] == [[f"{path}:10", "gate.regression"], [f"{path}:12", "shadow"]]
    assert all("write `off` to turn it off, or delete the line" in text for text in found)


@pytest.mark.parametrize("word", ["off", "none", "no", "false"])
def test_off_turns_a_check_off_on_purpose(tmp_path: Path, word: str) -> None:
    policy = load(written(tmp_path, GOOD + f"gate:\n  regression: {word}\nshadow: {word}\n"), {})
    assert policy.gate.regression is None
    assert policy.shadow is None
    assert policy.gate.performance is not None


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("model: churn\n\tdata: x\n", 2, "is no YAML"),
        ("model: [churn\n", 2, "is no YAML"),
        ("- model: churn\n", 1, "holds no keys; start with `model: <name>`"),
        ("", 1, "holds no keys"),
        ("model: churn\n---\nmodel: other\n", 2, "is no YAML"),
        ("model: churn\ndata: &a [*a]\n", 2, "is no section"),
        ("model: churn\n? [a, b]\n: c\n", 2, "is no YAML"),
    ],
)
def test_broken_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = written(tmp_path, text)
    assert any(found.startswith(f"{path}:{line}: ") and message in found for found in problems(path))


def test_an_impossible_date_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("observed_at", "{start: 2024-13-45}"))
    assert "month must be in 1..12" in only(problems(path))


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "churn.yaml"
    path.write_bytes(b"model: \xff\xfe")
    assert "is not UTF-8" in only(problems(path))


@pytest.mark.parametrize("metric", ["[a]", "{a: 1}", "5"])
def test_a_metric_that_is_no_name_is_told_and_does_not_crash(tmp_path: Path, metric: str) -> None:
    path = written(tmp_path, GOOD + f"gate: {{performance: {{metric: {metric}, at_least: 1}}}}\n")
    assert "gate.performance.metric" in only(problems(path))


def test_a_metric_of_the_other_problem_is_refused(tmp_path: Path) -> None:
    assert "'rmse' does not fit binary" in only(
        problems(written(tmp_path, GOOD + "gate: {regression: {metric: rmse}}\n"))
    )


def test_no_secret_of_an_address_is_shown(tmp_path: Path) -> None:
    text = GOOD.replace("churn.csv", "postgresql://ana:hunter2@db/x") + "notify: slack://tokenA/tokenB\n"
    shown = "\n".join(problems(written(tmp_path, text)))
    assert "notify" in shown
    assert not [secret for secret in ("hunter2", "tokenA", "tokenB") if secret in shown]


@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "problem", "data", "training", "triggers", "gate", "shadow", "health", "notify", "x"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["metric", "performance", "age", "timestamp", "source", "y"]), inner)
            ),
            max_leaves=8,
        ),
    )
)
@settings(max_examples=120, deadline=None)
def test_whatever_the_file_holds_the_answer_is_a_policy_or_a_list_of_problems(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=False), "utf-8")
    with pytest.raises(PolicyError) as caught:  # nothing drawn here has a data section that is complete
        load(path, {})
    assert caught.value.problems
    assert all(str(path) in problem.where and problem.message for problem in caught.value.problems)


# Overrides


def test_the_environment_overrides_the_file_and_the_run_keeps_that_it_did(tmp_path: Path) -> None:
    environment = {
        "BACKSTOP_CHURN__GATE__LATENCY__P99": "80ms",
        "BACKSTOP_CHURN__TRIGGERS__DRIFT": "off",
        "BACKSTOP_CHURN__TRAINING__PARAMS__C": "2",
        "BACKSTOP_CHURN__NOTIFY": "[slack://tokenA/tokenB]",
        "BACKSTOP_OTHER__GATE__LATENCY__P99": "1s",
    }
    policy = load(written(tmp_path), environment)
    assert policy.gate.latency is not None
    assert policy.gate.latency.p99.total_seconds() == 0.08
    assert policy.triggers.drift is None
    assert policy.training.params["C"] == 2
    assert "# BACKSTOP_CHURN__GATE__LATENCY__P99='80ms'" in policy.text
    assert "# BACKSTOP_CHURN__NOTIFY=***" in policy.text
    assert "tokenA" not in policy.text


def test_a_dash_in_the_model_is_an_underscore_in_the_variable(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("model: churn", "model: churn-eu"))
    environment = {"BACKSTOP_CHURN_EU__HEALTH__WATCH": "1h", "BACKSTOP_CHURN__HEALTH__WATCH": "2h"}
    assert load(path, environment).health.watch.total_seconds() == 3600


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BACKSTOP_CHURN__GATE__LATENC__P99", "80ms", "is no key of gate; did you mean 'latency'?"),
        ("BACKSTOP_CHURN__HEALTH__WATCH", "soon", "'soon' is no duration"),
        ("BACKSTOP_CHURN__HEALTH__WATCH", "[", "cannot be read as a YAML value"),
        ("BACKSTOP_CHURN__GATE__REGRESSION", "", "is empty; unset the variable"),
        ("BACKSTOP_CHURN__MODEL", "other", "cannot be renamed"),
    ],
)
def test_a_wrong_override_names_the_variable(tmp_path: Path, variable: str, value: str, message: str) -> None:
    found = only(problems(written(tmp_path), {variable: value}))
    assert found.startswith(f"environment variable {variable}: ")
    assert message in found


def test_an_override_does_not_leak_through_an_alias(tmp_path: Path) -> None:
    text = (
        GOOD
        + "triggers: {performance: &p {metric: f1}}\ngate: {performance: {at_least: 0.5, <<: *p}, regression: *p}\n"
    )
    policy = load(written(tmp_path, text), {"BACKSTOP_CHURN__TRIGGERS__PERFORMANCE__METRIC": "recall"})
    assert policy.triggers.performance is not None
    assert policy.gate.regression is not None
    assert (policy.triggers.performance.metric, policy.gate.regression.metric) == ("recall", "f1")


# Finding


def test_a_model_name_is_looked_up_in_the_folder_of_policies(tmp_path: Path) -> None:
    written(tmp_path)
    assert load("churn", {"BACKSTOP_POLICIES": str(tmp_path)}).model == "churn"


def test_an_unknown_name_tells_where_it_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    written(tmp_path)
    found = only(problems("churnn", {"BACKSTOP_POLICIES": str(tmp_path)}))
    assert str(tmp_path / "churnn.yaml") in found
    assert "there are: churn; did you mean 'churn'?" in found


def test_a_file_that_holds_another_model_than_its_name_is_refused(tmp_path: Path) -> None:
    written(tmp_path, name="price.yaml")
    assert "'churn' is not 'price'" in only(problems("price", {"BACKSTOP_POLICIES": str(tmp_path)}))


@pytest.mark.parametrize("path", ["missing.yaml", "."])
def test_a_path_that_cannot_be_read_is_told(tmp_path: Path, path: str) -> None:
    assert "cannot be read" in only(problems(f"{tmp_path}/{path}"))


def other(folder: Path, model: str, name: str) -> Path:
    return written(folder, GOOD.replace("model: churn", f"model: {model}"), name)


def test_many_policies_by_folder_glob_list_and_commas(tmp_path: Path) -> None:
    one, two = written(tmp_path), other(tmp_path, "price", "price.yaml")
    for spec in (str(tmp_path), f"{tmp_path}/*.yaml", [str(one), str(two)], f"{one}, {two}", f"{tmp_path},{one}"):
        assert [policy.model for policy in load_many(spec, {})] == ["churn", "price"], spec
    assert [policy.model for policy in load_many("price,churn", {"BACKSTOP_POLICIES": str(tmp_path)})] == [
        "price",
        "churn",
    ]


def test_a_broken_file_is_told_and_the_others_are_still_at_hand(tmp_path: Path) -> None:
    written(tmp_path)
    other(tmp_path, "price", "price.yaml").write_text("model: price\n", "utf-8")
    with pytest.raises(PolicyError, match=r"price\.yaml:1: data: is missing") as caught:
        load_many(str(tmp_path), {})
    assert [policy.model for policy in caught.value.loaded] == ["churn"]


@pytest.mark.parametrize("second", ["churn", "Churn"])
def test_two_files_for_one_model_are_an_error_that_names_both(tmp_path: Path, second: str) -> None:
    first, again = written(tmp_path), other(tmp_path, second, "copy.yaml")
    price = other(tmp_path, "price", "price.yaml")
    with pytest.raises(PolicyError) as caught:
        load_many([str(first), str(again), str(price)], {})
    assert str(first) in str(caught.value)
    assert str(again) in str(caught.value)
    assert [policy.model for policy in caught.value.loaded] == ["price"]


@pytest.mark.parametrize("spec", ["", " , ", [], "nowhere/*.yaml"])
def test_a_spec_that_names_nothing_is_an_error_and_not_an_empty_watch(spec: str | list[str]) -> None:
    with pytest.raises(PolicyError, match="names no policy"):
        load_many(spec, {})


# Servers of others

PROMETHEUS = GOOD + "health:\n  prometheus:\n"
KSERVE = GOOD + "rollout:\n  router:\n    kserve:\n"


def test_a_server_needs_its_address_and_nothing_else(tmp_path: Path) -> None:
    for url in ("http://prometheus:9090", "https://host/prefix/", "${URL}", "https://ada:${PASSWORD}@host:1"):
        policy = load(written(tmp_path, f"{PROMETHEUS}    url: {url}\n"), {})
        assert policy.health.prometheus is not None
        assert policy.health.prometheus.url == url
    policy = load(written(tmp_path, f"{KSERVE}      service: churn\n"), {})
    assert policy.rollout is not None
    assert policy.rollout.router is not None
    assert "as a Prometheus server counts them" not in read_aloud(policy)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{PROMETHEUS}    timeout: 5s\n", "health.prometheus.url: is missing"),
        (f"{PROMETHEUS}    url: prometheus:9090\n", "is no address of a server"),
        (f"{PROMETHEUS}    url: http://host:1/?query=up\n", "is no address of a server"),
        (f"{PROMETHEUS}    url: http://ada:hunter2@host\n", "holds a password; write it as https://user:${{NAME}}@"),
        (f"{PROMETHEUS}    url: http://host\n    token: hunter2\n", "a secret stays out of the file; write ${NAME}"),
        (f"{PROMETHEUS}    url: http://host\n    errors: rate(x)\n", "is no selector of a counter"),
        (f"{PROMETHEUS}    url: http://host\n    errors: 'x{{a=\"b\"}}'\n", "tells no versions apart"),
        (f"{KSERVE}      namespace: models\n", "rollout.router.kserve.service: is missing"),
        (f"{KSERVE}      service: Churn/../x\n", "'Churn/../x' cannot be used"),
        (f"{KSERVE}      service: churn\n      token: hunter2\n", "a secret stays out of the file"),
        (GOOD + "rollout:\n  router: {}\n", "rollout.router.kserve: is missing"),
    ],
)
def test_a_server_that_cannot_be_asked_is_told_and_no_secret_is_repeated(tmp_path: Path, text: str, told: str) -> None:
    found = only(problems(written(tmp_path, text)))
    assert told.replace("{{", "{").replace("}}", "}") in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ("regression: {margin: 2}", "gate.regression.margin 2: f1_weighted lies between 0 and 1.*write 2pt"),
        ("slices: [{by: contract, margin: 5}]", r"gate.slices\[0\].margin 5: f1_weighted lies between 0 and 1.*5pt"),
        ("performance: {at_least: 85}", "gate.performance.at_least 85: accuracy lies between 0 and 1.*write 85%"),
    ],
)
def test_points_that_were_written_without_their_unit_are_told(tmp_path: Path, gate: str, told: str) -> None:
    assert re.search(told, only(problems(written(tmp_path, GOOD + f"gate: {{{gate}}}\n"))))
    inside = "gate: {regression: {margin: 2pt}, performance: {at_least: 85%}, slices: [{by: contract, margin: 5pt}]}\n"
    assert load(written(tmp_path, GOOD + inside), {}).gate.regression.margin == 0.02  # type: ignore[union-attr]
    amounts = "problem: regression\ngate: {regression: off, slices: [{by: contract, margin: 2}]}\n"
    assert load(written(tmp_path, GOOD + amounts), {}).gate.slices[0].margin == 2
    losing = "gate: {regression: {metric: log_loss, margin: 2}}\n"
    assert load(written(tmp_path, GOOD + losing), {}).gate.regression.margin == 2  # type: ignore[union-attr]


# Reading aloud


def test_a_policy_can_be_read_aloud(tmp_path: Path) -> None:
    retrains, goes_out, comes_back, silence = read_aloud(load(written(tmp_path), {})).splitlines()
    assert retrains.startswith("Retrains when the version in Production is 30d old, 30% of the inputs have drifted")
    assert goes_out.startswith("Goes out when accuracy is at least 0.85, f1_weighted is no more than 0.02 worse")
    assert comes_back.startswith("Comes back when, in the 30m after it went out, more than 10% of the requests fail")
    assert silence == "Without evidence nothing moves, and after 15m of silence a person is called."


def test_reading_aloud_keeps_the_rule_and_says_what_is_off(tmp_path: Path) -> None:
    text = GOOD + (
        "triggers: {retrain_when: age or (drift and volume), performance: off}\n"
        "gate: {performance: off, regression: off, stability: off, latency: off, size: off, fresh_process: false,"
        " alone: off}\n"
        "shadow: off\nhealth: {error_rate: off, latency_p95: off, accuracy: off}\n"
    )
    retrains, goes_out, comes_back, _ = read_aloud(load(written(tmp_path, text), {})).splitlines()
    assert (
        "30d old or (30% of the inputs have drifted (PSI above 0.1) and 50,000 new labelled rows have come in)"
        in retrains
    )
    assert goes_out == "Goes out when it was trained: every check is off."
    assert comes_back == "Comes back when a person says so, never by itself: every health check is off."


def test_losses_are_read_the_right_way_round(tmp_path: Path) -> None:
    text = GOOD + (
        "problem: regression\ntriggers: {retrain_when: performance, performance: {metric: rmse, drop: 3, floor: 0}}\n"
        "gate: {performance: {metric: rmse, at_least: 12}}\n"
    )
    aloud = read_aloud(load(written(tmp_path, text), {}))
    assert "rmse has risen by more than 3 (or is above 0)" in aloud
    assert "Goes out when rmse is at most 12" in aloud


def test_a_policy_is_frozen(tmp_path: Path) -> None:
    policy = load(written(tmp_path), {})
    with pytest.raises(ValueError, match="frozen"):
        policy.gate = Policy.model_fields["gate"].default
