"""How much each head and each neuron matters: the change of the loss without it, to first order.

A head's mask is a factor on its attention probabilities, hence on its columns of the attention's output matrix W; the
derivative of the loss by that factor is <W, dL/dW> over those columns. For a neuron it is <w, dL/dw> over its row and
its bias, and once more over its column (Michel et al., 2019; Molchanov et al., 2017; DynaBERT, section 2.1.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from efficient_bert.encoder.bert import Layer
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.loop import Execution, run
from efficient_bert.fidelity import Fidelity
from efficient_bert.model import EfficientBertForSequenceClassification


@dataclass(frozen=True)
class Importance:
    """Scores >= 0, to be compared within a layer.

    Attributes:
        heads: (N, H).
        neurons: (N, F).
    """

    heads: Tensor
    neurons: Tensor


def importance(
    model: EfficientBertForSequenceClassification,
    batches: Iterable[tuple[Batch, Tensor]],
    *,
    fidelity: Fidelity = Fidelity.CORRECTED,
) -> Importance:
    """Score heads and neurons at full width, without dropout: magnitudes of the derivative, summed over batches.

    No parameter's `grad` is touched. As released, the gradients of earlier batches are never cleared, so that each
    batch adds the magnitude of the sum so far.

    Args:
        batches: (batch, (B,) int64 classes, or scores in a regression).
    """
    layers, modes = model.bert.encoder.layers, [(module, module.training) for module in model.modules()]
    weights = [weight for layer in layers for weight in scored_weights(layer)]
    running = [torch.zeros_like(weight) for weight in weights]
    heads = torch.zeros(len(layers), layers[0].heads, device=model.device)
    neurons = torch.zeros(len(layers), layers[0].intermediate.dense.out_features, device=model.device)
    model.eval()
    for batch, classes in batches:
        loss = model.loss(run(model, batch, execution=Execution.SOFT, all_tokens=False).logits.float(), classes)
        gradients = list(torch.autograd.grad(loss, weights))
        if fidelity == Fidelity.RELEASED:
            running = gradients = [one + other for one, other in zip(running, gradients, strict=True)]
        with torch.no_grad():
            for index, layer in enumerate(layers):
                scores = derivatives(layer, gradients[4 * index : 4 * index + 4])
                heads[index] += scores[0]
                neurons[index] += scores[1]
    for module, training in modes:
        module.training = training
    return Importance(heads, neurons)


def scored_weights(layer: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of a layer whose gradients are needed."""
    widen = layer.intermediate.dense
    return layer.attention.output.dense.weight, widen.weight, widen.bias, layer.output.dense.weight


def derivatives(layer: Layer, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Compute the magnitudes for one layer, (H,) and (F,), from the gradients of its `scored_weights`."""
    by_head, widen, bias, narrow = (
        weight * gradient for weight, gradient in zip(scored_weights(layer), gradients, strict=True)
    )
    heads = by_head.sum(0).view(layer.heads, -1).sum(1).abs()
    return heads, (widen.sum(1) + bias).abs() + narrow.sum(0).abs()
