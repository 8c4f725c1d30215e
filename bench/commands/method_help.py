"""Write what `bench list METHOD` prints: a method's knobs, the stages that train it, and their options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.commands.flags import flag
from bench.registry import all_knobs, stages_of

if TYPE_CHECKING:
    from efficient_bert.knobs import Knob
    from efficient_bert.methods import Method


def method_lines(method: Method) -> Iterator[str]:
    """Yield the lines that explain a method."""
    yield f"{method.name}: {method.summary} ({method.source})"
    if method.control_of:
        yield f"control of: {method.control_of}"
    yield f"trained by: {', then '.join(stage.name for stage in stages_of(method))}"
    if all_knobs(method):
        yield "knobs: several values are measured one by one"
        for knob in all_knobs(method):
            yield from _knob_lines(knob, flag(knob.name), several=True)
    for stage in stages_of(method):
        yield f"stage {stage.name}: {stage.summary}"
        for option in stage.options:
            yield from _knob_lines(option, flag(f"{stage.name}-{option.name}"), several=False)


def _knob_lines(knob: Knob, name: str, *, several: bool) -> Iterator[str]:
    yield f"  {name:32} {knob.summary}"
    facts = [f"default {knob.default}" if knob.default != "" else "not set by default"]
    if several and knob.points:
        facts.append(f"measured at {f'{knob.separator} '.join(map(str, knob.points))}")
    if knob.choices:
        facts.append(f"one of {', '.join(knob.choices)}")
    elif (knob.low, knob.high) != (-float("inf"), float("inf")):
        facts.append(f"from {knob.low:g} to {knob.high:g}".replace(" to inf", " on"))
    yield f"  {'':32} [{'; '.join(facts)}]"
