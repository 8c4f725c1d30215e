"""The layouts of tables that a task's split comes in: parquet as the data hub lays it out, and a saved data set."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.class_names import by_name, class_names, features_in
from bench.data.layouts import Raw, require_columns
from bench.data.shards import arrow_files, parquet_files
from bench.errors import InputError
from eraser_eval.formats.foreign import START, explain

if TYPE_CHECKING:
    import pyarrow as pa

    from bench.tasks import Task


@dataclass(frozen=True)
class Part:
    """A file's rows, with labels in the task's own numbers."""

    where: Path
    text: list[Any]
    pair: list[Any] | None
    label: list[Any] | None


def find_parquet(task: Task, split: str, base: Path) -> list[Path]:
    """List the parquet files of a split, in the folder, in data/ or in the folder of the task's configuration."""
    names = ["", "data", *([task.hub[1]] if task.hub else [])]
    return parquet_files(base, [base / name for name in dict.fromkeys(names)], split)


def read_parquet(task: Task, split: str, paths: Sequence[Path]) -> Raw:
    """Read files of parquet, one after the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    for path in paths:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                schema = file.schema_arrow
                require_columns(task, where=path, columns=_columns(task, split), present=schema.names)
                table = file.read(columns=_columns(task, split))
        except (pa.ArrowException, OSError) as error:
            raise InputError(_unreadable(path, error)) from error
        parts.append(_part(task, split, table, features=features_in(schema.metadata, path), where=path))
    return _join(parts)


def find_saved(task: Task, split: str, base: Path) -> list[Path]:
    """List the folder of a split that save_to_disk wrote."""
    folder = base / split
    return [folder] if any((folder / name).is_file() for name in ("state.json", "dataset_info.json")) else []


def read_saved(task: Task, split: str, paths: Sequence[Path]) -> Raw:
    """Read a `datasets` folder written by save_to_disk."""
    import datasets
    import pyarrow as pa

    (folder,) = paths
    arrow_files(folder)
    try:
        saved = datasets.Dataset.load_from_disk(str(folder))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Not what it says, which may be a text that does not fit its column.
        raise InputError(
            f"{folder} cannot be read as a saved data set ({type(error).__name__}); save it again"
        ) from error
    require_columns(task, where=folder, columns=_columns(task, split), present=saved.column_names)
    return _join([_part(task, split, saved.data.table, features=saved.features.to_dict(), where=folder)])


def _columns(task: Task, split: str) -> list[str]:
    """Name what is read of hub-style data."""
    label = None if split in task.unlabelled else task.label
    return [name for name in (task.text, task.pair, label) if name is not None]


def _part(task: Task, split: str, table: pa.Table, *, features: object, where: Path) -> Part:
    """Take texts and labels from a table, the labels in the task's own numbers."""
    values: Mapping[str, list[Any]] = {name: _values(table, name, where) for name in _columns(task, split)}
    text, label = values[task.text], values.get(task.label)
    if task.decode is not None and label is not None:
        rows = [task.decode(*row) for row in zip(text, label, strict=True)]
        text, label = [row[0] for row in rows], [row[1] for row in rows]
    if label is not None:
        label = by_name(task, label, class_names(features, task.label), where)
    return Part(where, text, values[task.pair] if task.pair else None, label)


def _values(table: pa.Table, name: str, where: Path) -> list[Any]:
    """Give a column as Python's values.

    Raises:
        InputError: a value has no counterpart, such as bytes that are called a text and are not UTF-8.
    """
    values: list[Any] = []
    try:
        for batch in table[name].chunks:
            values.extend(value.as_py() for value in batch)
    except (ValueError, OverflowError) as error:
        rule = "its bytes are not UTF-8" if isinstance(error, UnicodeDecodeError) else "Python has no such value"
        raise InputError(
            f"{where}, row {len(values) + 1}: the column {name!r} cannot be read, {rule}; write it again"
        ) from error
    return values


def _join(parts: Sequence[Part]) -> Raw:
    """Put the rows of all files together, each with its place in its file."""
    ends = list(accumulate(len(part.text) for part in parts))

    def locate(row: int) -> str:
        number = min(bisect_right(ends, row), len(parts) - 1)
        return f"{parts[number].where}, row {row - ([0, *ends])[number] + 1}"

    return Raw(
        text=[value for part in parts for value in part.text],
        pair=_chain(part.pair for part in parts),
        label=_chain(part.label for part in parts),
        locate=locate,
    )


def _chain(columns: Iterator[list[Any] | None]) -> list[Any] | None:
    """Make one column of several, None where there is none."""
    known = [column for column in columns if column is not None]
    return [value for column in known for value in column] if known else None


def _unreadable(path: Path, error: Exception) -> str:
    """Say what a file is that is no parquet."""
    if path.is_dir():
        return f"{path} is a folder, but one parquet file is expected; pass the files themselves"
    try:
        with path.open("rb") as file:
            what = explain(file.read(START))
    except OSError as denial:
        return f"{path} cannot be read ({denial.strerror}); is it there, and may it be read?"
    reason = f"cannot be read as parquet ({type(error).__name__}); download it again"
    return f"{path} {reason if what is None or 'parquet' in what else what}"
