"""What is installed works together: the ranges admit no pair known to be broken, and the lock is complete and bare."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
ENTRIES = [entry.replace("\\\n", " ") for entry in re.split(r"\n(?=\S)", LOCK.strip())]


def declared() -> dict[str, Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {canonicalize_name(need.name): need for need in (Requirement(text) for group in groups for text in group)}


def locked() -> list[Requirement]:
    return [Requirement(entry.split(" --hash")[0].strip()) for entry in ENTRIES]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("fastapi", ["0.151", "0.154", "0.155", "0.160", "1.0"]),  # Prefect 3.8: deploy ends with 422
        ("sqlalchemy", ["2.1", "2.1.9", "2.2", "3.0"]),  # Prefect 3.8: no scheduled run is ever made
    ],
)
def test_no_version_that_breaks_prefect_is_admitted(name: str, broken: list[str]) -> None:
    needs = declared()
    assert "3.8.8" in needs["prefect"].specifier
    assert "3.9" not in needs["prefect"].specifier, "another Prefect: find out anew what it works with"
    assert [version for version in broken if needs[name].specifier.contains(version, prereleases=True)] == []


def test_the_lock_satisfies_every_declared_range() -> None:
    versions: dict[str, list[str]] = {}
    for entry in locked():
        versions.setdefault(canonicalize_name(entry.name), []).append(next(iter(entry.specifier)).version)
    for name, need in declared().items():
        assert versions.get(name), f"{name} is not in the lock; run `make lock`"
        assert [version for version in versions[name] if version not in need.specifier] == [], name


def test_every_entry_of_the_lock_is_one_version_with_hashes() -> None:
    assert len(ENTRIES) > 100
    for entry, need in zip(ENTRIES, locked(), strict=True):
        assert [part.operator for part in need.specifier] == ["=="], entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_lock_names_no_host_and_no_path() -> None:
    assert [
        line for line in LOCK.splitlines() if "://" in line or "index" in line or " @ " in line or "file:" in line
    ] == []


def test_what_is_installed_is_what_the_lock_says() -> None:
    environment = {key: str(value) for key, value in default_environment().items()}
    wanted = {
        canonicalize_name(need.name): next(iter(need.specifier)).version
        for need in locked()
        if need.marker is None or need.marker.evaluate(environment)
    }
    installed = {name: importlib.metadata.version(name) for name in wanted}
    assert installed == wanted


def make(*arguments: str, folder: Path = ROOT, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path if path is not None else os.environ["PATH"]}
    command = [str(shutil.which("make")), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_help_lists_every_target() -> None:
    shown = make("help").stdout
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets
    for target in targets[1].split():
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE), target


@needs_make
def test_the_demo_and_the_replay_take_a_policy_and_data() -> None:
    for target in ("demo", "replay"):
        shown = make("-n", target, "PYTHON=python3", "POLICY=my policy.yaml", "DATA=my.csv").stdout
        assert f'-m rehearsal.{target} --policy "my policy.yaml" --data "my.csv"' in shown
        assert "--policy" not in make("-n", target, "PYTHON=python3").stdout


@needs_make
def test_no_fitting_python_is_told_with_the_remedy(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shell_only = tmp_path / "bin"
    shell_only.mkdir()
    for tool in ("sh", "bash", "echo", "touch"):
        if found := shutil.which(tool):
            (shell_only / tool).symlink_to(found)
    done = make(folder=tmp_path, path=str(shell_only))
    assert done.returncode != 0
    assert "No Python 3.11, 3.12 or 3.13 was found; install one, or name it" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_pre_commit_hooks_run_what_make_lint_runs() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    for tool in ("ruff check", "ruff format", "mypy"):
        assert f".venv/bin/{tool}" in hooks
