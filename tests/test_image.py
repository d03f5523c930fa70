"""The image: the Dockerfile's steps leave everything that runs, and nothing else; without network and Docker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import httpx
import pytest
from image import Image, instructions, locked, sent
from prefect_live import Program
from servers import free_port, until

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
REVISION = "0123456789abcdef0123456789abcdef01234567"
LINKED = pytest.mark.skipif(sys.platform != "linux", reason="the image is Linux's")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Built once. Not in pytest's folder, which other users cannot enter: one of them is the image's own."""
    with tempfile.TemporaryDirectory(prefix="backstop-image-") as place:
        Path(place).chmod(0o711)
        try:
            made = Image(Path(place) / "root").build(ROOT, REVISION=REVISION)
        except PackageNotFoundError as missing:
            pytest.skip(f"{missing} is in requirements-image.lock and not installed here; run `make`")
        made.folder.joinpath("tmp").mkdir()
        yield made


# What is written.


def test_the_lock_of_the_image_is_a_part_of_the_lock_without_the_tools_of_development() -> None:
    entries = {
        name: set(re.split(r"\n(?=\S)", (ROOT / name).read_text("utf-8").strip()))
        for name in ("requirements-image.lock", "requirements.lock")
    }
    assert entries["requirements-image.lock"] <= entries["requirements.lock"], "run `make lock`"
    names = set(locked(ROOT / "requirements-image.lock"))
    assert {"prefect", "mlflow", "prefect-docker", "prefect-kubernetes", "psycopg", "psycopg2-binary"} <= names
    assert not names & {"pytest", "ruff", "mypy", "playwright", "hypothesis", "schemathesis", "pip", "uv"}
    assert not re.search(r"://|index|file:| @ ", (ROOT / "requirements-image.lock").read_text("utf-8"))


def test_packages_are_installed_with_hashes_and_nothing_is_compiled() -> None:
    install = next(rest for name, rest in instructions(DOCKERFILE) if name == "RUN" and " pip " in rest)
    for word in ("--require-hashes", "--no-deps", "--only-binary :all:"):
        assert word in install
    assert "index" not in install
    commands = "".join(rest for name, rest in instructions(DOCKERFILE) if name == "RUN")
    assert not re.search(r"apt-get|curl|wget|git ", commands)


def test_the_last_stage_is_another_one_runs_as_a_number_and_knows_no_secret() -> None:
    steps = instructions(DOCKERFILE)
    last = steps[max(number for number, (name, _) in enumerate(steps) if name == "FROM") :]
    assert sum(name == "FROM" for name, _ in steps) == 2
    assert ("USER", "10001:10001") in last
    assert all(rest.startswith("--from=build") for name, rest in last if name == "COPY")
    assert not re.search(r"(?i)password|secret|token|api_key", "".join(rest for name, rest in steps if name != "RUN"))


def test_nothing_is_sent_to_the_builder_that_is_not_copied_into_the_image(tmp_path: Path) -> None:
    copied = {
        word.rstrip("/")
        for name, rest in instructions(DOCKERFILE)
        if name == "COPY" and not rest.startswith("--from=")
        for word in rest.split()[:-1]
    }
    assert {path.parts[0] for path in sent(ROOT)} == copied
    secret = ROOT / "deploy" / "docker" / "mine.env"
    secret.write_text("BACKSTOP_LEDGER=postgresql://me:hunter2@db/ledger\n", "utf-8")
    try:
        assert secret.relative_to(ROOT) not in sent(ROOT)
    finally:
        secret.unlink()


# What is there when it is built.


@LINKED
def test_every_package_of_the_repository_that_runs_is_copied(image: Image) -> None:
    for folder in ("flows", "tasks", "serving", "stack", "policies", "strategies", "automations"):
        here = {path for path in sent(ROOT) if path.parts[0] == folder}
        there = {
            path.relative_to(image.at("/opt/backstop"))
            for path in image.at(f"/opt/backstop/{folder}").rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
        assert here == there
    for absent in ("tests", "benchmarks", "docs", ".git", "Makefile", "rehearsal"):
        assert not image.at(f"/opt/backstop/{absent}").exists()


@LINKED
@pytest.mark.slow
def test_every_module_can_be_imported_with_the_packages_of_the_image_alone(image: Image) -> None:
    modules = sorted(
        ".".join(path.relative_to(image.at("/opt/backstop")).with_suffix("").parts)
        for folder in ("flows", "tasks", "serving", "stack")
        for path in image.at(f"/opt/backstop/{folder}").rglob("*.py")
        if "migrations" not in path.parts and path.name not in {"__init__.py", "__main__.py"}
    )
    assert len(modules) > 120
    said = image.call(
        "python", "-c", f"import importlib\nfor one in {modules!r}: importlib.import_module(one)", cwd="/"
    )
    assert said.returncode == 0, said.stderr[-2000:]
    for absent in ("pytest", "pip", "rehearsal"):
        assert image.call("python", "-c", f"import {absent}").returncode != 0, absent


@LINKED
def test_bytecode_is_there_and_is_not_written_anew(image: Image) -> None:
    sources = list(image.at("/opt/backstop/flows").glob("*.py"))
    compiled = {path.name.partition(".")[0]: path for path in image.at("/opt/backstop/flows/__pycache__").glob("*.pyc")}
    assert {path.stem for path in sources} == set(compiled)
    # Flags of PEP 552: 1 is by hash, and without 2 nobody looks at the source.
    assert {int.from_bytes(path.read_bytes()[4:8], "little") for path in compiled.values()} == {1}
    assert image.environment["PYTHONDONTWRITEBYTECODE"] == "1"


@LINKED
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_user_of_the_image_can_write_its_home_and_not_the_code(image: Image) -> None:
    number = int(image.user.partition(":")[0])
    folders = {"/var/lib/backstop": True, "/opt/backstop": False, "/opt/backstop/flows": False, "/opt/venv": False}
    for folder, may in folders.items():
        touch = ["/usr/bin/touch", image.at(f"{folder}/a")]
        done = subprocess.run(touch, user=number, group=number, check=False, capture_output=True)
        assert (done.returncode == 0) is may, folder


# What runs from it.


@LINKED
@pytest.mark.slow
def test_commands_and_gateway_say_what_they_take(image: Image) -> None:
    for command, word in (
        (("python", "-m", "flows.watch", "--help"), "--dry-run"),
        (("python", "-m", "serving", "--help"), "--policy"),
        (("python", "-m", "stack.release", "--help"), "--show"),
        (("prefect", "version"), "3.8"),
    ):
        done = image.call(*command, cwd="/", NO_COLOR="1", PREFECT_HOME=str(image.folder / "tmp"))
        assert done.returncode == 0, (command, done.stderr)
        assert word in done.stdout, command


@LINKED
@pytest.mark.slow
def test_prefects_server_has_its_pages_although_nobody_may_write_beside_its_code(image: Image) -> None:
    """It copies them when it starts. Where it cannot it says so in its log and goes on: no form, no answer to click."""
    place = image.environment["PREFECT_SERVER_UI_STATIC_DIRECTORY"]
    assert place.startswith("/tmp/")  # noqa: S108  of the container: all that it may write beside its home
    port = free_port()
    environment = image.surroundings(
        PREFECT_HOME=str(image.at("/var/lib/backstop")), PREFECT_SERVER_UI_STATIC_DIRECTORY=str(image.at(place))
    )
    command = [image.entrypoint, "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = Program("server", command, environment, image.at("/tmp/server.log"))  # noqa: S108  see above
    server.launch()
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{address}/api/health").is_success, told=f"no server; {server.said()}", every=0.5)
        shown = httpx.get(address, headers={"Accept": "text/html"}, follow_redirects=True)
    finally:
        server.end()
    assert (shown.status_code, shown.headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert "<title>Prefect" in shown.text
    assert image.at(f"{place}/v1/index.html").is_file()


# The entrypoint.


def entry(tmp_path: Path, secrets: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "secrets"
    if secrets is not None:
        file.write_text(secrets, "utf-8")
    return subprocess.run(
        [ROOT / "deploy" / "entry", "env"],
        env={"PATH": "/usr/bin:/bin", "BACKSTOP_SECRETS": str(file), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_mounted_file_becomes_the_environment_and_what_is_set_stays(tmp_path: Path) -> None:
    written = "# the stores\n\nA=postgresql://u:p=w d@h/x?a=b&c=$d`e`\nB=file\nEMPTY=\nLAST=no newline"
    said = entry(tmp_path, written, B="given").stdout.splitlines()
    assert {"A=postgresql://u:p=w d@h/x?a=b&c=$d`e`", "B=given", "EMPTY=", "LAST=no newline"} <= set(said)
    assert "A=" not in "".join(entry(tmp_path / "nowhere", None).stdout)


@pytest.mark.parametrize("line", ["hunter2", "export A=hunter2", "1A=hunter2", "=hunter2", "A-B=hunter2"])
def test_a_line_that_is_no_setting_ends_the_container_and_is_not_repeated(tmp_path: Path, line: str) -> None:
    done = entry(tmp_path, f"OK=1\n{line}\n")
    assert done.returncode == 78
    assert "line 2 of" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
