"""Releases: what a Prefect server is told of an image, and what its Docker and Kubernetes workers make of it."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from image import Image
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_live import Live, named
from rich.console import Console
from scene import Scene

from rehearsal.churn import customers
from stack.release import CODE, KINDS, Pool, _made, _update, project, release
from stack.settings import StackError

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / "prefect.yaml", *sorted((ROOT / "strategies").glob("*/prefect.yaml"))]
KUBECTL = shutil.which("kubectl") or ""
IMAGE = "registry.example/team/backstop@sha256:" + "a" * 64
SAME = ("name", "entrypoint", "description", "tags", "parameters", "schedules", "concurrency_limit")
"""What a deployment is, wherever it runs."""

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONFIGURATIONS = {
    "docker": ("prefect_docker.worker", "DockerWorkerJobConfiguration"),
    "kubernetes": ("prefect_kubernetes.worker", "KubernetesWorkerJobConfiguration"),
}


def written(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text("utf-8"))["deployments"]
    return found


def configuration(kind: str) -> Any:
    """The class that the worker of this kind makes of a pool's template and a run's variables."""
    module, name = CONFIGURATIONS[kind]
    pytest.importorskip(module, reason=f"{module} is not installed; run `make`")
    return getattr(importlib.import_module(module), name)


# What is asked for.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES, ids=lambda one: one.parent.name)
def test_every_pool_gets_the_same_deployments_as_are_written_once(file: Path, kind: str) -> None:
    wanted = project(file, Pool.read(kind, IMAGE), IMAGE)
    same = [{key: one[key] for key in SAME if key in one} for one in wanted["deployments"]]
    assert same == [{key: one[key] for key in SAME if key in one} for one in written(file)]
    for one, before in zip(wanted["deployments"], written(file), strict=True):
        assert one["work_pool"]["name"] == before["work_pool"]["name"]
        assert one["version"] == IMAGE
    assert wanted["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": CODE}}]


@pytest.mark.parametrize("kind", KINDS)
def test_what_trains_has_more_memory_than_what_looks(kind: str) -> None:
    pool = Pool.read(kind, IMAGE)
    flows = {Path(one["entrypoint"].partition(":")[0]).stem for file in FILES for one in written(file)}
    assert set(pool.job_variables) <= flows, "variables for a flow that nobody deploys"
    for variables in pool.job_variables.values():
        assert set(variables) <= set(pool.template["variables"]["properties"])
    wanted = {named(one): one["work_pool"]["job_variables"] for one in project(FILES[0], pool, IMAGE)["deployments"]}
    assert wanted["retrain/churn"]["memory"].startswith("4")
    assert wanted["watch/all-models"] == {}


def test_a_default_can_be_set_and_what_the_template_does_not_have_is_refused_all_at_once() -> None:
    pool = Pool.read("kubernetes", IMAGE, ["namespace=ml", "scratch=20Gi", "env={A: b}", "finished_job_ttl=60"])
    properties = pool.template["variables"]["properties"]
    assert properties["namespace"]["default"] == "ml"
    assert properties["finished_job_ttl"]["default"] == 60
    assert properties["env"]["default"] == {"A": "b", "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "crash"}
    with pytest.raises(StackError) as error:
        Pool.read("kubernetes", IMAGE, ["memroy=1Gi", "image=other", "namespace"])
    for said in ("memroy=1Gi", "image=other", "--set namespace"):
        assert said in str(error.value)


@pytest.mark.parametrize(
    "image", ["", "backstop", "backstop:latest", "host:5000/backstop", "set by kustomization.yaml", "{{ x }}"]
)
def test_an_image_under_a_name_that_moves_is_refused(image: str) -> None:
    with pytest.raises(StackError, match="by digest"):
        Pool.read("docker", image)


@pytest.mark.parametrize("image", ["backstop:4f2a", "host:5000/team/backstop:1.2.0", IMAGE])
def test_an_image_that_stays_what_it_is_is_taken(image: str) -> None:
    assert Pool.read("docker", image).template["variables"]["properties"]["image"]["default"] == image


def test_a_file_that_pulls_its_code_from_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text("pull: [{x: {}}]\ndeployments: []\n", "utf-8")
    with pytest.raises(StackError, match="`pull` step of its own"):
        project(tmp_path / "prefect.yaml", Pool.read("docker", IMAGE), IMAGE)


def test_without_a_server_nothing_is_started_and_everything_can_be_looked_at() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "stack.release", "kubernetes", "--image", IMAGE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "PREFECT_API_URL is ''" in done.stderr
    shown = subprocess.run([*command, "--show"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    pool, deployments = yaml.safe_load_all(shown.stdout)
    assert pool["type"] == "kubernetes"
    assert len(deployments["deployments"]) == len(written(FILES[0]))


# What the workers make of it.


def job(kind: str, image: str = IMAGE, *, run_id: str = "0" * 32, **values: Any) -> Any:
    """What the worker of this kind would start, for a run with these job variables."""
    pool = Pool.read(kind, image)
    made = asyncio.run(
        configuration(kind).from_template_and_values(
            base_job_template=pool.template, values=values, client=SimpleNamespace()
        )
    )
    run = SimpleNamespace(id=run_id, name="retrain churn: age", deployment_id=None)
    made.prepare_for_flow_run(run)
    return made


def test_a_kubernetes_job_is_one_that_the_cluster_knows_and_that_may_do_nothing() -> None:
    manifest = job("kubernetes", memory="4Gi", cpu="2").job_manifest
    spec = manifest["spec"]["template"]["spec"]
    for misplaced in ("parallelism", "completions"):  # Prefect's worker insists on them here; Kubernetes drops them
        assert spec.pop(misplaced) == 1
    strictly("V1Job", manifest)
    (container,) = spec["containers"]
    assert "{{" not in json.dumps(manifest)
    assert container["image"] == IMAGE
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert "command" not in container, "the image's entrypoint stays"
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    assert [next(iter(one)) for one in container["envFrom"]] == ["configMapRef", "secretRef"]
    assert manifest["spec"]["ttlSecondsAfterFinished"] == 900
    confined(spec)


def test_an_evicted_run_is_crashed_and_never_started_again_unasked() -> None:
    """Left to itself Prefect's worker starts an evicted run anew: a second rollback would go one version further."""
    env = {
        one["name"]: one["value"]
        for one in job("kubernetes", env={"A": "b"}).job_manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "crash"
    assert env["A"] == "b"


def test_a_docker_container_has_the_secrets_as_a_file_and_no_rights() -> None:
    made = job("docker", memory="4g")
    worker = importlib.import_module("prefect_docker.worker")
    client = SimpleNamespace(version=lambda: {"Version": "28.2.2"}, api=SimpleNamespace(_version="1.50"))
    build = worker.DockerWorker._build_container_settings
    settings = build(SimpleNamespace(_get_network_mode=lambda *_: None), client, made)
    assert settings["image"] == IMAGE
    assert settings["command"] == "prefect flow-run execute"
    assert settings["network"] == "backstop"
    assert {"/etc/backstop/backstop.env:/run/secrets/backstop:ro", "backstop-home:/var/lib/backstop"} == set(
        settings["volumes"]
    )
    assert settings["mem_limit"] == settings["memswap_limit"] == "4g"
    assert settings["cap_drop"] == ["ALL"]
    assert settings["user"] == "10001:10001"
    assert settings["auto_remove"] is True
    assert not any(name.startswith(("BACKSTOP_", "MLFLOW_")) for name in settings["environment"])
    accepted(settings)


def accepted(settings: Mapping[str, Any]) -> None:
    """docker-py's own reading of the settings, up to what it would send; it refuses names that it does not know."""
    from docker.models.containers import _create_container_args
    from docker.types import HostConfig

    kept = {name: value for name, value in settings.items() if name != "extra_hosts" or value}
    made = _create_container_args({**kept, "version": "1.50"})
    assert isinstance(made["host_config"], HostConfig)
    assert made["host_config"]["Memory"] == 4 << 30


# The manifests beside it.


def manifests(folder: str) -> list[dict[str, Any]]:
    """As kubectl makes them of the kustomization; where it is missing, as they are written."""
    place = ROOT / "deploy" / "kubernetes" / folder
    if KUBECTL:
        command = [KUBECTL, "kustomize", str(place)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        names = yaml.safe_load((place / "kustomization.yaml").read_text("utf-8"))["resources"]
        text = "\n---\n".join((place / name).read_text("utf-8") for name in names)
    return [one for one in yaml.safe_load_all(text) if one]


EVERY = [(folder, one) for folder in (".", "servers", "listener") for one in manifests(folder)]


@pytest.mark.parametrize(
    ("folder", "manifest"),
    EVERY,
    ids=lambda one: f"{one['kind']}-{one['metadata']['name']}" if isinstance(one, dict) else "",
)
def test_a_manifest_says_nothing_that_the_cluster_does_not_know(folder: str, manifest: dict[str, Any]) -> None:
    pytest.importorskip("kubernetes_asyncio", reason="prefect-kubernetes is not installed; run `make`")
    strictly(f"V1{manifest['kind']}", manifest)
    if "template" in (manifest.get("spec") or {}):
        confined(manifest["spec"]["template"]["spec"])


@pytest.mark.skipif(not KUBECTL, reason="kubectl is not installed")
def test_the_runs_start_from_the_image_that_the_worker_has(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy" / "kubernetes", tmp_path / "kubernetes")
    file = tmp_path / "kubernetes" / "kustomization.yaml"
    written = yaml.safe_load(file.read_text("utf-8"))
    name, _, digest = IMAGE.partition("@")
    written["images"] = [{"name": "backstop", "newName": name, "digest": digest}]
    file.write_text(yaml.safe_dump(written), "utf-8")
    made = subprocess.run([KUBECTL, "kustomize", file.parent], capture_output=True, text=True, check=True).stdout
    worker = next(one for one in yaml.safe_load_all(made) if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    (release,) = worker["initContainers"]
    told = {one["name"]: one.get("value") for one in release["env"]}
    assert {told["BACKSTOP_IMAGE"], release["image"], worker["containers"][0]["image"]} == {IMAGE}
    # An overlay's image comes too late for what the runs start from: then the release refuses, and no worker begins.
    unedited = next(one for folder, one in EVERY if one["kind"] == "Deployment" and folder == ".")
    said = {one["name"]: one.get("value") for one in unedited["spec"]["template"]["spec"]["initContainers"][0]["env"]}
    with pytest.raises(StackError):
        Pool.read("kubernetes", str(said["BACKSTOP_IMAGE"]))


def test_whoever_asks_a_server_in_docker_has_the_file_with_what_the_server_asks_for() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text("utf-8"))["services"]
    asking = {name for name, one in services.items() if "PREFECT_API_URL" in one.get("environment", {})}
    assert asking == {"release", "worker", "gateway", "listener"}
    for name in asking:
        assert "/etc/backstop/backstop.env:/run/secrets/backstop:ro" in services[name]["volumes"], name


def test_every_command_of_the_containers_is_one_that_there_is() -> None:
    """Of the manifests and of Docker's file, which no cluster and no engine has tried here."""
    services = yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text("utf-8"))["services"]
    specs = [one["spec"]["template"]["spec"] for _, one in EVERY if "template" in (one.get("spec") or {})]
    commands = [
        *(one["command"] for one in services.values() if "command" in one),
        *(one["args"] for spec in specs for one in (*spec["containers"], *spec.get("initContainers", ()))),
    ]
    modules = [command[2] for command in commands if command[:2] == ["python", "-m"]]
    assert {"flows.listen", "serving", "stack.release"} == set(modules)
    assert all(importlib.util.find_spec(module) for module in modules)
    listening = [command for command in commands if "flows.listen" in command]
    assert len(listening) == 2
    for command in listening:
        environment = {**os.environ, "BACKSTOP_DEMO_DATA": "/data"}
        told = subprocess.run(
            [sys.executable, *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        # The policy that comes with it is a file: the command is understood, and says what it needs.
        assert told.returncode == 1, told.stderr
        assert "PostgreSQL" in told.stderr


def test_the_gateway_is_asked_where_it_answers() -> None:
    gateway = next(one for _, one in EVERY if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert gateway["livenessProbe"]["httpGet"]["path"] == gateway["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert {"name": "BACKSTOP_SERVING_HOST", "value": "0.0.0.0"} in gateway["env"]  # noqa: S104  in its pod
    from serving.settings import Settings

    assert gateway["ports"] == [{"containerPort": Settings().port, "name": "http"}]


def confined(spec: Mapping[str, Any]) -> None:
    """No root, no rights, a file system that cannot be written, and no variables that Kubernetes makes of services."""
    assert spec["enableServiceLinks"] is False, "PREFECT_PORT, MLFLOW_PORT and BACKSTOP_SERVING_... would be settings"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "limits" in container["resources"]
        assert "cpu" not in container["resources"]["limits"], "a throttled process measures latency wrong"
        assert "/tmp" in {one["mountPath"] for one in container["volumeMounts"]}  # noqa: S108  of the container
        assert {one["name"] for one in container["volumeMounts"]} <= {
            *(one["name"] for one in spec["volumes"]),
            "home",
        }


def strictly(model: str, data: Any) -> None:
    """Every key is one that the Kubernetes API knows at that place, down to the last level, and of the right kind.

    Raises:
        AssertionError: Names the key.
    """
    models = importlib.import_module("kubernetes_asyncio.client.models")
    made = getattr(models, model)
    known = {theirs: ours for ours, theirs in made.attribute_map.items()}
    for key, value in data.items():
        assert key in known, f"{model} has no {key}"
        _fits(made.openapi_types[known[key]], value, f"{model}.{key}")


def _fits(kind: str, value: Any, where: str) -> None:
    if kind.startswith("list["):
        assert isinstance(value, list), where
        for one in value:
            _fits(kind[5:-1], one, where)
    elif kind.startswith("dict("):
        assert isinstance(value, dict), where
        for one in value.values():
            _fits(kind[5:-1].partition(", ")[2], one, where)
    elif kind.startswith("V1"):
        assert isinstance(value, dict), where
        strictly(kind, value)
    elif kind in {"str", "int", "bool"}:
        assert type(value).__name__ == kind, f"{where} is {value!r}, and must be {kind}"


# A real server.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, prefect_template: Path) -> Iterator[Live]:
    """A Prefect server without a worker and without deployments."""
    folder = tmp_path_factory.mktemp("server")
    live = Live(folder, cast("Scene", SimpleNamespace(home=folder / "home")))
    live.begin_with(prefect_template)
    try:
        live.start_server()
        yield live
    finally:
        live.server.end()


def released(server: Live, kind: str, *more: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "stack.release", kind, *more]
    done = subprocess.run(
        command, cwd=ROOT, env=server.environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def kubernetes(server: Live) -> Live:
    """The server, to which everything was released for Kubernetes."""
    assert "made" in released(server, "kubernetes", "--image", IMAGE)
    return server


@pytest.mark.slow
def test_a_server_has_what_was_released(kubernetes: Live) -> None:
    server = kubernetes
    for one in project(FILES[0], Pool.read("kubernetes", IMAGE), IMAGE)["deployments"]:
        there = server.deployment(named(one))
        assert (there["work_pool_name"], there["entrypoint"]) == ("backstop", one["entrypoint"])
        assert there["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": CODE}}]
        assert there["job_variables"] == one["work_pool"]["job_variables"]
        assert there["parameters"] == one.get("parameters", {})
        assert there["version"] == IMAGE
        found = [one["schedule"].get("cron") or one["schedule"].get("interval") for one in there["schedules"]]
        assert found == [said.get("cron") or said.get("interval") for said in one.get("schedules", ())]
        limit = there["global_concurrency_limit"]
        assert (limit and limit["limit"]) == one.get("concurrency_limit", {}).get("limit")
    assert len(server.call("/automations/filter", "POST")) == len(set(automations()))


@pytest.mark.slow
def test_a_pool_of_another_kind_is_refused_and_what_a_person_paused_stays(kubernetes: Live, tmp_path: Path) -> None:
    server = kubernetes
    few = [one for one in written(FILES[0]) if named(one) in {"retrain/churn", "rollout/all-models"}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"name": "backstop", "deployments": few}), "utf-8")
    paused = server.deployment("rollout/all-models")
    server.call(f"/deployments/{paused['id']}", "PATCH", paused=True)
    said = released(server, "docker", "--image", IMAGE, code=1)
    assert "is of the kind kubernetes" in said
    assert server.call("/work_pools/backstop")["type"] == "kubernetes"
    server.call("/work_pools/backstop", "DELETE")  # as the message says
    said = released(server, "docker", "--image", IMAGE, "--prefect-file", str(tmp_path / "prefect.yaml"))
    assert "rollout/all-models was paused and stays so" in said
    assert server.deployment("rollout/all-models")["paused"]
    assert server.deployment("rollout/all-models")["id"] == paused["id"]
    assert server.deployment("retrain/churn")["job_variables"] == {"memory": "4g"}


@pytest.mark.slow
def test_a_release_that_fails_leaves_the_runs_on_the_image_before_and_the_pools_limit_is_a_persons(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    newer = Pool.read("docker", IMAGE[:-1] + "b")
    broken = [{"name": "x", "entrypoint": "flows/nothing.py:nothing", "work_pool": {"name": "another"}}]

    def image() -> str:
        pool = server.call("/work_pools/another")
        return str(pool["base_job_template"]["variables"]["properties"]["image"]["default"])

    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
        assert _made(client, "another", Pool.read("docker", IMAGE))
        server.call("/work_pools/another", "PATCH", concurrency_limit=7, is_paused=True)
        with pytest.raises(StackError, match="prefect --no-prompt deploy"):
            release(newer, {"name": "backstop", "deployments": broken}, Console())
        assert image() == IMAGE
        assert not _made(client, "another", newer)
        _update(client, "another", newer)
    assert image() == IMAGE[:-1] + "b"
    pool = server.call("/work_pools/another")
    assert (pool["concurrency_limit"], pool["is_paused"]) == (7, True)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="backstop-image-") as place:
        try:
            yield Image(Path(place) / "root").build(ROOT, REVISION=REVISION)
        except PackageNotFoundError as missing:
            pytest.skip(f"{missing} is in requirements-image.lock and not installed here; run `make`")


@pytest.mark.slow
def test_what_the_worker_starts_runs_a_flow_and_mlflow_knows_from_which_commit(
    server: Live, image: Image, tmp_path: Path, mlflow_template: Path
) -> None:
    """The command and the environment of the container, in the image's folder, with its packages and nothing else."""
    pytest.importorskip("prefect_docker.worker", reason="prefect-docker is not installed; run `make`")
    now, home = datetime.now(UTC), tmp_path / "home"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    customers(3000, start=now - timedelta(days=60), days=60, seed=1).to_csv(tmp_path / "churn.csv", index=False)
    secrets = tmp_path / "backstop.env"  # as it is mounted at /run/secrets/backstop
    secrets.write_text(f"BACKSTOP_HOME={tmp_path / 'elsewhere'}\nBACKSTOP_DEMO_DATA={tmp_path}\n", "utf-8")
    if "docker" not in {one["type"] for one in server.call("/work_pools/filter", "POST") if one["name"] == "backstop"}:
        released(server, "docker", "--image", IMAGE)
    deployment = server.deployment("retrain/churn")["id"]
    place = {"prefect.deployments.steps.set_working_directory": {"directory": str(image.at(CODE))}}
    server.call(f"/deployments/{deployment}", "PATCH", pull_steps=[place])
    run = server.run("retrain/churn")
    container = job("docker", run_id=run, **server.deployment("retrain/churn")["job_variables"])
    said = image.call(
        *container.command.split(),
        cwd="/",
        **{
            **container.env,
            "PREFECT_API_URL": server.url,
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
            "BACKSTOP_HOME": str(home),  # what the container was given goes before the file
            "BACKSTOP_SECRETS": str(secrets),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert server.flow_run(run)["state_name"] == "Promoted", said.stdout[-1000:] + said.stderr[-3000:]
    assert not (tmp_path / "elsewhere").exists()
    client = MlflowClient(
        tracking_uri=f"sqlite:///{home / 'mlflow.db'}", registry_uri=f"sqlite:///{home / 'mlflow.db'}"
    )
    tags = client.get_run(client.get_model_version("churn", "1").run_id).data.tags
    assert tags["backstop.git_revision"] == tags["mlflow.source.git.commit"] == REVISION


def automations() -> list[str]:
    """Names of those that need nobody to tell."""
    every = [one for file in (ROOT / "automations").glob("*.yaml") for one in yaml.safe_load(file.read_text("utf-8"))]
    return [one["name"] for one in every if all(action["type"] != "send-notification" for action in one["actions"])]
