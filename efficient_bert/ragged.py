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
        """The layout of the tokens where keep (B, L) bool is true, and their places (T,) bool in this one.

        Each row's first token stays in any case.
        """
        keep = keep & self.mask
        keep[:, 0] = True
        places = keep[self.mask]
        return Layout(self.positions[places], tuple(keep.sum(1).tolist()), self.rows), places

    def keep_rows(self, wanted: Sequence[int]) -> tuple[Layout, Tensor]:
        """The layout of the rows at these places (ascending), and their tokens' places (T,) bool in this one."""
        device = self.positions.device
        stays = torch.zeros(len(self.lengths), dtype=torch.bool, device=device)
        stays[list(wanted)] = True
        places = stays.repeat_interleave(torch.tensor(self.lengths, device=device))
        lengths, rows = tuple(self.lengths[row] for row in wanted), tuple(self.rows[row] for row in wanted)
        return Layout(self.positions[places], lengths, rows), places

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


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    heads: int,
    eager: bool,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    seen: list[Tensor] | None = None,
) -> Tensor:
    """Scaled dot-product attention of a padded batch: (B, Q, h d) and twice (B, L, h d) -> (B, Q, h d).

    Args:
        bias: (B, 1, 1, L) added to the attention logits, or bool with true = visible.
        eager: plain matrix products instead of the fused kernel, for counting and for attention scores.
        dropout: probability of dropping an attention probability.
        seen: where the eager path appends its probabilities (B, h, Q, L).
    """
    batch, length, inner = query.shape
    query, key, value = (part.view(batch, part.shape[1], heads, -1).transpose(1, 2) for part in (query, key, value))
    # a CPU's fused kernels have no dropout, no gradient of the bias, and a backward pass slower than three products
    learning = torch.is_grad_enabled() and query.dtype == torch.bfloat16 and query.device.type == "cpu"
    if not eager and not learning:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    else:
        with torch.autocast(query.device.type, enabled=False):  # which would compute the softmax in float32
            scores = query @ key.transpose(2, 3) / math.sqrt(inner // heads)
            if bias is not None:
                masked = bias.dtype == torch.bool
                scores = scores.masked_fill(~bias, -math.inf) if masked else scores + bias.to(scores.dtype)
            probabilities = dropped(scores.softmax(-1), dropout)
            if seen is not None:
                seen.append(probabilities)
            context = probabilities @ (value / (1 - dropout))
    return context.transpose(1, 2).reshape(batch, length, inner)


LEVELS = 2**16
"""Numbers of two bytes, four of which are drawn at once."""


def dropped(probabilities: Tensor, dropout: float) -> Tensor:
    """The probabilities, each zero with probability `dropout` (to 1 / LEVELS); the others are not yet scaled."""
    if not dropout:
        return probabilities
    count = probabilities.numel()
    draws = torch.empty(count // 4 + 1, dtype=torch.int64, device=probabilities.device).random_(-(2**63), None)
    level = round(dropout * LEVELS) - LEVELS // 2
    gone = draws.view(torch.int16)[:count].view(probabilities.shape) < level
    return probabilities.masked_fill(gone, 0)
