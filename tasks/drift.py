"""Drift: which columns of a file are not what they were, in an older file or when what is in Production was trained.

``python -m tasks.drift july.parquet --reference june.parquet`` compares two files; with ``--policy churn`` the columns
and the limits are those of the policy, and without ``--reference`` the rows are held against the profile of the version
in Production. It is the judgement of the trigger ``drift``, asked by hand. Parquet is read in batches, so a file need
not fit into memory. Nothing is changed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks import policy_file
from tasks import profile as profiles
from tasks.case import LedgerError, open_ledger
from tasks.decide import drift, phrase
from tasks.policy import Data, DriftTrigger, Policy
from tasks.policy_problem import near
from tasks.progress import Course, Progress, on_terminal, silent
from tasks.records import ColumnProfile, Finding, Outcome, to_plain
from tasks.sources import DataError, read_file
from tasks.stores import Stores

if TYPE_CHECKING:
    import pandas as pd


_MARKS: dict[Outcome, str] = {"ok": "green", "breach": "red", "unknown": "yellow"}
_WORDS: dict[Outcome, str] = {"ok": "as it was", "breach": "drifted", "unknown": "unknown"}
_CODES: dict[Outcome, int] = {"ok": 0, "breach": 1, "unknown": 3}
_SHOWN = 30
_CSV = (".csv", ".csv.gz")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What became of the columns.

    Attributes:
        finding: That of the trigger: whether more of them have moved than may.
        columns: One for each of the reference, what matters most first.
        against: What the rows were held against, in words.
        notes: What was not compared, one sentence each.
    """

    finding: Finding
    columns: tuple[Finding, ...]
    against: str
    notes: tuple[str, ...]


def compare(
    recent: Path,
    reference: Path | None = None,
    *,
    policy: Policy | None = None,
    stores: Stores | None = None,
    drop: Sequence[str] = (),
    ks: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Hold the rows of a file against those of an older one, or against the profile of the version in Production.

    Args:
        recent: Parquet or CSV, or a folder of Parquet files that hold one table.
        reference: The older one; None: the profile, which takes a policy and stores.
        policy: Whose columns and limits count; None: all columns, and the limits that a policy has by default.
        stores: Where the ledger is.
        drop: Columns that are left out besides.
        ks: Tell each number's Kolmogorov-Smirnov distance too; from a profile where it was kept.
        progress: Told (columns done, all of them, what is done).

    Raises:
        DataError: For a file that cannot be read or has none of the columns, and where there is no profile.
        LedgerError: When the ledger, which has the profile, cannot be opened.
    """
    rules = (policy.triggers.drift if policy else None) or DriftTrigger()
    text = () if policy is None else policy.data.categorical
    new, old = _opened(recent, reference, text, progress)
    apart = {*drop, *(() if policy is None else _apart(policy.data))}
    nested = {*new.nested, *(() if old is None else old.nested)}
    keys = {*new.keys, *(() if old is None else old.keys)}
    if old is None:
        known, against = _in_production(policy, stores)
        _refuse_unknown(drop, (*(column.name for column in known), *new.names, *nested, *keys))
        known = tuple(column for column in known if column.name not in apart)
    else:
        _refuse_unknown(drop, (*old.names, *new.names, *nested, *keys))
        wanted = [name for name in old.names if name not in apart]
        known, against = old.describe(wanted, text, ks=ks or rules.ks, told=progress), old.path.name
    if not known:
        remedy = "drop fewer of them" if apart else "name another file"
        raise DataError(f"no column of {against} is left to compare; {remedy}")
    found = new.count(known, text, told=progress)
    names, notes = {column.name for column in known}, []
    if policy is not None and policy.triggers.drift is None:
        notes.append(
            f"the policy of {policy.model} has drift off, so the limits are those that it would have by default"
        )
    if left := sorted(nested - apart - names):
        notes.append(f"not compared, since what they hold is no single value: {phrase.listing(left)}")
    if left := sorted(keys - apart - names):
        notes.append(f"not compared, since only the names of folders have them: {phrase.listing(left)}")
    added = [name for name in new.names if name not in names and name not in apart]
    if added:
        notes.append(f"{recent.name} has columns that {against} does not have: {phrase.listing(added)}")
    columns = drift.judge_columns(known, found, rules)
    return Comparison(finding=drift.judge(known, found, rules), columns=columns, against=against, notes=tuple(notes))


def _opened(
    recent: Path, reference: Path | None, text: Sequence[str], progress: Progress = silent
) -> tuple[_File, _File | None]:
    """Both, or everything that is wrong with them. A CSV is read whole, which may take long."""
    course = Course(progress, "files opened", 1 if reference is None else 2)
    found: list[_File | None] = []
    problems: list[str] = []
    for path in (recent, reference):
        try:
            found.append(None if path is None else _File.opened(path, text))
        except DataError as error:
            problems += error.problems
        course.past()
    if problems or found[0] is None:
        raise DataError(*problems)
    return found[0], found[1]


def _apart(data: Data) -> set[str]:
    return {data.target, *data.drop, *(() if data.time_column is None else (data.time_column,))}


def _refuse_unknown(drop: Sequence[str], there: Sequence[str]) -> None:
    problems = [f"--drop: there is no column {name!r}{near(name, there)}" for name in drop if name not in there]
    if problems:
        raise DataError(*problems, f"there are: {phrase.listing(list(dict.fromkeys(there)))}")


def _in_production(policy: Policy | None, stores: Stores | None) -> tuple[tuple[ColumnProfile, ...], str]:
    if policy is None or stores is None:
        raise DataError("there is nothing to compare with; name an older file (--reference) or a policy (--policy)")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backstop-")))
        # To look into a ledger that is not there must not make one.
        ledger = stack.enter_context(open_ledger(stores.rehearsed(scratch).ledger))
        version = ledger.standing(policy.model).production
        stored = None if version is None else ledger.profile(policy.model, version)
    if stored is None:
        what = "nothing is in Production" if version is None else f"version {version} has no profile"
        raise DataError(
            f"{policy.model}: {what}, so there is nothing to compare with; name an older file (--reference)"
        )
    try:
        columns = profiles.from_plain(stored).columns
    except ValueError as error:
        raise DataError(f"the profile of version {version} of {policy.model} in the ledger: {error}") from error
    return columns, f"what version {version} of {policy.model} was trained on"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of rows.

    Attributes:
        path: Of it.
        names: Columns that can be counted.
        nested: Those that cannot: they hold lists.
        keys: Those that only the names of folders have.
        words: Those that hold texts in a Parquet.
        frame: The rows of a CSV; those of Parquet are read when they are counted.
    """

    path: Path
    names: tuple[str, ...]
    nested: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    frame: pd.DataFrame | None = None

    @classmethod
    def opened(cls, path: Path, text: Sequence[str]) -> _File:
        """Looked into; ``text`` stays text in a CSV although it looks like numbers.

        Raises:
            DataError: When it cannot be read.
        """
        with _readable(path):
            folder = path.is_dir()
        if path.name.endswith(_CSV):
            frame = read_file(path, text=text, place="file").rename(columns=str)
            return cls(path, tuple(frame.columns), frame=frame)
        if path.suffix != ".parquet" and not folder:
            raise DataError(f"{path}: neither a folder nor one of {', '.join((*_CSV, '.parquet'))}; name such a file")
        import pyarrow as pa  # noqa: PLC0415  a CSV needs none

        from tasks import parquet  # noqa: PLC0415  see above

        with _readable(path):
            table = parquet.opened(path)
        schema = table.schema
        nested = tuple(one.name for one in schema if pa.types.is_nested(one.type))
        apart = frozenset(nested)
        names = tuple(one for one in schema.names if one not in apart)
        return cls(path, names, nested, table.keys, frozenset(one.name for one in schema if parquet.is_text(one.type)))

    def describe(
        self, names: Sequence[str], text: Sequence[str], *, ks: bool, told: Progress
    ) -> tuple[ColumnProfile, ...]:
        """As a reference."""
        if self.frame is not None:
            course = Course(told, f"profile of {self.path.name}", 1)
            described = profiles.describe(_tidied(self.frame[list(names)], text), ks=ks)
            course.past()
            return described
        from tasks import streamed  # noqa: PLC0415  a CSV needs none

        with _readable(self.path):
            return streamed.describe(self.path, list(names), text=text, ks=ks, progress=told)

    def count(
        self, reference: Sequence[ColumnProfile], text: Sequence[str], *, told: Progress
    ) -> tuple[ColumnProfile, ...]:
        """In the bins of a reference. Texts that were words stay texts: in few rows all may look like numbers."""
        there = frozenset(self.names)
        known = [column for column in reference if column.name in there]
        words = {column.name for column in known if column.kind == "category"}
        if self.frame is not None:
            course = Course(told, f"counts of {self.path.name}", 1)
            counted = profiles.count(self._rows([column.name for column in known], words, text), known)
            course.past()
            return counted
        from tasks import streamed  # noqa: PLC0415  a CSV needs none

        with _readable(self.path):
            return streamed.count(self.path, known, text={*text, *(words & self.words)}, progress=told)

    def _rows(self, names: list[str], words: set[str], text: Sequence[str]) -> pd.DataFrame:
        """Of a CSV, read once more where pandas made numbers of what were words."""
        assert self.frame is not None  # noqa: S101  for mypy
        found = _tidied(self.frame[names], text)
        numbers = [name for name in names if name in words and found[name].dtype != object]
        if not numbers:
            return found
        again = read_file(self.path, text=numbers, place="file").rename(columns=str)
        return found.assign(**_tidied(again[numbers], numbers))


def _tidied(frame: pd.DataFrame, text: Sequence[str]) -> pd.DataFrame:
    from tasks.columns import tidy  # noqa: PLC0415  Parquet needs none

    return tidy(frame, text=text)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # Arrow's errors are these
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"there is no file {path}; correct the path, or put the file there")
    return DataError(f"{path}: {error}")


def main(
    recent: Annotated[str, typer.Argument(help="Parquet or CSV file of recent rows, or a folder of Parquet.")],
    *,
    reference: Annotated[str, typer.Option(help="Of older rows; without: the version in Production.")] = "",
    policy: Annotated[str, typer.Option(help="Whose columns and limits count: a model's name or a path.")] = "",
    drop: Annotated[str, typer.Option(help="Columns to leave out, with commas between them.")] = "",
    ks: Annotated[bool, typer.Option("--ks", help="Tell the Kolmogorov-Smirnov distance of each number.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every column.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell which columns have drifted. Exit code 0: no more than may; 1: more; 3: that cannot be told.

    Raises:
        typer.BadParameter: For a file, a column or a policy that cannot be used, exit code 2.
        typer.Exit: See above.
    """
    if not recent.strip():
        raise typer.BadParameter(
            "no file of recent rows is named; make drift RECENT=july.parquet REFERENCE=june.parquet"
        )
    left_out = [name.strip() for name in drop.split(",") if name.strip()]
    older = Path(reference) if reference.strip() else None
    try:
        known = policy_file.load(policy) if policy else None
    except policy_file.PolicyError as error:
        try:
            _opened(Path(recent), older, ())
        except DataError as other:
            _refuse(f"{error}\n{other}")
        _refuse(error)
    try:
        with on_terminal() as progress:
            found = compare(
                Path(recent),
                older,
                policy=known,
                stores=None if known is None else Stores.from_environment(),
                drop=left_out,
                ks=ks,
                progress=progress,
            )
    except (DataError, LedgerError) as error:
        _refuse(error)
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(to_plain(found)))
    else:
        _show(Path(recent), found, every=every)
    raise typer.Exit(_CODES[found.finding.outcome])


def _refuse(error: object) -> NoReturn:
    raise typer.BadParameter(str(error)) from None


def _show(recent: Path, found: Comparison, *, every: bool) -> None:
    console = Console(highlight=False)
    some = "drift within the limit" if found.finding.value else "no drift"
    verdict = {"ok": some, "breach": "DRIFT", "unknown": "unknown"}[found.finding.outcome]
    console.print(
        Text.assemble((verdict, f"bold {_MARKS[found.finding.outcome]}"), f": {recent.name} against {found.against}")
    )
    console.print(Text(found.finding.reason))
    calm = [column for column in found.columns if column.outcome == "ok"]
    shown = found.columns if every else [*_first(found.columns), *calm][:_SHOWN]
    console.print(_table(shown))
    if len(shown) < len(found.columns):
        console.print(Text(f"{len(found.columns) - len(shown)} columns more; --all shows them", "dim"))
    for note in found.notes:
        console.print(Text(note, "yellow"))


def _first(columns: Sequence[Finding]) -> list[Finding]:
    return [column for column in columns if column.outcome != "ok"]


def _table(columns: Sequence[Finding]) -> Table:
    distances = any("ks" in column.evidence for column in columns)
    table = Table()
    for header in ("column", "", "PSI", "truly at most", *(["KS"] if distances else []), "nulls", "why"):
        table.add_column(
            header, overflow="fold", justify="right" if header in {"PSI", "truly at most", "KS"} else "left"
        )
    for column in columns:
        high = None if column.interval is None else column.interval[1]
        cells = [Text(_number(column.value)), Text(_number(high))]
        if distances:
            cells.append(Text(_number(column.evidence.get("ks"))))
        mark = Text(_WORDS[column.outcome], _MARKS[column.outcome])
        table.add_row(Text(column.name), mark, *cells, Text(_nulls(column)), Text(_why(column)))
    return table


def _why(column: Finding) -> str:
    """Its reason, without what stands in the other cells."""
    if column.outcome == "ok":
        return ""
    said = column.reason.removeprefix(f"{column.name}: ").split("; ")
    limit = f"above {phrase.number(column.threshold or 0.0)}"
    return "; ".join(limit if one.startswith("PSI ") else one for one in said)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _nulls(column: Finding) -> str:
    before, after = column.evidence.get("null_share_reference"), column.evidence.get("null_share")
    if not before and not after:
        return ""
    return " to ".join("-" if share is None else f"{share:.1%}" for share in (before, after))


if __name__ == "__main__":
    typer.run(main)
