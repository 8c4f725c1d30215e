"""The live part of a batch between two layers: packed and really shrinking, or padded and masked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import torch
from torch import Tensor

from efficient_bert.bert import Layer
from efficient_bert.decisions import Decision, View
from efficient_bert.ragged import Layout, attend, concatenate
from efficient_bert.trace import Live

FADED = -30.0
"""Sum of fades below which a soft pass leaves a token out of a layer: no more than 1e-13 of it is left."""


class State(Protocol):
    """What the loop needs between two layers."""

    @property
    def values(self) -> Tensor:
        """Hidden states, packed (T, D) or padded (B, L, D)."""
        ...

    @property
    def live(self) -> Live:
        """The rows and tokens that are still there."""
        ...

    def first(self) -> Tensor:
        """(B, D): the [CLS] states of the live rows."""
        ...

    def view(self, depth: int, *, lengths: Tensor, logits: Tensor, numbers: Tensor | None) -> View:
        """What the policy sees; lengths and numbers (all examples,), logits (E, all examples, C)."""
        ...

    def apply(self, decision: Decision) -> Self:
        """Tokens and rows removed as decided."""
        ...

    def run(self, layer: Layer, heads: tuple[int, ...]) -> Self:
        """The layer's output, at that many heads for each live row."""
        ...


@dataclass(frozen=True)
class Gathered:
    """Packed live tokens, (T, D); what is removed is gone."""

    values: Tensor
    live: Layout
    eager: bool

    def first(self) -> Tensor:
        return self.live.first(self.values)

    def view(self, depth: int, *, lengths: Tensor, logits: Tensor, numbers: Tensor | None) -> View:
        layout = self.live
        if layout.rows != tuple(range(len(lengths))):
            rows = list(layout.rows)
            lengths, logits = lengths[rows], logits[:, rows]
            numbers = None if numbers is None else numbers[rows]
        hidden, positions = layout.pad(self.values), layout.pad(layout.positions)
        return View(depth, hidden, layout.mask, positions, lengths, logits, numbers=numbers, whole=layout.even)

    def apply(self, decision: Decision) -> Gathered:
        state = self
        if decision.keep is not None:
            layout, places = self.live.keep_tokens(decision.keep)
            state = replace(self, values=self.values.index_select(0, places), live=layout)
        if decision.leave is None:
            return state
        return state._rows([row for row, leaves in enumerate(decision.leave.tolist()) if not leaves])

    def _rows(self, wanted: list[int]) -> Gathered:
        if len(wanted) == len(self.live.rows):
            return self
        layout, places = self.live.keep_rows(wanted)
        return replace(self, values=self.values.index_select(0, places), live=layout)

    def run(self, layer: Layer, heads: tuple[int, ...]) -> Gathered:
        widths = sorted(set(heads), reverse=True)
        if len(widths) == 1:
            return replace(self, values=self._layer(layer, widths[0]))
        parts = [self._rows([row for row, own in enumerate(heads) if own == count]) for count in widths]
        values = [part._layer(layer, count) for part, count in zip(parts, widths, strict=True)]
        return replace(self, values=torch.cat(values), live=concatenate([part.live for part in parts]))

    def _layer(self, layer: Layer, heads: int) -> Tensor:
        def within(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return self.live.attend(query, key, value, heads=heads, eager=self.eager)

        output: Tensor = layer(self.values, within, heads=heads)
        return output


@dataclass(frozen=True)
class Masks:
    """The live cells of a padded batch: mask (all examples, L) bool, and the rows that have not left."""

    mask: Tensor
    rows: tuple[int, ...]

    @cached_property
    def whole(self) -> bool:
        """Every cell holds a token: no mask is needed."""
        return bool(self.mask.all())

    @cached_property
    def first(self) -> Tensor:
        """(all examples,): the place of each one's first token."""
        return self.mask.int().argmax(1)

    def kept(self, length: int) -> Tensor:
        """(rows, length) bool."""
        return self.mask[list(self.rows), :length]


@dataclass(frozen=True)
class Padded:
    """All examples, (B, L, D); what is removed is hidden by a mask (`masked`) or fades by a bias (`soft`).

    Attributes:
        soft: nobody leaves and no token is dropped; `fade` counts instead of `keep`.
        dropout: attention dropout probability.
        fades: each (B, L); their sum is added to the attention logits.
        seen: receives the attention probabilities of every layer (eager attention only).
        brief: layers run for first tokens alone; the others keep the states that entered them.
    """

    values: Tensor
    live: Masks
    soft: bool
    eager: bool
    dropout: float = 0.0
    fades: tuple[Tensor, ...] = ()
    seen: list[Tensor] | None = None
    brief: bool = False

    def first(self) -> Tensor:
        rows = torch.tensor(self.live.rows, device=self.values.device)
        return self.values[rows, self.live.first[rows]]

    def view(self, depth: int, *, lengths: Tensor, logits: Tensor, numbers: Tensor | None) -> View:
        rows = list(self.live.rows)
        positions = torch.arange(self.values.shape[1], device=self.values.device).expand(len(rows), -1)
        fades = self.fades if self.soft else None
        mask, own = self.live.mask[rows], None if numbers is None else numbers[rows]
        return View(depth, self.values[rows], mask, positions, lengths[rows], logits[:, rows], fades, own)

    def apply(self, decision: Decision) -> Padded:
        if not self.soft:
            return self._remove(decision)
        return self if decision.fade is None else replace(self, fades=(*self.fades, decision.fade))

    def _remove(self, decision: Decision) -> Padded:
        mask, rows = self.live.mask, self.live.rows
        if decision.keep is not None:
            keep = decision.keep.clone()
            places = torch.tensor(rows, device=mask.device)
            keep[torch.arange(len(rows)), self.live.first[places]] = True
            mask = mask.index_copy(0, places, mask[places] & keep)
        if decision.leave is not None:
            rows = tuple(row for row, leaves in zip(rows, decision.leave.tolist(), strict=True) if not leaves)
        return replace(self, live=Masks(mask, rows))

    def run(self, layer: Layer, heads: tuple[int, ...]) -> Padded:
        widths = sorted(set(heads), reverse=True)
        values = self._layer(layer, widths[0])
        for count in widths[1:]:
            narrow = torch.zeros(len(values), 1, 1, dtype=torch.bool, device=values.device)
            narrow[[row for row, own in zip(self.live.rows, heads, strict=True) if own == count]] = True
            values = torch.where(narrow, self._layer(layer, count), values)
        return replace(self, values=values)

    def _layer(self, layer: Layer, heads: int) -> Tensor:
        values, visible, places = self._seen()
        if not self.brief:
            output = self._attended(layer, values, visible, heads=heads)
            return output if places is None else self.values.scatter(1, places, output)
        rows = torch.arange(len(values), device=values.device)
        asking = self.values[rows, self.live.first][:, None]
        output = self._attended(layer, values, visible, heads=heads, asking=asking)
        return self.values.index_put((rows, self.live.first), output[:, 0])

    def _seen(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The states (B, l, D) that a layer runs on, what is seen of them (B, l), and where they were (B, l, D).

        None: everything is seen, and all states run where they are.
        """
        if not self.fades:  # the fused kernels are faster without a mask
            return self.values, None if self.live.whole else self.live.mask, None
        bias = torch.where(self.live.mask, torch.stack(self.fades).sum(0), -torch.inf)
        there = bias > FADED
        most = int(there.sum(1).max())
        if most == bias.shape[1] or self.eager:  # whose probabilities may be asked for
            return self.values, bias, None
        places = there.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        wide = places[..., None].expand(-1, -1, self.values.shape[-1])
        return self.values.gather(1, wide), bias.gather(1, places), wide

    def _attended(
        self, layer: Layer, values: Tensor, visible: Tensor | None, *, heads: int, asking: Tensor | None = None
    ) -> Tensor:
        """The layer's output on (B, l, D), or on what asks, where (B, l) says what is seen, or how much of it."""

        def within(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attend(
                query,
                key,
                value,
                heads=heads,
                eager=self.eager,
                bias=None if visible is None else visible[:, None, None, :],
                rate=self.dropout if layer.training else 0.0,
                seen=self.seen,
            )

        output: Tensor = layer(values, within, heads=heads, asking=asking)
        return output
