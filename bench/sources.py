"""Where a task's split comes from: a folder, in any layout of `bench.layouts`, or the data hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.hub import snapshot
from bench.layouts import ERASER_SPLITS, Raw, read_eraser, read_json_lines, read_parquet, read_saved, read_tsv

if TYPE_CHECKING:
    from bench.tasks import Task

READERS = (read_tsv, read_json_lines, read_eraser, read_parquet, read_saved)


def read_folder(task: Task, split: str, folder: Path) -> Raw:
    """Read `split` from the first layout found in `folder` or in the task's own folder below it.

    Raises:
        InputError: no such folder, no known layout in it, or a file that cannot be read as that layout.
    """
    wanted = _wanted(task, split)
    if not folder.is_dir():
        raise InputError(f"data folder {folder} does not exist; pass --data-dir DIR, the folder that holds {wanted}")
    for base in places(task.folder, folder):
        for reader in READERS:
            raw = reader(task, split, base)
            if raw is not None:
                return raw
    raise InputError(
        f"{folder} holds no {split!r} split of task {task.name!r}: expected {wanted} there or in {task.folder}/ "
        f"below it; pass another --data-dir DIR, or --task demo, which needs no files"
    )


def read_hub(task: Task, split: str) -> Raw:
    """Read `split` from the parquet files of the task's repository on the data hub.

    Raises:
        InputError: the hub is out of reach and the files are not in its cache.
    """
    remedy = f"pass --data-dir DIR (with {_wanted(task, split)}), or --task demo, which needs no network"
    if task.hub is None:
        raise InputError(f"task {task.name!r} is not on the data hub; {remedy}")
    (repository, _, revision), folder = task.hub[0].partition("@"), task.hub[1]
    pattern = f"{folder}/{split}/*.parquet" if revision else f"{folder}/{split}-*.parquet"
    try:
        found = snapshot(repository, kind="dataset", patterns=[pattern], revision=revision or None)
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from error
    raw = read_parquet(task, split, found)
    if raw is None:
        raise InputError(f"hub data set {repository!r} ({folder}) provided no {split!r} split; {remedy}")
    return raw


def _wanted(task: Task, split: str) -> str:
    layouts = [layout.files.get(split) for layout in (task.tsv, task.json_lines) if layout is not None]
    if task.eraser and split in ERASER_SPLITS:
        layouts.append(f"docs/ and {ERASER_SPLITS[split]}.jsonl")
    return ", or ".join([*filter(None, layouts), f"{split}-*.parquet", "a data set written by save_to_disk"])


def places(name: str, folder: Path) -> Iterator[Path]:
    """Where `a/b` may lie: in folder/a/b, in folder/b, or in the folder itself."""
    parts = Path(name).parts
    for start in range(len(parts) + 1):
        yield folder.joinpath(*parts[start:])
