"""Puts the automations of the folder `automations/` into the Prefect server; a command, and no flow.

``python -m flows.automations`` creates, updates and removes what this folder owns, and leaves alone what anybody else
made. Doing it twice leaves one of each. ``--check`` only says what differs, and ends with 1 when anything does.

Requires: `PREFECT_API_URL`, and the deployments of prefect.yaml. Who is told comes from `BACKSTOP_NOTIFY`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import typer
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.actions import ActionTypes
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.oncall import BLOCK, OnCall, on_call
from tasks.policy_file import PolicyError, load_many

FOLDER = Path(__file__).resolve().parents[1] / "automations"
MARK = "Kept in automations/: change it there, not here."
"""Ends the description of every automation that belongs to the folder; nothing else is ever changed or removed."""

COOL_DOWN = "rollback-cool-down"
"""Written for `schedule_after`: the longest `triggers.rollback_cool_down` of all policies, and a minute."""

_ACTIONS: dict[str, Any] = {one.model_fields["type"].default: one for one in get_args(ActionTypes)}
_OWN = {"run-deployment": {"deployment"}, "send-notification": {"block"}}
_COLOURS = {"created": "green", "updated": "yellow", "removed": "yellow", "left out": "red", "as it is": "dim"}

What = Literal["created", "updated", "removed", "left out", "as it is"]


class AutomationsError(ValueError):
    """The automations cannot be set up; nothing was changed.

    Attributes:
        problems: Everything that is wrong, one sentence each.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Entry:
    """One automation as it is written in the folder.

    Attributes:
        raw: Prefect's own format, with names where it wants ids.
        origin: File and name, for errors.
    """

    raw: Mapping[str, Any]
    origin: str

    @property
    def actions(self) -> Sequence[Mapping[str, Any]]:
        """What it does."""
        return self.raw.get("actions") or ()


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of the folder mean on this server.

    Attributes:
        deployments: Id by ``flow/deployment``.
        block: Whom to tell; None: nobody.
        cool_down: The longest of all policies.
    """

    deployments: Mapping[str, UUID]
    block: UUID | None
    cool_down: timedelta


@dataclass(frozen=True, slots=True)
class Change:
    """One line of what is done.

    Attributes:
        what: ``created``, ``updated``, ``removed``, ``left out`` or ``as it is``.
        name: Of the automation.
        wanted: What it shall be; None where it shall not be.
        there: What is on the server now.
        why: For the person who reads it.
    """

    what: What
    name: str
    wanted: AutomationCore | None = None
    there: Automation | None = None
    why: str = ""


@dataclass(slots=True)
class _Problems:
    """Everything that is wrong, so that it can be told at once."""

    found: list[str] = field(default_factory=list)

    def __call__(self, entry: Entry, said: str) -> None:
        self.found.append(f"{entry.origin}: {said}")


# From the folder.


def entries(folder: Path) -> list[Entry]:
    """What the folder says.

    Raises:
        AutomationsError: Lists every file that cannot be read, and names that occur twice.
    """
    found: list[Entry] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            listed = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            problems.append(f"{path}: cannot be read: {' '.join(str(error).split())}; correct the file")
            continue
        if not isinstance(listed, list) or not all(isinstance(one, dict) and one.get("name") for one in listed):
            problems.append(f"{path}: must be a list of automations, each with a `name`")
            continue
        found += [Entry(one, f"{path.name}: {one['name']!r}") for one in listed]
    names = [str(entry.raw["name"]) for entry in found]
    problems += [f"{name!r} is there twice; give each automation its own name" for name in _repeated(names)]
    if not found and not problems:
        problems.append(f"{folder} has no automations; name the folder with --folder")
    if problems:
        raise AutomationsError(*problems)
    return found


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def rendered(listed: Iterable[Entry], names: Names) -> dict[str, AutomationCore | None]:
    """The automations as the server takes them, by name; None for one that has nobody to tell.

    Raises:
        AutomationsError: Lists everything that does not fit.
    """
    problems = _Problems()
    found: dict[str, AutomationCore | None] = {}
    for entry in listed:
        actions = [_action(entry, action, names, problems) for action in entry.actions]
        kept = [action for action in actions if action is not None]
        _known_keys(entry, problems)
        found[str(entry.raw["name"])] = _core(entry, kept, problems) if kept or not actions else None
    if problems.found:
        raise AutomationsError(*problems.found)
    return found


def _action(entry: Entry, action: Mapping[str, Any], names: Names, problems: _Problems) -> dict[str, Any] | None:
    """One action with ids in place of names; None for a message without an addressee."""
    raw = dict(action)
    kind = str(raw.get("type"))
    known = _ACTIONS.get(kind)
    if known is None:
        problems(entry, f"the action {kind!r} is not known; one of {', '.join(sorted(_ACTIONS))}")
        return raw
    if unknown := sorted(set(raw) - set(known.model_fields) - _OWN.get(kind, set())):
        problems(entry, f"the action {kind} has no {', '.join(unknown)}; take it out or correct it")
    if "deployment" in raw:
        name = str(raw.pop("deployment"))
        if name not in names.deployments:
            problems(entry, f"there is no deployment {name!r}; deploy it first: prefect --no-prompt deploy --all")
        raw |= {"source": "selected", "deployment_id": names.deployments.get(name, UUID(int=0))}
    if "block" in raw:
        if (name := raw.pop("block")) != BLOCK:
            problems(entry, f"the block {name!r} is not known; the set-up makes and finds {BLOCK!r} only")
        if names.block is None:
            return None
        raw["block_document_id"] = names.block
    if raw.get("schedule_after") == COOL_DOWN:
        raw["schedule_after"] = names.cool_down + timedelta(minutes=1)
    return raw


def _known_keys(entry: Entry, problems: _Problems) -> None:
    """Prefect overlooks keys that it does not know: a misspelt condition would match everything."""
    trigger = entry.raw.get("trigger")
    if isinstance(trigger, dict) and trigger.get("type", "event") == "event":
        for key in sorted(set(trigger) - set(EventTrigger.model_fields)):
            problems(entry, f"a trigger has no {key!r}; take it out or correct it")
        if not trigger.get("expect"):  # it would fire on what it causes itself, and bring the server down
            problems(entry, "the trigger has no `expect` and would fire on every event; name the events")
    for key in sorted(set(entry.raw) - set(AutomationCore.model_fields)):
        problems(entry, f"an automation has no {key!r}; take it out or correct it")


def _core(entry: Entry, actions: list[dict[str, Any]], problems: _Problems) -> AutomationCore | None:
    said = " ".join(str(entry.raw.get("description", "")).split())
    try:
        return AutomationCore.model_validate({**entry.raw, "actions": actions, "description": f"{said} {MARK}".strip()})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            problems(entry, f"{'.'.join(map(str, item['loc']))}: {item['msg']}")
        return None


def cool_down(policies: str) -> timedelta:
    """The longest cool-down of the policies that can be read; a day when there are none.

    Args:
        policies: Folder, glob or names, with commas between.
    """
    try:
        found = load_many(policies)
    except PolicyError as error:
        found = tuple(error.loaded)  # a broken policy is told by its own flow
    pauses = [one.triggers.rollback_cool_down or timedelta(0) for one in found]
    return max(pauses, default=timedelta(days=1))


# Onto the server.


def plan(wanted: Mapping[str, AutomationCore | None], there: Sequence[Automation]) -> list[Change]:
    """What has to be done, in the order of the folder; of two with the same name the older one stays."""
    owned: dict[str, list[Automation]] = {}
    for one in sorted(there, key=lambda one: str(one.id)):  # the ids grow with time
        if one.description.endswith(MARK):
            owned.setdefault(one.name, []).append(one)
    changes = [_change(name, core, owned.pop(name, [])) for name, core in wanted.items()]
    flat = [change for some in changes for change in some]
    gone = [(name, one) for name, some in owned.items() for one in some]
    return flat + [Change("removed", name, there=one, why="no longer in the folder") for name, one in gone]


def _change(name: str, core: AutomationCore | None, there: list[Automation]) -> list[Change]:
    if core is None:
        removed = [Change("removed", name, there=one, why="nobody to tell") for one in there]
        return removed or [Change("left out", name, why="nobody to tell")]
    extra = [Change("removed", name, there=one, why="there twice") for one in there[1:]]
    if not there:
        return [Change("created", name, wanted=core)]
    first = there[0]
    # Whoever switched one off in the UI had a reason; that stays.
    core = core.model_copy(update={"enabled": first.enabled})
    why = "" if first.enabled else "switched off in Prefect"
    same = _compared(core) == _compared(first)
    return [Change("as it is" if same else "updated", name, wanted=core, there=first, why=why), *extra]


def _compared(core: AutomationCore) -> dict[str, Any]:
    names = ("name", "description", "enabled", "trigger", "actions")
    return {name: value for name, value in core.model_dump().items() if name in names}


async def carry_out(client: PrefectClient, changes: Iterable[Change]) -> None:
    """Do what was planned."""
    for change in changes:
        if change.what == "created" and change.wanted is not None:
            await client.create_automation(change.wanted)
        elif change.what == "updated" and change.wanted is not None and change.there is not None:
            await client.update_automation(change.there.id, change.wanted)
        elif change.what == "removed" and change.there is not None:
            await client.delete_automation(change.there.id)


async def set_up(folder: Path, policies: str, *, check: bool) -> tuple[list[Change], OnCall]:
    """Bring the server to what the folder says, or only compare.

    Returns:
        What was done (or would be), and who is told.

    Raises:
        AutomationsError: Lists everything that is wrong; nothing was changed then, and no block was made.
    """
    listed = entries(folder)
    async with get_client() as client:
        deployments = await _deployments(client, listed)
        rendered(listed, Names(deployments, UUID(int=0), timedelta(0)))  # what is wrong is told before the first effect
        told = await on_call(client, os.environ, check=check)
        wanted = rendered(listed, Names(deployments, told.block, cool_down(policies)))
        changes = plan(wanted, await client.read_automations())
        if not check:
            await carry_out(client, changes)
    return changes, told


async def _deployments(client: PrefectClient, listed: Iterable[Entry]) -> dict[str, UUID]:
    names = {str(action["deployment"]) for entry in listed for action in entry.actions if "deployment" in action}
    found: dict[str, UUID] = {}
    for name in sorted(names):
        try:
            found[name] = (await client.read_deployment_by_name(name)).id
        except (ObjectNotFound, ValueError):  # a ValueError: no slash in it
            continue
    return found


def main(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what differs; ends with 1 when anything does.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where the automations are.")] = FOLDER,
    policies: Annotated[
        str, typer.Option(help="Policies whose longest cool-down counts; empty: BACKSTOP_POLICIES, or policies.")
    ] = "",
) -> None:
    """Create, update and remove the automations of the folder in the Prefect server.

    Raises:
        SystemExit: 1 when something is wrong or, with ``check``, differs.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        url = _server()
        there = policies or os.environ.get("BACKSTOP_POLICIES") or "policies"
        changes, told = asyncio.run(set_up(folder, there, check=check))
    except Exception as error:
        # A command line ends with a sentence, not with a traceback.
        said = str(error) if isinstance(error, AutomationsError | ValueError) else f"{type(error).__name__}: {error}"
        Console(stderr=True, soft_wrap=True).print(Text(f"The automations were not set up.\n{said}", "red"))
        raise SystemExit(1) from error
    _show(console, changes, told, url)
    if check and (told.differs or any(change.what in {"created", "updated", "removed"} for change in changes)):
        console.print("The server differs; run it again without --check.")
        raise SystemExit(1)


def _server() -> str:
    url = get_current_settings().api.url
    if url is None:
        raise AutomationsError("PREFECT_API_URL is not set; automations need a server that stays, name its API")
    return url


def _show(console: Console, changes: Iterable[Change], told: OnCall, url: str) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("what", "automation", ""):
        table.add_column(title, no_wrap=True)
    for change in changes:
        table.add_row(Text(change.what, _COLOURS[change.what]), Text(change.name), Text(change.why, "dim"))
    console.print(table)
    for warning in told.warnings:  # on standard error, where `make up` looks for what a person must see
        Console(stderr=True, soft_wrap=True).print(Text(warning, "bold red"))
    console.print(Text(f"{told.said} Look at them under Automations: {url.removesuffix('/api')}", "dim"))


if __name__ == "__main__":
    typer.run(main)
