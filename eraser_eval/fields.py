"""The fields of a JSON object with the types that ERASER's format asks for; anything else is refused by name.

No value is converted on the way: `true` is not 1, "2" is not 2, 2.0 is not an offset, null is not an absent field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from eraser_eval.errors import InputError, shown
from eraser_eval.lines import Place

Row = Mapping[str, Any]


def required(row: Row, field: str, place: Place) -> Any:
    """The value of a field that must be there."""
    if field not in row:
        raise InputError(f"{place} has no field {field!r}; it has {shown(list(row))}")
    return row[field]


def text(row: Row, field: str, place: Place) -> str:
    """A string."""
    value = required(row, field, place)
    if not isinstance(value, str):
        wrong(field, value, rule="must be a string, in quotes", place=place)
    return value


def name(value: object, field: str, place: Place) -> str:
    """An identifier: a string, or a whole number that stands for its digits."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        wrong(field, value, rule="must be a string, in quotes", place=place)
    return str(value)


def whole(row: Row, field: str, place: Place) -> int:
    """A whole number of JSON, without point or quotes."""
    value = required(row, field, place)
    if not isinstance(value, int) or isinstance(value, bool):
        wrong(field, value, rule="must be a whole number, without quotes or a point", place=place)
    return value


def items(row: Row, field: str, place: Place) -> list[Any]:
    """A list."""
    value = required(row, field, place)
    if not isinstance(value, list):
        wrong(field, value, rule="must be a list; leave the field out where there is nothing", place=place)
    return value


def objects(row: Row, field: str, place: Place) -> list[Row]:
    """A list of objects."""
    values = items(row, field, place)
    for value in values:
        if not isinstance(value, dict):
            wrong(field, value, rule="must be a list of objects", place=place)
    return values


def numbers(row: Row, field: str, place: Place) -> NDArray[np.float64]:
    """A list of finite numbers, as an array [n]."""
    values = items(row, field, place)
    if set(map(type, values)) <= {int, float}:
        try:
            found = np.array(values, dtype=np.float64)
        except OverflowError:
            found = np.array([np.inf])
        if np.isfinite(found).all():
            return found
    return np.array([_finite(value, field, place) for value in values], dtype=np.float64)


def number(row: Row, field: str, place: Place) -> float:
    """A finite number."""
    return _finite(required(row, field, place), field, place)


def distribution(row: Row, field: str, place: Place) -> dict[str, float]:
    """An object of class and finite number."""
    value = required(row, field, place)
    if not isinstance(value, dict) or not value:
        wrong(field, value, rule="must be an object of classes and probabilities", place=place)
    if set(map(type, value.values())) == {float} and math.isfinite(sum(value.values())):
        return value
    return {label: _finite(each, field, place) for label, each in value.items()}


def wrong(field: str, value: object, *, rule: str, place: Place) -> NoReturn:
    """Refuse a value."""
    raise InputError(f"{place}: {field} holds {shown(value)}, but {rule}")


def _finite(value: object, field: str, place: Place) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if not isinstance(value, int | float) or isinstance(value, bool):
        wrong(field, value, rule="must hold numbers only, without quotes", place=place)
    try:
        found = float(value)
    except OverflowError:
        wrong(field, value, rule="must fit into 64 bits; did the model overflow?", place=place)
    if not math.isfinite(found):
        wrong(field, value, rule="must be finite; did the model overflow?", place=place)
    return found
