"""Find and read a task's split: in a folder, in any layout of `bench.data.layouts`, or on the data hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import hub_style, layouts
from bench.data.hub import snapshot
from bench.data.layouts import ERASER_SPLITS, Raw
from bench.errors import InputError
from eraser_eval.errors import InputError as EraserInputError

if TYPE_CHECKING:
    from bench.tasks import Task


@dataclass(frozen=True)
class Layout:
    """A layout of data.

    Attributes:
        find: (task, split, folder) -> the split's files there, none where it is not in this layout.
        read: (task, split, files) -> its columns.
    """

    find: Callable[[Task, str, Path], list[Path]]
    read: Callable[[Task, str, Sequence[Path]], Raw]


PARQUET = Layout(hub_style.find_parquet, hub_style.read_parquet)
LAYOUTS = (
    Layout(layouts.find_tsv, layouts.read_tsv),
    Layout(layouts.find_json_lines, layouts.read_json_lines),
    Layout(layouts.find_eraser, layouts.read_eraser),
    PARQUET,
    Layout(hub_style.find_saved, hub_style.read_saved),
)


def read_folder(task: Task, split: str, folder: Path) -> Raw:
    """Read `split` from the one layout that holds it, in `folder` or in the task's own folder below it.

    Raises:
        InputError: no such folder, no known layout in it or several, or a file that cannot be read as that layout.
    """
    wanted = _expected_names(task, split)
    if not folder.is_dir():
        raise InputError(f"data folder {folder} does not exist; pass --data-dir DIR, the folder that holds {wanted}")
    bases = {
        base.resolve(): base for base in candidate_folders(task.folder, folder)
    }  # one folder may have several names
    sources = [
        (layout, paths) for base in bases.values() for layout in LAYOUTS if (paths := layout.find(task, split, base))
    ]
    if not sources:
        raise InputError(
            f"{folder} holds no {split!r} split of task {task.name!r}: expected {wanted} there or in {task.folder}/ "
            f"below it; pass another --data-dir DIR, or --task demo, which needs no files"
        )
    if len(sources) > 1:
        several = " and ".join(str(paths[0].relative_to(folder)) for _, paths in sources)
        raise InputError(
            f"{folder} holds the {split!r} split of task {task.name!r} more than once: {several}; keep the one that is "
            f"meant, and move the others away"
        )
    return _read(*sources[0], task=task, split=split)


def _read(layout: Layout, paths: Sequence[Path], *, task: Task, split: str) -> Raw:
    try:
        return layout.read(task, split, paths)
    except EraserInputError as error:
        raise InputError(str(error)) from error


def read_hub(task: Task, split: str) -> Raw:
    """Read `split` from the parquet files of the task's repository on the data hub.

    Raises:
        InputError: the hub is out of reach and the files are not in its cache.
    """
    remedy = f"pass --data-dir DIR (with {_expected_names(task, split)}), or --task demo, which needs no network"
    if task.hub is None:
        raise InputError(f"task {task.name!r} is not on the data hub; {remedy}")
    (repository, _, revision), folder = task.hub[0].partition("@"), task.hub[1]
    pattern = f"{folder}/{split}/*.parquet" if revision else f"{folder}/{split}-*.parquet"
    try:
        snapshot_folder = snapshot(repository, kind="dataset", patterns=[pattern], revision=revision or None)
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from error
    paths = PARQUET.find(task, split, snapshot_folder)
    if not paths:
        raise InputError(f"hub data set {repository!r} ({folder}) provided no {split!r} split; {remedy}")
    return PARQUET.read(task, split, paths)


def _expected_names(task: Task, split: str) -> str:
    names = [layout.files.get(split) for layout in (task.tsv, task.json_lines) if layout is not None]
    if task.eraser and split in ERASER_SPLITS:
        names.append(f"docs/ and {ERASER_SPLITS[split]}.jsonl")
    return ", or ".join([*filter(None, names), f"{split}-*.parquet", "a data set written by save_to_disk"])


def candidate_folders(name: str, folder: Path) -> Iterator[Path]:
    """Yield the folders that `a/b` may be: folder/a/b, folder/b, or the folder itself."""
    parts = Path(name).parts
    for start in range(len(parts) + 1):
        yield folder.joinpath(*parts[start:])
