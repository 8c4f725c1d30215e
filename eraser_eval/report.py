"""The report: numbers under the official scorer's names, their intervals, and what a reader has to know."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eraser_eval.metrics.intervals import percentile_interval
from eraser_eval.metrics.table import Array, Flat

LEVEL = 0.95
"""Of the intervals."""

FIXED = {"threshold", "support", "documents", "documents_with_rationale", "documents_all_rationale"}
"""What no interval is given of."""

ROUNDED = 6
"""Significant digits in the table for people; JSON has them all."""


def point(values: Array) -> float | None:
    """Return the number itself; None where it is undefined or infinite, which JSON cannot hold."""
    (value,) = values.tolist()
    return value if np.isfinite(value) else None


def nest(flat: Flat, convert: Callable[[Array], Any]) -> dict[str, Any]:
    """Put the numbers into nested objects; what is numbered becomes a list."""
    nested: dict[str | int, Any] = {}
    for key, values in flat.items():
        inner = nested
        for step in key[:-1]:
            inner = inner.setdefault(step, {})
        inner[key[-1]] = convert(values)
    listed: dict[str, Any] = _lists_from_numbers(nested)
    return listed


def intervals(flat: Flat) -> dict[str, Any]:
    """Compute the interval of each number in the same nesting, from its values per resample."""
    return nest({key: values for key, values in flat.items() if key[-1] not in FIXED}, _interval)


def merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested objects; `other` fills what `one` lacks."""
    merged = dict(other)
    for name, value in one.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merge(value, merged[name]) if both else value
    return merged


def versions() -> dict[str, str]:
    """Return the versions that made the numbers."""
    return {"python": platform.python_version(), "numpy": np.__version__}


def table(report: Mapping[str, Any]) -> str:
    """Write a line per number, with its interval, and then the notes; for people."""
    ranges = dict(_leaves(report.get("intervals", {})))
    blocks = {name: value for name, value in report.items() if name not in {"intervals", "notes", "bootstrap"}}
    rows = [(name, _format_value(value, ranges.get(name))) for name, value in _leaves(blocks)]
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{name:<{width}}  {value}" for name, value in rows] + [f"note: {n}" for n in report["notes"]])


def _interval(values: Array) -> tuple[float, float] | None:
    """Return the interval of the resamples in which a number is defined; None where it is undefined in all."""
    defined = values[np.isfinite(values)]
    return percentile_interval(defined, level=LEVEL) if len(defined) else None


def _format_value(value: Any, between: Any) -> str:
    if value is None:
        return "undefined"
    number = f"{value:.{ROUNDED}g}" if isinstance(value, float) else str(value)
    return number if between is None else f"{number} [{between[0]:.{ROUNDED}g}, {between[1]:.{ROUNDED}g}]"


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """List (name, number) in nested objects and lists; an interval counts as one number."""
    if isinstance(value, dict):
        inner = [(f"{prefix}.{name}" if prefix else name, each) for name, each in value.items()]
    elif isinstance(value, list):
        inner = [(f"{prefix}.{index}", each) for index, each in enumerate(value)]
    else:
        return [(prefix, value)]
    return [leaf for name, each in inner for leaf in _leaves(each, name)]


def _lists_from_numbers(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _lists_from_numbers(each) for name, each in value.items()}
    return list(inner.values()) if inner and all(isinstance(name, int) for name in inner) else inner
