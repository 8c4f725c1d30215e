"""Batches of unequal sequences without padding: pack, drop tokens, drop rows, attend.

Shapes: B rows, L longest length, T = sum of the lengths, D hidden size, h heads in use, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from efficient_bert.encoder.attention import attend


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
    def unpadded(self) -> bool:
        """Whether all rows have one length, so that the padded form has no padding; true of a single row."""
        return min(self.lengths) == max(self.lengths)

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64: where each row begins."""
        return torch.tensor([0, *accumulate(self.lengths[:-1])], device=self.positions.device)

    @cached_property
    def mask(self) -> Tensor:
        """(B, L) bool: the cells of the padded form that hold a token."""
        if self.unpadded:
            return self.positions.view(len(self.lengths), self.lengths[0]) >= 0  # true; one operation less than ones
        lengths = torch.tensor(self.lengths, device=self.positions.device)
        return torch.arange(max(self.lengths), device=self.positions.device) < lengths[:, None]

    @cached_property
    def cells(self) -> tuple[Tensor, ...]:
        """For each distinct length n, (b, n) int64: the indices of the tokens of the b rows that have it."""
        device = self.positions.device
        by_length: dict[int, list[int]] = {}
        for row, length in enumerate(self.lengths):
            by_length.setdefault(length, []).append(row)
        return tuple(
            self.starts[torch.tensor(rows, device=device)][:, None] + torch.arange(length, device=device)
            for length, rows in by_length.items()
        )

    def live_positions(self, length: int) -> Tensor:
        """Return (B, length) bool: the positions of the original inputs that are live, row by row."""
        live = torch.zeros(len(self.rows), length, dtype=torch.bool, device=self.positions.device)
        lengths = torch.tensor(self.lengths, device=self.positions.device)
        live[torch.arange(len(self.rows), device=lengths.device).repeat_interleave(lengths), self.positions] = True
        return live

    def first(self, packed: Tensor) -> Tensor:
        """Return each row's first token, [CLS]: (T, ...) -> (B, ...)."""
        return packed[:1] if len(self.lengths) == 1 else packed[self.starts]

    def pad(self, packed: Tensor) -> Tensor:
        """Pad to the longest row with zeros: (T, ...) -> (B, L, ...)."""
        if self.unpadded:
            return packed.view(len(self.lengths), self.lengths[0], *packed.shape[1:])
        padded = packed.new_zeros(*self.mask.shape, *packed.shape[1:])
        padded[self.mask] = packed
        return padded

    def keep_tokens(self, keep: Tensor) -> tuple[Layout, Tensor]:
        """Return the layout of the tokens where keep (B, L) bool is true, and their indices here, ascending int64.

        Each row's first token stays in any case. A single row's kept tokens are not counted: the indices tell.
        """
        keep = keep & self.mask
        keep.select(1, 0).fill_(1)
        indices = (keep.flatten() if self.unpadded else keep[self.mask]).nonzero().squeeze(1)
        lengths = (len(indices),) if len(keep) == 1 else tuple(keep.sum(1).tolist())
        return Layout(self.positions.index_select(0, indices), lengths, self.rows), indices

    def keep_rows(self, row_numbers: Sequence[int]) -> tuple[Layout, Tensor]:
        """Return the layout of the rows with these numbers (ascending), and their tokens' indices here, ascending."""
        device = self.positions.device
        stays = torch.zeros(len(self.lengths), dtype=torch.bool, device=device)
        stays[list(row_numbers)] = True
        indices = stays.repeat_interleave(torch.tensor(self.lengths, device=device)).nonzero()[:, 0]
        lengths, rows = tuple(self.lengths[row] for row in row_numbers), tuple(self.rows[row] for row in row_numbers)
        return Layout(self.positions.index_select(0, indices), lengths, rows), indices

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, heads: int, eager: bool) -> Tensor:
        """Attend within each row: three (T, h d) -> (T, h d). Rows of one length run in one call, unpadded."""
        if self.unpadded:
            shape = (len(self.lengths), self.lengths[0], query.shape[-1])
            context = attend(query.view(shape), key.view(shape), value.view(shape), heads=heads, eager=eager)
            return context.view(query.shape)
        context = torch.empty_like(query)
        for cells in self.cells:
            context[cells] = attend(query[cells], key[cells], value[cells], heads=heads, eager=eager)
        return context


def concatenate(layouts: Sequence[Layout]) -> Layout:
    """Put the rows of all layouts into one layout, in order."""
    return Layout(
        torch.cat([layout.positions for layout in layouts]),
        tuple(length for layout in layouts for length in layout.lengths),
        tuple(row for layout in layouts for row in layout.rows),
    )
