"""Find finished runs in a store, its runs/ folder, a pack, or the folder of one run."""

from __future__ import annotations

from pathlib import Path

from bench.errors import InputError
from bench.store.packs import RunReader, open_runs
from bench.store.runs import RunStore

RUNS = "runs"
"""The folder of a store that holds its runs."""


def run_store(folder: Path) -> RunReader:
    """Return the runs of a store, or of a folder that holds runs itself."""
    reader, below = open_runs(folder), RunStore(folder / RUNS)
    return below if below.root.is_dir() and not any(reader.ids()) else reader


def finished_runs(folder: Path, task: str | None = None) -> tuple[RunReader, list[str]]:
    """Return the reader and the ids of the finished runs below a store, its runs/ folder, a pack or one run.

    Args:
        folder: one of those.
        task: only runs of this one.

    Raises:
        InputError: the folder is not there, or holds no finished run (of that task).
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist; give the runs/ folder of a store, the store, or one run's")
    path = folder.resolve()
    is_run = path.name in RunStore(path.parent)
    store: RunReader = RunStore(path.parent) if is_run else run_store(folder)
    ids = [path.name] if is_run else list(store.ids())
    if not ids:
        raise InputError(f"{_nothing_in(folder, store)}; make some with bench run --store, or name the right folder")
    tasks = {run_id: store.record(run_id).task for run_id in ids} if task else {}
    if task and task not in tasks.values():
        known = ", ".join(sorted(set(tasks.values())))
        raise InputError(f"{store.root} holds no finished run of task {task!r}, but of {known}; give one of these")
    return store, [run_id for run_id in ids if tasks.get(run_id) == task]


def _nothing_in(folder: Path, store: RunReader) -> str:
    """Say where no finished run is, and how many are unfinished."""
    looked = f"{folder} holds no finished run"
    looked += "" if folder.resolve().name == RUNS else f", and neither does {folder / RUNS}"
    unfinished = len(list(store.root.glob(".*.partial")))
    return f"{looked} ({unfinished} unfinished: their command goes on where it stopped)" if unfinished else looked
