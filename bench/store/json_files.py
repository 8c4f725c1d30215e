"""JSON files that this project wrote, read back: whatever else lies there is refused in one line with its path."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from bench.errors import InputError

SHOWN = 40
"""Characters of a value that a message shows."""


def read_json(path: Path, *, remedy: str) -> Any:
    """Read the content of a JSON file.

    Args:
        remedy: what mends a damaged one, as the end of a message.

    Raises:
        InputError: it is not there, not UTF-8, no JSON, too deep, or names a field twice.
    """
    try:
        return json.loads(path.read_bytes().decode("utf8"), object_pairs_hook=_distinct)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; {remedy}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: byte {error.start} is not UTF-8; {remedy}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path} is damaged: no JSON at {where} ({error.msg}); {remedy}") from error
    except RecursionError as error:
        raise InputError(f"{path} is damaged: it is nested too deeply; {remedy}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; {remedy}") from error


def read_object(path: Path, *, remedy: str) -> dict[str, Any]:
    """Do as `read_json`, of a file that holds an object.

    Raises:
        InputError: as `read_json`, or it holds something else.
    """
    content = read_json(path, remedy=remedy)
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it holds {shorten(content)}, not an object; {remedy}")
    return content


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object without repeated names, of which json would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {shorten(twice)} stands there twice")
    return content


def shorten(value: Any) -> str:
    """Return a value for a message: as JSON where it is short, else by its kind and length."""
    if isinstance(value, list | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    written = json.dumps(value)
    return written if len(written) <= SHOWN else f"{type(value).__name__} of {len(written)} characters"


def misfit(value: Any, kind: Any, field: str) -> str | None:
    """Say where a value of JSON, or a part of it, is not of its kind; None where it fits.

    Args:
        kind: str, bool, int (not negative), float (any finite number), object (any of these), Any, or a Mapping or
            Sequence of those; or one of these and None, as `str | None`.
        field: the value's name, for example `data.rows`.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any or (value is None and NoneType in parts):
        return None
    if NoneType in parts:
        return misfit(value, next(part for part in parts if part is not NoneType), field)
    if origin is not None and issubclass(origin, Mapping):
        inner = value.items() if isinstance(value, dict) else None
        return _within(inner, parts[1], field, wanted="an object", value=value)
    if origin is not None and issubclass(origin, Sequence):
        listed = enumerate(value) if isinstance(value, list) else None
        return _within(listed, parts[0], field, wanted="a list", value=value)
    wanted = _NAMES[kind]
    return None if _is(value, kind) else f"{field} is {shorten(value)}, but it is {wanted}"


_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number of 0 or more",
    float: "a finite number",
    object: "a number, a text, true or false",
}


def _within(items: Any, kind: Any, field: str, *, wanted: str, value: Any) -> str | None:
    if items is None:
        return f"{field} is {shorten(value)}, but it is {wanted}"
    return next((problem for name, each in items if (problem := misfit(each, kind, f"{field}.{name}"))), None)


def _is(value: Any, kind: Any) -> bool:
    if kind is object and isinstance(value, bool | str):
        kind = type(value)
    if kind is str:
        return isinstance(value, str) and _encodable(value)
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) and value >= 0 if kind is int else abs(value) < math.inf


def _encodable(text: str) -> bool:
    """Say whether UTF-8 can hold the text: JSON can write half of a surrogate pair, and no page could show it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
