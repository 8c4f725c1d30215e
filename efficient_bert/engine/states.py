"""The live part of a batch between two layers: packed and really shrinking, or padded and masked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import torch
from torch import Tensor

from efficient_bert.encoder.attention import attend
from efficient_bert.encoder.bert import Layer
from efficient_bert.encoder.layout import Layout, concatenate
from efficient_bert.engine.decisions import Decision, View
from efficient_bert.engine.trace import Live

FADED = -30.0
"""Sum of fades below which a soft pass leaves a token out of a layer: no more than 1e-13 of it is left."""


RunBlock = Callable[[Layer, Tensor, int], Tensor]
"""(layer, the tokens of one text (T, D), heads) -> (T, D): carries a layer out otherwise than by calling it."""


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
        """Return (B, D): the [CLS] states of the live rows."""
        ...

    def view(self, depth: int, *, lengths: Tensor, logits: Tensor, fingerprints: Tensor | None) -> View:
        """Return what the policy sees; lengths and fingerprints (all examples,), logits (E, all examples, C)."""
        ...

    def apply(self, decision: Decision) -> Self:
        """Remove tokens and rows as decided."""
        ...

    def for_first_tokens(self) -> Self:
        """Return a state whose next layer runs for first tokens alone, where the execution allows it."""
        ...

    def run(self, layer: Layer, heads: tuple[int, ...]) -> Self:
        """Run a layer, at that many heads for each live row."""
        ...


@dataclass(frozen=True)
class Gathered:
    """Packed live tokens, (T, D); what is removed is gone.

    Attributes:
        run_block: runs each text through a layer, where the layers are not called themselves.
    """

    values: Tensor
    live: Layout
    eager: bool
    run_block: RunBlock | None = None

    def first(self) -> Tensor:
        return self.live.first(self.values)

    def view(self, depth: int, *, lengths: Tensor, logits: Tensor, fingerprints: Tensor | None) -> View:
        layout = self.live
        if layout.rows != tuple(range(len(lengths))):
            rows = list(layout.rows)
            lengths, logits = lengths[rows], logits[:, rows]
            fingerprints = None if fingerprints is None else fingerprints[rows]
        hidden, positions = layout.pad(self.values), layout.pad(layout.positions)
        return View(
            depth,
            hidden,
            layout.mask,
            positions,
            lengths,
            logits,
            fingerprints=fingerprints,
            unpadded=layout.unpadded,
        )

    def apply(self, decision: Decision) -> Gathered:
        state = self
        if decision.keep is not None:
            layout, indices = self.live.keep_tokens(decision.keep)
            state = replace(self, values=self.values.index_select(0, indices), live=layout)
        if decision.leave is None:
            return state
        return state._select_rows([row for row, leaves in enumerate(decision.leave.tolist()) if not leaves])

    def _select_rows(self, row_numbers: list[int]) -> Gathered:
        if len(row_numbers) == len(self.live.rows):
            return self
        layout, indices = self.live.keep_rows(row_numbers)
        return replace(self, values=self.values.index_select(0, indices), live=layout)

    def for_first_tokens(self) -> Gathered:
        return self

    def run(self, layer: Layer, heads: tuple[int, ...]) -> Gathered:
        widths = sorted(set(heads), reverse=True)
        if len(widths) == 1:
            return replace(self, values=self._run_layer(layer, widths[0]))
        parts = [self._select_rows([row for row, kept in enumerate(heads) if kept == count]) for count in widths]
        values = [part._run_layer(layer, count) for part, count in zip(parts, widths, strict=True)]
        return replace(self, values=torch.cat(values), live=concatenate([part.live for part in parts]))

    def _run_layer(self, layer: Layer, heads: int) -> Tensor:
        if self.run_block is not None:
            parts = [self.run_block(layer, part, heads) for part in self.values.split(self.live.lengths)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        def attend_live(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return self.live.attend(query, key, value, heads=heads, eager=self.eager)

        output: Tensor = layer(self.values, attend_live, heads=heads)
        return output


@dataclass(frozen=True)
class Masks:
    """The live cells of a padded batch: mask (all examples, L) bool, and the rows that have not left."""

    mask: Tensor
    rows: tuple[int, ...]

    @cached_property
    def unpadded(self) -> bool:
        """Whether every cell holds a token, so that no mask is needed."""
        return bool(self.mask.all())

    @cached_property
    def first_positions(self) -> Tensor:
        """(all examples,) int64: the position of each one's first token."""
        return self.mask.int().argmax(1)

    def live_positions(self, length: int) -> Tensor:
        """Return (rows, length) bool: the live positions of each of `rows`."""
        return self.mask[list(self.rows), :length]


@dataclass(frozen=True)
class Padded:
    """All examples, (B, L, D); what is removed is hidden by a mask (`masked`) or fades by a bias (`soft`).

    Attributes:
        soft: nobody leaves and no token is dropped; `fade` counts instead of `keep`.
        dropout: attention dropout probability.
        fades: each (B, L); their sum is added to the attention logits.
        attentions: receives the attention probabilities of every layer (eager attention only).
        first_tokens_only: layers run for first tokens alone; the others keep the states that entered them.
    """

    values: Tensor
    live: Masks
    soft: bool
    eager: bool
    dropout: float = 0.0
    fades: tuple[Tensor, ...] = ()
    attentions: list[Tensor] | None = None
    first_tokens_only: bool = False

    def first(self) -> Tensor:
        rows = torch.tensor(self.live.rows, device=self.values.device)
        return self.values[rows, self.live.first_positions[rows]]

    def view(self, depth: int, *, lengths: Tensor, logits: Tensor, fingerprints: Tensor | None) -> View:
        rows = list(self.live.rows)
        positions = torch.arange(self.values.shape[1], device=self.values.device).expand(len(rows), -1)
        fades = self.fades if self.soft else None
        chosen = None if fingerprints is None else fingerprints[rows]
        mask, hidden = self.live.mask[rows], self.values[rows]
        return View(depth, hidden, mask, positions, lengths[rows], logits[:, rows], fades, chosen)

    def apply(self, decision: Decision) -> Padded:
        if not self.soft:
            return self._remove(decision)
        return self if decision.fade is None else replace(self, fades=(*self.fades, decision.fade))

    def _remove(self, decision: Decision) -> Padded:
        mask, rows = self.live.mask, self.live.rows
        if decision.keep is not None:
            keep = decision.keep.clone()
            indices = torch.tensor(rows, device=mask.device)
            keep[torch.arange(len(rows)), self.live.first_positions[indices]] = True
            mask = mask.index_copy(0, indices, mask[indices] & keep)
        if decision.leave is not None:
            rows = tuple(row for row, leaves in zip(rows, decision.leave.tolist(), strict=True) if not leaves)
        return replace(self, live=Masks(mask, rows))

    def for_first_tokens(self) -> Padded:
        return replace(self, first_tokens_only=True) if self.soft else self

    def run(self, layer: Layer, heads: tuple[int, ...]) -> Padded:
        widths = sorted(set(heads), reverse=True)
        values = self._run_layer(layer, widths[0])
        for count in widths[1:]:
            narrow = torch.zeros(len(values), 1, 1, dtype=torch.bool, device=values.device)
            narrow[[row for row, kept in zip(self.live.rows, heads, strict=True) if kept == count]] = True
            values = torch.where(narrow, self._run_layer(layer, count), values)
        return replace(self, values=values)

    def _run_layer(self, layer: Layer, heads: int) -> Tensor:
        values, visible, cells = self._visible_states()
        if not self.first_tokens_only:
            output = self._attend(layer, values, visible, heads=heads)
            return output if cells is None else self.values.scatter(1, cells, output)
        rows = torch.arange(len(values), device=values.device)
        queries = self.values[rows, self.live.first_positions][:, None]
        output = self._attend(layer, values, visible, heads=heads, queries=queries)
        return self.values.index_put((rows, self.live.first_positions), output[:, 0])

    def _visible_states(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the states (B, l, D) that a layer runs on, how visible each is (B, l), and its position (B, l, D).

        None where everything is visible, and where all states run at the position that they have.
        """
        if not self.fades:  # the fused kernels are faster without a mask
            return self.values, None if self.live.unpadded else self.live.mask, None
        bias = torch.where(self.live.mask, torch.stack(self.fades).sum(0), -torch.inf)
        there = bias > FADED
        most = int(there.sum(1).max())
        if most == bias.shape[1] or self.eager:  # whose probabilities may be recorded
            return self.values, bias, None
        positions = there.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        cells = positions[..., None].expand(-1, -1, self.values.shape[-1])
        return self.values.gather(1, cells), bias.gather(1, positions), cells

    def _attend(
        self, layer: Layer, values: Tensor, visible: Tensor | None, *, heads: int, queries: Tensor | None = None
    ) -> Tensor:
        """Run the layer on (B, l, D), or for `queries` alone; (B, l) says which states are visible, or how much."""

        def attend_live(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attend(
                query,
                key,
                value,
                heads=heads,
                eager=self.eager,
                bias=None if visible is None else visible[:, None, None, :],
                rate=self.dropout if layer.training else 0.0,
                attentions=self.attentions,
            )

        output: Tensor = layer(values, attend_live, heads=heads, queries=queries)
        return output
