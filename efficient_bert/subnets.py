"""Subnets: the first heads and neurons of some layers (DynaBERT, Hou et al., 2020; Flexible BERT, Hu et al., 2023).

A subnet is a slice of the full model and shares its weights; there is one set of layer norms for all widths and no
factor makes up for what is missing. Which heads and neurons come first is decided once, by rewiring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, kept_heads, kept_of
from efficient_bert.decisions import Policy
from efficient_bert.errors import InputError
from efficient_bert.importance import Importance
from efficient_bert.knobs import numbers
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.units import Units, heads_of, neurons_of


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


def kept_count(depth: float, layers: int, *, name: str = "the depth") -> int:
    """Layers at a fraction of them: round(depth * layers), half to even.

    Raises:
        InputError: the fraction is not in (0, 1] or leaves no layer.
    """
    return kept_of(depth, layers, name=name, units="layers")


def kept_layers(depth: float, layers: int, rule: DepthRule = DepthRule.PREFIX) -> tuple[int, ...]:
    """Indices of the layers that are left."""
    count = kept_count(depth, layers)
    if rule == DepthRule.PREFIX:
        return tuple(range(count))
    if rule == DepthRule.FLOOR:
        return tuple(math.floor(place / depth) for place in range(count))
    return tuple(place * layers // count - 1 for place in range(1, count + 1))


def uniform(
    config: EfficientBertConfig, *, width: float, depth: float = 1.0, rule: DepthRule = DepthRule.PREFIX
) -> Subnet:
    """The subnet with one width in every layer.

    Raises:
        InputError: a width or depth that leaves nothing.
    """
    kept_heads(width, config.num_attention_heads)
    layers = kept_layers(depth, config.num_hidden_layers, rule)
    return Subnet(layers, (width,) * len(layers))


def layer_widths(text: str, config: EfficientBertConfig, *, depth: float = 1.0) -> Subnet:
    """The layers left at this depth with the widths of a text: one for all, or "1,0.5,..", one for each that runs.

    Raises:
        InputError: another number of widths, or a width or depth that leaves nothing.
    """
    kept_count(depth, config.num_hidden_layers, name="depth_mult")
    layers = kept_layers(depth, config.num_hidden_layers, DepthRule(config.depth_rule))
    widths = numbers(text, name="width_mult")
    if len(widths) not in (1, len(layers)):
        raise InputError(f"width_mult is {text!r}, but {len(layers)} layers run; give one width, or one for each")
    for width in widths:
        kept_heads(width, config.num_attention_heads, name=f"width_mult is {text!r}: the width")
    return Subnet(layers, widths if len(widths) == len(layers) else widths * len(layers))


def subnet_policy(subnet: Subnet) -> Policy:
    """Every example runs the subnet; the final head answers."""
    return Policy(layers=subnet.layers, widths=subnet.widths)


def ranked(scores: Tensor) -> Tensor:
    """(..., U) scores -> (..., U) int64 units, the most important one first."""
    return scores.argsort(dim=-1, descending=True, stable=True)


@torch.no_grad()
def rewire(model: EfficientBertForSequenceClassification, importance: Importance) -> None:
    """Put every layer's heads and neurons in order of importance, in place; the full model stays the same function."""
    heads, neurons = ranked(importance.heads), ranked(importance.neurons)
    for layer, by_head, by_neuron in zip(model.bert.encoder.layers, heads, neurons, strict=True):
        reorder(heads_of(layer), by_head)
        reorder(neurons_of(layer), by_neuron)


def reorder(units: Units, order: Tensor) -> None:
    """The unit that was at order[i] comes to place i."""
    for part, axis in units.parts:
        part.copy_(units.taken(part, axis, order))


def export(model: EfficientBertForSequenceClassification, subnet: Subnet) -> EfficientBertForSequenceClassification:
    """A model of the subnet's size alone, with copies of its weights; its own full width is the subnet.

    Exits, gates and contribution predictors, which belong to the whole model, are left behind.
    """
    own = model.config.heads_by_layer
    heads = [kept_heads(width, own[layer]) for layer, width in zip(subnet.layers, subnet.widths, strict=True)]
    left_behind = {"exit_depths": [], "contribution_size": 0, "num_gates": 0, "widths": []}
    left_behind |= {"depths": [], "depth_rule": DepthRule.PREFIX.value}
    left_behind |= {"gate_profile": [], "exit_profile": [], "staying_profile": []}
    sizes = {"num_hidden_layers": len(subnet.layers), "layer_heads": heads}
    dense = EfficientBertForSequenceClassification(
        EfficientBertConfig(**{**model.config.to_dict(), **left_behind, **sizes})
    )
    torch.nn.Module.to(dense, model.dtype)
    source = model.state_dict()
    dense.load_state_dict(
        {
            name: leading(source[original(name, subnet.layers)], value.shape)
            for name, value in dense.state_dict().items()
        }
    )
    dense.eval()
    return dense


def original(name: str, layers: Sequence[int]) -> str:
    """The name in the whole model of a parameter of a layer that may have moved."""
    before, stem, rest = name.partition("encoder.layer.")
    if not stem:
        return name
    place, _, parameter = rest.partition(".")
    return f"{before}{stem}{layers[int(place)]}.{parameter}"


def leading(whole: Tensor, shape: torch.Size) -> Tensor:
    """The corner of a tensor that has this shape."""
    return whole[tuple(slice(size) for size in shape)]
