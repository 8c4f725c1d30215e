"""Scaled dot-product attention of a padded batch, by torch's fused kernel or by plain matrix products.

Shapes: B rows, Q queries, L keys, h heads in use, d head size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert.encoder.dropout import dropout

CACHED_PROBABILITIES = 2**18
"""Attention probabilities that a CPU learns from at once, 0.5 MiB in bfloat16, or one example's where it has more."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    heads: int,
    eager: bool,
    bias: Tensor | None = None,
    rate: float = 0.0,
    attentions: list[Tensor] | None = None,
) -> Tensor:
    """Attend within each row of a padded batch: (B, Q, h d) and twice (B, L, h d) -> (B, Q, h d).

    Args:
        bias: (B, 1, 1, L) added to the attention logits, or bool with true = visible.
        eager: plain matrix products instead of the fused kernel, for counting and for attention scores.
        rate: probability of dropping an attention probability.
        attentions: where the eager path appends its probabilities (B, h, Q, L).
    """
    batch, length, inner = query.shape
    query, key, value = (part.view(batch, part.shape[1], heads, -1).transpose(1, 2) for part in (query, key, value))
    if not eager and not prefers_products(query, bias, rate):
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate)
    else:
        if bias is None:
            bias = query.new_zeros(batch, 1, 1, 1)
        elif bias.dtype == torch.bool:
            bias = query.new_zeros(bias.shape).masked_fill(~bias, -math.inf)
        per_step = batch if eager else max(1, CACHED_PROBABILITIES // (heads * length * key.shape[2]))
        parts = zip(*(part.split(per_step) for part in (query, key, value, bias.to(query.dtype))), strict=True)
        with torch.autocast(query.device.type, enabled=False):  # which would compute the softmax in float32
            kept = attentions if eager else None
            context = torch.cat([attend_by_products(*part, rate=rate, attentions=kept) for part in parts])
    return context.transpose(1, 2).reshape(batch, length, inner)


def prefers_products(query: Tensor, bias: Tensor | None, rate: float) -> bool:
    """Check whether a CPU is faster with plain products.

    Its fused kernels have neither dropout nor the gradient of a bias, and in bfloat16 a slower backward pass. Dropout
    asks for products also where no gradient is wanted, so that one seed drops the same.
    """
    fades = bias is not None and bias.requires_grad
    learning = torch.is_grad_enabled() and (fades or query.dtype == torch.bfloat16)
    return query.device.type == "cpu" and (rate > 0 or learning)


def attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *, rate: float, attentions: list[Tensor] | None
) -> Tensor:
    """Attend by plain matrix products: (B, h, Q, d), twice (B, h, L, d), (B, 1, 1, L or 1) -> (B, h, Q, d).

    `bias` is added to the logits; `rate` and `attentions` are `attend`'s.
    """
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    probabilities = dropout((scores + bias).softmax(-1), rate)
    if attentions is not None:
        attentions.append(probabilities)
    return probabilities @ value
