"""The fields of a JSON object with the types that ERASER's format asks for; anything else is refused by name.

No value is converted on the way: `true` is not 1, "2" is not 2, 2.0 is not an offset, null is not an absent field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from eraser_eval.errors import InputError, shorten
from eraser_eval.formats.lines import Location

Row = Mapping[str, Any]


def require(row: Row, field: str, where: Location) -> Any:
    """Return the value of a field that must be there."""
    if field not in row:
        raise InputError(f"{where} has no field {field!r}; it has {shorten(list(row))}")
    return row[field]


def text(row: Row, field: str, where: Location) -> str:
    """Return a string."""
    value = require(row, field, where)
    if not isinstance(value, str):
        refuse(field, value, rule="must be a string, in quotes", where=where)
    return value


def name(value: object, field: str, where: Location) -> str:
    """Return an identifier: a string, or a whole number that stands for its digits."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        refuse(field, value, rule="must be a string, in quotes", where=where)
    return str(value)


def integer(row: Row, field: str, where: Location) -> int:
    """Return a whole number of JSON, without point or quotes."""
    value = require(row, field, where)
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(field, value, rule="must be a whole number, without quotes or a point", where=where)
    return value


def items(row: Row, field: str, where: Location) -> list[Any]:
    """Return a list."""
    value = require(row, field, where)
    if not isinstance(value, list):
        refuse(field, value, rule="must be a list; leave the field out where there is nothing", where=where)
    return value


def objects(row: Row, field: str, where: Location) -> list[Row]:
    """Return a list of objects."""
    values = items(row, field, where)
    for value in values:
        if not isinstance(value, dict):
            refuse(field, value, rule="must be a list of objects", where=where)
    return values


def numbers(row: Row, field: str, where: Location) -> NDArray[np.float64]:
    """Return a list of finite numbers, as an array [n]."""
    values = items(row, field, where)
    if set(map(type, values)) <= {int, float}:
        try:
            array = np.array(values, dtype=np.float64)
        except OverflowError:
            array = np.array([np.inf])
        if np.isfinite(array).all():
            return array
    return np.array([_finite(value, field, where) for value in values], dtype=np.float64)


def number(row: Row, field: str, where: Location) -> float:
    """Return a finite number."""
    return _finite(require(row, field, where), field, where)


def distribution(row: Row, field: str, where: Location) -> dict[str, float]:
    """Return an object of class and finite number."""
    value = require(row, field, where)
    if not isinstance(value, dict) or not value:
        refuse(field, value, rule="must be an object of classes and probabilities", where=where)
    if set(map(type, value.values())) == {float} and math.isfinite(sum(value.values())):
        return value
    return {label: _finite(each, field, where) for label, each in value.items()}


def refuse(field: str, value: object, *, rule: str, where: Location) -> NoReturn:
    """Raise InputError for a value that breaks a rule."""
    raise InputError(f"{where}: {field} holds {shorten(value)}, but {rule}")


def _finite(value: object, field: str, where: Location) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if not isinstance(value, int | float) or isinstance(value, bool):
        refuse(field, value, rule="must hold numbers only, without quotes", where=where)
    try:
        finite = float(value)
    except OverflowError:
        refuse(field, value, rule="must fit into 64 bits; did the model overflow?", where=where)
    if not math.isfinite(finite):
        refuse(field, value, rule="must be finite; did the model overflow?", where=where)
    return finite
