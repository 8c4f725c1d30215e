"""Reading a task's split as it lies in a folder: GLUE's TSV files, hub-style parquet, or a saved `datasets` folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.hub import snapshot

if TYPE_CHECKING:
    from bench.tasks import Task


@dataclass(frozen=True)
class Raw:
    """A split's columns before any check.

    Attributes:
        text, pair, label: one value per row; pair is None for single texts.
        place: row index -> where the row stands, for messages.
    """

    text: Sequence[object]
    pair: Sequence[object] | None
    label: Sequence[object]
    place: Callable[[int], str]


def read_folder(task: Task, split: str, folder: Path) -> Raw:
    """Read `split` from the first layout found in `folder` or in the task's own folder below it.

    Raises:
        InputError: no such folder, no known layout in it, or a file that cannot be read as that layout.
    """
    if not folder.is_dir():
        raise InputError(
            f"data folder {folder} does not exist; pass --data-dir DIR, the folder that holds {_wanted(task)}"
        )
    for base in _bases(task, folder):
        for reader in (_read_tsv, _read_parquet, _read_saved):
            raw = reader(task, split, base)
            if raw is not None:
                return raw
    raise InputError(
        f"{folder} holds no {split!r} split of task {task.name!r}: expected {_wanted(task)} there or in {task.folder}/ "
        f"below it; pass another --data-dir DIR, or --task demo, which needs no files"
    )


def read_hub(task: Task, split: str) -> Raw:
    """Read `split` from the parquet files of the task's repository on the data hub.

    Raises:
        InputError: the hub is out of reach and the files are not in its cache.
    """
    remedy = f"pass --data-dir DIR (with {_wanted(task)}), or --task demo, which needs no network"
    if task.hub is None:
        raise InputError(f"task {task.name!r} is not on the data hub; {remedy}")
    repository, configuration = task.hub
    try:
        folder = snapshot(repository, kind="dataset", patterns=[f"{configuration}/{split}-*.parquet"])
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from error
    raw = _read_parquet(task, split, folder)
    if raw is None:
        raise InputError(f"hub data set {repository!r} ({configuration}) provided no {split!r} split; {remedy}")
    return raw


def _wanted(task: Task) -> str:
    tsv = f"{' and '.join(task.tsv.files.values())}, or " if task.tsv else ""
    return f"{tsv}{{split}}-*.parquet, or a data set written by save_to_disk"


def _bases(task: Task, folder: Path) -> Iterator[Path]:
    parts = Path(task.folder).parts
    for start in range(len(parts) + 1):
        yield folder.joinpath(*parts[start:])


def _missing(task: Task, *, where: Path, columns: Sequence[str | None], present: Sequence[str]) -> None:
    for column in columns:
        if column is not None and column not in present:
            known = ", ".join(present) or "none"
            raise InputError(f"{where} has no column {column!r} (it has {known}); is it the data of {task.name!r}?")


def _read_tsv(task: Task, split: str, base: Path) -> Raw | None:
    if task.tsv is None or split not in task.tsv.files or not (base / task.tsv.files[split]).is_file():
        return None
    path = base / task.tsv.files[split]
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it or download it again") from error
    # Not splitlines(): texts may hold characters that Unicode, but not the TSV format, counts as line ends.
    lines = content.removesuffix("\n").split("\n")
    header = lines[0].rstrip("\r").split("\t")
    _missing(task, where=path, columns=(task.tsv.text, task.tsv.pair, task.tsv.label), present=header)
    rows = [line.removesuffix("\r").split("\t") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(row)} tab-separated fields, but its header has {len(header)}"
            )
    pair = header.index(task.tsv.pair) if task.tsv.pair else None
    text, label = header.index(task.tsv.text), header.index(task.tsv.label)
    return Raw(
        text=[row[text] for row in rows],
        pair=None if pair is None else [row[pair] for row in rows],
        label=[row[label] for row in rows],
        place=lambda row: f"{path}, line {row + 2}",
    )


def _read_parquet(task: Task, split: str, base: Path) -> Raw | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    places = [base, base / "data", *([base / task.hub[1]] if task.hub else [])]
    for folder in places:
        paths = sorted(folder.glob(f"{split}-*.parquet")) or sorted(folder.glob(f"{split}.parquet"))
        if paths:
            break
    else:
        return None
    columns = [column for column in (task.text, task.pair, task.label) if column is not None]
    tables = []
    for path in paths:
        try:
            _missing(task, where=path, columns=columns, present=pq.read_schema(path).names)
            tables.append(pq.read_table(path, columns=columns))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as parquet ({error}); download it again") from error
    table = pa.concat_tables(tables, promote_options="permissive")
    return Raw(
        text=table[task.text].to_pylist(),
        pair=table[task.pair].to_pylist() if task.pair else None,
        label=table[task.label].to_pylist(),
        place=lambda row: f"{paths[0].parent}/{split}, row {row + 1}",
    )


def _read_saved(task: Task, split: str, base: Path) -> Raw | None:
    folder = base / split
    if not (folder / "state.json").is_file():
        return None
    import datasets

    try:
        saved = datasets.Dataset.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} cannot be read as a saved data set ({error}); save it again") from error
    _missing(task, where=folder, columns=(task.text, task.pair, task.label), present=saved.column_names)
    return Raw(
        text=list(saved[task.text]),
        pair=list(saved[task.pair]) if task.pair else None,
        label=list(saved[task.label]),
        place=lambda row: f"{folder}, row {row + 1}",
    )
