"""Parquet: one table in a file, or in a folder of files, read column by column and batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 1 << 17
"""Rows that are read at a time."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a table.

    Attributes:
        path: Of the file.
        metadata: What its footer says.
        schema: Of its columns; texts are dictionaries.
    """

    path: Path
    metadata: pq.FileMetaData
    schema: pa.Schema


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

    def batches(self, name: str) -> Iterator[pa.Array]:
        """A column, all of it in one type."""
        kind = self.schema.field(name).type
        for part in self.parts:
            texts = [one.name for one in part.schema if pa.types.is_dictionary(one.type)]
            with pq.ParquetFile(part.path, metadata=part.metadata, read_dictionary=texts) as file:
                for batch in file.iter_batches(BATCH, columns=[name], use_threads=False):
                    # A name with a dot in it also means a field of a struct, which is read with it.
                    array = batch.column(batch.schema.get_field_index(name))
                    yield pa.nulls(len(array), kind) if pa.types.is_null(array.type) else array

    def bounds(self, name: str) -> Iterator[pa.Array]:
        """Arrays that have the extremes and the nulls of a column: what the files say of them, or else the rows."""
        kind, told = self.schema.field(name).type, []
        for part in self.parts:
            place = part.schema.names.index(name)
            flat = part.metadata.num_columns == len(part.schema.names)
            groups = [part.metadata.row_group(number) for number in range(part.metadata.num_row_groups)]
            known = [group.column(place).statistics for group in groups] if flat else []
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
        path: Of a file, or of a folder with files in it at any depth. What begins with a dot or an underscore is left
            out: engines leave notes beside what they write.

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
    for place, folders, files in os.walk(folder, onerror=_raised):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in files:
            if name.endswith(".parquet") and not name.startswith((".", "_")):
                yield Path(place) / name


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
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: column {', '.join(map(repr, twice))} is there twice; rename one of them")
    # A file has the different texts of a column as a dictionary: nothing needs to look for them in the rows.
    texts = [
        one.with_type(pa.dictionary(pa.int32(), one.type))
        if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)
        else one
        for one in schema
    ]
    return Part(path, metadata, pa.schema(texts, metadata=schema.metadata))


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
    differing = [f"{name} is only in one of them" for name in sorted(set(schema.names) ^ set(new.names))]
    fields = []
    for field in schema:
        kind = new.field(field.name).type if field.name in new.names else field.type
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
