"""Put heads and neurons in order of importance, so that a narrow subnet keeps the best (DynaBERT, section 2.1.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.calibration.importance import Importance
from efficient_bert.encoder.units import Units, heads_of, neurons_of
from efficient_bert.model import EfficientBertForSequenceClassification


def rank_units(scores: Tensor) -> Tensor:
    """Rank units, the most important one first: (..., U) scores -> (..., U) int64 unit numbers."""
    return scores.argsort(dim=-1, descending=True, stable=True)


@torch.no_grad()
def rewire(model: EfficientBertForSequenceClassification, importance: Importance) -> None:
    """Put every layer's heads and neurons in order of importance, in place; the full model stays the same function."""
    heads, neurons = rank_units(importance.heads), rank_units(importance.neurons)
    for layer, by_head, by_neuron in zip(model.bert.encoder.layers, heads, neurons, strict=True):
        reorder(heads_of(layer), by_head)
        reorder(neurons_of(layer), by_neuron)


def reorder(units: Units, order: Tensor) -> None:
    """Move the unit at order[i] to position i, for every i, in place."""
    for part, axis in units.parts:
        part.copy_(units.select(part, axis, order))
