"""The layouts of text files that a task's split comes in: GLUE's TSV, JSON lines, ERASER's.

For each there is a function that finds the split's files in a folder, none where it is not in this layout, and one that
reads them. Messages hold file names, line numbers, labels and column names, never texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.errors import InputError
from eraser_eval.formats.foreign import START, explain
from eraser_eval.formats.lines import read_objects
from eraser_eval.formats.schema import read_dataset

if TYPE_CHECKING:
    from bench.tasks import JsonLines, Task, Tsv

ERASER_SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Our names of ERASER's splits."""

LONGEST_NAME = 40
"""Characters of a label or a column's name that a message shows."""

NAME = re.compile(r"[#\w.-]+( [#\w.-]+)?")
"""A column's name: one word or two."""

MOST_NAMES = 12
"""Columns that a message names at most."""


@dataclass(frozen=True)
class Raw:
    """A split's columns before any check.

    Attributes:
        text, pair, label: one value per row; pair is None for single texts, label for a split without labels.
        locate: row index -> its file and line, for messages.
        example_id: names of the rows as they are written, None where they have none of their own.
    """

    text: Sequence[object]
    pair: Sequence[object] | None
    label: Sequence[object] | None
    locate: Callable[[int], str]
    example_id: Sequence[object] | None = None


def find_tsv(task: Task, split: str, base: Path) -> list[Path]:
    """List GLUE's file of a split."""
    return _file(task.tsv, split, base)


def read_tsv(task: Task, split: str, paths: Sequence[Path]) -> Raw:
    """Read GLUE's layout."""
    layout, path, labelled = cast("Tsv", task.tsv), paths[0], split not in task.unlabelled
    # Not splitlines(): texts may hold characters that Unicode, but not the TSV format, counts as line ends.
    lines = [line.rstrip("\r").split("\t") for line in _content(path).removesuffix("\n").split("\n")]
    headed = not layout.header or layout.text in lines[0]
    header = [name.strip() for name in lines[0]] if headed else list(layout.header)
    wanted = [name for name in (layout.text, layout.pair, layout.label if labelled else None) if name is not None]
    require_columns(task, where=path, columns=wanted, present=header)
    columns = [header.index(name) for name in wanted]
    numbered = list(enumerate(lines, start=1))[headed:]
    repeated = next((number for number, row in numbered if headed and row == lines[0]), None)
    if repeated is not None:
        raise InputError(f"{path}, line {repeated} is the header again; were two files joined? keep one header and set")
    if layout.broken:
        numbered = list(_mend_rows(numbered, size=len(header), required=columns if labelled else []))
    _require_fields(path, numbered, size=len(header))
    values = {name: [row[column] for _, row in numbered] for name, column in zip(wanted, columns, strict=True)}
    return Raw(
        text=values[layout.text],
        pair=values[layout.pair] if layout.pair else None,
        label=values.get(layout.label),
        locate=lambda row: f"{path}, line {numbered[row][0] if numbered else 1}",
    )


def _file(layout: Tsv | JsonLines | None, split: str, base: Path) -> list[Path]:
    name = None if layout is None else layout.files.get(split)
    return [base / name] if name and (base / name).is_file() else []


def _require_fields(path: Path, numbered: Sequence[tuple[int, list[str]]], *, size: int) -> None:
    """Raise InputError where rows have another number of fields than the header."""
    odd = [(number, row) for number, row in numbered if len(row) != size]
    if not odd:
        return
    number, row = odd[0]
    returns = "; carriage returns alone, as it has some, end no line" if any("\r" in field for field in row) else ""
    raise InputError(
        f"{path}, line {number}: {len(row)} tab-separated fields, but its header has {size}{returns}"
        f"{more_rows(len(odd))}; mend the file, or remove such lines"
    )


def _mend_rows(
    numbered: Sequence[tuple[int, list[str]]], *, size: int, required: Sequence[int]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a file that is known to be broken, all of them `size` fields long.

    Rows of another length, or with an empty required field, are left out; where none is required every row has to be
    answered, so that short ones are filled up and long ones cut.
    """
    for number, row in numbered:
        if not required:
            yield number, (row + [""] * size)[:size]
        elif len(row) == size and all(row[column].strip() for column in required):
            yield number, row


def find_json_lines(task: Task, split: str, base: Path) -> list[Path]:
    """List the file of a split with an object per line."""
    return _file(task.json_lines, split, base)


def read_json_lines(task: Task, split: str, paths: Sequence[Path]) -> Raw:
    """Read an object per line."""
    layout, path, labelled = cast("JsonLines", task.json_lines), paths[0], split not in task.unlabelled
    wanted = [layout.text, layout.example_id, *([layout.label] if labelled else [])]
    rows = list(read_objects(path))
    for where, row in rows:
        require_columns(task, where=str(where), columns=wanted, present=list(row))
    return Raw(
        text=[row[layout.text] for _, row in rows],
        pair=None,
        label=[row[layout.label] for _, row in rows] if labelled else None,
        locate=lambda row: str(rows[row][0]) if rows else f"{path}, line 1",
        example_id=[row[layout.example_id] for _, row in rows],
    )


def find_eraser(task: Task, split: str, base: Path) -> list[Path]:
    """List ERASER's annotations of a split."""
    path = base / f"{ERASER_SPLITS.get(split)}.jsonl"
    return [path] if task.eraser and path.is_file() else []


def read_eraser(task: Task, split: str, paths: Sequence[Path]) -> Raw:
    """Read documents and annotations; an example is a document with its annotation's class."""
    (path,) = paths
    data = read_dataset(path.parent)
    annotations = data.splits[path.stem]

    def locate(row: int) -> str:
        return f"{path}, annotation {quote(annotations[row].annotation_id, repr)}" if annotations else str(path)

    for row, annotation in enumerate(annotations):
        if len(annotation.docids) != 1:
            raise InputError(
                f"{locate(row)} is about {len(annotation.docids)} documents, but task {task.name!r} classifies one"
            )
    return Raw(
        text=[data.documents[annotation.docids[0]] for annotation in annotations],
        pair=None,
        label=[annotation.classification for annotation in annotations],
        locate=locate,
        example_id=[annotation.annotation_id for annotation in annotations],
    )


def require_columns(task: Task, *, where: Path | str, columns: Sequence[str], present: Sequence[str]) -> None:
    """Raise InputError where some of the columns are not there, or there twice."""
    missing = [column for column in columns if column not in present]
    twice = [column for column in columns if present.count(column) > 1]
    if missing:
        others = "".join(f" and no column {column!r}" for column in missing[1:])
        raise InputError(
            f"{where} has no column {missing[0]!r} (it has {_names(present)}){others}; is it the data of {task.name!r}?"
        )
    if twice:
        raise InputError(f"{where} has the column {twice[0]!r} {present.count(twice[0])} times; keep one of them")


def _names(present: Sequence[str]) -> str:
    """List the columns of a file, of which only names are shown: without a header they are fields of its texts."""
    names = [quote(name) if NAME.fullmatch(name) else f"({len(name)} characters)" for name in present[:MOST_NAMES]]
    left = len(present) - MOST_NAMES
    return (", ".join(names) or "none") + (f" and {left} more" if left > 0 else "")


def quote(value: object, write: Callable[[object], str] = str) -> str:
    """Return a label or a column's name for a message; a long one may be a text, and is not shown."""
    text = str(value)
    if len(text) > LONGEST_NAME:
        return f"({len(text)} characters)"
    return write(value) if text.isprintable() else ascii(value)


def more_rows(rows: int) -> str:
    """Say how many rows besides the first are like it."""
    return "" if rows < 2 else f" (as in {rows - 1} more row{'s' if rows > 2 else ''})"


def _content(path: Path) -> str:
    """Give the text of a file.

    Raises:
        InputError: it is something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); may it be read?") from error
    what = explain(content[:START])
    if what is not None:
        raise InputError(f"{path} {what}")
    if not content.strip():
        raise InputError(f"{path} is empty; download it again")
    if b"\r" in content and b"\n" not in content:
        raise InputError(f"{path} ends its lines with carriage returns alone, as old Macs did; write line feeds")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it or download it again") from error
