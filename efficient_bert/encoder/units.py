"""The units that a layer is made of, heads and feed-forward neurons: what each owns moves together.

A head owns its rows of query, key and value with their biases, and its columns of the attention's output matrix; a
neuron its row of the first matrix with its bias, and its column of the second. The biases of the two output matrices
belong to no unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from efficient_bert.encoder.bert import Layer


@dataclass(frozen=True)
class Units:
    """All heads, or all neurons, of one layer.

    Attributes:
        count: how many there are.
        parts: (tensor, axis along which the units lie one after the other).
    """

    count: int
    parts: tuple[tuple[Tensor, int], ...]

    def select(self, part: Tensor, axis: int, indices: Tensor) -> Tensor:
        """Return a part that holds, unit by unit, what the units at `indices` hold."""
        units: Tensor = part.unflatten(axis, (self.count, -1))
        return units.index_select(axis, indices).flatten(axis, axis + 1)


def heads_of(layer: Layer) -> Units:
    """Return the layer's heads."""
    projections = layer.attention.self
    rows = [
        part for dense in (projections.query, projections.key, projections.value) for part in (dense.weight, dense.bias)
    ]
    return Units(layer.heads, (*((part, 0) for part in rows), (layer.attention.output.dense.weight, 1)))


def neurons_of(layer: Layer) -> Units:
    """Return the layer's neurons."""
    widen, narrow = layer.intermediate.dense, layer.output.dense
    return Units(widen.out_features, ((widen.weight, 0), (widen.bias, 0), (narrow.weight, 1)))
