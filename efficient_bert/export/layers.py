"""Embeddings, layers and heads as nodes of an ONNX graph, built from a model's weights.

Shapes: L tokens of one example, D hidden size, h heads in use, d head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from efficient_bert.config import EfficientBertConfig
from efficient_bert.encoder.bert import Embeddings, Layer, Pooler, Projection
from efficient_bert.errors import InputError
from efficient_bert.export.graph import MICROSOFT, Graph

Weights = NDArray[np.float32]


class Precision(StrEnum):
    """What the large matrix products of the layers are computed in."""

    FP32 = "fp32"
    INT8 = "int8"


def array(tensor: Tensor) -> Weights:
    """Return a parameter as float32."""
    values: Weights = tensor.detach().float().cpu().numpy()
    return values


@dataclass(frozen=True)
class Builder:
    """Adds the parts of a model to a graph, all in one precision."""

    config: EfficientBertConfig
    precision: Precision

    def embed(self, graph: Graph, embeddings: Embeddings, ids: str, types: str, positions: str) -> str:
        """Embed one example: three (L,) int64 -> (L, D)."""
        tables = (embeddings.word_embeddings, embeddings.token_type_embeddings, embeddings.position_embeddings)
        words, segments, places = (
            graph.op("Gather", graph.weight(array(table.weight)), index, axis=0)
            for table, index in zip(tables, (ids, types, positions), strict=True)
        )
        return self.norm(graph, embeddings.LayerNorm, graph.op("Add", graph.op("Add", words, segments), places))

    def norm(self, graph: Graph, norm: nn.LayerNorm, values: str) -> str:
        """Normalise each token."""
        scale, shift = graph.weight(array(norm.weight)), graph.weight(array(norm.bias))
        return graph.op("LayerNormalization", values, scale, shift, axis=-1, epsilon=norm.eps)

    def dense(self, graph: Graph, values: str, weight: Weights, bias: Weights) -> str:
        """Multiply by a weight (out, in) and add a bias, in the layers' precision."""
        if self.precision == Precision.FP32:
            return graph.op("Gemm", values, graph.weight(weight.T), graph.weight(bias))
        quantized, scales = quantize(weight)
        inputs = (values, graph.weight(quantized.T), graph.weight(scales), "", graph.weight(bias))
        return graph.op("DynamicQuantizeMatMul", *inputs, domain=MICROSOFT)

    def layer(self, graph: Graph, layer: Layer, hidden: str, *, heads: int, first_only: bool) -> str:
        """Run a layer at a width: (L, D) -> (L, D), or (1, D) where only the first token's output is wanted."""
        inner, size = heads * layer.head_size, layer.head_size
        queries = graph.op("Slice", hidden, *map(graph.integers, (0, 1, 0))) if first_only else hidden
        query, key, value = self.project(graph, layer, hidden, queries, inner=inner)
        context = attend(graph, query, key, value, heads=heads, size=size)
        hidden = self.projection(graph, layer.attention.output, context, queries, width=inner)
        neurons = layer.neurons(heads)
        widen = layer.intermediate.dense
        widened = self.dense(graph, hidden, array(widen.weight)[:neurons], array(widen.bias)[:neurons])
        return self.projection(graph, layer.output, activate(graph, self.config, widened), hidden, width=neurons)

    def project(self, graph: Graph, layer: Layer, hidden: str, queries: str, *, inner: int) -> Sequence[str]:
        """Compute query, key and value, each (L, inner), by one product where all tokens ask."""
        parts = layer.attention.self
        weights = [array(part.weight)[:inner] for part in (parts.query, parts.key, parts.value)]
        biases = [array(part.bias)[:inner] for part in (parts.query, parts.key, parts.value)]
        scale = np.float32(1 / math.sqrt(layer.head_size))  # of the attention logits
        weights[0], biases[0] = weights[0] * scale, biases[0] * scale
        if queries == hidden:
            packed = self.dense(graph, hidden, np.concatenate(weights), np.concatenate(biases))
            return graph.ops("Split", packed, outputs=3, axis=1, num_outputs=3)
        query = self.dense(graph, queries, weights[0], biases[0])
        packed = self.dense(graph, hidden, np.concatenate(weights[1:]), np.concatenate(biases[1:]))
        return query, *graph.ops("Split", packed, outputs=2, axis=1, num_outputs=2)

    def projection(self, graph: Graph, projection: Projection, values: str, residual: str, *, width: int) -> str:
        """Project through the first columns, add the residual and normalise."""
        projected = self.dense(graph, values, array(projection.dense.weight)[:, :width], array(projection.dense.bias))
        return self.norm(graph, projection.LayerNorm, graph.op("Add", projected, residual))

    def classify(self, graph: Graph, pooler: Pooler, classifier: nn.Linear, first: str) -> str:
        """Classify the [CLS] state: (1, D) -> (1, C); always in float32."""
        pooled = graph.op("Tanh", linear(graph, first, pooler.dense))
        return linear(graph, pooled, classifier)


def linear(graph: Graph, values: str, dense: nn.Linear) -> str:
    """Apply a dense layer in float32."""
    return graph.op("Gemm", values, graph.weight(array(dense.weight).T), graph.weight(array(dense.bias)))


def attend(graph: Graph, query: str, key: str, value: str, *, heads: int, size: int) -> str:
    """Attend: query (Q, h d), scaled, and key and value (L, h d) -> (Q, h d)."""
    split = graph.integers(0, heads, size)
    query, key, value = (
        graph.op("Transpose", graph.op("Reshape", part, split), perm=order)
        for part, order in ((query, (1, 0, 2)), (key, (1, 2, 0)), (value, (1, 0, 2)))
    )
    probabilities = graph.op("Softmax", graph.op("MatMul", query, key), axis=-1)
    context = graph.op("Transpose", graph.op("MatMul", probabilities, value), perm=(1, 0, 2))
    return graph.op("Reshape", context, graph.integers(0, heads * size))


ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}
"""Name of an activation -> ONNX operator and attributes."""


def activate(graph: Graph, config: EfficientBertConfig, values: str) -> str:
    """Apply the model's activation.

    Raises:
        InputError: it is not among `ACTIVATIONS`.
    """
    name = str(config.hidden_act)
    if name not in ACTIVATIONS:
        raise InputError(f"hidden_act is {name!r}, but an export knows {', '.join(ACTIVATIONS)}; take such a model")
    kind, attributes = ACTIVATIONS[name]
    return graph.op(kind, values, **attributes)


LARGEST = 64
"""Of a quantized weight: 2 * 255 * 64 fits in 16 bits."""


def quantize(weight: Weights) -> tuple[NDArray[np.int8], Weights]:
    """Round a weight (out, in) to int8 symmetrically, with one scale for each output; return both.

    Weights use 7 of the 8 bits: a processor without VNNI adds two products of uint8 and int8 in 16 bits, which would
    overflow in silence, and answer otherwise than one with VNNI.
    """
    largest = np.abs(weight).max(1)
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales
