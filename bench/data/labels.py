"""Labels as data sets write them, as a task's class numbers and scores."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.tasks import Task

SHORT = {"n": "negative", "neg": "negative", "p": "positive", "pos": "positive"}
"""Usual abbreviations of class names."""

WHOLE = re.compile(r"\s*([+-]?)0*(\d{1,6})(?:\.0*)?\s*", re.ASCII)
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
PLACEHOLDER = re.compile(r"(?:label|class)[ _-]?(\d+)", re.ASCII | re.IGNORECASE)
"""A name that says no more than a number, as LABEL_1 does."""


def spelling(name: str) -> str:
    """Bring a class name into a form that does not depend on case, blanks, hyphens and usual abbreviations."""
    letters = "".join(filter(str.isalnum, name.casefold()))
    return SHORT.get(letters, letters) or name.strip()


def whole_number(value: object) -> int | None:
    """Read a whole number of any type, 1.0 and " 1" included; None for anything else, truth values among it."""
    match = None if isinstance(value, bool) else WHOLE.fullmatch(str(value))
    return int(match[1] + match[2]) if match else None


def named_class(name: str, labels: Sequence[str]) -> int | None:
    """Find the number of the class of that name, None where none or several are spelled so."""
    if name in labels:
        return labels.index(name)
    same = [number for number, label in enumerate(labels) if spelling(label) == spelling(name)]
    return same[0] if len(same) == 1 else None


def class_number(value: object, labels: Sequence[str]) -> int | None:
    """Read a label as a class's number: by its name, else by its number."""
    named = named_class(value, labels) if isinstance(value, str) else None
    number = whole_number(value) if named is None else named
    return number if number is not None and 0 <= number < len(labels) else None


def score(value: object, task: Task) -> float | None:
    """Read a label as a score within the task's bounds."""
    low, high = task.scores or (-math.inf, math.inf)
    if isinstance(value, bool) or not NUMBER.fullmatch(str(value)):
        return None
    number = float(str(value))
    return number if low <= number <= high else None


def renumbering(names: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """Say which of the task's numbers stands for each of the data's, by name; None unless it is one for one.

    Names that only repeat their number (0, 1; LABEL_0, LABEL_1) keep it.
    """
    plain = [PLACEHOLDER.sub(r"\1", name.strip()) for name in names]
    numbers = [class_number(name, labels) for name in plain]
    known = [number for number in numbers if number is not None]
    return known if sorted(known) == list(range(len(labels))) == list(range(len(names))) else None
