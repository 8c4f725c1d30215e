"""Knobs: the named, bounded values that a method or a training stage can be run with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from efficient_bert.errors import InputError

Value = int | float | str

Values = Mapping[str, Any]
"""Knob or option -> its value, of the knob's type: `Knob.parse` is the only place that converts one."""


@dataclass(frozen=True)
class Knob:
    """One value that may be varied.

    Attributes:
        name: identifier; the command line spells it with hyphens.
        summary: one line, with the unit.
        default: value where nothing is said; its type is the knob's type.
        low, high: inclusive bounds of a number.
        positive: 0, the lower bound, is no value itself.
        choices: allowed strings.
        points: values that `bench run` measures when the knob is not given.
        separator: between several values on a command line; another one where a value has commas itself.
        path: it names a file or folder, whose content counts too: of a changed one nothing is taken for done.
        listed: a text that is a list of numbers: however they are spelled, 0.50 is 0.5.
        before: the value that does what was done before the knob existed: what was trained then keeps its name.
    """

    name: str
    summary: str
    default: Value
    low: float = -math.inf
    high: float = math.inf
    positive: bool = False
    choices: tuple[str, ...] = ()
    points: tuple[Value, ...] = ()
    separator: str = ","
    path: bool = False
    listed: bool = False
    before: Value | None = None

    def parse(self, given: Value) -> Value:
        """Convert `given`, often text from a command line, to this knob's type and check its bounds.

        Raises:
            InputError: not a value of the knob's type, out of bounds, or not among the choices.
        """
        kind = type(self.default)
        try:
            if kind is not str and isinstance(given, bool):
                raise ValueError
            if kind is int and float(given) != int(float(given)):
                raise ValueError
            value = int(float(given)) if kind is int else kind(given)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError
        except (ValueError, OverflowError):
            wanted = {int: "a whole number", float: "a number"}[kind]
            raise InputError(f"{self.name} is {given!r}, but it takes {wanted} in {self.interval}") from None
        if isinstance(value, str):
            if self.choices and value not in self.choices:
                raise InputError(f"{self.name} is {value!r}, but it is one of {', '.join(self.choices)}")
            return format_numbers(parse_numbers(value, name=self.name)) if self.listed else value
        if not self.low <= value <= self.high or (self.positive and not value):
            raise InputError(f"{self.name} is {value}, but it lies in {self.interval}")
        return value

    @property
    def interval(self) -> str:
        """The numbers that it takes, such as "[1, 10]", or "(0, 1]" where 0 is none of them."""
        opening = "(" if self.positive or math.isinf(self.low) else "["
        return f"{opening}{self.low:g}, {self.high:g}{')' if math.isinf(self.high) else ']'}"


def parse_numbers(text: str, *, name: str = "the list", separator: str = ",") -> tuple[float, ...]:
    """Parse a list of numbers such as "0.25,0.5,1".

    Raises:
        InputError: something in it is no number.
    """
    try:
        return tuple(float(part) for part in text.split(separator))
    except ValueError:
        separators = {",": "commas", "/": "slashes"}[separator]
        raise InputError(f"{name} is {text!r}, but it takes numbers separated by {separators}") from None


def format_numbers(values: Sequence[float]) -> str:
    """Write numbers as a list, each as short as possible without losing a digit: "0.25,0.5,1"."""
    return ",".join(f"{value:g}" if float(f"{value:g}") == value else repr(value) for value in values)
