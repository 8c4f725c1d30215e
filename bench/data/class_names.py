"""Class names that a table carries for the numbers of its label column, as Hugging Face's metadata holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from bench.data.labels import renumbering, whole_number
from bench.data.layouts import quote
from bench.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.tasks import Task

METADATA = b"huggingface"
"""The key under which parquet and arrow files keep a table's features."""

ROOM = 200
"""Characters of a list of class names in a message."""


def features_in(metadata: Mapping[bytes, bytes] | None, path: Path) -> object:
    """Read the features that a file's metadata describes, None where it describes none.

    Raises:
        InputError: the metadata is there, but no JSON.
    """
    text = (metadata or {}).get(METADATA)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its Hugging Face metadata is no JSON; write the file again") from error
    info = content.get("info") if isinstance(content, dict) else None
    return info.get("features") if isinstance(info, dict) else None


def class_names(features: object, column: str) -> tuple[str, ...] | None:
    """Find the names that a column's classes have, in their numbers' order; None where it has none."""
    feature = features.get(column) if isinstance(features, dict) else None
    names = next(_lists_of_names(feature), None)
    if isinstance(names, dict):
        names = [names.get(str(number)) for number in range(len(names))]
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def _lists_of_names(feature: object, levels: int = 8) -> Iterator[object]:
    """Walk through nested features; those under the key `label` come first, as in HateXplain's annotators."""
    inside: list[object] = []
    if isinstance(feature, list):
        inside = feature
    elif isinstance(feature, dict):
        if feature.get("_type") == "ClassLabel":
            yield feature.get("names")
        inside = [feature[key] for key in sorted(feature, key=lambda key: key != "label")]
    for inner in inside if levels else ():
        yield from _lists_of_names(inner, levels - 1)


def by_name(task: Task, labels: Sequence[Any], names: Sequence[str] | None, where: Path) -> list[Any]:
    """Carry class numbers of the data over to the task's, by their names; labels that are no numbers stay.

    Raises:
        InputError: the names are not the task's.
    """
    if names is None:
        return list(labels)
    numbers = None if task.regression else renumbering(names, task.labels)
    if numbers is None:
        raise InputError(_other_names(task, names, where))
    return [_renumber(label, numbers) for label in labels]


def _renumber(label: Any, numbers: Sequence[int]) -> Any:
    number = whole_number(label)
    return numbers[number] if number is not None and 0 <= number < len(numbers) else label


def _other_names(task: Task, names: Sequence[str], where: Path) -> str:
    if task.regression:
        wanted = "has scores, which are numbers"
    else:
        wanted = f"has the classes {_list(task.labels)}; name them so in the data"
    return f"{where}: its labels are numbers of the classes {_list(names)}, but task {task.name!r} {wanted}"


def _list(names: Sequence[str]) -> str:
    """List names with their numbers, cut where that is long."""
    entries = [f"{number} ({quote(name)})" for number, name in enumerate(names)]
    sizes = accumulate(len(entry) + 2 for entry in entries)
    fitting = [entry for entry, size in zip(entries, sizes, strict=True) if size <= ROOM]
    left = len(entries) - len(fitting)
    return ", ".join(fitting) + (f" and {left} more" if left else "")
