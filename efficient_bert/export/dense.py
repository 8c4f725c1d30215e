"""Copy a subnet into a dense model of its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.subnets import DepthRule, Subnet


def export(model: EfficientBertForSequenceClassification, subnet: Subnet) -> EfficientBertForSequenceClassification:
    """Copy a subnet's weights into a model of that size, whose full width is the subnet.

    Exits, gates and contribution predictors, which belong to the full model, are left behind.
    """
    by_layer = model.config.heads_by_layer
    heads = [kept_heads(width, by_layer[layer]) for layer, width in zip(subnet.layers, subnet.widths, strict=True)]
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
            name: leading_corner(source[source_name(name, subnet.layers)], value.shape)
            for name, value in dense.state_dict().items()
        }
    )
    dense.eval()
    return dense


def source_name(name: str, layers: Sequence[int]) -> str:
    """Return the name in the full model of a subnet's parameter, whose layer may have another index there."""
    before, stem, rest = name.partition("encoder.layer.")
    if not stem:
        return name
    index, _, parameter = rest.partition(".")
    return f"{before}{stem}{layers[int(index)]}.{parameter}"


def leading_corner(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return the leading corner of a tensor that has this shape."""
    return tensor[tuple(slice(size) for size in shape)]
