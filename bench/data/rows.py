"""The rows of a split as they were read, checked: each with a name of its own, words, and a label of the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench.data.labels import class_number, score
from bench.data.layouts import Raw, more_rows, quote
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.tasks import Task

LONGEST_ID = 1000
"""Characters of an example's name."""


class _UnfitError(Exception):
    """Say why a value cannot be taken, without its place."""


def check_rows(task: Task, split: str, raw: Raw) -> dict[str, list[Any]]:
    """Give the columns of a split, every value of its type and every label a class's number or a score.

    Raises:
        InputError: there are no rows, or some of them break a rule; it names the first of each column.
    """
    if not raw.text:
        raise InputError(
            f"the {split!r} split of task {task.name!r} has no rows ({raw.locate(0)}); is the file complete?"
        )
    labelled = raw.label is not None
    columns: dict[str, list[Any]] = {"example_id": [f"{split}-{row}" for row in range(len(raw.text))]}
    troubles: list[str] = []
    sources: list[tuple[str, Sequence[object] | None, Callable[[object], object]]] = [
        ("example_id", raw.example_id, _name),
        ("text", raw.text, lambda value: _text(value, "text", labelled=labelled)),
        ("pair", raw.pair, lambda value: _text(value, "pair", labelled=labelled)),
        ("label", raw.label, lambda value: _label(task, value)),
    ]
    for name, values, read in sources:
        if values is not None:
            columns[name], trouble = _column(values, read, raw.locate)
            troubles += trouble
    if raw.example_id and len(columns["example_id"]) == len(raw.text):
        troubles += _doubles(raw, columns["example_id"])
    if troubles:
        # The file is named once: the places of the others are in the same folder.
        raise InputError("; ".join([troubles[0], *(trouble.rpartition("/")[2] for trouble in troubles[1:])]))
    if not labelled:
        columns["label"] = [-1.0 if task.regression else -1] * len(raw.text)
    return columns


def class_name(task: Task, value: object, where: str) -> str:
    """Name the class that a label stands for.

    Raises:
        InputError: it is none of the task's.
    """
    number = class_number(value, task.labels)
    if number is None:
        raise InputError(f"{where}: {_no_label(task, value)}")
    return task.labels[number]


def _column(
    values: Sequence[object], read: Callable[[object], object], locate: Callable[[int], str]
) -> tuple[list[object], list[str]]:
    """Read the values, and say what is wrong with the first that cannot be taken."""
    kept: list[object] = []
    unfit: list[tuple[int, str]] = []
    for row, value in enumerate(values):
        try:
            kept.append(read(value))
        except _UnfitError as error:
            unfit.append((row, str(error)))
    return kept, [f"{locate(unfit[0][0])}: {unfit[0][1]}{more_rows(len(unfit))}"] if unfit else []


def _name(value: object) -> str:
    """Read a row's name: a string, or a whole number that stands for its digits."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise _UnfitError(f"its id is {_kind(value)}, but an id is a string or a whole number")
    name = str(value)
    if not name.strip():
        raise _UnfitError("its id is empty, but every row needs one; give it a name of its own")
    if len(name) > LONGEST_ID:
        raise _UnfitError(f"its id has {len(name)} characters, but may have {LONGEST_ID}; give it a shorter one")
    _require_no_nul(name, "id")
    return name


def _text(value: object, name: str, *, labelled: bool) -> str:
    """Read a text; a message never quotes it. One without words may only be in a split that has to be answered."""
    if not isinstance(value, str):
        raise _UnfitError(f"the {name} is {_kind(value)}, but it must be a string")
    if labelled and not value.strip():
        raise _UnfitError(f"the {name} is empty, but an example needs words; remove the row or fill it in")
    _require_no_nul(value, name)
    return value


def _label(task: Task, value: object) -> float:
    """Read a class's number or a score."""
    number = score(value, task) if task.regression else class_number(value, task.labels)
    if number is None:
        raise _UnfitError(_no_label(task, value))
    return number


def _no_label(task: Task, value: object) -> str:
    if task.scores is not None:
        rule = f"scores of {task.scores[0]:g} to {task.scores[1]:g}"
    else:
        rule = "the classes " + ", ".join(f"{number} ({name})" for number, name in enumerate(task.labels))
    return f"the label is {quote(value, repr)}, but task {task.name!r} has {rule}"


def _doubles(raw: Raw, names: Sequence[str]) -> Iterator[str]:
    """Say what is wrong with the first name that an earlier row has too."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if first.setdefault(name, row) < row:
            yield (
                f"{raw.locate(row)}: its id {quote(name, repr)} is that of {raw.locate(first[name])} too; "
                f"give each row its own"
            )
            return


def _require_no_nul(value: str, name: str) -> None:
    if "\0" in value:
        raise _UnfitError(f"the {name} holds a NUL character, which is no text; remove it")


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
