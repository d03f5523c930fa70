"""Release: tells a Prefect server what an image runs. ``python -m stack.release kubernetes --image name@sha256:...``

The pool gets the image and what a container needs, from ``deploy/<kind>/pool.yaml``; the deployments are those of
``prefect.yaml``, which is written once for every kind of pool; then the automations. Doing it twice leaves the same.

Requires: `PREFECT_API_URL`, and the code that is in the image, best the image itself.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import typer
import yaml
from rich.console import Console

from stack.settings import POOL, ROOT, StackError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

CODE = "/opt/backstop"
"""Where the code is in the image."""

KINDS = ("docker", "kubernetes")


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool as ``deploy/<kind>/pool.yaml`` has it.

    Attributes:
        kind: ``docker`` or ``kubernetes``.
        template: Prefect's base job template.
        job_variables: By flow, in place of the template's defaults.
    """

    kind: str
    template: dict[str, Any]
    job_variables: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, kind: str, image: str, given: Sequence[str] = ()) -> Pool:
        """The pool for one image.

        Args:
            kind: ``docker`` or ``kubernetes``.
            image: That every run starts from, unless its deployment or the run names another one.
            given: ``name=value``: other defaults of the template's variables, as YAML.

        Raises:
            StackError: Lists everything that cannot be.
        """
        problems = [] if kind in KINDS else [f"{kind!r} is no kind of pool; write {' or '.join(KINDS)}"]
        if not _fixed(image):
            problems.append(
                f"the image is {image!r}; give one with --image or BACKSTOP_IMAGE, by digest (name@sha256:...) or by a "
                "tag of its own: under a name that moves nobody knows what a run was made by"
            )
        if problems:
            raise StackError("\n".join(problems))
        written = yaml.safe_load((ROOT / "deploy" / kind / "pool.yaml").read_text("utf-8"))
        template = copy.deepcopy(written["base_job_template"])
        properties = template["variables"]["properties"]
        for name, value in _given(given, properties).items():
            default = properties[name].get("default")
            both = isinstance(default, dict) and isinstance(value, dict)
            properties[name]["default"] = {**default, **value} if both else value
        properties["image"]["default"] = image
        return cls(kind, template, written["job_variables"])


def _fixed(image: str) -> bool:
    """Whether this is one image: a name with a digest, or with a tag that is not moved from build to build."""
    return re.fullmatch(r"[\w./:-]+@sha256:[0-9a-f]{64}", image) is not None or (
        re.fullmatch(r"[\w.-]+(:\d+)?(/[\w.-]+)*:[\w.-]+", image) is not None and not image.endswith(":latest")
    )


def _given(given: Sequence[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``name=value``, each of which the template has.

    Raises:
        StackError: Lists everything that cannot be.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    known = ", ".join(sorted(set(properties) - {"image"}))
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or name not in properties or name == "image":
            problems.append(f"--set {one}: write name=value; names are {known}")
            continue
        try:
            found[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            problems.append(f"--set {one}: the value cannot be read: {' '.join(str(error).split())}")
    if problems:
        raise StackError("\n".join(problems))
    return found


def project(file: Path, pool: Pool, image: str) -> dict[str, Any]:
    """A prefect.yaml for the pool: the same deployments, whose code is in the image and whose version is its name.

    Args:
        file: As it is written for every kind of pool.
        pool: Whose variables by flow are put in; what a deployment says itself goes before them.
        image: For the deployments' version, by which a person sees what runs.

    Raises:
        StackError: When the file has a `pull` of its own, or variables for a flow that it does not deploy.
    """
    try:
        written: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
        every = written["deployments"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StackError(f"{file} cannot be read as a prefect.yaml ({type(error).__name__}: {error})") from None
    if written.get("pull") or any(one.get("pull") for one in every):
        raise StackError(f"{file} has a `pull` step of its own; the code is in the image, so leave it out")
    deployments = []
    for one in copy.deepcopy(every):
        place = {"name": POOL, **one.get("work_pool", {})}
        variables = {**pool.job_variables.get(_flow(one), {}), **place.get("job_variables", {})}
        deployments.append({**one, "version": image, "work_pool": {**place, "job_variables": variables}})
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": CODE}}]
    kept = {name: value for name, value in written.items() if name not in {"definitions", "deployments"}}
    return {**kept, "pull": pull, "deployments": deployments}


def _flow(deployment: Mapping[str, Any]) -> str:
    return str(deployment["entrypoint"]).rpartition(":")[2]


def release(pool: Pool, wanted: Mapping[str, Any], say: Console) -> None:
    """Deployments, automations, and the pool's image last: where something fails, the runs keep the image before.

    A deployment that was paused stays paused.

    Args:
        pool: From :meth:`Pool.read`.
        wanted: From :func:`project`.
        say: Told what was done.

    Raises:
        StackError: When a pool of that name is of another kind, or a command fails; doing it again goes on from there.
    """
    from prefect.client.orchestration import get_client  # noqa: PLC0415  seconds of imports; --show does without

    with get_client(sync_client=True) as client:
        names = sorted({str(one["work_pool"]["name"]) for one in wanted["deployments"]})
        made = [name for name in names if _made(client, name, pool)]
        paused = _paused(client, wanted)
        with tempfile.TemporaryDirectory(prefix="backstop-") as scratch:
            file = Path(scratch) / "prefect.yaml"
            file.write_text(yaml.safe_dump(dict(wanted), sort_keys=False, width=200), "utf-8")
            _run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file))
        for name, deployment in paused.items():
            client.pause_deployment(deployment)
            say.print(f"[yellow]{name} was paused and stays so; resume it on its page.[/]")
        _run("flows.automations")
        for name in names:
            if name not in made:
                _update(client, name, pool)
            say.print(f"Work pool {name}: {'made' if name in made else 'brought up to date'}.")


def _made(client: SyncPrefectClient, name: str, pool: Pool) -> bool:
    """Make a pool that is not there, since deployments need one; whether it had to be made."""
    from prefect.client.schemas.actions import WorkPoolCreate  # noqa: PLC0415  see release()
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415  see release()

    try:
        there = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=pool.kind, base_job_template=pool.template))
        return True
    if there.type != pool.kind:
        raise StackError(
            f"the work pool {name} is of the kind {there.type}, and Prefect cannot make it {pool.kind}; end its "
            f"workers, remove it with `prefect work-pool delete {name}`, which keeps deployments and runs, and release "
            "again"
        )
    return False


def _update(client: SyncPrefectClient, name: str, pool: Pool) -> None:
    """The template alone: the pool's limit, and whether it is paused, are a person's."""
    from prefect.client.schemas.actions import WorkPoolUpdate  # noqa: PLC0415  see release()

    client.update_work_pool(name, WorkPoolUpdate(base_job_template=pool.template))


def _paused(client: SyncPrefectClient, wanted: Mapping[str, Any]) -> dict[str, UUID]:
    """Those of the deployments that are there and paused: deploying sets their schedules going."""
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415  see release()

    found: dict[str, UUID] = {}
    for one in wanted["deployments"]:
        name = f"{_flow(one)}/{one['name']}"
        with suppress(ObjectNotFound):
            there = client.read_deployment_by_name(name)
            if there.paused:
                found[name] = there.id
    return found


def _run(*module: str) -> None:
    done = subprocess.run([sys.executable, "-m", *module], cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise StackError(f"`python -m {' '.join(module)}` failed; mend what it says and release again")


def _see_the_server() -> None:
    """Without an address Prefect would start a server of its own, and all would be told to nobody."""
    address = os.environ.get("PREFECT_API_URL", "")
    if not urlsplit(address).netloc:
        raise StackError(f"PREFECT_API_URL is {address!r}; say where the server is, as http://host:4200/api")


def _show(pool: Pool, wanted: Mapping[str, Any]) -> str:
    """What would be sent, as two YAML documents: the pool, and the prefect.yaml."""
    what = {"type": pool.kind, "base_job_template": pool.template}
    return yaml.safe_dump_all([what, dict(wanted)], sort_keys=False, width=120, allow_unicode=True)


def main(
    kind: Annotated[str, typer.Argument(help="docker or kubernetes")],
    image: Annotated[str, typer.Option(envvar="BACKSTOP_IMAGE", help="That all runs start from, best by digest.")] = "",
    prefect_file: Annotated[Path, typer.Option(help="Also one of strategies/.")] = ROOT / "prefect.yaml",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value: another default of the pool, such as namespace=ml")
    ] = None,
    *,
    show: Annotated[bool, typer.Option(help="Only print what would be sent.")] = False,
) -> None:
    """Tell the Prefect server at PREFECT_API_URL what an image runs: pool, deployments, automations.

    Raises:
        Exit: 1, with what is wrong and what to do, on standard error.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        pool = Pool.read(kind, image, settings or ())
        wanted = project(prefect_file, pool, image)
        if show:
            sys.stdout.write(_show(pool, wanted))
            return
        _see_the_server()
        release(pool, wanted, console)
    except StackError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"release: {error}", style="red", markup=False)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
