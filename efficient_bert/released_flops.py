"""FLOPs as AdapLeR's authors count them, for BERT-base: to reproduce published speed-ups, not to compare methods.

TensorFlow's profiler counts additions and multiplications of everything, element by element, at batch 1; the
constants below are those of the authors' evaluation code and hold for twelve layers of BERT-base. The project's own
count, `efficient_bert.cost`, charges what really ran. What differs here:

    the predictors' and embeddings' work on tokens that are then removed is not charged
    a row of the classifier is counted twice
    layer 12 is charged the tokens whose share exceeds eta rather than eta / n, which is almost none
    a token counts as present while its share exceeds 1e-6
"""

from __future__ import annotations

import torch
from torch import Tensor

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
