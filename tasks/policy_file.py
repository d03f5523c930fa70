"""Policy files: find them, read them, and tell everything that is wrong with one at once, with the line it is on."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tasks import notify
from tasks.masking import mask
from tasks.plugins import PluginError, expand
from tasks.policy import Policy
from tasks.policy_problem import KeyPath, Problem, empty_value, explain, near, place_of, section_at, shown, sort_key
from tasks.policy_words import read_aloud

# What stands in for a required key that is missing or wrong, so that validation can go on and find the rest.
_PLACEHOLDERS: dict[KeyPath, Any] = {
    ("model",): "placeholder",
    ("data",): {"source": "placeholder.csv", "target": "placeholder", "timestamp": "placeholder"},
    ("data", "source"): "placeholder.csv",
    ("data", "target"): "placeholder",
    ("data", "timestamp"): "placeholder",
    ("training",): {"estimator": "placeholder:placeholder"},
    ("training", "search", "space"): {"placeholder": [0]},
    ("health", "prometheus", "url"): "http://placeholder",
    ("rollout", "router", "kserve"): {"service": "placeholder"},
    ("rollout", "router", "kserve", "service"): "placeholder",
}
# The one key that the checks over a whole section are about, so that the problem is shown on its line.
_MEANT: dict[KeyPath, KeyPath] = {("triggers",): ("triggers", "retrain_when")}
# Values below these are the user's own: an empty one may mean None to the estimator.
_FREE = (("training", "params"), ("training", "search", "space"))
_SUFFIXES = {".yaml", ".yml"}
_MODEL = re.compile(r"""^model:[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)

__all__ = ["PolicyError", "Problem", "load", "load_many", "read_aloud", "variable"]


class PolicyError(ValueError):
    """A policy that cannot be used.

    Attributes:
        problems: Everything that is wrong, in the order of the file.
        loaded: The policies that are fine, when several were asked for: a watch over many goes on with them.
        unread: How many are not.
    """

    def __init__(self, problems: Iterable[Problem], loaded: Iterable[Policy] = (), unread: int = 1) -> None:
        self.problems = tuple(problems)
        self.loaded = tuple(loaded)
        self.unread = unread
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in the policy:", *(f"  {problem}" for problem in self.problems)]))


@dataclass(slots=True)
class _Draft:
    """A policy on its way from text to record: raw values, where each came from, and what was wrong so far."""

    path: Path
    raw: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    variables: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    removed: set[KeyPath] = field(default_factory=set)

    def where(self, place: KeyPath) -> str:
        """The variable or the ``file:line`` that the nearest known part of the place comes from."""
        if place not in self.lines:
            below = (variable for path, variable in self.variables.items() if path[: len(place)] == place)
            if variable := next(below, None):
                return f"environment variable {variable}"
        for length in range(len(place), -1, -1):
            if variable := self.variables.get(place[:length]):
                return f"environment variable {variable}"
            if line := self.lines.get(place[:length]):
                return f"{self.path}:{line}"
        return str(self.path)

    def report(self, place: KeyPath, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.where(place), ".".join(map(str, place)), message))

    def remove(self, place: KeyPath) -> None:
        """Take a value out that was reported, so that the rest can still be looked at."""
        self.removed.add(place)
        if not place:
            return
        here: Any = self.raw
        for part in place[:-1]:
            here = here.setdefault(part, {}) if isinstance(here, dict) else here[int(part)]
        if isinstance(here, dict):
            here.pop(place[-1], None)
            if place in _PLACEHOLDERS:
                here[place[-1]] = copy.deepcopy(_PLACEHOLDERS[place])
        elif isinstance(here, list):
            here[int(place[-1])] = "placeholder:placeholder"


def load(name_or_path: str | Path, environment: Mapping[str, str] = os.environ) -> Policy:
    """Read one policy.

    Args:
        name_or_path: A path to a YAML file, or the name of a model: then it is
            ``<BACKSTOP_POLICIES or policies>/<name>.yaml``.
        environment: ``BACKSTOP_<MODEL>__GATE__LATENCY__P99=80ms`` overrides ``gate.latency.p99``.

    Returns:
        The policy; a relative file source is absolute in it, ``${NAME}`` stays as it is written.

    Raises:
        PolicyError: Lists every problem at once.
    """
    path, named = _find(str(name_or_path), environment)
    return _load(path, named, environment, {})


def load_many(spec: str | list[str], environment: Mapping[str, str] = os.environ) -> tuple[Policy, ...]:
    """Read the policies of several models.

    Args:
        spec: A path, a model name, a folder, a glob, a list of these, or one string of them with commas between.
        environment: As for :func:`load`.

    Returns:
        The policies in the order asked for; a file named twice is read once.

    Raises:
        PolicyError: Every problem of every file, a model with two files, and a spec that names nothing. Its ``loaded``
            holds the policies that are fine.
    """
    policies: dict[Path, Policy] = {}
    problems: list[Problem] = []
    folders: dict[Path, dict[str, list[Path]]] = {}
    asked = _asked_for(spec, environment, problems)
    unknown, unread = len(problems), set[Path]()
    for path, named in asked:
        if path.resolve() in policies:
            continue
        try:
            policies[path.resolve()] = _load(path, named, environment, folders)
        except PolicyError as error:
            problems.extend(error.problems)
            unread.add(path.resolve())
    if not policies and not problems:
        problems.append(Problem(repr(spec), "", "names no policy; give a path, a model name, a folder or a glob"))
    twice = _models_with_two_files(policies.values())
    problems.extend(twice.values())
    if problems:
        fine = [policy for policy in policies.values() if _prefix(policy.model) not in twice]
        raise PolicyError(dict.fromkeys(problems), fine, unknown + len(unread) + len(policies) - len(fine))
    return tuple(policies.values())


def _load(
    path: Path, named: str | None, environment: Mapping[str, str], folders: dict[Path, dict[str, list[Path]]]
) -> Policy:
    draft = _Draft(path)
    text = _read(path)
    _parse(text, draft)
    if named and draft.raw.get("model", named) != named:
        draft.report(
            ("model",), f"{draft.raw['model']!r} is not {named!r}, the name it was looked up by; make them one"
        )
    _override(draft, environment)
    policy = _validate(draft)
    check = policy.gate.performance if policy else None
    if check is not None and check.at_least is None:
        own = "turn performance off and name a check of your own (gate.checks)"
        message = f"is missing, and {check.metric} has no usual value; add it, or {own}"
        draft.report(("gate", "performance", "at_least"), message)
    if policy is not None and (other := _twin(path, policy.model, folders)):
        draft.report(("model",), _two_files(policy.model, other))
    if policy is None or draft.problems:
        raise PolicyError(sorted(draft.problems, key=sort_key))
    return _anchored(policy, text, draft)


def _twin(path: Path, model: str, folders: dict[Path, dict[str, list[Path]]]) -> Path | None:
    """Another policy file of the same folder for the same model: two flows would follow different rules for it.

    Args:
        path: Of the policy.
        model: Its model.
        folders: What was found in each folder so far; a watch over many policies reads each of them once for this.
    """
    if path.suffix not in _SUFFIXES:
        return None
    folder = path.absolute().parent
    if folder not in folders:
        folders[folder] = _models_in(folder)
    named = folders[folder].get(model, ())
    return next((other for other in named if other.resolve() != path.resolve()), None)


def _models_in(folder: Path) -> dict[str, list[Path]]:
    """Policy files of a folder by the model that they name; of one that cannot be read, whoever loads it hears."""
    named: dict[str, list[Path]] = {}
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            with suppress(OSError):
                text = path.read_text("utf-8-sig", errors="replace") if path.suffix in _SUFFIXES else ""
                if model := _MODEL.search(text):
                    named.setdefault(model[1], []).append(path)
    return named


def _two_files(model: str, other: object) -> str:
    return (
        f"{model!r} has a policy in {other} too; one model has one policy. Remove one, or give a draft another ending"
    )


def _asked_for(
    spec: str | list[str], environment: Mapping[str, str], problems: list[Problem]
) -> list[tuple[Path, str | None]]:
    found: list[tuple[Path, str | None]] = []
    for part in (part.strip() for part in (spec.split(",") if isinstance(spec, str) else spec)):
        try:
            if Path(part).is_dir() and part:
                found += [(path, None) for path in sorted(Path(part).iterdir()) if path.suffix in _SUFFIXES]
            elif set(part) & set("*?["):
                found += [(path, None) for path in _matches(Path(part))]
            elif part:
                found.append(_find(part, environment))
        except PolicyError as error:
            problems.extend(error.problems)
    return found


def _matches(pattern: Path) -> list[Path]:
    return sorted(Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))))


def _models_with_two_files(policies: Iterable[Policy]) -> dict[str, Problem]:
    """Also names that differ only in - and _: the same environment variables would override both."""
    first: dict[str, Policy] = {}
    twice: dict[str, Problem] = {}
    for policy in policies:
        other = first.setdefault(_prefix(policy.model), policy)
        if other is not policy:
            twice[_prefix(policy.model)] = Problem(policy.origin, "model", _two_files(policy.model, other.origin))
    return twice


def _find(name_or_path: str, environment: Mapping[str, str]) -> tuple[Path, str | None]:
    """The file, and the model name it was looked up by when it was."""
    if name_or_path.endswith((".yaml", ".yml")) or set(name_or_path) & {"/", os.sep}:
        return Path(name_or_path), None
    folder = Path(environment.get("BACKSTOP_POLICIES") or "policies")
    path = folder / f"{name_or_path}.yaml"
    if path.is_file():
        return path, name_or_path
    there = sorted(file.stem for file in folder.glob("*.yaml"))
    hint = f"there are: {', '.join(there)}{near(name_or_path, there)}" if there else "the folder has no policies"
    remedy = "give a path, or set BACKSTOP_POLICIES to the folder of the policies"
    raise PolicyError([Problem(str(path), "", f"no such file for the model {name_or_path!r}; {hint}; {remedy}")])


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError([Problem(str(path), "", f"is not UTF-8 ({error}); save it as UTF-8")]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}; give the path of a policy file, or a model name"
        raise PolicyError([Problem(str(path), "", message)]) from None


def _parse(text: str, draft: _Draft) -> None:
    """Fill in ``raw`` and ``lines``; a repeated key and an empty value are problems.

    Raises:
        PolicyError: For what is no YAML mapping; there is nothing to go on with.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        draft.lines[()] = 1
        top = node if isinstance(node, yaml.MappingNode) else None
        empty = _walk(top, (), draft, set()) if top else []
        draft.raw = loader.construct_document(top) if top else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{draft.path}:{mark.line + 1}" if mark else str(draft.path)
        message = f"is no YAML: {error.problem or error.context}; look at the indentation, colons and quotes there"
        raise PolicyError([Problem(where, "", message)]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a ValueError: a date such as 2024-13-45
        raise PolicyError([Problem(str(draft.path), "", f"is no YAML: {error}; correct or quote it")]) from None
    finally:
        loader.dispose()
    if top is None:
        raise PolicyError([Problem(f"{draft.path}:1", "", "holds no keys; start with `model: <name>`")])
    for place in empty:
        draft.report(place, empty_value(place))
        draft.remove(place)


def _walk(node: yaml.Node, place: KeyPath, draft: _Draft, seen: set[int]) -> list[KeyPath]:
    """Note the line of every key, each node once: an alias may point back at its own parent."""
    if id(node) in seen:
        return []
    seen.add(id(node))
    empty: list[KeyPath] = []
    children: list[tuple[KeyPath, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*place, str(key.value))
            if child in draft.lines:
                draft.lines[child], before = key.start_mark.line + 1, draft.lines[child]
                draft.report(child, f"is there twice, first on line {before}; keep one")
            draft.lines[child] = key.start_mark.line + 1
            children.append((child, value))
    elif isinstance(node, yaml.SequenceNode):
        children = [((*place, index), value) for index, value in enumerate(node.value)]
    for child, value in children:
        draft.lines.setdefault(child, value.start_mark.line + 1)
        free = any(child[: len(part)] == part for part in _FREE)
        if isinstance(value, yaml.ScalarNode) and value.value == "" and value.style is None and not free:
            empty.append(child)
        empty += _walk(value, child, draft, seen)
    return empty


def _prefix(model: str) -> str:
    return f"BACKSTOP_{model.upper().replace('-', '_')}__"


def variable(model: str, key: str) -> str:
    """The environment variable that overrides a key such as ``gate.latency.p99`` in the policy of a model."""
    return _prefix(model) + key.upper().replace(".", "__")


def _override(draft: _Draft, environment: Mapping[str, str]) -> None:
    """Put the values of ``BACKSTOP_<MODEL>__...`` over those of the file."""
    if not isinstance(draft.raw.get("model"), str):
        return  # a problem of its own
    prefix = _prefix(draft.raw["model"])
    for variable in sorted(name for name in environment if name.startswith(prefix)):
        keys = variable.removeprefix(prefix).lower().split("__")
        try:
            value = yaml.safe_load(environment[variable])
        except (yaml.YAMLError, ValueError):
            message = "cannot be read as a YAML value; quote it, or give a number, a word or [a, list]"
            draft.problems.append(Problem(f"environment variable {variable}", ".".join(keys), message))
            continue
        if value is None:
            draft.variables[tuple(keys)] = variable
            draft.report(tuple(keys), "is empty; unset the variable, or write `off` to turn the check off")
        elif keys == ["model"]:
            draft.problems.append(
                Problem(f"environment variable {variable}", "model", "a model cannot be renamed here; change the file")
            )
        else:
            draft.variables[_put(draft.raw, keys, value)] = variable


def _put(raw: dict[str, Any], keys: list[str], value: Any) -> KeyPath:
    """Set a value below nested keys; a key that is there already is found whatever its case (``C`` of a regression)."""
    here, place = raw, []
    for depth, key in enumerate(keys):
        known = next((there for there in here if str(there).lower() == key), key)
        place.append(known)
        if depth == len(keys) - 1:
            here[known] = value
        else:
            below = here.get(known)
            # A copy: YAML aliases let two sections share one mapping, and only this one is meant.
            here[known] = dict(below) if isinstance(below, dict) else {}
            here = here[known]
    return tuple(place)


def _validate(draft: _Draft) -> Policy | None:
    """Validate, take out what is wrong, and validate again: a check over a whole section waits for its parts."""
    draft.raw = copy.deepcopy(draft.raw)
    for _ in range(6):
        try:
            return Policy.model_validate(draft.raw)
        except ValidationError as error:
            found = error.errors(include_url=False)
        before = len(draft.removed)
        places = [(place_of(item, draft.raw), item) for item in found]
        for place, item in places:
            if place is not None and not _is_side_effect(place, item, draft):
                draft.report(_MEANT.get(place, place), explain(item, place))
        for place, _item in reversed(places):  # the last of a list first, so that the indices before it stay right
            if place is not None:
                draft.remove(place)
        if () in draft.removed or len(draft.removed) == before:
            break
    return None


def _is_side_effect(place: KeyPath, item: ErrorDetails, draft: _Draft) -> bool:
    """True for what may be wrong only because another problem's value was taken out before."""
    if place in draft.removed:
        return True
    if item["type"] != "value_error":
        return False
    section = section_at(place)
    known = section.model_fields if section else {}
    gone = {str(path[-1]) for path in draft.removed if path and path[:-1] == place}
    return any(place == () or name not in known or name in item["msg"] for name in gone)


def _anchored(policy: Policy, text: str, draft: _Draft) -> Policy:
    """Paths relative to the file made absolute; the text and where it came from."""
    folder = draft.path.resolve().parent
    source = _absolute_source(policy.data.source, folder)
    notify = tuple(_absolute_sink(sink, folder) for sink in policy.notify)
    anchored = policy.model_copy(update={"data": policy.data.model_copy(update={"source": source}), "notify": notify})
    overrides = (f"# {_override_line(place, variable, draft.raw)}" for place, variable in draft.variables.items())
    # Policy keeps the two private, so that nobody edits them; this is their one writer.
    anchored._text = "\n".join([_shown(text, policy), *overrides, ""])  # noqa: SLF001  see above
    anchored._origin = str(draft.path.resolve())  # noqa: SLF001  see above
    places = {".".join(map(str, place)): draft.where(place) for place in (*draft.lines, *draft.variables)}
    anchored._places = places  # noqa: SLF001  see above
    return anchored


def _shown(text: str, policy: Policy) -> str:
    """The text for the record of a run. A secret belongs into the environment; one that was written here is masked."""
    hidden = {policy.data.source: mask(policy.data.source)} | {sink: notify.mask(sink) for sink in policy.notify}
    for written, harmless in hidden.items():
        if written == harmless:
            continue
        if written not in text:  # folded or escaped: then the whole text is written anew
            raw = policy.model_dump(mode="json", exclude_unset=True)
            raw["data"]["source"] = mask(policy.data.source)
            raw["notify"] = [notify.mask(sink) for sink in policy.notify]
            return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).rstrip("\n")
        text = text.replace(written, harmless)
    return text.rstrip("\n")


def _override_line(place: KeyPath, variable: str, raw: Any) -> str:
    """The variable with its value, for the record of the run; addresses may hold secrets and are left out."""
    secret = place[0] == "notify" or place == ("data", "source")
    for part in place:
        raw = raw[part]
    return f"{variable}={'***' if secret else shown(raw)}"


def _absolute_source(source: str, folder: Path) -> str:
    if match := re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:|\$\{)(.+)", source):
        return f"{match[1]}{folder / match[2]}"
    is_file = "://" not in source and source.endswith((".csv", ".csv.gz", ".parquet"))
    if not is_file or (source.startswith("${") and not _is_relative(source)):
        return source
    return str(folder / Path(source).expanduser())


def _is_relative(source: str) -> bool:
    """Whether what its variables stand for is a path that begins nowhere; unset ones are told when it is read."""
    try:
        meant = expand(source)
    except PluginError:
        return False
    return "://" not in meant and not Path(meant).expanduser().is_absolute()


def _absolute_sink(sink: str, folder: Path) -> str:
    path = sink.removeprefix("file:")
    return sink if path == sink or path.startswith(("/", "${")) else f"file:{folder / path}"
