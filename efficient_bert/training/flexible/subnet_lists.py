"""The widths and depths that subnets are trained at, as lists on the command line give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from efficient_bert.config import EfficientBertConfig, example_fractions, kept_heads
from efficient_bert.errors import InputError
from efficient_bert.knobs import Values, format_numbers, parse_numbers
from efficient_bert.policies.subnets import DepthRule, count_layers


def parse_fractions(
    text: str, *, kind: str, keep: Callable[[float, int], int], total: int, units: str
) -> tuple[float, ...]:
    """Parse a list of fractions that ascends or descends; they come back largest first.

    Args:
        kind: "width" or "depth".
        keep: (fraction, total) -> how many of the `total` units it leaves.
        units: what the units are called in messages.

    Raises:
        InputError: no numbers, neither order, one that leaves nothing, two that leave as many, or none that leaves all.
    """
    name, remedy = f"the {kind} list", f"such as --{kind}-list {format_numbers(example_fractions(total))}"
    values = parse_numbers(text, name=name)
    ordered = sorted(set(values), reverse=True)
    if list(values) not in (ordered, ordered[::-1]):
        raise InputError(f"{name} is {text!r}, but its numbers ascend or descend and differ, {remedy}")
    try:
        counts = [keep(value, total) for value in ordered]
    except InputError as error:
        raise InputError(f"{name} is {text!r}: {str(error).partition('; ')[0]}; give others, {remedy}") from error
    if len(set(counts)) < len(counts) or counts[0] != total:
        raise InputError(
            f"{name} {text!r} leaves {counts} of {total} {units}, but each {kind} leaves another number and the "
            f"largest all, {remedy}"
        )
    return tuple(ordered)


def parse_widths(text: str, config: EfficientBertConfig) -> tuple[float, ...]:
    """Parse the widths to train, fractions of the heads, largest first; errors as in `parse_fractions`."""
    return parse_fractions(text, kind="width", keep=kept_heads, total=config.num_attention_heads, units="heads")


def parse_depths(text: str, config: EfficientBertConfig) -> tuple[float, ...]:
    """Parse the depths to train, fractions of the layers, largest first; errors as in `parse_fractions`."""
    return parse_fractions(text, kind="depth", keep=count_layers, total=config.num_hidden_layers, units="layers")


def new_widths(config: EfficientBertConfig, options: Values) -> dict[str, Any]:
    """Return the configuration's new fields: the widths to train, ascending."""
    return {"widths": parse_widths(options["list"], config)[::-1]}


def new_depths(config: EfficientBertConfig, options: Values) -> dict[str, Any]:
    """Return the configuration's new fields: the depths to train, ascending, and their exits where they are prefixes.

    The final head answers after each prefix.
    """
    depths, rule = parse_depths(options["list"], config)[::-1], DepthRule(options["rule"])
    inner = depths[:-1] if rule == DepthRule.PREFIX else ()
    exits = [count_layers(depth, config.num_hidden_layers) for depth in inner]
    return {"depths": depths, "depth_rule": rule.value, "exit_depths": exits, "shared_head": bool(exits)}
