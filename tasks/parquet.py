"""Parquet: one table in a file, or in a folder of files, read column by column and batch by batch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BATCH = 1 << 17
"""Rows that are read at a time."""
BYTES = 1 << 23
"""Bytes that they take at most, if all rows of a row group are about as long."""
_BUFFER = 1 << 20
"""Bytes of a column that are read from the disk at a time: without, it is all of a row group, or of the file."""
_OPEN = 64
"""Handles that stay open: what is beyond is opened for each column, since a process may have a few hundred."""
_LOOKED = 1 << 10
"""Texts that are looked at to know how long they are."""
_SHOWN = 5
_MAGIC = b"PAR1"
"""A Parquet file begins with them, whatever it is called."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a table.

    Attributes:
        path: Of the file.
        metadata: What its footer says.
        schema: Of its columns; texts are dictionaries.
        places: Where the metadata have each column that holds single values.
    """

    path: Path
    metadata: pq.FileMetaData
    schema: pa.Schema
    places: dict[str, int]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that need not fit into memory.

    Attributes:
        path: Of the file or the folder.
        parts: In the order of their names; the same columns in each.
        schema: Of the columns, without those that pandas reads as the index; texts are dictionaries.
    """

    path: Path
    parts: tuple[Part, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """How many."""
        return sum(part.metadata.num_rows for part in self.parts)

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that are only in the names of folders, such as ``country=de``, and are not read."""
        folders = {one for part in self.parts for one in part.path.relative_to(self.path).parts[:-1]}
        named = {one.partition("=")[0] for one in folders if "=" in one}
        return tuple(sorted(named - set(self.schema.names)))

    def reader(self) -> Reader:
        """Its rows, to be used in a ``with``: files stay open until its end."""
        return Reader(self)


class Reader:
    """The rows of a table. Opening a file takes as long as it has columns, so each is opened once for all of them."""

    def __init__(self, table: Table) -> None:
        """Nothing is opened before it is asked for."""
        self.table = table
        self._open = ExitStack()
        self._files: dict[tuple[Path, bool], pq.ParquetFile] = {}
        self._bytes: dict[tuple[Path, str], float] = {}

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the files."""
        self._files.clear()
        self._open.close()

    @cached_property
    def pandas_types(self) -> dict[str, str]:
        """Of the columns that pandas wrote, the types that it calls numpy's."""
        told = (self.table.schema.pandas_metadata or {}).get("columns", [])
        return {one["field_name"]: one.get("numpy_type", "") for one in told if one.get("field_name")}

    def batches(self, name: str) -> Iterator[pa.Array]:
        """A column, all of it in one type; texts that a file has as a dictionary are one, and others are not.

        A batch has at most :data:`BATCH` rows and about :data:`BYTES`.
        """
        kind = self.table.schema.field(name).type
        for part in self.table.parts:
            for groups, rows, coded in self._stretches(part, name):
                with self._file(part, coded=coded) as file:
                    for batch in file.iter_batches(rows, groups, [name], use_threads=False):
                        # A name with a dot in it also means a field of a struct, which is read with it.
                        array = batch.column(batch.schema.get_field_index(name))
                        yield pa.nulls(len(array), kind) if pa.types.is_null(array.type) else array

    @contextmanager
    def _file(self, part: Part, *, coded: bool) -> Iterator[pq.ParquetFile]:
        """``coded``: texts come as dictionaries."""
        kept = self._files.get((part.path, coded))
        if kept is not None:
            yield kept
            return
        texts = [one.name for one in part.schema if is_text(one.type)] if coded else None
        file = pq.ParquetFile(
            part.path,
            metadata=part.metadata,
            read_dictionary=texts,
            buffer_size=_BUFFER,
            pre_buffer=False,
            page_checksum_verification=True,  # where the file has them
        )
        if len(self._files) < _OPEN:
            self._files[part.path, coded] = self._open.enter_context(file)
            yield file
            return
        with file:
            yield file

    def _stretches(self, part: Part, name: str) -> Iterator[tuple[list[int], int, bool]]:
        """Row groups of a part that are read alike: which ones, how many rows at a time, and whether as a dictionary.

        As a dictionary a text takes a few bytes however long it is, if the file has it as one. Where the file has the
        texts one by one, Arrow makes the dictionary of all that it has read so far.
        """
        kind, groups = part.schema.field(name).type, list(range(part.metadata.num_row_groups))
        if not groups or not (is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            yield groups, BATCH, False
            return
        stored = self._stored(part, name)
        text = self._long(part, name, stored[0]) if is_text(kind) else 0.0
        kinds = ((number, one < text / 2) for number, one in enumerate(stored))
        for coded, found in groupby(kinds, key=lambda one: one[1]):
            groups = [number for number, _ in found]
            most = max(*(stored[number] for number in groups), 0.0 if coded else text, 1.0)
            yield groups, min(BATCH, max(1, int(BYTES / most))), coded

    def _stored(self, part: Part, name: str) -> list[float]:
        """Bytes that a row takes in each row group, decompressed."""
        place = part.places[name]
        columns = (part.metadata.row_group(number).column(place) for number in range(part.metadata.num_row_groups))
        return [one.total_uncompressed_size / max(one.num_values, 1) for one in columns]

    def _long(self, part: Part, name: str, stored: float) -> float:
        """Bytes that a text takes by itself, by the first ones of a part."""
        known = self._bytes.get((part.path, name))
        if known is not None:
            return known
        some = min(_LOOKED, max(1, int(BYTES / max(stored, 1.0))))
        with self._file(part, coded=True) as file:
            batch = next(file.iter_batches(some, columns=[name], use_threads=False), None)
        array = None if batch is None else batch.column(batch.schema.get_field_index(name)).slice(0, some)
        found = 0.0
        if array is not None and len(array):
            lengths = pc.binary_length(array.dictionary).take(array.indices)
            found = 4.0 + (pc.sum(lengths).as_py() or 0) / len(array)
        self._bytes[part.path, name] = found
        return found

    def bounds(self, name: str) -> Iterator[pa.Array]:
        """Arrays that have the extremes and the nulls of a column: what the files say of them, or else the rows."""
        kind, told = self.table.schema.field(name).type, []
        for part in self.table.parts:
            flat = part.metadata.num_columns == len(part.schema)
            groups = [part.metadata.row_group(number) for number in range(part.metadata.num_row_groups)]
            known = [group.column(part.places[name]).statistics for group in groups] if flat else []
            if len(known) < len(groups) or not all(
                one is not None and one.has_min_max and one.has_null_count for one in known
            ):
                yield from self.batches(name)
                return
            told += known
        nulls = [None] * any(one.null_count for one in told)
        yield pa.array([*nulls, *(end for one in told for end in (one.min, one.max))], kind)


def opened(path: Path) -> Table:
    """A table; nothing but the footers is read.

    Args:
        path: Of a file, or of a folder with files in it at any depth, whatever they are called. What begins with a dot
            or an underscore is left out: engines leave notes beside what they write.

    Raises:
        OSError: When a file is not there or cannot be read.
        ValueError: When it is no Parquet, has a column twice, a folder has none in it, or its files do not hold the
            same columns.
    """
    paths = sorted(_inside(path)) if path.is_dir() else [path]
    if not paths:
        raise ValueError(f"the folder {path} has no Parquet file in it")
    parts = tuple(_part(one) for one in paths)
    schema = _columns(parts[0].schema)
    for part in parts[1:]:
        schema = _together(schema, part, parts[0].path.relative_to(path), part.path.relative_to(path))
    return Table(path, parts, schema)


def _inside(folder: Path) -> Iterator[Path]:
    """The files of a table; a folder that cannot be looked into is an error, and not left out."""
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_raised, followlinks=True):
        if (there := os.path.realpath(place)) in seen:  # by a link, which may lead back
            folders.clear()
            continue
        seen.add(there)
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in files:
            if not name.startswith((".", "_")) and _is_parquet(Path(place) / name):
                yield Path(place) / name


def _is_parquet(path: Path) -> bool:
    """By its name or its first bytes: rows in a file of another name are rows."""
    if path.suffix == ".parquet":
        return True
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _raised(error: OSError) -> NoReturn:
    raise error


def _part(path: Path) -> Part:
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{path} is no Parquet that can be read: {error}; write it anew") from error
    schema = metadata.schema.to_arrow_schema()
    twice = sorted(name for name, times in Counter(schema.names).items() if times > 1)
    if twice:
        raise ValueError(f"{path}: column {', '.join(map(repr, twice))} is there twice; rename one of them")
    # A file has the different texts of a column as a dictionary: nothing needs to look for them in the rows.
    texts = [
        one.with_type(pa.dictionary(pa.int32(), one.type))
        if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)
        else one
        for one in schema
    ]
    places, place = {}, 0
    for field in schema:
        places[field.name] = place
        place += _leaves(field.type)
    return Part(path, metadata, pa.schema(texts, metadata=schema.metadata), places)


def _leaves(kind: pa.DataType) -> int:
    """Columns of a file that a column of a table takes: a struct has one for each field."""
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(kind.storage_type)
    return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields)) or 1


def _columns(schema: pa.Schema) -> pa.Schema:
    """Without those that pandas wrote as the index, and reads as it."""
    index = {one for one in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(one, str)}
    return pa.schema([field for field in schema if field.name not in index], metadata=schema.metadata)


def _together(schema: pa.Schema, part: Part, first: Path, other: Path) -> pa.Schema:
    """The columns of both; one that is null in all rows of a part may have any type in another.

    Raises:
        ValueError: Lists every column that differs.
    """
    new = _columns(part.schema)
    there = set(new.names)
    differing = [f"{name} is only in one of them" for name in sorted(set(schema.names) ^ there)]
    fields = []
    for field in schema:
        kind = new.field(field.name).type if field.name in there else field.type
        known = kind if pa.types.is_null(field.type) else field.type
        if not pa.types.is_null(kind) and not _alike(known, kind):
            differing.append(f"{field.name} is {_called(known)} and {_called(kind)}")
        fields.append(field.with_type(known))
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise ValueError(
            f"{first} and {other} of one folder do not hold the same columns: "
            f"{'; '.join(differing[:_SHOWN])}{more}; write them alike"
        )
    return pa.schema(fields, metadata=schema.metadata)


def _alike(one: pa.DataType, other: pa.DataType) -> bool:
    return bool(one == other) or (is_text(one) and is_text(other))


def _called(kind: pa.DataType) -> str:
    return "text" if is_text(kind) else str(kind)


def is_text(kind: pa.DataType) -> bool:
    """A dictionary of texts, long or short."""
    if not pa.types.is_dictionary(kind):
        return False
    return bool(pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))
