"""Batches of unequal sequences without padding: pack, drop tokens, drop rows, attend.

Shapes: B rows, L longest length, T = sum of the lengths, D hidden size, h heads in use, d head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert.dropout import dropout


@dataclass(frozen=True)
class Layout:
    """Which live token of which live example each of T packed states belongs to; rows lie one after the other.

    Attributes:
        positions: (T,) int64, where each token stood in its input.
        lengths: live tokens of each row; none is 0, because the first token stays.
        rows: which example of the original batch each row is.
    """

    positions: Tensor
    lengths: tuple[int, ...]
    rows: tuple[int, ...]

    @cached_property
    def even(self) -> bool:
        """All rows have one length (a single example always has)."""
        return min(self.lengths) == max(self.lengths)

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64: where each row begins."""
        return torch.tensor([0, *accumulate(self.lengths[:-1])], device=self.positions.device)

    @cached_property
    def mask(self) -> Tensor:
        """(B, L) bool: the cells of the padded form that hold a token."""
        if self.even:
            return self.positions.view(len(self.lengths), self.lengths[0]) >= 0  # true; one operation less than ones
        lengths = torch.tensor(self.lengths, device=self.positions.device)
        return torch.arange(max(self.lengths), device=self.positions.device) < lengths[:, None]

    @cached_property
    def cells(self) -> tuple[Tensor, ...]:
        """Per distinct length n, the (b, n) places of the tokens of the b rows that have it."""
        device = self.positions.device
        by_length: dict[int, list[int]] = {}
        for row, length in enumerate(self.lengths):
            by_length.setdefault(length, []).append(row)
        return tuple(
            self.starts[torch.tensor(rows, device=device)][:, None] + torch.arange(length, device=device)
            for length, rows in by_length.items()
        )

    def kept(self, length: int) -> Tensor:
        """(B, length) bool: the positions of the original inputs that are live, row by row."""
        places = torch.zeros(len(self.rows), length, dtype=torch.bool, device=self.positions.device)
        lengths = torch.tensor(self.lengths, device=self.positions.device)
        places[torch.arange(len(self.rows), device=lengths.device).repeat_interleave(lengths), self.positions] = True
        return places

    def first(self, packed: Tensor) -> Tensor:
        """(T, ...) -> (B, ...): each row's first token, [CLS]."""
        return packed[:1] if len(self.lengths) == 1 else packed[self.starts]

    def pad(self, packed: Tensor) -> Tensor:
        """(T, ...) -> (B, L, ...), zeros where a row is shorter than the longest."""
        if self.even:
            return packed.view(len(self.lengths), self.lengths[0], *packed.shape[1:])
        padded = packed.new_zeros(*self.mask.shape, *packed.shape[1:])
        padded[self.mask] = packed
        return padded

    def keep_tokens(self, keep: Tensor) -> tuple[Layout, Tensor]:
        """The layout of the tokens where keep (B, L) bool is true, and their places in this one, ascending int64.

        Each row's first token stays in any case. A single row is not asked how many stay: the places tell.
        """
        keep = keep & self.mask
        keep.select(1, 0).fill_(1)
        places = (keep.flatten() if self.even else keep[self.mask]).nonzero().squeeze(1)
        lengths = (len(places),) if len(keep) == 1 else tuple(keep.sum(1).tolist())
        return Layout(self.positions.index_select(0, places), lengths, self.rows), places

    def keep_rows(self, wanted: Sequence[int]) -> tuple[Layout, Tensor]:
        """The layout of the rows at these places (ascending), and their tokens' places in this one, ascending int64."""
        device = self.positions.device
        stays = torch.zeros(len(self.lengths), dtype=torch.bool, device=device)
        stays[list(wanted)] = True
        places = stays.repeat_interleave(torch.tensor(self.lengths, device=device)).nonzero()[:, 0]
        lengths, rows = tuple(self.lengths[row] for row in wanted), tuple(self.rows[row] for row in wanted)
        return Layout(self.positions.index_select(0, places), lengths, rows), places

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, heads: int, eager: bool) -> Tensor:
        """Self-attention within each row: three (T, h d) -> (T, h d). Rows of one length run together, unpadded."""
        if self.even:
            shape = (len(self.lengths), self.lengths[0], query.shape[-1])
            context = attend(query.view(shape), key.view(shape), value.view(shape), heads=heads, eager=eager)
            return context.view(query.shape)
        context = torch.empty_like(query)
        for cells in self.cells:
            context[cells] = attend(query[cells], key[cells], value[cells], heads=heads, eager=eager)
        return context


def concatenate(layouts: Sequence[Layout]) -> Layout:
    """The rows of all layouts, one layout after the other."""
    return Layout(
        torch.cat([layout.positions for layout in layouts]),
        tuple(length for layout in layouts for length in layout.lengths),
        tuple(row for layout in layouts for row in layout.rows),
    )


CACHED = 2**18
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
    seen: list[Tensor] | None = None,
) -> Tensor:
    """Scaled dot-product attention of a padded batch: (B, Q, h d) and twice (B, L, h d) -> (B, Q, h d).

    Args:
        bias: (B, 1, 1, L) added to the attention logits, or bool with true = visible.
        eager: plain matrix products instead of the fused kernel, for counting and for attention scores.
        rate: probability of dropping an attention probability.
        seen: where the eager path appends its probabilities (B, h, Q, L).
    """
    batch, length, inner = query.shape
    query, key, value = (part.view(batch, part.shape[1], heads, -1).transpose(1, 2) for part in (query, key, value))
    if not eager and not needs_products(query, bias, rate):
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate)
    else:
        if bias is None:
            bias = query.new_zeros(batch, 1, 1, 1)
        elif bias.dtype == torch.bool:
            bias = query.new_zeros(bias.shape).masked_fill(~bias, -math.inf)
        together = batch if eager else max(1, CACHED // (heads * length * key.shape[2]))
        parts = zip(*(part.split(together) for part in (query, key, value, bias.to(query.dtype))), strict=True)
        with torch.autocast(query.device.type, enabled=False):  # which would compute the softmax in float32
            context = torch.cat([by_products(*part, rate=rate, seen=seen if eager else None) for part in parts])
    return context.transpose(1, 2).reshape(batch, length, inner)


def needs_products(query: Tensor, bias: Tensor | None, rate: float) -> bool:
    """Whether a CPU is faster with plain products.

    Its fused kernels have neither dropout nor the gradient of a bias, and in bfloat16 a slower backward pass. Dropout
    asks for products also where no gradient is wanted, so that one seed drops the same.
    """
    fades = bias is not None and bias.requires_grad
    learning = torch.is_grad_enabled() and (fades or query.dtype == torch.bfloat16)
    return query.device.type == "cpu" and (rate > 0 or learning)


def by_products(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *, rate: float, seen: list[Tensor] | None
) -> Tensor:
    """Attention by plain matrix products: (B, h, Q, d), twice (B, h, L, d), (B, 1, 1, L or 1) -> (B, h, Q, d).

    `bias` is added to the logits; `rate` and `seen` are `attend`'s.
    """
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    probabilities = dropout((scores + bias).softmax(-1), rate)
    if seen is not None:
        seen.append(probabilities)
    return probabilities @ value
