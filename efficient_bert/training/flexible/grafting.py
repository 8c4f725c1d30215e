"""Neural grafting (Flexible BERT, Hu et al., 2023): weak heads and neurons take over something of the strong ones.

Within a layer, the least important unit is paired with the most important one, the second least with the second most,
and so on; a weak unit's weights become (1 - alpha) of its own and alpha of its donor's. Not function preserving.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.calibration.importance import Importance
from efficient_bert.encoder.units import Units, heads_of, neurons_of
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.training.flexible.rewiring import rank_units

ALPHA = 0.1
FRACTION = 0.5
"""Of a layer's units that are weak, and as many strong."""


def donors(scores: Tensor, fraction: float = FRACTION) -> Tensor:
    """Pair units: (..., U) scores -> (..., U) int64, the unit that each takes from; itself where it takes from none."""
    order = rank_units(scores)
    weak = int(scores.shape[-1] * fraction)
    units = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return units.scatter(-1, order.flip(-1)[..., :weak], order[..., :weak])


@torch.no_grad()
def graft(
    model: EfficientBertForSequenceClassification,
    importance: Importance,
    *,
    alpha: float = ALPHA,
    fraction: float = FRACTION,
) -> None:
    """Graft every layer's heads and neurons once, in place."""
    heads, neurons = donors(importance.heads, fraction), donors(importance.neurons, fraction)
    for layer, by_head, by_neuron in zip(model.bert.encoder.layers, heads, neurons, strict=True):
        blend(heads_of(layer), by_head, alpha=alpha)
        blend(neurons_of(layer), by_neuron, alpha=alpha)


def blend(units: Units, donor: Tensor, *, alpha: float) -> None:
    """Set theta_u <- (1 - alpha) theta_u + alpha theta_donor(u), from the old values of all."""
    for part, axis in units.parts:
        part.lerp_(units.select(part, axis, donor), alpha)


def graft_steps(*, examples: int, batch_size: int, epochs: int, per_epoch: int = 3) -> range:
    """Return the optimiser steps (counted from 1) after which to graft: `per_epoch` in each epoch but the last."""
    every = max(1, int(examples / batch_size / per_epoch))
    return range(every, int(examples / batch_size * (epochs - 1)) + 1, every)
