"""Imports go one way. This reads them from the source, so that no arrow appears unnoticed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ("flows", "tasks", "serving", "rehearsal")
HEAVY = {"prefect", "mlflow", "sklearn", "pandas", "sqlalchemy", "joblib", "pyarrow"}
JUDGEMENT_MAY = ("tasks.decide", "tasks.records", "tasks.policy", "tasks.expression", "tasks.units")
SERVING_MAY = (
    *("tasks.registry", "tasks.artifact", "tasks.ledger", "tasks.standing", "tasks.requests", "tasks.decide"),
    *("tasks.records", "tasks.policy", "tasks.policy_file", "tasks.stores", "tasks.database", "tasks.patience"),
    *("tasks.columns", "tasks.example"),
)
"""Reading what serves, and the request log; a test of the gateway sees to it that it moves nothing."""
LIGHT = (
    "ledger",
    "requests",
    "health_sources",
    "records",
    "policy",
    "freshness",
    "sources",
    "plugins",
    "case",
    "glance",
    "watch",
    "rollout",
    "scraped",
    "prometheus",
    "counters",
    "routers",
    "kserve",
    "exchange",
)
STAGE_CALLS = {"transition_model_version_stage", "set_registered_model_alias", "delete_registered_model_alias"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Every module a file imports, relative ones resolved; `from tasks import data` counts as `tasks.data`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module(path).split(".")[: -node.level or None] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            known = [f"{base}.{alias.name}" for alias in node.names if is_module(f"{base}.{alias.name}")]
            yield from known or [base]


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name.split(".", maxsplit=1)[0] in OWN and (
        path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    )


def own(names: Iterator[str]) -> list[str]:
    return [name for name in names if name.split(".")[0] in OWN]


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def arrows(package: str, allowed: tuple[str, ...]) -> list[str]:
    return [
        f"{module(path)} -> {name}"
        for path in sources(package)
        for name in own(imports(path))
        if not within(name, allowed)
    ]


def test_there_is_something_to_read() -> None:
    assert len(sources("tasks/decide")) > 5
    assert any(name == "tasks.records" for path in sources("tasks/decide") for name in imports(path))


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("flows", ("flows", "tasks")),
        ("tasks", ("tasks",)),
        ("tasks/decide", JUDGEMENT_MAY),
        ("rehearsal", ("rehearsal", "flows", "tasks", "serving")),
        ("serving", ("serving", *SERVING_MAY)),
    ],
)
def test_imports_go_one_way(package: str, allowed: tuple[str, ...]) -> None:
    assert arrows(package, allowed) == []


def test_judgement_knows_no_io_and_no_framework() -> None:
    allowed = {"numpy", "scipy", "tasks", *sys.stdlib_module_names}
    found = [
        f"{module(path)} -> {name}"
        for path in sources("tasks/decide")
        for name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert found == []


def test_prefect_stays_in_the_flows() -> None:
    outside = [*sources("tasks"), *sources("serving")]
    found = [module(path) for path in outside for name in imports(path) if name.split(".")[0] == "prefect"]
    assert found == []


def test_what_the_watch_imports_every_minute_is_light_at_module_level() -> None:
    paths = [path for name in LIGHT if (path := ROOT / "tasks" / f"{name}.py").is_file()] + sources("tasks/decide")
    heavy = HEAVY - {"sqlalchemy"}
    found = [
        f"{module(path)} -> {name}"
        for path in paths
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in heavy
    ]
    assert found == []


def test_a_process_that_judges_health_loads_no_framework() -> None:
    code = "import sys, tasks.decide.health, tasks.decide.triggers, tasks.decide.gate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "tasks.decide.health" in loaded.split()
    assert HEAVY & set(loaded.split()) == set()


def test_importing_judgement_loads_numpy_and_nothing_else_that_is_heavy() -> None:
    """Who only judges needs neither the policy's types nor scipy before a bound is asked for."""
    names = ", ".join(module(path) for path in sources("tasks/decide"))
    code = f"import sys, {names}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {"tasks.decide.gate", "tasks.decide.rollout", "numpy"} <= set(loaded.split())
    assert (HEAVY | {"pydantic", "scipy", "yaml", "tasks.policy"}) & set(loaded.split()) == set()


def test_only_the_registry_changes_stages_and_aliases() -> None:
    callers = {
        module(path)
        for package in OWN
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in STAGE_CALLS)
        or (isinstance(node, ast.Constant) and node.value in STAGE_CALLS)
    }
    assert callers <= {"tasks.registry"}
