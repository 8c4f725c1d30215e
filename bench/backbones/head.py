"""The classifier that a foreign BERT may bring along: whether it is of the task, or is left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.backbones.config import Fields
from bench.backbones.weights import SAVE, Headers
from bench.data.layouts import quote
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.tasks import Task

WEIGHT, BIAS = "classifier.weight", "classifier.bias"
OF_TEXTS = "BertForSequenceClassification"
MOST = 8
"""Names of classes that a line shows."""


def foreign_head(headers: Headers, fields: Fields, task: Task) -> str:
    """Describe a backbone's own classifier; empty where it has no classifier or one of this task.

    Of classes without names, LABEL_0 and on, their number has to say which task they are of.
    """
    if WEIGHT not in headers and BIAS not in headers:
        return ""
    problem = fields.get("problem_type") or task.problem_type
    kinds = fields.get("architectures") or [OF_TEXTS]
    if problem != task.problem_type:
        return f"its classifier, which was trained for {problem}"
    if any(kind.startswith("BertFor") and kind != OF_TEXTS for kind in kinds):
        return f"its classifier, which is of {quote(kinds[0])}"
    names = class_names(fields)
    unnamed = [f"LABEL_{number}" for number in range(len(task.labels))]
    if names == unnamed or [name.lower() for name in names] == [name.lower() for name in task.labels]:
        return ""
    return f"its classifier of {len(names)} other classes: {name_first(names)}"


def class_names(fields: Fields) -> list[str]:
    """Return the class names of a configuration by their numbers; LABEL_0 and on where it names none."""
    named = fields.get("id2label")
    if named:
        return [named[number] for number in sorted(named, key=int)]
    return [f"LABEL_{number}" for number in range(min(int(fields.get("num_labels") or 2), 10**4))]


def name_first(names: Sequence[str]) -> str:
    """Name the first classes, and say how many more there are."""
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(quote, names[:MOST])) + more


def check_classifier(headers: Headers, fields: Fields, *, name: str, classes: int) -> None:
    """Raise InputError where a classifier of the task's classes is not whole or of another size."""
    wanted = {WEIGHT: (classes, fields["hidden_size"]), BIAS: (classes,)}
    present = {name: headers[name].shape for name in wanted if name in headers}
    wrong = [part for part in wanted if present and present.get(part) != wanted[part]]
    if wrong:
        shape = list(present[wrong[0]]) if wrong[0] in present else "absent"
        raise InputError(
            f"the weights of backbone {name!r} hold a classifier of other sizes than its config.json asks for: "
            f"{wrong[0]} is {shape}, not {list(wanted[wrong[0]])}; {SAVE}"
        )
