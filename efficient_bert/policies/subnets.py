"""Subnets: the first heads and neurons of some layers (DynaBERT, Hou et al., 2020; Flexible BERT, Hu et al., 2023).

A subnet is a slice of the full model and shares its weights; there is one set of layer norms for all widths and no
factor makes up for what is missing. Which heads and neurons come first is decided once, by rewiring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from efficient_bert.config import EfficientBertConfig, count_kept, kept_heads
from efficient_bert.engine.decisions import Policy
from efficient_bert.errors import InputError
from efficient_bert.knobs import parse_numbers


class DepthRule(StrEnum):
    """Which layers are left at a fraction m of N layers, n = round(m N) of them.

    `prefix` keeps the first n (Flexible BERT), `floor` the layers floor(i / m) (DynaBERT's code, which drops the last
    one), `keep_last` those before them and the last one (DynaBERT's paper, section 2.2).
    """

    PREFIX = "prefix"
    FLOOR = "floor"
    KEEP_LAST = "keep_last"


@dataclass(frozen=True)
class Subnet:
    """Layers that run, and how wide.

    Attributes:
        layers: indices, ascending.
        widths: in (0, 1], one for each of `layers`.
    """

    layers: tuple[int, ...]
    widths: tuple[float, ...]


def count_layers(depth_mult: float, layers: int, *, name: str = "the depth") -> int:
    """Count the layers that a fraction of them leaves: round(depth_mult * layers), half to even.

    Raises:
        InputError: the fraction is not in (0, 1] or leaves no layer.
    """
    return count_kept(depth_mult, layers, name=name, units="layers")


def kept_layers(depth_mult: float, layers: int, rule: DepthRule = DepthRule.PREFIX) -> tuple[int, ...]:
    """Return the indices of the layers that a fraction of them leaves, ascending."""
    count = count_layers(depth_mult, layers)
    if rule == DepthRule.PREFIX:
        return tuple(range(count))
    if rule == DepthRule.FLOOR:
        return tuple(math.floor(index / depth_mult) for index in range(count))
    return tuple(number * layers // count - 1 for number in range(1, count + 1))


def uniform_subnet(
    config: EfficientBertConfig, *, width: float, depth_mult: float = 1.0, rule: DepthRule = DepthRule.PREFIX
) -> Subnet:
    """Return the subnet with one width in every layer, and a fraction `depth_mult` of the layers.

    Raises:
        InputError: a width or depth that leaves nothing.
    """
    kept_heads(width, config.num_attention_heads)
    layers = kept_layers(depth_mult, config.num_hidden_layers, rule)
    return Subnet(layers, (width,) * len(layers))


def layer_widths(text: str, config: EfficientBertConfig, *, depth_mult: float = 1.0) -> Subnet:
    """Parse a subnet's widths: one for all layers left at `depth_mult`, or "1,0.5,..", one for each that runs.

    Raises:
        InputError: another number of widths, or a width or depth that leaves nothing.
    """
    count_layers(depth_mult, config.num_hidden_layers, name="depth_mult")
    layers = kept_layers(depth_mult, config.num_hidden_layers, DepthRule(config.depth_rule))
    widths = parse_numbers(text, name="width_mult")
    if len(widths) not in (1, len(layers)):
        raise InputError(f"width_mult is {text!r}, but {len(layers)} layers run; give one width, or one for each")
    for width in widths:
        kept_heads(width, config.num_attention_heads, name=f"width_mult is {text!r}: the width")
    return Subnet(layers, widths if len(widths) == len(layers) else widths * len(layers))


def subnet_policy(subnet: Subnet) -> Policy:
    """Make the policy under which every example runs the subnet; the final head answers."""
    return Policy(layers=subnet.layers, widths=subnet.widths)
