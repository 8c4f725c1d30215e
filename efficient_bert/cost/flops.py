"""FLOPs and multiply-adds of what ran, in closed form.

The convention, once and for all: a multiply-add is 2 FLOPs, and what counts are the matrix products, that is dense
layers and the two attention products (query by key, probabilities by value). Biases, softmax, GELU, layer norm,
residuals and embedding look-ups count nothing, as in fvcore (whose "flops" are multiply-adds) and in torch's
`FlopCounterMode`; `efficient_bert.cost.counters` checks the agreement to the last digit. Lengths are unpadded.

Per layer, with n tokens, h heads of size d, f neurons and hidden size D:

    macs = n (4 D h d + 2 D f) + 2 n^2 h d
"""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.trace import Trace

FLOPS_PER_MAC = 2


def layer_macs(tokens: Tensor, *, heads: Tensor, neurons: Tensor, config: EfficientBertConfig) -> Tensor:
    """Count the multiply-adds of layers run on so many tokens at such widths; int64 tensors that broadcast."""
    hidden, inner = config.hidden_size, heads * config.head_size
    return tokens * (4 * hidden * inner + 2 * hidden * neurons) + 2 * tokens**2 * inner


def head_macs(config: EfficientBertConfig) -> int:
    """Count the multiply-adds of one classification head, pooler and classifier, on one example."""
    return int(config.hidden_size * (config.hidden_size + config.classes))


def trace_flops(trace: Trace, config: EfficientBertConfig) -> Tensor:
    """Count the FLOPs of each example's pass, (B,) int64: layers, classification heads and the policy's own modules."""
    layers = layer_macs(trace.tokens, heads=trace.heads, neurons=trace.neurons, config=config).sum(1)
    return FLOPS_PER_MAC * (layers + trace.head_runs * head_macs(config) + trace.decision_macs.sum(1))


def full_flops(lengths: Tensor, config: EfficientBertConfig) -> Tensor:
    """Count the FLOPs of the full model, every layer at full width, on examples of these lengths (B,): (B,) int64."""
    heads = torch.tensor(config.heads_by_layer, device=lengths.device)
    neurons = torch.tensor([config.neurons(count) for count in config.heads_by_layer], device=lengths.device)
    layers = layer_macs(lengths[:, None], heads=heads, neurons=neurons, config=config).sum(1)
    return FLOPS_PER_MAC * (layers + head_macs(config))
