"""FLOPs as authors' code counts them: to reproduce published figures, not to compare methods.

The project's own count, `efficient_bert.cost`, charges what really ran.

AdapLeR, for BERT-base. TensorFlow's profiler counts additions and multiplications of everything, element by element,
at batch 1; the constants below are those of the authors' evaluation code and hold for twelve layers. What differs here:

    the predictors' and embeddings' work on tokens that are then removed is not charged
    a row of the classifier is counted twice
    layer 12 is charged the tokens whose share exceeds eta rather than eta / n, which is almost none
    a token counts as present while its share exceeds 1e-6

Flexible BERT, of any size. Dense layers only, on padded inputs. What differs here:

    attention's two products are not charged
    one gate more than layers run, because the gate after the last layer is asked and ignored
    every exit head that runs, and the final one always, also for examples that have left
"""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.cost import FLOPS_PER_MAC, head_macs
from efficient_bert.gates import gate_macs

PRESENT = 1e-6


def bert_flops(lengths: Tensor, classes: int) -> Tensor:
    """(B,) int64 FLOPs of BERT-base on examples of these unpadded lengths (B,)."""
    return 37872 * lengths**2 + 170216500 * lengths + 1181953 + 1537 * classes


def adapler_flops(tokens: Tensor, classes: int) -> Tensor:
    """(B,) int64 FLOPs of AdapLeR on BERT-base; tokens (B, N) int64, those that each layer runs on."""
    layers = (3156 * tokens**2 + 14233554 * tokens).sum(1)
    return 1183537 + 1537 * (classes - 1) + 6152 * tokens[:, 0] + layers


def speedup(lengths: Tensor, tokens: Tensor, classes: int) -> float:
    """The ratio of the sums over a data set; lengths (B,) and tokens (B, N) int64."""
    return int(bert_flops(lengths, classes).sum()) / int(adapler_flops(tokens, classes).sum())


def released_lengths(scores: Tensor, eta: Tensor) -> Tensor:
    """(B, N + 1) int64: tokens entering each predictor, and those charged to the last layer.

    Args:
        scores: (B, N, L) shares before each layer, of a pass whose removed tokens have share 0.
        eta: (N,) thresholds.
    """
    return torch.cat([(scores > PRESENT).sum(2), (scores[:, -1:] > eta[-1]).sum(2)], dim=1)


def flexible_flops(heads: Tensor, *, exits: Tensor, tokens: int, config: EfficientBertConfig) -> Tensor:
    """(B,) int64 FLOPs of Flexible BERT; the authors' code prints them in units of 1e10.

    Args:
        heads: (B, N) int64 of each layer, 0 where it did not run.
        exits: (B,) int64 exit heads evaluated.
        tokens: the length that inputs are padded to.
        config: of a model with width gates.
    """
    hidden, neurons = config.hidden_size, heads * config.intermediate_size // config.num_attention_heads
    dense = tokens * (4 * hidden * heads * config.head_size + 2 * hidden * neurons).sum(1)
    gates = ((heads > 0).sum(1) + 1) * gate_macs(config)
    return FLOPS_PER_MAC * (dense + gates + (exits + 1) * head_macs(config))
