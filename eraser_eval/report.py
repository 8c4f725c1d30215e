"""The report: numbers under the official scorer's names, their intervals, and what a reader has to know."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eraser_eval.table import Array, Flat, interval

LEVEL = 0.95
"""Of the intervals."""

FIXED = {"threshold", "support", "documents", "documents_with_rationale", "documents_all_rationale"}
"""What no interval is given of."""

ROUNDED = 6
"""Significant digits in the table for people; JSON has them all."""


def point(values: Array) -> float | None:
    """The number itself; None where it is undefined or infinite, which JSON cannot hold."""
    (value,) = values.tolist()
    return value if np.isfinite(value) else None


def nested(flat: Flat, convert: Callable[[Array], Any]) -> dict[str, Any]:
    """The numbers in nested objects; what is numbered becomes a list."""
    found: dict[str | int, Any] = {}
    for place, values in flat.items():
        inner = found
        for step in place[:-1]:
            inner = inner.setdefault(step, {})
        inner[place[-1]] = convert(values)
    listed: dict[str, Any] = _listed(found)
    return listed


def intervals(flat: Flat) -> dict[str, Any]:
    """The interval of each number in the same nesting, from its values per resample."""
    return nested({place: values for place, values in flat.items() if place[-1] not in FIXED}, _interval)


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects put together; `other` fills what `one` lacks."""
    found = dict(other)
    for name, value in one.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = merged(value, found[name]) if both else value
    return found


def made_with() -> dict[str, str]:
    """The versions that made the numbers."""
    return {"python": platform.python_version(), "numpy": np.__version__}


def table(report: Mapping[str, Any]) -> str:
    """A line per number, with its interval, and then the notes; for people."""
    ranges = dict(_leaves(report.get("intervals", {})))
    blocks = {name: value for name, value in report.items() if name not in {"intervals", "notes", "bootstrap"}}
    rows = [(place, _shown(value, ranges.get(place))) for place, value in _leaves(blocks)]
    width = max(len(place) for place, _ in rows)
    return "\n".join([f"{place:<{width}}  {value}" for place, value in rows] + [f"note: {n}" for n in report["notes"]])


def _interval(values: Array) -> tuple[float, float] | None:
    return interval(values, level=LEVEL)


def _shown(value: Any, between: Any) -> str:
    if value is None:
        return "undefined"
    number = f"{value:.{ROUNDED}g}" if isinstance(value, float) else str(value)
    return number if between is None else f"{number} [{between[0]:.{ROUNDED}g}, {between[1]:.{ROUNDED}g}]"


def _leaves(value: Any, place: str = "") -> list[tuple[str, Any]]:
    """(place, number) in nested objects and lists; a pair of an interval is a number itself."""
    if isinstance(value, dict):
        inner = [(f"{place}.{name}" if place else name, each) for name, each in value.items()]
    elif isinstance(value, list):
        inner = [(f"{place}.{index}", each) for index, each in enumerate(value)]
    else:
        return [(place, value)]
    return [leaf for name, each in inner for leaf in _leaves(each, name)]


def _listed(found: Any) -> Any:
    if not isinstance(found, dict):
        return found
    inner = {name: _listed(each) for name, each in found.items()}
    return list(inner.values()) if inner and all(isinstance(name, int) for name in inner) else inner
