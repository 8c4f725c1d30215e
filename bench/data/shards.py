"""The files that hold a split together: which they are, and whether each is there once.

Names say how a split was cut: train.parquet is whole, train-00000-of-00003.parquet the first of three (the hub once
added a hash to each), train/0000.parquet the first of who knows how many.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError
from eraser_eval.formats.foreign import is_left_by_desktop

COUNTED = re.compile(r"(.*?)-?(\d+)-of-(\d+)(.*)", re.ASCII)
NUMBERED = re.compile(r"(?:.*[-_.])?(\d+)", re.ASCII)
HASH = re.compile(r"-[0-9a-f]{6,64}")
AFTER_NAME = re.compile(r"[^\w]")
"""Text after a split's name in the name of one of its files: validation_matched is another split."""

NAMED = 3
"""File names that a message lists at most."""


@dataclass(frozen=True)
class Shard:
    """A file of a split.

    Attributes:
        name: the file's name below the folder that was looked into.
        set: what the files of one set have in common; empty where the name has no number.
        index: its number from 0.
        count: how many there are, None where the name does not say.
    """

    path: Path
    name: str
    set: tuple[str, ...] = ()
    index: int = 0
    count: int | None = None


def parquet_files(base: Path, folders: Sequence[Path], split: str) -> list[Path]:
    """List the parquet files of a split in their order: <split>.parquet, <split>-*.parquet or <split>/*.parquet.

    Raises:
        InputError: they are not one whole set, in one of the folders.
    """
    return require_whole(base, split, [path for folder in folders for path in _candidates(folder, split)])


def arrow_files(folder: Path) -> list[Path]:
    """List the data files of a saved data set, whose names lie in its state.json.

    Raises:
        InputError: state.json cannot be read, or does not list the files that are there, each once; or the folder is
            none of the splits that were saved together.
    """
    splits = folder.parent / "dataset_dict.json"
    if splits.is_file() and folder.name not in _entries(splits, lambda content: content["splits"]):
        raise InputError(f"{splits} does not list {folder.name!r}, which an earlier data set left; save it again")
    listed = _entries(folder / "state.json", lambda content: [each["filename"] for each in content["_data_files"]])
    there = {path.name for path in folder.glob("*.arrow") if COUNTED.fullmatch(path.stem)}
    lost = [name for name in listed if Path(name).name != name or not (folder / name).is_file()]
    for names, trouble in (
        (lost, "lacks files that its state.json lists"),
        (sorted(there - set(listed)), "holds files that its state.json does not list"),
        ([name for name, times in Counter(listed).items() if times > 1], "lists files twice in its state.json"),
    ):
        if names:
            raise InputError(f"{folder} {trouble}: {_list(names)}; save the data set again into an empty folder")
    return require_whole(folder, folder.name, [folder / name for name in listed])


def _entries(path: Path, read: Callable[[Any], list[Any]]) -> list[str]:
    """Read a list of names from a file of a saved data set."""
    try:
        return [str(name) for name in read(json.loads(path.read_bytes()))]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{path.parent} cannot be read as a saved data set ({path.name}); save it again") from error


def require_whole(folder: Path, split: str, paths: Sequence[Path]) -> list[Path]:
    """Give the files of one set in their order.

    Raises:
        InputError: they are of several sets, or one is missing or there twice.
    """
    shards = [_shard(path, folder) for path in paths]
    trouble = _trouble(shards)
    if trouble:
        raise InputError(f"{folder}: the files of the {split!r} split are not one whole set: {trouble}")
    return [shard.path for shard in sorted(shards, key=lambda shard: shard.index)]


def _candidates(folder: Path, split: str) -> list[Path]:
    beside = [path for path in folder.glob("*.parquet") if _belongs(path.stem, split)]
    below = [path for path in (folder / split).glob("*.parquet") if not is_left_by_desktop(path.name)]
    return [*beside, *below]


def _belongs(stem: str, split: str) -> bool:
    rest = stem.removeprefix(split)
    return stem.startswith(split) and (not rest or AFTER_NAME.match(rest) is not None)


def _shard(path: Path, base: Path) -> Shard:
    name, folder = str(path.relative_to(base)), str(path.parent)
    counted = COUNTED.fullmatch(path.stem)
    if counted:
        suffix = "hash" if HASH.fullmatch(counted[4]) else counted[4]
        return Shard(path, name, (folder, counted[1], counted[3], suffix), int(counted[2]), int(counted[3]))
    numbered = NUMBERED.fullmatch(path.stem)
    if numbered:
        return Shard(path, name, (folder, path.stem.removesuffix(numbered[1])), int(numbered[1]))
    return Shard(path, name)


def _trouble(shards: Sequence[Shard]) -> str:
    """Say what is wrong with the files and how to mend it, nothing where they are one whole set."""
    if len({shard.set for shard in shards}) > 1 or (len(shards) > 1 and not shards[0].set):
        return f"{_names(shards)} are of different sets; keep one set, and move the others away"
    times = Counter(shard.index for shard in shards)
    twins = [shard for shard in shards if times[shard.index] > 1]
    if twins:
        return f"{_names(twins)} have the same number; keep one of them"
    count = max((shard.count or shard.index + 1 for shard in shards), default=0)
    excess = [shard for shard in shards if shard.index >= count or shard.count == 0]
    if excess:
        return f"the number of {_names(excess)} is beyond the set's, which starts at 0; give it its own name again"
    missing = [index for index in range(min(count, len(shards) + NAMED + 1)) if index not in times]
    return _absence(missing, count, shards) if missing else ""


def _absence(missing: Sequence[int], count: int, shards: Sequence[Shard]) -> str:
    numbers = ", ".join(map(str, missing[:NAMED])) + (" and more" if len(missing) > NAMED else "")
    rule = f"of {count}, counted from 0" if shards[0].count else "files are counted from 0"
    return f"number {numbers} is missing ({rule}) beside {_names(shards)}; download the whole set again"


def _names(shards: Sequence[Shard]) -> str:
    return _list(sorted(shard.name for shard in shards))


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:NAMED]) + more
