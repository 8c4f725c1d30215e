"""What ran: tokens, heads and neurons per example and layer, and where each example left.

A trace is all that cost, rationales and most plots read. B examples, N layers, L input positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Live(Protocol):
    """Which tokens of which examples are live."""

    @property
    def rows(self) -> tuple[int, ...]:
        """The examples, as numbered in the batch."""
        ...

    def kept(self, length: int) -> Tensor:
        """(rows, length) bool: their live positions."""
        ...


@dataclass(frozen=True)
class Step:
    """One layer run on some rows: `heads` and `neurons` hold one entry for each of `live.rows`."""

    layer: int
    live: Live
    heads: tuple[int, ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """What ran for each example of a batch; integer tensors on the CPU.

    Attributes:
        length: (B,) tokens entering layer 0.
        exit_depth: (B,) layers run, 1..N.
        tokens, heads, neurons: (B, N) per layer, 0 where the layer did not run.
        kept: (B, N, L) bool, the positions that were live in each layer.
        head_runs: (B,) classification heads evaluated: exits, and the final pooler and classifier.
        decision_macs: (B, N) multiply-adds that the policy's own modules spent before each layer.
    """

    length: Tensor
    exit_depth: Tensor
    tokens: Tensor
    heads: Tensor
    neurons: Tensor
    kept: Tensor
    head_runs: Tensor
    decision_macs: Tensor

    def until(self, depths: Tensor, *, head_runs: Tensor) -> Trace:
        """What would have run, had each example left after the first (B,) layers, with (B,) heads evaluated by then.

        Of a pass of all layers; a decision before the layer that did not run any more is not charged.
        """
        ran = torch.arange(self.tokens.shape[1]) < depths[:, None]
        return Trace(
            length=self.length,
            exit_depth=depths,
            tokens=self.tokens * ran,
            heads=self.heads * ran,
            neurons=self.neurons * ran,
            kept=self.kept & ran[..., None],
            head_runs=head_runs,
            decision_macs=self.decision_macs * ran,
        )


def trace_of(
    steps: Sequence[Step],
    *,
    mask: Tensor,
    layers: int,
    heads: Sequence[Sequence[int]],
    spent: Sequence[tuple[int, Sequence[int], Tensor | int]],
) -> Trace:
    """Gather steps into one trace.

    Args:
        mask: the batch's (B, L) attention mask.
        heads: the rows of each evaluation of a classification head.
        spent: of each decision that cost something the layer it was taken before, the rows, and their multiply-adds,
            or one number for each of them.
    """
    batch, length = mask.shape
    widths = torch.zeros(batch, layers, dtype=torch.int64)
    neurons, decision_macs = widths.clone(), widths.clone()
    head_runs = torch.zeros(batch, dtype=torch.int64)
    for rows in heads:
        head_runs[list(rows)] += 1
    for layer, rows, macs in spent:
        decision_macs[list(rows), layer] = macs if isinstance(macs, int) else macs.cpu()
    kept = torch.zeros(batch, layers, length, dtype=torch.bool)
    for step in steps:
        rows = list(step.live.rows)
        widths[rows, step.layer] = torch.tensor(step.heads)
        neurons[rows, step.layer] = torch.tensor(step.neurons)
        kept[rows, step.layer] = step.live.kept(length).cpu()
    return Trace(
        length=mask.sum(1).cpu(),
        exit_depth=kept.any(2).sum(1),
        tokens=kept.sum(2),
        heads=widths,
        neurons=neurons,
        kept=kept,
        head_runs=head_runs,
        decision_macs=decision_macs,
    )
