"""Knob values from text: what is taken, and the one line that refuses the rest."""

from __future__ import annotations

import pytest

from efficient_bert import InputError
from efficient_bert.knobs import Knob, Value

COUNT = Knob("count", "how many", 2, low=1, high=10)
RATE = Knob("rate", "how fast", 0.5, low=0.0)
MODE = Knob("mode", "how", "auto", choices=("auto", "no"))
LIST = Knob("list", "some", "0.5,1", listed=True)


@pytest.mark.parametrize(("knob", "given", "expected"), [
    (COUNT, "3", 3), (COUNT, 3, 3), (COUNT, "3.0", 3), (COUNT, "1e1", 10), (COUNT, 1, 1),
    (RATE, "0.25", 0.25), (RATE, 1, 1.0), (RATE, "1e-3", 0.001), (RATE, 0, 0.0),
    (MODE, "no", "no"), (LIST, "0.50, 1.0,1e-1", "0.5,1,0.1"), (LIST, "0.3333333333", "0.3333333333"),
])  # fmt: skip
def test_values_become_the_knobs_type(knob: Knob, given: Value, expected: Value) -> None:
    """Text and numbers become the type of the default."""
    value = knob.parse(given)
    assert value == expected
    assert type(value) is type(knob.default)


@pytest.mark.parametrize(("knob", "given", "rule"), [
    (COUNT, "2.5", "a whole number"), (COUNT, "x", "a whole number"), (COUNT, "", "a whole number"),
    (COUNT, True, "a whole number"), (RATE, False, "takes a number"),
    (COUNT, "nan", "a whole number"), (COUNT, "inf", "a whole number"), (COUNT, "1e400", "a whole number"),
    (COUNT, "0", r"in \[1, 10\]"), (COUNT, 11, r"in \[1, 10\]"),
    (RATE, "fast", "takes a number"), (RATE, "nan", "takes a number"), (RATE, "inf", "takes a number"),
    (RATE, "-inf", "takes a number"), (RATE, float("nan"), "takes a number"), (RATE, "-0.1", r"in \[0, inf\)"),
    (LIST, "0.5,x", "numbers separated by commas"), (MODE, "maybe", "one of auto, no"), (MODE, "", "one of auto, no"),
])  # fmt: skip
def test_other_values_are_refused_in_one_line(knob: Knob, given: Value, rule: str) -> None:
    """The message names the knob, the value and the rule."""
    with pytest.raises(InputError, match=rule) as caught:
        knob.parse(given)
    assert str(caught.value).startswith(f"{knob.name} is ")
    assert "\n" not in str(caught.value)
