"""The layouts that a task's split comes in: GLUE's TSV, JSON lines, ERASER's, hub-style parquet, a saved data set.

A reader returns None where the folder does not hold the split in its layout. Messages hold places, labels and column
names, never texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError

if TYPE_CHECKING:
    from bench.tasks import Task

ERASER_SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Our names of ERASER's splits."""

LONGEST_NAME = 40
"""Characters of a label or a column's name that a message shows."""


@dataclass(frozen=True)
class Raw:
    """A split's columns before any check.

    Attributes:
        text, pair, label: one value per row; pair is None for single texts, label for a split without labels.
        place: row index -> where the row stands, for messages.
        example_id: names of the rows, None where they have none of their own.
    """

    text: Sequence[object]
    pair: Sequence[object] | None
    label: Sequence[object] | None
    place: Callable[[int], str]
    example_id: Sequence[str] | None = None


def read_tsv(task: Task, split: str, base: Path) -> Raw | None:
    """GLUE's layout."""
    layout = task.tsv
    if layout is None or split not in layout.files or not (base / layout.files[split]).is_file():
        return None
    path, labelled = base / layout.files[split], split not in task.unlabelled
    # Not splitlines(): texts may hold characters that Unicode, but not the TSV format, counts as line ends.
    lines = [line.removesuffix("\r").split("\t") for line in _content(path).removesuffix("\n").split("\n")]
    headed = not layout.header or layout.text in lines[0]
    header = lines[0] if headed else list(layout.header)
    wanted = [name for name in (layout.text, layout.pair, layout.label if labelled else None) if name is not None]
    require_columns(task, where=path, columns=wanted, present=header)
    columns = [header.index(name) for name in wanted]
    numbered = list(enumerate(lines, start=1))[headed:]
    if layout.broken:
        numbered = list(_mended(numbered, size=len(header), required=columns if labelled else []))
    for number, row in numbered:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(row)} tab-separated fields, but its header has {len(header)}"
            )
    values = {name: [row[column] for _, row in numbered] for name, column in zip(wanted, columns, strict=True)}
    return Raw(
        text=values[layout.text],
        pair=values[layout.pair] if layout.pair else None,
        label=values.get(layout.label),
        place=lambda row: f"{path}, line {numbered[row][0] if numbered else 1}",
    )


def _mended(
    numbered: Sequence[tuple[int, list[str]]], *, size: int, required: Sequence[int]
) -> Iterator[tuple[int, list[str]]]:
    """Rows of a file that is known to be broken, all of them `size` fields long.

    Rows of another length, or with an empty required field, are left out; where none is required every row has to be
    answered, so that short ones are filled up and long ones cut.
    """
    for number, row in numbered:
        if not required:
            yield number, (row + [""] * size)[:size]
        elif len(row) == size and all(row[place].strip() for place in required):
            yield number, row


def read_json_lines(task: Task, split: str, base: Path) -> Raw | None:
    """An object per line."""
    layout = task.json_lines
    if layout is None or split not in layout.files or not (base / layout.files[split]).is_file():
        return None
    path = base / layout.files[split]
    labelled = split not in task.unlabelled
    wanted = [layout.text, layout.example_id, *([layout.label] if labelled else [])]
    rows = list(_objects(task, path, wanted))
    return Raw(
        text=[row[layout.text] for _, row in rows],
        pair=None,
        label=[row[layout.label] for _, row in rows] if labelled else None,
        place=lambda row: f"{path}, line {rows[row][0] if rows else 1}",
        example_id=[str(row[layout.example_id]) for _, row in rows],
    )


def _objects(task: Task, path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object with at least the `wanted` fields) of a JSON-lines file; blank lines are passed over."""
    for number, line in enumerate(_content(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number} is no JSON text ({error.msg}, column {error.colno}); each line is one object"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is a {type(row).__name__}, but each line must be a JSON object")
        require_columns(task, where=f"{path}, line {number}", columns=wanted, present=list(row))
        yield number, row


def read_eraser(task: Task, split: str, base: Path) -> Raw | None:
    """Documents and annotations; an example is a document with its annotation's class."""
    name = ERASER_SPLITS.get(split)
    if not task.eraser or name is None or not (base / f"{name}.jsonl").is_file():
        return None
    from eraser_eval.schema import read_dataset

    data = read_dataset(base)
    annotations = data.splits[name]

    def place(row: int) -> str:
        return f"{base / name}.jsonl, annotation {annotations[row].annotation_id!r}" if annotations else str(base)

    for row, annotation in enumerate(annotations):
        if len(annotation.docids) != 1:
            raise InputError(
                f"{place(row)} is about {len(annotation.docids)} documents, but task {task.name!r} classifies one"
            )
    return Raw(
        text=[data.documents[annotation.docids[0]] for annotation in annotations],
        pair=None,
        label=[annotation.classification for annotation in annotations],
        place=place,
        example_id=[annotation.annotation_id for annotation in annotations],
    )


def read_parquet(task: Task, split: str, base: Path) -> Raw | None:
    """Files as the data hub lays them out: <split>-*.parquet, or a folder <split> of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    places = [base, base / "data", *([base / task.hub[1]] if task.hub else [])]
    patterns = (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet")
    paths = next((found for folder in places for pattern in patterns if (found := sorted(folder.glob(pattern)))), None)
    if paths is None:
        return None
    columns = _columns(task, split)
    tables = []
    for path in paths:
        try:
            require_columns(task, where=path, columns=columns, present=pq.read_schema(path).names)
            tables.append(pq.read_table(path, columns=columns))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as parquet ({error}); download it again") from error
    table = pa.concat_tables(tables, promote_options="permissive")
    values = {name: table[name].to_pylist() for name in columns}
    return _decoded(task, values, lambda row: f"{paths[0].parent}/{split}, row {row + 1}")


def read_saved(task: Task, split: str, base: Path) -> Raw | None:
    """A `datasets` folder written by save_to_disk."""
    folder = base / split
    if not (folder / "state.json").is_file():
        return None
    import datasets

    try:
        saved = datasets.Dataset.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} cannot be read as a saved data set ({error}); save it again") from error
    columns = _columns(task, split)
    require_columns(task, where=folder, columns=columns, present=saved.column_names)
    return _decoded(task, {name: list(saved[name]) for name in columns}, lambda row: f"{folder}, row {row + 1}")


def require_columns(task: Task, *, where: Path | str, columns: Sequence[str], present: Sequence[str]) -> None:
    """Raise InputError where one of the columns is not there."""
    for column in columns:
        if column not in present:
            known = ", ".join(quoted(name) for name in present) or "none"
            raise InputError(f"{where} has no column {column!r} (it has {known}); is it the data of {task.name!r}?")


def quoted(value: object, write: Callable[[object], str] = str) -> str:
    """A label or a column's name for a message; what is too long for one may be a text, and is not shown."""
    size = len(str(value))
    return write(value) if size <= LONGEST_NAME else f"({size} characters)"


def _columns(task: Task, split: str) -> list[str]:
    """What is read of hub-style data."""
    label = None if split in task.unlabelled else task.label
    return [name for name in (task.text, task.pair, label) if name is not None]


def _decoded(task: Task, values: dict[str, list[Any]], place: Callable[[int], str]) -> Raw:
    """Hub-style columns as texts and labels."""
    text, label = values[task.text], values.get(task.label)
    if task.decode is not None and label is not None:
        rows = [task.decode(*row) for row in zip(text, label, strict=True)]
        text, label = [row[0] for row in rows], [row[1] for row in rows]
    return Raw(text=text, pair=values[task.pair] if task.pair else None, label=label, place=place)


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it or download it again") from error
