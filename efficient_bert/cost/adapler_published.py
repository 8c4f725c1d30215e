"""FLOPs as AdapLeR's authors count them: to reproduce published speed-ups, not to compare methods.

The project's own count, `efficient_bert.cost.flops`, charges what really ran. What differs here:

    the predictors' and embeddings' work on tokens that are then removed is not charged
    a row of the classifier is counted twice
    layer 12 is charged the tokens whose share exceeds eta rather than eta / n, which is almost none
    a token counts as present while its share exceeds 1e-6

`bert_flops` and `adapler_flops` hold the constants of the authors' evaluation code, twelve layers of BERT-base, where
TensorFlow's profiler counted additions and multiplications of everything, element by element, at batch 1.
`published_flops` is the same book-keeping for any size, in matrix products, with the classes that the model has: at
BERT-base's size the ratios differ by less than 0.3 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.cost.flops import FLOPS_PER_MAC, full_flops, head_macs, layer_macs
from efficient_bert.engine.recorder import Output
from efficient_bert.knobs import Values
from efficient_bert.model import EfficientBertForSequenceClassification

PRESENT = 1e-6


def bert_flops(lengths: Tensor, classes: int) -> Tensor:
    """Count the FLOPs of BERT-base on examples of these unpadded lengths: (B,) -> (B,) int64."""
    return 37872 * lengths**2 + 170216500 * lengths + 1181953 + 1537 * classes


def adapler_flops(tokens: Tensor, classes: int) -> Tensor:
    """Count the FLOPs of AdapLeR on BERT-base: tokens (B, N) int64 that each layer runs on -> (B,) int64."""
    layers = (3156 * tokens**2 + 14233554 * tokens).sum(1)
    return 1183537 + 1537 * (classes - 1) + 6152 * tokens[:, 0] + layers


def speedup(lengths: Tensor, tokens: Tensor, classes: int) -> float:
    """Compute the ratio of the sums over a data set; lengths (B,) and tokens (B, N) int64."""
    return int(bert_flops(lengths, classes).sum()) / int(adapler_flops(tokens, classes).sum())


def published_lengths(scores: Sequence[Tensor], eta: Tensor) -> Tensor:
    """Count the tokens that enter each predictor, and those charged to the last layer: (B, N + 1) int64.

    Args:
        scores: N of (B, L), the shares before each layer; L may fall, and a removed token that is there has share 0.
        eta: (N,) thresholds.
    """
    return torch.stack([*((shares > PRESENT).sum(1) for shares in scores), (scores[-1] > eta[-1]).sum(1)], dim=1)


def published_flops(
    model: EfficientBertForSequenceClassification, output: Output, knobs: Values
) -> tuple[Tensor, Tensor]:
    """Count the FLOPs of AdapLeR's pass and of the full model, (B,) int64 each, from what the pass decided."""
    eta = knobs["eta_scale"] * model.contributions().eta
    scores = [decision.scores for decision in output.decisions if decision.scores is not None]
    return published_products(published_lengths(scores, eta).cpu(), model.config)


def published_products(tokens: Tensor, config: EfficientBertConfig) -> tuple[Tensor, Tensor]:
    """Count the FLOPs of AdapLeR's pass and of the full model, (B,) int64 each.

    `tokens` (B, N + 1) int64 is what `published_lengths` returns.
    """
    entering, charged = tokens[:, 0], tokens[:, 1:]
    heads = torch.full_like(charged, config.num_attention_heads)
    neurons = torch.full_like(charged, config.intermediate_size)
    layers = layer_macs(charged, heads=heads, neurons=neurons, config=config).sum(1)
    predictors = charged.sum(1) * (config.hidden_size + 1) * config.contribution_size
    return FLOPS_PER_MAC * (layers + predictors + head_macs(config)), full_flops(entering, config)
